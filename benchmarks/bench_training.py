"""Training: a step of `CompiledEngine` against one of `KerasEngine`, on two cores.

python -m benchmarks.bench_training            # batches of 50 clusters, as in a training
python -m benchmarks.bench_training --small    # batches of 10
"""

from __future__ import annotations

import sys

import numpy as np

from benchmarks import networks, paired
from benchmarks.clouds import grids
from benchmarks.paired import Agreement, Result
from cmass.networks.compiled import CompiledCNN3D
from cmass.networks.engines import CompiledEngine, KerasEngine
from cmass.networks.streaming import Batch
from cmass.params import TrainParams

TARGET, FLOOR = 3.0, 1.3
#: Sums of many single-precision products in another order.
OUTPUTS, GRADIENTS = 1e-5, 2e-5
#: Voxels an axis where gradients are compared: few enough that grids without ties are found.
_GRADIENT_N = 30
#: Small enough that the weights stay what they are over all steps.
LEARNING_RATE = 1e-6


def batch_of(count: int) -> Batch:
    """Clusters with masses and symmetries, as a training draws them."""
    random = np.random.default_rng(0)
    masses = random.uniform(13.7, 15.2, count).astype(np.float32)
    symmetries = random.integers(0, 16, count).astype(np.uint8)
    return Batch(grids(count).astype(np.float16), random.permutation(count), symmetries, masses)


def gradients(count: int) -> Agreement:
    """Of the loss by every weight, where TensorFlow has one (see `networks.distinct_grids`)."""
    import tensorflow as tf

    weights = networks.random_weights(_GRADIENT_N)
    model = networks.keras_model(weights, n=_GRADIENT_N)
    grids = networks.distinct_grids(model, _GRADIENT_N, count)
    truth = np.random.default_rng(1).uniform(13.7, 15.2, len(grids)).astype(np.float32)
    with tf.GradientTape() as tape:
        estimate = model(grids[..., None].astype(np.float32))[:, 0]
        loss = tf.reduce_mean((estimate - truth) ** 2)
    theirs = tape.gradient(loss, model.trainable_variables)
    _, found = CompiledCNN3D(weights, _GRADIENT_N).loss_and_gradients(grids, truth)
    worst = max(networks.apart(a, np.asarray(b)) for a, b in zip(found, theirs, strict=True))
    return Agreement("gradients", worst, GRADIENTS)


def results(small: bool) -> list[Result]:
    """Steps of both engines, from the same weights, on the same batch."""
    count = 10 if small else 50
    weights, activation = networks.shipped_weights()
    train = TrainParams(dense_activation=activation)
    batch = batch_of(count)
    keras = KerasEngine(networks.keras_model(weights, activation), train)
    compiled = CompiledEngine(weights, networks.N, train)
    estimates = networks.apart(compiled.predict(batch), keras.predict(batch))
    close = [Agreement("estimates", estimates, OUTPUTS), gradients(10 if small else 40)]
    pairs = paired.paired(
        lambda: keras.step(batch, LEARNING_RATE), lambda: compiled.step(batch, LEARNING_RATE),
        pairs=3 if small else 7, clock="wall",
    )  # fmt: skip
    return [
        pairs.comparison(
            "training step", "Keras with TensorFlow", f"{count} clusters of 50³ voxels, {paired.cores()}",
            agreements=close, target=TARGET, floor=FLOOR,
        )
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(paired.main(results, n_cores=2))
