"""The observer: fibres as the SDSS had them, and a finder that finds the peak."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from cmass.mock.observer import completeness, density_peak, fibre_collisions
from cmass.params import MockParams


@given(st.integers(0, 60), st.integers(0, 2**31))
def test_no_two_fibres_are_nearer_than_allowed(n, seed):
    random = np.random.default_rng(seed)
    x, y = random.uniform(0, 300, (2, n))
    kept = fibre_collisions(x, y, 55.0, 0.0, random)
    points = np.stack([x, y], axis=1)
    if kept.sum() > 1:
        assert pdist(points[kept]).min() > 55.0
    # None is lost without a reason: each loser has a keeper within reach.
    for lost in points[~kept]:
        assert np.linalg.norm(points[kept] - lost, axis=1).min() <= 55.0


def test_recovered_galaxies_are_kept():
    random = np.random.default_rng(3)
    x, y = random.uniform(0, 100, (2, 200))
    assert fibre_collisions(x, y, 55.0, 1.0, random).all()
    pairs = np.repeat(np.arange(4000.0) * 1000, 2)
    lost = 1 - fibre_collisions(pairs, np.zeros(8000), 55.0, 0.35, random).mean()
    # Of each pair one is in danger and 35 % of those are saved; binomial error 0.004.
    assert lost == pytest.approx(0.5 * 0.65, abs=0.02)


def test_peak_of_a_cluster_is_found_beside_a_field():
    random = np.random.default_rng(4)
    cluster = random.normal([0.2, -0.1, 150.0], [0.25, 0.25, 400.0], (400, 3))
    field = random.uniform(-1, 1, (150, 3)) * [4, 4, 2200]
    peak = density_peak(np.vstack([cluster, field]), (0.4, 700.0), np.zeros(3))
    # Error of a mean of 400 members: 0.013 Mpc/h and 20 km/s.
    assert peak[:2] == pytest.approx([0.2, -0.1], abs=0.06)
    assert peak[2] == pytest.approx(150.0, abs=80)


def test_peak_stays_where_nothing_is_near():
    far = np.array([[10.0, 0.0, 0.0]])
    assert density_peak(far, (0.4, 700.0), np.zeros(3)).tolist() == [0.0, 0.0, 0.0]


def test_completeness_falls_for_bright_galaxies_only():
    mock = MockParams()
    galaxies = mock.galaxies.model_copy(
        update={"completeness": 0.9, "completeness_slope_per_mag": 0.1}
    )
    mock = mock.model_copy(update={"galaxies": galaxies})
    chance = completeness(np.array([17.0, 15.0, 13.0]), mock)
    assert chance == pytest.approx([0.9, 0.9, 0.7])
