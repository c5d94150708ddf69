"""CNN_3D: the paper's network from a density grid to log10 M200c (section 3.3, Fig. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cmass.errors import InputError, WorkspaceError
from cmass.networks.weights_file import save_weights

if TYPE_CHECKING:
    import keras

    from cmass.networks.compiled import CompiledCNN3D
    from cmass.params import TrainParams

#: Name of the model in the registry.
NAME = "cmass-cnn3d"
#: Attributes of a weights file.
_ACTIVATION, _SYMMETRIES = "cmass_dense_activation", "cmass_symmetries"
#: A window, and its point reflection: x, y and v change sign (see `streaming.turn`).
_ALONE, _INVERTED = 0, 14
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

    # Named, as Keras would otherwise count the layers of all networks that this process has made,
    # and write the count into the weights file.
    inputs = keras.Input((n, n, n, 1), name="density")
    x = inputs
    for end, filters, width in (("", 12, 5), ("_1", 8, 3), ("_2", 4, 1)):
        x = layers.Conv3D(filters, width, activation="relu", name=f"conv3d{end}")(x)
        x = layers.MaxPooling3D(2, padding="same", name=f"max_pooling3d{end}")(x)
    x = layers.Flatten(name="flatten")(x)
    for end, units in (("", 128), ("_1", 64)):
        x = layers.Dense(units, activation=activation, name=f"dense{end}")(x)
    x = layers.Dense(1, name="dense_2")(x)
    return keras.Model(inputs, x, name="cnn3d")


def compiled(weights: Sequence[NDArray[np.floating]], n: int, train: TrainParams) -> CompiledCNN3D:
    """The network that estimates, of trained weights."""
    from cmass.networks.compiled import CompiledCNN3D

    return CompiledCNN3D(
        weights, n, rectified=train.dense_activation == "relu",
        symmetries=(_ALONE, _INVERTED) if train.inversion_averaged else (_ALONE,),
    )  # fmt: skip


def keras_model(network: CompiledCNN3D) -> keras.Model:
    """The Keras model that estimates as `network` does: the mean over its symmetries."""
    import keras
    from keras import layers, ops

    alone = build(network.n, network.activation)
    alone.set_weights(network.get_weights())
    if network.symmetries == (_ALONE,):
        return alone

    def seen(density: Any, code: int) -> Any:
        """As `streaming.turn` turns and reflects."""
        if code & 1:
            density = ops.transpose(density, (0, 2, 1, 3, 4))
        axes = [axis for axis, bit in ((1, 2), (2, 4), (3, 8)) if code & bit]
        return ops.flip(density, axis=axes) if axes else density

    inputs = keras.Input(alone.input_shape[1:], name="density")
    answers = [alone(seen(inputs, code)) for code in network.symmetries]
    return keras.Model(inputs, layers.Average()(answers), name="cnn3d_averaged")


def save(network: CompiledCNN3D, path: Path) -> None:
    """Write a network to a ``.weights.h5`` file of Keras: `build` reads its weights.

    The file knows the activation and the symmetries, and has the same bytes whenever it is written.

    Raises
    ------
    WorkspaceError
        The disk is full; what was at `path` before is untouched.
    """
    model = build(network.n, network.activation)
    model.set_weights(network.get_weights())
    symmetries = np.array(network.symmetries, np.uint8)
    save_weights(model, path, {_ACTIVATION: network.activation, _SYMMETRIES: symmetries})


def load(path: Path, n: int) -> CompiledCNN3D:
    """The network of a ``.weights.h5`` file, without Keras.

    A file that names no activation is of the paper's linear layers; one that names no symmetries,
    of windows alone.

    Raises
    ------
    WorkspaceError
        The file is missing, damaged, or of another network.
    """
    import h5py

    from cmass.limits import hdf5_array, hdf5_attribute
    from cmass.networks.compiled import CompiledCNN3D
    from cmass.networks.compiled.network import weight_shapes

    if not path.exists():
        raise WorkspaceError(f"{path} does not exist: run `cmass train` first")
    try:
        with h5py.File(path, "r") as file:
            activation, codes = (
                hdf5_attribute(file, name, path) if name in file.attrs else otherwise
                for name, otherwise in ((_ACTIVATION, "linear"), (_SYMMETRIES, [_ALONE]))
            )
            symmetries = [int(code) for code in codes]
            names = [f"layers/{layer}/vars/{k}" for layer in _LAYERS for k in range(2)]
            weights = [
                hdf5_array(file, name, shape, path)
                for name, shape in zip(names, weight_shapes(n), strict=True)
            ]
        if activation not in get_args(Activation):
            raise ValueError(f"activation {activation!r} is none of {get_args(Activation)}")
        if not symmetries or not set(symmetries) <= set(range(16)):
            raise ValueError(f"symmetries {symmetries} are not some of 0 to 15")
        return CompiledCNN3D(weights, n, rectified=activation == "relu", symmetries=symmetries)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, InputError) as error:
        raise WorkspaceError(
            f"{path} does not hold the weights of CNN_3D for {n} voxels an axis: {error}"
        ) from error
