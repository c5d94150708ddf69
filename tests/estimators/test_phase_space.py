"""Counts and neighbours, against the plainest way to count."""

from __future__ import annotations

import numpy as np

from cmass.estimators.phase_space import (
    CYLINDERS,
    RADII_MPC_H,
    SPEEDS_KM_S,
    cumulative_counts,
    neighbours,
)
from tests.estimators.toy import toy_windows


def test_counts_inside_each_radius_and_speed():
    windows = toy_windows(4, 1)
    counts = cumulative_counts(windows)
    for c in range(4):
        x, y, v = windows.cloud(c).T
        for i, radius in enumerate(RADII_MPC_H):
            for j, speed in enumerate(SPEEDS_KM_S):
                inside = (np.hypot(x, y) <= radius) & (np.abs(v) <= speed)
                assert counts[c, i, j] == inside.sum()


def test_neighbours_are_those_of_the_own_window():
    windows = toy_windows(3, 2)
    found = neighbours(windows)
    for c in range(3):
        cloud = windows.cloud(c)
        apart = cloud[:, None] - cloud[None]
        square, depth = (apart[..., :2] ** 2).sum(axis=-1), np.abs(apart[..., 2])
        own = found[windows.offsets[c] : windows.offsets[c + 1]]
        for k, (radius, half_depth) in enumerate(CYLINDERS):
            near = (square < radius**2) & (depth < half_depth)
            np.testing.assert_array_equal(own[:, k], near.sum(axis=1) - 1)
