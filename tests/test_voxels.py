"""Density grids against scipy, and the voxel data set."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gaussian_kde

from cmass import mock, split, voxels
from cmass.errors import VoxelError
from cmass.half import grids_from_bytes, half_floats
from cmass.networks import streaming
from cmass.networks.streaming import read_voxels
from cmass.split import SETS
from cmass.tables import file_digest, read_table, write_table
from cmass.voxels import density_grid

AXIS, V_AXIS = np.linspace(-4, 4, 50), np.linspace(-2200, 2200, 50)
GRID = np.array(np.meshgrid(AXIS, AXIS, V_AXIS, indexing="ij")).reshape(3, -1)


def cloud(seed: int, n: int) -> np.ndarray:
    """A window: a core, a correlated sheet and a field, cut at the window's edges."""
    random = np.random.default_rng(seed)
    core = random.normal(0, [0.6, 0.6, 700], (n // 2, 3))
    sheet = random.normal(0, [2.0, 0.7, 300], (n - n // 2, 3))
    sheet[:, 2] += 250 * sheet[:, 0]
    points = np.concatenate([core, sheet]) @ np.eye(3)
    return np.clip(points, [-4, -4, -2200], [4, 4, 2200])


def scipy_grid(points: np.ndarray, kappa: float) -> np.ndarray:
    density = gaussian_kde(points.T, kappa).evaluate(GRID).reshape(50, 50, 50)
    return density / density.sum()


@pytest.mark.parametrize("seed", range(200))
def test_equals_scipy_on_200_clouds(seed):
    random = np.random.default_rng(1000 + seed)
    n, kappa = int(random.integers(4, 60)), float(random.choice([0.15, 0.175, 0.20]))
    points = cloud(seed, n)
    reference = scipy_grid(points, kappa)
    difference = np.abs(density_grid(points, kappa=kappa) - reference).max()
    # The contract is 1e-5 of the peak.
    assert difference < 1e-6 * reference.max()


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 300, 1000])
def test_equals_scipy_on_rich_clusters(n):
    points = cloud(n, n)
    reference = scipy_grid(points, 0.175)
    assert np.abs(density_grid(points) - reference).max() < 1e-6 * reference.max()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(4, 120), st.floats(0.05, 0.5), st.integers(8, 64))
def test_is_a_density(seed, n, kappa, voxels_an_axis):
    points = cloud(seed, n)
    try:
        grid = density_grid(points, kappa=kappa, n=voxels_an_axis)
    except VoxelError:
        # Kernels so narrow that no voxel sees them: scipy's density is nil there too.
        axis = np.linspace(-4, 4, voxels_an_axis)
        v_axis = np.linspace(-2200, 2200, voxels_an_axis)
        places = np.array(np.meshgrid(axis, axis, v_axis, indexing="ij")).reshape(3, -1)
        assert gaussian_kde(points.T, kappa).evaluate(places).max() < 1e-280
        return
    assert grid.shape == (voxels_an_axis,) * 3
    assert grid.dtype == np.float32
    assert np.isfinite(grid).all()
    assert (grid >= 0).all()
    assert grid.sum(dtype=np.float64) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("tilt", [0.0, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("axes", [(0, 1), (0, 2), (1, 2)])
def test_equals_scipy_when_two_coordinates_go_together(tilt, axes):
    random = np.random.default_rng(5)
    points = random.normal(size=(40, 3))
    a, b = axes
    points[:, b] = tilt * points[:, a] + np.sqrt(1 - tilt**2) * points[:, b]
    points *= [1.0, 1.0, 600.0]
    reference = scipy_grid(points, 0.175)
    assert np.abs(density_grid(points) - reference).max() < 1e-6 * reference.max()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_symmetries_of_the_window_are_symmetries_of_the_grid(seed):
    points = cloud(seed, 40)
    grid = density_grid(points)
    tolerance = 1e-6 * grid.max()
    np.testing.assert_allclose(
        density_grid(points * [1, 1, -1]), grid[:, :, ::-1], atol=tolerance, rtol=0
    )
    np.testing.assert_allclose(
        density_grid(points[:, [1, 0, 2]]), grid.transpose(1, 0, 2), atol=tolerance, rtol=0
    )


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (np.zeros((3, 3)), "3 galaxies have no density"),
        (np.ones((20, 3)), "singular"),
        (np.c_[np.arange(10.0), np.arange(10.0), np.arange(10.0)], "singular"),
        (np.c_[np.random.default_rng(0).normal(size=(9, 2)), np.full(9, 1e3)], "singular"),
        (np.full((9, 3), np.nan), "not finite"),
        (1e6 + np.random.default_rng(0).normal(size=(9, 3)), "no galaxy is near the grid"),
        (np.zeros((5, 2)), r"shape \(N, 3\)"),
    ],
)
def test_clouds_without_a_density_are_named_errors(points, words):
    with pytest.raises(VoxelError, match=words):
        density_grid(points)


def test_data_set_is_the_same_by_one_and_two_workers(tiny_workspace, tmp_path):
    """Mock, split and voxels: same bytes in any number of workers, grids as declared."""
    workspace, params = tiny_workspace
    other = type(workspace)(tmp_path, workspace.profile, workspace.survey)
    alone = params.model_copy(update={"workers": 1})
    for step in (mock, split, voxels):
        step.run(other, alone)
    for folder in ("mock", "split", "voxels"):
        assert file_digest(getattr(other, folder)) == file_digest(getattr(workspace, folder))
    table = pq.read_table(workspace.voxels / "test" / "shard-00000.parquet")
    assert table.schema.equals(voxels.voxel_schema(params.voxels.n))
    grids = grids_from_bytes(table["voxels"].combine_chunks())
    assert grids.shape[1:] == (params.voxels.n,) * 3
    sums = grids.astype(np.float64).sum(axis=(1, 2, 3))
    # float16 keeps three digits; sums over the grid average the rounding out.
    np.testing.assert_allclose(sums, params.voxels.scale, rtol=2e-3)


def test_each_cluster_has_the_density_of_its_own_galaxies(tiny_workspace):
    """Whatever files they lie in: against all galaxies in memory."""
    workspace, params = tiny_workspace
    galaxies = read_table(workspace.mock / "galaxies", "mock_galaxies").to_pandas()
    truth = read_table(workspace.mock / "clusters", "mock_clusters").to_pandas()
    truth = truth.set_index("cluster_id")["log10_m200c_true"]
    seen = 0
    for file in sorted(workspace.voxels.rglob("*.parquet")):
        for ids, masses, grids in read_voxels(file):
            own = galaxies[galaxies["cluster_id"] == ids[-1]]
            grid = density_grid(own[["x_proj", "y_proj", "v_los"]], n=params.voxels.n)
            np.testing.assert_array_equal(grids[-1], half_floats(grid * params.voxels.scale))
            assert masses[-1] == truth[ids[-1]]
            seen += 1
    assert seen >= 4


def test_galaxies_of_a_cluster_may_lie_in_several_files(tiny_workspace, tmp_path):
    workspace, params = tiny_workspace
    other = type(workspace)(tmp_path, workspace.profile, workspace.survey)
    shutil.copytree(workspace.mock / "clusters", other.mock / "clusters")
    shutil.copytree(workspace.split, other.split)
    table = read_table(workspace.mock / "galaxies", "mock_galaxies")
    for number in range(3):  # every third galaxy
        rows = np.arange(number, len(table), 3)
        file = other.mock / "galaxies" / f"shard-{number:05d}.parquet"
        write_table(file, table.take(rows), "mock_galaxies")
    voxels.run(other, params)
    for which in SETS:
        assert _grids(other, which) == pytest.approx(_grids(workspace, which), rel=2e-3, abs=1e-4)


def _grids(workspace, which):
    """The grids of a set, by cluster, laid one after the other."""
    found = {}
    for file in sorted((workspace.voxels / which).glob("*.parquet")):
        for ids, _, grids in read_voxels(file):
            found |= dict(zip(ids, grids.astype(float), strict=True))
    return np.concatenate([found[name].ravel() for name in sorted(found)])


def test_broken_run_goes_on_with_the_shards_it_has(tiny_workspace, tmp_path, monkeypatch):
    workspace, params = tiny_workspace
    other = type(workspace)(tmp_path, workspace.profile, workspace.survey)
    one = params.model_copy(update={"workers": 1})
    mock.run(other, one)
    split.run(other, one)
    made = []
    original = voxels.make_shard

    def break_after_two(folder, shard):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(shard.number)
        original(folder, shard)

    monkeypatch.setattr(voxels, "make_shard", break_after_two)
    with pytest.raises(KeyboardInterrupt):
        voxels.run(other, one)
    assert not other.voxels.exists()
    again = []

    def count(folder, shard):
        again.append(shard.number)
        original(folder, shard)

    monkeypatch.setattr(voxels, "make_shard", count)
    voxels.run(other, one)
    assert not set(made) & set(again)
    assert file_digest(other.voxels) == file_digest(workspace.voxels)


def test_streams_every_cluster_once_an_epoch(tiny_workspace):
    workspace, _ = tiny_workspace
    folder = workspace.voxels / "train"
    n = streaming.count(folder)
    for random in (None, np.random.default_rng(0)):
        seen = [batch.masses for batch in streaming.batches(folder, 7, random)]
        assert all(len(y) == 7 for y in seen[:-1])
        np.testing.assert_allclose(
            np.sort(np.concatenate(seen)), np.sort(streaming.true_masses(folder)), rtol=1e-6
        )
        assert sum(map(len, seen)) == n
