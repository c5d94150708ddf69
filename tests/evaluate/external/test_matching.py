"""Cross-match: planted pairs, ambiguous ones, and what chance gives."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from cmass.cosmology import SPEED_OF_LIGHT_KM_S, Cosmology
from cmass.evaluate.external.matching import (
    Limits,
    Pairs,
    Places,
    ambiguous,
    candidate_pairs,
    chance_matches,
    one_to_one,
)

COSMOLOGY = Cosmology(0.307115)
LIMITS = Limits(1.0, 1500.0, COSMOLOGY)


def degrees(mpc_h, z):
    """Angle under which a proper length is seen."""
    return np.degrees(mpc_h / COSMOLOGY.angular_distance_mpc_h(z))


def places(*rows):
    return Places(*np.array(rows, float).T)


def beside(one, east=0.0, north=0.0, km_s=0.0):
    """A place so many Mpc/h east and north of one, and so many km/s behind it."""
    ra, dec, z = one
    dz = km_s / SPEED_OF_LIGHT_KM_S * (1 + z)
    return (ra + degrees(east, z) / np.cos(np.radians(dec)), dec + degrees(north, z), z + dz)


def test_planted_pairs_are_found_and_measured():
    """Separations as planted, and as astropy measures them; velocities as planted."""
    rng = np.random.default_rng(1)
    ours = [(ra, dec, z) for ra, dec, z in zip(
        rng.uniform(0, 360, 40), rng.uniform(-60, 80, 40), rng.uniform(0.02, 0.08, 40),
        strict=True)]  # fmt: skip
    ours += [(0.001, 10.0, 0.05), (120.0, 89.99, 0.05)]  # across ra 0, and on the pole
    north, speed = rng.uniform(-0.9, 0.9, 42), rng.uniform(-1400, 1400, 42)
    theirs = [beside(o, north=n, km_s=v) for o, n, v in zip(ours, north, speed, strict=True)]
    theirs[-2] = beside(ours[-2], east=-0.5)
    north[-2], speed[-2] = 0.5, 0.0
    theirs[-1] = (300.0, 89.99, 0.05)  # 0.02 deg from ours, on the other side of the pole
    order = rng.permutation(42)
    a, b = places(*ours), places(*(theirs[i] for i in order))
    b = Places(b.ra % 360, b.dec, b.z)
    pairs = candidate_pairs(a, b, LIMITS)
    back = np.argsort(pairs.cluster)
    assert pairs.cluster[back].tolist() == list(range(42))
    assert (order[pairs.other[back]] == np.arange(42)).all()
    angle = SkyCoord(a.ra, a.dec, unit="deg").separation(
        SkyCoord(b.ra[pairs.other[back]], b.dec[pairs.other[back]], unit="deg")
    )
    expected = angle.rad * COSMOLOGY.angular_distance_mpc_h(a.z)
    # A chord of 1e-3 rad keeps 1e-10 of itself in double precision.
    np.testing.assert_allclose(pairs.separation_mpc_h[back], expected, rtol=1e-7)
    np.testing.assert_allclose(pairs.separation_mpc_h[back][:41], np.abs(north[:41]), rtol=1e-4)
    np.testing.assert_allclose(pairs.velocity_km_s[back][:41], speed[:41], atol=1e-6)
    assert one_to_one(pairs).all() and not ambiguous(pairs).any()


@pytest.mark.parametrize("where, found", [
    ({"north": 0.999}, True), ({"north": 1.001}, False),
    ({"km_s": 1499.0}, True), ({"km_s": -1501.0}, False),
])  # fmt: skip
def test_limits_are_limits(where, found):
    one = (150.0, 20.0, 0.04)
    pairs = candidate_pairs(places(one), places(beside(one, **where)), LIMITS)
    assert pairs.cluster.size == found


def test_ambiguous_pairs_are_settled_by_the_closest_and_counted():
    """A-x is closest; B then takes y, though x lies nearer to it. C-z is alone."""
    a, c = (150.0, 20.0, 0.04), (30.0, 20.0, 0.05)
    b = beside(a, north=0.5)
    x, y, z = beside(a, north=0.1), beside(a, north=1.3), beside(c, east=0.2)
    pairs = candidate_pairs(places(a, b, c), places(x, y, z), LIMITS)
    named = {("abc"[i], "xyz"[j]): k for k, (i, j) in
             enumerate(zip(pairs.cluster, pairs.other, strict=True))}  # fmt: skip
    assert set(named) == {("a", "x"), ("b", "x"), ("b", "y"), ("c", "z")}
    matches, unsure = one_to_one(pairs), ambiguous(pairs)
    assert [matches[named[k]] for k in (("a", "x"), ("b", "y"), ("c", "z"), ("b", "x"))] == [
        True, True, True, False,
    ]  # fmt: skip
    assert unsure[named["a", "x"]] and unsure[named["b", "y"]] and not unsure[named["c", "z"]]


def test_velocity_counts_as_much_as_distance():
    """Nearer on the sky but at 1400 km/s loses against farther at the same redshift."""
    a = (150.0, 20.0, 0.04)
    near_fast, far_slow = beside(a, north=0.1, km_s=1400), beside(a, north=0.7)
    pairs = candidate_pairs(places(a), places(near_fast, far_slow), LIMITS)
    assert pairs.other[one_to_one(pairs)].tolist() == [1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(0, 12))
def test_against_all_pairs(seed, n, m):
    """The tree finds what comparing everything with everything finds; matches are one to one."""
    rng = np.random.default_rng(seed)

    def some(k):
        return Places(rng.uniform(0, 2, k), rng.uniform(0, 2, k), rng.uniform(0.03, 0.035, k))

    ours, theirs = some(n), some(m)
    pairs = candidate_pairs(ours, theirs, LIMITS)
    expected = set()
    for i in range(n):
        for j in range(m):
            angle = SkyCoord(ours.ra[i], ours.dec[i], unit="deg").separation(
                SkyCoord(theirs.ra[j], theirs.dec[j], unit="deg")
            )
            near = angle.rad * COSMOLOGY.angular_distance_mpc_h(ours.z[i]) <= 1.0
            speed = SPEED_OF_LIGHT_KM_S * (theirs.z[j] - ours.z[i]) / (1 + ours.z[i])
            if near and abs(speed) <= 1500:
                expected.add((i, j))
    assert set(zip(pairs.cluster.tolist(), pairs.other.tolist(), strict=True)) == expected
    accepted = one_to_one(pairs)
    for side in (pairs.cluster[accepted], pairs.other[accepted]):
        assert len(set(side.tolist())) == side.size
    # every refused pair has a cluster that an accepted one took
    for i, j in zip(pairs.cluster[~accepted], pairs.other[~accepted], strict=True):
        assert i in pairs.cluster[accepted] or j in pairs.other[accepted]


def test_chance_matches_are_what_densities_give():
    """Unrelated catalogues: n x density x area x part of the redshifts, by hand; true matches
    on top do not raise it."""
    rng = np.random.default_rng(3)
    limits = Limits(1.0, 1500.0, COSMOLOGY)
    n, m = 700, 4000

    def some(k):
        sine = rng.uniform(-0.5, 0.5, k)
        return rng.uniform(0, 360, k), np.degrees(np.arcsin(sine)), rng.uniform(0.04, 0.06, k)

    ours = Places(*some(n))
    others = np.array(some(m))
    radius = 1.0 / COSMOLOGY.angular_distance_mpc_h(ours.z)
    sky = 2 * np.pi  # |sin dec| < 0.5
    # |dz| < 1500 km/s of a flat distribution 0.02 wide, less what sticks out at its ends
    half = 1500 / SPEED_OF_LIGHT_KM_S * (1 + ours.z)
    inside = np.minimum(ours.z + half, 0.06) - np.maximum(ours.z - half, 0.04)
    expected = float((np.pi * radius**2 / sky * m * inside / 0.02).sum())
    shifts = np.arange(10.0, 360.0, 10.0)

    def everywhere(ra, dec):
        return np.ones(ra.size, bool)

    mean, error = chance_matches(ours, Places(*others), limits, shifts, everywhere)
    # Shared places make pairs compete: a part expected/n of them, below the tolerance's 2 %.
    assert mean == pytest.approx(expected, abs=4 * error + 0.03 * expected)
    assert error == pytest.approx(np.sqrt(expected / shifts.size), rel=0.4)  # Poisson
    with_true = np.concatenate([others, np.array([ours.ra, ours.dec, ours.z])], axis=1)
    more, _ = chance_matches(ours, Places(*with_true), limits, shifts, everywhere)
    found = one_to_one(candidate_pairs(ours, Places(*with_true), limits)).sum()
    assert found == n and more < 1.3 * expected


def test_chance_counts_only_where_the_survey_is():
    """Half of the turned clusters leave the survey: the count is brought back to all of them."""
    rng = np.random.default_rng(4)
    ours = Places(rng.uniform(0, 60, 900), rng.uniform(-5, 5, 900), np.full(900, 0.05))
    others = Places(rng.uniform(0, 60, 900), rng.uniform(-5, 5, 900), np.full(900, 0.05))

    def inside(ra, dec):
        return ra < 60

    near, _ = chance_matches(ours, others, LIMITS, [2.0, -2.0], inside)
    far, _ = chance_matches(ours, others, LIMITS, [30.0, -30.0], inside)
    assert near > 300 and far == pytest.approx(near, rel=0.15)
    nothing = chance_matches(ours, others, LIMITS, [180.0], inside)
    assert np.isnan(nothing).all()


def test_no_pairs():
    empty = Places(np.empty(0), np.empty(0), np.empty(0))
    one = places((150.0, 20.0, 0.04))
    for ours, theirs in ((empty, one), (one, empty)):
        pairs = candidate_pairs(ours, theirs, LIMITS)
        assert isinstance(pairs, Pairs) and pairs.cluster.size == 0
        assert one_to_one(pairs).size == 0 and ambiguous(pairs).size == 0
