"""What all drawings share: palette, axes, and how a figure becomes PDF, PNG or inline SVG.

Same tables, same figure, same bytes: no date and no version goes into a file. Colours come
from a small palette whose hex codes the report turns into CSS variables, so that one drawing
serves light and dark screens.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from cmass.tables import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Palette: the name of the CSS variable and its colour on a light page.
PALETTE = {
    "ink": "#1b2431", "muted": "#66707f", "rule": "#d5dae1", "blue": "#2166ac", "red": "#c2410c",
    "green": "#3f7d3a", "gold": "#a16c07", "violet": "#7545b0", "teal": "#0f7c85",
    "rose": "#b8336a",
}  # fmt: skip
#: The same on a dark page.
DARK = {
    "ink": "#e6eaf0", "muted": "#98a3b3", "rule": "#323b49", "blue": "#6cb1f0", "red": "#ff9a62",
    "green": "#8ccf83", "gold": "#e6b450", "violet": "#b794f4", "teal": "#5cc8d1",
    "rose": "#f48fb1",
}  # fmt: skip
INK, MUTED, RULE, BLUE, RED, GREEN, GOLD, VIOLET, TEAL, ROSE = PALETTE.values()
#: Points beyond which a scatter plot is drawn as an image inside the figure.
MANY_POINTS = 1500
#: Pixels per inch of PNG files.
PNG_DPI = 150

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.size": 10, "axes.titlesize": 10, "text.color": INK,
    "axes.labelcolor": INK, "axes.edgecolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": RULE, "grid.linewidth": 0.6,
    "axes.axisbelow": True, "figure.facecolor": "none", "axes.facecolor": "none",
    "savefig.facecolor": "none", "legend.frameon": False, "legend.fontsize": 9,
    "svg.fonttype": "none", "figure.dpi": 100, "savefig.dpi": PNG_DPI,
    "lines.linewidth": 1.6, "axes.formatter.useoffset": False,
    "axes3d.xaxis.panecolor": (0, 0, 0, 0), "axes3d.yaxis.panecolor": (0, 0, 0, 0),
    "axes3d.zaxis.panecolor": (0, 0, 0, 0),
}  # fmt: skip

# viridis without its ends, which vanish on dark and on light paper
RAMP = LinearSegmentedColormap.from_list(
    "masses", matplotlib.colormaps["viridis"](np.linspace(0.18, 0.94, 64))
)
#: One hue from clear to full: legible on light and dark paper alike.
CLEAR_TO_BLUE = LinearSegmentedColormap.from_list(
    "ramp", [(0.13, 0.4, 0.68, 0.0), (0.13, 0.4, 0.68, 1)]
)

MASS = r"$\log_{10} M_\mathrm{200c}$ [$h^{-1}\,M_\odot$]"
CNN = r"CNN$_\mathrm{3D}$"
TRUE_MASS = f"True {MASS}"
CNN_MASS = f"{CNN} {MASS}"
EPSILON = r"$\epsilon = \log_{10}(M_\mathrm{true}/M_\mathrm{pred})$ [dex]"

#: Beginnings of axis labels whose quantity has no unit.
UNITLESS = (
    "Epoch", "Posterior probability", "Probability density", "Part of", "Mocks / survey",
    r"$\log_{10}(M_\mathrm{pred}/M_\mathrm{GalWeight})\;/", "Mass ratio", "Phase-space distance",
    "Two-sample test", "Galaxies in the window", "Area under the curve",
)  # fmt: skip

Draw = Callable[..., None]


def drawing(width: float = 5.4, height: float = 4.2) -> Callable[[Draw], Callable[..., Figure]]:
    """Turn ``draw(axes, *tables)`` into a function that returns a figure."""

    def decorate(draw: Draw) -> Callable[..., Figure]:
        @wraps(draw)
        def make(*tables: Any, **options: Any) -> Figure:
            with matplotlib.rc_context(STYLE):
                figure = Figure(figsize=(width, height), layout="constrained")
                draw(figure.add_subplot(), *tables, **options)
                return figure

        make.draw = draw  # type: ignore[attr-defined]
        return make

    return decorate


def canvas(width: float, height: float) -> Callable[[Draw], Callable[..., Figure]]:
    """Turn ``draw(figure, *tables)`` into a function that returns a figure of several panels."""

    def decorate(draw: Draw) -> Callable[..., Figure]:
        @wraps(draw)
        def make(*tables: Any, **options: Any) -> Figure:
            with matplotlib.rc_context(STYLE):
                figure = Figure(figsize=(width, height), layout="constrained")
                draw(figure, *tables, **options)
                return figure

        return make

    return decorate


# ----------------------------------------------------------------------------- parts of drawings


def nothing(axes: Axes, words: str) -> None:
    """Say in words why there is nothing to draw."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, ha="center", va="center", color=MUTED, transform=axes.transAxes,
              wrap=True)  # fmt: skip


def points(axes: Axes, x, y, **style: Any) -> None:
    """Dots; many of them as an image."""
    many = len(x) > MANY_POINTS
    defaults: dict[str, Any] = {
        "ms": 2.5 if many else 3.2,
        "alpha": 0.35 if len(x) > 300 else 0.6,
        "color": BLUE,
    }
    axes.plot(x, y, "o", mew=0, rasterized=many, **(defaults | style))


def diagonal(axes: Axes, x, y) -> None:
    """The line of equality on square axes that hold x and y."""
    low, high = min(np.min(x), np.min(y)), max(np.max(x), np.max(y))
    margin = 0.04 * max(high - low, 0.1)
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, "--", color=INK, lw=1)
    axes.set(xlim=limits, ylim=limits)
    axes.set_aspect("equal")


def bands(axes: Axes, x, limits: Any, colour: str = BLUE, step: Any = None) -> None:
    """2 sigma and 1 sigma bands; `limits` are the lines at -2, -1, 1 and 2 sigma."""
    p2_5, p16, p84, p97_5 = limits
    for lower, upper, alpha, label in ((p2_5, p97_5, 0.15, "2σ"), (p16, p84, 0.3, "1σ")):
        axes.fill_between(x, lower, upper, color=colour, lw=0, alpha=alpha, label=label, step=step)


def legend_above(axes: Axes, **style: Any) -> None:
    """The legend above the axes, where no curve can run through it."""
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), **style)


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign, the minus as long as the plus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def plain_log_ticks(axes: Axes, which: str = "y") -> None:
    """Ticks at 1, 2, 5 of every decade of a logarithmic axis, written as plain numbers."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


# ------------------------------------------------------------------------------------- files


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``name.pdf`` and ``name.png`` on white paper; the same figure gives the same bytes."""
    files = []
    with matplotlib.rc_context(STYLE):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, for both files
    options: dict[str, dict[str, Any]] = {
        "pdf": {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
        "png": {"metadata": {"Software": None}, "dpi": PNG_DPI},
    }
    for kind, how in options.items():
        path = folder / f"{name}.{kind}"
        with matplotlib.rc_context(STYLE), atomic_path(path) as temporary:
            figure.savefig(temporary, format=kind, facecolor="white", **how)
        files.append(path)
    return files


def inline_svg(figure: Figure, name: str, alternative: str) -> str:
    """SVG of a figure for use inside a page.

    Palette colours become CSS variables, ids are made unique by `name`, the size is left
    to the page, and `alternative` is what a screen reader says.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for variable, colour in PALETTE.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    label = html.escape(alternative, quote=True)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
