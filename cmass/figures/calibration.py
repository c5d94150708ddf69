"""Calibration of the posteriors: coverage before and after, in bins, transforms, TARP.

Everything is drawn beside what perfect posteriors would show for the same clusters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.ticker import MaxNLocator

from cmass.evaluate.proof import FLAT, PLAIN, QUANTITIES, RECALIBRATED
from cmass.figures.house import Entry, Number, Tables, rows
from cmass.figures.style import BLUE, INK, MUTED, RED, canvas, drawing, legend_above, nothing
from cmass.params import Params
from cmass.tables import to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Posteriors drawn: colour and words.
_SHOWN = {PLAIN: (RED, "plain (the paper's)"), RECALIBRATED: (BLUE, "recalibrated")}
_LESS = "Part of true masses inside, less the probability"
#: Quantities of bins whose name alone does not say what they are.
_QUANTITY_WORDS = {"distance": "distance by redshift"}
_DIAGNOSTICS = {
    "pit": "Posterior probability below the true mass",
    "sbc": "Part of posterior draws below the true mass",
}


def _rows(table: pa.Table, **values: str) -> pa.Table:
    for column, value in values.items():
        table = table.filter(pc.equal(table[column], value))
    return table


def _deviations(axes: Axes, curves: pa.Table, half_width: float | None) -> None:
    """Curves less the diagonal, with the bands of perfect posteriors."""
    for name, (colour, words) in _SHOWN.items():
        own = _rows(curves, posterior_kind=name)
        if not own.num_rows:
            continue
        level, covered, low, high = to_numpy(
            own, "level", "coverage", "coverage_low", "coverage_high"
        )
        if name == RECALIBRATED:
            axes.fill_between(
                level, low - level, high - level, color=MUTED, alpha=0.3, lw=0,
                label="perfect: 95 % at each level",
            )  # fmt: skip
        axes.plot(level, covered - level, color=colour, label=words)
    axes.axhline(0, color=INK, lw=1, ls="--")
    if half_width is not None:
        for side in (-half_width, half_width):
            axes.axhline(side, color=MUTED, lw=1, ls=":",
                         label="perfect: 95 % of curves whole" if side > 0 else None)  # fmt: skip
    limit = max(0.03, 1.1 * float(np.abs(axes.get_ylim()).max()))
    axes.set(xlim=(0, 1), ylim=(-limit, limit))
    legend_above(axes, ncols=2)


def _half_width(scores: pa.Table) -> float | None:
    own = _rows(scores, posterior_kind=RECALIBRATED, prior=FLAT, population=FLAT)
    return own["perfect_error_high"][0].as_py() if own.num_rows else None


@drawing(6.2, 4.2)
def coverage(axes: Axes, curves: pa.Table, scores: pa.Table) -> None:
    """Coverage less level, before and after (`calibration_curves`, `calibration_scores`)."""
    own = _rows(curves, diagnostic="coverage", quantity="all")
    if not own.num_rows:
        return nothing(axes, "No mock has a posterior: there is no coverage to draw.")
    _deviations(axes, own, _half_width(scores))
    axes.set(xlabel="Posterior probability in the interval", ylabel=_LESS)


@drawing(6.2, 4.2)
def tarp(axes: Axes, curves: pa.Table) -> None:
    """TARP curve less the diagonal, before and after (table `calibration_curves`)."""
    own = _rows(curves, diagnostic="tarp")
    if not own.num_rows:
        return nothing(axes, "No mock has a posterior: there is no TARP curve to draw.")
    _deviations(axes, own, None)
    axes.set(xlabel="Posterior probability nearer to a random mass than the truth is",
             ylabel="Part of the windows, less the probability")  # fmt: skip


@canvas(7.4, 7.6)
def bins(figure: Figure, table: pa.Table) -> None:
    """Coverage error by bin, before and after, beside perfect posteriors (`calibration_bins`)."""
    axes = figure.add_subplot()
    after = {(r["quantity"], r["bin"]): r for r in _rows(table, posterior_kind=RECALIBRATED)
             .to_pylist()}  # fmt: skip
    if not after:
        return nothing(axes, "No mock has a posterior: there is no coverage to draw.")
    before = {(r["quantity"], r["bin"]): r for r in _rows(table, posterior_kind=PLAIN).to_pylist()}
    place, ticks, names = 0.0, [], []
    seen: set[str] = set()
    for quantity in ("all", *QUANTITIES):
        own = [r for (q, _), r in after.items() if q == quantity]
        if not own:
            continue
        place += 0.9
        if quantity != "all":
            ticks.append(place)
            names.append(_heading(quantity, own[0]["unit"]))
            place += 1
        for row in own:
            centre = row["perfect_offset"]
            half = row["perfect_band"]
            _bar(axes, place, centre, half, seen)
            if (plain := before.get((quantity, row["bin"]))) is not None:
                _dot(axes, place, plain["coverage_error"], PLAIN, seen)
            _dot(axes, place, row["coverage_error"], RECALIBRATED, seen)
            ticks.append(place)
            words = "all windows" if quantity == "all" else row["bin"].replace("-", "–")
            names.append(f"{words}  ({row['n']})")
            place += 1
    axes.axvline(0, color=INK, lw=1, ls="--")
    for side in (-0.05, 0.05):
        axes.axvline(side, color=MUTED, lw=0.8, ls=":")
    axes.set_yticks(ticks, names, fontsize=8)
    for label in axes.get_yticklabels():
        if not label.get_text().endswith(")"):
            label.set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(place, -0.2)
    axes.grid(False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set(xlabel=f"{_LESS}, where largest", ylabel="Part of the windows (number)")
    legend_above(axes, ncols=3, fontsize=8, columnspacing=1.5)


def _heading(quantity: str, unit: str) -> str:
    words = {"log10(Msun/h)": r"$\log_{10}\,h^{-1}M_\odot$", "Mpc/h": r"$h^{-1}$ Mpc"}.get(unit, "")
    name = _QUANTITY_WORDS.get(quantity, quantity)
    return f"{name} [{words}]" if words else name


def _bar(axes: Axes, place: float, centre: float, half: float, seen: set[str]) -> None:
    axes.plot([centre - half, centre + half], [place, place], color=MUTED, alpha=0.35, lw=8,
              solid_capstyle="butt", label=None if "bar" in seen else "95 % of perfect posteriors")  # fmt: skip
    seen.add("bar")


def _dot(axes: Axes, place: float, value: float, name: str, seen: set[str]) -> None:
    colour, words = _SHOWN[name]
    face = colour if name == RECALIBRATED else "none"
    axes.plot([value], [place], "o", ms=5.5, color=colour, mfc=face,
              label=None if name in seen else words)  # fmt: skip
    seen.add(name)


@canvas(9.6, 3.9)
def transforms(figure: Figure, table: pa.Table) -> None:
    """Histograms of transforms and simulation-based ranks (table `calibration_histograms`)."""
    for axes, (diagnostic, words) in zip(figure.subplots(1, 2), _DIAGNOSTICS.items(), strict=True):
        own = _rows(table, diagnostic=diagnostic)
        if not own.num_rows:
            nothing(axes, "No mock has a posterior: there is nothing to count.")
            continue
        for name, (colour, label) in _SHOWN.items():
            low, high, n, n_low, n_high = to_numpy(
                _rows(own, posterior_kind=name), "transform_low", "transform_high", "n", "n_low",
                "n_high",
            )  # fmt: skip
            edges, total = np.append(low, high[-1]), n.sum()
            if name == RECALIBRATED:
                axes.fill_between(
                    edges, np.append(n_low, n_low[-1]) / total, np.append(n_high, n_high[-1]) / total,
                    step="post", color=MUTED, alpha=0.3, lw=0, label="perfect: 95 % of bins",
                )  # fmt: skip
            axes.stairs(n / total, edges, color=colour, lw=1.5, label=label)
        axes.axhline(1 / n.size, color=INK, lw=1, ls="--")
        axes.set(xlabel=words, ylabel="Part of the windows", xlim=(0, 1), ylim=(0, None))
        axes.legend(loc="lower center", fontsize=8)


def _score_numbers(tables: Tables, params: Params) -> list[Number]:
    found = []
    for row in tables["calibration_scores"].to_pylist():
        if row["prior"] == FLAT and row["population"] == FLAT and row["posterior_kind"] in _SHOWN:
            words = _SHOWN[row["posterior_kind"]][1]
            for column, what in (
                ("tarp_error", "Largest deviation of the TARP curve"),
                ("tarp_chance", "Perfect posteriors that deviate as far"),
            ):
                found.append(Number(f"{what}, {words}", row[column]))
    return found


def _transform_numbers(tables: Tables, params: Params) -> list[Number]:
    found = []
    for row in tables["calibration_scores"].to_pylist():
        if row["prior"] == FLAT and row["population"] == FLAT and row["posterior_kind"] in _SHOWN:
            words = _SHOWN[row["posterior_kind"]][1]
            for column, what in (
                ("pit_chance", "Perfect posteriors with transforms as uneven"),
                ("sbc_chance", "Perfect posteriors with ranks as uneven"),
            ):  # fmt: skip
                found.append(Number(f"{what}, {words}", row[column]))
    return found


FIGURES = (
    Entry(
        "calibration_coverage", "Coverage before and after recalibration", "calibration",
        ("calibration_curves", "calibration_scores", "calibration"),
        lambda t, p: coverage(t["calibration_curves"], t["calibration_scores"]),
        "Part of the evaluation windows whose true mass lies in the central interval of a level, "
        "less the level: below zero, posteriors are too narrow. Plain posteriors are slices of the "
        "joint density, as the paper takes them; recalibration corrects them and was chosen on the "
        "test set alone. The grey band holds 95 % of perfect posteriors at each level, the dotted "
        "lines 95 % of their curves whole; windows of one halo count as correlated.",
        numbers=rows("calibration", "coverage_error_max", "coverage_error_max_plain",
                     "coverage_error_max_perfect", "crps", "crps_plain", "crps_gain", "log_score",
                     "log_score_plain", "log_score_gain", "width_68", "width_68_plain"),
    ),
    Entry(
        "calibration_bins", "Coverage error in bins", "calibration", ("calibration_bins",),
        lambda t, p: bins(t["calibration_bins"]),
        "Largest coverage error in each bin, and what perfect posteriors would show there. In bins "
        "of true mass and of contamination (the part of the window's galaxies that are no members), "
        "which no observer knows, a perfect posterior is not calibrated either: prior edges and "
        "regression to the mean move it. Dotted: 0.05. Number of windows in brackets.",
        wide=True,
    ),
    Entry(
        "calibration_transforms", "Probability integral transform and ranks", "calibration",
        ("calibration_histograms", "calibration_scores"),
        lambda t, p: transforms(t["calibration_histograms"]),
        "Left: posterior probability below the true mass. Right: rank of the true mass among draws "
        "of the posterior (simulation-based calibration, SBC, Talts+2018). Perfect posteriors give "
        "flat histograms inside the band. Numbers: the part of simulated sets of perfect posteriors "
        "whose histogram is at least as uneven; small ones speak against the posteriors.",
        numbers=_transform_numbers, wide=True,
    ),
    Entry(
        "calibration_tarp", "TARP", "calibration", ("calibration_curves", "calibration_scores"),
        lambda t, p: tarp(t["calibration_curves"]),
        "Tests of accuracy with random points (TARP, Lemos+2023): posterior probability nearer to a "
        "mass drawn from the prior than the true mass is, less the diagonal. Perfect posteriors stay "
        "in the band. Errors of opposite sign in different windows, which cancel in the coverage of "
        "all windows, need not cancel here.",
        numbers=_score_numbers,
    ),
)  # fmt: skip
