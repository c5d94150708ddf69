"""Point estimates, and features, from a trained network."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmass.errors import VoxelError
from cmass.networks.streaming import read_voxels, shard_files
from cmass.params import VoxelParams, WindowParams
from cmass.progress import track

if TYPE_CHECKING:
    from cmass.networks.compiled import CompiledCNN3D

Array = NDArray[np.float64]

#: Grids made at once: 50 MB at 50³.
BATCH = 100


def predict_grids(
    network: CompiledCNN3D, grids: NDArray[np.floating], *, features: bool = False
) -> Array:
    """Outputs of a network for grids (N, n, n, n) times ``voxels.scale``.

    Parameters
    ----------
    network : CompiledCNN3D
    grids : ndarray, shape (N, n, n, n)
    features : bool
        Outputs of the first dense layer as well.

    Returns
    -------
    ndarray, shape (N, 1) or (N, 1 + n_features)
        log10 M200c, and the features.
    """
    point, hidden = network.outputs(grids)
    return np.column_stack([point, hidden] if features else [point]).astype(np.float64)


def predict_clouds(
    network: CompiledCNN3D, clouds: Iterable[Array], window: WindowParams, voxels: VoxelParams, *,
    features: bool = False,
) -> Array:  # fmt: skip
    """Outputs of a network for clouds of galaxies (x, y, v), as `predict_grids` has them.

    Clouds without a density (all galaxies in one plane) get NaN.
    """
    from cmass.voxels import density_grid

    units = 1 + network.n_features * features
    done = [np.empty((0, units))]
    left = iter(clouds)
    while batch := list(islice(left, BATCH)):
        grids = np.empty((len(batch), voxels.n, voxels.n, voxels.n), np.float32)
        values = np.full((len(batch), units), np.nan)
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
        values[known] = predict_grids(network, grids[: len(known)], features=features)
        done.append(values)
    return np.concatenate(done)


def predict_folder(
    network: CompiledCNN3D, folder: Path, *, features: bool = False
) -> tuple[list[str], Array, Array]:
    """Identifiers, true log10 M200c and outputs of all clusters of a voxel folder."""
    ids: list[str] = []
    true: list[Array] = []
    outputs: list[Array] = []
    for file in track(shard_files(folder), f"predict {folder.name}"):
        for names, masses, grids in read_voxels(file):
            ids += names
            true.append(masses)
            outputs.append(predict_grids(network, grids, features=features))
    return ids, np.concatenate(true), np.concatenate(outputs)
