"""Does the network tell mocks from the sky? Two-sample tests on its dense features.

The features are the outputs of the first dense layer: everything that the network keeps
of a window before it decides on a mass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmass.evaluate.realism.matching import Matched

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

_FOLDS = 5
#: Ridge of the classifier on whitened features: about one pseudo-observation a direction.
_RIDGE = 0.01


@dataclass(frozen=True)
class TwoSample:
    """How far two samples of one size are apart.

    Attributes
    ----------
    auc, auc_error, auc_p : float
        Chance that a cross-validated linear classifier ranks a mock above a real window
        (0.5: it cannot tell), its standard deviation when labels are shuffled, and the
        part of shuffles that reach it.
    distance_within, distance_across : float
        Mean distance of two windows of one sample, and of a mock and a real window: equal
        if, and only if, the distributions are (energy distance; Székely & Rizzo 2013).
    distance_error, energy_p : float
        Standard deviation of the second when labels are shuffled, and the part of shuffles
        that reach the energy distance.
    n : int
        Windows of each sample.
    """

    auc: float
    auc_error: float
    auc_p: float
    distance_within: float
    distance_across: float
    distance_error: float
    energy_p: float
    n: int


def matched_rows(matched: Matched, rng: np.random.Generator) -> tuple[Integers, Integers]:
    """Rows of real and mock windows, as many of each in every bin of the matching.

    Mocks are drawn without replacement, with chances as their weights: a window that came
    twice would spoil the permutation test.
    """
    real, mock = [], []
    for bin in np.unique(matched.bin_real[matched.real.weight > 0]):
        ours = np.flatnonzero((matched.bin_real == bin) & (matched.real.weight > 0))
        theirs = np.flatnonzero((matched.bin_mock == bin) & (matched.mock.weight > 0))
        n = min(ours.size, theirs.size)
        weight = matched.mock.weight[theirs]
        real.append(rng.choice(ours, n, replace=False))
        mock.append(rng.choice(theirs, n, replace=False, p=weight / weight.sum()))
    none = np.empty(0, np.int64)
    return np.concatenate([none, *real]), np.concatenate([none, *mock])


def whiten(features: Array, n_max: int) -> Array:
    """Leading principal components of features, each of unit variance, shape (n, ≤ n_max).

    As many as hold 99.9 % of the variance: beyond is noise of nearly idle units.
    """
    centred = features - features.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    share = np.cumsum(s**2) / (s**2).sum()
    k = min(n_max, int(np.searchsorted(share, 0.999)) + 1)
    return u[:, :k] * np.sqrt(len(features))


def area_under_curve(score: Array, positive: NDArray[np.bool_]) -> float:
    """Chance that a positive scores above a negative; ties count one half."""
    from scipy.stats import rankdata

    n = int(positive.sum())
    ranks = rankdata(score)[positive].sum()
    return float((ranks - n * (n + 1) / 2) / (n * (positive.size - n)))


def classifier_auc(x: Array, positive: NDArray[np.bool_], fold: Integers) -> float:
    """Cross-validated area under the curve of a linear discriminant.

    Parameters
    ----------
    x : ndarray, shape (n, k)
        Whitened features.
    positive : ndarray of bool, shape (n,)
    fold : ndarray of int64, shape (n,)
        Fold in which a row is judged and not learned from.
    """
    areas, sizes = [], []
    for number in range(int(fold.max()) + 1):
        test, a, b = fold == number, (fold != number) & positive, (fold != number) & ~positive
        if not (positive[test].any() and (~positive[test]).any() and a.any() and b.any()):
            continue
        spread = np.vstack([x[a] - x[a].mean(axis=0), x[b] - x[b].mean(axis=0)])
        covariance = spread.T @ spread / len(spread) + _RIDGE * np.eye(x.shape[1])
        direction = np.linalg.solve(covariance, x[a].mean(axis=0) - x[b].mean(axis=0))
        areas.append(area_under_curve(x[test] @ direction, positive[test]))
        sizes.append(int(test.sum()))
    return float(np.average(areas, weights=sizes))


def two_sample(
    real: Array, mock: Array, permutations: int, rng: np.random.Generator, n_max: int = 20
) -> TwoSample:
    """Compare two samples of features of one size, shape (n, k) each, n ≥ 10."""
    n = len(real)
    x = whiten(np.vstack([real, mock]), n_max)
    distances = np.sqrt(np.maximum(((x[:, None] - x[None, :]) ** 2).sum(axis=-1), 0.0))
    positive = np.repeat([False, True], n)
    fold = np.concatenate([rng.permutation(n), rng.permutation(n)]) % _FOLDS
    signs = np.tile(np.where(positive, 1.0, -1.0), (permutations + 1, 1))
    auc = np.empty(permutations + 1)
    for row in range(permutations + 1):
        if row:
            signs[row] = rng.permutation(signs[0])
        auc[row] = classifier_auc(x, signs[row] > 0, fold)
    same_minus_across = np.einsum("pi,pi->p", signs @ distances, signs)
    total = distances.sum()
    across = (total - same_minus_across) / 2 / (2 * n**2)
    within = (total + same_minus_across) / 2 / (2 * n * (n - 1))
    excess = across - within

    def chance(values: Array) -> float:
        return float((1 + (values[1:] >= values[0]).sum()) / (1 + permutations))

    return TwoSample(
        float(auc[0]), float(auc[1:].std(ddof=1)), chance(auc), float(within[0]),
        float(across[0]), float(excess[1:].std(ddof=1)), chance(excess), n,
    )  # fmt: skip
