"""Our masses of a survey's clusters beside GalWeight's, and beside what the mocks predict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import poisson

from cmass.columns import FLAGS
from cmass.evaluate import Numbers, calibration, metrics
from cmass.evaluate.forward import (
    Prediction,
    Ratios,
    Weighed,
    kolmogorov_smirnov,
    observed_errors,
    predict,
    predicted_errors,
    pull,
    selection,
    shape_of,
)
from cmass.params import InferParams
from cmass.posterior import TAIL, cumulative_at
from cmass.tables import make_table, to_numpy

Array = NDArray[np.float64]

#: Bins of the histograms of offsets, dex.
_OFFSET_EDGES = np.linspace(-1.5, 1.5, 61)
#: |log10(M_virial/M_GalWeight)| beyond which the imitation has failed, dex.
_FAILED_DEX = 0.4
_PAPER = {"pull_mean": -0.02, "pull_std": 1.05}


def _name(statistic: str) -> str:
    return statistic if statistic.startswith("pull") else f"galweight_{statistic}"


def halves(number: NDArray[np.integer]) -> dict[str, NDArray[np.bool_]]:
    """Masks of all clusters and of those with even and odd numbers."""
    return {"all": np.ones(number.size, bool), "even": number % 2 == 0, "odd": number % 2 == 1}


class Comparison:
    """Survey, population and GalWeight's ratios, ready for a forward model.

    Parameters
    ----------
    survey : Weighed
        The survey's clusters; ``count`` is not used.
    reference, error : ndarray, shape (n,)
        log10 of GalWeight's M200 and its error in dex; NaN where missing.
    number : ndarray of int, shape (n,)
        Numbers in the clusters' identifiers: even ones lend their ratios.
    population : Weighed
        ``count`` is what the survey's volume holds.
    how : InferParams
    """

    def __init__(
        self, survey: Weighed, reference: Array, error: Array, number: NDArray[np.integer],
        population: Weighed, how: InferParams,
    ) -> None:  # fmt: skip
        self.survey, self.reference, self.error = survey, reference, error
        self.population, self.how = population, how
        self.halves = halves(number)
        even = self.halves["even"]
        self.ratios = Ratios.of(survey.virial[even], reference[even], error[even])
        catalogued = np.isfinite(reference) & np.isfinite(error)
        self.catalogued = catalogued
        # The prediction has no window without a virial mass either.
        self.compared = catalogued & np.isfinite(survey.p50) & np.isfinite(survey.virial)

    def observed(self, half: str) -> tuple[Array, Array]:
        """Offsets log10(M_pred/M_GalWeight) and pulls of the clusters compared."""
        rows = self.compared & self.halves[half]
        own, reference = self.survey.rows(rows), self.reference[rows]
        pulls = pull(own.p16, own.p50, own.p84, reference, self.error[rows])
        return own.p50 - reference, pulls

    def selected(self, half: str) -> Weighed:
        """The clusters that the selection is measured on: all with a GalWeight mass."""
        return self.survey.rows(self.catalogued & self.halves[half])

    def expected_reference(self) -> tuple[Array, Array]:
        """GalWeight's masses of the whole population, and the numbers they stand for.

        Without the selection: what a finder that misses nothing would catalogue.
        """
        mocks = self.population
        known = np.isfinite(mocks.virial)
        if not self.ratios.virial.size:
            return np.empty(0), np.empty(0)
        ratio, _ = self.ratios.near(mocks.virial[known], self.how.match_neighbours)
        number = np.repeat(mocks.count[known] / ratio.shape[1], ratio.shape[1])
        return (mocks.virial[known][:, None] + ratio).ravel(), number

    def prediction(self, half: str) -> Prediction:
        """What the mocks predict for a half; see `forward.predict`."""
        return predict(self.population, self.selected(half), self.ratios, self.how)


def add_comparison(
    numbers: Numbers, comparison: Comparison, survey: str, rng: np.random.Generator
) -> None:
    """Add observed and predicted numbers of each half.

    Rows of all clusters carry the survey's name as `bin`, those of the halves
    ``<survey>_even`` and ``<survey>_odd``. Predicted ones start with ``expected_``.
    """
    how = comparison.how
    for half in comparison.halves:
        bin = survey if half == "all" else f"{survey}_{half}"
        offset, pulls = comparison.observed(half)
        numbers.add("n_compared", offset.size, bin=bin)
        found = shape_of(offset, pulls)
        errors = observed_errors(offset, pulls, how.bootstrap_rounds, rng) if found else {}
        for statistic, value in found.items():
            numbers.add(_name(statistic), value, bin=bin, error=errors.get(statistic),
                        paper=_PAPER.get(statistic), unit=_unit(statistic))  # fmt: skip
        one = comparison.prediction(half)
        expected = shape_of(one.offset, one.pull, one.weight)
        if not expected:
            continue
        doubt = predicted_errors(
            comparison.population, comparison.selected(half), comparison.ratios, how, rng
        )
        numbers.add("expected_n_compared", one.weight.sum(), bin=bin)
        numbers.add("expected_n_windows_effective", one.n_windows_effective, bin=bin)
        numbers.add("expected_n_unmatched", one.n_unmatched, bin=bin)
        for statistic, value in expected.items():
            numbers.add(f"expected_{_name(statistic)}", value, bin=bin,
                        error=doubt.get(statistic), unit=_unit(statistic))  # fmt: skip
        if found:
            both = {k: np.hypot(errors.get(k, np.nan), doubt.get(k, np.nan)) for k in found}
            numbers.add("galweight_offset_mean_beyond_expected",
                        found["offset_mean"] - expected["offset_mean"], bin=bin,
                        error=both["offset_mean"], unit="dex")  # fmt: skip
            numbers.add("galweight_scatter_over_expected", found["scatter"] / expected["scatter"],
                        bin=bin, error=both["scatter"] / expected["scatter"])  # fmt: skip
            distance, chance = kolmogorov_smirnov(offset, one.offset, one.weight, rng)
            numbers.add("galweight_offset_ks_distance", distance, bin=bin)
            numbers.add("galweight_offset_ks_chance", chance, bin=bin)


def _unit(statistic: str) -> str:
    return "" if statistic.startswith("pull") else "dex"


def add_imitation(numbers: Numbers, comparison: Comparison, survey: str) -> None:
    """Add how well the virial masses reproduce GalWeight's, and the selection by mass."""
    for half, rows in comparison.halves.items():
        bin = survey if half == "all" else f"{survey}_{half}"
        difference = (comparison.survey.virial - comparison.reference)[rows]
        missing = np.isfinite(comparison.reference[rows]) & np.isnan(difference)
        numbers.add("n_without_virial", int(missing.sum()), bin=bin)
        known = difference[np.isfinite(difference)]
        if known.size < 2:
            continue
        numbers.add("virial_offset_median", float(np.median(known)), bin=bin,
                    error=1.2533 * metrics.scatter(known) / np.sqrt(known.size),
                    unit="dex")  # fmt: skip
        numbers.add("virial_scatter", metrics.scatter(known), bin=bin, unit="dex")
        numbers.add("virial_scatter_robust", metrics.robust_scatter(known), bin=bin, unit="dex")
        numbers.add("virial_failed", float((np.abs(known) > _FAILED_DEX).mean()), bin=bin)
    _, _, by_mass = selection(comparison.population, comparison.selected("all"), comparison.how)
    for low, high, ratio in by_mass:
        numbers.add("selection", ratio, bin=f"virial {low:.2f}-{high:.2f}")


def add_counts(
    numbers: Numbers, how: InferParams, edges: Array, measured: dict[str, Array],
    measured_posteriors: dict[str, Array], expected: dict[str, tuple[Array, Array]],
    expected_posteriors: dict[str, tuple[Array, Array]], theory: dict[float, float],
) -> None:  # fmt: skip
    """Add the numbers of clusters above each mass: measured, theory and forward model.

    Rows `n_above_<estimator>` with the threshold as `bin`; the forward model's start with
    ``expected_``. ``point`` is the network's estimate, ``cnn3d`` the posterior's median,
    ``posterior`` the sum of posterior probabilities above, ``posterior_hmf`` the same under the
    mass function for the prior, which alone is meant to return the mass function. Errors are
    Poisson's, and ``chance_above_<estimator>`` is how likely Poisson noise about the forward
    model gives a count as far off (two-sided).

    Parameters
    ----------
    numbers : Numbers
    how : InferParams
    edges : (n_bins + 1,)
        Bins of the posteriors, log10 M200c.
    measured : dict of str to ndarray
        log10 masses by estimator.
    measured_posteriors : dict of str to (n, n_bins)
        Posteriors by prior.
    expected : dict of str to (log10 masses, numbers)
        Weighted samples of the whole population by estimator.
    expected_posteriors : dict of str to ((n, n_bins), (n,))
        Posteriors and numbers, by prior.
    theory : dict of float to float
        Haloes above each mass by Tinker+2008.
    """

    def above(posterior: Array, threshold: float) -> Array:
        return 1 - cumulative_at(posterior, edges, np.full(len(posterior), threshold))

    for threshold in how.count_above_log10_m200c:
        bin = f"above {threshold:.1f}"
        numbers.add("n_above_tinker08", theory[threshold], bin=bin,
                    error=np.sqrt(theory[threshold]))  # fmt: skip
        for name, masses in measured.items():
            found = float((masses > threshold).sum())
            numbers.add(f"n_above_{name}", found, bin=bin, error=np.sqrt(found))
            if name not in expected:
                continue
            values, weight = expected[name]
            model = float(weight[values > threshold].sum())
            numbers.add(f"expected_n_above_{name}", model, bin=bin, error=np.sqrt(model))
            low, high = poisson.cdf(found, model), poisson.sf(found - 1, model)
            numbers.add(f"chance_above_{name}", min(1.0, 2 * min(low, high)), bin=bin)
        for name, posterior in measured_posteriors.items():
            part = above(posterior, threshold)
            numbers.add(f"n_above_{name}", float(part.sum()), bin=bin,
                        error=np.sqrt((part**2).sum()))  # fmt: skip
            if name not in expected_posteriors:
                continue
            values, weight = expected_posteriors[name]
            part = above(values, threshold)
            numbers.add(f"expected_n_above_{name}", float(weight @ part), bin=bin,
                        error=float(np.sqrt(weight @ part**2)))  # fmt: skip


def add_truth(
    numbers: Numbers, survey: str, true: Array, own: Weighed, posterior: Array, edges: Array,
    rounds: int, rng: np.random.Generator,
) -> None:  # fmt: skip
    """Add offsets, pulls and coverage against a known truth.

    Parameters
    ----------
    numbers : Numbers
    survey : str
    true : ndarray, shape (n,)
        log10 M200c of clusters with a posterior.
    own : Weighed
    posterior, edges : ndarray, shape (n, n_bins) and (n_bins + 1,)
    rounds : int
    rng : numpy.random.Generator
    """
    offset, pulls = own.p50 - true, pull(own.p16, own.p50, own.p84, true)
    found = shape_of(offset, pulls)
    errors = observed_errors(offset, pulls, rounds, rng) if found else {}
    for statistic in ("offset_mean", "offset_median", "scatter", "scatter_robust", "pull_mean",
                      "pull_std"):  # fmt: skip
        if statistic in found:
            numbers.add(f"truth_{statistic}", found[statistic], bin=survey,
                        error=errors.get(statistic), unit=_unit(statistic))  # fmt: skip
    if not len(posterior):
        return
    transform = cumulative_at(posterior, edges, true)
    for metric, level in (("coverage_68", 1 - 2 * TAIL), ("coverage_95", 1 - 2 * ndtr(-2))):
        value = float(calibration.interval_coverage(transform, level)[0])
        spread = np.sqrt(level * (1 - level) / transform.size)
        numbers.add(f"truth_{metric}", value, bin=survey, error=spread)


def add_sample(numbers: Numbers, masses: pa.Table, survey: str) -> None:
    """Add how many clusters there are, and how many carry each flag."""
    p50, flag = to_numpy(masses, "log10_m200c_p50", "flag")
    numbers.add("n_clusters", masses.num_rows, bin=survey)
    numbers.add("n_without_posterior", int(np.isnan(p50).sum()), bin=survey)
    for one in FLAGS.values():
        numbers.add(f"n_flag_{one.name}", int(((flag & one.value) > 0).sum()), bin=survey)


def offsets_table(comparison: Comparison) -> pa.Table:
    """Table `offsets`: histograms of observed and predicted offsets by half.

    The outermost bins hold what lies beyond them; predictions are scaled to the number of
    clusters compared.
    """
    columns: dict[str, list[Any]] = {
        name: [] for name in ("half", "offset_low", "offset_high", "n_observed", "n_predicted")
    }
    inside = _OFFSET_EDGES[[0, -1]] + [1e-9, -1e-9]
    for half in comparison.halves:
        offset, _ = comparison.observed(half)
        one = comparison.prediction(half)
        counts = np.histogram(np.clip(offset, *inside), _OFFSET_EDGES)[0]
        model = np.histogram(np.clip(one.offset, *inside), _OFFSET_EDGES, weights=one.weight)[0]
        if model.sum() > 0:
            model = model * offset.size / model.sum()
        columns["half"] += [half] * counts.size
        columns["offset_low"] += _OFFSET_EDGES[:-1].tolist()
        columns["offset_high"] += _OFFSET_EDGES[1:].tolist()
        columns["n_observed"] += counts.tolist()
        columns["n_predicted"] += model.tolist()
    return make_table("offsets", columns)
