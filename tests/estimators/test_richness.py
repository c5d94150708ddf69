"""Richness: what is near on the sky and in velocity, cluster by cluster."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cmass.estimators.richness import APERTURE_MPC_H, V_MAX_KM_S, count_near_centre


def test_both_sky_and_velocity_count():
    cloud = np.array([[0.5, 0.5, 900.0], [0.8, 0.8, 0.0], [0.1, 0.0, -1100.0], [-0.9, 0.0, -999.0]])
    assert count_near_centre(np.vstack([cloud, cloud[:2]]), np.array([0, 4, 6])).tolist() == [2, 1]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.integers(0, 1000))
def test_equal_to_a_plain_loop(sizes, seed):
    random = np.random.default_rng(seed)
    clouds = [random.uniform(-1, 1, (n, 3)) * [2, 2, 2200] for n in sizes]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    expected = [
        sum(x * x + y * y < APERTURE_MPC_H**2 and abs(v) < V_MAX_KM_S for x, y, v in cloud)
        for cloud in clouds
    ]
    assert count_near_centre(np.vstack(clouds), offsets).tolist() == expected
