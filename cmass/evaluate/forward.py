"""The comparison with GalWeight that the mocks predict: a forward model.

The prior of a posterior, mean reversion, the mass function (Eddington bias), the catalogue's
selection and GalWeight's own errors all shift log10(M_pred/M_GalWeight), even if the mocks
are exactly right. Here the population, every halo of the universe seen once, goes through
all of it:

1. each window stands for as many haloes as the mass function and the survey's volume hold;
2. it has the network's posterior, and a mass by the imitation of GalWeight (the virial
   mass, `cmass.galweight_mass`), both measured on its galaxies;
3. the survey's selection makes the population's distributions of (virial mass, distance) and of
   (richness, distance) those of the survey, both measured on the windows by the same functions:
   finders see galaxies, so a group whose dispersion is high by chance is not in the catalogue;
4. GalWeight's mass is the virial mass times a ratio M_GalWeight/M_virial that a cluster of
   the survey of like virial mass has. The ratios come from clusters with even numbers only.

No network mass of the survey enters. What is assumed: at given virial mass, richness and distance,
selection and that ratio have nothing more to do with the network's estimate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmass.params import InferParams
from cmass.posterior import TAIL

Array = NDArray[np.float64]

#: Quantiles of a distribution that are reported beside mean and scatter.
QUANTILES = {"p2_5": 0.02275, "p16": TAIL, "p50": 0.5, "p84": 1 - TAIL, "p97_5": 0.97725}


def facing_sigma(p16: Array, p50: Array, p84: Array, reference: Array) -> Array:
    """1-sigma error of a mass on the side that faces `reference` (dex), any shape.

    Posteriors are asymmetric: what a mass above ours is measured against is `sigma_plus`,
    what a mass below it is measured against is `sigma_minus`.
    """
    return np.where(reference > p50, p84 - p50, p50 - p16)


def pull(
    p16: Array, p50: Array, p84: Array, reference: Array, reference_err: Array | float = 0.0
) -> Array:
    """log10(M / M_reference) over the combined error (paper, section 5).

    M is the posterior median under the flat prior, its error the one facing the
    reference (`facing_sigma`).
    """
    sigma = np.hypot(facing_sigma(p16, p50, p84, reference), reference_err)
    return (p50 - reference) / sigma


@dataclass(frozen=True)
class Weighed:
    """Windows with what network and virial estimator say of them; logs of h⁻¹ M☉.

    Attributes
    ----------
    virial : ndarray, shape (n,)
        log10 M200 by the imitation of GalWeight; NaN where it cannot be measured.
    richness : ndarray, shape (n,)
        Galaxies near the centre (`cmass.estimators.richness`).
    distance_mpc_h : ndarray, shape (n,)
    p16, p50, p84 : ndarray, shape (n,)
        Posterior under the flat prior; NaN where there is none.
    count : ndarray, shape (n,)
        How many objects a window stands for.
    """

    virial: Array
    richness: Array
    distance_mpc_h: Array
    p16: Array
    p50: Array
    p84: Array
    count: Array

    def rows(self, where: NDArray) -> Weighed:
        """The windows in `where` (rows or a mask)."""
        return Weighed(*(getattr(self, name)[where] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Ratios:
    """log10(M_GalWeight/M_virial) of clusters, in ascending virial mass.

    Attributes
    ----------
    virial, ratio, error : ndarray, shape (n,)
        log10 virial mass, the ratio in dex, and GalWeight's quoted error in dex.
    """

    virial: Array
    ratio: Array
    error: Array

    @classmethod
    def of(cls, virial: Array, reference: Array, error: Array) -> Ratios:
        """The ratios of clusters that have both masses and an error."""
        known = np.flatnonzero(np.isfinite(virial) & np.isfinite(reference) & np.isfinite(error))
        order = known[np.argsort(virial[known], kind="stable")]
        return cls(virial[order], (reference - virial)[order], error[order])

    def resampled(self, rng: np.random.Generator) -> Ratios:
        """As many clusters drawn with replacement."""
        rows = np.sort(rng.integers(0, self.virial.size, self.virial.size))
        return Ratios(self.virial[rows], self.ratio[rows], self.error[rows])

    def near(self, virial: Array, n: int) -> tuple[Array, Array]:
        """Ratio and error of the n clusters that rank nearest in virial mass, (k, n) each."""
        n = min(n, self.virial.size)
        first = np.searchsorted(self.virial, virial) - n // 2
        rows = np.clip(first, 0, self.virial.size - n)[:, None] + np.arange(n)
        return self.ratio[rows], self.error[rows]


@dataclass(frozen=True)
class Prediction:
    """A weighted sample of what a comparison would show, and where it came from.

    Attributes
    ----------
    offset, pull : ndarray, shape (k,)
        log10(M_pred/M_GalWeight) in dex, and over the combined error.
    weight : ndarray, shape (k,)
        Clusters that each stands for.
    virial : ndarray, shape (k,)
        Virial mass that each came from.
    n_windows_effective : float
        (sum w)² / sum w² of the population's windows behind it.
    n_unmatched : int
        Clusters of the survey in bins that no window of the population fell into.
    """

    offset: Array
    pull: Array
    weight: Array
    n_windows_effective: float
    n_unmatched: int


#: Rounds in which the selection's two distributions are fitted in turn.
_RAKING_ROUNDS = 50


def _bins(
    population: Array, survey: Array, width: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], int, float]:
    """Bins of two samples on one grid aligned to multiples of `width`.

    Returns bins of the population (-1 outside the survey's range or not finite) and of the
    survey, their number, and the grid's lower end.
    """
    low = np.floor(survey.min() / width + 1e-9)
    ours = (np.floor(survey / width + 1e-9) - low).astype(np.int64)
    n = int(ours.max()) + 1
    theirs = np.floor(np.nan_to_num(population, nan=-1e9) / width + 1e-9) - low
    inside = (theirs >= 0) & (theirs < n)
    return np.where(inside, theirs, -1).astype(np.int64), ours, n, float(low * width)


def selection(
    population: Weighed, survey: Weighed, how: InferParams
) -> tuple[Array, int, list[tuple[float, float, float]]]:
    """How much of the population the survey holds.

    The factors make the population's counts those of the survey in bins of (virial mass,
    distance) and in bins of (richness, distance), fitted in turn (raking, Deming & Stephan 1940).

    Parameters
    ----------
    population, survey : Weighed
        ``count`` of the population is what the survey's volume would hold.
    how : InferParams

    Returns
    -------
    completeness : ndarray, shape (n of population,)
        Zero where the survey has no cluster like the window, above one where it has more than the
        mass function allows.
    n_unmatched : int
        Clusters in bins without a window of the population; they do not count.
    by_mass : list of (low, high, ratio)
        Clusters over the whole population, by virial mass.
    """
    known = np.isfinite(survey.virial)
    completeness = np.zeros(population.virial.size)
    if not known.any():
        return completeness, 0, []
    clusters = survey.rows(known)
    inner = np.quantile(
        clusters.distance_mpc_h, np.linspace(0, 1, how.match_distance_bins + 1)[1:-1]
    )
    far, far_survey = (
        np.searchsorted(inner, w.distance_mpc_h, side="right") for w in (population, clusters)
    )
    masses = _bins(population.virial, clusters.virial, how.match_bin_dex)
    rich, rich_survey = (np.log10(np.maximum(w.richness, 1.0)) for w in (population, clusters))
    riches = _bins(rich, rich_survey, how.match_richness_bin_dex)
    weight = np.where((masses[0] >= 0) & (riches[0] >= 0), population.count, 0.0)
    matched = np.ones(clusters.virial.size, bool)
    margins = []
    for theirs, ours, n, _ in (masses, riches):
        place = np.maximum(theirs, 0) * how.match_distance_bins + far
        place_survey = ours * how.match_distance_bins + far_survey
        size = n * how.match_distance_bins
        matched &= np.bincount(place, weight, size)[place_survey] > 0
        margins.append((place, place_survey, size))
    for _ in range(_RAKING_ROUNDS):
        for place, place_survey, size in margins:
            counts = np.bincount(place_survey[matched], minlength=size)
            there = np.bincount(place, weight, size)
            weight *= np.divide(counts, there, out=np.zeros(size), where=there > 0)[place]
    np.divide(weight, population.count, out=completeness, where=population.count > 0)
    _, ours, n, low = masses
    counted = np.bincount(ours, minlength=n)
    inside = masses[0] >= 0
    expected = np.bincount(masses[0][inside], population.count[inside], n)
    width = how.match_bin_dex
    by_mass = [
        (low + i * width, low + (i + 1) * width, float(counted[i] / expected[i]))
        for i in range(n) if expected[i] > 0
    ]  # fmt: skip
    return completeness, int((~matched).sum()), by_mass


def predict(
    population: Weighed, survey: Weighed, ratios: Ratios, how: InferParams
) -> Prediction:  # fmt: skip
    """What the comparison of `survey` with GalWeight would show if the mocks were right.

    Parameters
    ----------
    population : Weighed
    survey : Weighed
        Only its virial masses, richness and distances are used.
    ratios : Ratios
    how : InferParams
        Bins of the selection and the number of neighbours that lend their ratio.
    """
    completeness, unmatched, _ = selection(population, survey, how)
    weight = population.count * completeness
    rows = np.flatnonzero((weight > 0) & np.isfinite(population.p50))
    if not rows.size or not ratios.virial.size:
        nothing = np.empty(0)
        return Prediction(nothing, nothing, nothing, 0.0, unmatched)
    own = population.rows(rows)
    ratio, error = ratios.near(own.virial, how.match_neighbours)
    reference = own.virial[:, None] + ratio
    p16, p50, p84 = (x[:, None] for x in (own.p16, own.p50, own.p84))
    w = weight[rows]
    return Prediction(
        offset=(p50 - reference).ravel(),
        pull=pull(p16, p50, p84, reference, error).ravel(),
        weight=np.repeat(w / ratio.shape[1], ratio.shape[1]),
        n_windows_effective=float(w.sum() ** 2 / (w**2).sum()),
        n_unmatched=unmatched,
    )


def weighted_quantiles(values: Array, weights: Array, levels: ArrayLike) -> Array:
    """Quantiles of a weighted sample: linear between the midpoints of the steps of its CDF."""
    order = np.argsort(values, kind="stable")
    w = weights[order]
    middle = (np.cumsum(w) - 0.5 * w) / w.sum()
    return np.interp(np.asarray(levels, float), middle, values[order])


def shape_of(offset: Array, pulls: Array, weight: Array | None = None) -> dict[str, float]:
    """Mean, scatter, robust scatter and quantiles of offsets, mean and deviation of pulls.

    Parameters
    ----------
    offset, pulls : ndarray, shape (n,)
    weight : ndarray, shape (n,), optional
        Counts; all one by default.

    Returns
    -------
    dict of str to float
        In dex; `pull_mean` and `pull_std` without unit. Empty for fewer than two values.
    """
    if offset.size < 2:
        return {}
    w = np.ones(offset.size) if weight is None else weight
    total = w.sum()
    mean = float(w @ offset / total)
    pull_mean = float(w @ pulls / total)
    # The sample's own mean takes one of its freedoms; a predicted distribution has no sample.
    correction = total / (total - 1) if weight is None else 1.0
    found = weighted_quantiles(offset, w, list(QUANTILES.values()))
    quantile = dict(zip(QUANTILES, map(float, found), strict=True))
    return {
        "offset_mean": mean,
        "offset_median": quantile["p50"],
        "scatter": float(np.sqrt(correction * (w @ (offset - mean) ** 2) / total)),
        "scatter_robust": (quantile["p84"] - quantile["p16"]) / 2,
        **{f"offset_{name}": quantile[name] for name in QUANTILES if name != "p50"},
        "pull_mean": pull_mean,
        "pull_std": float(np.sqrt(correction * (w @ (pulls - pull_mean) ** 2) / total)),
    }


def observed_errors(
    offset: Array, pulls: Array, rounds: int, rng: np.random.Generator
) -> dict[str, float]:
    """Standard errors of `shape_of` by resampling clusters."""
    drawn = [
        shape_of(offset[rows], pulls[rows])
        for rows in rng.integers(0, offset.size, (rounds, offset.size))
    ]
    return _spread(drawn)


def predicted_errors(
    population: Weighed, survey: Weighed, ratios: Ratios, how: InferParams,
    rng: np.random.Generator,
) -> dict[str, float]:  # fmt: skip
    """Standard errors of a prediction: population, selection and ratios drawn anew."""
    drawn = []
    for _ in range(how.bootstrap_rounds):
        again = replace(population, count=population.count * rng.poisson(1.0, population.p50.size))
        rows = rng.integers(0, survey.virial.size, survey.virial.size)
        one = predict(again, survey.rows(rows), ratios.resampled(rng), how)
        drawn.append(shape_of(one.offset, one.pull, one.weight))
    return _spread(drawn)


def _spread(drawn: list[dict[str, float]]) -> dict[str, float]:
    useful = [one for one in drawn if one]
    if len(useful) < 2:
        return {}
    return {name: float(np.std([one[name] for one in useful], ddof=1)) for name in useful[0]}


def kolmogorov_smirnov(
    values: Array, predicted: Array, weight: Array, rng: np.random.Generator, rounds: int = 2000
) -> tuple[float, float]:
    """Largest distance between the CDFs of a sample and a weighted prediction, and its chance.

    Returns
    -------
    distance, chance : float
        Chance is the part of samples of that size, drawn from the prediction, that lie as
        far from it or farther; the prediction's own errors are not in it.
    """
    order = np.argsort(predicted, kind="stable")
    upto = np.cumsum(weight[order]) / weight.sum()
    ordered = predicted[order]
    n = values.size

    def cdf(x: Array) -> Array:
        return np.interp(x, ordered, upto, left=0.0, right=1.0)

    steps = np.arange(n + 1) / n

    def distance(u: Array) -> Array:
        u = np.sort(u, axis=-1)
        return np.maximum(steps[1:] - u, u - steps[:-1]).max(axis=-1)

    found = float(distance(cdf(values)))
    return found, float((distance(rng.random((rounds, n))) >= found).mean())
