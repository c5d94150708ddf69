"""Luminosity functions against direct integrals and the facts of SPEC section 3."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from cmass import cosmology as background
from cmass.mock import luminosity
from cmass.params import Params

PARAMS = Params()
GALAXIES = PARAMS.mock.galaxies


def test_mean_satellites_is_the_integral_of_the_luminosity_function():
    log10_m, faintest = 14.2, -19.0
    log10_l_star = luminosity.central_log10_luminosity(log10_m, GALAXIES) + np.log10(
        GALAXIES.satellite_l_ratio
    )
    x0 = 10 ** ((luminosity.SUN_MAGNITUDE - faintest) / 2.5 - log10_l_star)
    integral = quad(lambda x: x**GALAXIES.satellite_alpha * np.exp(-(x**2)), x0, 6)[0]
    direct = float(luminosity.satellite_norm(log10_m, GALAXIES)) * integral
    ours = luminosity.mean_satellites(faintest, log10_m, GALAXIES)
    assert float(ours) == pytest.approx(direct, rel=1e-3)


def test_satellite_magnitudes_follow_the_function_they_are_drawn_from():
    host = np.full(30_000, 14.2)
    drawn = luminosity.draw_satellite_magnitudes(-19.0, host, GALAXIES, np.random.default_rng(1))
    assert drawn.max() <= -19.0 + 1e-6
    brighter = luminosity.mean_satellites(-20.5, 14.2, GALAXIES)
    expected = float(brighter / luminosity.mean_satellites(-19.0, 14.2, GALAXIES))
    # Binomial error of the fraction: 0.003.
    assert (drawn < -20.5).mean() == pytest.approx(expected, abs=0.012)


def test_central_slope_at_the_cluster_end():
    low, high = luminosity.central_log10_luminosity([14.0, 15.0], GALAXIES)
    # Yang+2008: L ∝ M^0.255 at the bright end.
    assert high - low == pytest.approx(GALAXIES.central_slope_high, abs=0.01)


@pytest.mark.parametrize(("z", "expected"), [(0.02, 169), (0.04, 100), (0.06, 64), (0.085, 38)])
def test_field_counts_of_the_window(z, expected):
    """Field galaxies with r < 18 in the window, from the Schechter function (SPEC section 3).

    The quoted numbers are for a window of 8 x 8 Mpc/h by 4400 km/s without expansion, every
    galaxy at the cluster's distance; K-correction and evolution differ, hence 15 %.
    """
    cosmology = background.from_params(PARAMS.cosmology)
    galaxies = GALAXIES.model_copy(update={"flux_limit_mag": 18.0})
    distance = float(cosmology.comoving_distance_mpc_h(z))
    faintest = luminosity.faintest_magnitude(distance, cosmology, galaxies)
    density = quad(lambda m: luminosity.schechter(m, galaxies), -25, faintest)[0]
    depth = 2 * PARAMS.window.v_max_km_s / (100 * float(cosmology.e(z)))
    area = (2 * PARAMS.window.half_width_mpc_h) ** 2
    assert density * depth * area == pytest.approx(expected, rel=0.15)


def test_haloes_and_field_together_hold_all_galaxies():
    function = luminosity.field_luminosity_function(
        GALAXIES, PARAMS.cosmology, PARAMS.mock.environment.log10_m200c_min, 0.06
    )
    total = luminosity.schechter(luminosity.FIELD_MAGNITUDES, GALAXIES)
    assert (function >= 0).all()
    assert (function <= total + 1e-12).all()
    faint = luminosity.FIELD_MAGNITUDES > -17.0
    # Haloes above 10^11.5 hold few of the faintest galaxies.
    assert (function[faint] > 0.5 * total[faint]).all()


def test_field_magnitudes_follow_the_function():
    function = luminosity.field_luminosity_function(GALAXIES, PARAMS.cosmology, 11.5, 0.06)
    drawn = luminosity.draw_field_magnitudes(function, -16.0, 20_000, np.random.default_rng(2))
    expected = luminosity.field_density(function, -17.0) / luminosity.field_density(function, -16.0)
    assert (drawn < -17.0).mean() == pytest.approx(expected, abs=0.015)
