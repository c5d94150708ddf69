"""What the flags for windows unlike mocks, and for two clusters in one window, find."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from cmass.figures.house import Entry, Number, Tables
from cmass.figures.style import BLUE, MUTED, RED, canvas, nothing
from cmass.params import Params

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FLAGS = (("unlike_mocks", "unlike mocks", BLUE), ("two_clusters", "two clusters", RED))


@canvas(8.2, 4.9)
def flag_rates(figure: Figure, rates: pa.Table, false_alarm: float) -> None:
    """Part of the windows of each kind that carry a flag (table ``oddity_rates``)."""
    axes: Axes = figure.add_subplot()
    rows = [row for row in rates.to_pylist() if row["unlike_mocks"] is not None]
    if not rows:
        nothing(axes, "No kind of windows is large enough to tell a rate.")
        return
    place = np.arange(len(rows))[::-1]
    for shift, (name, words, colour) in zip((0.14, -0.14), _FLAGS, strict=True):
        axes.errorbar(
            [row[name] for row in rows], place + shift, xerr=[row[f"{name}_error"] for row in rows],
            fmt="o", ms=4.5, lw=1, color=colour, label=words,
        )  # fmt: skip
    axes.axvline(false_alarm, color=MUTED, lw=1, ls=":")
    axes.set_yticks(place, [f"{row['case']} ({row['n']})" for row in rows])
    axes.set(xlim=(-0.02, 1.02), xlabel="Part of the windows flagged",
             ylabel="Part of the evaluation set (windows)")  # fmt: skip
    axes.legend(loc="center right")


def _numbers(tables: Tables, params: Params) -> list[Number]:
    rows = {row["case"]: row for row in tables["oddity_rates"].to_pylist()}
    alone = next((row for case, row in rows.items() if case.startswith("no neighbour")), None)
    found = []
    for words, row, name in (
        ("Mocks flagged unlike_mocks", rows.get("mocks"), "unlike_mocks"),
        ("Mocks without a second cluster flagged two_clusters", alone, "two_clusters"),
    ):
        if row is not None and row[name] is not None:
            found.append(Number(words, row[name], row[f"{name}_error"]))
    return found


FIGURES = (
    Entry(
        "oddity_rates", "Flags: false alarms and finds", "beyond", ("oddity_rates",),
        lambda t, p: flag_rates(t["oddity_rates"], p.oddity.false_alarm),
        "Part of the windows that carry the flag unlike_mocks (distance from the training mocks in "
        "the space of network features and plain summaries) and two_clusters (height of the second "
        "peak in phase space), on mocks of the evaluation set by their most massive neighbour, and "
        "on windows in which something was put wrong. Dotted: the rate of false alarms that both "
        "thresholds were set to on the test set. Errors resample haloes.",
        numbers=_numbers, wide=True,
    ),
)  # fmt: skip
