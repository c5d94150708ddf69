"""M500c to M200c: against colossus, an integral of the profile, and its limits."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq

from cmass.mass_definition import (
    concentration,
    log10_m200c_from_m500c,
    m200c_over_m500c,
    nfw_mass,
)
from cmass.params import load_params
from tests.surveys import REPOSITORY


@pytest.fixture(scope="module")
def cosmology():
    return load_params(REPOSITORY / "params.yaml").cosmology


@pytest.mark.parametrize("c", [0.3, 2.0, 4.5, 12.0])
def test_ratio_from_the_integral_of_the_density(c):
    """Mass and mean density of 1/(x (1 + x)²) by quadrature, radii by root finding."""

    def mass(x):
        return quad(lambda s: s / (1 + s) ** 2, 0, x, epsabs=0, epsrel=1e-12)[0]

    # scale radii in which the mean density is 2.5 times that inside c
    x500 = brentq(lambda x: mass(x) / x**3 - 2.5 * mass(c) / c**3, 1e-3 * c, c, xtol=1e-13)
    assert float(m200c_over_m500c(c)) == pytest.approx(mass(c) / mass(x500), rel=1e-9)
    assert float(nfw_mass(c)) == pytest.approx(mass(c), rel=1e-10)


def test_limits_of_the_ratio():
    """c → 0: density ∝ 1/r, M ∝ r², mean density ∝ 1/r: 2.5² = 6.25. c → ∞: a point mass, 1."""
    assert float(m200c_over_m500c(1e-4)) == pytest.approx(6.25, rel=1e-3)
    ratios = m200c_over_m500c(np.geomspace(1e-3, 1e6, 60))
    assert (np.diff(ratios) < 0).all() and 1 < ratios[-1] < 1.03


@pytest.mark.parametrize("model", ["diemer19", "duffy08"])
def test_against_colossus(cosmology, model):
    """Its own root finding with its own NFW profile; the grid in between is good to 1e-4 dex."""
    from colossus.halo import mass_adv

    log10_m500 = np.array([13.4, 13.9, 14.2, 14.55, 14.9])
    z = np.array([0.012, 0.035, 0.05, 0.07, 0.085])
    found = log10_m200c_from_m500c(log10_m500, z, cosmology, model)
    for m, one, ours in zip(log10_m500, z, found, strict=True):
        theirs, _, _ = mass_adv.changeMassDefinitionCModel(
            10**m, one, "500c", "200c", profile="nfw", c_model=model
        )
        assert ours == pytest.approx(np.log10(theirs), abs=2e-4)
    factor = 10 ** (found - log10_m500)
    assert ((factor > 1.35) & (factor < 1.55)).all()


@pytest.mark.parametrize("shift", [-0.16, 0.16])
def test_the_scatter_of_concentrations_against_colossus(cosmology, shift):
    """A shifted concentration gives a halo whose M500c, by colossus, is the one put in.

    0.16 dex of concentration are 0.03 dex of mass.
    """
    from colossus.halo import mass_defs

    m500, z = np.array([14.2]), np.array([0.05])
    plain = log10_m200c_from_m500c(m500, z, cosmology, "diemer19")
    found = log10_m200c_from_m500c(m500, z, cosmology, "diemer19", shift)
    c = concentration(found, 0.05, cosmology, "diemer19") * 10**shift
    back, _, _ = mass_defs.changeMassDefinition(10**found, c, 0.05, "200c", "500c")
    assert float(np.log10(back)[0]) == pytest.approx(14.2, abs=2e-4)
    assert 0.025 < np.sign(-shift) * (found - plain)[0] < 0.04


def test_one_cluster_one_redshift_and_missing_masses(cosmology):
    alone = log10_m200c_from_m500c([14.2], [0.05], cosmology, "diemer19")
    among = log10_m200c_from_m500c([13.5, np.nan, 14.2], [0.02, 0.03, 0.05], cosmology, "diemer19")
    assert np.isnan(among[1])
    assert among[2] == pytest.approx(alone[0], abs=1e-4)
    assert np.isnan(log10_m200c_from_m500c([np.nan], [0.05], cosmology, "diemer19")).all()
