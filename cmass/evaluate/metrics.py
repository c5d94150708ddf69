"""Numbers that say how good point estimates are: residuals, scatter against richness.

Array kernels that know nothing of networks or files. The residual is the paper's
epsilon = log10(M_true / M_pred): positive where the mass is underestimated.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from cmass.posterior import TAIL

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

#: Repetitions of a bootstrap, and of one whose statistic is itself a fit.
BOOTSTRAP_ROUNDS = 300
BOOTSTRAP_ROUNDS_FIT = 60


def residual(log10_true: ArrayLike, log10_predicted: ArrayLike) -> Array:
    """epsilon = log10(M_true / M_pred) in dex (paper, section 4.2)."""
    return np.asarray(log10_true, float) - np.asarray(log10_predicted, float)


def scatter(values: ArrayLike) -> float:
    """Standard deviation about the mean; NaN for fewer than two values."""
    x = np.asarray(values, float)
    return float(x.std(ddof=1)) if x.size > 1 else float("nan")


def robust_scatter(values: ArrayLike) -> float:
    """Half the width between the 15.866 % and 84.134 % quantiles: 1 sigma for a normal."""
    x = np.asarray(values, float)
    if x.size < 2:
        return float("nan")
    low, high = np.quantile(x, [TAIL, 1 - TAIL])
    return float(high - low) / 2


class Bootstrap:
    """Standard errors by resampling groups (haloes), not rows.

    The sight lines of one halo are not independent, so a halo is drawn with all of them.

    Parameters
    ----------
    groups : array_like, shape (n,)
        Group of each row; a different value a row resamples rows.
    rng : numpy.random.Generator
    rounds : int
    """

    def __init__(
        self, groups: ArrayLike, rng: np.random.Generator, rounds: int = BOOTSTRAP_ROUNDS
    ) -> None:
        _, number = np.unique(np.asarray(groups), return_inverse=True)
        self._rows = np.arange(number.size)
        n_groups = int(number.max()) + 1 if number.size else 0
        draws = rng.integers(0, max(n_groups, 1), (rounds, n_groups))
        self._repeats = [np.bincount(draw, minlength=n_groups)[number] for draw in draws]

    def errors(
        self,
        statistic: Callable[[Rows], ArrayLike],
        where: ArrayLike | None = None,
        rounds: int | None = None,
    ) -> Array:
        """Standard deviations over resamples of the numbers that `statistic(rows)` gives.

        Parameters
        ----------
        statistic : callable
            Takes row numbers (with repeats), returns one or more numbers.
        where : array_like of bool, optional
            Rows that count.
        rounds : int, optional
            Use the first `rounds` resamples only (for slow statistics).

        Returns
        -------
        ndarray, shape (n_numbers,)
            NaN where fewer than two resamples give a finite number.
        """
        chosen = np.ones(self._rows.size, bool) if where is None else np.asarray(where, bool)
        rows = self._rows[chosen]
        samples = [np.repeat(rows, repeats[chosen]) for repeats in self._repeats[:rounds]]
        values = [np.atleast_1d(statistic(s)).astype(float) for s in samples if s.size > 1]
        if not values:
            return np.full(np.atleast_1d(statistic(self._rows)).shape, np.nan)
        columns = [column[np.isfinite(column)] for column in np.array(values).T]
        return np.array([c.std(ddof=1) if c.size > 1 else np.nan for c in columns])

    def error(self, statistic: Callable[[Rows], float], where: ArrayLike | None = None) -> float:
        """`errors` of a statistic that gives one number."""
        return float(self.errors(statistic, where)[0])


def fit_richness_scatter(
    residuals: ArrayLike, log10_predicted: ArrayLike, n_members: ArrayLike
) -> tuple[float, float]:
    """Fit sigma² = sigma_N² (N_mem/100)⁻¹ + sigma_0² by maximum likelihood (paper, eq. 7).

    The scatter is about the best-fit power law between true and predicted mass: offset
    and slope of the residuals with predicted mass are fitted along.

    Parameters
    ----------
    residuals : array_like, shape (n,)
        log10(M_true/M_pred), dex.
    log10_predicted : array_like, shape (n,)
    n_members : array_like, shape (n,)
        True members inside R200c; clusters with none do not count.

    Returns
    -------
    sigma_n, sigma_0 : float
        dex, not negative; NaN for fewer than 10 clusters.
    """
    e, m = np.asarray(residuals, float), np.asarray(log10_predicted, float)
    n = np.asarray(n_members, float)
    good = np.isfinite(e) & np.isfinite(m) & (n > 0)
    if good.sum() < 10:
        return float("nan"), float("nan")
    e, x, inverse = e[good], m[good] - m[good].mean(), 100 / n[good]

    def negative_log_likelihood(p: Array) -> tuple[float, Array]:
        variance = p[0] * inverse + p[1]
        rest = e - p[2] - p[3] * x
        slope = 0.5 * (1 / variance - (rest / variance) ** 2)
        pull = -rest / variance
        gradient = np.array([(slope * inverse).sum(), slope.sum(), pull.sum(), (pull * x).sum()])
        value = 0.5 * (np.log(variance) + rest**2 / variance).sum()
        return value / e.size, gradient / e.size

    total = float(e.var())
    if total == 0:
        return 0.0, 0.0
    start = np.array([0.5 * total / float(np.median(inverse)), 0.5 * total, float(e.mean()), 0.0])
    tiny = 1e-6 * total
    bounds = [(0.0, None), (tiny, None), (None, None), (None, None)]
    found = minimize(
        negative_log_likelihood, start, jac=True, method="L-BFGS-B", bounds=bounds,
        options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    return float(np.sqrt(found.x[0])), float(np.sqrt(found.x[1]))


def mass_bin_edges(log10_true: ArrayLike, width_dex: float) -> Array:
    """Edges of mass bins: multiples of `width_dex` that hold all masses."""
    m = np.asarray(log10_true, float)
    low, high = (
        np.floor(m.min() / width_dex + 1e-9),
        np.ceil(m.max() / width_dex - 1e-9),
    )
    return np.arange(low, max(high, low + 1) + 1) * width_dex
