"""CNN_3D: the paper's network from a density grid to log10 M200c (section 3.3, Fig. 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

#: Name of the model in the registry.
NAME = "cmass-cnn3d"


def build(n: int = 50) -> keras.Model:
    """CNN_3D with fresh weights.

    Three pairs of convolution (12 filters of 5³, 8 of 3³, 4 of 1³; ReLU; no padding)
    and max-pooling by 2 (padding *same*), then dense layers of 128, 64 and 1 units,
    all linear: 123 189 weights at n = 50.

    Parameters
    ----------
    n : int
        Voxels an axis.

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
    for units in (128, 64, 1):
        x = layers.Dense(units)(x)
    return keras.Model(inputs, x, name="cnn3d")
