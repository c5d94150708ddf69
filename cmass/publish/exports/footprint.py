"""The survey's footprint as a multi-order coverage map (MOC, an IVOA standard).

A cell of the sky is in the map if its centre is in the footprint, so that the map's area is that of
the footprint but for chance along the rim.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cmass.errors import WorkspaceError
from cmass.ingest.footprint import Footprint
from cmass.publish.exports import reading
from cmass.publish.exports.votable import sources
from cmass.sky import SKY_DEG2
from cmass.tables import atomic_path, to_numpy

if TYPE_CHECKING:
    from mocpy import MOC

FILE = "footprint_moc.fits"
#: HEALPix order of the cells: 0.23 deg across. The Legacy window takes 3 s, an order more 4 s and 300 MB.
ORDER = 8


#: Largest difference of map and footprint, in cells, by the number of cells along the rim: chance of
#: each (2 sqrt(n) is seven sigma), and rims that run along rows of cells (Legacy's: 0.02 n).
def rim_tolerance(n_rim: int) -> float:
    """Cells by which map and footprint may differ, that has so many along its rim."""
    return 0.1 * n_rim + 2 * n_rim**0.5


def write(
    folder: Path, footprint: pa.Table, clusters: pa.Table, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the map; returns what the release's provenance says of it.

    Raises
    ------
    WorkspaceError
        Its area is not that of the footprint within `rim_tolerance`, or a cluster in the footprint is
        farther than a cell from the map.
    """
    from mocpy import MOC

    polygons = Footprint.from_table(footprint)
    n_cells = 12 * 4**ORDER
    ra, dec = to_numpy(clusters, "ra", "dec")
    sky = zip(centres(np.arange(n_cells)), (ra, dec), strict=True)
    # Polygons are gone through once for both: that takes the time.
    within = polygons.contains(*(np.concatenate(pair) for pair in sky))
    inside, cluster_inside = within[:n_cells], within[n_cells:]
    cells = np.flatnonzero(inside)
    cell_deg2 = SKY_DEG2 / n_cells
    if not cells.size:
        raise WorkspaceError(
            f"the footprint holds no centre of a cell of {cell_deg2:.3f} deg2: nothing so small is "
            "surveyed. Look at its polygons and run ingest again"
        )
    area_deg2 = sources(facts).get("footprint", {}).get("area_deg2_measured")
    if area_deg2 is None:
        area_deg2 = polygons.area_deg2()
    moc = MOC.from_healpix_cells(cells.astype(np.uint64), np.uint8(ORDER), np.uint8(ORDER))
    said = {
        "file": FILE, "order": ORDER, "area_deg2": round(cells.size * cell_deg2, 3),
        "footprint_deg2": round(area_deg2, 3),
        "tolerance_deg2": round(rim_tolerance(_n_rim(cells, inside)) * cell_deg2, 3),
        "clusters_inside": int(_holds(moc, ra, dec).sum()), "clusters": clusters.num_rows,
    }  # fmt: skip
    _check(folder / FILE, said["area_deg2"], said)
    astray = cluster_inside & ~_holds(deepcopy(moc).add_neighbours(), ra, dec)
    if astray.any():
        raise WorkspaceError(
            f"{folder / FILE}: cluster {clusters['cluster_id'][int(astray.argmax())]} is in the "
            "footprint, and not in its map. Run ingest and publish again"
        )
    with atomic_path(folder / FILE) as temporary:
        moc.save(str(temporary), format="fits", overwrite=True)
    return said


def _holds(moc: MOC, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.bool_]:
    from astropy import units

    return moc.contains_lonlat(ra * units.deg, dec * units.deg)


def centres(cells: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Right ascension and declination, deg, of the centres of cells (nested) of `ORDER`."""
    from astropy_healpix import healpix_to_lonlat

    lon, lat = healpix_to_lonlat(cells, 2**ORDER, order="nested")
    return lon.deg, lat.deg


def _n_rim(cells: NDArray[np.int64], inside: NDArray[np.bool_]) -> int:
    """How many cells in the map have a neighbour that is not."""
    from astropy_healpix import neighbours

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # corners of the base cells have seven neighbours
        beside = neighbours(cells, 2**ORDER, order="nested")
    return int(((beside >= 0) & ~inside[beside]).any(axis=0).sum())


def _check(file: Path, area_deg2: float, said: Mapping[str, Any]) -> None:
    if abs(area_deg2 - said["footprint_deg2"]) > said["tolerance_deg2"]:
        raise WorkspaceError(
            f"{file}: {area_deg2:.1f} deg2, and the footprint has {said['footprint_deg2']:.1f} "
            f"(+- {said['tolerance_deg2']:.1f}). Run ingest and publish again"
        )


def verify(folder: Path, clusters: pa.Table, facts: Mapping[str, Any]) -> None:
    """Read the map back: its area, and the clusters in it."""
    from mocpy import MOC

    said = facts["release"]["footprint"]
    file = folder / said["file"]
    with reading(file):
        moc = MOC.from_fits(str(file))
    _check(file, moc.sky_fraction * SKY_DEG2, said)
    n = int(_holds(moc, *to_numpy(clusters, "ra", "dec")).sum())
    if n != said["clusters_inside"]:
        raise WorkspaceError(
            f"{file}: {n} clusters inside, and provenance.json says {said['clusters_inside']}. Run "
            "publish again"
        )
