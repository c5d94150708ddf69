"""The simulator: a pure function of seed and halo, with the physics it claims."""

from __future__ import annotations

import numpy as np
import pytest

from cmass import cosmology as background
from cmass.mock import environment, observe_halo
from cmass.mock.haloes import HaloPlan, draw_distances, plan_haloes
from cmass.mock.members import draw_members
from cmass.mock.simulator import describe_halo, simulate_halo
from cmass.params import Params, load_params

PARAMS = Params()
COSMOLOGY = background.from_params(PARAMS.cosmology)
MOCK = PARAMS.mock


def surroundings(log10_m: float, z: float, random: np.random.Generator, **changes: float):
    """The stage around a halo, with some values of the environment changed."""
    return environment.draw_surroundings(
        describe_halo(log10_m, z, COSMOLOGY), MOCK.environment.model_copy(update=changes),
        PARAMS.cosmology, COSMOLOGY, z, random,
    )  # fmt: skip


def many_members(log10_m: float, n: int = 60):
    halo = describe_halo(log10_m, 0.0, COSMOLOGY)
    random = np.random.default_rng(11)
    parts = [
        draw_members(halo, -18.0, MOCK.galaxies, MOCK.members, MOCK.environment, random)
        for _ in range(n)
    ]
    position = np.concatenate([p.position_mpc_h[1:] for p in parts])
    velocity = np.concatenate([p.velocity_km_s[1:] for p in parts])
    return halo, position, velocity


def dispersion_km_s(log10_m: float) -> float:
    """One-dimensional velocity dispersion of true members, mean over 200 haloes."""
    halo, position, velocity = many_members(log10_m, 200)
    inside = np.linalg.norm(position, axis=1) < halo.r200_mpc_h
    return float(np.sqrt((velocity[inside] ** 2).sum(axis=1).mean() / 3))


def test_velocity_dispersion_against_galaxies_and_dark_matter():
    """σ of galaxies: 740-765 km/s at 10^14.5 (GCMRP catalogues), slope 0.35-0.38; dark matter:
    1082.9 km/s (h(z) M/1e15)^0.3361 (Evrard+2008). 200 haloes with 5 % scatter, weighted by
    their galaxies, give the mean to 1 % and the slope to 0.006."""
    masses = np.array([14.0, 14.5, 15.0])
    sigma = np.array([dispersion_km_s(m) for m in masses])
    assert 733 < sigma[1] < 773
    assert 0.345 < np.polyfit(masses, np.log10(sigma), 1)[0] < 0.385
    # Evrard's mass is in M☉ with h(z) = H/100: h M[M☉] is M in h⁻¹ M☉ at z = 0.
    dark_matter = 1082.9 * 10 ** (0.3361 * (masses - 15.0))
    assert (sigma / dark_matter > 0.97).all()
    assert (sigma / dark_matter < 1.07).all()


def mean_infall_km_s(around: environment.Surroundings, x: float) -> float:
    """Mean inward velocity of 6000 galaxies at x R200c."""
    position = np.zeros((6000, 3))
    position[:, 0] = x * around.halo.r200_mpc_h
    v = environment.bulk_velocities(position, around, np.random.default_rng(2))
    return -float(v[:, 0].mean())


def test_infall_turns_around_near_three_and_a_half_virial_radii():
    """3.5 R_vir is about 4.5 R200c: nearer than 3.5 galaxies come in, beyond 5.5 they recede."""
    around = surroundings(14.5, 0.0, np.random.default_rng(2), flow=0.0)
    for x, moving_in in ((3.5, True), (5.5, False)):
        recession = 100.0 * x * around.halo.r200_mpc_h
        assert (mean_infall_km_s(around, x) > recession) == moving_in


@pytest.mark.parametrize("log10_m", [14.0, 14.5, 15.0])
def test_infall_profile_against_spherical_collapse(log10_m):
    """Infall of spherical shells, v = H r f δ̄ / (3 (1 + δ̄)^¼) (Yahil 1985), with the mass of the
    halo and of what clusters around it. Real infall mixes with galaxies on their way out and is
    not spherical: between half and all of that, from 3 to 20 R200c."""
    around = surroundings(log10_m, 0.0, np.random.default_rng(2), flow=0.0)
    halo = around.halo
    mean_density = PARAMS.cosmology.omega_m * background.RHO_CRITICAL_0
    for x in (3.0, 5.0, 8.0, 12.0, 20.0):
        r = x * halo.r200_mpc_h
        volume = 4 / 3 * np.pi * r**3
        inner = float(around.excess_integral(1.5 * halo.r200_mpc_h))
        outer = float(around.excess_integral(r)) if r < 25 else 0.0
        clustered = around.own_bias() * (inner - outer) / volume
        overdensity = 1.2 * 10**log10_m / (volume * mean_density) + clustered
        growth = PARAMS.cosmology.omega_m**0.55
        spherical = 100 * r * growth * overdensity / 3 / (1 + overdensity) ** 0.25
        assert 0.5 < mean_infall_km_s(around, x) / spherical < 1.1, x


def test_neighbours_cluster_as_the_correlation_function_says():
    """Excess of haloes between 5 and 10 Mpc/h over the mean equals ∫ b_c b_h ξ."""
    random = np.random.default_rng(7)
    counts = []
    for _ in range(150):
        # A uniform background: its own fluctuations would need thousands of haloes to average.
        around = surroundings(14.5, 0.06, random, structure_amplitude=0.0)
        drawn = environment.draw_neighbours(around, random)
        r = np.linalg.norm(drawn.position_mpc_h, axis=1)
        counts.append([((r > 5) & (r < 10)).sum(), ((r > 30) & (r < 40)).sum()])
    near, far = np.mean(counts, axis=0)
    density = far / (4 / 3 * np.pi * (40**3 - 30**3))
    from cmass.mass_function import halo_bias, mass_function

    m = np.arange(11.525, 15.4, 0.05)
    n = mass_function(m, 0.06, PARAMS.cosmology)
    mean_bias = (n * halo_bias(m, 0.06, PARAMS.cosmology)).sum() / n.sum()
    own_bias = float(halo_bias(14.5, 0.06, PARAMS.cosmology))
    volume = 4 / 3 * np.pi * (10**3 - 5**3)
    xi = 4 * np.pi * 5**1.8 * (10**1.2 - 5**1.2) / 1.2 / volume
    expected = density * volume * (1 + own_bias * mean_bias * xi)
    # Poisson error of the sum: about 1 %; exclusion lies further in.
    assert near == pytest.approx(expected, rel=0.05)
    assert density == pytest.approx(n.sum() * 0.05, rel=0.05)


def test_no_neighbour_inside_the_halo():
    field = simulate_halo(3, 14.8, 100.0, PARAMS)
    halo = describe_halo(14.8, MOCK.snapshot_redshift, COSMOLOGY)
    assert np.linalg.norm(field.neighbours.position_mpc_h, axis=1).min() > halo.r200_mpc_h


def test_a_halo_is_a_pure_function_of_seed_and_id():
    first, alone = simulate_halo(5, 14.3, 120.0, PARAMS), simulate_halo(5, 14.3, 120.0, PARAMS)
    np.testing.assert_array_equal(first.galaxies.position_mpc_h, alone.galaxies.position_mpc_h)
    np.testing.assert_array_equal(first.galaxies.magnitude, alone.galaxies.magnitude)
    other = simulate_halo(6, 14.3, 120.0, PARAMS)
    assert len(other.galaxies) != len(first.galaxies) or not np.array_equal(
        other.galaxies.magnitude, first.galaxies.magnitude
    )


def test_window_of_an_observed_halo():
    clusters, galaxies = observe_halo(HaloPlan(12, 14.4, 3), PARAMS)
    assert [c["sight_line"] for c in clusters] == [0, 1, 2]
    for cluster, seen in zip(clusters, galaxies, strict=True):
        assert cluster["n_galaxies"] == len(seen["x_proj"]) > 0
        assert np.abs(seen["x_proj"]).max() <= 4.0
        assert np.abs(seen["v_los"]).max() <= 2200.0
        assert seen["r_mag"].max() < MOCK.galaxies.flux_limit_mag
        # Members inside R200c lie inside R200c in projection too (plus the centre's error).
        member = seen["galaxy_class"] == 0
        assert member.sum() == pytest.approx(cluster["n_members"], abs=3)
        r = np.hypot(seen["x_proj"][member], seen["y_proj"][member])
        # (the finder may walk a few kernels to the peak of a merging cluster).
        assert r.max() < cluster["r200c_mpc_h"] + 3 * MOCK.observer.centre_kernel_mpc_h


def test_plan_is_flat_in_log_mass_and_complete():
    plans = plan_haloes(PARAMS)
    windows = np.repeat([p.log10_m200c for p in plans], [p.n_sight_lines for p in plans])
    assert len(windows) == MOCK.haloes.n_windows
    counts, _ = np.histogram(windows, bins=16, range=(13.5, 15.1))
    # Stratified haloes of up to five windows: 5 % of 600 windows a bin.
    assert np.abs(counts / counts.mean() - 1).max() < 0.08
    assert all(p.n_sight_lines == 1 for p in plans if p.log10_m200c < 14.25)
    assert max(p.n_sight_lines for p in plans) == MOCK.haloes.sight_lines_max


@pytest.mark.parametrize("seed", range(8))
def test_no_halo_has_more_sight_lines_than_allowed(seed):
    params = load_params(profile="smoke").model_copy(update={"seed": seed})
    counts = [p.n_sight_lines for p in plan_haloes(params)]
    assert sum(counts) == params.mock.haloes.n_windows
    assert max(counts) <= params.mock.haloes.sight_lines_max


def the_papers_haloes():
    """Profile `paper` with the paper's masses and sight lines (section 2.2)."""
    params = load_params(profile="paper")
    own = {
        "sight_lines_max": 25, "log10_m200c_min": 13.7, "log10_m200c_max": 14.9, "tail_dex": 0.2,
    }  # fmt: skip
    mock = {"haloes": params.mock.haloes.model_copy(update=own)}
    return params.model_copy(update={"mock": params.mock.model_copy(update=mock)})


def test_the_papers_haloes_have_as_many_sight_lines_as_rarity_asks():
    params = the_papers_haloes()
    plans = plan_haloes(params)
    # Tinker+2008: haloes of 10^14.9 are 21 times rarer than those of 10^14.3.
    assert max(p.n_sight_lines for p in plans if p.log10_m200c < 14.9) == 21
    assert max(p.n_sight_lines for p in plans) == 25
    assert params.mock.haloes.sight_lines_max == 25
    # of which a finder tells 43 000 from heavier haloes
    assert sum(p.n_sight_lines for p in plans) == 44_500


def test_tails_fall_to_zero_beyond_the_flat_part():
    params = the_papers_haloes()
    haloes = params.mock.haloes
    plans = plan_haloes(params)
    windows = np.repeat([p.log10_m200c for p in plans], [p.n_sight_lines for p in plans])
    assert windows.min() > haloes.log10_m200c_min - haloes.tail_dex
    assert windows.max() < haloes.log10_m200c_max + haloes.tail_dex
    edges = [13.5, 13.6, 13.7, 14.0, 14.3, 14.6, 14.9, 15.0, 15.1]
    density = np.histogram(windows, bins=edges)[0] / np.diff(edges)
    # Linear tails of 0.2 dex: a quarter and three quarters of the flat part. Windows come in
    # bunches of up to 25 a halo, so 10 %.
    flat = density[2:6].mean()
    assert density / flat == pytest.approx([0.25, 0.75, 1, 1, 1, 1, 0.75, 0.25], rel=0.1)


def test_distances_are_uniform_in_the_ball():
    distances = np.concatenate([draw_distances(i, 5, PARAMS) for i in range(2000)])
    low = MOCK.haloes.distance_min_mpc_h
    assert distances.min() >= low
    assert distances.max() <= 250.0
    # Half the volume lies beyond 198.5 Mpc/h.
    assert np.median(distances) == pytest.approx(250 * 0.5 ** (1 / 3), abs=2.0)
