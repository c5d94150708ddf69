"""Haloes of a sorted box: which to observe, and what is around each."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmass import cosmology as background
from cmass.errors import InputError
from cmass.mock import luminosity
from cmass.mock.boxes.cells import CellStore, Grid
from cmass.mock.boxes.sort import CELL_GALAXY, CELL_HALO, sorted_box
from cmass.mock.fields import Galaxies, Haloes, HaloField
from cmass.mock.haloes import HaloPlan, sight_line_counts, window_share
from cmass.mock.sources import Remark
from cmass.params import Params
from cmass.seeds import generator

Array = NDArray[np.float64]

#: Bins of log mass in which windows are made flat, dex.
_BIN_DEX = 0.1
#: More haloes without galaxies than this part, and the files do not belong together.
_EMPTY_MAX = 0.05


@dataclass(frozen=True)
class BoxHalo(HaloPlan):
    """A halo of the box: position (comoving h⁻¹ Mpc) and peculiar velocity (km/s)."""

    position_mpc_h: tuple[float, ...]
    velocity_km_s: tuple[float, ...]


@lru_cache(maxsize=2)
def _stores(folder: Path, box_size_mpc_h: float, rows: int) -> tuple[CellStore, CellStore]:
    """Haloes and galaxies of a box, opened once a process."""
    grid = Grid(box_size_mpc_h)
    return (
        CellStore(folder / "haloes", CELL_HALO, grid, rows),
        CellStore(folder / "galaxies", CELL_GALAXY, grid, rows),
    )


def _open(folder: Path, params: Params) -> tuple[CellStore, CellStore]:
    files = params.mock.files
    return _stores(folder, files.box_size_mpc_h, files.rows_in_memory)


@dataclass
class BoxSource:
    """A box that `sort.sort_box` has sorted.

    Attributes
    ----------
    folder : Path
    identity : str
        Digest of the files and of how they were read.
    """

    folder: Path
    identity: str
    uses: tuple[str, ...] = (
        "observer.", "galaxies.flux_limit", "galaxies.completeness", "galaxies.k_",
        "galaxies.evolution",
    )  # fmt: skip
    _notes: list[Remark] = field(default_factory=list)

    def plan(self, params: Params) -> list[HaloPlan]:
        """Haloes of the box whose windows are flat in log mass, as near to each other as may be.

        Raises
        ------
        InputError
            The box has no halo in the range of masses, or too many of them have no galaxy.
        """
        haloes, _ = _open(self.folder, params)
        wanted = params.mock.haloes
        low, high = (
            wanted.log10_m200c_min - wanted.tail_dex,
            wanted.log10_m200c_max + wanted.tail_dex,
        )
        parts = [np.zeros(0, CELL_HALO)]
        for rows in haloes.pieces():
            parts.append(rows[(rows["log10_m200c"] >= low) & (rows["log10_m200c"] < high)])
        targets = np.concatenate(parts)
        targets = targets[np.argsort(targets["id"])]
        self._notes = [Remark(**remark) for remark in sorted_box(self.folder)["remarks"]]
        targets = self._with_galaxies(targets, low, high)
        counts, short = choose_windows(
            targets["log10_m200c"].astype(float), 1 / params.mock.files.scale_factor - 1, params
        )
        self._notes += short
        targets, counts = targets[counts > 0], counts[counts > 0]
        order = np.lexsort((targets["id"], haloes.grid.walk(targets["position"])))
        return [
            BoxHalo(
                int(t["id"]), float(t["log10_m200c"]), int(n),
                tuple(map(float, t["position"])), tuple(map(float, t["velocity"])),
            )
            for t, n in zip(targets[order], counts[order], strict=True)
        ]  # fmt: skip

    def _with_galaxies(self, targets: NDArray[np.void], low: float, high: float):
        if not len(targets):
            raise InputError(
                f"no distinct halo with log10 M200c from {low:g} to {high:g}", file=self.folder,
                remedy="Change mock.haloes.log10_m200c_min and _max, or take a larger box",
            )  # fmt: skip
        empty = targets["n_galaxies"] == 0
        if empty.mean() > _EMPTY_MAX:
            raise InputError(
                f"{empty.sum()} of {len(targets)} haloes have no galaxy", column="MainHaloID",
                value=int(targets["id"][empty][0]),
                remedy="Give haloes and galaxies of the same snapshot, and all files of both",
            )  # fmt: skip
        if empty.any():
            self._notes.append(
                Remark("halo", "has no galaxy of its own: not observed", int(empty.sum()),
                       f"id {targets['id'][empty][0]}")
            )  # fmt: skip
        return targets[~empty]

    def field(self, plan: HaloPlan, distance_min_mpc_h: float, params: Params) -> HaloField:
        """One halo with the haloes and galaxies within ``environment.radius_mpc_h``.

        Positions and velocities are relative to the halo, across the edges of the box.
        """
        if not isinstance(plan, BoxHalo):
            raise TypeError("a box serves the haloes of its own plan")
        haloes, galaxies = _open(self.folder, params)
        mock = params.mock
        radius = mock.environment.radius_mpc_h
        cosmology = background.from_params(params.cosmology)
        nearest = max(distance_min_mpc_h - radius, 5.0)
        faintest = luminosity.faintest_magnitude(nearest, cosmology, mock.galaxies)
        centre, velocity = np.array(plan.position_mpc_h), np.array(plan.velocity_km_s)
        near, offset = galaxies.near(centre, radius)
        bright = near["magnitude"] < faintest
        around, halo_offset = haloes.near(centre, radius)
        other = around["id"] != plan.halo_id
        return HaloField(
            plan.halo_id,
            plan.log10_m200c,
            1 / mock.files.scale_factor - 1,
            Galaxies(
                offset[bright],
                near["velocity"][bright] - velocity,
                near["magnitude"][bright].astype(float),
                near["host_log10_m200c"][bright].astype(float),
            ),
            Haloes(
                halo_offset[other],
                around["velocity"][other] - velocity,
                around["log10_m200c"][other].astype(float),
            ),
        )

    def remarks(self) -> list[Remark]:
        """What was set aside when the files were read and the haloes chosen."""
        return self._notes


def choose_windows(
    log10_m200c: Array, z: float, params: Params
) -> tuple[NDArray[np.int64], list[Remark]]:
    """Sight lines (N,) on each halo, 0 for none, so that windows are flat in log mass.

    Haloes are drawn at random in bins of 0.1 dex, with the sight lines that their rarity asks
    for. Where a bin has too few, haloes above ``log10_m200c_many_sight_lines`` get more, up to
    ``sight_lines_max``.

    Returns
    -------
    counts : (N,)
    short : list of Remark
        Bins that stay short of windows.
    """
    wanted = params.mock.haloes
    low, high = wanted.log10_m200c_min - wanted.tail_dex, wanted.log10_m200c_max + wanted.tail_dex
    n_bins = max(round((high - low) / _BIN_DEX), 1)
    edges = np.linspace(low, high, n_bins + 1)
    share = window_share(0.5 * (edges[1:] + edges[:-1]), wanted)
    upto = np.concatenate([[0.0], np.cumsum(share)]) / share.sum()
    quota = np.diff(np.rint(wanted.n_windows * upto).astype(int))
    many = log10_m200c > wanted.log10_m200c_many_sight_lines
    asked = sight_line_counts(log10_m200c, z, params)
    bins = np.clip(np.digitize(log10_m200c, edges) - 1, 0, n_bins - 1)
    random = generator(params.seed, "box-haloes")
    counts, short = np.zeros(len(log10_m200c), np.int64), []
    for b in range(n_bins):
        rows = random.permutation(np.flatnonzero(bins == b))
        lines = asked[rows]
        if 0 < lines.sum() < quota[b]:
            more = min(-(-quota[b] // len(rows)), wanted.sight_lines_max)
            lines = np.where(many[rows], np.maximum(lines, more), lines)
        before = np.cumsum(lines) - lines
        counts[rows] = np.clip(quota[b] - before, 0, lines)
        missing = int(quota[b] - counts[rows].sum())
        if missing:
            short.append(
                Remark(
                    "window", f"too few haloes from {edges[b]:.2f} to {edges[b + 1]:.2f}", missing,
                    f"{len(rows)} haloes for {quota[b]} windows",
                )
            )  # fmt: skip
    return counts, short
