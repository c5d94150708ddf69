"""Fixtures that several tests share."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cmass.params import Params
    from cmass.workspace import Workspace


#: Fixtures of the session that take tens of seconds.
_COSTLY = ("tiny_run", "released", "tiny_workspace")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests that share a fixture run in one process, which makes it once.

    Fixtures of the session by their name, those of a module by the module; where tests say no
    group of their own.
    """
    for item in items:
        if not isinstance(item, pytest.Function) or item.get_closest_marker("xdist_group"):
            continue
        used = item._fixtureinfo.name2fixturedefs
        group = next((name for name in _COSTLY if name in used), None)
        if group is None and any(made[-1].scope == "module" for made in used.values()):
            group = str(item.path)
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A finished run in small (see tests/tiny.py): workspace and parameters. Read only."""
    pytest.importorskip("tensorflow")
    from tests.tiny import finished_run

    return finished_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run, tmp_path_factory):
    """Folder of the bundle of the finished run. Read only."""
    from cmass.pretrained import make_bundle

    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(*tiny_run, folder, commit="0123abc")
    return folder


@pytest.fixture(scope="session")
def tiny_workspace(tmp_path_factory):
    """Mocks, split and voxels by the real steps, small: workspace and parameters.

    Products of later steps may be added below its folder; what is there stays as it is.
    """
    from cmass import mock, split, voxels
    from cmass.params import Params, SplitParams, TrainParams, VoxelParams
    from cmass.workspace import Workspace

    base = Params()
    haloes = base.mock.haloes.model_copy(update={"n_windows": 110})
    params = base.model_copy(
        update={
            "mock": base.mock.model_copy(update={"haloes": haloes, "haloes_per_shard": 25}),
            "split": SplitParams(train=70, test=25, evaluation=10),
            "voxels": VoxelParams(n=20, clusters_per_shard=16),
            "train": TrainParams(epochs=2, batch_size=16, learning_rate=1e-3),
        }
    )
    workspace = Workspace(tmp_path_factory.mktemp("simulated"), "standard", "embedded")
    for step in (mock, split, voxels):
        step.run(workspace, params)
    return workspace, params


@pytest.fixture
def make_workspace(tmp_path: Path) -> Callable[..., Workspace]:
    """Function that builds a workspace below a temporary folder."""
    from tests.products import build_workspace

    return lambda name="data", **options: build_workspace(tmp_path / name, **options)


@pytest.fixture(scope="session")
def params() -> Params:
    """Parameters of the smoke profile, the rest as they come with the package."""
    from cmass.params import Params

    return Params(profile="smoke")


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory, params: Params) -> Workspace:
    """A workspace with its figures and one release, shared by tests that only read it."""
    from cmass import figures
    from cmass.publish import run
    from tests.products import build_workspace

    workspace = build_workspace(tmp_path_factory.mktemp("released") / "data")
    figures.run(workspace, params)
    run(workspace, params)
    return workspace


@pytest.fixture
def command_line_undone():
    """The command line sets up logging and signals of the process; undo that."""
    handlers, level = logging.root.handlers[:], logging.root.level
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
