"""The compiled network is the Keras model: outputs, gradients, sizes, threads."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from cmass.networks import cnn3d, streaming
from cmass.networks.compiled import CompiledCNN3D
from cmass.networks.compiled.cook_toom import cook_toom
from cmass.networks.compiled.network import PARCEL, weight_shapes


def weights_of(n: int, seed: int = 0) -> list[np.ndarray]:
    """Random weights and biases under which most voxels pass the ReLUs."""
    random = np.random.default_rng(seed)
    out = []
    for shape in weight_shapes(n):
        fan_in = max(np.prod(shape[:-1]), 1)
        out.append(random.normal(0.0 if len(shape) > 1 else 0.2, fan_in**-0.5, shape))
    out[-1] += 14.0
    return [w.astype(np.float32) for w in out]


def grids_of(n: int, count: int, seed: int = 0) -> np.ndarray:
    """Positive grids without two equal numbers, as half floats hold them."""
    random = np.random.default_rng(seed)
    return random.gamma(0.7, 1.0, (count, n, n, n)).astype(np.float16).astype(np.float32)


def keras_model(n: int, weights: list[np.ndarray], activation: str = "linear"):
    model = cnn3d.build(n, activation)
    model.set_weights(weights)
    return model


@pytest.mark.parametrize("width", [3, 5])
def test_short_correlations_are_those_of_numpy(width):
    parts = [np.array(m) for m in cook_toom(width)]
    outputs, kernel, inputs = parts
    random = np.random.default_rng(width)
    data, weights = random.normal(size=width + 3), random.normal(size=width)
    found = outputs @ ((kernel @ weights) * (inputs @ data))
    np.testing.assert_allclose(found, np.correlate(data, weights), atol=1e-13)


def test_weights_have_the_shapes_of_the_keras_model():
    for n in (10, 12, 25, 50):
        assert [w.shape for w in cnn3d.build(n).get_weights()] == weight_shapes(n)
    with pytest.raises(ValueError, match="shapes"):
        CompiledCNN3D(weights_of(12), 25)


@pytest.mark.parametrize("n", [10, 11, 12, 13, 20, 25, 50, 70])
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_outputs_are_those_of_keras(n, activation):
    import keras

    weights, grids = weights_of(n), grids_of(n, 3)
    model = keras_model(n, weights, activation)
    dense = next(x for x in model.layers if isinstance(x, keras.layers.Dense))
    expected = model.predict_on_batch(grids[..., None])[:, 0]
    features = keras.Model(model.inputs, dense.output).predict_on_batch(grids[..., None])
    network = CompiledCNN3D(weights, n, rectified=activation == "relu")
    found, found_features = network.outputs(grids)
    np.testing.assert_allclose(found, expected, rtol=1e-5 * np.ptp(features))
    np.testing.assert_allclose(found_features, features, atol=1e-5 * np.abs(features).max())


def test_an_estimate_is_the_mean_over_the_symmetries():
    weights, grids = weights_of(21), grids_of(21, 7)
    alone = CompiledCNN3D(weights, 21, rectified=True)
    both = CompiledCNN3D(weights, 21, rectified=True, symmetries=(0, 14))
    inverted = np.ascontiguousarray(grids[:, ::-1, ::-1, ::-1])
    for found, one, other in zip(
        both.outputs(grids), alone.outputs(grids), alone.outputs(inverted), strict=True
    ):
        assert np.abs(one - other).max() > 1e-3  # the network itself sees a difference
        np.testing.assert_allclose(found, (one + other) / 2, rtol=1e-6, atol=1e-6)
    for found, reflected in zip(both.outputs(grids), both.outputs(inverted), strict=True):
        np.testing.assert_array_equal(found, reflected)


def test_symmetries_travel_with_the_network():
    network = CompiledCNN3D(weights_of(12), 12, symmetries=(0, 6, 14))
    again = copy.deepcopy(network)
    assert again.symmetries == (0, 6, 14)
    np.testing.assert_array_equal(
        again.outputs(grids_of(12, 2))[0], network.outputs(grids_of(12, 2))[0]
    )


def _tensorflow_gradients(model, grids, truth):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(grids[..., None])[:, 0] - truth) ** 2)
    return float(loss), [np.asarray(g) for g in tape.gradient(loss, model.trainable_variables)]


@pytest.mark.parametrize(("n", "activation"), [(12, "linear"), (21, "relu"), (34, "linear")])
def test_gradients_are_tensorflows_where_no_two_outputs_are_equal(n, activation):
    weights, grids = weights_of(n, 1), grids_of(n, 7, 1)
    truth = np.random.default_rng(2).uniform(13.5, 15.3, 7).astype(np.float32)
    loss, expected = _tensorflow_gradients(keras_model(n, weights, activation), grids, truth)
    network = CompiledCNN3D(weights, n, rectified=activation == "relu")
    found_loss, found = network.loss_and_gradients(grids, truth)
    assert found_loss == pytest.approx(loss, rel=1e-5)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        # A pooling window whose two largest outputs differ by rounding may choose the other.
        np.testing.assert_allclose(a, b, atol=3e-4 * np.abs(b).max())


def test_empty_space_has_the_gradient_of_the_loss_and_not_eight_times_it():
    """Where all outputs under a pooling window are equal: finite differences decide.

    TensorFlow on processors hands the gradient to each of the eight.
    """
    n = 14
    weights = weights_of(n, 3)
    grids = np.zeros((1, n, n, n), np.float32)
    grids[0, :3, :3, :3] = 1.0
    truth = np.array([14.5], np.float32)
    _, found = CompiledCNN3D(weights, n).loss_and_gradients(grids, truth)
    model = keras_model(n, weights)
    biases = [1, 3, 5]
    for which in biases:
        step = np.zeros_like(weights[which])
        direction = np.random.default_rng(which).normal(size=step.shape).astype(np.float32)
        losses = []
        for sign in (1, -1):
            moved = [w.copy() for w in weights]
            moved[which] += sign * 1e-3 * direction
            model.set_weights(moved)
            estimate = float(model.predict_on_batch(grids[..., None])[0, 0])
            losses.append((estimate - float(truth[0])) ** 2)
        slope = (losses[0] - losses[1]) / 2e-3
        assert float(found[which] @ direction) == pytest.approx(slope, rel=2e-2)
    _, theirs = _tensorflow_gradients(keras_model(n, weights), grids, truth)
    assert np.abs(theirs[1]).sum() > 4 * np.abs(found[1]).sum()


def test_symmetries_are_those_of_the_stream():
    n, random = 13, np.random.default_rng(4)
    weights, grids = weights_of(n), grids_of(n, 16).astype(np.float16)
    truth = random.uniform(13.5, 15.3, 16).astype(np.float32)
    rows = random.permutation(16)
    codes = np.arange(16, dtype=np.uint8)
    turned = streaming.turn(grids[rows], codes)
    network = CompiledCNN3D(weights, n)
    loss, found = network.loss_and_gradients(grids, truth, rows, codes)
    plain_loss, plain = network.loss_and_gradients(turned, truth)
    assert loss == plain_loss
    for a, b in zip(found, plain, strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_depends_on_threads_or_company():
    n = 16
    weights, grids = weights_of(n), grids_of(n, 3 * PARCEL + 2)
    truth = np.linspace(13.5, 15, len(grids), dtype=np.float32)
    one, many = CompiledCNN3D(weights, n, threads=1), CompiledCNN3D(weights, n, threads=3)
    for a, b in zip(one.outputs(grids), many.outputs(grids), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(one.outputs(grids[4:5])[0], one.outputs(grids)[0][4:5])
    for a, b in zip(
        one.loss_and_gradients(grids, truth)[1], many.loss_and_gradients(grids, truth)[1],
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(a, b)


def test_half_floats_are_read_as_numpy_does():
    """Smallest numbers, normal ones and zero: through a network that adds up a grid."""
    n = 12
    weights = [np.zeros(s, np.float32) for s in weight_shapes(n)]
    grid = np.zeros((1, n, n, n), np.float16)
    for value in (6e-8, 5.96e-6, 3e-5, 1.0, 1234.5):
        grid[0, 5, 5, 5] = value
        weights[0][..., 0] = 1.0
        weights[2][..., 0, 0] = 1.0
        weights[4][..., 0, 0] = 1.0
        for dense in (6, 8, 10):
            weights[dense][0, 0] = 1.0
        found = CompiledCNN3D(weights, n).outputs(grid)[0][0]
        model = keras_model(n, weights)
        expected = model.predict_on_batch(grid.astype(np.float32)[..., None])[0, 0]
        assert found == pytest.approx(expected, rel=1e-5)
        assert found > 0


def test_a_network_can_be_sent_to_another_process():
    network = CompiledCNN3D(weights_of(12), 12, rectified=True)
    again = pickle.loads(pickle.dumps(network))  # noqa: S301 (our own)
    grids = grids_of(12, 2)
    np.testing.assert_array_equal(again.outputs(grids)[0], network.outputs(grids)[0])


def test_an_error_in_a_thread_is_raised():
    network = CompiledCNN3D(weights_of(12), 12, threads=2)
    with pytest.raises(Exception, match="unpack|dimension|match|tuple"):
        network.outputs(np.zeros((20, 12, 12)))


_STEP = """
import time
import numpy as np
from cmass.networks.compiled import CompiledCNN3D
from cmass.networks.compiled.network import weight_shapes

random = np.random.default_rng(0)
network = CompiledCNN3D([random.normal(0, 0.1, s) for s in weight_shapes(50)], 50)
grids = random.gamma(0.7, 1.0, (2, 50, 50, 50)).astype(np.float16)
network.loss_and_gradients(grids, np.full(50, 14.0), np.arange(50) % 2)
before = time.process_time()
time.sleep(0.05)
print(time.process_time() - before)
"""


def test_a_step_leaves_the_cores_to_the_next():
    """BLAS's threads would spin for tens of milliseconds after the products of the dense layers."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("BLAS has no second thread on one core")
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", _STEP], env=environment, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 0.01
