"""Diagnostics of calibration that can fail: coverage, PIT, simulation-based ranks, TARP.

Array kernels that know nothing of networks or files. Posteriors are probabilities on bins,
shape (n, n_bins), with `edges` in log10 mass; rows of NaN (no posterior) are for the caller to
leave out.

Nothing is judged without what a perfect posterior would show for the same clusters. Its
probability integral transforms are uniform, but windows of one halo share its galaxies, so that
their transforms are not independent. `perfect_transforms` draws uniform transforms whose normal
scores are correlated inside a halo as the observed ones are (a Gaussian copula with one
correlation); bands, the largest deviation by chance and probabilities all come from these draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from cmass.posterior import cumulative_at

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Draws of a perfect posterior behind every band: 5 % tails to 0.7 %.
ROUNDS = 1000
#: Levels of a coverage curve where nothing else is asked for.
LEVELS = 39
#: Fewest clusters of a bin that is judged.
BIN_MIN = 200


def halo_correlation(transform: ArrayLike, groups: ArrayLike) -> float:
    """Correlation of the normal scores of transforms inside a group, at least 0.

    Parameters
    ----------
    transform : array_like, shape (n,)
        Finite probability integral transforms.
    groups : array_like, shape (n,)
        Halo of each cluster.

    Returns
    -------
    float
        Mean over pairs of one halo of the product of scores that were brought to zero mean and
        unit variance, so that bias or width of the posterior are not taken for correlation.
    """
    u = np.asarray(transform, float)
    if u.size < 2:
        return 0.0
    tiny = 0.5 / u.size
    score = ndtri(np.clip(u, tiny, 1 - tiny))
    spread = score.std()
    if not spread > 0:
        return 0.0
    score = (score - score.mean()) / spread
    _, number = np.unique(np.asarray(groups), return_inverse=True)
    size = np.bincount(number)
    pairs = (size * (size - 1)).sum()
    if not pairs:
        return 0.0
    products = (np.bincount(number, score) ** 2).sum() - (score**2).sum()
    return float(np.clip(products / pairs, 0.0, 0.999))


def perfect_transforms(
    groups: ArrayLike, correlation: float, rng: np.random.Generator, rounds: int = ROUNDS
) -> Array:
    """Transforms that perfect posteriors of these clusters could have, shape (rounds, n).

    Each is uniform; the normal scores of one group have the given correlation.
    """
    _, number = np.unique(np.asarray(groups), return_inverse=True)
    n_groups = int(number.max()) + 1 if number.size else 0
    shared = rng.standard_normal((rounds, n_groups))[:, number]
    own = rng.standard_normal((rounds, number.size))
    return ndtr(np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own)


def perfect_like(
    transform: ArrayLike, groups: ArrayLike, rng: np.random.Generator, rounds: int = ROUNDS
) -> Array:
    """`perfect_transforms` with the correlation that the observed transforms have."""
    return perfect_transforms(groups, halo_correlation(transform, groups), rng, rounds)


def chance(observed: float, simulated: ArrayLike) -> float:
    """Part of the simulated statistics at least as large as the observed one (never zero).

    Statistics that differ by rounding alone are ties, and ties count.
    """
    values = np.asarray(simulated, float)
    reached = (values >= observed) | np.isclose(values, observed, rtol=1e-9, atol=1e-12)
    return float((1 + reached.sum()) / (1 + values.size))


# -------------------------------------------------------------------------------- coverage


def coverage_levels(levels: int = LEVELS) -> Array:
    """Equally spaced levels between 0 and 1, both exclusive."""
    return np.arange(1, levels + 1) / (levels + 1)


def interval_coverage(transform: ArrayLike, level: ArrayLike) -> Array:
    """Part of the clusters whose truth lies in the central interval of each level.

    Parameters
    ----------
    transform : array_like, shape (n,)
        Posterior probability below the truth (probability integral transform).
    level : array_like, shape (n_levels,)

    Returns
    -------
    ndarray, shape (n_levels,)
    """
    depth = 2 * np.abs(np.asarray(transform, float) - 0.5)
    return np.array([(depth <= x).mean() for x in np.atleast_1d(level)])


def coverage_error(transform: ArrayLike, levels: int = LEVELS) -> float:
    """Largest |coverage − level| over equally spaced levels; NaN without clusters.

    Parameters
    ----------
    transform : array_like, shape (n,)
        Transforms that are not finite do not count.
    levels : int
    """
    u = np.asarray(transform, float)
    u = u[np.isfinite(u)]
    level = coverage_levels(levels)
    return float(np.abs(interval_coverage(u, level) - level).max()) if u.size else float("nan")


@dataclass(frozen=True)
class CoverageCurve:
    """How often the truth lies in the interval (or region) of a level.

    Attributes
    ----------
    level, coverage : ndarray, shape (n_levels,)
    perfect : ndarray, shape (n_levels,)
        Mean coverage of a perfect posterior: the level, unless the clusters were chosen by
        something that knows the truth.
    low, high : ndarray, shape (n_levels,)
        2.5 % and 97.5 % of a perfect posterior's coverage, level by level.
    n : int
        Clusters counted.
    perfect_error, perfect_error_high : float
        Median and 95 % quantile of the largest |coverage − level| of a perfect posterior: the
        second is the half width of a band that holds 95 % of perfect curves whole.
    band : float
        95 % quantile of a perfect curve's largest distance from `perfect`.
    chance : float
        Part of the perfect posteriors whose curve lies as far from `perfect` as this one.
    """

    level: Array
    coverage: Array
    perfect: Array
    low: Array
    high: Array
    n: int
    perfect_error: float
    perfect_error_high: float
    band: float
    chance: float

    @property
    def largest_error(self) -> float:
        """Largest |coverage − level|."""
        return float(np.abs(self.coverage - self.level).max())

    @property
    def expected_error(self) -> float:
        """Mean |coverage − level| over the levels."""
        return float(np.abs(self.coverage - self.level).mean())

    @property
    def signed_error(self) -> float:
        """Coverage − level where it is largest: negative for posteriors that are too narrow."""
        off = self.coverage - self.level
        return float(off[np.argmax(np.abs(off))])


def _cumulative_curves(
    statistic: Array, level: Array, where: Mask | None, weights: Array | None = None
) -> Array:
    """Part of each row of `statistic` (rounds, n) at most each level, shape (rounds, n_levels)."""
    rounds, k = len(statistic), level.size
    place = np.searchsorted(level, statistic) + (k + 1) * np.arange(rounds)[:, None]
    chosen = slice(None) if where is None else np.broadcast_to(where, place.shape)
    heavy = None if weights is None else np.broadcast_to(weights, place.shape)[chosen].ravel()
    counts = np.bincount(place[chosen].ravel(), heavy, minlength=rounds * (k + 1))
    counts = counts.reshape(rounds, k + 1)
    total = counts.sum(axis=1, keepdims=True)
    return np.cumsum(counts, axis=1)[:, :k] / np.where(total > 0, total, np.nan)


def _curve(
    statistic: Array, perfect: Array, levels: int, where: Mask | None, perfect_where: Mask | None,
    weights: Array | None = None,
) -> CoverageCurve:  # fmt: skip
    level = coverage_levels(levels)
    if where is not None and perfect_where is None:  # the same clusters in every draw
        perfect = perfect[:, where]
    own = statistic if where is None else statistic[where]
    heavy = weights if weights is None or where is None else weights[where]
    if not own.size:
        nothing, none = np.full(levels, np.nan), float("nan")
        return CoverageCurve(level, nothing, level, nothing, nothing, 0, none, none, none, none)
    coverage = _cumulative_curves(own[None, :], level, None, heavy)[0]
    curves = _cumulative_curves(
        perfect, level, perfect_where, heavy if perfect_where is None else weights
    )
    curves = curves[np.isfinite(curves).all(axis=1)]
    # A perfect posterior covers each level exactly, unless the truth chose the clusters.
    expected = level if perfect_where is None else curves.mean(axis=0)
    low, high = np.quantile(curves, [0.025, 0.975], axis=0)
    errors = np.abs(curves - level).max(axis=1)
    distances = np.abs(curves - expected).max(axis=1)
    return CoverageCurve(
        level, coverage, expected, low, high, own.size, float(np.median(errors)),
        float(np.quantile(errors, 0.95)), float(np.quantile(distances, 0.95)),
        chance(float(np.abs(coverage - expected).max()), distances),
    )  # fmt: skip


def coverage_curve(
    transform: Array,
    perfect: Array,
    levels: int = LEVELS,
    where: Mask | None = None,
    perfect_where: Mask | None = None,
    weights: Array | None = None,
) -> CoverageCurve:
    """Coverage of central intervals at equally spaced levels (paper, Fig. 6), with its band.

    Parameters
    ----------
    transform : ndarray, shape (n,)
        Finite transforms.
    perfect : ndarray, shape (rounds, n)
        Transforms that perfect posteriors could have (`perfect_like`).
    levels : int
    where : ndarray of bool, shape (n,), optional
        Clusters that count: a bin of something that the observer knows.
    perfect_where : ndarray of bool, shape (rounds, n), optional
        Clusters that count in each draw, where the choice depends on the drawn truth
        (`perfect_truths`): a perfect posterior is not calibrated in bins of the truth.
    weights : ndarray, shape (n,), optional
        Clusters of the population that each one stands for; one by default.
    """
    return _curve(
        2 * np.abs(transform - 0.5), 2 * np.abs(perfect - 0.5), levels, where, perfect_where,
        weights,
    )  # fmt: skip


def perfect_errors(perfect: Array, levels: int, masks: list[Mask]) -> Array:
    """Largest coverage error of perfect posteriors over some bins, shape (rounds,).

    What the worst of many bins shows by chance alone: more than each one does.

    Parameters
    ----------
    perfect : ndarray, shape (rounds, n)
    levels : int
    masks : list of ndarray of bool
        Clusters of each bin: (n,), or (rounds, n) where the drawn truth chooses them.
    """
    level, depth = coverage_levels(levels), 2 * np.abs(perfect - 0.5)
    worst = np.zeros(len(perfect))
    for mask in masks:
        same = mask.ndim == 1  # the same clusters in every draw
        curves = _cumulative_curves(
            depth[:, mask] if same else depth, level, None if same else mask
        )
        worst = np.fmax(worst, np.abs(curves - level).max(axis=1))
    return worst


def quantile_bins(values: ArrayLike, n_bins: int, n_min: int = BIN_MIN) -> Array:
    """Edges of at most `n_bins` bins of like number, each with at least `n_min` values.

    Parameters
    ----------
    values : array_like, shape (n,)
        Finite. Ties stay together, which can leave fewer bins.
    n_bins, n_min : int

    Returns
    -------
    ndarray, shape (k + 1,)
        Bin i holds ``edges[i] <= value < edges[i + 1]``, the last one its upper edge as well;
        empty where there are fewer than `n_min` values.
    """
    x = np.asarray(values, float)
    for k in range(min(n_bins, x.size // max(n_min, 1)), 0, -1):
        edges = np.unique(np.quantile(x, np.linspace(0, 1, k + 1)))
        if edges.size == 1:
            edges = np.append(edges, np.nextafter(edges[0], np.inf))
        if np.bincount(bin_number(x, edges), minlength=edges.size - 1).min() >= n_min:
            return edges
    return np.empty(0)


def bin_number(values: ArrayLike, edges: Array) -> NDArray[np.int64]:
    """Bin of each value; those beyond the outer edges go to the outer bins."""
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, edges.size - 2)


def inverse_cumulative(probabilities: Array, edges: Array, levels: Array) -> Array:
    """Value below which each posterior has probability `levels[:, i]`, shape (k, n).

    Parameters
    ----------
    probabilities : ndarray, shape (n, n_bins)
    edges : ndarray, shape (n_bins + 1,)
    levels : ndarray, shape (k, n)
        Uniform levels make draws from the posteriors.
    """
    out = np.empty(levels.shape)
    for row, p in enumerate(probabilities):
        cdf = np.concatenate([[0.0], np.cumsum(p)])
        out[:, row] = np.interp(levels[:, row] * cdf[-1], cdf, edges)
    return out


def perfect_truths(probabilities: Array, edges: Array, perfect: Array) -> Array:
    """Truths for which the posteriors would be exact, shape (rounds, n).

    One truth a cluster and round, drawn from the cluster's own posterior at the level that
    `perfect` (rounds, n) has. Binned by these, exact posteriors show how far prior edges and
    regression to the mean take coverage from the diagonal in bins of true mass.
    """
    return inverse_cumulative(probabilities, edges, perfect)


# --------------------------------------------------------------- transforms, ranks, regions


@dataclass(frozen=True)
class Histogram:
    """A histogram that is flat for a perfect posterior.

    Attributes
    ----------
    edges : ndarray, shape (n_bins + 1,)
        Between 0 and 1.
    count : ndarray, shape (n_bins,)
    low, high : ndarray, shape (n_bins,)
        2.5 % and 97.5 % of a perfect posterior's counts, bin by bin.
    chi2 : float
        Sum of (count − expected)²/expected.
    chi2_chance : float
        Part of the perfect posteriors with as large a sum.
    distance : float
        Kolmogorov-Smirnov distance of the unbinned values from uniform.
    distance_chance : float
    """

    edges: Array
    count: NDArray[np.int64]
    low: Array
    high: Array
    chi2: float
    chi2_chance: float
    distance: float
    distance_chance: float


def ks_distance(transform: ArrayLike) -> Array:
    """Kolmogorov-Smirnov distance from uniform of the last axis.

    Returns
    -------
    ndarray
        Shape of `transform` without its last axis.
    """
    u = np.sort(np.asarray(transform, float), axis=-1)
    n = u.shape[-1]
    step = np.arange(n) / n
    return np.maximum(u - step, step + 1 / n - u).max(axis=-1)


def flat_histogram(values: Array, perfect: Array, n_bins: int = 20) -> Histogram:
    """Histogram of values in [0, 1] that a perfect posterior makes uniform.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Transforms, or ranks over the number of possible ranks (`rank_transform`).
    perfect : ndarray, shape (rounds, n)
    n_bins : int
    """

    def counts(x: Array) -> NDArray[np.int64]:
        place = np.clip((x * n_bins).astype(np.int64), 0, n_bins - 1)
        place += n_bins * np.arange(len(x))[:, None]
        return np.bincount(place.ravel(), minlength=n_bins * len(x)).reshape(len(x), n_bins)

    expected = values.size / n_bins
    own, simulated = counts(values[None, :])[0], counts(perfect)
    chi2 = float(((own - expected) ** 2 / expected).sum())
    low, high = np.quantile(simulated, [0.025, 0.975], axis=0)
    distance = float(ks_distance(values))
    return Histogram(
        np.linspace(0, 1, n_bins + 1), own, low, high, chi2,
        chance(chi2, ((simulated - expected) ** 2 / expected).sum(axis=1)),
        distance, chance(distance, ks_distance(perfect)),
    )  # fmt: skip


def sbc_ranks(
    probabilities: Array, edges: Array, truth: ArrayLike, draws: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draws of each posterior that lie below the truth (Talts+2018), shape (n,): 0 to `draws`."""
    levels = rng.random((draws, len(probabilities)))
    samples = inverse_cumulative(probabilities, edges, levels)
    return (samples < np.asarray(truth, float)).sum(axis=0)


def perfect_ranks(perfect: Array, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Ranks that perfect posteriors would give: draws below a truth of known transform."""
    return rng.binomial(draws, perfect)


def rank_transform(ranks: NDArray[np.int64], draws: int, rng: np.random.Generator) -> Array:
    """Ranks 0 to `draws`, spread over [0, 1]: uniform where the ranks are."""
    return (ranks + rng.random(ranks.shape)) / (draws + 1)


def tarp_transform(
    probabilities: Array, edges: Array, truth: ArrayLike, references: ArrayLike
) -> Array:
    """Posterior probability nearer to a reference point than the truth is (TARP, Lemos+2023).

    Parameters
    ----------
    probabilities : ndarray, shape (n, n_bins)
    edges : ndarray, shape (n_bins + 1,)
    truth, references : array_like, shape (n,)
        Reference points may be drawn from anything that does not know the truth.

    Returns
    -------
    ndarray, shape (n,)
        Uniform for perfect posteriors, whatever the references.
    """
    r = np.asarray(references, float)
    distance = np.abs(np.asarray(truth, float) - r)
    upper = cumulative_at(probabilities, edges, r + distance)
    return upper - cumulative_at(probabilities, edges, r - distance)


def tarp_references(prior: Array, edges: Array, n: int, rng: np.random.Generator) -> Array:
    """Reference points drawn from a binned prior (n_bins,), shape (n,)."""
    cdf = np.concatenate([[0.0], np.cumsum(prior)])
    return np.interp(rng.random(n) * cdf[-1], cdf, edges)


def tarp_curve(transform: Array, perfect: Array, levels: int = LEVELS) -> CoverageCurve:
    """Part of the clusters whose TARP transform is at most each level: the diagonal if perfect.

    Parameters
    ----------
    transform : ndarray, shape (n,)
        Of `tarp_transform`.
    perfect : ndarray, shape (rounds, n)
        `perfect_like` of these transforms.
    levels : int
    """
    return _curve(transform, perfect, levels, None, None)
