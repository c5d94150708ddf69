"""Equation 6 against its terms written out."""

from __future__ import annotations

import numpy as np
import pytest

from cmass.cosmology import GRAVITY_MPC_KM2_S2_MSUN, Cosmology
from cmass.mock.contamination import heavier_neighbours, phase_space_distance

COSMOLOGY = Cosmology(0.307115)


def test_distance_of_equal_haloes_is_in_units_of_their_radius_and_velocity():
    m = 14.5
    rho = 3 * (100**2) / (8 * np.pi * GRAVITY_MPC_KM2_S2_MSUN)
    r200 = (3 * 10**m / (4 * np.pi * 200 * rho)) ** (1 / 3)
    v200 = np.sqrt(GRAVITY_MPC_KM2_S2_MSUN * 10**m / r200)
    d = phase_space_distance([3 * r200], [0.0], [4 * v200], [m], m, 0.0, COSMOLOGY)
    assert d[0] == pytest.approx(5.0, rel=1e-9)


def test_worst_is_the_most_massive_one_inside():
    x = np.array([0.5, 3.0, 5.0, 1.0])
    v = np.array([0.0, 500.0, 0.0, 3000.0])
    mass = np.array([14.2, 14.6, 15.2, 15.3])  # the last two lie outside the window
    found = heavier_neighbours(
        x, np.zeros(4), v, mass, 14.0, 0.0, COSMOLOGY, radius_mpc_h=4.0, v_max_km_s=2200.0
    )
    assert found.mass_ratio == pytest.approx(10**0.6)
    assert found.distance == pytest.approx(
        float(phase_space_distance(3.0, 0.0, 500.0, 14.6, 14.0, 0.0, COSMOLOGY))
    )
    assert found.nearest == pytest.approx(
        float(phase_space_distance(0.5, 0.0, 0.0, 14.2, 14.0, 0.0, COSMOLOGY))
    )


def test_none_where_no_neighbour_is_more_massive():
    found = heavier_neighbours(
        np.array([1.0]), np.array([0.0]), np.array([0.0]), np.array([13.0]), 14.0, 0.0, COSMOLOGY,
        4.0, 2200.0,
    )  # fmt: skip
    assert np.isnan([found.mass_ratio, found.distance, found.nearest]).all()
