"""Normalising flow: p(log M | counts of galaxies in projected radius and |v|).

After Kodi Ramanah+2020b, who let a flow conditioned on the (R, v) plane give the posterior.
Here the plane is summarised by cumulative counts on a fixed lattice and the redshift,
whitened by principal components, and a conditional rational-quadratic-spline flow
(flowjax) is fitted by maximum likelihood.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from cmass.errors import ParameterError
from cmass.estimators import Estimator
from cmass.estimators.phase_space import cumulative_counts
from cmass.estimators.windows import Sets, Windows
from cmass.params import Params
from cmass.posterior import normalise
from cmass.seeds import generator
from cmass.tables import atomic_path

if TYPE_CHECKING:
    from flowjax.distributions import Transformed

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

#: Points per mass bin at which the density is read off.
_POINTS_PER_BIN = 3
#: Clusters whose densities are read off at once.
_CLUSTERS_AT_ONCE = 500


class Flow(Estimator):
    """Conditional normalising flow on (R, v) summaries."""

    name: ClassVar[str] = "flow"
    title: ClassVar[str] = "Normalising flow"
    reads: ClassVar[str] = "counts in (R, |v|), redshift"
    sources: ClassVar[tuple[str, ...]] = ("estimators/phase_space.py",)
    extra: ClassVar[str] = "flowjax"

    def __init__(self, params: Params, seed: int) -> None:
        super().__init__(params, seed)
        self._centre, self._whiten = np.empty(0), np.empty((0, 0))
        self._mass = np.empty(2)  # mean and scatter of log10 M of the training set

    def fit(self, sets: Sets, work: Path) -> None:
        """Maximum likelihood with Adam; the weights of the best epoch on the validation set."""
        import equinox as eqx
        import jax.numpy as jnp
        import jax.random as jr
        import optax
        import paramax
        from flowjax.train.losses import MaximumLikelihoodLoss
        from flowjax.train.train_utils import step

        how = self.params.rivals.flow
        summaries = self._summaries(sets.train)
        self._centre = summaries.mean(axis=0)
        scale = summaries.std(axis=0) + 1e-6
        _, sizes, axes = np.linalg.svd((summaries - self._centre) / scale, full_matrices=False)
        keep = min(how.components, len(sizes))
        self._whiten = (axes[:keep].T / (sizes[:keep] / np.sqrt(len(summaries)))) / scale[:, None]
        true = sets.train.log10_m200c_true
        self._mass = np.array([true.mean(), true.std()])
        x, context = self._scaled(true), self._context(sets.train)
        held = jnp.asarray(self._scaled(sets.validation.log10_m200c_true))
        held_context = jnp.asarray(self._context(sets.validation))
        params, static = eqx.partition(
            self._build(), eqx.is_inexact_array,
            is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable),
        )  # fmt: skip
        loss = MaximumLikelihoodLoss()
        size = min(how.batch_size, len(x))
        per_epoch = len(x) // size
        rate = optax.cosine_decay_schedule(
            how.learning_rate, how.epochs * per_epoch, how.learning_rate_final / how.learning_rate
        )
        optimizer = optax.adam(rate, how.beta_1, how.beta_2)
        state = optimizer.init(params)
        best, best_loss, best_epoch, start = params, np.inf, 0, time.monotonic()
        for epoch in range(how.epochs):
            order = generator(self.seed, "flow-epoch", epoch).permutation(len(x))
            for rows in order[: per_epoch * size].reshape(per_epoch, size):
                params, state, _ = step(
                    params, static, jnp.asarray(x[rows]), jnp.asarray(context[rows]),
                    optimizer=optimizer, opt_state=state, loss_fn=loss, key=jr.key(0),
                )  # fmt: skip
            value = float(loss(params, static, held, held_context))
            if not np.isfinite(value):
                raise ParameterError(
                    f"the flow diverged: its validation loss of epoch {epoch + 1} is {value}; lower "
                    "rivals.flow.learning_rate"
                )
            if value < best_loss:
                best, best_loss, best_epoch = params, value, epoch
            if epoch - best_epoch >= how.patience:
                break
            if time.monotonic() - start > how.seconds_max:
                self.out_of_time = epoch + 1 < how.epochs
                break
        log.info(
            "flow: best epoch %d of %d, validation log density %.3f, %.0f s",
            best_epoch + 1, epoch + 1, -best_loss - np.log(self._mass[1]),
            time.monotonic() - start,
        )  # fmt: skip
        self._flow = eqx.combine(best, static)

    def _build(self) -> Transformed:
        import jax.numpy as jnp
        import jax.random as jr
        from flowjax.bijections import RationalQuadraticSpline
        from flowjax.distributions import Normal
        from flowjax.flows import masked_autoregressive_flow

        how = self.params.rivals.flow
        return masked_autoregressive_flow(
            jr.key(self.seed), base_dist=Normal(jnp.zeros(1)), cond_dim=self._whiten.shape[1],
            transformer=RationalQuadraticSpline(knots=how.knots, interval=4),
            flow_layers=how.layers, nn_width=how.width, nn_depth=2,
        )  # fmt: skip

    def _scaled(self, log10_m200c: Array) -> NDArray[np.float32]:
        return ((log10_m200c - self._mass[0]) / self._mass[1]).astype(np.float32)[:, None]

    def _context(self, windows: Windows) -> NDArray[np.float32]:
        return ((self._summaries(windows) - self._centre) @ self._whiten).astype(np.float32)

    def _summaries(self, windows: Windows) -> Array:
        """Logarithms of the cumulative counts and of the redshift, shape (n, n_summaries)."""
        counts = np.log1p(cumulative_counts(windows, self.params.window))
        return np.column_stack([counts.reshape(len(windows), -1), np.log(windows.z)])

    def posterior(self, windows: Windows, edges: Array) -> Array:
        """The flow's density at the middle of equal parts of each bin, unit sum in the range."""
        return self._posterior(self._context(windows), self._enough(windows), edges)

    def point(self, windows: Windows) -> Array:
        """Mean of the posterior over the masses of the training set, log10 of h⁻¹ M☉."""
        return self._mean(self._context(windows), self._enough(windows))

    def point_and_posterior(self, windows: Windows, edges: Array) -> tuple[Array, Array]:
        """`point` and `posterior`, of one look at the galaxies."""
        context, enough = self._context(windows), self._enough(windows)
        return self._mean(context, enough), self._posterior(context, enough, edges)

    def _enough(self, windows: Windows) -> NDArray[np.bool_]:
        return windows.n_galaxies >= self.params.window.n_galaxies_min

    def _mean(self, context: NDArray[np.float32], enough: NDArray[np.bool_]) -> Array:
        edges = self._mass[0] + self._mass[1] * np.linspace(-3, 3, 193)
        return self._posterior(context, enough, edges) @ (0.5 * (edges[1:] + edges[:-1]))

    @cached_property
    def _log_densities(self) -> Callable[..., Any]:
        """``(flow, grid, contexts) -> (contexts, grid)``, compiled once for each shape."""
        import equinox as eqx
        import jax

        @eqx.filter_jit
        def log_densities(flow: Any, grid: Any, contexts: Any) -> Any:
            return jax.vmap(lambda c: flow.log_prob(grid, c))(contexts)

        return log_densities

    def _posterior(
        self, context: NDArray[np.float32], enough: NDArray[np.bool_], edges: Array
    ) -> Array:
        import jax.numpy as jnp

        parts = np.linspace(0, 1, 2 * _POINTS_PER_BIN + 1)[1::2]
        at = (edges[:-1, None] + np.diff(edges)[:, None] * parts).ravel()
        grid = jnp.asarray(self._scaled(at))
        out = np.full((len(context), len(edges) - 1), np.nan)
        rows = np.flatnonzero(enough)
        for start in range(0, rows.size, _CLUSTERS_AT_ONCE):
            own = rows[start : start + _CLUSTERS_AT_ONCE]
            # Batches of one shape are compiled once: the last one is filled up.
            full = np.resize(context[own], (_CLUSTERS_AT_ONCE, context.shape[1]))
            logs = self._log_densities(self._flow, grid, jnp.asarray(full))
            logs = np.asarray(logs, np.float64)[: own.size]
            logs -= logs.max(axis=1, keepdims=True)
            out[own] = np.exp(logs).reshape(own.size, -1, _POINTS_PER_BIN).mean(axis=2)
        return normalise(out * np.diff(edges))

    @property
    def n_parameters(self) -> int:
        """Weights of the flow."""
        import equinox as eqx
        import jax

        leaves = jax.tree_util.tree_leaves(eqx.filter(self._flow, eqx.is_inexact_array))
        return int(sum(leaf.size for leaf in leaves))

    def save(self, folder: Path) -> None:
        """Write the flow and the scaling of what it reads."""
        import equinox as eqx

        with atomic_path(folder / "scaling.npz") as path, open(path, "wb") as stream:
            np.savez(stream, centre=self._centre, whiten=self._whiten, mass=self._mass)
        with atomic_path(folder / "flow.eqx") as path, open(path, "wb") as stream:
            eqx.tree_serialise_leaves(stream, self._flow)

    @classmethod
    def load(cls, folder: Path, params: Params, seed: int) -> Self:
        """The fitted flow that `save` wrote."""
        import equinox as eqx

        one = cls(params, seed)
        with np.load(folder / "scaling.npz") as scaling:
            one._centre, one._whiten, one._mass = (
                scaling["centre"], scaling["whiten"], scaling["mass"],
            )  # fmt: skip
        with open(folder / "flow.eqx", "rb") as stream:
            one._flow = eqx.tree_deserialise_leaves(stream, one._build())
        return one
