"""DeepSets with a mixture posterior: a network on the list of galaxies, in any order.

After Wang & Thiele 2025 (arXiv:2507.20378): every galaxy passes through one small network,
the results are pooled over the window (sum, mean and maximum do not depend on the order), and a
second network turns them, with redshift and number of galaxies, into a mixture of Gaussians in
log mass. Sums keep the number of galaxies, which a density of unit sum has lost. A galaxy comes
with its distance from the centre, its |v| and the number of galaxies near it, so the mass does not
depend on the orientation of the sky.

Several networks with other first weights are averaged: their mean mixture is the posterior.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, softmax

from cmass.estimators import Estimator
from cmass.estimators.phase_space import neighbours
from cmass.estimators.windows import Sets, Windows
from cmass.networks.weights_file import save_weights
from cmass.params import DeepSetsParams, Params
from cmass.posterior import normalise

if TYPE_CHECKING:
    import keras

Array = NDArray[np.float64]

#: Galaxies of a batch are filled up to a multiple: fewer shapes to compile.
_GALAXIES_STEP = 4096
#: Clusters a batch in prediction.
_BATCH = 100
#: Components start spread over so many scatters of the training masses.
_SPREAD = 1.0


class DeepSets(Estimator):
    """Permutation-invariant networks with a mixture of Gaussians as posterior."""

    name: ClassVar[str] = "deepsets"
    title: ClassVar[str] = "DeepSets"
    reads: ClassVar[str] = "list of galaxies (R, |v|, neighbours), number, redshift"
    sources: ClassVar[tuple[str, ...]] = ("estimators/phase_space.py",)

    def __init__(self, params: Params, seed: int) -> None:
        super().__init__(params, seed)
        self._how: DeepSetsParams = params.rivals.deepsets
        self._mass = np.empty(2)  # mean and scatter of log10 M of the training set
        self._networks: list[keras.Model] = []

    def fit(self, sets: Sets, work: Path) -> None:
        """Maximum likelihood of the mixture, network after network; each resumes by itself.

        The time limit is that of all networks: what is left of it goes to the next one.
        """
        from cmass.estimators.keras_fit import fit

        true = sets.train.log10_m200c_true
        self._mass = np.array([true.mean(), true.std()])
        train, held = _Lists(sets.train), _Lists(sets.validation)
        left, self.seconds_in_epochs = self._how.seconds_max, 0.0
        for member in range(self._how.members):
            model, progress = fit(
                lambda: network(self._how),
                (train, self._scaled(true)),
                (held, self._scaled(sets.validation.log10_m200c_true)),
                self._how.model_copy(update={"seconds_max": left}),
                self.seed * 1000 + member, work / f"network-{member}",
                name=f"{self.name} {member + 1}/{self._how.members}", loss=negative_log_density,
                clip_norm=1.0,
            )  # fmt: skip
            self._networks.append(model)
            left -= progress.seconds
            self.seconds_in_epochs += progress.seconds
            if progress.out_of_time or left <= 0:
                self.out_of_time = progress.out_of_time or member + 1 < self._how.members
                break

    def _scaled(self, log10_m200c: Array) -> NDArray[np.float32]:
        return ((log10_m200c - self._mass[0]) / self._mass[1]).astype(np.float32)[:, None]

    def _mixtures(self, windows: Windows) -> tuple[Array, Array, Array]:
        """Weights, means and scatters of all networks' components in log10 M, shape (n, m K)."""
        from cmass.estimators.keras_fit import predict

        lists = _Lists(windows)
        outputs = [predict(model, lists, _BATCH) for model in self._networks]
        weights, means, scatters = zip(*(components(out) for out in outputs), strict=True)
        return (
            np.concatenate(weights, axis=1) / len(outputs),
            self._mass[0] + self._mass[1] * np.concatenate(means, axis=1),
            self._mass[1] * np.concatenate(scatters, axis=1),
        )

    def posterior(self, windows: Windows, edges: Array) -> Array:
        """The mixture's probability in each bin, exactly, unit sum in the range of the bins."""
        return self.point_and_posterior(windows, edges)[1]

    def point(self, windows: Windows) -> Array:
        """Mean of the mixture, log10 of h⁻¹ M☉."""
        weights, means, _ = self._mixtures(windows)
        return self._known((weights * means).sum(axis=1), windows)

    def point_and_posterior(self, windows: Windows, edges: Array) -> tuple[Array, Array]:
        """`point` and `posterior`, of one look at the galaxies."""
        weights, means, scatters = self._mixtures(windows)
        below = np.array([(weights * ndtr((e - means) / scatters)).sum(axis=1) for e in edges])
        return (
            self._known((weights * means).sum(axis=1), windows),
            self._known(normalise(np.diff(below.T, axis=1)), windows),
        )

    def _known(self, values: Array, windows: Windows) -> Array:
        """The values, NaN for windows with too few galaxies."""
        values[windows.n_galaxies < self.params.window.n_galaxies_min] = np.nan
        return values

    @property
    def n_parameters(self) -> int:
        """Weights of all networks."""
        return sum(model.count_params() for model in self._networks)

    def save(self, folder: Path) -> None:
        """Write the scaling of the mass and the networks' weights."""
        np.save(folder / "mass.npy", self._mass)
        for member, model in enumerate(self._networks):
            # A fresh network: the trained one would save its optimiser's state as well.
            bare = network(self._how)
            bare.set_weights(model.get_weights())
            save_weights(bare, folder / f"network-{member}.weights.h5")

    @classmethod
    def load(cls, folder: Path, params: Params, seed: int) -> Self:
        """The fitted networks that `save` wrote."""
        one = cls(params, seed)
        one._mass = np.load(folder / "mass.npy")
        for member in range(len(list(folder.glob("network-*.weights.h5")))):
            model = network(one._how)
            model.load_weights(folder / f"network-{member}.weights.h5")
            one._networks.append(model)
        return one


def galaxy_features(windows: Windows) -> NDArray[np.float32]:
    """What the network reads of each galaxy, of order one, shape (n_points, 8).

    Projected radius and |v|, linear and logarithmic, their product, and the logarithms of
    the numbers of neighbours in three cylinders.
    """
    radius = np.hypot(windows.points[:, 0], windows.points[:, 1])
    speed = np.abs(windows.points[:, 2])
    near = np.log1p(neighbours(windows)) - (0.7, 1.5, 2.0)
    return np.column_stack(
        [
            radius / 2 - 1, speed / 1100 - 1, np.log(radius + 0.1) + 0.2,
            np.log(speed + 50) / 1.2 - 5.2, (radius / 2 - 1) * (speed / 1100 - 1), near,
        ]
    ).astype(np.float32)  # fmt: skip


class _Lists:
    """Galaxy lists of n clusters as `keras_fit` reads them: batches made from row numbers."""

    def __init__(self, windows: Windows) -> None:
        self._galaxies = galaxy_features(windows)
        self._offsets, counts = windows.offsets, windows.n_galaxies
        cluster = [np.log(windows.z / 0.05), np.log(np.maximum(counts, 1) / 200)]
        self._clusters = np.column_stack(cluster).astype(np.float32)

    def __len__(self) -> int:
        return len(self._clusters)

    def batch(self, rows: NDArray[np.integer]) -> list[NDArray[Any]]:
        """Galaxies (g, 8), number of each one's cluster (g,), clusters (len(rows) + 1, 2).

        The last cluster holds the galaxies that fill the batch up; its output is no one's.
        """
        counts = np.diff(self._offsets)[rows]
        first = np.cumsum(counts) - counts
        own = np.repeat(self._offsets[rows] - first, counts) + np.arange(counts.sum())
        n = max(-(-own.size // _GALAXIES_STEP), 1) * _GALAXIES_STEP
        galaxies = np.zeros((n, self._galaxies.shape[1]), np.float32)
        galaxies[: own.size] = self._galaxies[own]
        cluster = np.full(n, len(rows), np.int32)
        cluster[: own.size] = np.repeat(np.arange(len(rows)), counts)
        clusters = np.zeros((len(rows) + 1, self._clusters.shape[1]), np.float32)
        clusters[:-1] = self._clusters[rows]
        return [galaxies, cluster, clusters]


def network(how: DeepSetsParams) -> keras.Model:
    """DeepSets with fresh weights.

    Input: galaxies (g, 8), the cluster of each (g,), clusters (n + 1, 2). Output (n, 3 K):
    logits, means and log scatters of K components, in units of `components`.
    """
    import keras
    from keras import layers, ops

    @keras.saving.register_keras_serializable("cmass")
    class Network(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="deepsets")
            width = how.width
            # Named, as Keras would count the layers of all networks of this process into the file.
            self.each = [layers.Dense(width, "gelu", name=f"each_{i}") for i in range(3)]
            self.scale = layers.LayerNormalization(name="scale")
            self.drop = layers.Dropout(how.dropout, name="drop")
            self.pooled = [
                layers.Dense((2 - i) * width, "gelu", name=f"pooled_{i}") for i in range(2)
            ]
            self.head = layers.Dense(3 * how.components, name="head")

        def call(self, inputs: Any, training: bool = False) -> Any:
            galaxies, cluster, clusters = inputs
            n = ops.shape(clusters)[0]
            for layer in self.each:
                galaxies = layer(galaxies)
            total = ops.segment_sum(galaxies, cluster, n)
            count = ops.segment_sum(ops.ones_like(galaxies[:, :1]), cluster, n)
            largest = ops.maximum(ops.segment_max(galaxies, cluster, n), -1.0)  # none: -inf
            pooled = ops.concatenate(
                [
                    self.scale(total), ops.sign(total) * ops.log1p(ops.abs(total)),
                    total / ops.maximum(count, 1.0), largest, clusters,
                ],
                axis=-1,
            )  # fmt: skip
            for layer in self.pooled:
                pooled = self.drop(layer(pooled), training=training)
            return self.head(pooled)[:-1]

    model = Network()
    # Shapes become known, and weights are made, by one cluster of one galaxy.
    model([np.zeros((1, 8), np.float32), np.zeros(1, np.int32), np.zeros((2, 2), np.float32)])
    return model


def components(outputs: Array) -> tuple[Array, Array, Array]:
    """Weights, means and scatters (n, K) of the mixtures that outputs (n, 3 K) stand for."""
    logits, means, logs = np.split(np.asarray(outputs, float), 3, axis=1)
    start = np.linspace(-_SPREAD, _SPREAD, means.shape[1])
    return softmax(logits, axis=1), means + start, np.exp(np.clip(logs, -3, 3) - 1)


def negative_log_density(true: Any, outputs: Any) -> Any:
    """Loss: minus the logarithm of the mixture at the truth, mean over the batch."""
    from keras import ops

    logits, means, logs = ops.split(outputs, 3, axis=-1)
    start = ops.linspace(-_SPREAD, _SPREAD, means.shape[-1])
    logs = ops.clip(logs, -3.0, 3.0) - 1.0
    each = -0.5 * ((true - means - start) / ops.exp(logs)) ** 2 - logs - 0.5 * np.log(2 * np.pi)
    return -ops.mean(ops.logsumexp(ops.log_softmax(logits) + each, axis=-1))
