"""Statistics of windows, held to brute force and to clouds whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from cmass.cosmology import from_params
from cmass.evaluate.realism import statistics
from cmass.evaluate.realism.statistics import STATISTICS, Quantiles, Stacked
from cmass.evaluate.realism.windows import Windows
from cmass.params import Params


def windows_of(clouds, log10_m=14.3, z=0.05, weight=None, group=None) -> Windows:
    """Windows of given clouds (n, 3), all of one proxy mass."""
    n = len(clouds)
    cosmology = from_params(Params().cosmology)
    m = np.broadcast_to(np.asarray(log10_m, float), n)
    z = np.broadcast_to(np.asarray(z, float), n)
    return Windows(
        np.vstack(clouds), np.concatenate([[0], np.cumsum([len(c) for c in clouds])]), z,
        cosmology.comoving_distance_mpc_h(z), m, cosmology.r200c_mpc_h(10**m, z),
        cosmology.v200c_km_s(10**m, z), np.ones(n) if weight is None else np.asarray(weight, float),
        np.arange(n) if group is None else np.asarray(group), np.arange(n), np.full(n, 1e-9),
    )  # fmt: skip


def uniform_cloud(rng, n) -> np.ndarray:
    return rng.uniform(-1, 1, (n, 3)) * [4, 4, 2200]


def taken(name: str, w: Windows) -> np.ndarray:
    return STATISTICS[name].prepare(w).at(w.weight[None])[0]


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_select_keeps_each_cloud_with_its_cluster(rng):
    clouds = [uniform_cloud(rng, n) for n in (5, 0, 3, 8)]
    chosen = windows_of(clouds, log10_m=[13.9, 14.0, 14.1, 14.2]).select(np.array([3, 1, 2]))
    assert chosen.counts.tolist() == [8, 0, 3]
    np.testing.assert_array_equal(chosen.points, np.vstack([clouds[3], clouds[2]]))
    assert chosen.log10_m200.tolist() == [14.2, 14.0, 14.1]
    assert chosen.half("odd").log10_m200.tolist() == [14.2, 14.0]


def test_counts_of_a_uniform_window(rng):
    """64 Mpc²/h² hold n galaxies: density n/64 in every ring, 1/11 of them in each bin of v."""
    n, k = 4000, 40
    w = windows_of([uniform_cloud(rng, n) for _ in range(k)])
    radii = statistics._RADII
    expected = n / 64 * np.pi * np.diff(radii**2) * k
    density = taken("surface_density", w)
    # five Poisson errors
    np.testing.assert_allclose(density, n / 64, rtol=0, atol=5 * n / 64 / np.sqrt(expected.min()))
    beyond = taken("velocities_beyond", w)
    area = np.pi * (16 - (2 * w.r200_mpc_h[0]) ** 2)
    each = n / 64 * area / 11
    np.testing.assert_allclose(beyond, each, atol=5 * np.sqrt(each / k))
    outside = taken("interlopers", w)
    np.testing.assert_allclose(outside, n / 64 / 8, rtol=0.05)


def test_rings_of_velocity_share_the_galaxies_of_the_disc(rng):
    clouds = [uniform_cloud(rng, 300) for _ in range(5)]
    w = windows_of(clouds)
    names = ("velocities_inside", "velocities_around", "velocities_beyond")
    inside = sum((np.hypot(c[:, 0], c[:, 1]) < 4).sum() for c in clouds)
    assert sum(taken(n, w).sum() for n in names) * len(w) == pytest.approx(inside)


def test_members_are_counted_in_radius_and_velocity():
    w0 = windows_of([np.zeros((1, 3))])
    r200, v200 = w0.r200_mpc_h[0], w0.v200_km_s[0]
    cloud = np.array([
        [0.9 * r200, 0, 0], [0, 0.9 * r200, 1.9 * v200], [0, 0, -1.9 * v200],
        [1.1 * r200, 0, 0], [0, 0, 2.1 * v200],
    ])  # fmt: skip
    assert statistics.members_inside_r200(windows_of([cloud])).tolist() == [3]


def test_means_in_bins_of_mass_and_distance(rng):
    w = windows_of(
        [np.zeros((n, 3)) for n in (10, 20, 60)], log10_m=[14.15, 14.25, 14.6],
        z=[0.05, 0.05, 0.08], weight=[3, 1, 1],
    )  # fmt: skip
    by_mass = taken("members_by_mass", w)
    assert by_mass[4] == pytest.approx((3 * 10 + 20) / 4)
    assert by_mass[6] == 60
    assert np.isnan(by_mass[0])
    assert np.nansum(taken("window_by_distance", w)) == pytest.approx(12.5 + 60)


def test_weighted_quantiles_are_those_of_repeated_values(rng):
    values, repeats = rng.normal(size=50), rng.integers(1, 30, 50)
    levels = np.array([0.05, 0.5, 0.95])
    ours = Quantiles(values, levels).at(repeats[None].astype(float))[0]
    # The definition differs by half a step between neighbours: 1.5 sorted values of slack.
    ordered = np.sort(values)
    there = np.quantile(np.repeat(values, repeats), levels)
    assert np.all(
        np.abs(np.searchsorted(ordered, ours) - np.searchsorted(ordered, there)) <= 1.5
    )  # fmt: skip
    equal = Quantiles(values, levels).at(np.ones((1, 50)))[0]
    np.testing.assert_allclose(equal, np.quantile(values, levels, method="hazen"))


def test_dispersion_is_that_of_what_was_put_in(rng):
    w0 = windows_of([np.zeros((1, 3))])
    r200, v200 = w0.r200_mpc_h[0], w0.v200_km_s[0]
    sigma = 0.4 * v200  # the cut at 5 sigma takes nothing
    clouds = []
    for shift in rng.uniform(-300, 300, 400):
        angle, r = rng.uniform(0, 2 * np.pi, 60), rng.uniform(0, 0.99 * r200, 60)
        v = shift + sigma * rng.standard_normal(60)
        clouds.append(np.column_stack([r * np.cos(angle), r * np.sin(angle), v]))
    profile = taken("dispersions", windows_of(clouds))
    # the mean velocity of 60 galaxies is taken off: sqrt(59/60); 4 % is five errors
    np.testing.assert_allclose(profile[:5], sigma * np.sqrt(59 / 60), rtol=0.04)
    assert np.isnan(profile[6])


def test_quadrupole_is_free_of_shot_noise_and_finds_elongation(rng):
    w0 = windows_of([np.zeros((1, 3))])
    r200 = w0.r200_mpc_h[0]
    amplitude = 0.3

    def cloud(a, n=15):
        """Angles with density 1 + 2 a cos 2(phi - phi0): their quadrupole is a."""
        phi = rng.uniform(0, 2 * np.pi, 40 * n)
        keep = rng.random(phi.size) < (1 + 2 * a * np.cos(2 * phi)) / (1 + 2 * a)
        phi = phi[keep][:n] + rng.uniform(0, 2 * np.pi)
        return np.column_stack([0.5 * r200 * np.cos(phi), 0.5 * r200 * np.sin(phi), 0 * phi])

    round_ = taken("quadrupole", windows_of([cloud(0.0) for _ in range(3000)]))[0]
    long = taken("quadrupole", windows_of([cloud(amplitude) for _ in range(3000)]))[0]
    # the square of 15 galaxies has scatter 1/15 = 0.067; of 3000 windows 0.0012
    assert round_ * abs(round_) == pytest.approx(0, abs=0.006)
    assert long**2 == pytest.approx(amplitude**2, abs=0.01)


def test_pairs_equal_a_plain_loop(rng):
    clouds = [uniform_cloud(rng, n) * [0.4, 0.4, 1] for n in (40, 1, 0, 25)]
    found, expected = statistics.pair_counts(windows_of(clouds))
    edges = statistics._SEPARATIONS
    for row, cloud in enumerate(clouds):
        counts = np.zeros(len(edges) - 1)
        for i in range(len(cloud)):
            for j in range(i):
                if abs(cloud[i, 2] - cloud[j, 2]) <= 500:
                    s = np.hypot(*(cloud[i, :2] - cloud[j, :2]))
                    counts += (s >= edges[:-1]) & (s < edges[1:])
        np.testing.assert_array_equal(found[row], counts)
    assert expected[1].sum() == expected[2].sum() == 0


def test_expected_pairs_are_the_mean_of_turned_clouds(rng):
    cloud = uniform_cloud(rng, 60) * [0.3, 0.3, 1]
    radius = np.hypot(cloud[:, 0], cloud[:, 1])
    turned = []
    for _ in range(3000):
        phi = rng.uniform(0, 2 * np.pi, 60)
        turned.append(
            np.column_stack([radius * np.cos(phi), radius * np.sin(phi), cloud[:, 2]])
        )  # fmt: skip
    found, _ = statistics.pair_counts(windows_of(turned))
    _, expected = statistics.pair_counts(windows_of([cloud]))
    error = found.std(axis=0, ddof=1) / np.sqrt(3000)
    assert np.all(np.abs(found.mean(axis=0) - expected[0]) < 5 * error)
    # round clouds are not clumpy, those of close pairs are
    assert taken("clumpiness", windows_of(turned)) == pytest.approx(np.ones(6), abs=0.05)
    twins = np.vstack([cloud, cloud + np.array([0.03, 0.0, 0.0])])
    assert taken("clumpiness", windows_of([twins]))[0] > 2


def test_centre_errors_are_the_rms_of_mean_offsets(rng):
    w0 = windows_of([np.zeros((1, 3))], log10_m=15.0)
    r200, n, offset = w0.r200_mpc_h[0], 12, 0.1
    spread = 0.1 * r200
    clouds = []
    for _ in range(4000):
        shift = offset * rng.standard_normal(2)
        place = spread * rng.standard_normal((n, 2)) + shift
        clouds.append(np.column_stack([place, 100 * rng.standard_normal(n)]))
    few = [np.array([[0.9 * r200, 0, 0]] * 4)]  # four galaxies make no centre
    x, y, v = taken("centres", windows_of(clouds + few, log10_m=15.0))
    expected = np.hypot(offset, spread / np.sqrt(n))
    # 4000 offsets know an rms to 1.1 %
    assert (x, y) == (pytest.approx(expected, rel=0.05), pytest.approx(expected, rel=0.05))
    assert v == pytest.approx(100 / np.sqrt(n), rel=0.05)


def test_bootstrap_error_of_a_mean_is_the_textbook_one(rng):
    clouds = [np.zeros((n, 3)) for n in rng.poisson(30, 400)]
    w = windows_of(clouds, log10_m=14.2)
    value, rounds = statistics.measure(w, 500, rng, ("members_by_mass",))["members_by_mass"]
    counts = w.counts
    assert value[4] == pytest.approx(counts.mean())
    # 500 rounds know a standard deviation to 3 %
    assert rounds[:, 4].std() == pytest.approx(counts.std() / 20, rel=0.12)


def test_errors_need_three_clusters(rng):
    rounds = rng.normal(size=(400, 4))
    for column, n in enumerate((1, 2, 3, 10)):
        # a resample lacks all of n clusters with chance exp(-n)
        rounds[rng.random(400) < np.exp(-n), column] = np.nan
    error = statistics.bootstrap_error(rounds)
    assert np.isnan(error[:2]).all()
    np.testing.assert_allclose(error[2:], np.nanstd(rounds[:, 2:], axis=0, ddof=1))


def test_bootstrap_keeps_groups_and_zero_weights(rng):
    w = windows_of([np.zeros((4, 3))] * 6, weight=[1, 1, 2, 2, 0, 0], group=[7, 7, 8, 8, 9, 7])
    weights = statistics.bootstrap_weights(w, 50, rng)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 1])
    np.testing.assert_array_equal(weights[:, 2], weights[:, 3])
    assert not weights[:, 4:].any()
    # two groups are drawn, with repeats: 2 in all
    np.testing.assert_allclose(weights[:, 0] + weights[:, 2] / 2, 2)


def test_stacks_without_anything_are_missing():
    stack = Stacked(np.zeros((3, 2)), np.array([[1.0, 0], [0, 0], [0, 0]]))
    np.testing.assert_array_equal(stack.at(np.ones((1, 3))), [[0.0, np.nan]])


def test_abundance_is_a_number_per_volume_whatever_the_weights(rng):
    w = windows_of([np.zeros((k, 3)) for k in (45, 50, 70, 12)], weight=[5.0, 0.0, 1.0, 1.0])
    # Each window of these stands for one object in a Gpc/h cubed.
    assert statistics.measure(w, 10, rng, ("abundance",))["abundance"][0].tolist() == [2.0, 1.0]
    half = w.half("even")
    assert statistics.measure(half, 10, rng, ("abundance",))["abundance"][0].tolist() == [2.0, 2.0]


def test_quantiles_within_groups_are_those_of_the_group(rng):
    values, weights = rng.normal(size=60), rng.uniform(0.5, 2, (3, 60))
    groups = np.array([np.arange(60) < 40, np.arange(60) >= 40])
    levels = np.array([0.2, 0.5])
    ours = statistics.QuantilesWithin(values, levels, groups).at(weights)
    for place, group in enumerate(groups):
        alone = Quantiles(values[group], levels).at(weights[:, group])
        np.testing.assert_array_equal(ours[:, 2 * place : 2 * place + 2], alone)
    weights[0, :40] = 0
    assert np.isnan(statistics.QuantilesWithin(values, levels, groups).at(weights)[0, :2]).all()
