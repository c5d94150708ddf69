"""What the benchmarks of training and of estimates share: weights, grids, the Keras model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmass.networks import cnn3d
from cmass.networks.compiled.network import weight_shapes
from cmass.pretrained import SHIPPED, WEIGHTS

if TYPE_CHECKING:
    import keras

N = 50
#: Largest difference that rounding makes between outputs of both networks, with some to spare.
_ROUNDING = 2e-5

Floats = NDArray[np.float32]


def shipped_weights() -> tuple[list[Floats], cnn3d.Activation]:
    """Weights of the network that ships, and its activation: a trained one passes what is usual."""
    network = cnn3d.load(SHIPPED / WEIGHTS, N)
    return network.get_weights(), network.activation


def keras_model(
    weights: Sequence[Floats], activation: cnn3d.Activation = "linear", n: int = N
) -> keras.Model:
    """The Keras model with these weights."""
    model = cnn3d.build(n, activation)
    model.set_weights(list(weights))
    return model


def random_weights(n: int) -> list[Floats]:
    """Weights under which ReLU lets most voxels through."""
    random = np.random.default_rng(0)
    weights = []
    for shape in weight_shapes(n):
        middle, fan_in = (0.0, math.prod(shape[:-1])) if len(shape) > 1 else (0.5, 1)
        weights.append(random.normal(middle, fan_in**-0.5, shape).astype(np.float32))
    weights[-1] += 14.0
    return weights


def distinct_grids(model: keras.Model, n: int, count: int) -> NDArray[np.float16]:
    """Random grids, without those in which a pooling window has two largest outputs.

    Where the eight outputs under a window are equal TensorFlow's gradient on processors counts
    each of them, and is none; where two are equal to rounding, either may have the gradient. What is
    left of `count` grids has one gradient.
    """
    import keras

    random = np.random.default_rng(0)
    grids = random.gamma(0.7, 1.0, (count, n, n, n)).astype(np.float16)
    convolved = [x.output for x in model.layers if isinstance(x, keras.layers.Conv3D)]
    outputs = keras.Model(model.inputs, convolved).predict_on_batch(
        grids[..., None].astype(np.float32)
    )
    apart = np.min([smallest_lead(np.asarray(x)) for x in outputs], axis=0)
    return grids[apart > _ROUNDING]


def smallest_lead(outputs: Floats) -> Floats:
    """Least lead of the largest output under a pooling window over the next, for each cluster.

    Windows that ReLU closed have no gradient and do not count.

    Parameters
    ----------
    outputs : ndarray, shape (k, n, n, n, filters)
    """
    k, n, *_, filters = outputs.shape
    half = -(-n // 2)
    behind = [(0, 0), *[(0, 2 * half - n)] * 3, (0, 0)]
    whole = np.pad(outputs, behind, constant_values=-np.inf)
    windows = whole.reshape(k, half, 2, half, 2, half, 2, filters).transpose(0, 1, 3, 5, 7, 2, 4, 6)
    *_, second, first = np.moveaxis(np.partition(windows.reshape(k, -1, 8), (6, 7)), -1, 0)
    return np.where(first > 0, first - second, np.inf).min(axis=1)


def apart(found: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """Largest difference over the largest expected number."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
