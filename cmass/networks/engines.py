"""What takes a step of training: Keras on whatever device there is, or compiled loops on processors.

Both compute the same function and the same gradients (see `cmass.networks.compiled.layers` for the
one case in which TensorFlow's are none), and both take the steps of Adam.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from cmass.networks.streaming import Batch
from cmass.params import TrainParams

if TYPE_CHECKING:
    import keras

Floats = NDArray[np.float32]

#: Adam's term against division by zero; Keras' own default.
_EPSILON = 1e-7


class Engine(Protocol):
    """A network in training."""

    def step(self, batch: Batch, learning_rate: float) -> float:
        """Take one step of Adam; the mean squared error before it, dex squared."""
        ...

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """log10 M200c, shape (k,)."""
        ...

    def get_weights(self) -> list[Floats]:
        """Weights in the order of the Keras model."""
        ...

    def state(self) -> list[NDArray]:
        """Everything that the next step depends on."""
        ...

    def restore(self, state: Sequence[NDArray]) -> None:
        """Take up a state."""
        ...


class KerasEngine:
    """The Keras model, compiled with its own optimiser.

    Parameters
    ----------
    model : keras.Model
        With its first weights.
    train : TrainParams
    """

    def __init__(self, model: keras.Model, train: TrainParams) -> None:
        import keras

        self._model = model
        self._optimizer = keras.optimizers.Adam(
            train.learning_rate, train.beta_1, train.beta_2, epsilon=_EPSILON
        )
        model.compile(self._optimizer, "mse", jit_compile=False)
        self._optimizer.build(model.trainable_variables)

    def step(self, batch: Batch, learning_rate: float) -> float:
        self._optimizer.learning_rate.assign(learning_rate)
        loss = float(self._model.train_on_batch(batch.grids(), batch.masses[:, None]))
        self._model.reset_metrics()
        return loss

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        return np.asarray(self._model.predict_on_batch(batch.grids()), np.float64)[:, 0]

    def get_weights(self) -> list[Floats]:
        return self._model.get_weights()

    def state(self) -> list[NDArray]:
        return [*self.get_weights(), *map(np.asarray, self._optimizer.variables)]

    def restore(self, state: Sequence[NDArray]) -> None:
        n = len(self._model.weights)
        self._model.set_weights(list(state[:n]))
        for variable, value in zip(self._optimizer.variables, state[n:], strict=True):
            variable.assign(value)


class CompiledEngine:
    """Compiled loops on the processor, and Adam (Kingma & Ba 2015) as Keras writes it.

    Parameters
    ----------
    weights : sequence of ndarray
        The first ones, in the order of the Keras model.
    n : int
        Voxels an axis.
    train : TrainParams
    """

    def __init__(self, weights: Sequence[NDArray], n: int, train: TrainParams) -> None:
        from cmass.networks.compiled import CompiledCNN3D

        self._train = train
        self._network = CompiledCNN3D(weights, n, rectified=train.dense_activation == "relu")
        self._weights = self._network.get_weights()
        self._mean = [np.zeros_like(w) for w in self._weights]
        self._square = [np.zeros_like(w) for w in self._weights]
        self._steps = 0

    def step(self, batch: Batch, learning_rate: float) -> float:
        loss, gradients = self._network.loss_and_gradients(
            batch.pool, batch.masses, batch.rows, batch.symmetries
        )
        self._steps += 1
        beta_1, beta_2 = self._train.beta_1, self._train.beta_2
        size = learning_rate * np.sqrt(1 - beta_2**self._steps) / (1 - beta_1**self._steps)
        for weight, mean, square, gradient in zip(
            self._weights, self._mean, self._square, gradients, strict=True
        ):
            mean += np.float32(1 - beta_1) * (gradient - mean)
            square += np.float32(1 - beta_2) * (gradient * gradient - square)
            weight -= np.float32(size) * mean / (np.sqrt(square) + np.float32(_EPSILON))
        self._network.set_weights(self._weights)
        return loss

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        return self._network.outputs(batch.turned())[0].astype(np.float64)

    def get_weights(self) -> list[Floats]:
        return self._network.get_weights()

    def state(self) -> list[NDArray]:
        return [*self._weights, *self._mean, *self._square, np.array(self._steps)]

    def restore(self, state: Sequence[NDArray]) -> None:
        n = len(self._weights)
        parts = [[np.array(x) for x in state[k * n : (k + 1) * n]] for k in range(3)]
        self._weights, self._mean, self._square = parts
        self._steps = int(state[3 * n])
        self._network.set_weights(self._weights)


def on_accelerator() -> bool:
    """Whether Keras' backend sees a GPU or TPU."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() != "cpu"
    return False


def make(model: keras.Model, n: int, train: TrainParams) -> Engine:
    """The engine that ``train.engine`` asks for; ``auto`` compiles where there is no accelerator."""
    chosen = train.engine
    if chosen == "auto":
        chosen = "keras" if on_accelerator() else "compiled"
    if chosen == "keras":
        return KerasEngine(model, train)
    return CompiledEngine(model.get_weights(), n, train)
