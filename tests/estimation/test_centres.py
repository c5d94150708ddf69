"""Centres found in phase space: of made-up clusters, and of the mocks' own observer."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord

from cmass.cosmology import SPEED_OF_LIGHT_KM_S, q0_angular_distance_mpc_h
from cmass.estimation.centres import recentre
from cmass.params import CosmologyParams, WindowParams

KERNEL = (0.3, 700.0)


def cluster(rng, ra, dec, z, n=150, sky_mpc_h=0.5, sigma_km_s=600.0):
    """Galaxies about a centre: ra, dec, z."""
    q0 = CosmologyParams().q0
    x, y = rng.normal(0, sky_mpc_h, (2, n))
    scale = q0_angular_distance_mpc_h(z, q0)
    place = SkyCoord(ra, dec, unit="deg").directional_offset_by(
        np.arctan2(x, y) * units.rad, np.hypot(x, y) / scale * units.rad
    )
    return (
        place.ra.deg,
        place.dec.deg,
        z + (1 + z) * rng.normal(0, sigma_km_s, n) / SPEED_OF_LIGHT_KM_S,
    )


def field(rng, ra, dec, z, n=150):
    """Galaxies all over the window."""
    q0 = CosmologyParams().q0
    half = np.rad2deg(5 / q0_angular_distance_mpc_h(z, q0))
    return (
        ra + rng.uniform(-half, half, n) / np.cos(np.deg2rad(dec)), dec + rng.uniform(-half, half, n),
        z + rng.uniform(-0.01, 0.01, n),
    )  # fmt: skip


@pytest.mark.parametrize("ra", [0.02, 150.0, 359.99])
@pytest.mark.parametrize("dec", [-40.0, 1.0, 70.0])
def test_a_centre_that_is_off_is_found_again(ra, dec):
    rng = np.random.default_rng(3)
    z = 0.06
    parts = [cluster(rng, ra, dec, z), field(rng, ra, dec, z)]
    galaxies = tuple(np.concatenate(one) for one in zip(*parts, strict=True))
    off = SkyCoord(ra, dec, unit="deg").directional_offset_by(40 * units.deg, 0.15 * units.deg)
    found = recentre(
        np.array([off.ra.deg]), np.array([off.dec.deg]), np.array([z + 0.0015]), galaxies,
        WindowParams(), CosmologyParams(), KERNEL,
    )  # fmt: skip
    scale = q0_angular_distance_mpc_h(z, CosmologyParams().q0)
    left = SkyCoord(found.ra, found.dec, unit="deg").separation(SkyCoord(ra, dec, unit="deg"))
    given = q0_angular_distance_mpc_h(z + 0.0015, CosmologyParams().q0)
    moved = off.separation(SkyCoord(found.ra, found.dec, unit="deg"))[0].rad * given
    assert left[0].rad * scale < 0.15  # it was 0.45 Mpc/h off
    assert abs(found.z[0] - z) * SPEED_OF_LIGHT_KM_S / (1 + z) < 150  # and 424 km/s
    assert found.shift_mpc_h[0] == pytest.approx(moved, rel=1e-6)
    assert found.shift_km_s[0] == pytest.approx(
        SPEED_OF_LIGHT_KM_S * (found.z[0] - z - 0.0015) / (1 + z + 0.0015), rel=1e-9
    )
    assert not found.lost[0]


def test_a_centre_without_galaxies_stays_and_one_of_another_cluster_is_lost():
    rng = np.random.default_rng(4)
    galaxies = cluster(rng, 150.0, 10.0, 0.06, n=400)
    scale = q0_angular_distance_mpc_h(0.06, CosmologyParams().q0)
    far = np.rad2deg(1.9 / scale)
    ra, dec = np.array([200.0, 150.0]), np.array([10.0, 10.0 + far])
    found = recentre(
        ra, dec, np.full(2, 0.06), galaxies, WindowParams(), CosmologyParams(), (1.0, 700.0)
    )
    np.testing.assert_allclose(found.ra, ra, atol=1e-9)
    np.testing.assert_allclose(found.dec, dec, atol=1e-9)
    np.testing.assert_array_equal(found.lost, [False, True])
    np.testing.assert_allclose(found.shift_mpc_h, 0, atol=1e-9)


def test_a_second_look_moves_nothing():
    rng = np.random.default_rng(5)
    galaxies = cluster(rng, 30.0, -5.0, 0.05)
    start = (np.array([30.05]), np.array([-5.05]), np.array([0.051]))
    first = recentre(*start, galaxies, WindowParams(), CosmologyParams(), KERNEL)
    again = recentre(
        first.ra, first.dec, first.z, galaxies, WindowParams(), CosmologyParams(), KERNEL
    )
    assert again.shift_mpc_h[0] < 0.02
    assert abs(again.shift_km_s[0]) < 20


def test_a_peak_at_a_blueshift_is_lost_and_stops_nobody():
    rng = np.random.default_rng(6)
    near = cluster(rng, 30.0, -5.0, 0.004, n=300, sigma_km_s=50.0)
    galaxies = (near[0], near[1], near[2] - 0.0045)
    far = cluster(rng, 90.0, 5.0, 0.05)
    both = tuple(np.concatenate(one) for one in zip(galaxies, far, strict=True))
    found = recentre(
        np.array([30.0, 90.0]), np.array([-5.0, 5.0]), np.array([0.001, 0.0505]), both,
        WindowParams(), CosmologyParams(), KERNEL,
    )  # fmt: skip
    np.testing.assert_array_equal(found.lost, [True, False])
    assert found.z[0] == 0.001
    assert abs(found.z[1] - 0.05) < 0.0005
