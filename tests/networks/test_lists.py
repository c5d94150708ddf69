"""Lists of galaxies: the clusters, order and training of the voxels on disk, without the voxels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cmass import pipeline, voxels
from cmass.errors import ParameterError, VoxelError, WorkspaceError
from cmass.networks import cnn3d, engines, lists, streaming, training
from cmass.networks.lists import Lists, mock_lists, padded_length
from cmass.params import Params, TrainParams, VoxelParams, load_params
from cmass.tables import file_digest, read_json
from cmass.voxels import density_grid
from cmass.workspace import Workspace
from tests.networks import both_routes
from tests.networks.both_routes import DEVICE, PARAMS, N

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """Mocks, split and voxels of forty clusters to learn from, in shards of nine. Read only."""
    return both_routes.make(tmp_path_factory.mktemp("lists"))


@pytest.fixture
def without_voxels(workspace, tmp_path) -> Workspace:
    """The same mocks and split, no voxels."""
    bare = Workspace(tmp_path / "bare", "smoke", "embedded")
    bare.home.mkdir(parents=True)
    for name in ("mock", "split"):
        (bare.home / name).symlink_to(workspace.home / name)
    return bare


@pytest.mark.parametrize("which", ["train", "validation"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_batches_are_those_of_the_files(workspace, which, shuffled):
    files = streaming.Files(workspace.voxels / which)
    clusters = mock_lists(workspace, DEVICE, which)
    assert len(clusters) == len(files)
    np.testing.assert_array_equal(clusters.masses(), files.masses())

    def drawn() -> np.random.Generator | None:
        return np.random.default_rng(5) if shuffled else None

    ours = list(clusters.batches(7, drawn(), augmented=shuffled))
    theirs = list(files.batches(7, drawn(), augmented=shuffled))
    assert sum(map(len, ours)) == len(clusters)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.masses, b.masses)
        for points, count, grid in zip(a.points, a.counts, b.turned(), strict=True):
            assert not points[count:].any()
            plain = density_grid(points[:count], n=N) * np.float32(1000)
            # Half floats, of coordinates in single precision.
            np.testing.assert_allclose(plain, grid.astype(float), rtol=1e-3, atol=1e-4)


def test_another_draw_is_another_order(workspace):
    clusters = mock_lists(workspace, DEVICE, "train")
    orders = [
        np.concatenate([b.masses for b in clusters.batches(7, np.random.default_rng(seed))])
        for seed in (1, 2)
    ]
    assert (orders[0] != orders[1]).any()
    np.testing.assert_array_equal(*(np.sort(order) for order in orders))


def test_lists_have_few_lengths_and_little_padding():
    lengths = [padded_length(longest) for longest in range(1, 3000)]
    assert all(n >= longest for longest, n in enumerate(lengths, start=1))
    assert all(n <= 1.5 * longest for longest, n in enumerate(lengths, start=1) if longest > 32)
    assert all(n % 8 == 0 for n in lengths)
    assert len(set(lengths)) == 14


def test_a_cluster_without_a_density_is_named_before_training():
    random = np.random.default_rng(0)
    points = random.normal(size=(30, 3)) * [1, 1, 500]
    points[10:20, 1] = 2 * points[10:20, 0]  # the second cluster lies in one plane
    offsets = np.array([0, 10, 20, 30])
    with pytest.raises(VoxelError, match="cluster b has no density.*one plane"):
        Lists.checked(points, offsets, np.full(3, 14.0), DEVICE, ["a", "b", "c"])


# ------------------------------------------------------------------------------- parameters


def test_compiled_loops_and_grids_on_the_device_exclude_each_other(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("train: {grids: device, engine: compiled}")
    with pytest.raises(ParameterError, match="set train.engine to auto or keras"):
        load_params(file)
    copied = PARAMS.train.model_copy(update={"grids": "device", "engine": "compiled"})
    model = cnn3d.build(N)
    with pytest.raises(ParameterError, match=r"train\.grids: device needs Keras"):
        engines.make(model, PARAMS.model_copy(update={"train": copied}))


def test_auto_is_keras_where_it_makes_the_grids(workspace):
    engine = engines.make(cnn3d.build(N), DEVICE)
    assert isinstance(engine, engines.KerasEngine)
    batch = next(iter(mock_lists(workspace, DEVICE, "train").batches(8)))
    grids = next(iter(streaming.Files(workspace.voxels / "train").batches(8)))
    # One cluster, one estimate: half floats on both routes, and in a few voxels another last digit,
    # 5e-4 of the voxel, of which 1728 make an estimate of order one. Other grids differ by 0.1.
    np.testing.assert_allclose(engine.predict(batch), engine.predict(grids), atol=2e-4)


def test_an_engine_of_the_other_kind_says_so(workspace):
    batch = next(iter(mock_lists(workspace, DEVICE, "train").batches(8)))
    model = cnn3d.build(N)
    for engine in (
        engines.KerasEngine(model, PARAMS.train),
        engines.CompiledEngine(model.get_weights(), N, PARAMS.train),
    ):
        with pytest.raises(TypeError, match="lists of galaxies"):
            engine.predict(batch)
        with pytest.raises(TypeError, match="lists of galaxies"):
            engine.step(batch, 1e-3)


# --------------------------------------------------------------------------------- training


def check_routes(report: dict) -> None:
    """What both backends must show of the two routes."""
    # The same first weights, order and symmetries; grids that differ by rounding, in a few voxels
    # by one digit of a half float. Seen: 2e-6 in losses, 5e-7 in weights that move by 1e-2.
    for route in ("device", "resumed"):
        np.testing.assert_allclose(report[route], report["files"], rtol=5e-5)
    assert report["weights_apart"] < 5e-5
    assert report["resumed"] == report["device"]
    assert report["same_weights"]
    assert len(report["clusters_per_second"]) == 2
    assert report["paper_minutes"] > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_training_by_lists_is_training_by_files(workspace, tmp_path, backend):
    pytest.importorskip(backend)
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "tests.networks.both_routes", str(workspace.root), str(out)],
        cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((out / "report.json").read_text())
    assert report["backend"] == backend
    check_routes(report)
    # The file of weights is the plain network's, which compiled loops read on any machine.
    network = cnn3d.load(out / "cnn3d.weights.h5", N)
    with np.load(out / "weights.npz") as saved:
        for name, weight in zip(saved.files, network.get_weights(), strict=True):
            np.testing.assert_array_equal(saved[name], weight)
    estimates = network.outputs(
        next(iter(streaming.Files(workspace.voxels / "validation").batches(4))).turned()
    )[0]
    assert np.isfinite(estimates).all()


def test_the_step_trains_without_voxels_and_keeps_its_times(without_voxels, caplog, monkeypatch):
    monkeypatch.setattr(lists, "SHORTEST", 512)  # one length to compile
    caplog.set_level("INFO")
    training.run(without_voxels, DEVICE, register=False)
    assert not without_voxels.voxels.exists()
    summary = read_json(without_voxels.model / "model.json")
    assert (summary["n_train"], summary["n_validation"]) == (36, 4)
    assert "clusters/s on processors; 50 epochs of 17000 windows would take" in caplog.text
    cnn3d.load(without_voxels.model / "cnn3d.weights.h5", N)

    other = DEVICE.model_copy(update={"voxels": VoxelParams(n=N, clusters_per_shard=9, kappa=0.2)})
    digests = [training._data(without_voxels, how)[2] for how in (DEVICE, other)]
    assert digests[0] == digests[1] == summary["data_sha256"]


def test_times_are_no_part_of_a_state():
    one, two = (
        training.State(1, [0.1], [0.1], [1e-3], [speed], [36 / speed]) for speed in (10.0, 20.0)
    )
    assert one == two
    state = training.State()
    for seconds in (40.0, 20.0, 22.0, 24.0):  # the first epoch compiles
        state.add_times(900 / seconds, seconds)
    assert state.speed == pytest.approx(900 / 22)
    assert state.paper_minutes(1000) == pytest.approx(50 * 17 * 22 / 60)


# --------------------------------------------------------------------------------- pipeline


def test_voxels_of_sets_that_training_makes_are_not_written(without_voxels, workspace):
    voxels.run(without_voxels, DEVICE)
    assert sorted(p.name for p in without_voxels.voxels.iterdir()) == ["evaluation", "test"]
    for name in ("test", "evaluation"):
        assert file_digest(without_voxels.voxels / name) == file_digest(workspace.voxels / name)
    # and are when they are asked for again
    voxels.run(without_voxels, PARAMS)
    assert file_digest(without_voxels.voxels) == file_digest(workspace.voxels)


def test_steps_that_train_wait_for_no_voxels(without_voxels):
    step = pipeline.step("train")
    assert without_voxels.voxels in pipeline._inputs(step, without_voxels, PARAMS)
    assert without_voxels.voxels not in pipeline._inputs(step, without_voxels, DEVICE)
    digests = pipeline._Digests(without_voxels)
    pipeline._check_inputs(step, without_voxels, DEVICE, digests)
    with pytest.raises(WorkspaceError, match="run `cmass voxelize` first"):
        pipeline._check_inputs(step, without_voxels, PARAMS, digests)


def test_odd_windows_are_found_by_either_route(tiny_run, tmp_path):
    """The training set's features come from galaxies where no voxels of it are on disk."""
    from cmass import oddity

    workspace, params = tiny_run
    device = params.model_copy(update={"train": TrainParams(grids="device")})
    bare = Workspace(tmp_path, "smoke", "embedded")
    bare.voxels.mkdir(parents=True)
    for name in ("mock", "split", "model", "voxels/test", "voxels/evaluation"):
        (bare.home / name).symlink_to(workspace.home / name)
    oddity.run(bare, device)
    assert file_digest(bare.oddity) == file_digest(workspace.oddity)


def test_another_seed_of_the_network_is_trained_on_lists(tmp_path, monkeypatch):
    from cmass.estimators.cnn3d import CNN3D
    from tests.estimators.toy import toy_sets

    asked = {}

    def fit(train, validation, checkpoint, params, seed, identity):
        asked.update(train=train, validation=validation)
        return cnn3d.build(params.voxels.n).get_weights(), training.State(1, [0.1], [0.1], [1e-3])

    monkeypatch.setattr(training, "fit", fit)
    sets = toy_sets(8)
    params = Params(voxels=VoxelParams(n=N), train=DEVICE.train)
    CNN3D(params, params.seed + 1).fit_point(sets, tmp_path)
    assert not list(tmp_path.iterdir())
    for name in ("train", "validation"):
        windows = getattr(sets, name)
        np.testing.assert_allclose(asked[name].points, windows.points, rtol=1e-6)
        np.testing.assert_array_equal(asked[name].masses(), windows.log10_m200c_true)
