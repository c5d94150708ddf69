"""voxelize: kernel density of a cluster's galaxies on a grid in (x, y, v).

The density is a Gaussian KDE with bandwidth matrix H = κ² Σ, Σ the sample
covariance (scipy's convention; the paper's text, section 2.3, says κΣ, the authors'
numbers come from κ²), evaluated on n³ points and normalised to unit sum.

For a kernel of full covariance the exponent is a quadratic form. Along y, from one voxel to the next,
a Gaussian is a product with a factor that is itself a geometric series: two multiplications a
voxel, no exponential, for all voxels along v at once, sixteen of them in registers through all rows.
Where y and v are so correlated that the factors would run through numbers too small for a float, the
same is done along v, row by row, from within the kernel. Voxels farther than `CUT_SIGMA` from a
galaxy in Mahalanobis distance are mostly skipped.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from cmass.errors import VoxelError
from cmass.half import grids_as_bytes, half_floats
from cmass.params import Params, VoxelParams, WindowParams
from cmass.shards import Shard, digest_of, run_shards, source_digest
from cmass.split import SETS
from cmass.tables import atomic_path, file_digest, points_by_cluster, read_table, table_files
from cmass.workspace import Workspace

log = logging.getLogger(__name__)

#: Parameter sections that the voxels depend on, beside the mocks and the split.
SECTIONS = ("window", "voxels")
#: Sets that need none on disk where training makes its own grids (``train.grids``).
_MADE_IN_TRAINING = ("train", "validation")

_GALAXIES = ["cluster_id", "x_proj", "y_proj", "v_los"]

#: Kernels end at this Mahalanobis distance, where they are 1.6e-7 of their peak, or farther out.
CUT_SIGMA = 5.6
#: No kernel reaches farther: exp(-38²/2) is the smallest number a float can hold.
_LARGEST_CUT_SIGMA = 38.0
#: Largest exponent at the corner of a kernel's box: beyond 708 a float is not exact.
_LARGEST_EXPONENT = 600.0
#: Peak of the sum of kernels (each of unit height) below which they are cut farther out.
_LOW_PEAK = 0.1
#: Voxels along v that are filled together: two vectors of 512 bits.
_DOUBLES = 16
#: Relative size below which the covariance counts as singular.
_SINGULAR = 1e-10

Grid = NDArray[np.float32]


def _add_series() -> Any:
    """The innermost loop, with everything it changes in registers: LLVM's own vectors."""
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    integer, n = ir.IntType(64), _DOUBLES // 2
    kind = ir.VectorType(ir.DoubleType(), n)

    @intrinsic
    def add_series(typing, out, at, stride, count, values, ratios, k, decay):
        """Add a series of geometric series to `count` rows of ``out``, `stride` doubles apart.

        Row j gets values[k + l] in its lanes l below `_DOUBLES`; from row to row a value is
        multiplied by its ratio, and the ratio by `decay`. Arrays of doubles, flat and contiguous.
        """
        signature = types.void(
            out, types.int64, types.int64, types.int64, values, ratios, types.int64, types.float64
        )

        def generate(context, builder, signature, arguments):
            out, values, ratios = (
                context.make_array(signature.args[i])(context, builder, arguments[i]).data
                for i in (0, 4, 5)
            )
            _, at, stride, count, _, _, k, decay = arguments

            def pointer(base: ir.Value, index: ir.Value, part: int) -> ir.Value:
                place = builder.gep(base, [builder.add(index, ir.Constant(integer, n * part))])
                return builder.bitcast(place, kind.as_pointer())

            def load(where: ir.Value) -> ir.Value:
                value = builder.load(where)
                value.align = 8
                return value

            first = [(load(pointer(values, k, p)), load(pointer(ratios, k, p))) for p in range(2)]
            undefined = ir.Constant(kind, ir.Undefined)
            single = builder.insert_element(undefined, decay, ir.Constant(ir.IntType(32), 0))
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), n), [0] * n)
            decays = builder.shuffle_vector(single, undefined, lanes)
            entry = builder.block
            loop, done = (builder.append_basic_block(name) for name in ("rows", "done"))
            builder.branch(loop)
            builder.position_at_end(loop)
            row, place = builder.phi(integer), builder.phi(integer)
            state = [(builder.phi(kind), builder.phi(kind)) for _ in first]
            row.add_incoming(ir.Constant(integer, 0), entry)
            place.add_incoming(at, entry)
            for part, (value, ratio) in enumerate(state):
                value.add_incoming(first[part][0], entry)
                ratio.add_incoming(first[part][1], entry)
                where = pointer(out, place, part)
                builder.store(builder.fadd(load(where), value), where).align = 8
                value.add_incoming(builder.fmul(value, ratio), loop)
                ratio.add_incoming(builder.fmul(ratio, decays), loop)
            following = builder.add(row, ir.Constant(integer, 1))
            row.add_incoming(following, loop)
            place.add_incoming(builder.add(place, stride), loop)
            builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return signature, generate

    return add_series


@lru_cache(maxsize=1)
def _kernels() -> Any:
    """The compiled loops (numba is imported when the first grid is made)."""
    from numba import njit

    add_series = _add_series()

    @njit(cache=True, nogil=True, error_model="numpy")
    def add_plane_by_plane(points, precision, axis_xy, axis_v, cut, grid):  # pragma: no cover
        n = axis_xy.size
        step, step_v = axis_xy[1] - axis_xy[0], axis_v[1] - axis_v[0]
        a_xx, a_xy, a_xv = precision[0, 0], precision[0, 1], precision[0, 2]
        a_yy, a_yv, a_vv = precision[1, 1], precision[1, 2], precision[2, 2]
        # Given x the kernel ends within a box in (y, v): middle and width of the ellipse along y,
        # where v is best, and along v, where y is.
        y_y, y_x = a_yy - a_yv * a_yv / a_vv, a_xy - a_xv * a_yv / a_vv
        v_v, v_x = a_vv - a_yv * a_yv / a_yy, a_xv - a_xy * a_yv / a_yy
        x_only = a_xx - a_xv * a_xv / a_vv - y_x * y_x / y_y
        reach_x = cut / np.sqrt(x_only)
        tilt_y, tilt_v = y_x / y_y, v_x / v_v
        width_y, width_v = 1 / np.sqrt(y_y), 1 / np.sqrt(v_v)
        decay, decay_v = np.exp(-a_yy * step * step), np.exp(-a_vv * step_v * step_v)
        turn = np.exp(-a_yv * step * step_v)
        value, ratio = np.zeros(n + _DOUBLES), np.zeros(n + _DOUBLES)
        flat = grid.ravel()
        for p in range(points.shape[0]):
            px, py, pv = points[p, 0], points[p, 1], points[p, 2]
            i0 = max(0, int(np.ceil((px - reach_x - axis_xy[0]) / step)))
            i1 = min(n - 1, int(np.floor((px + reach_x - axis_xy[0]) / step)))
            for i in range(i0, i1 + 1):
                a = axis_xy[i] - px
                left = cut * cut - x_only * a * a
                if left <= 0:
                    continue
                reach = np.sqrt(left)
                y, v = py - tilt_y * a - axis_xy[0], pv - tilt_v * a - axis_v[0]
                j0 = max(0, int(np.ceil((y - reach * width_y) / step)))
                j1 = min(n - 1, int(np.floor((y + reach * width_y) / step)))
                k0 = max(0, int(np.ceil((v - reach * width_v) / step_v)))
                k1 = min(n - 1, int(np.floor((v + reach * width_v) / step_v)))
                if j1 < j0 or k1 < k0:
                    continue
                count = k1 - k0 + 1
                b = axis_xy[j0] - py
                c = axis_v[k0] - pv
                cross = a_xy * a * b + a_xv * a * c + a_yv * b * c
                height = np.exp(-0.5 * (a_xx * a * a + a_yy * b * b + a_vv * c * c) - cross)
                along_v = np.exp(-step_v * (a_vv * (c + 0.5 * step_v) + a_xv * a + a_yv * b))
                along_y = np.exp(-step * (a_yy * (b + 0.5 * step) + a_xy * a + a_yv * c))
                for k in range(count):
                    value[k], ratio[k] = height, along_y
                    height *= along_v
                    along_v *= decay_v
                    along_y *= turn
                # Nothing is added behind the last of them, where the next row may begin.
                for k in range(count, count + _DOUBLES):
                    value[k] = 0.0
                start = (i * n + j0) * n + k0
                for k in range(0, count, _DOUBLES):
                    add_series(flat, start + k, n, j1 - j0 + 1, value, ratio, k, decay)

    @njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "nnan", "nsz"})
    def peak_and_sum(grid):  # pragma: no cover
        peak, total = 0.0, 0.0
        for value in grid.ravel():
            peak = max(peak, value)
            total += value
        return peak, total

    @njit(cache=True, nogil=True, error_model="numpy")
    def add_row_by_row(points, precision, axis_xy, axis_v, cut, grid):  # pragma: no cover
        n = axis_xy.size
        step = axis_v[1] - axis_v[0]
        step_xy = axis_xy[1] - axis_xy[0]
        a_xx, a_xy, a_xv = precision[0, 0], precision[0, 1], precision[0, 2]
        a_yy, a_yv, a_vv = precision[1, 1], precision[1, 2], precision[2, 2]
        # Smallest exponent over v given (a, b), then over (y, v) given a: how far to go.
        yy = a_yy - a_yv * a_yv / a_vv
        xy = a_xy - a_xv * a_yv / a_vv
        xx = a_xx - a_xv * a_xv / a_vv
        x_only = xx - xy * xy / yy
        reach_x = cut / np.sqrt(x_only)
        decay = np.exp(-a_vv * step * step)
        # A division takes as long as ten products, so rows only multiply.
        per_step, per_step_xy = 1 / step, 1 / step_xy
        tilt_y, tilt_va, tilt_vb = xy / yy, a_xv / a_vv, a_yv / a_vv
        width_y, width_v = 1 / np.sqrt(yy), 1 / np.sqrt(a_vv)
        for p in range(points.shape[0]):
            px, py, pv = points[p, 0], points[p, 1], points[p, 2]
            i0 = max(0, int(np.ceil((px - reach_x - axis_xy[0]) * per_step_xy)))
            i1 = min(n - 1, int(np.floor((px + reach_x - axis_xy[0]) * per_step_xy)))
            for i in range(i0, i1 + 1):
                a = axis_xy[i] - px
                left_y = cut * cut - x_only * a * a
                if left_y <= 0:
                    continue
                middle_y = py - tilt_y * a
                reach_y = np.sqrt(left_y) * width_y
                j0 = max(0, int(np.ceil((middle_y - reach_y - axis_xy[0]) * per_step_xy)))
                j1 = min(n - 1, int(np.floor((middle_y + reach_y - axis_xy[0]) * per_step_xy)))
                for j in range(j0, j1 + 1):
                    b = axis_xy[j] - py
                    plane = xx * a * a + 2 * xy * a * b + yy * b * b
                    left_v = cut * cut - plane
                    if left_v <= 0:
                        continue
                    middle_v = pv - tilt_va * a - tilt_vb * b
                    reach_v = np.sqrt(left_v) * width_v
                    k0 = max(0, int(np.ceil((middle_v - reach_v - axis_v[0]) * per_step)))
                    k1 = min(n - 1, int(np.floor((middle_v + reach_v - axis_v[0]) * per_step)))
                    if k1 < k0:
                        continue
                    c = axis_v[k0] - middle_v
                    value = np.exp(-0.5 * (plane + a_vv * c * c))
                    ratio = np.exp(-a_vv * step * (c + 0.5 * step))
                    row = grid[i, j]
                    for k in range(k0, k1 + 1):
                        row[k] += value
                        value *= ratio
                        ratio *= decay

    return add_plane_by_plane, add_row_by_row, peak_and_sum


def _add_gaussians(
    points: NDArray[np.float64], precision: NDArray[np.float64], axis_xy: NDArray[np.float64],
    axis_v: NDArray[np.float64], cut: float, grid: NDArray[np.float64],
) -> tuple[float, float]:  # fmt: skip
    """Add kernels of unit height up to a Mahalanobis distance; peak and sum of the grid."""
    planes, rows, peak_and_sum = _kernels()
    correlation = abs(precision[1, 2]) / np.sqrt(precision[1, 1] * precision[2, 2])
    # The corner of the box around an ellipse lies at up to cut √(2 / (1 − correlation)).
    fits = cut**2 <= _LARGEST_EXPONENT * (1 - correlation)
    (planes if fits else rows)(points, precision, axis_xy, axis_v, cut, grid)
    return peak_and_sum(grid)


_LOCAL = threading.local()


def _scratch(n: int) -> NDArray[np.float64]:
    """A grid of zeros that this thread uses again: fresh memory costs as much as the sum."""
    grid = getattr(_LOCAL, "grid", None)
    if grid is None or len(grid) != n:
        # Vectors at the end of the last row read and write beyond it.
        grid = _LOCAL.grid = np.zeros(n**3 + _DOUBLES)[: n**3].reshape(n, n, n)
    grid[:] = 0
    return grid


def inverse_bandwidth(points: NDArray[np.float64], kappa: float) -> NDArray[np.float64]:
    """Inverse of H = κ² Σ, shape (3, 3).

    Raises
    ------
    VoxelError
        Fewer than 4 galaxies (N, 3), coordinates that are not finite, or galaxies all in one plane.
    """
    n = len(points)
    if n < 4:
        raise VoxelError(
            f"{n} galaxies have no density in three dimensions", column="n_galaxies", value=n,
            remedy="At least 4 galaxies in the window are needed",
        )  # fmt: skip
    if not np.isfinite(points).all():
        row = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise VoxelError("a coordinate is not finite", column="x, y, v", row=row)
    covariance = np.cov(points, rowvar=False)
    scale = np.sqrt(np.diag(covariance))
    degenerate = VoxelError(
        "the galaxies lie in one plane, on one line or at one point: their covariance is singular",
        column="x, y, v",
        remedy="Look for repeated or rounded positions and redshifts",
    )
    # Rounding alone gives a spread of about 1e-16 of the largest coordinate.
    if (scale <= 1e-12 * np.maximum(np.abs(points).max(axis=0), 1e-300)).any():
        raise degenerate
    correlation = covariance / np.outer(scale, scale)
    if np.linalg.eigvalsh(correlation)[0] < _SINGULAR:
        raise degenerate
    return np.linalg.inv(correlation) / np.outer(scale, scale) / kappa**2


def density_grid(
    points: ArrayLike,
    *,
    kappa: float = 0.175,
    half_width: float = 4.0,
    v_max: float = 2200.0,
    n: int = 50,
) -> Grid:
    """Kernel density of galaxies on a grid in (x, y, v).

    Equal to ``scipy.stats.gaussian_kde(points.T, kappa).evaluate(grid)`` up to the
    normalisation, to better than 1e-6 of the peak.

    Parameters
    ----------
    points : array_like, (N, 3)
        x and y in h⁻¹ Mpc, v in km/s; N at least 4.
    kappa : float
        Bandwidth factor: H = κ² Σ.
    half_width : float
        The grid spans [−half_width, half_width] in x and y, h⁻¹ Mpc.
    v_max : float
        The grid spans [−v_max, v_max] in v, km/s.
    n : int
        Points along each axis, ends included.

    Returns
    -------
    ndarray of float32, (n, n, n)
        Axes x, y, v; sums to one.

    Raises
    ------
    VoxelError
        Fewer than 4 galaxies, coordinates that are not finite, galaxies all in one
        plane, or no density on the grid.
    """
    cloud = np.ascontiguousarray(points, dtype=np.float64)
    if cloud.ndim != 2 or cloud.shape[1] != 3:
        raise VoxelError("points must have shape (N, 3)", value=cloud.shape)
    precision = inverse_bandwidth(cloud, kappa)
    grid = _scratch(n)
    axis_xy = np.linspace(-half_width, half_width, n)
    axis_v = np.linspace(-v_max, v_max, n)
    peak, total = _add_gaussians(cloud, precision, axis_xy, axis_v, CUT_SIGMA, grid)
    if peak < _LOW_PEAK:
        # Kernels so narrow that they fall between the voxels: what the grid sees are their
        # tails, so they must reach as much farther as the peak is lower.
        farther = np.sqrt(CUT_SIGMA**2 - 2 * np.log(peak)) if peak > 0 else _LARGEST_CUT_SIGMA
        grid[:] = 0
        _, total = _add_gaussians(cloud, precision, axis_xy, axis_v, float(farther), grid)
    if total <= 0:
        raise VoxelError(
            "no galaxy is near the grid", column="x, y, v",
            remedy="Check the units: x and y in Mpc/h, v in km/s, all relative to the centre",
        )  # fmt: skip
    out = np.empty((n, n, n), np.float32)
    return np.multiply(grid, 1 / total, out=out, casting="same_kind")


def density_grids(
    points: NDArray[np.float64],
    offsets: NDArray[np.int64],
    voxels: VoxelParams,
    window: WindowParams,
) -> Iterator[Grid]:
    """Grids of many clusters, one after another.

    Parameters
    ----------
    points : (N, 3)
        Galaxies of all clusters, one cluster after another.
    offsets : (n_clusters + 1,)
        Cluster i has the rows ``offsets[i]:offsets[i + 1]``.
    voxels, window : parameters

    Yields
    ------
    ndarray of float32, (n, n, n)
        Density of unit sum.
    """
    for start, stop in zip(offsets[:-1], offsets[1:], strict=True):
        yield density_grid(
            points[start:stop], kappa=voxels.kappa, half_width=window.half_width_mpc_h,
            v_max=window.v_max_km_s, n=voxels.n,
        )  # fmt: skip


def voxel_schema(n: int) -> pa.Schema:
    """Arrow schema of a shard of voxels with `n` points an axis."""
    from cmass.columns import COLUMNS

    words = {
        "description": (
            f"Density on the grid, unit sum times voxels.scale: {n}³ little-endian half floats, "
            "axes x, y, v, the last one fastest"
        ),
        "unit": "",
        "ucd": "",
    }
    return pa.schema(
        [
            COLUMNS["cluster_id"].arrow_field(),
            COLUMNS["log10_m200c_true"].arrow_field(),
            pa.field("voxels", pa.binary(2 * n**3), nullable=False, metadata=words),
        ]
    )


def write_grids(
    file: Path, ids: Sequence[str], masses: Sequence[float], points: NDArray[np.float64],
    offsets: NDArray[np.int64], params: Params,
) -> None:  # fmt: skip
    """Voxelise clusters and write them as they are made.

    Parameters
    ----------
    file : Path
    ids, masses : sequence, length k
        Identifiers and true log10 M200c (h⁻¹ M☉).
    points : ndarray, shape (n_points, 3)
        x, y (Mpc/h) and v (km/s), one cluster after the other.
    offsets : ndarray of int, shape (k + 1,)
    params : Params
        Sections window and voxels.
    """
    n, scale = params.voxels.n, params.voxels.scale
    schema = voxel_schema(n)
    grids = density_grids(points, offsets, params.voxels, params.window)
    with atomic_path(file) as temporary:
        # Densities never repeat: a dictionary or statistics would only cost time.
        options = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}
        with pq.ParquetWriter(temporary, schema, **options) as writer:
            for start in range(0, len(ids), 50):
                part = ids[start : start + 50]
                made = np.stack([half_floats(next(grids) * np.float32(scale)) for _ in part])
                arrays = [
                    pa.array(part, pa.string()),
                    pa.array(masses[start : start + 50], pa.float64()),
                    grids_as_bytes(made),
                ]
                writer.write_batch(pa.record_batch(arrays, schema=schema))


def make_shard(folder: Path, shard: Shard) -> None:
    """Voxelise the clusters of one shard, whose galaxies lie in some files of the mock."""
    ids, masses, files, params = shard.arguments
    galaxies = pa.concat_tables([read_table(f, "mock_galaxies", _GALAXIES) for f in files])
    points, offsets = points_by_cluster(galaxies, ids)
    write_grids(folder / shard.outputs[0], ids, masses, points, offsets, params)


def run(workspace: Workspace, params: Params) -> None:
    """Voxelise every set that a step reads from disk: ``voxels/<set>/shard-*.parquet``."""
    split = read_table(workspace.split / "split.parquet", "split", ["cluster_id", "set"])
    set_of = dict(zip(split["cluster_id"].to_pylist(), split["set"].to_pylist(), strict=True))
    if params.train.grids == "device":
        set_of = {name: which for name, which in set_of.items() if which not in _MADE_IN_TRAINING}
    wanted = params.model_dump(mode="json")
    identity = digest_of(
        {name: wanted[name] for name in SECTIONS},
        params.train.grids,
        source_digest("voxels.py", "half.py"),
        file_digest(workspace.split / "split.parquet"),
        file_digest(workspace.mock / "galaxies"),
    )
    shards = list(_plan(workspace, params, set_of))
    run_shards(
        make_shard, shards, workspace.voxels, digest=identity, params=params, description="voxelize"
    )
    log.info("voxelize: %d clusters in %d shards", len(set_of), len(shards))


def _plan(workspace: Workspace, params: Params, set_of: dict[str, str]) -> Iterator[Shard]:
    """Shards of all sets: the clusters of each, and the files that their galaxies are in."""
    clusters = read_table(
        workspace.mock / "clusters", "mock_clusters", ["cluster_id", "log10_m200c_true"]
    )
    homes = _homes(workspace.mock / "galaxies")
    mass_of = dict(
        zip(
            clusters["cluster_id"].to_pylist(),
            clusters["log10_m200c_true"].to_pylist(),
            strict=True,
        )
    )
    size = params.voxels.clusters_per_shard
    number = 0
    for which in SETS:
        ids = [name for name in homes if set_of.get(name) == which]
        for start in range(0, len(ids), size):
            part = ids[start : start + size]
            files = sorted({file for name in part for file in homes[name]})
            output = f"{which}/shard-{start // size:05d}.parquet"
            arguments = (part, [mass_of[name] for name in part], files, params)
            yield Shard(number, (output,), arguments)
            number += 1


def _homes(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Files that hold the galaxies of each cluster; clusters in the order of the files."""
    homes: dict[str, tuple[Path, ...]] = {}
    for file in table_files(folder.resolve()):  # a worker elsewhere has another working folder
        own = (file,)
        names = read_table(file, "mock_galaxies", ["cluster_id"])["cluster_id"]
        for name in names.unique().to_pylist():
            homes[name] = homes[name] + own if name in homes else own
    return homes
