"""Figures of a calibration: which ingredient moved what, parameters, ratios before and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from cmass.tables import atomic_path, to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def save(
    folder: Path, parameters: pa.Table, sensitivity: pa.Table, before: pa.Table, after: pa.Table
) -> None:
    """Write sensitivities.png, parameters.png and ratios.png to `folder`."""
    drawn = {
        "sensitivities": sensitivity_map(sensitivity), "parameters": parameter_ranges(parameters),
        "ratios": ratios(before, after),
    }  # fmt: skip
    for name, figure in drawn.items():
        with atomic_path(folder / f"{name}.png") as temporary:
            figure.savefig(
                temporary, format="png", dpi=130, facecolor="white", metadata={"Software": None}
            )


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    import matplotlib
    from matplotlib.figure import Figure

    from cmass.figures.style import STYLE

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.add_subplot()


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def by_statistic(sensitivity: pa.Table) -> tuple[list[str], list[str], np.ndarray]:
    """Statistics, parameters, and the rms over bins with the sign of the mean, shape (s, p)."""
    statistic = np.array(sensitivity["statistic"].to_pylist())
    parameter = np.array(sensitivity["parameter"].to_pylist())
    (value,) = to_numpy(sensitivity, "sensitivity")
    rows, columns = list(dict.fromkeys(statistic)), list(dict.fromkeys(parameter))
    grid = np.zeros((len(rows), len(columns)))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            here = value[(statistic == row) & (parameter == column)]
            grid[i, j] = np.sign(here.mean()) * np.sqrt((here**2).mean())
    return rows, columns, grid


def sensitivity_map(sensitivity: pa.Table) -> Figure:
    """Statistic by parameter: change over half the prior range, in units of what is allowed."""
    from cmass.evaluate.realism.statistics import STATISTICS

    rows, columns, grid = by_statistic(sensitivity)
    figure, axes = _figure(2.6 + 0.72 * len(columns), 1.8 + 0.36 * len(rows))
    most = max(float(np.abs(grid).max()), 1e-9)
    image = axes.imshow(grid, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
    axes.grid(False)
    axes.set_xticks(range(len(columns)), [_short(c) for c in columns], rotation=40, ha="right")
    axes.set_yticks(range(len(rows)), [STATISTICS[r].title for r in rows])
    for (i, j), value in np.ndenumerate(grid):
        ink = "white" if abs(value) > 0.6 * most else "black"
        axes.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=8, color=ink)
    bar = figure.colorbar(image, ax=axes, pad=0.01, shrink=0.9)
    bar.set_label("Shift over half the prior, in allowed errors")
    return figure


def parameter_ranges(parameters: pa.Table) -> Figure:
    """Values before and after, with errors, each within its prior range."""
    from cmass.figures.style import BLUE, MUTED, RED

    low, high, start, best, error = to_numpy(
        parameters, "prior_low", "prior_high", "start", "best", "best_error"
    )
    names = [_short(n) for n in parameters["parameter"].to_pylist()]
    figure, axes = _figure(6.4, 1.0 + 0.36 * len(names))
    place, width = np.arange(len(names))[::-1], high - low
    axes.hlines(place, 0, 1, color=MUTED, lw=1)
    axes.plot((start - low) / width, place, "|", ms=12, mew=2, color=MUTED, label="before")
    at, reach = (best - low) / width, error / width
    # Beyond the prior there is no probability.
    bars = np.array([np.minimum(reach, at), np.minimum(reach, 1 - at)])
    axes.errorbar(at, place, xerr=np.maximum(bars, 0), fmt="o", color=BLUE, capsize=3,
                  label="calibrated, 1σ")  # fmt: skip
    for y, a, b, x, e in zip(place, low, high, best, error, strict=True):
        axes.annotate(f"{a:g}", (0, y), (-4, 6), textcoords="offset points", ha="left", fontsize=7)
        axes.annotate(f"{b:g}", (1, y), (4, 6), textcoords="offset points", ha="right", fontsize=7)
        axes.annotate(
            f"{x:.3g} ± {e:.2g}", (1.04, y), annotation_clip=False, va="center", fontsize=8,
            color=RED if min(x - a, b - x) < 0.02 * (b - a) else BLUE,
        )  # fmt: skip
    axes.set_yticks(place, names)
    axes.set(xlabel="Place in the prior range", xlim=(-0.05, 1.4))
    axes.set_xticks(np.linspace(0, 1, 5))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return figure


def ratios(before: pa.Table, after: pa.Table) -> Figure:
    """Mock over real of every bin of every statistic, before and after."""
    from cmass.evaluate.realism.statistics import STATISTICS
    from cmass.figures.style import BLUE, INK, MUTED

    statistic = np.array(after["statistic"].to_pylist())
    names = list(dict.fromkeys(statistic))
    figure, axes = _figure(11, 4.4)
    real, error, mock_error = to_numpy(after, "real", "real_error", "mock_error")
    allowed = np.maximum(np.hypot(error, mock_error) / np.abs(real), 0.1)
    x = np.arange(after.num_rows) + 1.5 * np.searchsorted(
        np.arange(len(names)), [names.index(s) for s in statistic]
    )  # fmt: skip
    axes.bar(x, 2 * allowed, 0.9, bottom=1 - allowed, color=MUTED, alpha=0.25, label="allowed")
    for table, colour, mark, label in (
        (before, MUTED, "x", "before"),
        (after, BLUE, "o", "after"),
    ):
        (ratio,) = to_numpy(table, "ratio")
        axes.plot(x, np.clip(ratio, 0.3, 1.9), mark, ms=4, color=colour, label=label)
    axes.axhline(1, color=INK, lw=1, ls="--")
    axes.set(ylabel="Mock / real", ylim=(0.3, 1.9), xlim=(x[0] - 1, x[-1] + 1))
    middles = [x[statistic == name].mean() for name in names]
    axes.set_xticks(middles, [STATISTICS[n].title for n in names], rotation=25, ha="right")
    axes.grid(False, axis="x")
    axes.legend(ncols=3, loc="upper right")
    return figure
