"""Toy posteriors that are right by construction, and wrong in known ways.

Masses are flat between two edges; the estimate is the mass plus Gaussian noise, part of which the
windows of one halo share. The exact posterior is the noise's normal, cut at the edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

EDGES = np.linspace(13.5, 15.1, 129)
SIGMA = 0.2
LOW, HIGH = EDGES[0], EDGES[-1]


@dataclass(frozen=True)
class Toy:
    """Posteriors (n, n_bins) of clusters with known truth; `halo` groups them, `z` is free."""

    probabilities: np.ndarray
    truth: np.ndarray
    estimate: np.ndarray
    halo: np.ndarray
    z: np.ndarray


def normal_posteriors(centre, sigma) -> np.ndarray:
    """Normals cut at the prior's edges, on EDGES."""
    sigma = np.broadcast_to(sigma, np.shape(centre))
    cdf = ndtr((EDGES[None, :] - np.asarray(centre)[:, None]) / sigma[:, None])
    p = np.diff(cdf, axis=1)
    return p / p.sum(axis=1, keepdims=True)


def toy(width=1.0, bias=0.0, n_haloes=2000, sight_lines=2, shared=0.3, seed=0) -> Toy:
    """Exact posteriors, made `width` times as wide and moved up by `bias` sigma.

    `width` and `bias` may be functions of z (uniform in 0 to 1).
    """
    rng = np.random.default_rng(seed)
    halo = np.repeat(np.arange(n_haloes), sight_lines)
    truth = rng.uniform(LOW, HIGH, n_haloes)[halo]
    common, own = rng.standard_normal(n_haloes)[halo], rng.standard_normal(halo.size)
    estimate = truth + SIGMA * (np.sqrt(shared) * common + np.sqrt(1 - shared) * own)
    z = rng.random(halo.size)
    w = width(z) if callable(width) else width
    b = bias(z) if callable(bias) else bias
    return Toy(normal_posteriors(estimate + b * SIGMA, w * SIGMA), truth, estimate, halo, z)
