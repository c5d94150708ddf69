"""How often windows of one kind are flagged: false alarms and detections."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cmass import seeds
from cmass.columns import FLAGS
from cmass.estimators.windows import Windows
from cmass.evaluate import metrics
from cmass.oddity.injected import Neighbours
from cmass.params import Params
from cmass.tables import make_table

#: Fewest windows of a kind whose rate is told.
_N_MIN = 10


class Rates:
    """Rows of table `oddity_rates`."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {
            name: [] for name in ("case", "n", "unlike_mocks", "unlike_mocks_error",
                                  "two_clusters", "two_clusters_error")
        }  # fmt: skip

    def add(self, case: str, flag: NDArray[np.int32], halo: NDArray[np.int64], seed: int) -> None:
        """Add the part of windows with each flag; errors from resampling haloes."""
        self.columns["case"].append(case)
        self.columns["n"].append(flag.size)
        bootstrap = metrics.Bootstrap(halo, seeds.generator(seed, f"oddity-rates {case}"))
        for name in ("unlike_mocks", "two_clusters"):
            hit = (flag & FLAGS[name].value) > 0
            told = flag.size >= _N_MIN

            def rate(rows: metrics.Rows, hit: NDArray[np.bool_] = hit) -> float:
                return float(hit[rows].mean())

            self.columns[name].append(rate(np.arange(hit.size)) if told else None)
            # None of few is not never: one window more or less.
            error = max(bootstrap.error(rate), 1 / hit.size) if told else None
            self.columns[f"{name}_error"].append(error)

    def table(self) -> pa.Table:
        """Table `oddity_rates` of all that was added."""
        return make_table("oddity_rates", self.columns)


def add_mocks(
    rates: Rates, flag: NDArray[np.int32], windows: Windows, found: Neighbours, params: Params
) -> None:
    """Add rates on mocks: all, without a second cluster, and with one of each kind."""
    ratio, distance, limit = found.mass_ratio, found.distance, params.oddity.neighbour_mass_ratio
    rates.add("mocks", flag, windows.halo_id, params.seed)
    kinds = {f"no neighbour above {limit:g} of the mass": ~(ratio > limit)}
    for low, high, words in (
        (0.5, 1.0, "0.5 to 1"), (1.0, 3.0, "1 to 3"), (3.0, np.inf, "over 3"),
    ):  # fmt: skip
        kinds[f"neighbour of {words} masses"] = (ratio > low) & (ratio <= high)
    for low, high, words in ((0.0, 2.0, "nearer than 2"), (2.0, 4.0, "2 to 4"),
                             (4.0, np.inf, "beyond 4")):  # fmt: skip
        kinds[f"neighbour of over 0.5 masses, {words} (eq. 6)"] = (
            (ratio > 0.5) & (distance > low) & (distance <= high)
        )
    for words, rows in kinds.items():
        rates.add(words, flag[rows], windows.halo_id[rows], params.seed)
