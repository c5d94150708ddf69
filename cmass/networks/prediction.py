"""Point estimates from trained weights."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmass.errors import VoxelError, WorkspaceError
from cmass.networks.streaming import read_voxels, shard_files
from cmass.params import VoxelParams, WindowParams
from cmass.progress import track

if TYPE_CHECKING:
    import keras

#: Grids handed to the network at once: 50 MB at 50³.
BATCH = 100


def load(weights: Path, n: int) -> keras.Model:
    """CNN_3D for n voxels an axis with the weights of a ``.weights.h5`` file.

    Raises
    ------
    WorkspaceError
        The file is missing, damaged, or of another network.
    """
    from cmass.networks import cnn3d

    if not weights.exists():
        raise WorkspaceError(f"{weights} does not exist: run `cmass train` first")
    model = cnn3d.build(n)
    try:
        model.load_weights(weights)
    except (OSError, ValueError, KeyError) as error:
        raise WorkspaceError(
            f"{weights} does not hold the weights of CNN_3D for {n} voxels an axis: {error}"
        ) from error
    return model


def predict_grids(
    model: keras.Model, grids: NDArray[np.floating], batch_size: int = BATCH
) -> NDArray[np.float64]:
    """Outputs (N, units) of a network for grids (N, n, n, n) times ``voxels.scale``.

    CNN_3D has one unit, log10 M200c. The grids pass through float16, as on disk, so that a
    cluster gets the same estimate by every route.
    """
    out = np.empty((len(grids), model.output_shape[-1]))
    for start in range(0, len(grids), batch_size):
        part = np.asarray(grids[start : start + batch_size], np.float16).astype(np.float32)
        # Batches of one size: the last one is filled up, so that sums have one order.
        full = np.zeros((batch_size, *part.shape[1:], 1), np.float32)
        full[: len(part), ..., 0] = part
        values = np.asarray(model.predict_on_batch(full), np.float64)
        out[start : start + batch_size] = values[: len(part)]
    return out


def predict_clouds(
    model: keras.Model, clouds: Iterable[NDArray[np.float64]], window: WindowParams,
    voxels: VoxelParams,
) -> NDArray[np.float64]:  # fmt: skip
    """Outputs (N, units) of a network for clouds of galaxies (x, y, v).

    Clouds without a density (all galaxies in one plane) get NaN.
    """
    from cmass.voxels import density_grid

    done = [np.empty((0, model.output_shape[-1]))]
    left = iter(clouds)
    while batch := list(islice(left, BATCH)):
        grids = np.empty((len(batch), voxels.n, voxels.n, voxels.n), np.float32)
        values = np.full((len(batch), model.output_shape[-1]), np.nan)
        known: list[int] = []
        for row, cloud in enumerate(batch):
            try:
                grid = density_grid(
                    cloud, kappa=voxels.kappa, half_width=window.half_width_mpc_h,
                    v_max=window.v_max_km_s, n=voxels.n,
                )  # fmt: skip
            except VoxelError:
                continue
            np.multiply(grid, np.float32(voxels.scale), out=grids[len(known)])
            known.append(row)
        values[known] = predict_grids(model, grids[: len(known)])
        done.append(values)
    return np.concatenate(done)


def with_features(network: keras.Model) -> keras.Model:
    """The network with the outputs of its first dense layer behind its own: (batch, 1 + units)."""
    import keras

    dense = next(x for x in network.layers if isinstance(x, keras.layers.Dense))
    both = keras.layers.Concatenate()([network.output, dense.output])
    return keras.Model(network.inputs, both)


def outputs_of_folder(
    model: keras.Model, folder: Path
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Identifiers, true log10 M200c and outputs (N, units) of all clusters of a voxel folder."""
    ids: list[str] = []
    true: list[NDArray[np.float64]] = []
    outputs: list[NDArray[np.float64]] = []
    for file in track(shard_files(folder), f"predict {folder.name}"):
        for names, masses, grids in read_voxels(file):
            ids += names
            true.append(masses)
            outputs.append(predict_grids(model, grids))
    return ids, np.concatenate(true), np.concatenate(outputs)


def predict_folder(
    model: keras.Model, folder: Path
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Identifiers, true and predicted log10 M200c of all clusters of a voxel folder."""
    ids, true, outputs = outputs_of_folder(model, folder)
    return ids, true, outputs[:, 0]
