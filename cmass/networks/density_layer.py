"""Density grids made where the network runs, from lists of galaxies.

The same function as `cmass.voxels.density_grid` in single precision and without branches, for a
whole batch at once: operations of Keras alone, which every backend compiles for its device. What
takes care of single precision: coordinates count voxels, so that axes are exact; the covariance is
factorised by Gram and Schmidt on the galaxies themselves, which never squares its condition number;
and the exponent of a kernel is a sum of squares, so that nothing overflows and little cancels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

#: Galaxies of each cluster that one turn of the loop adds. A compiler makes one pass over the
#: grids of them all.
AT_ONCE = 8

#: Half floats: bits of a float that they do not keep, where they stop being normal numbers, and
#: from where a number is rounded to infinity.
_LOST_BITS = 13
_SMALLEST_NORMAL = 2.0**-14
_INFINITE = 65520.0
#: Beside 0.5 the last place of a float, 2⁻²⁴, is that of the smallest half floats.
_HALF_BITS = int(np.float32(0.5).view(np.int32))
#: Exponent of a kernel that is not there.
_NOTHING = 1e6


def rounded_to_half(values: Any) -> Any:
    """Round numbers from 0 on to half floats, ties to even, and keep them in single precision.

    As `cmass.half.half_floats` does it, by the bits: compilers take a cast to float16 and back for
    superfluous and leave it out.

    Parameters
    ----------
    values : tensor of float32
        Of any shape, none negative.
    """
    bits = ops.view(values, "int32")
    odd = ops.bitwise_and(ops.right_shift(bits, _LOST_BITS), 1)
    up = bits + (2 ** (_LOST_BITS - 1) - 1) + odd
    normal = ops.view(ops.bitwise_and(up, -(2**_LOST_BITS)), "float32")
    steps = ops.view(values + 0.5, "int32") - _HALF_BITS
    small = ops.cast(steps, "float32") * 2.0**-24
    rounded = ops.where(values < _SMALLEST_NORMAL, small, normal)
    return ops.where(values < _INFINITE, rounded, float("inf"))


class DensityGrid(keras.layers.Layer):
    """Kernel density of galaxies on a grid in (x, y, v), as the network takes it.

    Gaussian kernels with bandwidth matrix H = κ² Σ, Σ the sample covariance of the cluster's own
    galaxies, at n³ points, normalised to unit sum, times a factor, rounded to half floats as on
    disk (SPEC section 4). Within 1e-5 of the peak of `cmass.voxels.density_grid` before rounding.
    No gradient flows back through it.

    Parameters
    ----------
    n : int
        Points along each axis, ends included.
    kappa : float
        Bandwidth factor.
    half_width : float
        The grid spans [−half_width, half_width] in x and y, h⁻¹ Mpc.
    v_max : float
        The grid spans [−v_max, v_max] in v, km/s.
    scale : float
        Sum of a grid.
    half : bool
        Round to half floats.

    Input shape
    -----------
    points : (k, G, 3) of float32
        x and y in h⁻¹ Mpc, v in km/s; G a multiple of `AT_ONCE`. What lies behind a cluster's
        galaxies is finite, and does not count.
    counts : (k,) of int32
        Galaxies of each cluster: at least 4, not in one plane. Nothing here can raise an error:
        `cmass.voxels.inverse_bandwidth` finds lists that have no density.

    Output shape
    ------------
    (k, n, n, n, 1) of float32; axes x, y, v.

    Example
    -------
    >>> points = np.random.default_rng(0).normal(0, [1, 1, 700], (2, 40, 3)).astype(np.float32)
    >>> DensityGrid(50, scale=1000)(points, np.array([40, 25], np.int32)).shape
    (2, 50, 50, 50, 1)
    """

    def __init__(
        self,
        n: int = 50,
        *,
        kappa: float = 0.175,
        half_width: float = 4.0,
        v_max: float = 2200.0,
        scale: float = 1.0,
        half: bool = True,
        **how: Any,
    ) -> None:
        # Single precision whatever the policy: a grid of half precision would be none.
        super().__init__(**how | {"trainable": False, "dtype": "float32"})
        self.n, self.kappa, self.scale, self.half = n, kappa, scale, half
        self.half_width, self.v_max = half_width, v_max

    def get_config(self) -> dict[str, Any]:
        """What makes this layer again."""
        return super().get_config() | {
            "n": self.n, "kappa": self.kappa, "half_width": self.half_width, "v_max": self.v_max,
            "scale": self.scale, "half": self.half,
        }  # fmt: skip

    def compute_output_shape(
        self, points_shape: tuple[int | None, ...], counts_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Shape of the grids."""
        return (points_shape[0], self.n, self.n, self.n, 1)

    def call(self, points: Any, counts: Any) -> Any:
        """Grids of clusters from their galaxies."""
        n, k, longest = self.n, points.shape[0], points.shape[1]
        if longest % AT_ONCE:
            raise ValueError(f"lists of {longest} galaxies; must be a multiple of {AT_ONCE}")
        centre = (n - 1) / 2
        voxels_per = [centre / w for w in (self.half_width, self.half_width, self.v_max)]
        points = points * ops.convert_to_tensor(voxels_per, "float32")
        there = ops.cast(ops.arange(longest, dtype="int32")[None, :] < counts[:, None], "float32")
        shape = _Kernel(points, there, counts, self.kappa)
        axis = ops.arange(n, dtype="float32") - centre
        lists = ops.concatenate([points, (_NOTHING * (1 - there))[..., None]], axis=2)

        def exponents(turn: Any) -> Iterator[Any]:
            some = ops.slice(lists, (0, turn * AT_ONCE, 0), (k, AT_ONCE, 4))
            for galaxy in range(AT_ONCE):
                x, y, z = (axis[None, :] - some[:, galaxy, j, None] for j in range(3))
                u, v, w = shape.whitened(
                    x[:, :, None, None], y[:, None, :, None], z[:, None, None, :]
                )
                plane = 0.5 * (u * u + v * v) + some[:, galaxy, 3, None, None, None]
                yield plane + 0.5 * w * w

        def smallest(turn: Any, least: Any) -> Any:
            for exponent in exponents(turn):
                least = ops.minimum(least, ops.min(exponent, axis=(1, 2, 3)))
            return least

        turns = longest // AT_ONCE
        # The kernel nearest to a voxel gets unit height there: without it the densities of clusters
        # smaller than a voxel would be too small for a float. Which voxel that is only a look at all
        # of them says: by Mahalanobis distance it need not be the nearest along each axis.
        least = ops.fori_loop(0, turns, smallest, ops.full((k,), _NOTHING, "float32"))

        def add(turn: Any, density: Any) -> Any:
            for exponent in exponents(turn):
                density = density + ops.exp(least[:, None, None, None] - exponent)
            return density

        density = ops.fori_loop(0, turns, add, ops.zeros((k, n, n, n), "float32"))
        # Axis by axis: one long sum in single precision loses digits.
        total = ops.sum(ops.sum(ops.sum(density, axis=3), axis=2), axis=1)
        density = density * (self.scale / total)[:, None, None, None]
        if self.half:
            density = rounded_to_half(density)
        return ops.stop_gradient(density)[..., None]


class _Kernel:
    """Shape of each cluster's kernel: what turns offsets into independent standard deviations.

    With centred coordinates X = QR (Q orthonormal, R upper triangular) Σ is RᵀR / (N − 1), and
    offsets d have the Mahalanobis distance |R⁻ᵀ d| √(N − 1) / κ.
    """

    def __init__(self, points: Any, there: Any, counts: Any, kappa: float) -> None:
        number = ops.cast(counts, "float32")
        x, y, v = (_centred(points[..., j], there, number) for j in range(3))
        size_x = ops.sqrt(ops.sum(x * x, axis=1))
        x = x / size_x[:, None]
        self._y_x, y = _without(x, y)
        size_y = ops.sqrt(ops.sum(y * y, axis=1))
        y = y / size_y[:, None]
        # Twice: what rounding left of the first is taken away (Kahan's "twice is enough").
        v_x, v = _without(x, v)
        v_y, v = _without(y, v)
        size_v = ops.sqrt(ops.sum(v * v, axis=1))
        self._y_x = self._y_x / size_x
        self._v_x, self._v_y = v_x / size_x, v_y / size_y
        deviations = ops.sqrt(number - 1) / kappa
        self._per_x, self._per_y, self._per_v = (
            deviations / size for size in (size_x, size_y, size_v)
        )

    def whitened(self, x: Any, y: Any, v: Any) -> tuple[Any, Any, Any]:
        """Offsets along the axes (k, …), in voxels, as three independent standard deviations."""
        extra = (1,) * (len(x.shape) - 1)

        def of(values: Any) -> Any:
            return ops.reshape(values, (-1, *extra))

        y = y - of(self._y_x) * x
        v = v - of(self._v_x) * x - of(self._v_y) * y
        return of(self._per_x) * x, of(self._per_y) * y, of(self._per_v) * v


def _centred(values: Any, there: Any, number: Any) -> Any:
    """Values (k, G) less their mean, 0 where there is no galaxy."""
    for _ in range(2):  # the second time for what rounding left
        mean = ops.sum(values * there, axis=1) / number
        values = (values - mean[:, None]) * there
    return values


def _without(unit: Any, values: Any) -> tuple[Any, Any]:
    """Part of `values` (k, G) along a unit vector (k,), and the rest (k, G)."""
    along = ops.zeros_like(values[:, 0])
    for _ in range(2):
        part = ops.sum(unit * values, axis=1)
        along, values = along + part, values - part[:, None] * unit
    return along, values
