"""Weights files of Keras, whole or not there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cmass.errors import WorkspaceError
from cmass.tables import atomic_path

if TYPE_CHECKING:
    import keras

#: A file system in memory, where there is one.
_MEMORY = Path("/dev/shm")
#: Room for a weights file: so many times its numbers, and more.
_ROOM, _MORE_BYTES = 2, 2**20


def save_weights(
    model: keras.Model, path: Path, attributes: Mapping[str, Any] | None = None
) -> None:
    """Write the weights of `model` as a ``.weights.h5`` file.

    HDF5 cannot stand a full disk: it leaves a broken file without an error, or takes the process with it. So
    it writes where there is room, and the bytes go to `path` in one piece.

    Parameters
    ----------
    model : keras.Model
    path : Path
    attributes : mapping, optional
        Attributes of the file.

    Raises
    ------
    WorkspaceError
        The disk is full; what was at `path` before is untouched.
    """
    import h5py

    n_bytes = sum(int(np.prod(w.shape)) * np.dtype(w.dtype).itemsize for w in model.weights)
    with tempfile.TemporaryDirectory(dir=_roomy(_ROOM * n_bytes + _MORE_BYTES)) as folder:
        made = Path(folder) / "model.weights.h5"
        model.save_weights(made)
        with h5py.File(made, "r+") as file:
            for name, value in (attributes or {}).items():
                file.attrs[name] = value
        with atomic_path(path) as temporary:
            temporary.write_bytes(made.read_bytes())


def _roomy(n_bytes: int) -> Path:
    """A folder with so much room, that in memory if it can be."""
    folders = (_MEMORY, Path(tempfile.gettempdir()))
    for folder in folders:
        if os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > n_bytes:
            return folder
    raise WorkspaceError(
        f"no room for {n_bytes / 1e6:.0f} MB of a network's weights in {folders[0]} or {folders[1]}: free "
        "some, or name another folder by TMPDIR"
    )
