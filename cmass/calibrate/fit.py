"""The parameters that bring the emulated statistics to the survey's, with their errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.stats import qmc

from cmass.calibrate.emulator import Emulator

Array = NDArray[np.float64]

_STARTS = 8


@dataclass(frozen=True)
class Posterior:
    """Parameters in units of the prior, where it reaches from -1 to 1.

    Attributes
    ----------
    best : ndarray, shape (d,)
    covariance : ndarray, shape (d, d)
        Inverse of the curvature there, the prior included; times chi² per degree of
        freedom where that is more than one.
    chi2 : float
        Of the statistics, without the prior.
    n_statistics : int
    """

    best: Array
    covariance: Array
    chi2: float
    n_statistics: int

    @property
    def error(self) -> Array:
        """1-sigma errors, shape (d,)."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def error_alone(self) -> Array:
        """1-sigma errors of each parameter if the others were known, shape (d,)."""
        return 1 / np.sqrt(np.diag(np.linalg.inv(self.covariance)))


def posterior(emulator: Emulator, covariance: Array, random: np.random.Generator) -> Posterior:
    """Most likely parameters for which every emulated ratio mock/real is one.

    The prior is a normal distribution about the middle of the range with the half range
    for its standard deviation, cut off at the ends of the range.

    Parameters
    ----------
    emulator : Emulator
        Of the ratios mock/real.
    covariance : ndarray, shape (k, k)
        Of the ratios: the survey's errors, and what no simulator can do. The emulator's
        own errors are added.
    random : numpy.random.Generator
        Draws the points that the search starts from.
    """
    total = covariance + emulator.covariance()
    whiten = np.linalg.inv(np.linalg.cholesky(total))
    n = emulator.n_parameters

    def residuals(u: Array) -> Array:
        return np.concatenate([whiten @ (emulator.at(u) - 1), u])

    def jacobian(u: Array) -> Array:
        return np.vstack([whiten @ emulator.gradient(u), np.eye(n)])

    # A quadratic may have more than one hollow: the deepest of a few starts counts.
    others = 1.6 * qmc.Sobol(n, seed=random).random(_STARTS) - 0.8
    found = [
        least_squares(residuals, start, jacobian, bounds=(-1, 1))
        for start in (np.zeros(n), *others)
    ]
    best = min(found, key=lambda f: f.cost).x
    chi2 = float((residuals(best)[:-n] ** 2).sum())
    slope = whiten @ emulator.gradient(best)
    # Where the best fit is not a good one, errors grow by what it misses.
    excess = max(chi2 / max(len(total) - n, 1), 1.0)
    information = slope.T @ slope / excess + np.eye(n)
    return Posterior(best, np.asarray(np.linalg.inv(information), float), chi2, len(total))


def sensitivities(emulator: Emulator, at: Array, allowed: Array) -> Array:
    """How far each parameter moves each ratio, shape (k, d).

    The change over half the prior range, over what is allowed of the ratio.
    """
    return emulator.gradient(at) / allowed[:, None]
