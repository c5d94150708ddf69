"""Where a window lies among mocks: what the network keeps of it, and plain summaries.

The leading principal components of the network's first dense layer and eight summaries of
the galaxies are brought to unit covariance on training mocks. How far out a window lies is its
mean distance to the nearest of these mocks: the cloud of mocks is no ellipsoid, so that a
distance to its mean would not do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cmass.estimators.dispersion import clipped_sigma_km_s
from cmass.estimators.richness import count_near_centre

Array = NDArray[np.float64]

#: What `summaries` measures, in order; log10 each, counts plus one.
SUMMARIES = (
    "galaxies in the window", "redshift", "clipped dispersion", "richness",
    "root mean square velocity", "galaxies in the wings", "galaxies in the core",
    "galaxies far out",
)  # fmt: skip
#: Wings, core and outskirts, in parts of the window.
_WING, _CORE, _FAR = 0.5, 0.125, 0.5


def summaries(
    points: Array, offsets: NDArray[np.int64], z: ArrayLike, half_width_mpc_h: float,
    v_max_km_s: float,
) -> Array:  # fmt: skip
    """Plain numbers of each window, shape (n, 8); NaN where there is no clipped dispersion.

    Parameters
    ----------
    points : ndarray, shape (n_points, 3)
        x, y (proper Mpc/h) and v (km/s), one cluster after the other.
    offsets : ndarray, shape (n + 1,)
    z : array_like, shape (n,)
    half_width_mpc_h, v_max_km_s : float
        Of the window: wings are the outer half of the velocities, the core the inner eighth of
        the radius and far out the outer half.
    """
    n = len(offsets) - 1
    counts = np.diff(offsets)
    number = np.repeat(np.arange(n), counts)
    radius, speed = np.hypot(points[:, 0], points[:, 1]), np.abs(points[:, 2])

    def count(mask: NDArray[np.bool_]) -> Array:
        return np.bincount(number[mask], minlength=n).astype(float)

    square = np.bincount(number, speed**2, minlength=n) / np.maximum(counts, 1)
    columns = (
        counts, np.asarray(z, float), clipped_sigma_km_s(points, offsets),
        count_near_centre(points, offsets) + 1.0, np.sqrt(square),
        count(speed > _WING * v_max_km_s) + 1, count(radius < _CORE * half_width_mpc_h) + 1,
        count(radius > _FAR * half_width_mpc_h) + 1,
    )  # fmt: skip
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.log10(np.stack([np.asarray(c, float) for c in columns], axis=1))
    return np.where(np.isfinite(out), out, np.nan)


@dataclass(frozen=True)
class Whitening:
    """A linear map to uncorrelated directions of unit variance: (x − mean) @ matrix.

    Attributes
    ----------
    mean : ndarray, shape (d,)
    matrix : ndarray, shape (d, k)
    """

    mean: Array
    matrix: Array

    @classmethod
    def fit(cls, x: Array, k: int) -> Whitening:
        """Leading `k` principal components of rows (n, d), fewer where there is no variance."""
        mean = x.mean(axis=0)
        _, s, directions = np.linalg.svd(x - mean, full_matrices=False)
        k = min(k, int((s > 1e-6 * s[0]).sum()))
        return cls(mean, directions[:k].T * (np.sqrt(len(x)) / s[:k]))

    def __call__(self, x: Array) -> Array:
        return (x - self.mean) @ self.matrix


@dataclass(frozen=True)
class Space:
    """The space that windows are compared in.

    Attributes
    ----------
    network, whole : Whitening
        Of the network's features; of its components and the summaries together.
    fill : ndarray, shape (8,)
        Medians of the summaries, for those that a window lacks.
    reference : ndarray of float32, shape (n_reference, k)
        Places of training mocks.
    n_neighbours : int
    """

    network: Whitening
    whole: Whitening
    fill: Array
    reference: NDArray[np.float32]
    n_neighbours: int

    @classmethod
    def fit(
        cls, features: Array, plain: Array, n_components: int, n_neighbours: int, n_reference: int
    ) -> Space:  # fmt: skip
        """Space of training mocks.

        Parameters
        ----------
        features : ndarray, shape (n, n_features)
            Outputs of the network's first dense layer.
        plain : ndarray, shape (n, 8)
            As `summaries` gives them.
        n_components : int
            Of the features.
        n_neighbours : int
        n_reference : int
            Mocks kept, evenly from the rows given.
        """
        fill = np.nanmedian(plain, axis=0)
        network = Whitening.fit(features, n_components)
        joined = np.hstack([network(features), np.where(np.isfinite(plain), plain, fill)])
        whole = Whitening.fit(joined, joined.shape[1])
        rows = np.unique(np.linspace(0, len(joined) - 1, n_reference).round().astype(int))
        reference = whole(joined[rows]).astype(np.float32)
        return cls(network, whole, fill, reference, n_neighbours)

    def distance(self, features: Array, plain: Array) -> Array:
        """Mean distance to the nearest reference mocks, shape (n,)."""
        joined = np.hstack([self.network(features), np.where(np.isfinite(plain), plain, self.fill)])
        k = min(self.n_neighbours, len(self.reference))
        found, _ = cKDTree(self.reference).query(self.whole(joined), k=np.arange(1, k + 1))
        return np.asarray(found, float).mean(axis=1)

    def reference_summaries(self) -> Array:
        """`summaries` of the reference mocks, shape (n_reference, 8), from their places.

        Empty where the mocks vary in fewer directions than they have numbers, so that places do not
        tell them.
        """
        whole = self.whole
        if whole.matrix.shape[0] != whole.matrix.shape[1]:
            return np.empty((0, len(SUMMARIES)))
        joined = np.linalg.solve(whole.matrix.T, self.reference.astype(float).T).T + whole.mean
        return joined[:, -len(SUMMARIES) :]

    def as_json(self) -> dict[str, Any]:
        """All but the reference, as JSON can hold it."""
        maps = {"network": self.network, "whole": self.whole}
        return {
            "n_neighbours": self.n_neighbours, "fill": self.fill.tolist(),
            **{f"{name}_mean": one.mean.tolist() for name, one in maps.items()},
            **{f"{name}_matrix": one.matrix.tolist() for name, one in maps.items()},
        }  # fmt: skip

    @classmethod
    def from_json(cls, values: dict[str, Any], reference: NDArray[np.float32]) -> Space:
        """Space from `as_json` and the reference."""
        network, whole = (
            Whitening(np.array(values[f"{name}_mean"]), np.array(values[f"{name}_matrix"]))
            for name in ("network", "whole")
        )
        return cls(network, whole, np.array(values["fill"]), reference, values["n_neighbours"])
