"""The plain estimator: mass from the clipped velocity dispersion (sigma-M relation).

Members are the galaxies inside an aperture whose velocity lies within 2.7 sigma of the
median (Mamon+2010), to convergence; sigma is the gapper (Beers+1990). log10(E(z) M200c) =
a + b log10(sigma / 500 km/s) is fitted on the training mocks, as the network is, so both
know the same prior.

The aperture is fixed, 1 Mpc/h. One that follows R200c of the sigma found (by Evrard+2008)
was tried on 600 mocks and is no better: scatter 0.314 dex against 0.302 (0.5, 1.5 and
2 Mpc/h: 0.313, 0.304, 0.352), since an error of sigma moves the aperture the same way.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from cmass.cosmology import Cosmology
from cmass.errors import InputError, TooFewMocksError
from cmass.estimators import PointEstimator
from cmass.estimators.windows import Sets, Windows
from cmass.params import Params
from cmass.tables import points_by_cluster, read_json, read_table, to_numpy, write_json
from cmass.workspace import Workspace

Array = NDArray[np.float64]

#: Fewest galaxies from which a dispersion is taken.
MEMBERS_MIN = 4
_PIVOT_KM_S = 500.0
_ROUNDS = 30


@numba.njit(cache=True, nogil=True)
def gapper_km_s(v):  # pragma: no cover - compiled
    """Gapper scale of ascending values (Beers+1990): sqrt(pi)/(n(n-1)) sum i(n-i) gap_i."""
    n = v.size
    total = 0.0
    for i in range(1, n):
        total += i * (n - i) * (v[i] - v[i - 1])
    return math.sqrt(math.pi) * total / (n * (n - 1))


@numba.njit(cache=True, nogil=True)
def _clip(v, clip, members_min):  # pragma: no cover - compiled
    """Dispersion of ascending `v` after clipping about the median until nothing changes."""
    low, high = 0, v.size
    sigma = 0.0
    for _ in range(_ROUNDS):
        inside = v[low:high]
        if inside.size < members_min:
            return np.nan
        centre = np.median(inside)
        if not sigma > 0:
            # Start from the median absolute deviation: interlopers at the window's edge
            # would swell the gapper so much that nothing is clipped.
            sigma = 1.4826 * np.median(np.abs(inside - centre))
        new_low = np.searchsorted(v, centre - clip * sigma)
        new_high = np.searchsorted(v, centre + clip * sigma, side="right")
        if new_high - new_low < members_min:
            return np.nan
        new_sigma = gapper_km_s(v[new_low:new_high])
        if new_low == low and new_high == high and new_sigma == sigma:
            break
        low, high, sigma = new_low, new_high, new_sigma
    return sigma


@numba.njit(cache=True, nogil=True)
def _sigmas(points, offsets, aperture, clip, members_min):  # pragma: no cover - compiled
    n = offsets.size - 1
    out = np.full(n, np.nan)
    for c in range(n):
        cloud = points[offsets[c] : offsets[c + 1]]
        inside = cloud[:, 0] ** 2 + cloud[:, 1] ** 2 <= aperture**2
        sigma = _clip(np.sort(cloud[inside, 2]), clip, members_min)
        if sigma > 0:
            out[c] = sigma
    return out


def clipped_sigma_km_s(
    points: Array, offsets: NDArray[np.int64], *, clip: float = 2.7, aperture_mpc_h: float = 1.0
) -> Array:
    """Clipped velocity dispersion of each cluster.

    Parameters
    ----------
    points : ndarray, shape (n_points, 3)
        x, y (proper Mpc/h) and v (km/s), one cluster after the other.
    offsets : ndarray, shape (n + 1,)
        Where each cluster begins in `points`.
    clip : float
        Clip in units of the dispersion (Mamon+2010: 2.7).
    aperture_mpc_h : float
        Projected radius, proper Mpc/h.

    Returns
    -------
    ndarray, shape (n,)
        km/s in the cluster's frame; NaN where fewer than 4 galaxies are left.
    """
    return _sigmas(
        np.ascontiguousarray(points, float), np.asarray(offsets, np.int64), float(aperture_mpc_h),
        float(clip), MEMBERS_MIN,
    )  # fmt: skip


@dataclass(frozen=True)
class Relation:
    """A sigma-M relation: log10(E(z) M200c) = intercept + slope log10(sigma/500 km/s).

    Attributes
    ----------
    intercept : float
        log10 of h⁻¹ M☉ at 500 km/s.
    slope : float
    scatter_dex : float
        Scatter of log10 M about the relation on the mocks it was fitted to.
    n : int
        Mocks it was fitted to.
    omega_m : float
        Matter density, for E(z).
    clip_sigma, aperture_mpc_h : float
        How the dispersions were measured.
    """

    intercept: float
    slope: float
    scatter_dex: float
    n: int
    omega_m: float
    clip_sigma: float
    aperture_mpc_h: float

    def sigma_km_s(self, points: Array, offsets: NDArray[np.int64]) -> Array:
        """Dispersions measured as those of the fit, see `clipped_sigma_km_s`."""
        return clipped_sigma_km_s(
            points, offsets, clip=self.clip_sigma, aperture_mpc_h=self.aperture_mpc_h
        )

    def log10_m200c(self, sigma_km_s: ArrayLike, z: ArrayLike) -> Array:
        """log10 M200c (h⁻¹ M☉) of clipped dispersions (km/s); NaN stays NaN."""
        sigma = np.asarray(sigma_km_s, float)
        e = Cosmology(self.omega_m).e(z)
        return self.intercept + self.slope * np.log10(sigma / _PIVOT_KM_S) - np.log10(e)

    def as_json(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any], file: Path | None = None) -> Relation:
        """Relation from `as_json`; a missing or unknown name is an `InputError`."""
        try:
            return cls(**{name: float(value) for name, value in values.items()} | _whole(values))
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"not a sigma-M relation: {error}", file=file) from error


def _whole(values: dict[str, Any]) -> dict[str, Any]:
    return {"n": int(values["n"])} if "n" in values else {}


def fit(
    sigma_km_s: ArrayLike,
    z: ArrayLike,
    log10_m200c: ArrayLike,
    omega_m: float,
    *,
    clip: float = 2.7,
    aperture_mpc_h: float = 1.0,
) -> Relation:
    """Least-squares relation of log mass on log dispersion.

    The regression is of mass on dispersion, not the reverse: it minimises the scatter of
    the estimate on a flat mass distribution, as the network's loss does.

    Raises
    ------
    TooFewMocksError
        Fewer than 10 clusters have a dispersion.
    """
    sigma, m = np.asarray(sigma_km_s, float), np.asarray(log10_m200c, float)
    good = np.isfinite(sigma) & (sigma > 0)
    if good.sum() < 10:
        raise TooFewMocksError(f"a sigma-M relation needs 10 dispersions, {good.sum()} are there")
    log_e = np.log10(Cosmology(omega_m).e(z)) * np.ones_like(m)
    x, y = np.log10(sigma[good] / _PIVOT_KM_S), (m + log_e)[good]
    slope, intercept = np.polyfit(x, y, 1)
    rest = y - intercept - slope * x
    return Relation(
        intercept=float(intercept), slope=float(slope), scatter_dex=float(rest.std(ddof=2)),
        n=int(good.sum()), omega_m=omega_m, clip_sigma=clip, aperture_mpc_h=aperture_mpc_h,
    )  # fmt: skip


def measure_mocks(workspace: Workspace, params: Params, clusters: pa.Table) -> Array:
    """Clipped dispersions of mock clusters, km/s, read shard by shard.

    Parameters
    ----------
    clusters : pyarrow.Table
        Column cluster_id of the mocks asked for.

    Returns
    -------
    ndarray, shape (n,)
        In the order of `clusters`; NaN where there is none.
    """
    out = np.full(clusters.num_rows, np.nan)
    ids, how = clusters["cluster_id"].combine_chunks(), params.evaluate
    columns = ["cluster_id", "x_proj", "y_proj", "v_los"]
    for shard in sorted((workspace.mock / "galaxies").glob("*.parquet")):
        galaxies = read_table(shard, "mock_galaxies", columns)
        rows = pc.index_in(pc.unique(galaxies["cluster_id"]), value_set=ids)
        rows = np.sort(rows.drop_null().to_numpy())
        points, offsets = points_by_cluster(galaxies, ids.take(pa.array(rows)))
        out[rows] = clipped_sigma_km_s(
            points, offsets, clip=how.clip_sigma, aperture_mpc_h=how.aperture_mpc_h
        )
    return out


def fit_mocks(workspace: Workspace, params: Params) -> Relation:
    """Fit the relation on the training and validation mocks."""
    split = read_table(workspace.split / "split.parquet", "split", ["cluster_id", "set"])
    own = split.filter(pc.is_in(split["set"], value_set=pa.array(["train", "validation"])))
    columns = ["cluster_id", "z", "log10_m200c_true"]
    mocks = read_table(workspace.mock / "clusters", "mock_clusters", columns)
    mocks = mocks.filter(
        pc.is_in(mocks["cluster_id"], value_set=own["cluster_id"].combine_chunks())
    )
    sigma = measure_mocks(workspace, params, mocks)
    z, true = to_numpy(mocks, "z", "log10_m200c_true")
    how = params.evaluate
    return fit(
        sigma, z, true, params.cosmology.omega_m, clip=how.clip_sigma,
        aperture_mpc_h=how.aperture_mpc_h,
    )  # fmt: skip


class Dispersion(PointEstimator):
    """Mass from the clipped velocity dispersion; every other estimator is measured by it."""

    name: ClassVar[str] = "dispersion"
    title: ClassVar[str] = "σ–M, 2.7σ clip"
    reads: ClassVar[str] = "velocities inside the aperture, clipped"
    seeded: ClassVar[bool] = False

    relation: Relation

    def fit_point(self, sets: Sets, work: Path) -> None:
        """Fit the relation on the training and validation mocks."""
        how = self.params.evaluate
        parts = [(self._sigma(w), w.z, w.log10_m200c_true) for w in (sets.train, sets.validation)]
        sigma, z, true = (np.concatenate(column) for column in zip(*parts, strict=True))
        self.relation = fit(
            sigma, z, true, self.params.cosmology.omega_m, clip=how.clip_sigma,
            aperture_mpc_h=how.aperture_mpc_h,
        )  # fmt: skip

    def _sigma(self, windows: Windows) -> Array:
        how = self.params.evaluate
        return clipped_sigma_km_s(
            windows.points, windows.offsets, clip=how.clip_sigma, aperture_mpc_h=how.aperture_mpc_h
        )

    def point(self, windows: Windows) -> Array:
        """log10 M200c by the relation; NaN where fewer than 4 galaxies are left."""
        return self.relation.log10_m200c(self._sigma(windows), windows.z)

    @property
    def n_parameters(self) -> int:
        """Intercept and slope."""
        return 2

    def save_point(self, folder: Path) -> None:
        """Write ``dispersion.json``."""
        write_json(folder / "dispersion.json", self.relation.as_json())

    def load_point(self, folder: Path) -> None:
        """Read ``dispersion.json``."""
        path = folder / "dispersion.json"
        self.relation = Relation.from_json(read_json(path), path)
