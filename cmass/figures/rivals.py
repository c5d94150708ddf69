"""Rivals on the same mocks: 1D, 2D, 3D (paper, Fig. 8), scatter laws (Fig. 9), all by mass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cmass.evaluate import residuals_table
from cmass.figures.house import Entry, Inputs, Number, Tables
from cmass.figures.posteriors import residuals
from cmass.figures.style import (
    BLUE,
    GOLD,
    GREEN,
    INK,
    MUTED,
    RED,
    ROSE,
    TEAL,
    TRUE_MASS,
    VIOLET,
    canvas,
    drawing,
    nothing,
)
from cmass.params import Params
from cmass.rivals.scores import n_seeds, over_seeds, score
from cmass.tables import make_table, to_numpy

Array = NDArray[np.float64]

#: Colour and symbol of each estimator; one that is not here is drawn in ink.
_LOOKS = {
    "cnn3d": (BLUE, "o"), "cnn2d": (GREEN, "s"), "cnn1d": (GOLD, "^"), "deepsets": (VIOLET, "D"),
    "flow": (TEAL, "v"), "richness": (ROSE, "P"), "dispersion": (RED, "X"), "caustic": (MUTED, "h"),
}  # fmt: skip
#: The paper's CNN_3D on the mocks of Ho+2019 (section 4.4): sigma_0 and sigma_N, dex.
_PAPER_POINT = (0.08, 0.04)
#: Poisson scatter at 100 members, dex: of a dispersion's mass (M ∝ σ³) and of a count's (M ∝ N).
_POISSON = {
    "dispersion: 3/(√(2N) ln 10)": 3 / (np.sqrt(2 * 100) * np.log(10)),
    "richness: 1/(√N ln 10)": 1 / (np.sqrt(100) * np.log(10)),
}
#: Published scatter of point estimates, dex; others print none for 1D.
_PUBLISHED = {
    "cnn2d": (0.132, "Ho+2019, their mocks"),
    "cnn3d": (0.16, "Kodi Ramanah+2020, SDSS mocks"),
}
_BIN_MIN = 5


def title_of(name: str) -> str:
    """An estimator's name on figures."""
    from cmass.estimators import estimators

    known = estimators()
    return known[name].title if name in known else name


def _names(table: pa.Table) -> list[str]:
    """Estimators of a table: those with a look of their own first, in that order."""
    found = set(table["estimator"].to_pylist())
    return [n for n in _LOOKS if n in found] + sorted(found - set(_LOOKS))


def by_mass(predictions: pa.Table, width_dex: float) -> pa.Table:
    """Table `rival_residuals`: residuals of each estimator by true mass, all seeds together."""
    from cmass.columns import TABLES

    parts = []
    for name in _names(predictions):
        own = predictions.filter(pc.equal(predictions["estimator"], name))
        own = own.filter(pc.is_valid(own["log10_m200c"]))
        if not own.num_rows:
            continue
        true, predicted = to_numpy(own, "log10_m200c_true", "log10_m200c")
        table = residuals_table(true, predicted, width_dex)
        columns = dict(zip(table.column_names, table.columns, strict=True))
        parts.append(make_table(
            "rival_residuals", {"estimator": [name] * table.num_rows, **columns}
        ))  # fmt: skip
    empty = TABLES["rival_residuals"].arrow_schema().empty_table()
    return pa.concat_tables([empty, *parts]).combine_chunks()


# --------------------------------------------------------------------------------- Fig. 8


@canvas(10.4, 4.3)
def dimensions(figure: Figure, table: pa.Table, scores: pa.Table) -> None:
    """Residual bands of CNN_1D, CNN_2D and CNN_3D side by side."""
    names = [n for n in ("cnn1d", "cnn2d", "cnn3d") if n in set(table["estimator"].to_pylist())]
    if not names:
        nothing(figure.add_subplot(), "None of CNN_1D, CNN_2D and CNN_3D was fitted.")
        return
    panels = np.atleast_1d(figure.subplots(1, len(names), sharex=True, sharey=True))
    for axes, name in zip(panels, names, strict=True):
        own = table.filter(pc.equal(table["estimator"], name))
        colour, _ = _LOOKS[name]
        residuals.draw(axes, own, colour, at_least=_BIN_MIN)  # type: ignore[attr-defined]
        scatter, _ = over_seeds(*score(scores, name, "epsilon_scatter"))
        axes.set_title(f"{title_of(name)}: scatter {scatter:.3f} dex")
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        if axes is not panels[0]:
            axes.set_ylabel("")
    lowest, highest = (
        np.nanmin(_column(table, names, "p2_5")),
        np.nanmax(_column(table, names, "p97_5")),
    )
    margin = 0.14 * (highest - lowest)
    panels[0].set_ylim(lowest - margin, highest + 1.4 * margin)


def _column(table: pa.Table, names: list[str], column: str) -> Array:
    """One column of some estimators, for bins with enough mocks."""
    own = table.filter(pc.is_in(table["estimator"], pa.array(names)))
    own = own.filter(pc.greater_equal(own["n"], _BIN_MIN))
    return to_numpy(own, column)[0]


def _of(table: pa.Table, name: str) -> pa.Table:
    return table.filter(pc.equal(table["estimator"], name))


def _dimension_numbers(tables: Tables, params: Params) -> list[Number]:
    found = []
    for name in ("cnn1d", "cnn2d", "cnn3d"):
        value, error = over_seeds(*score(tables["rival_scores"], name, "epsilon_scatter"))
        if np.isfinite(value):
            paper, source = _PUBLISHED.get(name, (None, ""))
            words = f"Scatter of ε, {title_of(name)}"
            found.append(Number(words, value, error, paper, "dex", source))
    return found


# --------------------------------------------------------------------------------- Fig. 9


@drawing(6.6, 4.9)
def scatter_laws(axes: Any, scores: pa.Table) -> None:
    """sigma_N against sigma_0 of every estimator (table ``rival_scores``)."""
    drawn = False
    for name in _names(scores):
        colour, mark = _LOOKS.get(name, (INK, "*"))
        across, up = (score(scores, name, metric) for metric in ("sigma_0", "sigma_n"))
        (x, x_error), (y, y_error) = over_seeds(*across), over_seeds(*up)
        if not np.isfinite([x, y]).all():
            continue
        drawn = True
        if across[0].size > 1:
            axes.plot(across[0], up[0], mark, ms=3, mew=0, color=colour, alpha=0.5)
        axes.errorbar(x, y, xerr=x_error, yerr=y_error, fmt=mark, ms=7, color=colour, lw=1.1,
                      capsize=2, label=title_of(name), clip_on=False, zorder=3)  # fmt: skip
    if not drawn:
        return nothing(axes, "No estimator has enough clusters for the scatter law.")
    axes.errorbar(*_PAPER_POINT, fmt="*", ms=13, mfc="none", mec=INK, mew=1.2,
                  label="CNN 3D of the paper\n(mocks of Ho+2019)")  # fmt: skip
    axes.set_xlim(0, 1.08 * max(axes.get_xlim()[1], 1.2 * _PAPER_POINT[0]))
    axes.set_ylim(0, 1.12 * max(axes.get_ylim()[1], 1.25 * max(_POISSON.values())))
    for words, level in _POISSON.items():
        axes.axhline(level, color=MUTED, ls=":", lw=1.1)
        axes.annotate(words, (0.01, level), (0, 3), xycoords=("axes fraction", "data"),
                      textcoords="offset points", fontsize=7.5, color=MUTED)  # fmt: skip
    axes.set(xlabel=r"Richness-independent error $\sigma_0$ [dex]",
             ylabel=r"Richness-dependent error $\sigma_N$ [dex]")  # fmt: skip
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _law_numbers(tables: Tables, params: Params) -> list[Number]:
    found = []
    for name in _names(tables["rival_scores"]):
        for metric, words, paper in (
            ("sigma_n", "σ_N", _PAPER_POINT[1]), ("sigma_0", "σ₀", _PAPER_POINT[0]),
        ):  # fmt: skip
            value, error = over_seeds(*score(tables["rival_scores"], name, metric))
            if np.isfinite(value):
                found.append(Number(f"{words} of {title_of(name)}", value, error,
                                    paper if name == "cnn3d" else None, "dex"))  # fmt: skip
    return found


# ----------------------------------------------------------------------------- all by mass


@canvas(7.4, 6.6)
def rivals_by_mass(figure: Figure, table: pa.Table, scores: pa.Table) -> None:
    """Mean and scatter of the residuals of every estimator by true mass, with errors.

    Windows that several seeds judged are counted once in the errors.
    """
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1.25])
    shown = table.filter(pc.greater_equal(table["n"], _BIN_MIN))
    if not shown.num_rows:
        nothing(upper, "No estimator was judged: there is nothing to draw.")
        lower.set_axis_off()
        return
    for name in _names(shown):
        colour, mark = _LOOKS.get(name, (INK, "*"))
        centre, mean, scatter, n = to_numpy(
            _of(shown, name), "log10_m200c_centre", "mean", "scatter", "n"
        )
        windows = np.maximum(n / max(n_seeds(scores, name), 1), 1)
        look: dict[str, Any] = {"fmt": mark, "ls": "-", "ms": 4, "color": colour, "lw": 1.3,
                                "elinewidth": 0.8}  # fmt: skip
        upper.errorbar(centre, mean, scatter / np.sqrt(windows), label=title_of(name), **look)
        lower.errorbar(centre, scatter, scatter / np.sqrt(2 * windows), **look)
    upper.axhline(0, color=INK, lw=1, ls="--")
    upper.set_ylabel(r"Mean of $\epsilon$ [dex]")
    lower.set(xlabel=TRUE_MASS, ylabel=r"Scatter of $\epsilon$ [dex]")
    lower.set_ylim(0, lower.get_ylim()[1] * 1.05)
    figure.legend(loc="outside upper center", ncols=4)


def _tables(inputs: Inputs) -> dict[str, pa.Table]:
    width = inputs.params.figures.mass_bin_dex
    return {
        "rival_residuals": by_mass(inputs["rival_predictions"], width),
        "rival_scores": inputs["rival_scores"], "rival_costs": inputs["rival_costs"],
    }  # fmt: skip


_NEEDS = ("rival_predictions", "rival_scores", "rival_costs")

FIGURES = (
    Entry(
        "fig08_dimensions", "What each dimension adds", "proof", _NEEDS,
        lambda t, p: dimensions(t["rival_residuals"], t["rival_scores"]),
        "Residuals ε = log₁₀(M_true/M_pred) by true mass of networks that read velocities (1D), "
        "radii and velocities (2D) and the whole window (3D): mean, 1σ and 2σ bands, all on the same "
        "evaluation mocks. The paper draws them on the cleaner mocks of Ho+2019, inside 1.6 h⁻¹ Mpc.",
        paper="Fig. 8", tables=_tables, numbers=_dimension_numbers, wide=True,
    ),
    Entry(
        "fig09_scatter_laws", "Errors with and without richness", "proof", _NEEDS,
        lambda t, p: scatter_laws(t["rival_scores"]),
        "Scatter σ² = σ_N² (100/N_mem) + σ₀² (eq. 7) about the best power law, on our evaluation "
        "mocks; large symbols are means over seeds, with the errors of the windows and of the mean. "
        "The star is the paper's network on the mocks of Ho+2019, which have no clustered "
        "background: not the same test. Dotted: Poisson scatter at 100 members of masses from a "
        "dispersion and from a count. The paper draws CNN_1D, CNN_2D and its neural flow without "
        "printing their numbers.",
        paper="Fig. 9", tables=lambda i: {"rival_scores": i["rival_scores"]}, numbers=_law_numbers,
    ),
    Entry(
        "rivals_by_mass", "All estimators by true mass", "rivals", _NEEDS,
        lambda t, p: rivals_by_mass(t["rival_residuals"], t["rival_scores"]),
        "Mean and standard deviation of ε = log₁₀(M_true/M_pred) of the point estimates by true mass, "
        "all seeds together, on the same evaluation mocks. Error bars: the standard deviation over "
        "√n of a mean and over √(2n) of a scatter, for the n windows of a bin.",
        tables=_tables, wide=True,
    ),
)  # fmt: skip
