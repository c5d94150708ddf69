"""Contamination (eq. 6) of all windows of a box: `box_contaminants` against a double loop.

The loop gets some of the windows and its time is scaled with their number, in which it is linear.

    python -m benchmarks.bench_contamination            # 100 000 haloes, 10 000 windows
    python -m benchmarks.bench_contamination --small    # 20 000 and 2000
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from benchmarks import paired
from benchmarks.paired import Agreement, Result
from cmass.mock.contamination import Contaminants, box_contaminants
from tests.mock.double_loop import COSMOLOGY, RADIUS, V_MAX, Box, Z, double_loop, make_box

TARGET, FLOOR = 1000.0, 100.0
#: The same formulas in double precision, in another order.
AGREEMENT = 1e-6
#: Windows are flat in log mass between these; haloes farther than this (Mpc/h) are in no window.
_MASSES, _REACH = (13.7, 15.0), 40.0


def own(made: Box, box: float) -> Contaminants:
    """Ours, on all windows."""
    return box_contaminants(*made, Z, box, _REACH, RADIUS, V_MAX, COSMOLOGY)


def agreement(found: Contaminants, expected: NDArray[np.float64]) -> Agreement:
    """Counts equal; the larger of the relative differences of mass ratio and distance."""
    count, ratio, distance = expected
    n = count.size
    worst = float(np.abs(found.count[:n] - count).max())
    for ours, theirs in ((found.mass_ratio[:n], ratio), (found.distance[:n], distance)):
        if (np.isnan(ours) != np.isnan(theirs)).any():
            worst = np.inf
        worst = max(worst, float(np.nanmax(np.abs(ours / theirs - 1), initial=0.0)))
    return Agreement("mass ratios and distances", worst, AGREEMENT)


def results(small: bool) -> list[Result]:
    """All windows of one box."""
    n, box, windows, timed = (20_000, 600.0, 2000, 20) if small else (100_000, 1000.0, 10_000, 60)
    made = make_box(n, box, windows, masses=_MASSES)
    haloes, (halo, direction, distance) = made[:3], made[3:]
    some: Box = (*haloes, halo[:timed], direction[:timed], distance[:timed])
    close = agreement(own(made, box), double_loop(*some, box))
    pairs = paired.paired(
        lambda: double_loop(*some, box), lambda: own(made, box), pairs=3 if small else 5,
        clock="cpu", reference_calls=timed / windows,
    )  # fmt: skip
    return [
        pairs.comparison(
            "contamination", "double loop in Python", f"{n} haloes, {windows} windows",
            agreements=[close], target=TARGET, floor=FLOOR,
            note=f"the reference has {timed} windows and its time is scaled to {windows}",
        )
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(paired.main(results, n_cores=1))
