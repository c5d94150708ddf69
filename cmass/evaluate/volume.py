"""The volume that a survey's selected clusters stand for."""

from __future__ import annotations

import logging

import numpy as np

from cmass.params import Params
from cmass.tables import read_table, to_numpy
from cmass.workspace import Workspace

log = logging.getLogger(__name__)


def comoving_volume(area_deg2: float, distance_mpc_h: float) -> float:
    """Comoving volume (h⁻³ Mpc³) of a cone of `area_deg2` out to `distance_mpc_h`."""
    return float(np.radians(1.0) ** 2 * area_deg2 * distance_mpc_h**3 / 3)


def effective_area_deg2(workspace: Workspace, params: Params, n_selected: int) -> float:
    """Area that the selected clusters stand for, deg².

    `infer.area_deg2` where it is given. Otherwise the area of the footprint, times the
    part of the near clusters with a centre inside it that were selected: the others lie
    too close to its rim for a whole window.
    """
    from cmass.ingest.footprint import Footprint

    if params.infer.area_deg2 is not None:
        return params.infer.area_deg2
    footprint = Footprint.from_table(
        read_table(workspace.raw / "footprint.parquet", "raw_footprint")
    )
    rejected = read_table(
        workspace.selected / "rejected.parquet", "rejected_clusters",
        ["ra", "dec", "distance_mpc_h"],
    )  # fmt: skip
    ra, dec, distance = to_numpy(rejected, "ra", "dec", "distance_mpc_h")
    near = distance <= params.window.distance_max_mpc_h
    n_rim = int(footprint.contains(ra[near], dec[near]).sum())
    area = footprint.area_deg2()
    log.info(
        "footprint of %.0f deg2, %d of %d near clusters inside it selected", area,
        n_selected, n_selected + n_rim,
    )  # fmt: skip
    return area * n_selected / max(n_selected + n_rim, 1)
