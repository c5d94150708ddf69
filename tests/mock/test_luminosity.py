"""Luminosity functions against direct integrals and the facts of SPEC section 3."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from cmass import cosmology as background
from cmass.calibrate.values import with_values
from cmass.mock import environment, luminosity
from cmass.mock.observer import observe
from cmass.mock.simulator import describe_halo, simulate_halo
from cmass.params import Params

PARAMS = Params()
GALAXIES = PARAMS.mock.galaxies


def test_mean_satellites_is_the_integral_of_the_luminosity_function():
    log10_m, faintest = 14.2, -19.0
    log10_l_star = float(luminosity.satellite_log10_l_star(log10_m, GALAXIES))
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


def test_central_slope_and_scatter_of_clusters():
    low, high = luminosity.central_log10_luminosity([14.0, 15.0], GALAXIES)
    # SPEC section 3: L ∝ M^0.39.
    assert high - low == pytest.approx(0.39, abs=0.001)
    drawn = luminosity.draw_central_magnitudes(
        np.full(4000, 14.0), GALAXIES, np.random.default_rng(4)
    )
    assert drawn.std() / 2.5 == pytest.approx(GALAXIES.central_scatter_dex, rel=0.05)


def test_a_fifth_of_clusters_has_a_brighter_satellite():
    """SPEC section 3: about 20 %; between a tenth and 30 % for 10^14 to 10^14.8."""
    random = np.random.default_rng(8)
    for log10_m in (14.0, 14.4, 14.8):
        central = luminosity.draw_central_magnitudes(np.full(400, log10_m), GALAXIES, random)
        brighter = [luminosity.mean_satellites(float(m), log10_m, GALAXIES) for m in central]
        assert 0.1 < float((1 - np.exp(-np.array(brighter))).mean()) < 0.3, log10_m


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


@pytest.mark.parametrize(("z", "expected"), [(0.02, 169), (0.04, 100), (0.06, 64), (0.085, 38)])
def test_observed_field_counts(z, expected):
    """What the observer sees around a group without its own galaxies, against SPEC section 3.

    The same numbers, through haloes, field, magnitudes, redshifts and the window: nothing
    clusters or streams, every fibre works. SPEC takes the window's volume for comoving; it is
    proper, hence (1 + z)³. Haloes of a background come in lumps: 4 % of noise.
    """
    cosmology = background.from_params(PARAMS.cosmology)
    plain = with_values(
        PARAMS,
        {
            "mock.randomise_nuisance": False, "mock.galaxies.flux_limit_mag": 18.0,
            "mock.galaxies.completeness": 1.0, "mock.environment.neighbour_bias": 0.0,
            "mock.environment.structure_amplitude": 0.0, "mock.environment.flow": 0.0,
            "mock.environment.infall_v200": 0.0, "mock.observer.fibre_collision_arcsec": 0.0,
            "mock.observer.centre_kernel_mpc_h": 0.0, "mock.nuisance": {},
        },
    )  # fmt: skip
    distance = float(cosmology.comoving_distance_mpc_h(z))
    group, window, counts = 13.0, PARAMS.window, []
    for i in range(60):
        halo = simulate_halo(i, group, distance, plain)
        cone = observe(
            halo, np.array([0.0, 0.0, 1.0]), distance, plain.mock, window, cosmology,
            np.random.default_rng(i),
        )  # fmt: skip
        half = window.half_width_mpc_h / background.q0_angular_distance_mpc_h(cone.z_cluster, -0.55)
        v = background.line_of_sight_velocity_km_s(cone.z, cone.z_cluster)
        inside = (np.abs(cone.tan_x) < half) & (np.abs(cone.tan_y) < half)
        inside &= (np.abs(v) < window.v_max_km_s) & (cone.host_log10_m200c != group)
        counts.append(inside.sum())
    assert np.mean(counts) == pytest.approx(expected * (1 + z) ** 3, rel=0.1)


def drawn_background(n: int = 12) -> tuple[np.ndarray, float]:
    """Absolute magnitudes drawn per (Mpc/h)^3 of background: haloes without clustering, field."""
    cosmology = background.from_params(PARAMS.cosmology)
    z = PARAMS.mock.snapshot_redshift
    uniform = PARAMS.mock.environment.model_copy(
        update={"neighbour_bias": 0.0, "structure_amplitude": 0.0}
    )
    random = np.random.default_rng(9)
    halo = describe_halo(13.5, z, cosmology)
    found = []
    for _ in range(n):
        around = environment.draw_surroundings(
            halo, uniform, PARAMS.cosmology, cosmology, z, random
        )
        near = environment.draw_neighbours(around, random)
        parts = [
            environment.draw_neighbour_galaxies(
                near, -17.0, z, GALAXIES, PARAMS.mock.members, cosmology, random
            ),
            environment.draw_field(
                around, -17.0, GALAXIES, PARAMS.mock.members.extent_r200, random
            ),
        ]
        for part in parts:
            r = np.linalg.norm(part.position_mpc_h, axis=1)
            found.append(part.magnitude[(r > 10) & (r < 38)])
    return np.sort(np.concatenate(found)), n * 4 / 3 * np.pi * (38.0**3 - 10.0**3)


def test_drawn_background_against_the_schechter_function():
    """Haloes and field together, as drawn, hold the galaxies of Blanton+2003 to 10 %.

    Brighter than M = -22 there are more: the central galaxies of clusters, which the Schechter
    function leaves out.
    """
    magnitudes, volume = drawn_background()
    for limit in (-17.5, -18.5, -19.5, -20.5, -21.0):
        expected = quad(lambda m: luminosity.schechter(m, GALAXIES), -25, limit)[0]
        ratio = np.searchsorted(magnitudes, limit) / volume / expected
        assert ratio == pytest.approx(1.0, abs=0.1), limit


def test_field_magnitudes_follow_the_function():
    function = luminosity.field_luminosity_function(GALAXIES, PARAMS.cosmology, 11.5, 0.06)
    drawn = luminosity.draw_field_magnitudes(function, -16.0, 20_000, np.random.default_rng(2))
    expected = luminosity.field_density(function, -17.0) / luminosity.field_density(function, -16.0)
    assert (drawn < -17.0).mean() == pytest.approx(expected, abs=0.015)
