"""Equation 6 for whole boxes against double loops over windows and haloes."""

from __future__ import annotations

import numpy as np
import pytest

from cmass.errors import ParameterError
from cmass.mock.contamination import box_contaminants, heavier_neighbours
from tests.mock.double_loop import COSMOLOGY, RADIUS, V_MAX, Z, double_loop, make_box, project


def compare(n: int, box: float, windows: int) -> None:
    made = make_box(n, box, windows)
    found = box_contaminants(*made, Z, box, box / 2, RADIUS, V_MAX, COSMOLOGY, pairs_at_once=5000)
    count, ratio, distance = double_loop(*made, box)
    assert (count > 0).mean() > 0.05  # otherwise there is nothing to compare
    np.testing.assert_array_equal(found.count, count)
    # the same double-precision formulas in another order
    np.testing.assert_allclose(found.mass_ratio, ratio, rtol=1e-9)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-6)


def test_equals_the_double_loop():
    compare(n=1500, box=130.0, windows=120)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_equals_the_double_loop_on_two_thousand_windows():
    compare(n=10_000, box=300.0, windows=2000)


def test_agrees_with_the_function_of_one_field():
    position, velocity, mass, halo, direction, distance = make_box(1500, 130.0, 40)
    found = box_contaminants(
        position, velocity, mass, halo, direction, distance, Z, 130.0, 40.0, RADIUS, V_MAX,
        COSMOLOGY,
    )  # fmt: skip
    for i, own in enumerate(halo):
        offset = (position - position[own] + 65.0) % 130.0 - 65.0
        near = np.linalg.norm(offset, axis=1) < 40.0
        seen = [
            project(o, v - velocity[own], direction[i], distance[i])
            for o, v in zip(offset[near], velocity[near], strict=True)
        ]
        radius, v = np.array(seen).T
        expected = heavier_neighbours(
            radius, np.zeros(len(v)), v, mass[near], mass[own], Z, COSMOLOGY, RADIUS, V_MAX
        )
        np.testing.assert_allclose(
            (found.mass_ratio[i], found.distance[i]), (expected.mass_ratio, expected.distance),
            rtol=1e-6,
        )  # fmt: skip


def test_neighbours_across_the_edge_of_the_box_count():
    position = np.array([[1.0, 50.0, 50.0], [99.0, 50.0, 50.0]])
    found = box_contaminants(
        position, np.zeros((2, 3)), np.array([14.0, 14.5]), np.array([0]),
        np.array([[0.0, 0.0, 1.0]]), np.array([150.0]), Z, 100.0, 40.0, RADIUS, V_MAX, COSMOLOGY,
    )  # fmt: skip
    assert found.count[0] == 1
    assert found.mass_ratio[0] == pytest.approx(10**0.5)
    r200 = 0.5 * float(COSMOLOGY.r200c_mpc_h(1e14, Z) + COSMOLOGY.r200c_mpc_h(10**14.5, Z))
    # 2 Mpc/h across, comoving; the second halo is a little farther: 0.013 Mpc/h, 1.3 km/s
    proper = 2.0 / (1 + float(COSMOLOGY.redshift(150.0)))
    assert found.distance[0] == pytest.approx(proper / r200, rel=1e-4)


def test_no_windows_and_no_heavier_haloes():
    position, velocity, mass, *_ = make_box(50, 130.0, 1)
    empty = box_contaminants(
        position, velocity, mass, np.zeros(0, int), np.zeros((0, 3)), np.zeros(0), Z, 130.0, 40.0,
        RADIUS, V_MAX, COSMOLOGY,
    )  # fmt: skip
    assert len(empty.count) == 0
    heaviest = np.array([np.argmax(mass)])
    alone = box_contaminants(
        position, velocity, mass, heaviest, np.array([[1.0, 0, 0]]), np.array([100.0]), Z, 130.0,
        40.0, RADIUS, V_MAX, COSMOLOGY,
    )  # fmt: skip
    assert alone.count[0] == 0
    assert np.isnan(alone.mass_ratio[0])


def test_a_ball_larger_than_half_the_box_is_refused():
    made = make_box(50, 60.0, 3)
    with pytest.raises(ParameterError, match="their own images in a box of 60"):
        box_contaminants(*made, Z, 60.0, 40.0, RADIUS, V_MAX, COSMOLOGY)
