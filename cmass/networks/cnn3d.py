"""CNN_3D: the paper's network from a density grid to log10 M200c (section 3.3, Fig. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cmass.errors import WorkspaceError

if TYPE_CHECKING:
    import keras

    from cmass.networks.compiled import CompiledCNN3D

#: Name of the model in the registry.
NAME = "cmass-cnn3d"
#: Attribute of a weights file.
_ACTIVATION = "cmass_dense_activation"
#: Layers with weights, as Keras names them in a file.
_LAYERS = ("conv3d", "conv3d_1", "conv3d_2", "dense", "dense_1", "dense_2")


Activation = Literal["linear", "relu"]


def build(n: int = 50, activation: Activation = "linear") -> keras.Model:
    """CNN_3D with fresh weights.

    Three pairs of convolution (12 filters of 5³, 8 of 3³, 4 of 1³; ReLU; no padding)
    and max-pooling by 2 (padding *same*), then dense layers of 128, 64 and 1 units,
    123 189 weights at n = 50.

    Parameters
    ----------
    n : int
        Voxels an axis.
    activation : str
        Of the two hidden dense layers. The paper's are linear.

    Returns
    -------
    keras.Model
        Input (batch, n, n, n, 1): density of unit sum times ``voxels.scale``. Output
        (batch, 1): log10 of M200c in h⁻¹ M☉.
    """
    import keras
    from keras import layers

    inputs = keras.Input((n, n, n, 1), name="density")
    x = inputs
    for filters, width in ((12, 5), (8, 3), (4, 1)):
        x = layers.Conv3D(filters, width, activation="relu")(x)
        x = layers.MaxPooling3D(2, padding="same")(x)
    x = layers.Flatten()(x)
    for units in (128, 64):
        x = layers.Dense(units, activation=activation)(x)
    x = layers.Dense(1)(x)
    return keras.Model(inputs, x, name="cnn3d")


def save(
    weights: Sequence[NDArray[np.floating]], n: int, activation: Activation, path: Path
) -> keras.Model:
    """Write weights to a ``.weights.h5`` file of Keras that knows its activation; the Keras model.

    The file has the same bytes whenever it is written.
    """
    import h5py

    model = build(n, activation)
    model.set_weights(list(weights))
    model.save_weights(path)
    with h5py.File(path, "r+") as file:
        file.attrs[_ACTIVATION] = activation
    return model


def load(path: Path, n: int) -> CompiledCNN3D:
    """The network of a ``.weights.h5`` file, without Keras.

    A file that names no activation is of the paper's linear layers.

    Raises
    ------
    WorkspaceError
        The file is missing, damaged, or of another network.
    """
    import h5py

    from cmass.networks.compiled import CompiledCNN3D

    if not path.exists():
        raise WorkspaceError(f"{path} does not exist: run `cmass train` first")
    try:
        with h5py.File(path, "r") as file:
            activation = file.attrs.get(_ACTIVATION, "linear")
            weights = [
                np.asarray(file[f"layers/{layer}/vars/{k}"]) for layer in _LAYERS for k in range(2)
            ]
        if activation not in get_args(Activation):
            raise ValueError(f"activation {activation!r} is none of {get_args(Activation)}")
        return CompiledCNN3D(weights, n, rectified=activation == "relu")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(
            f"{path} does not hold the weights of CNN_3D for {n} voxels an axis: {error}"
        ) from error
