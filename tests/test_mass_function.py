"""Halo abundance and bias against colossus called plainly, integrals and the literature."""

from __future__ import annotations

import numpy as np
import pytest
from colossus.cosmology import cosmology as colossus
from colossus.lss import mass_function as lss

from cmass.cosmology import RHO_CRITICAL_0
from cmass.mass_function import halo_bias, mass_function
from cmass.params import CosmologyParams

PARAMETERS = CosmologyParams()
LOG_M = np.linspace(13, 15.2, 12)


def test_units_are_per_dex():
    """M²/ρ dn/dM, colossus's own dimensionless form, times ρ/M ln 10."""
    ours = mass_function(LOG_M, 0.05, PARAMETERS)
    m = 10**LOG_M
    dimensionless = lss.massFunction(
        m, 0.05, mdef="200c", model="tinker08", q_in="M", q_out="M2dndM"
    )
    rho_matter = PARAMETERS.omega_m * RHO_CRITICAL_0
    # colossus rounds its critical density to four digits
    np.testing.assert_allclose(ours, dimensionless * rho_matter / m * np.log(10), rtol=1e-3)


def test_abundance_of_clusters_is_that_of_the_sky():
    """About 2e-5 (Mpc/h)^-3 clusters above 10^14 Msun/h (Tinker+2008 and X-ray counts)."""
    x = np.linspace(14, 15.8, 400)
    number = np.trapezoid(mass_function(x, 0.0, PARAMETERS), x)
    assert 1e-5 < number < 3e-5


def test_rarer_when_more_massive_and_earlier():
    now, then = (mass_function(LOG_M, z, PARAMETERS) for z in (0.0, 0.5))
    assert (np.diff(now) < 0).all()
    assert (then < now).all()


def test_other_cosmologies_do_not_leak():
    """colossus keeps one current cosmology for the process: each call must set its own."""
    low = PARAMETERS.model_copy(update={"sigma8": 0.7})
    first = mass_function(LOG_M, 0.0, PARAMETERS)
    lower = mass_function(LOG_M, 0.0, low)
    colossus.setCosmology("WMAP5", persistence="")
    again = mass_function(LOG_M, 0.0, PARAMETERS)
    np.testing.assert_array_equal(first, again)
    assert (lower < first).all()


def test_bias():
    b = halo_bias(np.array([12.0, 13.0, 14.0, 15.0]), 0.0, PARAMETERS)
    assert (np.diff(b) > 0).all()
    # nu = 1 near 10^12.8 Msun/h today, where bias is about one (Tinker+2010, Fig. 1)
    assert b[1] == pytest.approx(1.1, abs=0.2)
    assert 2 < b[2] < 3.5
