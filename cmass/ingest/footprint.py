"""The survey's footprint: mangle polygons, what lies inside them, and their area.

A mangle polygon is the intersection of caps of the sphere (Hamilton & Tegmark 2004,
Swanson+2008). A cap is a unit vector n and a number cm: the points with
1 - n·p < cm, or, where cm is negative, those with 1 - n·p > |cm|.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cmass.errors import InputError
from cmass.sky import SKY_DEG2, unit_vectors
from cmass.tables import to_numpy

Array = NDArray[np.float64]
_REMEDY = "The file may be cut short or not a mangle polygon file; fetch it again"
_POLYGON = re.compile(r"polygon\s+(\d{1,18})\s*\(\s*(\d{1,18})\s+caps\b([^)]*)\)", re.IGNORECASE)
_NUMBER = r"(?<![\d.])([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
_STR = re.compile(_NUMBER + r"\s+str\b", re.IGNORECASE)
#: Most that a compressed file may hold, bytes: the Legacy survey's polygons are 6.2 MB.
_UNPACKED_MAX_BYTES = 200_000_000
_INT32_MAX = np.iinfo(np.int32).max
#: Side of the cells that points are gathered in, deg.
_CELL_DEG = 0.5
#: The golden angle, rad: successive points of a sunflower.
_GOLDEN = np.pi * (3 - np.sqrt(5))


@dataclass(frozen=True)
class MangleFile:
    """What a mangle polygon file holds.

    Attributes
    ----------
    polygon_id : ndarray of int, shape (n_caps,)
        Polygon that each cap belongs to, as numbered in the file.
    caps : ndarray, shape (n_caps, 4)
        x, y, z and cm of each cap.
    area_deg2 : float or None
        Sum of the areas that the file states for its polygons; None where it states none.
    """

    polygon_id: NDArray[np.int32]
    caps: Array
    area_deg2: float | None

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """Columns of table raw_footprint."""
        x, y, z, cm = self.caps.T
        return {"polygon_id": self.polygon_id, "cap_x": x, "cap_y": y, "cap_z": z, "cap_cm": cm}


def _lines(path: Path) -> list[str]:
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
                data = stream.read(_UNPACKED_MAX_BYTES + 1)
            if len(data) > _UNPACKED_MAX_BYTES:
                raise InputError(
                    f"more than {_UNPACKED_MAX_BYTES / 1e6:g} MB when it is unpacked", file=path,
                    remedy=_REMEDY,
                )  # fmt: skip
        return data.decode("ascii").splitlines()
    except FileNotFoundError:
        raise InputError("no such file", file=path) from None
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise InputError(f"not readable: {error}", file=path, remedy=_REMEDY) from error


def read_mangle(path: Path) -> MangleFile:
    """Read a mangle polygon file (``.ply``, or ``.ply.gz``).

    Raises
    ------
    InputError
        The file is cut short, empty, or not in the format. Rows count lines from 1.
    """
    lines = _lines(path)
    declared: int | None = None
    polygon_ids: list[int] = []
    rows: list[str] = []
    areas: list[float] = []
    n_polygons = due = 0
    for number, line in enumerate(lines, start=1):
        if due:
            if len(line.split()) != 4:
                raise InputError(
                    f"expected a cap of polygon {polygon_ids[-1]}: four numbers", file=path,
                    row=number, value=line[:80], remedy=_REMEDY,
                )  # fmt: skip
            rows.append(line)
            due -= 1
        elif match := _POLYGON.match(line.strip()):
            n_caps = int(match[2])
            if n_caps == 0:
                raise InputError(
                    "a polygon without caps is the whole sphere, which is no footprint",
                    file=path, row=number, value=line[:80], remedy=_REMEDY,
                )  # fmt: skip
            if n_caps > len(lines) - number:
                raise InputError(
                    f"a polygon of {n_caps} caps, and {len(lines) - number} lines are left",
                    file=path, row=number, value=line[:80], remedy=_REMEDY,
                )  # fmt: skip
            polygon_id = int(match[1])
            if polygon_id > _INT32_MAX:
                raise InputError(
                    "the number of a polygon is beyond 32 bits", file=path, row=number,
                    value=line[:80], remedy=_REMEDY,
                )  # fmt: skip
            polygon_ids += [polygon_id] * n_caps
            n_polygons, due = n_polygons + 1, n_caps
            if stated := _STR.search(match[3]):
                areas.append(float(stated[1]))
        elif match := re.fullmatch(r"\s*(\d{1,18})\s+polygons\s*", line):
            declared = int(match[1])
    if not rows or declared is None:
        raise InputError("no polygons in the file", file=path, remedy=_REMEDY)
    if due or n_polygons != declared:
        raise InputError(
            f"the file announces {declared} polygons and holds {n_polygons - bool(due)} whole ones",
            file=path, row=len(lines), remedy=_REMEDY,
        )  # fmt: skip
    try:
        caps = np.array([row.split() for row in rows], float)
    except ValueError as error:
        raise InputError(f"a cap is not numbers: {error}", file=path, remedy=_REMEDY) from error
    length = np.linalg.norm(caps[:, :3], axis=1)
    if not np.isfinite(caps).all() or (np.abs(length - 1) > 1e-4).any():
        bad = int(np.flatnonzero(~(np.abs(length - 1) <= 1e-4) | ~np.isfinite(caps).all(1))[0])
        raise InputError(
            "the axis of a cap is not a unit vector", file=path, value=rows[bad].strip(),
            row=f"of cap {bad}", remedy=_REMEDY,
        )  # fmt: skip
    area = sum(areas) * np.degrees(1.0) ** 2 if len(areas) == n_polygons else None
    return MangleFile(np.array(polygon_ids, np.int32), caps, area)


def _sizes(cm: Array) -> Array:
    """1 - cos(radius) of caps; a negative cap is the cap around its antipode with 2 - |cm|."""
    return np.clip(np.where(cm >= 0, cm, 2 + cm), 0, 2)


def _cells(vectors: Array) -> tuple[NDArray[np.int64], NDArray[np.int64], Array, Array]:
    """Gather unit vectors in cells of the sky.

    Returns
    -------
    order, first : ndarray
        ``order[first[i]:first[i + 1]]`` are the vectors of cell i.
    centres, radii : ndarray, shape (n_cells, 3) and (n_cells,)
        A point of each cell and the largest chord from it to the cell's vectors.
    """
    side = np.radians(_CELL_DEG)
    dec = np.arcsin(np.clip(vectors[:, 2], -1, 1))
    band = np.floor(dec / side)
    ra = np.arctan2(vectors[:, 1], vectors[:, 0])
    column = np.floor(ra * np.cos(band * side) / side)
    number = band * 4096 + column
    order = np.argsort(number, kind="stable")
    first = np.concatenate([[0], np.flatnonzero(np.diff(number[order])) + 1, [len(order)]])
    centres = np.add.reduceat(vectors[order], first[:-1], axis=0)
    centres /= np.linalg.norm(centres, axis=1)[:, None]
    offset = vectors[order] - np.repeat(centres, np.diff(first), axis=0)
    chord = np.sqrt(np.einsum("ij,ij->i", offset, offset))
    return order, first, centres, np.maximum.reduceat(chord, first[:-1])


@dataclass(frozen=True)
class Footprint:
    """The polygons of a survey, ready to be asked what is inside.

    Parameters
    ----------
    polygon_id : ndarray of int, shape (n_caps,)
        Caps of one polygon share its number and follow one another.
    caps : ndarray, shape (n_caps, 4)
        x, y, z and cm.
    """

    polygon_id: NDArray[np.integer]
    caps: Array
    _starts: NDArray[np.int64] = field(init=False)
    _bounds: Array = field(init=False)

    def __post_init__(self) -> None:
        change = np.flatnonzero(np.diff(self.polygon_id)) + 1
        starts = np.concatenate([[0], change, [len(self.polygon_id)]]).astype(np.int64)
        # The smallest cap bounds its polygon.
        cm = self.caps[:, 3]
        size = _sizes(cm)
        smallest = np.array([
            a + np.argmin(size[a:b]) for a, b in pairwise(starts)
        ], np.int64)  # fmt: skip
        sign = np.where(cm[smallest] >= 0, 1.0, -1.0)
        # 1 - cos(theta) = chord**2 / 2, a little wider than the cap for rounding
        chord = np.sqrt(2 * size[smallest]) * (1 + 1e-9) + 1e-7
        bounds = np.column_stack([self.caps[smallest, :3] * sign[:, None], chord])
        object.__setattr__(self, "_starts", starts)
        object.__setattr__(self, "_bounds", bounds)

    @classmethod
    def from_table(cls, table: pa.Table) -> Footprint:
        """Footprint from table raw_footprint."""
        if not table.num_rows:
            raise InputError("the footprint has no polygons", remedy="Run `cmass ingest` again")
        polygon_id, x, y, z, cm = to_numpy(
            table, "polygon_id", "cap_x", "cap_y", "cap_z", "cap_cm"
        )  # fmt: skip
        return cls(polygon_id, np.column_stack([x, y, z, cm]))

    @property
    def n_polygons(self) -> int:
        """Number of polygons."""
        return len(self._starts) - 1

    def contains(self, ra_deg: ArrayLike, dec_deg: ArrayLike) -> NDArray[np.bool_]:
        """Say for each direction (deg, shape (n,)) whether some polygon holds it."""
        return self.contains_vectors(unit_vectors(ra_deg, dec_deg))

    def contains_vectors(self, vectors: Array) -> NDArray[np.bool_]:
        """Say for each unit vector, shape (n, 3), whether some polygon holds it."""
        inside = np.zeros(len(vectors), bool)
        if not len(vectors):
            return inside
        order, first, centres, radii = _cells(vectors)
        tree = cKDTree(centres)
        found = tree.query_ball_point(self._bounds[:, :3], self._bounds[:, 3] + radii.max())
        for polygon, cells in enumerate(found):
            if not cells:
                continue
            caps = self.caps[self._starts[polygon] : self._starts[polygon + 1]]
            axes, cm = caps[:, :3], caps[:, 3]
            near = np.asarray(cells, np.int64)
            # A cell counts unless it lies wholly outside one of the caps.
            reach = np.sqrt(2 * _sizes(cm)) + radii[near, None] + 1e-7
            squared = 2 - 2 * (centres[near] @ (axes * np.where(cm < 0, -1, 1)[:, None]).T)
            near = near[(squared <= reach**2).all(axis=1)]
            if not len(near):
                continue
            rows = np.concatenate([order[first[cell] : first[cell + 1]] for cell in near])
            distance = 1 - vectors[rows] @ axes.T
            held = np.where(cm >= 0, distance < cm, distance > -cm).all(axis=1)
            inside[rows[held]] = True
        return inside

    def area_deg2(self, n_points: int = 300_000) -> float:
        """Area in deg², measured with `n_points` equal-area points on the sphere.

        The points are a Fibonacci lattice, so the error is that of the boundary cells
        only: 0.03 % for the Legacy window.
        """
        index = np.arange(n_points)
        z = 1 - (2 * index + 1) / n_points
        rho, phi = np.sqrt(1 - z**2), index * _GOLDEN
        vectors = np.column_stack([rho * np.cos(phi), rho * np.sin(phi), z])
        return float(self.contains_vectors(vectors).mean() * SKY_DEG2)

    def disc_fraction(
        self, ra_deg: ArrayLike, dec_deg: ArrayLike, radius_rad: ArrayLike, n_points: int
    ) -> Array:
        """Part of each disc that lies inside the footprint.

        Parameters
        ----------
        ra_deg, dec_deg : array_like, shape (n,)
            Centres, deg.
        radius_rad : array_like, shape (n,)
            Angular radii, rad.
        n_points : int
            Equal-area points per disc.

        Returns
        -------
        ndarray, shape (n,)
        """
        ra, dec = np.radians(np.asarray(ra_deg, float)), np.radians(np.asarray(dec_deg, float))
        index = np.arange(n_points)
        # Equal areas on the sphere: sin²(theta/2) is uniform.
        half = np.sqrt((index + 0.5) / n_points) * np.sin(0.5 * np.asarray(radius_rad))[:, None]
        theta, phi = 2 * np.arcsin(half), index * _GOLDEN
        along = np.cos(theta)
        east, north = np.sin(theta) * np.sin(phi), np.sin(theta) * np.cos(phi)
        zero = np.zeros_like(ra)
        e = np.stack([-np.sin(ra), np.cos(ra), zero], -1)
        n = np.stack([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)], -1)
        c = unit_vectors(ra_deg, dec_deg)
        points = along[..., None] * c[:, None] + east[..., None] * e[:, None]
        points += north[..., None] * n[:, None]
        inside = self.contains_vectors(points.reshape(-1, 3))
        return inside.reshape(len(ra), n_points).mean(axis=1)
