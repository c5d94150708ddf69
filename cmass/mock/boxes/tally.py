"""What goes wrong with single rows is counted; what is wrong with a whole file is an error."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmass.errors import InputError
from cmass.mock.sources import Remark

Array = NDArray[np.float64]

#: Faster haloes and galaxies (km/s) are in no simulation of this kind.
_FASTEST_KM_S = 15_000.0
#: Typical speeds (rms of one component, km/s) lie between these; MDPL2: about 300.
_SPEEDS_KM_S = (20.0, 2000.0)
#: Fewer rows say nothing about the extent of a box or about typical speeds.
_ENOUGH_ROWS = 200


@dataclass
class Tally:
    """Counts over one table, kept with every piece of work so that it can go on.

    Attributes
    ----------
    rows : int
        Rows read.
    reasons : dict
        For each reason why rows are set aside or doubtful: how many, and the first of them.
    low, high : list of float
        Smallest and largest coordinate on each axis, h⁻¹ Mpc.
    speed2 : float
        Sum of v² over components and rows.
    heaviest : float
        Largest log10 M200c.
    centrals, strays : int
        Central galaxies with a distinct host in the files, and those of them that lie elsewhere.
    stray : str
        The first of these, in words.
    """

    rows: int = 0
    reasons: dict[str, list[Any]] = field(default_factory=dict)
    low: list[float] = field(default_factory=lambda: [np.inf] * 3)
    high: list[float] = field(default_factory=lambda: [-np.inf] * 3)
    speed2: float = 0.0
    heaviest: float = -np.inf
    centrals: int = 0
    strays: int = 0
    stray: str = ""

    def note(self, item: str, reason: str, n: int, first: str) -> None:
        """Count `n` more rows; remember the first ever."""
        if n:
            entry = self.reasons.setdefault(f"{item}: {reason}", [0, first])
            entry[0] += int(n)

    def note_rows(
        self, item: str, reason: str, bad: NDArray[np.bool_], path: Path, row: int
    ) -> None:
        """Count the rows of a block where `bad` holds."""
        if bad.any():
            self.note(item, reason, int(bad.sum()), f"{path} row {row + int(np.argmax(bad))}")

    def measure(self, position: Array, velocity: Array) -> None:
        """Take positions and velocities (N, 3) into the extent and the speeds."""
        self.rows += len(position)
        if len(position):
            self.low = np.minimum(self.low, position.min(axis=0)).tolist()
            self.high = np.maximum(self.high, position.max(axis=0)).tolist()
            self.speed2 += float((velocity**2).sum())

    def remarks(self) -> list[Remark]:
        """The counts as remarks."""
        pairs = [(*key.split(": ", 1), *entry) for key, entry in self.reasons.items()]
        return [Remark(item, reason, n, first) for item, reason, n, first in pairs]

    def as_json(self) -> dict[str, Any]:
        """For a file beside the work done."""
        return asdict(self)

    def check_whole(self, what: str, files: tuple[str, ...], box_mpc_h: float) -> None:
        """Raise `InputError` where the table as a whole cannot be in the units it should be in."""
        where = ", ".join(files)
        if self.rows == 0:
            raise InputError(f"no {what} in the file", file=where)
        if self.rows < _ENOUGH_ROWS:
            return
        for axis, low, high in zip("xyz", self.low, self.high, strict=True):
            if high - low < 0.5 * box_mpc_h:
                raise InputError(
                    f"{what} fill {low:g} to {high:g} of a box of {box_mpc_h:g} Mpc/h", file=where,
                    column=axis, value=high,
                    remedy="Positions must be comoving Mpc/h; check mock.files.box_size_mpc_h, and "
                    "that all files of the snapshot are given",
                )  # fmt: skip
        speed = float(np.sqrt(self.speed2 / (3 * self.rows)))
        if not _SPEEDS_KM_S[0] < speed < _SPEEDS_KM_S[1]:
            raise InputError(
                f"velocities of {what} have an rms of {speed:.3g} per component", file=where,
                column="vx, vy, vz", value=round(speed, 3),
                remedy="They must be physical km/s: about 300 in a cosmological box",
            )  # fmt: skip


def _check_there(
    values: Array, names: tuple[str, str, str], what: str, path: Path, row: int
) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        i, axis = np.argwhere(bad)[0]
        raise InputError(
            f"{what} is missing", file=path, column=names[axis], row=row + int(i),
            remedy="The line may be cut short (the first row of data is row 0)",
        )  # fmt: skip


def check_positions(
    position: Array, names: tuple[str, str, str], box_mpc_h: float, path: Path, row: int
) -> None:
    """Raise `InputError` at the first position (N, 3) that is missing or outside the box.

    Rounding may put a row on, or a thousandth of the box beyond, the edge.
    """
    slack = 1e-3 * box_mpc_h
    _check_there(position, names, "position", path, row)
    bad = ~((position >= -slack) & (position <= box_mpc_h + slack))
    if bad.any():
        i, axis = np.argwhere(bad)[0]
        raise InputError(
            f"position outside the box of {box_mpc_h:g} Mpc/h", file=path, column=names[axis],
            row=row + int(i), value=float(position[i, axis]),
            remedy="Positions must be comoving Mpc/h (not kpc, not Mpc without h) and "
            "mock.files.box_size_mpc_h the side of the box",
        )  # fmt: skip


def check_velocities(velocity: Array, names: tuple[str, str, str], path: Path, row: int) -> None:
    """Raise `InputError` at the first velocity (N, 3) that is missing or impossible."""
    _check_there(velocity, names, "velocity", path, row)
    bad = ~(np.abs(velocity) < _FASTEST_KM_S)
    if bad.any():
        i, axis = np.argwhere(bad)[0]
        raise InputError(
            "impossible velocity", file=path, column=names[axis], row=row + int(i),
            value=float(velocity[i, axis]), remedy="Velocities must be physical km/s",
        )  # fmt: skip
