"""Grids made on the device, against the loops of the processor and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import gaussian_kde

from cmass.networks import engines
from cmass.networks.density_layer import AT_ONCE, DensityGrid, rounded_to_half
from cmass.networks.streaming import turn, turn_points
from cmass.params import Params, VoxelParams, WindowParams
from cmass.voxels import density_grid

N = 16
#: The contract of SPEC section 4, of the peak.
CLOSE = 1e-5


def window(seed: int, n: int) -> np.ndarray:
    """Half of the galaxies in a core, half in a sheet whose velocity follows x."""
    random = np.random.default_rng(seed)
    core = random.normal(0, [0.6, 0.6, 700], (n // 2, 3))
    sheet = random.normal(0, [2.0, 0.7, 300], (n - n // 2, 3))
    sheet[:, 2] += 250 * sheet[:, 0]
    return np.clip(np.concatenate([core, sheet]), [-4, -4, -2200], [4, 4, 2200])


def tilted(correlation: float, axes: tuple[int, int]) -> np.ndarray:
    """Forty galaxies of which two coordinates go together."""
    points = np.random.default_rng(5).normal(size=(40, 3))
    a, b = axes
    points[:, b] = correlation * points[:, a] + np.sqrt(1 - correlation**2) * points[:, b]
    return points * [1, 1, 500]


def beyond(seed: int) -> np.ndarray:
    """A window of which a third lies outside the grid, and some galaxies on its very corners."""
    random = np.random.default_rng(seed)
    points = random.uniform(-1.5, 1.5, (30, 3)) * [4, 4, 2200]
    points[:4] = [[4, 4, 2200], [-4, 4, -2200], [4, -4, 2200], [-4, -4, -2200]]
    return points


def group(size: float) -> np.ndarray:
    """Eight galaxies in a small part of one voxel, away from its middle."""
    random = np.random.default_rng(8)
    return np.array([0.4, 0.15, 40.0]) + size * random.normal(size=(8, 3)) * [1, 1, 500]


CLOUDS = {
    **{f"{n} galaxies": window(n, n) for n in (4, 5, 8, 9, 30, 100, 300)},
    **{
        f"{correlation} along {axes}": tilted(correlation, axes)
        for correlation in (0.9, 0.99)
        for axes in ((0, 1), (0, 2), (1, 2))
    },
    "all outside but few": beyond(3),
    "smaller than a voxel": group(0.15),  # kernels of a twentieth of a voxel
}


def lists(clouds: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Padded lists and their lengths. What lies behind the galaxies is not nothing."""
    longest = -(-max(map(len, clouds)) // AT_ONCE) * AT_ONCE
    points = np.full((len(clouds), longest, 3), 0.25, np.float32)
    for row, cloud in enumerate(clouds):
        points[row, : len(cloud)] = cloud
    return points, np.array([len(cloud) for cloud in clouds], np.int32)


def unrounded(clouds: list[np.ndarray], n: int = N, **how) -> np.ndarray:
    """Grids (k, n, n, n) of unit sum, not rounded to half floats, as the backend compiles them."""
    import tensorflow as tf

    layer = DensityGrid(n, half=False, **how)
    grids = tf.function(layer, jit_compile=True, autograph=False)
    return np.asarray(grids(*lists(clouds)))[..., 0]


@pytest.fixture(scope="module")
def made() -> dict[str, np.ndarray]:
    """Grids of all clouds, made in one batch."""
    return dict(zip(CLOUDS, unrounded(list(CLOUDS.values())), strict=True))


@pytest.mark.parametrize("name", CLOUDS)
def test_equals_the_loops_on_the_processor(made, name):
    reference = density_grid(CLOUDS[name], n=N)
    assert np.abs(made[name] - reference).max() < CLOSE * reference.max()
    assert made[name].sum(dtype=float) == pytest.approx(1, abs=2e-6)


@pytest.mark.parametrize("name", CLOUDS)
def test_equals_scipy(made, name):
    points = CLOUDS[name]
    axis, axis_v = np.linspace(-4, 4, N), np.linspace(-2200, 2200, N)
    places = np.array(np.meshgrid(axis, axis, axis_v, indexing="ij")).reshape(3, -1)
    # The logarithm: densities of the smallest clouds are too small for a number.
    log_density = gaussian_kde(points.T, 0.175).logpdf(places).reshape(N, N, N)
    reference = np.exp(log_density - log_density.max())
    reference /= reference.sum()
    assert np.abs(made[name] - reference).max() < CLOSE * reference.max()


def test_the_fewest_galaxies_never_overflow():
    """Four to six galaxies: thin kernels, to which another voxel is nearest than axis by axis.

    Of 4000 such windows 40 would overflow if that voxel were taken for the nearest.
    """
    random = np.random.default_rng(0)
    clouds = [
        random.uniform(-1, 1, (int(random.integers(4, 7)), 3)) * [4, 4, 2200] for _ in range(600)
    ]
    found = unrounded(clouds)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3), dtype=float), 1, atol=1e-5)


def test_kernels_that_no_voxel_is_near_are_not_lost():
    """A peak of exp(-400), nothing in single precision: kernels are measured against the nearest."""
    points = group(0.05)
    reference = density_grid(points, n=N)
    found = unrounded([points])[0]
    # Thirty deviations away a coordinate's last digit moves a density by a thousandth.
    assert np.abs(found - reference).max() < 1e-3 * reference.max()


def test_other_windows_bandwidths_and_grids():
    how = {"kappa": 0.2, "half_width": 1.6, "v_max": 1500.0}
    points = window(2, 60) * [0.5, 0.5, 0.7]
    reference = density_grid(points, n=23, **how)
    found = unrounded([points], 23, **how)[0]
    assert np.abs(found - reference).max() < CLOSE * reference.max()


def test_a_cluster_does_not_depend_on_its_batch(made):
    """Neither on its neighbours nor on what fills up its list."""
    points, counts = lists([CLOUDS["30 galaxies"], CLOUDS["300 galaxies"]])
    points[0, counts[0] :] = np.random.default_rng(0).normal(0, 900, points[0, counts[0] :].shape)
    found = np.asarray(DensityGrid(N, half=False)(points, counts))[0, ..., 0]
    # another compiler's order of sums
    np.testing.assert_allclose(found, made["30 galaxies"], atol=1e-6 * found.max())


def test_turned_galaxies_give_turned_grids():
    clouds = [window(7, 20)] * 16
    symmetries = np.arange(16, dtype=np.uint8)
    points, counts = lists(clouds)
    turned = turn_points(points, symmetries)
    found = unrounded([p[:c] for p, c in zip(turned, counts, strict=True)])
    expected = turn(unrounded(clouds[:1]).repeat(16, axis=0), symmetries)
    assert np.abs(found - expected).max() < 1e-6 * expected.max()
    assert len({grid.round(6).tobytes() for grid in expected}) == 16


def test_rounds_to_half_floats_to_the_bit():
    random = np.random.default_rng(0)
    tiny = np.arange(2**13) * 2.0**-26  # the smallest half floats, and every tie between them
    between = (np.arange(2.0**10, 2.0**11 + 1) + 0.5) * 2.0**-9
    wide = 10 ** random.uniform(-30, 4.9, 50_000)
    ends = [0, 2.0**-14, 65504, 65519, 65520, 65521, 1e9]
    values = np.concatenate([tiny, between, wide, ends]).astype(np.float32)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(rounded_to_half(values)), expected)


def test_grids_for_the_network_are_those_on_disk():
    """Times scale, half floats: but for voxels so near a tie that the last digits decide."""
    params = Params(
        voxels=VoxelParams(n=N, kappa=0.2, scale=500.0),
        window=WindowParams(half_width_mpc_h=3.0, v_max_km_s=2000.0),
    )
    clouds = [window(1, 40), window(2, 150)]
    found = np.asarray(engines.on_device(params)(*lists(clouds)))
    assert found.shape == (2, N, N, N, 1)
    np.testing.assert_array_equal(found, found.astype(np.float16))
    for cloud, grid in zip(clouds, found[..., 0], strict=True):
        plain = density_grid(cloud, kappa=0.2, half_width=3.0, v_max=2000.0, n=N)
        expected = (plain * np.float32(500)).astype(np.float16).astype(np.float32)
        # Beyond 5.6 standard deviations, 1e-7 of a kernel, loops skip voxels and the layer does not.
        np.testing.assert_allclose(grid, expected, rtol=1.01 * 2**-10, atol=3e-6 * expected.max())
        assert (grid == expected)[expected > 1e-4 * expected.max()].mean() > 0.95


def test_the_layer_is_made_again_from_its_settings():
    layer = DensityGrid(9, kappa=0.2, half_width=1.6, v_max=900.0, scale=10.0, half=False)
    again = DensityGrid.from_config(layer.get_config())
    points, counts = lists([window(4, 12)])
    assert layer.compute_output_shape(points.shape, counts.shape) == (1, 9, 9, 9, 1)
    np.testing.assert_array_equal(again(points, counts), layer(points, counts))
    assert not layer.weights


def test_lists_of_a_wrong_length_are_refused():
    with pytest.raises(ValueError, match="multiple of 8"):
        DensityGrid(9)(np.zeros((1, 12, 3), np.float32), np.array([12], np.int32))
