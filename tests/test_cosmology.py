"""Distances, densities and radii against astropy, colossus and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import constants, units
from astropy.cosmology import FlatLambdaCDM
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from cmass import cosmology
from cmass.params import CosmologyParams

PARAMETERS = CosmologyParams()
OURS = cosmology.from_params(PARAMETERS)
# H0 = 100 makes astropy's Mpc our Mpc/h; no radiation, as ours
THEIRS = FlatLambdaCDM(H0=100, Om0=PARAMETERS.omega_m, Tcmb0=0)
Z = np.array([1e-4, 0.003, 0.02, 0.05, 0.085, 0.15, 0.5, 0.9])


def test_comoving_distance():
    # spline on 2001 nodes against astropy's integral
    np.testing.assert_allclose(
        OURS.comoving_distance_mpc_h(Z), THEIRS.comoving_distance(Z).value, rtol=1e-9
    )


def test_angular_distance_and_distance_modulus():
    np.testing.assert_allclose(
        OURS.angular_distance_mpc_h(Z), THEIRS.angular_diameter_distance(Z).value, rtol=1e-9
    )
    d = OURS.comoving_distance_mpc_h(Z)
    np.testing.assert_allclose(OURS.distance_modulus_h(d, Z), THEIRS.distmod(Z).value, atol=1e-8)


@given(st.floats(1e-3, 2000))
def test_redshift_inverts_distance(distance):
    z = OURS.redshift(distance)
    # two splines, one the inverse of the other, on nodes 1.5 Mpc/h apart
    assert OURS.comoving_distance_mpc_h(z) == pytest.approx(distance, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("omega_m", [0.1, 0.307115, 1.0])
def test_distance_of_other_cosmologies(omega_m):
    ours = cosmology.Cosmology(omega_m).comoving_distance_mpc_h(0.3)
    e = lambda z: 1 / np.sqrt(omega_m * (1 + z) ** 3 + 1 - omega_m)  # noqa: E731
    expected = cosmology.SPEED_OF_LIGHT_KM_S / 100 * quad(e, 0, 0.3, epsrel=1e-12)[0]
    assert float(ours) == pytest.approx(expected, rel=1e-10)


def test_einstein_de_sitter_closed_form():
    # d = 2c/H0 (1 - 1/sqrt(1 + z))
    expected = 2 * cosmology.SPEED_OF_LIGHT_KM_S / 100 * (1 - 1 / np.sqrt(1 + Z))
    np.testing.assert_allclose(
        cosmology.Cosmology(1.0).comoving_distance_mpc_h(Z), expected, rtol=1e-9
    )


def test_constants():
    assert constants.c.to_value("km/s") == cosmology.SPEED_OF_LIGHT_KM_S
    theirs = constants.G.to_value(units.Mpc * units.km**2 / units.s**2 / units.Msun)
    # G M_sun is known to 1e-9, G alone to 2e-5: astropy's solar mass uses the same G
    assert pytest.approx(theirs, rel=5e-5) == cosmology.GRAVITY_MPC_KM2_S2_MSUN


def test_critical_density():
    z = np.array([0.0, 0.05, 0.5])
    theirs = THEIRS.critical_density(z).to_value(units.Msun / units.Mpc**3)
    np.testing.assert_allclose(OURS.critical_density(z), theirs, rtol=1e-4)  # through G


@pytest.mark.parametrize("z", [0.0, 0.05, 0.085])
def test_radius_against_colossus(z):
    from colossus.cosmology import cosmology as colossus
    from colossus.halo import mass_so

    colossus.setCosmology(
        "cmass-test", flat=True, H0=100 * PARAMETERS.h, Om0=PARAMETERS.omega_m,
        Ob0=PARAMETERS.omega_b, sigma8=PARAMETERS.sigma8, ns=PARAMETERS.ns, relspecies=False,
        persistence="",
    )  # fmt: skip
    m = 10.0 ** np.array([13.5, 14.3, 15.1])
    theirs = mass_so.M_to_R(m, z, "200c") / 1000  # physical kpc/h
    np.testing.assert_allclose(OURS.r200c_mpc_h(m, z), theirs, rtol=1e-4)  # through G


def test_velocity_is_ten_hubble_radii():
    # V200c = 10 H(z) R200c by definition of the overdensity, in (km/s)/(Mpc/h) x Mpc/h
    m = 10.0 ** np.array([13.5, 14.3, 15.1])
    expected = 10 * 100 * OURS.e(0.07) * OURS.r200c_mpc_h(m, 0.07)
    np.testing.assert_allclose(OURS.v200c_km_s(m, 0.07), expected, rtol=1e-12)


def test_galwcat_radius_of_a_known_cluster():
    """Coma in GalWCat19: M200 and r200 belong together at h = 1 (SPEC: 100 H² r³/G)."""
    r200 = OURS.r200c_mpc_h(1e15, 0.0)
    assert float(r200) == pytest.approx(1.63, abs=0.01)  # r200c of 10^15 Msun/h, textbook


def test_q0_expansion_is_negligibly_far_from_the_full_cosmology():
    """SPEC section 1: the difference must be shown to be negligible below z = 0.085."""
    z = np.linspace(0.003, 0.085, 50)
    ratio = cosmology.q0_angular_distance_mpc_h(z, -0.55) / OURS.angular_distance_mpc_h(z)
    # q0 = -0.55 is 3/2 x 0.3 - 1; the next order is z^2: below 0.2 % of a length, while
    # the voxels are 4 % of the window
    assert np.abs(ratio - 1).max() < 2e-3


def test_q0_expansion_to_second_order():
    omega_m = 0.3  # for which q0 = 1.5 x 0.3 - 1 = -0.55 exactly
    z = np.array([1e-3, 1e-2])
    full = cosmology.Cosmology(omega_m).angular_distance_mpc_h(z)
    error = np.abs(cosmology.q0_angular_distance_mpc_h(z, -0.55) / full - 1)
    assert error[1] < 1e-4
    assert error[1] / error[0] == pytest.approx(100, rel=0.1)  # the error grows as z²


@given(st.floats(0.003, 0.15), st.floats(-2200, 2200))
def test_velocity_round_trip(z_cluster, v):
    z_galaxy = z_cluster + v / cosmology.SPEED_OF_LIGHT_KM_S * (1 + z_cluster)
    back = cosmology.line_of_sight_velocity_km_s(z_galaxy, z_cluster)
    assert float(back) == pytest.approx(v, abs=1e-6)


def test_shapes_are_kept():
    assert OURS.comoving_distance_mpc_h(np.zeros((2, 3))).shape == (2, 3)
    assert OURS.r200c_mpc_h(np.ones((4, 1)), np.zeros((1, 5))).shape == (4, 5)
