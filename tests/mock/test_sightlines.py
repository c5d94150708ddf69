"""Sight lines against the known optima of Tammes' problem."""

from __future__ import annotations

import numpy as np
import pytest

from cmass.mock.sightlines import plane_of_sky, sight_lines, smallest_angle_deg, spread_directions

# Known optima in degrees: Tammes (1930), Schütte & van der Waerden (1951), Robinson (1961).
OPTIMA = {
    2: 180.0,
    3: 120.0,
    4: 109.4712206,
    6: 90.0,
    8: 74.8584922,
    12: 63.4349488,
    24: 43.6907671,
}


@pytest.mark.parametrize(("n", "optimum_deg"), OPTIMA.items())
def test_reaches_the_known_optimum(n, optimum_deg):
    # The optimiser stops at 1e-14 in the cosine: 1e-3 degrees is ample.
    assert smallest_angle_deg(spread_directions(n)) == pytest.approx(optimum_deg, abs=1e-3)


def test_twenty_five_lines_are_near_the_best_known():
    # Best known for 25 points: 41.6345 degrees (Sloane's tables of spherical codes).
    assert smallest_angle_deg(spread_directions(25)) > 41.5


def test_rotation_keeps_angles_and_depends_on_the_generator():
    first = sight_lines(6, np.random.default_rng(1))
    again = sight_lines(6, np.random.default_rng(1))
    other = sight_lines(6, np.random.default_rng(2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert smallest_angle_deg(first) == pytest.approx(90.0, abs=1e-3)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1.0)


def test_plane_of_sky_is_orthonormal():
    direction = np.array([0.6, -0.48, 0.64])
    basis = np.array([*plane_of_sky(direction), direction])
    np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=1e-14)
