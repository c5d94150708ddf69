"""CNN_3D is the paper's network."""

from __future__ import annotations

import numpy as np

from cmass.networks import cnn3d, prediction
from cmass.networks.compiled import CompiledCNN3D


def test_shape_of_the_network():
    model = cnn3d.build()
    assert model.count_params() == 123_189
    flat = [layer for layer in model.layers if layer.__class__.__name__ == "Flatten"]
    assert flat[0].output.shape == (None, 864)
    dense = [layer for layer in model.layers if layer.__class__.__name__ == "Dense"]
    assert [layer.activation.__name__ for layer in dense] == ["linear"] * 3
    convolutions = [layer for layer in model.layers if layer.__class__.__name__ == "Conv3D"]
    assert [c.kernel.shape for c in convolutions] == [
        (5, 5, 5, 1, 12), (3, 3, 3, 12, 8), (1, 1, 1, 8, 4),
    ]  # fmt: skip
    assert [c.activation.__name__ for c in convolutions] == ["relu"] * 3


def test_first_layer_is_a_correlation_with_its_kernel():
    """One voxel of the first feature map, written out."""
    import keras

    model = cnn3d.build(12)
    grid = np.random.default_rng(0).random((1, 12, 12, 12, 1)).astype(np.float32)
    first = keras.Model(model.input, model.layers[1].output)
    value = np.asarray(first(grid))[0, 3, 1, 4, 7]
    kernel, bias = (np.asarray(w) for w in model.layers[1].weights)
    direct = (grid[0, 3:8, 1:6, 4:9, 0] * kernel[..., 0, 7]).sum() + bias[7]
    np.testing.assert_allclose(value, max(direct, 0.0), rtol=1e-5, atol=1e-7)


def test_an_estimate_does_not_depend_on_its_company():
    model = CompiledCNN3D(cnn3d.build(20).get_weights(), 20)
    grids = np.random.default_rng(1).random((230, 20, 20, 20)).astype(np.float32)
    together = prediction.predict_grids(model, grids)[:, 0]
    alone = np.array([prediction.predict_grids(model, g[None])[0, 0] for g in grids[[0, 101, 229]]])
    np.testing.assert_allclose(alone, together[[0, 101, 229]], rtol=0, atol=0)
