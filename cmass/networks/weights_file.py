"""Weights files of Keras, whole or not there."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmass.tables import atomic_path

if TYPE_CHECKING:
    import keras

#: A file system in memory, where there is one.
_MEMORY = Path("/dev/shm")


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

    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        made = Path(folder) / "model.weights.h5"
        model.save_weights(made)
        with h5py.File(made, "r+") as file:
            for name, value in (attributes or {}).items():
                file.attrs[name] = value
        with atomic_path(path) as temporary:
            temporary.write_bytes(made.read_bytes())
