"""A quadratic stand-in for the simulator: statistics as a function of its parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from cmass.errors import InputError

Array = NDArray[np.float64]

#: How much less squares and products are expected to matter than linear terms: their ridge.
_PENALTY_SQUARE, _PENALTY_PRODUCT = 4.0, 16.0
_RIDGES = np.logspace(-3, 4, 29)


def terms(u: Array) -> Array:
    """1, u_i, u_i², u_i u_j of points (m, d), shape (m, 1 + 2 d + d (d - 1)/2)."""
    u = np.atleast_2d(u)
    products = [u[:, i] * u[:, j] for i, j in combinations(range(u.shape[1]), 2)]
    return np.column_stack([np.ones(len(u)), u, u**2, *products])


def _gradient_terms(u: Array) -> Array:
    """Derivatives of `terms` at one point (d,), shape (d, n_terms)."""
    d = u.size
    out = np.zeros((d, terms(u).shape[1]))
    out[:, 1 : 1 + d] = np.eye(d)
    out[:, 1 + d : 1 + 2 * d] = 2 * np.diag(u)
    for k, (i, j) in enumerate(combinations(range(d), 2)):
        out[i, 1 + 2 * d + k] = u[j]
        out[j, 1 + 2 * d + k] = u[i]
    return out


@dataclass(frozen=True)
class Emulator:
    """Values y (k,) as quadratic functions of parameters u (d,) in [-1, 1].

    Attributes
    ----------
    coefficients : ndarray, shape (n_terms, k)
    residuals : ndarray, shape (m, k)
        Leave-one-out residuals of the design points.
    leverage : ndarray, shape (k,)
        Part of the noise of one design point that is left in a prediction: degrees of
        freedom over points.
    noise : ndarray, shape (k,)
        Noise of one design point, 1 sigma.
    """

    coefficients: Array
    residuals: Array
    leverage: Array
    noise: Array

    @property
    def error(self) -> Array:
        """Root mean square of the leave-one-out residuals, shape (k,)."""
        return np.sqrt((self.residuals**2).mean(axis=0))

    def covariance(self) -> Array:
        """Covariance (k, k) of a prediction's errors.

        The noise of the design points that the fit did not average away, correlated between
        values as their residuals are, and what of the residuals is more than noise: there
        the quadratic is not what the simulator does.
        """
        correlated = shrunk_covariance(self.residuals)
        known = self.noise**2 * (1 + self.leverage)
        misfit = np.maximum((self.residuals**2).mean(axis=0) - known, 0.0)
        part = np.sqrt(self.leverage)
        return part[:, None] * correlated * part[None, :] + np.diag(misfit)

    @property
    def n_parameters(self) -> int:
        """d, of which there are (d + 1)(d + 2)/2 terms."""
        return round((np.sqrt(1 + 8 * len(self.coefficients)) - 3) / 2)

    def at(self, u: Array) -> Array:
        """Values (k,) at one point, or (m, k) at points (m, d)."""
        values = terms(u) @ self.coefficients
        return values[0] if np.ndim(u) == 1 else values

    def anchored(self, u: Array, values: Array) -> Emulator:
        """The same shape, moved so that it goes through `values` (k,) at one point `u` (d,)."""
        moved = self.coefficients.copy()
        moved[0] += values - self.at(u)
        return replace(self, coefficients=moved)

    def gradient(self, u: Array) -> Array:
        """dy/du at one point, shape (k, d)."""
        return (_gradient_terms(u) @ self.coefficients).T


def shrunk_covariance(samples: Array, n_independent: int | None = None) -> Array:
    """Covariance (k, k) of samples (n, k), its correlations reduced where n is small.

    They are taken times n/(n + k): few samples make up correlations, of which the inverse
    makes information. For a bootstrap, n is the number of things resampled.
    """
    n = len(samples) if n_independent is None else n_independent
    covariance = np.atleast_2d(np.cov(samples, rowvar=False))
    kept = n / (n + len(covariance))
    return kept * covariance + (1 - kept) * np.diag(np.diag(covariance))


def fit(u: Array, y: Array, noise: Array | None = None) -> Emulator:
    """Fit `y` (m, k) at design points `u` (m, d) by ridge regression.

    Each value has its own ridge, chosen by leaving one out. The constant is not
    penalised; squares and products are penalised more than linear terms, so that more
    terms than points do no harm. `noise` (k,) is the noise of one point, 1 sigma (default: 0,
    so that all that is left over counts as misfit).

    Raises
    ------
    InputError
        There are fewer than d + 3 points, or a value is not finite.
    """
    m, d = u.shape
    if m < d + 3:
        raise InputError(f"{m} design points are too few for {d} parameters; {d + 3} are needed")
    if not np.isfinite(y).all():
        raise InputError("a statistic of a design point is not finite")
    x = terms(u)[:, 1:]
    products = x.shape[1] - 2 * d
    scale = np.sqrt(
        np.concatenate(
            [np.ones(d), np.full(d, _PENALTY_SQUARE), np.full(products, _PENALTY_PRODUCT)]
        )
    )
    centre, mean = x.mean(axis=0), y.mean(axis=0)
    left, s, right = np.linalg.svd((x - centre) / scale, full_matrices=False)
    projected = left.T @ (y - mean)
    best = np.full(y.shape[1], np.inf)
    leverage = np.zeros(y.shape[1])
    residuals = np.zeros(y.shape)
    shrink = np.zeros((s.size, y.shape[1]))
    for ridge in _RIDGES:
        factor = s**2 / (s**2 + ridge)
        hat = 1 / m + (left**2) @ factor
        rest = (y - mean - left @ (factor[:, None] * projected)) / (1 - hat)[:, None]
        rms = np.sqrt((rest**2).mean(axis=0))
        better = rms < best
        best[better], leverage[better] = rms[better], hat.mean()
        residuals[:, better] = rest[:, better]
        shrink[:, better] = (s / (s**2 + ridge))[:, None]
    slopes = (right.T @ (shrink * projected)) / scale[:, None]
    return Emulator(
        np.vstack([mean - centre @ slopes, slopes]), residuals, leverage,
        np.zeros(y.shape[1]) if noise is None else np.asarray(noise, float),
    )  # fmt: skip
