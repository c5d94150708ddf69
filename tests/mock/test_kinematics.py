"""NFW radii and Jeans velocities against closed forms and direct integration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.special import spence

from cmass.mock.kinematics import (
    isotropic_directions,
    jeans_velocities,
    nfw_mass,
    nfw_radii,
    radial_dispersion,
)


def test_radii_follow_nfw():
    c, extent = 5.0, 1.4
    r = nfw_radii(c, extent, 20_000, np.random.default_rng(3))
    result = stats.kstest(r, lambda x: nfw_mass(c * x) / nfw_mass(c * extent))
    assert result.pvalue > 1e-3
    assert r.max() <= extent * (1 + 1e-9)


def lokas_mamon_isotropic(s: float, c: float) -> float:
    """σ_r²/V_v² of an isotropic NFW halo, Łokas & Mamon (2001), eq. 14 at r = s r_v."""
    x = c * s
    g = 1 / nfw_mass(c)
    dilogarithm = spence(1 + x)  # scipy: spence(1 - y) is Li2(y), so this is Li2(-x)
    bracket = (
        np.pi**2 - np.log(x) - 1 / x - 1 / (1 + x) ** 2 - 6 / (1 + x)
        + (1 + 1 / x**2 - 4 / x - 2 / (1 + x)) * np.log(1 + x)
        + 3 * np.log(1 + x) ** 2 + 6 * dilogarithm
    )  # fmt: skip
    return 0.5 * c**2 * g * s * (1 + x) ** 2 * bracket


@pytest.mark.parametrize("c", [3.0, 6.0, 10.0])
def test_isotropic_dispersion_is_the_closed_form(c):
    radii = np.array([0.05, 0.2, 0.5, 1.0])
    ours = radial_dispersion(radii, c, c, anisotropy=False)
    closed = np.sqrt([lokas_mamon_isotropic(s, c) for s in radii])
    # The grid ends at 30 R200 and steps by 2.6 %: half a per cent.
    np.testing.assert_allclose(ours, closed, rtol=5e-3)


def test_anisotropic_dispersion_solves_the_jeans_equation():
    c, tracers = 5.0, 4.0
    r_a = 1 / tracers

    def density(r):
        return 1 / (tracers * r * (1 + tracers * r) ** 2)

    for r in (0.1, 0.5, 1.0):

        def integrand(s):
            return density(s) * (s + r_a) * nfw_mass(c * s) / nfw_mass(c) / s**2

        direct = quad(integrand, r, 30.0, limit=200)[0] / (density(r) * (r + r_a))
        ours = radial_dispersion(r, c, tracers, anisotropy=True)
        assert float(ours) ** 2 == pytest.approx(direct, rel=5e-3)


def test_velocities_have_the_anisotropy_asked_for():
    random = np.random.default_rng(5)
    r, c, tracers = 0.8, 5.0, 4.0
    directions = isotropic_directions(40_000, random)
    velocity = jeans_velocities(r * directions, c, tracers, True, random)
    radial = (velocity * directions).sum(axis=1)
    tangential_square = (velocity**2).sum(axis=1) - radial**2
    beta = 1 - tangential_square.mean() / (2 * radial.var())
    expected = 0.5 * r / (r + 1 / tracers)
    # 40 000 draws give beta to about 0.01.
    assert beta == pytest.approx(expected, abs=0.02)
    assert radial.std() == pytest.approx(float(radial_dispersion(r, c, tracers, True)), rel=0.02)
