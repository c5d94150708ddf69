"""Scores of binned posteriors: CRPS, log score, width and entropy.

A posterior is piecewise constant: probabilities on bins with `edges` in log10 mass. The scores
are exact for that density. Rows of NaN (no posterior) give NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmass.posterior import LOG_SCORE_FLOOR, TAIL, quantiles

Array = NDArray[np.float64]


def _cumulative(probabilities: Array) -> Array:
    """Probability below each edge, shape (n, n_bins + 1)."""
    return np.concatenate([np.zeros((len(probabilities), 1)), np.cumsum(probabilities, axis=1)], 1)


def crps(probabilities: Array, edges: Array, truth: ArrayLike) -> Array:
    """Continuous ranked probability score, ∫ (F(x) − [x ≥ truth])² dx (Gneiting & Raftery 2007).

    F is linear inside a bin, so that the integral is a sum of (a² + ab + b²)/3 over bins, the
    truth's own bin split in two.

    Parameters
    ----------
    probabilities : ndarray, shape (n, n_bins)
    edges : ndarray, shape (n_bins + 1,)
    truth : array_like, shape (n,)
        May lie outside the bins: F is 0 below them and 1 above.

    Returns
    -------
    ndarray, shape (n,)
        In the unit of `edges` (dex); smaller is better; the distance for a sure posterior.
    """
    p, x = np.asarray(probabilities, float), np.asarray(truth, float)
    cdf, width = _cumulative(p), np.diff(edges)
    rows = np.arange(len(p))

    def area(a: Array, b: Array, w: ArrayLike) -> Array:
        return np.asarray(w) * (a * a + a * b + b * b) / 3

    below = area(cdf[:, :-1], cdf[:, 1:], width)
    above = area(cdf[:, :-1] - 1, cdf[:, 1:] - 1, width)
    inside = np.clip(x, edges[0], edges[-1])
    k = np.clip(np.searchsorted(edges, inside, side="right") - 1, 0, width.size - 1)
    left = np.concatenate([np.zeros((len(p), 1)), np.cumsum(below, axis=1)], 1)[rows, k]
    right = np.concatenate([np.cumsum(above[:, ::-1], axis=1)[:, ::-1], np.zeros((len(p), 1))], 1)
    part = (inside - edges[k]) / width[k]
    here = cdf[rows, k] + part * p[rows, k]
    own = area(cdf[rows, k], here, part * width[k])
    own += area(here - 1, cdf[rows, k + 1] - 1, (1 - part) * width[k])
    return left + own + right[rows, k + 1] + np.abs(x - inside)


def log_score(
    probabilities: Array, edges: Array, truth: ArrayLike, floor: float = LOG_SCORE_FLOOR
) -> Array:
    """Natural logarithm of the posterior density at the truth, nats (larger is better).

    Parameters
    ----------
    probabilities : ndarray, shape (n, n_bins)
    edges : ndarray, shape (n_bins + 1,)
    truth : array_like, shape (n,)
    floor : float
        Density, dex⁻¹, that counts where the posterior has less, a truth outside the bins
        included: without it one cluster could make the mean infinite.

    Returns
    -------
    ndarray, shape (n,)
    """
    p, x = np.asarray(probabilities, float), np.asarray(truth, float)
    k = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
    density = p[np.arange(len(p)), k] / np.diff(edges)[k]
    density = np.where((x < edges[0]) | (x > edges[-1]), 0.0 * density, density)
    return np.log(np.maximum(density, floor))


def width_68(probabilities: Array, edges: Array) -> Array:
    """Width of the central 68.3 % interval, dex, shape (n,)."""
    low, high = quantiles(probabilities, edges, [TAIL, 1 - TAIL]).T
    return high - low


def entropy(probabilities: Array, edges: Array) -> Array:
    """Differential entropy −∫ p ln p, nats, shape (n,); smaller is sharper."""
    p = np.asarray(probabilities, float)
    density = p / np.diff(edges)
    return -np.sum(p * np.log(np.where(p > 0, density, 1.0)), axis=1)


def effective_number(weights: ArrayLike) -> float:
    """Equally weighted clusters that are worth as much: (Σw)²/Σw²; 0 without weight."""
    w = np.asarray(weights, float)
    return float(w.sum() ** 2 / (w**2).sum()) if w.any() else 0.0
