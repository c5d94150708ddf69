"""evaluate: how good the masses are, on mocks that neither network nor density have seen."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cmass import cosmology, pretrained, seeds
from cmass.evaluate import calibration, metrics
from cmass.headline import write_metrics
from cmass.params import Params
from cmass.posterior import PREDICTION_COLUMNS, prediction_table
from cmass.recalibration import pairs_of
from cmass.tables import make_table, read_table, to_numpy, write_table
from cmass.workspace import Workspace

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

#: Quantiles of the residuals: 2, 1 and 0 sigma of a normal.
BANDS = {"p2_5": 0.02275, "p16": 0.15866, "p50": 0.5, "p84": 0.84134, "p97_5": 0.97725}
#: Fewest clusters in a mass bin that gets numbers of its own.
_BIN_MIN = 10


class Numbers:
    """Rows of table `calibration`, in the order they are added."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def add(
        self,
        metric: str,
        value: float,
        *,
        bin: str = "all",
        error: float | None = None,
        paper: float | None = None,
        unit: str = "",
    ) -> None:
        """Add one number; values that are not finite become missing."""

        def known(x: float | None) -> float | None:
            return float(x) if x is not None and np.isfinite(x) else None

        self._rows.append(
            {"metric": metric, "bin": bin, "value": known(value), "error": known(error),
             "paper_value": paper, "unit": unit}
        )  # fmt: skip

    def table(self) -> pa.Table:
        """The table, checked by name and type."""
        names = ("metric", "bin", "value", "error", "paper_value", "unit")
        return make_table("calibration", {n: [row[n] for row in self._rows] for n in names})


def add_residuals(
    numbers: Numbers,
    name: str,
    epsilon: Array,
    bootstrap: metrics.Bootstrap,
    *,
    bin: str = "all",
    where: NDArray[np.bool_] | None = None,
    paper: tuple[float | None, float | None] = (None, None),
) -> None:
    """Add mean, scatter and robust scatter of residuals, with bootstrap errors."""
    chosen = np.isfinite(epsilon) if where is None else np.isfinite(epsilon) & where
    rows = np.flatnonzero(chosen)
    for metric, statistic, reference in (
        ("mean", np.mean, paper[0]),
        ("scatter", metrics.scatter, paper[1]),
        ("scatter_robust", metrics.robust_scatter, None),
    ):

        def of_rows(sample: metrics.Rows, statistic=statistic) -> float:
            return float(statistic(epsilon[sample])) if sample.size else float("nan")

        value, error = of_rows(rows), bootstrap.error(of_rows, chosen)
        numbers.add(f"{name}_{metric}", value, bin=bin, error=error, paper=reference, unit="dex")


def calibration_numbers(
    true: Array,
    predicted: Array,
    by_dispersion: Array,
    n_members: NDArray[np.integer],
    groups: NDArray[np.integer],
    curve: calibration.CoverageCurve,
    transform: Array,
    params: Params,
) -> Numbers:
    """Rows of table `calibration` of the evaluation set: residuals, coverage, scatter.

    Parameters
    ----------
    true, predicted, by_dispersion : ndarray, shape (n,)
        log10 M200c in h⁻¹ M☉: truth, the network's point estimate, sigma-M (NaN: none).
    n_members : ndarray, shape (n,)
    groups : ndarray, shape (n,)
        Halo of each cluster, resampled as one.
    curve : CoverageCurve
    transform : ndarray, shape (n,)
        Posterior probability below the truth; NaN where there is no posterior.
    params : Params
    """
    numbers = Numbers()
    bootstrap = metrics.Bootstrap(groups, seeds.generator(params.seed, "evaluate-bootstrap"))
    epsilon = metrics.residual(true, predicted)
    rival = metrics.residual(true, by_dispersion)
    numbers.add("n_clusters", true.size)
    numbers.add("n_haloes", np.unique(groups).size)
    numbers.add("n_without_posterior", int(np.isnan(transform).sum()))
    add_residuals(numbers, "epsilon", epsilon, bootstrap, paper=(0.04, 0.16))
    edges = metrics.mass_bin_edges(true, params.evaluate.mass_bin_dex)
    for low, high in pairwise(edges):
        inside = (true >= low) & (true < high)
        if inside.sum() >= _BIN_MIN:
            name = f"{low:.2f}-{high:.2f}"
            add_residuals(numbers, "epsilon", epsilon, bootstrap, bin=name, where=inside)
    known = np.isfinite(transform)
    for metric, level in (("coverage_68", 0.68268949), ("coverage_95", 0.95449974)):

        def covered(rows: metrics.Rows, level: float = level) -> float:
            return float(calibration.interval_coverage(transform[rows], level)[0])

        error = bootstrap.error(covered, known)
        value = covered(np.flatnonzero(known)) if known.any() else float("nan")
        numbers.add(metric, value, error=error)
    numbers.add("coverage_error_max", curve.largest_error)
    numbers.add("coverage_error_mean", curve.expected_error)
    numbers.add("n_without_dispersion", int(np.isnan(rival).sum()))
    add_residuals(numbers, "dispersion_epsilon", rival, bootstrap)
    # The ratio compares both estimators on the clusters that both have a mass for.
    both = np.isfinite(rival)
    for metric, statistic in (
        ("scatter_ratio_to_dispersion", metrics.scatter),
        ("scatter_robust_ratio_to_dispersion", metrics.robust_scatter),
    ):

        def ratio(rows: metrics.Rows, statistic=statistic) -> float:
            below = statistic(rival[rows])
            return statistic(epsilon[rows]) / below if below > 0 else float("nan")

        value, error = ratio(np.flatnonzero(both)), bootstrap.error(ratio, both)
        numbers.add(metric, value, error=error)
    for bin, rest, estimate, paper in (
        ("cnn3d", epsilon, predicted, (0.04, 0.08)),
        ("sigma_m", rival, by_dispersion, (None, None)),
    ):
        fitted = metrics.fit_richness_scatter(rest, estimate, n_members)

        def fit(rows: metrics.Rows, rest=rest, estimate=estimate) -> tuple[float, float]:
            return metrics.fit_richness_scatter(rest[rows], estimate[rows], n_members[rows])

        errors = bootstrap.errors(fit, np.isfinite(rest), metrics.BOOTSTRAP_ROUNDS_FIT)
        for part, metric in enumerate(("sigma_n", "sigma_0")):
            numbers.add(metric, fitted[part], bin=bin, error=float(errors[part]),
                        paper=paper[part], unit="dex")  # fmt: skip
    return numbers


def residuals_table(true: Array, predicted: Array, width_dex: float) -> pa.Table:
    """Table `residuals`: mean, scatter and bands of epsilon by true mass (paper, Fig. 5)."""
    epsilon = metrics.residual(true, predicted)
    edges = metrics.mass_bin_edges(true, width_dex)
    columns: dict[str, list[Any]] = {
        "log10_m200c_low": [], "log10_m200c_centre": [], "log10_m200c_high": [], "n": [],
        "mean": [], "scatter": [], **{name: [] for name in BANDS},
    }  # fmt: skip
    for low, high in pairwise(edges):
        e = epsilon[(true >= low) & (true < high)]
        columns["log10_m200c_low"].append(low)
        columns["log10_m200c_centre"].append(0.5 * (low + high))
        columns["log10_m200c_high"].append(high)
        columns["n"].append(e.size)
        columns["mean"].append(float(e.mean()) if e.size else None)
        columns["scatter"].append(metrics.scatter(e) if e.size > 1 else None)
        bands = np.quantile(e, list(BANDS.values())) if e.size > 1 else [None] * len(BANDS)
        for name, value in zip(BANDS, bands, strict=True):
            columns[name].append(value)
    return make_table("residuals", columns)


def run(workspace: Workspace, params: Params) -> None:
    """Judge network, posteriors and sigma-M on the evaluation set.

    Writes `evaluation/predictions.parquet`, `calibration.parquet` (numbers beside the
    paper's), `coverage.parquet` and `residuals.parquet` (data behind the figures),
    `calibration_curves`, `_bins`, `_histograms` and `_scores.parquet` (before and after
    recalibration, as a whole and in bins, beside perfect posteriors; `evaluate.proof`), and
    `population.parquet`: what network and GalWeight say of the population.
    """
    from cmass.evaluate import proof
    from cmass.evaluate.population import population_table

    bundle = pretrained.from_workspace(workspace, params)
    clusters = read_table(workspace.mock / "clusters", "mock_clusters", PREDICTION_COLUMNS)
    predictions = prediction_table(
        workspace, params, bundle.network, clusters, "evaluation", bundle.relation
    )
    true, predicted, rival, members, halo, n_galaxies, z = to_numpy(
        predictions, "log10_m200c_true", "log10_m200c", "log10_m200c_dispersion", "n_members",
        "halo_id", "n_galaxies", "z",
    )  # fmt: skip
    windows = proof.Windows(
        true, predicted, n_galaxies.astype(float), z,
        cosmology.from_params(params.cosmology).comoving_distance_mpc_h(z),
        1 - members / n_galaxies, halo, proof.abundance(true, bundle, params), bundle.edges,
    )  # fmt: skip
    test = pairs_of(read_table(workspace.posterior / "predictions.parquet", "predictions"))
    judged = proof.judge(windows, bundle, test, params)
    published = judged[proof.RECALIBRATED]
    curve = published.curve
    transform = np.full(true.size, np.nan)
    transform[published.known] = published.transform
    numbers = calibration_numbers(true, predicted, rival, members, halo, curve, transform, params)
    proof.add_numbers(numbers, judged)
    table = numbers.table()
    folder = workspace.evaluation
    write_table(folder / "predictions.parquet", predictions, "predictions")
    write_table(folder / "calibration.parquet", table, "calibration")
    write_metrics(folder / "metrics.json", table)
    coverage = {
        "level": curve.level, "coverage": curve.coverage,
        "coverage_low": curve.low, "coverage_high": curve.high,
    }  # fmt: skip
    write_table(folder / "coverage.parquet", make_table("coverage", coverage), "coverage")
    for name, diagnostics in proof.tables(judged, proof.priors_of(judged, bundle)).items():
        write_table(folder / f"{name}.parquet", diagnostics, name)
    residuals = residuals_table(true, predicted, params.evaluate.mass_bin_dex)
    write_table(folder / "residuals.parquet", residuals, "residuals")
    population = population_table(workspace, params, bundle)
    write_table(folder / "population.parquet", population, "population_masses")
    epsilon, plain = metrics.residual(true, predicted), metrics.residual(true, rival)
    log.info(
        "evaluate: %d mocks, epsilon %.3f ± %.3f dex (sigma-M %.3f ± %.3f), coverage error %.3f",
        true.size, epsilon.mean(), metrics.scatter(epsilon), np.nanmean(plain),
        metrics.scatter(plain[np.isfinite(plain)]), curve.largest_error,
    )  # fmt: skip
