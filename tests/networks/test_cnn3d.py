"""CNN_3D is the paper's network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmass.errors import WorkspaceError
from cmass.networks import cnn3d, prediction
from cmass.networks.compiled import CompiledCNN3D
from cmass.params import TrainParams


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


@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_a_file_knows_how_its_network_estimates(tmp_path: Path, averaged, activation):
    train = TrainParams(dense_activation=activation, inversion_averaged=averaged)
    network = cnn3d.compiled(cnn3d.build(12).get_weights(), 12, train)
    cnn3d.save(network, tmp_path / "a.weights.h5")
    again = cnn3d.load(tmp_path / "a.weights.h5", 12)
    assert again.symmetries == ((0, 14) if averaged else (0,))
    assert again.activation == activation
    grids = np.random.default_rng(1).random((3, 12, 12, 12)).astype(np.float32)
    np.testing.assert_array_equal(again.outputs(grids)[0], network.outputs(grids)[0])


@pytest.mark.parametrize("symmetries", [(0,), (0, 14), (0, 1, 9, 15)])
def test_the_keras_model_estimates_as_the_network_does(symmetries):
    """The compiled loops turn by their own code; both are single precision, of numbers near one."""
    import keras

    keras.utils.set_random_seed(3)  # one in many draws answers nothing but zero
    weights = cnn3d.build(12).get_weights()
    network = CompiledCNN3D(weights, 12, rectified=True, symmetries=symmetries)
    grids = np.random.default_rng(1).random((3, 12, 12, 12)).astype(np.float16).astype(np.float32)
    found = cnn3d.keras_model(network).predict_on_batch(grids[..., None])[:, 0]
    np.testing.assert_allclose(found, network.outputs(grids)[0], rtol=1e-5, atol=1e-5)
    if len(symmetries) > 1:
        alone = CompiledCNN3D(weights, 12, rectified=True).outputs(grids)[0]
        assert np.abs(found - alone).max() > 1e-4


def test_no_cluster_has_no_estimate():
    """A batch in which no window has a density is none the network may stumble over."""
    network = CompiledCNN3D(cnn3d.build(12).get_weights(), 12, symmetries=(0, 14))
    grids = np.empty((0, 12, 12, 12), np.float32)
    found = prediction.predict_grids(network, grids, features=True)
    assert found.shape == (0, 1 + network.n_features)


def test_a_file_that_names_no_symmetries_is_of_windows_alone(tmp_path: Path):
    cnn3d.build(12).save_weights(tmp_path / "a.weights.h5")
    assert cnn3d.load(tmp_path / "a.weights.h5", 12).symmetries == (0,)


def test_symmetries_that_are_none_are_named(tmp_path: Path):
    import h5py

    cnn3d.build(12).save_weights(tmp_path / "a.weights.h5")
    with h5py.File(tmp_path / "a.weights.h5", "r+") as file:
        file.attrs["cmass_symmetries"] = [0, 16]
    with pytest.raises(WorkspaceError, match="symmetries"):
        cnn3d.load(tmp_path / "a.weights.h5", 12)
