"""Training by both routes on one backend: ``python -m tests.networks.both_routes DATA OUT``.

DATA is a data folder with mocks, split and voxels of `PARAMS`; OUT gets the numbers. A process of
its own, since Keras has one backend from its import on (``KERAS_BACKEND``).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from cmass.networks import cnn3d, lists, streaming, training
from cmass.networks.lists import mock_lists
from cmass.networks.training import State
from cmass.params import Params, SplitParams, TrainParams, VoxelParams
from cmass.workspace import Workspace
from tests.tiny import mock_windows

SEED, N = 7, 12
PARAMS = Params(
    voxels=VoxelParams(n=N, clusters_per_shard=9),
    split=SplitParams(train=40, test=10, evaluation=10),
    # 36 clusters: three whole batches an epoch, one shape to compile
    train=TrainParams(epochs=2, batch_size=12, learning_rate=1e-3, engine="keras"),
    workers=1,
)
DEVICE = PARAMS.model_copy(
    update={"train": PARAMS.train.model_copy(update={"grids": "device", "engine": "auto"})}
)


def make(root: Path) -> Workspace:
    """Synthetic mocks, split and voxels of `PARAMS`."""
    from cmass import split, voxels

    workspace = Workspace(root, "smoke", "embedded")
    random = np.random.default_rng(3)
    mock_windows(workspace.mock, PARAMS, random.uniform(13.6, 15.0, 66), random)
    split.run(workspace, PARAMS)
    voxels.run(workspace, PARAMS)
    return workspace


def by_files(workspace: Workspace, checkpoint: Path) -> tuple[list[np.ndarray], State]:
    """Train on the voxels on disk."""
    sets = (streaming.Files(workspace.voxels / name) for name in ("train", "validation"))
    return training.fit(*sets, checkpoint, PARAMS, SEED, "files")


def on_device(
    workspace: Workspace, checkpoint: Path, epochs: int = 2
) -> tuple[list[np.ndarray], State]:
    """Train on lists of galaxies, for some epochs of a training of two."""
    sets = [mock_lists(workspace, DEVICE, name) for name in ("train", "validation")]
    if epochs == 2:
        return training.fit(*sets, checkpoint, DEVICE, SEED, "device")
    original, done = State.finished, epochs

    def early(state: State, train: TrainParams) -> bool:
        return state.epoch >= done or original(state, train)

    State.finished = early  # type: ignore[method-assign]
    try:
        return training.fit(*sets, checkpoint, DEVICE, SEED, "device")
    finally:
        State.finished = original  # type: ignore[method-assign]


def main(data: Path, out: Path) -> None:
    """Train by files, on lists, and on lists with a break; write what they gave."""
    import keras

    lists.SHORTEST = 512  # one length to compile; tests/networks/test_lists.py has the others
    workspace = Workspace(data, "smoke", "embedded")
    out.mkdir()
    files, state = by_files(workspace, out / "files.npz")
    whole, state_of_lists = on_device(workspace, out / "whole.npz")
    on_device(workspace, out / "broken.npz", epochs=1)
    resumed, state_resumed = on_device(workspace, out / "broken.npz")
    cnn3d.save(cnn3d.compiled(whole, N, DEVICE.train), out / "cnn3d.weights.h5")
    report = {
        "backend": keras.backend.backend(),
        "files": [state.loss, state.val_loss],
        "device": [state_of_lists.loss, state_of_lists.val_loss],
        "resumed": [state_resumed.loss, state_resumed.val_loss],
        "same_weights": all(np.array_equal(a, b) for a, b in zip(whole, resumed, strict=True)),
        "weights_apart": max(
            float(np.abs(a - b).max()) for a, b in zip(whole, files, strict=True)
        ),
        "clusters_per_second": state_of_lists.clusters_per_second,
        "paper_minutes": state_of_lists.paper_minutes(40),
    }  # fmt: skip
    np.savez(out / "weights.npz", *whole)
    (out / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
