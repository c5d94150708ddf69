"""What takes a step of training: Keras on whatever device there is, or compiled loops on processors.

Keras takes grids from disk, or makes them of lists of galaxies on its device (`train.grids`). Both
engines compute the same function and the same gradients (see `cmass.networks.compiled.layers` for the
one case in which TensorFlow's are none), and both take the steps of Adam.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cmass.errors import ParameterError
from cmass.networks.streaming import AnyBatch, Batch, ListBatch
from cmass.params import NO_DEVICE, Params, TrainParams

if TYPE_CHECKING:
    import keras

Floats = NDArray[np.float32]

#: Adam's term against division by zero; Keras' own default.
_EPSILON = 1e-7


class Engine(Protocol):
    """A network in training."""

    def step(self, batch: AnyBatch, learning_rate: float) -> float:
        """Take one step of Adam; the mean squared error before it, dex squared."""
        ...

    def predict(self, batch: AnyBatch) -> NDArray[np.float64]:
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
    grids : callable, optional
        Grids (k, n, n, n, 1) on the device from points (k, G, 3) and counts (k,), for batches that
        are lists of galaxies (see `on_device`).
    """

    def __init__(
        self, model: keras.Model, train: TrainParams, grids: Callable[[Any, Any], Any] | None = None
    ) -> None:
        import keras

        self._model, self._grids = model, grids
        self._optimizer = keras.optimizers.Adam(
            train.learning_rate, train.beta_1, train.beta_2, epsilon=_EPSILON
        )
        # TensorFlow's own kernels are faster than XLA's on processors, and XLA has none that repeat
        # themselves for all that the network does; JAX has nothing but XLA.
        jit = keras.backend.backend() == "jax"
        model.compile(self._optimizer, "mse", jit_compile=jit)
        self._optimizer.build(model.trainable_variables)

    def _inputs(self, batch: AnyBatch) -> Any:
        if not isinstance(batch, ListBatch):
            return batch.grids()
        if self._grids is None:
            raise TypeError("this engine was made for grids, and got lists of galaxies")
        return self._grids(batch.points, batch.counts)

    def step(self, batch: AnyBatch, learning_rate: float) -> float:
        self._optimizer.learning_rate.assign(learning_rate)
        loss = float(self._model.train_on_batch(self._inputs(batch), batch.masses[:, None]))
        self._model.reset_metrics()
        return loss

    def predict(self, batch: AnyBatch) -> NDArray[np.float64]:
        return np.asarray(self._model.predict_on_batch(self._inputs(batch)), np.float64)[:, 0]

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

    def step(self, batch: AnyBatch, learning_rate: float) -> float:
        batch = _of_grids(batch)
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

    def predict(self, batch: AnyBatch) -> NDArray[np.float64]:
        return self._network.outputs(_of_grids(batch).turned())[0].astype(np.float64)

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


def _of_grids(batch: AnyBatch) -> Batch:
    if isinstance(batch, ListBatch):
        raise TypeError("compiled loops take grids, not lists of galaxies")
    return batch


def on_device(params: Params) -> Callable[[Any, Any], Any]:
    """Density grids of `params.voxels` and `params.window`, compiled for the device of Keras.

    The grids stay there: nothing but lists of galaxies crosses over. They are a program of their
    own, so that lists of another length do not compile the network again.

    Returns
    -------
    callable
        ``grids(points, counts)``: see `cmass.networks.density_layer.DensityGrid`.
    """
    voxels, window = params.voxels, params.window
    return _compiled_grids(
        voxels.n, voxels.kappa, window.half_width_mpc_h, window.v_max_km_s, voxels.scale
    )


@lru_cache(maxsize=4)
def _compiled_grids(
    n: int, kappa: float, half_width: float, v_max: float, scale: float
) -> Callable[[Any, Any], Any]:
    """Kept: every length of lists takes seconds to compile, and many networks take the same."""
    import keras

    from cmass.networks.density_layer import DensityGrid

    layer = DensityGrid(n, kappa=kappa, half_width=half_width, v_max=v_max, scale=scale)
    # Without XLA each operation of each galaxy would pass over the grids of the whole batch.
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(layer, jit_compile=True, autograph=False)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(lambda points, counts: layer(points, counts))
    return layer


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


def device_name() -> str:
    """What Keras' backend calls its first accelerator; without one, ``processors``."""
    import keras

    if not on_accelerator():
        return "processors"
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        first = tf.config.list_physical_devices("GPU")[0]
        return str(tf.config.experimental.get_device_details(first).get("device_name", first.name))
    import jax

    return str(jax.devices()[0].device_kind)


def make(model: keras.Model, params: Params) -> Engine:
    """The engine that ``train.engine`` asks for.

    ``auto`` is Keras where there is an accelerator or grids are to be made by it, and compiled
    loops elsewhere.
    """
    train = params.train
    chosen, device = train.engine, train.grids == "device"
    if device and chosen == "compiled":  # the parameter file has been checked, a copy has not
        raise ParameterError(NO_DEVICE)
    if chosen == "auto":
        chosen = "keras" if device or on_accelerator() else "compiled"
    if chosen == "keras":
        return KerasEngine(model, train, on_device(params) if device else None)
    return CompiledEngine(model.get_weights(), params.voxels.n, train)
