"""How good the rivals are on the evaluation set: tables `rival_scores` and `rival_costs`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cmass import seeds
from cmass.evaluate import metrics
from cmass.evaluate.calibration import coverage_error, interval_coverage, perfect_like
from cmass.params import Params
from cmass.rivals.units import Unit
from cmass.tables import make_table, to_numpy

Array = NDArray[np.float64]
Statistic = Callable[[metrics.Rows], float]

#: The estimator that the others' scatter is divided by.
REFERENCE = "dispersion"
_LEVEL_68 = 0.68268949
_PERFECT_ROUNDS = 300


def score_rows(
    predictions: pa.Table, n_members: NDArray[np.integer], reference: Array | None, params: Params
) -> list[dict[str, Any]]:
    """Rows (metric, value, error, unit) of one unit.

    Parameters
    ----------
    predictions : pyarrow.Table
        Rows of table `rival_predictions` of one estimator and seed.
    n_members : ndarray, shape (n,)
        True members inside R200c.
    reference : ndarray, shape (n,), optional
        Point estimates of `REFERENCE` for the same clusters; none: it was not fitted.
    params : Params
    """
    true, point, below, crps, log_score, width, halo = to_numpy(
        predictions, "log10_m200c_true", "log10_m200c", "probability_below_true", "crps",
        "log_score", "width_68", "halo_id",
    )  # fmt: skip
    # The same draws of haloes for every estimator: differences are less noisy than the values.
    bootstrap = metrics.Bootstrap(halo, seeds.generator(params.seed, "rivals-bootstrap"))
    epsilon = metrics.residual(true, point)
    has_point, has_posterior = np.isfinite(epsilon), np.isfinite(below)
    massive = has_point & (true > params.rivals.massive_log10_m200c)
    rows: list[dict[str, Any]] = []

    def add(metric: str, value: float, error: float | None = None, unit: str = "") -> None:
        rows.append(
            {"metric": metric, "value": _known(value), "error": _known(error), "unit": unit}
        )

    def measure(
        metric: str, statistic: Statistic, where: NDArray[np.bool_], unit: str = "dex"
    ) -> None:
        chosen = np.flatnonzero(where)
        value = statistic(chosen) if chosen.size else float("nan")
        add(metric, value, bootstrap.error(statistic, where) if chosen.size > 1 else None, unit)

    add("fitted", 1.0)
    add("n_clusters", true.size)
    add("n_without", int((~(has_point & has_posterior)).sum()))
    measure("epsilon_mean", lambda r: float(epsilon[r].mean()), has_point)
    measure("epsilon_scatter", lambda r: metrics.scatter(epsilon[r]), has_point)
    measure("epsilon_scatter_robust", lambda r: metrics.robust_scatter(epsilon[r]), has_point)
    measure("epsilon_scatter_massive", lambda r: metrics.scatter(epsilon[r]), massive)
    for number, metric in enumerate(("sigma_n", "sigma_0")):

        def fit(r: metrics.Rows, number: int = number) -> float:
            return metrics.fit_richness_scatter(epsilon[r], point[r], n_members[r])[number]

        errors = bootstrap.errors(fit, has_point, metrics.BOOTSTRAP_ROUNDS_FIT)
        add(metric, fit(np.flatnonzero(has_point)), float(errors[0]), "dex")
    measure("coverage_error", lambda r: coverage_error(below[r]), has_posterior, "")
    if has_posterior.any():
        random = seeds.generator(params.seed, "rivals-perfect")
        perfect = perfect_like(below[has_posterior], halo[has_posterior], random, _PERFECT_ROUNDS)
        by_chance = np.quantile([coverage_error(u) for u in perfect], 0.95)
        add("coverage_error_chance", float(by_chance))
    measure("coverage_68", lambda r: float(interval_coverage(below[r], _LEVEL_68)[0]),
            has_posterior, "")  # fmt: skip
    measure("crps", lambda r: float(crps[r].mean()), has_posterior)
    measure("log_score", lambda r: float(log_score[r].mean()), has_posterior, "nat")
    measure("width_68", lambda r: float(width[r].mean()), has_posterior)
    if reference is not None:
        plain = metrics.residual(true, reference)
        both = has_point & np.isfinite(plain)
        for metric, spread in (
            ("scatter_ratio", metrics.scatter),
            ("scatter_robust_ratio", metrics.robust_scatter),
        ):

            def ratio(r: metrics.Rows, spread: Callable[..., float] = spread) -> float:
                other = spread(plain[r])
                return spread(epsilon[r]) / other if other > 0 else float("nan")

            measure(metric, ratio, both, "")
    return rows


def _known(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


def scores_table(
    units: Sequence[Unit], not_fitted: Mapping[str, str], n_members: Mapping[str, int],
    params: Params,
) -> pa.Table:  # fmt: skip
    """Table `rival_scores` of units that are made; one row ``fitted`` 0 for each that is not.

    Parameters
    ----------
    units : sequence of Unit
    not_fitted : mapping of str to str
        Why an estimator could not be fitted, by its name.
    n_members : mapping of str to int
        True members inside R200c by cluster.
    params : Params
    """
    made = [u for u in units if u.name not in not_fitted]
    plain = next((u.predictions() for u in made if u.name == REFERENCE), None)
    estimate = {} if plain is None else dict(
        zip(plain["cluster_id"].to_pylist(), to_numpy(plain, "log10_m200c")[0], strict=True)
    )  # fmt: skip
    columns: dict[str, list[Any]] = {
        n: [] for n in ("estimator", "seed", "metric", "value", "error", "unit")
    }
    for unit in units:
        if unit.name in not_fitted:
            rows = [{"metric": "fitted", "value": 0.0, "error": None, "unit": ""}]
        else:
            table = unit.predictions()
            ids = table["cluster_id"].to_pylist()
            members = np.array([n_members[i] for i in ids])
            reference = np.array([estimate[i] for i in ids]) if estimate else None
            rows = score_rows(table, members, reference, params)
        for row in rows:
            for name, value in {"estimator": unit.name, "seed": unit.number, **row}.items():
                columns[name].append(value)
    return make_table("rival_scores", columns)


def costs_table(units: Sequence[Unit], not_fitted: Mapping[str, str]) -> pa.Table:
    """Table `rival_costs`: what each unit needed, and why it is not there."""
    rows = []
    for unit in units:
        reason = not_fitted.get(unit.name, "")
        card = {} if reason else unit.card()
        rows.append(
            {
                "estimator": unit.name, "seed": unit.number, "fitted": not reason,
                "note": reason or card.get("note", ""),
                "n_parameters": card.get("n_parameters"),
                "training_seconds": card.get("training_seconds"),
                "seconds_per_1000": card.get("seconds_per_1000"),
            }
        )  # fmt: skip
    names = ("estimator", "seed", "fitted", "note", "n_parameters", "training_seconds",
             "seconds_per_1000")  # fmt: skip
    return make_table("rival_costs", {n: [row[n] for row in rows] for n in names})


# ------------------------------------------------------------------------------ over seeds


def score(scores: pa.Table, name: str, metric: str) -> tuple[Array, Array]:
    """Values and errors of one metric of one estimator, one a seed (table `rival_scores`)."""
    own = scores.filter(
        pc.and_(pc.equal(scores["estimator"], name), pc.equal(scores["metric"], metric))
    )
    values, errors = to_numpy(own.sort_by("seed"), "value", "error")
    return values, errors


def over_seeds(values: Array, errors: Array) -> tuple[float, float | None]:
    """Mean over seeds, and its error: that of the windows, and of the seeds where there are more.

    The windows are the same for all seeds, so their error does not fall with more of them.
    """
    known = np.isfinite(values)
    if not known.any():
        return float("nan"), None
    values, errors = values[known], errors[known]
    windows = np.nanmean(errors) if np.isfinite(errors).any() else 0.0
    seeds = values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else 0.0
    both = float(np.hypot(windows, seeds))
    return float(values.mean()), both or None


def estimators_by_scatter(scores: pa.Table) -> list[str]:
    """Estimators that were fitted, the one of least scatter first."""
    names = dict.fromkeys(scores["estimator"].to_pylist())
    found = {n: over_seeds(*score(scores, n, "epsilon_scatter"))[0] for n in names}
    return sorted((n for n in found if np.isfinite(found[n])), key=lambda n: found[n])


def n_seeds(scores: pa.Table, name: str) -> int:
    """Seeds of an estimator in table `rival_scores`."""
    return len(pc.unique(scores.filter(pc.equal(scores["estimator"], name))["seed"]))
