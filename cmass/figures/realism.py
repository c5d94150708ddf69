"""Mocks beside the sky: scores in words, and one figure per statistic."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from cmass.evaluate.realism import FEATURES, scores
from cmass.evaluate.realism.statistics import STATISTICS, Statistic
from cmass.figures.house import Entry, Tables
from cmass.figures.style import BLUE, INK, MUTED, RED, STYLE
from cmass.params import Params
from cmass.tables import to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEATURES_TITLE = "Features of the network"
#: What to know about a figure, by statistic.
CAPTIONS = {
    "abundance": "Rich clusters per volume, by galaxies within 1 h⁻¹ Mpc and 1000 km/s of the "
    "centre: the mass function (Tinker+2008) through the relation of number and mass. Here the mocks "
    "are all of the population, not those of the survey's richness and distance.",
    "window_counts": "Quantiles of the number of galaxies in the window: 5 % of the windows have "
    "fewer than the first.",
    "members_by_mass": "Galaxies projected inside R200 and within 2 V200, by the mass that "
    "GalWeight's method gives from the window.",
    "velocity_by_richness": "Quantiles of V200 by GalWeight's method in two ranges of richness "
    "(galaxies within 1 h⁻¹ Mpc and 1000 km/s): the scatter of dynamics at fixed richness.",
    "members_by_distance": "Galaxies projected inside R200 and within 2 V200, by distance: what the "
    "flux limit leaves of them.",
    "window_by_distance": "Galaxies in the whole window by distance.",
    "surface_density": "Stacked surface density about the adopted centre, all velocities.",
    "velocities_inside": "Stacked velocities of galaxies projected inside R200.",
    "velocities_around": "Stacked velocities between R200 and 2 R200.",
    "velocities_beyond": "Stacked velocities beyond 2 R200.",
    "dispersions": "Velocity dispersion about the members' mean, within 2 V200.",
    "quadrupole": "Elongation of the window in three rings, from pairs: free of shot noise.",
    "clumpiness": "Close pairs over those of the same galaxies at random angles.",
    "interlopers": "Galaxies outside R200 per area and bin of |v|.",
    "centres": "Rms offset of the members' mean position and velocity from the adopted centre.",
    FEATURES: "Two-sample test on what the network keeps of a window: the area under the ROC curve "
    "of a linear classifier that is to tell mocks from the survey (0.5: it cannot; 1: it always "
    "does).",
}


@dataclass(frozen=True)
class ScoreRow:
    """One line of the table of scores, as text."""

    title: str
    deviation: str
    agree: str
    n_bins: int
    even: str
    agrees: bool
    verdict: str


def title_of(statistic: str) -> str:
    """Words for a statistic's name."""
    return STATISTICS[statistic].title if statistic in STATISTICS else _FEATURES_TITLE


def score_rows(table: pa.Table, agreement: float) -> list[ScoreRow]:
    """Scores of the odd half, the even half beside it; the total at the end."""
    even = {s.statistic: s for s in scores(table, "even", agreement)}
    rows: list[ScoreRow] = []
    for score in scores(table, "odd", agreement):
        beside = even.get(score.statistic)
        if score.statistic == "total":
            n = sum(row.agrees for row in rows)
            title, agrees, verdict = "All statistics", n == len(rows), f"{n} of {len(rows)}"
        else:
            title, agrees = title_of(score.statistic), score.deviation <= 1
            verdict = "yes" if agrees else "no"
        rows.append(
            ScoreRow(
                title, f"{score.deviation:.2f}", f"{100 * score.agree:.0f} %", score.n_bins,
                f"{beside.deviation:.2f}" if beside else "", agrees, verdict,
            )
        )  # fmt: skip
    return rows


def caption(table: pa.Table, name: str, agreement: float) -> str:
    """What a statistic's figure shows, and how well it agrees."""
    score = {s.statistic: s for s in scores(table, "odd", agreement)}.get(name)
    return CAPTIONS[name] + (
        f" Held-out half: {100 * score.agree:.0f} % of {score.n_bins} bins agree, "
        f"deviation {score.deviation:.2f}."
        if score
        else " The held-out half has nothing to compare."
    )


def statistic_figure(
    table: pa.Table, name: str, agreement: float = 0.1, half: str = "odd"
) -> Figure:
    """One statistic: values of survey and mocks above, their ratio below.

    Statistics whose bins have units of their own show the ratio alone, with the values beside.

    Parameters
    ----------
    table : pyarrow.Table
        Table ``realism``.
    name : str
        A statistic in it.
    agreement : float
        Relative difference that agrees whatever the error.
    half : str
        The half that is drawn; the ratios of the other are small beside it.
    """
    rows = table.filter(pc.equal(table["statistic"], name))
    mine = rows.filter(pc.equal(rows["half"], half))
    other = rows.filter(pc.not_equal(rows["half"], half))
    statistic = STATISTICS.get(name)
    alone = statistic is None or bool(statistic.units)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 2.9 if alone else 4.2), layout="constrained")
        if not mine.num_rows or not np.isfinite(to_numpy(mine, "ratio")[0]).any():
            axes = figure.add_subplot()
            axes.set_axis_off()
            axes.text(0.5, 0.5, "Nothing to compare in this half.", ha="center", color=MUTED,
                      transform=axes.transAxes)  # fmt: skip
            return figure
        if alone or statistic is None:
            lower = figure.add_subplot()
            _values_beside(lower, mine)
        else:
            upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1])
            _values(upper, statistic, mine)
        _ratios(lower, statistic, mine, other, agreement)
    return figure


def _places(statistic: Statistic | None, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Where the bins are drawn: middles and edges along the axis."""
    if statistic is None or statistic.labels:
        middle = np.arange(rows.num_rows) + 0.5
        return middle, np.arange(rows.num_rows + 1.0)
    low, high = statistic.low, statistic.high
    middle = np.sqrt(low * high) if statistic.log[0] else (low + high) / 2
    return middle, np.append(low, high[-1])


def _values(axes: Axes, statistic: Statistic, rows: pa.Table) -> None:
    real, error, mock, mock_error = to_numpy(rows, "real", "real_error", "mock", "mock_error")
    middle, edges = _places(statistic, rows)

    def stairs(y: np.ndarray) -> np.ndarray:
        return np.append(y, y[-1])

    axes.fill_between(
        edges, stairs(mock - mock_error), stairs(mock + mock_error), step="post", color=BLUE,
        alpha=0.25, lw=0,
    )  # fmt: skip
    axes.step(edges, stairs(mock), where="post", color=BLUE, label="mocks")
    axes.errorbar(
        middle, real, yerr=error, fmt="o", ms=4, color=INK, capsize=2, lw=1, label="survey"
    )
    unit = _unit_words(statistic.unit)
    axes.set_ylabel(f"{statistic.value} [{unit}]" if unit else statistic.value)
    if statistic.log[1]:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif np.nanmin(real) >= 0:
        axes.set_ylim(0, 1.08 * np.nanmax([real + error, mock + mock_error]))
    axes.legend(loc="best", ncols=2)


def _values_beside(axes: Axes, rows: pa.Table) -> None:
    """Values as words above each bin."""
    for place, row in enumerate(rows.to_pylist()):
        if row["real"] is None or row["mock"] is None:
            continue
        unit = f" {_unit_words(row['unit'])}" if row["unit"] else ""
        words = f"survey {row['real']:.3g}{unit}\nmocks {row['mock']:.3g}{unit}"
        if row["statistic"] == FEATURES:  # one number of both, not one of each
            words = f"{row['mock']:.3f} ± {row['real_error']:.3f}"
        axes.annotate(words, (place + 0.5, 0.97), xycoords=("data", "axes fraction"), ha="center",
                      va="top", fontsize=8)  # fmt: skip


def _ratios(
    axes: Axes, statistic: Statistic | None, rows: pa.Table, other: pa.Table, agreement: float
) -> None:  # fmt: skip
    """Ratios with their errors; a small diamond is the other half, an open circle disagrees.

    Points far outside are drawn at the frame, not allowed to flatten the rest. The test on
    features has no values to divide: its area under the curve is drawn.
    """
    real, error, mock_error, ratio = to_numpy(rows, "real", "real_error", "mock_error", "ratio")
    agrees = rows["agrees"].fill_null(True).to_numpy(zero_copy_only=False)
    middle, edges = _places(statistic, rows)
    relative = np.hypot(error, np.nan_to_num(mock_error)) / np.abs(real)
    allowed = np.maximum(np.nan_to_num(relative, nan=agreement), agreement)
    band = np.append(allowed, allowed[-1])
    beside = np.full(ratio.size, np.nan)
    if other.num_rows == rows.num_rows:
        (beside,) = to_numpy(other, "ratio")
    reach = float(np.nanmax([*np.abs(ratio - 1), *np.abs(beside - 1), 1.3 * np.nanmin(allowed)]))
    reach = float(np.clip(1.35 * reach, 0.3, 1.0))
    alone = statistic is None or bool(statistic.units)
    low, high = 1 - reach, 1 + (1.9 if alone else 1) * reach
    scale = real[0] if statistic is None else 1.0
    axes.fill_between(edges, scale * (1 - band), scale * (1 + band), step="post", color=MUTED,
                      alpha=0.22, lw=0)  # fmt: skip
    axes.axhline(scale, color=INK, lw=1, ls="--")
    grown = 1.0 if statistic is None else np.abs(ratio)
    axes.errorbar(middle, scale * ratio, yerr=scale * grown * relative, fmt="none", color=BLUE,
                  lw=1)  # fmt: skip
    looks: tuple[tuple[Any, np.ndarray, dict[str, Any]], ...] = (
        (slice(None), beside, {"marker": "D", "ms": 2.6, "color": MUTED}),
        (agrees, ratio, {"marker": "o", "ms": 4.5, "color": BLUE}),
        (~agrees, ratio, {"marker": "o", "ms": 4.5, "mfc": "none", "color": RED}),
    )
    for own, y, style in looks:
        if not np.isfinite(y[own]).any():
            continue  # an empty line that is not clipped would take room
        axes.plot(
            middle[own], scale * np.clip(y[own], low, high), ls="none", clip_on=False, **style
        )
    axes.set_ylim(scale * low, scale * high)
    words = "Area under the curve" if statistic is None else "Mocks / survey"
    axes.set(ylabel=words, xlabel=_axis_words(statistic))
    if statistic is None or statistic.labels:
        names = [bin_words(name) for name in rows["bin"].to_pylist()]
        crowded = sum(map(len, names)) > 40  # wider than the figure: one below the other
        axes.set_xticks(middle, [n.replace(" of ", "\n") if crowded else n for n in names])
        axes.grid(False, axis="x")
        axes.set_xlim(edges[0], edges[-1])
    elif statistic.log[0]:
        axes.set_xscale("log")
        ticks = log_ticks(float(edges[0]), float(edges[-1]))
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.minorticks_off()


def bin_words(name: str) -> str:
    """The name of a bin for people: quantiles in per cent, ranges with a dash."""
    name = re.sub(r"\bp(\d+)\b", r"\1 %", name).replace("R200", "R₂₀₀")
    return re.sub(r"(?<=\d)-(?=\d)", "–", name)


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks between two positive numbers: 1 and 3 of each decade, or 1, 2, 5 where those are few."""
    first, last = np.floor(np.log10(low)), np.ceil(np.log10(high))
    decades = 10.0 ** np.arange(first, last + 1)
    for parts in ((1, 3), (1, 2, 5), range(1, 10)):
        ticks = sorted(float(f"{d * p:.3g}") for d in decades for p in parts)
        ticks = [t for t in ticks if low * 0.999 <= t <= high * 1.001]
        if len(ticks) >= 3:
            break
    return ticks


def _axis_words(statistic: Statistic | None) -> str:
    if statistic is None:
        return "Two-sample test"
    unit = _unit_words(statistic.coordinate_unit)
    return f"{statistic.coordinate} [{unit}]" if unit else statistic.coordinate


def _unit_words(unit: str) -> str:
    known: dict[str, Any] = {
        "Mpc/h": "h⁻¹ Mpc", "h2/Mpc2": "h² Mpc⁻²", "log10(Msun/h)": "h⁻¹ M☉",
        "h3/Gpc3": "h³ Gpc⁻³",
    }  # fmt: skip
    return known.get(unit, unit)


def _entry(name: str) -> Entry:
    def draw(tables: Tables, params: Params) -> Figure:
        return statistic_figure(tables["realism"], name, params.realism.agreement)

    def words(tables: Tables, params: Params) -> str:
        return caption(tables["realism"], name, params.realism.agreement)

    return Entry(f"realism_{name}", title_of(name), "realism", ("realism",), draw, words)


FIGURES = tuple(_entry(name) for name in CAPTIONS)
