"""Counts and neighbours, against the plainest way to count."""

from __future__ import annotations

import numpy as np
import pytest

from cmass.estimators.phase_space import (
    CYLINDERS,
    cumulative_counts,
    lattice,
    neighbours,
)
from cmass.params import WindowParams
from tests.estimators.toy import toy_windows


@pytest.mark.parametrize("half_width_mpc_h", [1.6, 4.0, 6.0])  # the paper's windows
def test_counts_inside_each_radius_and_speed(half_width_mpc_h):
    windows = toy_windows(4, 1)
    window = WindowParams(half_width_mpc_h=half_width_mpc_h)
    counts, (radii, speeds) = cumulative_counts(windows, window), lattice(window)
    assert radii[-1] == half_width_mpc_h and (np.diff(radii) > 0).all()
    for c in range(4):
        x, y, v = windows.cloud(c).T
        for i, radius in enumerate(radii):
            for j, speed in enumerate(speeds):
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
