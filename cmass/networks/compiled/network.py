"""CNN_3D compiled for processors: function and weights of the Keras model, several times faster.

Everything happens one cluster at a time, in the caches of one core. Clusters are dealt to threads
in parcels of fixed size, and sums over parcels have one order, so that results depend neither on
the number of threads nor, for estimates, on the batch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cmass.half import half_floats
from cmass.machines.threads import products_in_one_thread
from cmass.networks.compiled import layers
from cmass.networks.compiled.layers import Fixed, Floats, Gradients, Outputs, Scratch, Weights
from cmass.networks.compiled.vector import BLOCK, GATHER_LANES, LANES

#: Clusters of a parcel: sums of gradients are kept apart for each.
PARCEL = 5
#: Filters of the three convolutions, and widths of their kernels (paper, Fig. 3).
_FILTERS = (12, 8, 4)
_WIDTHS = (5, 3, 1)


class CompiledCNN3D:
    """CNN_3D on the processor, with the weights of a Keras model.

    Parameters
    ----------
    weights : sequence of ndarray
        As ``cnn3d.build(n).get_weights()`` gives them.
    n : int
        Voxels an axis.
    rectified : bool
        ReLU after the two hidden dense layers (the paper's are linear).
    symmetries : sequence of int
        Estimates are means over a window seen in so many ways (see `streaming.turn`): the mass
        depends on none of them, the error of a network does.
    threads : int, optional
        By default as many as the process may use.
    """

    def __init__(
        self, weights: Sequence[NDArray[np.floating]], n: int, *, rectified: bool = False,
        symmetries: Sequence[int] = (0,), threads: int | None = None,
    ) -> None:  # fmt: skip
        self.n, self.rectified, self.symmetries = n, rectified, tuple(symmetries)
        one = layers.geometry(n, _WIDTHS[0], 1, _FILTERS[0])
        two = layers.geometry(one.pooled, _WIDTHS[1], _FILTERS[0], _FILTERS[1])
        a, b = np.ogrid[: two.width, : two.width]
        self._fixed = Fixed(
            one, two, layers.offsets_of(one), layers.offsets_of(two),
            ((a * two.n + b) * two.n * two.channels).ravel().astype(np.int64),
        )  # fmt: skip
        self._last = -(-two.pooled // 2)
        self._threads = threads or len(os.sched_getaffinity(0))
        self._pool: ThreadPoolExecutor | None = None
        self._scratch: SimpleQueue[Scratch] = SimpleQueue()
        for _ in range(self._threads):
            self._scratch.put(self._new_scratch())
        self.set_weights(weights)

    def set_weights(self, weights: Sequence[NDArray[np.floating]]) -> None:
        """Take over the weights of a Keras model, in its order."""
        w = [np.array(x, np.float32, order="C") for x in weights]
        shapes = [x.shape for x in w]
        if shapes != weight_shapes(self.n):
            raise ValueError(f"weights of shapes {shapes}, not {weight_shapes(self.n)}")
        one, two = self._fixed.size_1, self._fixed.size_2
        plain = w[2].transpose(4, 0, 1, 2, 3).reshape(two.filters, 9, 3 * two.channels)
        self._plain = w
        self._weights = Weights(
            layers.transformed_kernel(one, w[0]), w[1], layers.transformed_kernel(two, w[2]),
            np.ascontiguousarray(plain), w[3], w[4].reshape(two.filters, -1), w[5],
            w[6], w[7], w[8], w[9], w[10], w[11],
        )  # fmt: skip

    def get_weights(self) -> list[Floats]:
        """The weights, in the order of the Keras model."""
        return [x.copy() for x in self._plain]

    @property
    def activation(self) -> Literal["linear", "relu"]:
        """Of the two hidden dense layers."""
        return "relu" if self.rectified else "linear"

    @property
    def n_features(self) -> int:
        """Outputs of the first dense layer."""
        return int(self._weights.dense_1.shape[1])

    @property
    def n_parameters(self) -> int:
        """Weights."""
        return sum(x.size for x in self._plain)

    def outputs(self, grids: NDArray[np.floating]) -> tuple[Floats, Floats]:
        """log10 M200c (k,) and outputs of the first dense layer (k, n_features).

        Both are means over the symmetries.

        Parameters
        ----------
        grids : ndarray, shape (k, n, n, n)
            Density of unit sum times ``voxels.scale``. Passes through float16, as on disk, so that
            a cluster gets the same estimate by every route.
        """
        count, views = len(grids), len(self.symmetries)
        out = self._new_outputs(count * views)
        bits = _bits(grids)
        rows = np.repeat(np.arange(count), views)  # the views of a cluster share a core's cache
        symmetries = np.tile(np.array(self.symmetries, np.uint8), count)

        def work(_: int, first: int, last: int, scratch: Scratch) -> None:
            layers.estimate(bits, rows, symmetries, first, last, self._weights, self.rectified,
                            scratch, self._fixed, out)  # fmt: skip

        self._deal(work, count * views)
        point = out.estimate.reshape(count, views).mean(axis=1)
        return point, out.hidden_1.reshape(count, views, self.n_features).mean(axis=1)

    def loss_and_gradients(
        self, grids: NDArray[np.floating], truth: NDArray[np.floating],
        rows: NDArray[np.integer] | None = None, symmetries: NDArray[np.integer] | None = None,
    ) -> tuple[float, list[Floats]]:  # fmt: skip
        """Mean squared error of log mass, and its gradients in the order of the weights.

        Parameters
        ----------
        grids : ndarray, shape (m, n, n, n)
        truth : ndarray, shape (k,)
            log10 M200c.
        rows : ndarray of int, shape (k,), optional
            Of grids; by default all.
        symmetries : ndarray of int, shape (k,), optional
            Of each: see `streaming.turn`.
        """
        count, w, fixed = len(truth), self._weights, self._fixed
        bits, truth = _bits(grids), np.ascontiguousarray(truth, np.float32)
        rows = np.arange(count) if rows is None else np.ascontiguousarray(rows, np.int64)
        codes = np.zeros(count, np.uint8)
        if symmetries is not None:
            codes[:] = symmetries
        out = self._new_outputs(count)
        parcels = -(-count // PARCEL)
        shapes = ((_FILTERS[0], 25, 5), w.bias_1.shape, w.second_plain.shape, w.bias_2.shape,
                  w.third.shape, w.bias_3.shape)  # fmt: skip
        sums = Gradients(*(_zeros(parcels, *shape) for shape in shapes))

        def work(parcel: int, first: int, last: int, scratch: Scratch) -> None:
            layers.learn(bits, rows, codes, truth, parcel, first, last, w, self.rectified, scratch,
                         fixed, out, sums)  # fmt: skip

        self._deal(work, count)
        first, bias_1, second, bias_2, third, bias_3 = (x.sum(axis=0) for x in sums)
        kernel = second.reshape(_FILTERS[1], 3, 3, 3, _FILTERS[0])
        gradients = [
            first.reshape(_FILTERS[0], 5, 5, 5).transpose(1, 2, 3, 0)[:, :, :, None], bias_1,
            kernel.transpose(1, 2, 3, 4, 0), bias_2, third.reshape(1, 1, 1, *third.shape), bias_3,
        ]  # fmt: skip
        # After a product BLAS's threads wait, spinning, for the next one: a third of a step, and on
        # the cores that the next step wants. More threads would have other last digits, too.
        with products_in_one_thread():
            for values, back in (
                (out.features, out.d_hidden_1),
                (out.hidden_1, out.d_hidden_2),
                (out.hidden_2, out.d_estimate),
            ):
                gradients += [values.T @ back, back.sum(axis=0)]
        residual = out.estimate[:, 0].astype(np.float64) - truth
        return float(np.mean(residual**2)), gradients

    def _deal(self, work: Callable[[int, int, int, Scratch], None], count: int) -> None:
        """Work on parcels in threads, each with a scratch of its own."""

        def one(parcel: int) -> None:
            first = parcel * PARCEL
            scratch = self._scratch.get()
            try:
                work(parcel, first, min(first + PARCEL, count), scratch)
            finally:
                self._scratch.put(scratch)

        parcels = range(-(-count // PARCEL))
        if self._threads == 1 or len(parcels) < 2:
            for parcel in parcels:
                one(parcel)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="cnn3d")
        for _ in self._pool.map(one, parcels):  # an error of a parcel is raised here
            pass

    def _new_outputs(self, count: int) -> Outputs:
        w = self._weights
        a, b = w.dense_1.shape[1], w.dense_2.shape[1]
        return Outputs(*(_zeros(count, k) for k in (len(w.dense_1), a, b, 1, a, b, 1)))

    def _new_scratch(self) -> Scratch:
        one, two = self._fixed.size_1, self._fixed.size_2
        p, spare = two.n, 4 * LANES + 4  # vectors at the end read beyond the grid
        lanes = max(s.filters * s.points for s in (one, two)) * BLOCK
        u_1, u_2 = (_zeros(s.points * s.channels * s.n * 2 * s.half) for s in (one, two))
        of_line = max((s.n + 1) // 2 * s.tiles for s in (one, two)) + 2 * LANES
        out_1, out_2 = layers.pooled_shape(one), layers.pooled_shape(two)
        x, flat = _zeros(one.n**3 + spare), _zeros(math.prod(out_1) + spare)
        cube, last = (p, p, p, _FILTERS[0]), (self._last,) * 3 + (_FILTERS[2],)
        return Scratch(
            x, x.view(np.uint32), u_1, u_2, _zeros(8 * of_line), _zeros(lanes),
            _zeros(_FILTERS[0] * 2 * BLOCK), np.zeros(_FILTERS[0] * 2 * BLOCK, np.int32),
            layers.barriers(one), layers.barriers(two),
            flat, flat[: math.prod(out_1)].reshape(out_1), np.zeros(out_1, np.uint8),
            _zeros(*cube), _zeros(*cube),
            _zeros(*out_2), np.zeros(out_2, np.uint8), _zeros(*out_2),
            _zeros(*last), np.zeros(last, np.int32),
            np.zeros((_FILTERS[0], p**3 + 1), np.int64), _zeros(_FILTERS[0], p**3 + 1),
            np.zeros(_FILTERS[0], np.uint64), _zeros(25 * GATHER_LANES),
        )  # fmt: skip

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self._plain, self.n, self.rectified, self.symmetries)


def _rebuilt(
    weights: list[Floats], n: int, rectified: bool, symmetries: tuple[int, ...]
) -> CompiledCNN3D:
    return CompiledCNN3D(weights, n, rectified=rectified, symmetries=symmetries)


def weight_shapes(n: int) -> list[tuple[int, ...]]:
    """Shapes of the weights of CNN_3D for n voxels an axis, in the order of the Keras model."""
    size, channels, shapes = n, 1, []
    for width, filters in zip(_WIDTHS, _FILTERS, strict=True):
        shapes += [(width, width, width, channels, filters), (filters,)]
        size, channels = -(-(size - width + 1) // 2), filters
    inputs = size**3 * channels
    for units in (128, 64, 1):
        shapes += [(inputs, units), (units,)]
        inputs = units
    return shapes


def _zeros(*shape: int) -> Floats:
    return np.zeros(shape, np.float32)


def _bits(grids: NDArray[np.floating]) -> NDArray[np.uint16]:
    return half_floats(grids).view(np.uint16)
