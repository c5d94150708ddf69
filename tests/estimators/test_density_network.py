"""Kernel densities of CNN_1D and CNN_2D against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import gaussian_kde

from cmass.estimators.density_network import CELLS, densities
from cmass.estimators.windows import Windows


def _windows(*clouds: np.ndarray) -> Windows:
    offsets = np.cumsum([0] + [len(c) for c in clouds])
    n = len(clouds)
    return Windows([str(i) for i in range(n)], np.vstack(clouds), offsets, np.full(n, 0.05),
                   np.full(n, 14.0), np.arange(n))  # fmt: skip


def _cloud(n: int, seed: int) -> np.ndarray:
    """Galaxies that come in pairs of opposite velocity: R and v are not correlated."""
    rng = np.random.default_rng(seed)
    half = np.column_stack(
        [rng.uniform(-2.5, 2.5, (n, 2)), rng.normal(0, 600, n).clip(-2200, 2200)]
    )
    return np.vstack([half, half * [1, 1, -1]])


SPEEDS = np.linspace(-2200, 2200, CELLS)


def test_velocities_are_smoothed_as_scipy_does_it():
    cloud = _cloud(40, 1)
    inside = np.hypot(cloud[:, 0], cloud[:, 1]) <= 1.6
    found = densities(_windows(cloud), 1.6, 2200, 0.25, radii=1)[0, :, 0]
    expected = gaussian_kde(cloud[inside, 2], 0.25)(SPEEDS)
    # float32
    np.testing.assert_allclose(found, expected / expected.mean(), rtol=1e-5, atol=1e-6)


def test_radius_and_velocity_are_smoothed_as_scipy_does_it_and_mirrored():
    cloud = _cloud(60, 2)
    radius = np.hypot(cloud[:, 0], cloud[:, 1])
    inside = radius <= 4
    found = densities(_windows(_cloud(20, 3), cloud), 4, 2200, 0.25, radii=CELLS)[1]
    kernel = gaussian_kde([radius[inside], cloud[inside, 2]], 0.25)
    assert abs(kernel.covariance[0, 1]) < 1e-9 * kernel.covariance[1, 1]
    v, r = np.meshgrid(SPEEDS, (np.arange(CELLS) + 0.5) * 4 / CELLS, indexing="ij")
    expected = sum(kernel([s * r.ravel(), v.ravel()]) for s in (1, -1)).reshape(v.shape)
    np.testing.assert_allclose(found, expected / expected.mean(), rtol=2e-5, atol=1e-6)


def test_what_has_no_density_is_missing_and_alone():
    same = np.tile([[0.1, 0.2, 30.0]], (9, 1))
    far = _cloud(20, 4) + np.array([30.0, 0, 0])
    found = densities(_windows(_cloud(20, 5)[:3], same, far, _cloud(20, 5)), 4, 2200, 0.25, radii=1)
    assert np.isnan(found).any(axis=(1, 2)).tolist() == [True, True, True, False]
    assert found[3].mean() == pytest.approx(1, rel=1e-6)
