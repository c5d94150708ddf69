"""Windows that reach outside the data are found, and those inside are let alone."""

from __future__ import annotations

import numpy as np
import pytest

from cmass.cosmology import SPEED_OF_LIGHT_KM_S, q0_angular_distance_mpc_h
from cmass.estimation.edges import empty_part, find_edges
from cmass.params import Params

PARAMS = Params()
Z = 0.05


def square(n, rng):
    return rng.uniform(-1, 1, (n, 2))


@pytest.mark.parametrize("angle", [0, 37, 90, 200])
@pytest.mark.parametrize("cut", [0.3, 0.5, 0.7])
def test_an_empty_side_is_found_with_its_part(angle, cut):
    rng = np.random.default_rng(angle)
    places = square(500, rng)
    turn = np.radians(angle)
    inside = places @ [np.cos(turn), np.sin(turn)] < cut
    found = empty_part(places[inside], np.zeros(inside.sum(), bool))
    # The side is taken from galaxies: its edge lies up to a gap and a step of cuts beyond the survey's.
    lost = 1 - inside.mean()
    assert 0.4 * lost < found < 1.2 * lost + 0.06


def test_a_full_window_is_let_alone():
    rng = np.random.default_rng(1)
    others = [empty_part(square(n, rng), np.zeros(n, bool)) for n in (60, 100, 300, 1000) * 50]
    assert np.mean(np.array(others) > 0) < 0.02
    assert empty_part(np.empty((0, 2)), np.empty(0, bool)) == 0.0


def test_a_side_with_galaxies_of_its_own_is_no_edge():
    """Lists cut around clusters: of another cluster's window a corner lies in this one."""
    rng = np.random.default_rng(2)
    others = square(400, rng)
    others = others[others[:, 0] > 0.2]
    own = square(100, rng)
    places = np.vstack([others, own])
    mine = np.arange(len(places)) >= len(others)
    assert empty_part(places, mine) == 0.0
    assert empty_part(others, np.zeros(len(others), bool)) > 0.3


def survey(ra_min, rng, n=4000):
    """Galaxies at all redshifts from a right ascension on, around (180, 20)."""
    ra = rng.uniform(ra_min, 186, n)
    dec = np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(14)), np.sin(np.radians(26)), n)))
    return ra, dec, rng.uniform(0.01, 0.12, n)


def test_windows_across_the_end_of_a_survey_are_found():
    rng = np.random.default_rng(3)
    half = np.degrees(4 / q0_angular_distance_mpc_h(np.array([Z]), PARAMS.cosmology.q0))[0]
    deep = half / np.cos(np.radians(20))
    ra = np.array([180.0, 174.5 + 0.5 * deep, 100.0])
    missing = find_edges(
        ra, np.full(3, 20.0), np.full(3, Z), survey(174.5, rng), PARAMS.window, PARAMS.cosmology
    )
    assert missing[0] == 0
    assert 0.15 < missing[1] < 0.35  # a quarter of the window lies beyond
    assert missing[2] == 1  # and here is nothing at all


def test_a_list_of_the_windows_alone_is_judged_by_them():
    """Galaxies at the cluster's redshift alone: fewer, so that only a large gap is told."""
    rng = np.random.default_rng(4)
    scale = np.degrees(1 / q0_angular_distance_mpc_h(np.array([Z]), PARAMS.cosmology.q0))[0]
    x, y = 4 * square(250, rng).T
    v = rng.uniform(-2000, 2000, 250)
    dec = 20 + scale * y
    galaxies = (
        180 + scale * x / np.cos(np.radians(dec)),
        dec,
        Z + (1 + Z) * v / SPEED_OF_LIGHT_KM_S,
    )
    for keep, found in ((np.ones(250, bool), False), (x < 1.6, True)):
        some = tuple(values[keep] for values in galaxies)
        at = (np.array([180.0]), np.array([20.0]), np.array([Z]))
        missing = find_edges(*at, some, PARAMS.window, PARAMS.cosmology)
        assert (missing[0] > 0) == found
