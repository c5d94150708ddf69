"""The report's figures: each a function from Arrow tables to one Matplotlib figure.

Same tables, same figure. A table without rows gives a figure that says so in words.
Colours come from a small palette whose hex codes the report turns into CSS variables,
so that one drawing serves light and dark screens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

from cmass.tables import to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Palette: the name of the CSS variable and its colour on a light page.
PALETTE = {
    "ink": "#1b2431", "muted": "#66707f", "rule": "#d5dae1", "blue": "#2166ac", "red": "#c2410c",
    "green": "#3f7d3a",
}  # fmt: skip
INK, MUTED, RULE, BLUE, RED, GREEN = PALETTE.values()
#: Points beyond which a scatter plot is drawn as an image inside the figure.
_MANY_POINTS = 1500

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.size": 10, "axes.titlesize": 10, "text.color": INK,
    "axes.labelcolor": INK, "axes.edgecolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": RULE, "grid.linewidth": 0.6,
    "axes.axisbelow": True, "figure.facecolor": "none", "axes.facecolor": "none",
    "savefig.facecolor": "none", "legend.frameon": False, "legend.fontsize": 9,
    "svg.fonttype": "none", "figure.dpi": 100, "savefig.dpi": 150, "lines.linewidth": 1.6,
    "axes.formatter.useoffset": False,
}  # fmt: skip

# viridis without its ends, which vanish on dark and on light paper
_RAMP = LinearSegmentedColormap.from_list(
    "masses", matplotlib.colormaps["viridis"](np.linspace(0.18, 0.94, 64))
)

Draw = Callable[..., None]

_MASS = r"$\log_{10} M_{200c}$ [$h^{-1}\,M_\odot$]"


def _figure(width: float = 5.4, height: float = 4.2) -> Callable[[Draw], Callable[..., Figure]]:
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


def _nothing(axes: Axes, words: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, ha="center", va="center", color=MUTED, transform=axes.transAxes)


def _points(axes: Axes, x, y, **style: Any) -> None:
    many = len(x) > _MANY_POINTS
    defaults: dict[str, Any] = {
        "ms": 2.5 if many else 3.2,
        "alpha": 0.35 if len(x) > 300 else 0.6,
        "color": BLUE,
    }
    axes.plot(x, y, "o", mew=0, rasterized=many, **(defaults | style))


def _diagonal(axes: Axes, x, y) -> None:
    low, high = min(np.min(x), np.min(y)), max(np.max(x), np.max(y))
    margin = 0.04 * max(high - low, 0.1)
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, "--", color=INK, lw=1)
    axes.set(xlim=limits, ylim=limits)
    axes.set_aspect("equal")


@_figure()
def loss_curve(axes: Axes, history: pa.Table) -> None:
    """Training and validation loss by epoch (table ``training_history``)."""
    if not history.num_rows:
        return _nothing(axes, "No epoch was trained: there is no loss to draw.")
    epoch, loss, val_loss = to_numpy(history, "epoch", "loss", "val_loss")
    axes.plot(epoch, np.sqrt(loss), "o-", ms=3, color=BLUE, label="training")
    axes.plot(epoch, np.sqrt(val_loss), "s-", ms=3, color=RED, label="validation")
    best = int(np.argmin(val_loss))
    axes.axvline(epoch[best], color=GREEN, lw=1, ls=":", label=f"best epoch ({epoch[best]})")
    axes.set(xlabel="Epoch", ylabel="Root mean square error [dex]", yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()


@_figure()
def predicted_true(axes: Axes, predictions: pa.Table) -> None:
    """Point estimate against true mass of the evaluation mocks (table ``predictions``)."""
    rows = predictions.filter(pc.is_valid(predictions["log10_m200c"]))
    if not rows.num_rows:
        return _nothing(axes, "No mock has a point estimate: nothing to compare.")
    true, predicted = to_numpy(rows, "log10_m200c_true", "log10_m200c")
    _points(axes, true, predicted)
    _diagonal(axes, true, predicted)
    axes.set(xlabel=f"True {_MASS}", ylabel=f"CNN$_{{3D}}$ {_MASS}")


@_figure()
def residuals(axes: Axes, table: pa.Table) -> None:
    """Mean and 1 and 2 sigma bands of the residuals by true mass (table ``residuals``)."""
    rows = table.filter(pc.and_(pc.greater(table["n"], 0), pc.is_valid(table["p50"])))
    if not rows.num_rows:
        return _nothing(axes, "No mass bin holds a mock: there are no residuals to draw.")
    low, high = to_numpy(rows, "log10_m200c_low", "log10_m200c_high")
    edges = np.append(low, high[-1])
    p2_5, p16, p84, p97_5, mean, n = to_numpy(rows, "p2_5", "p16", "p84", "p97_5", "mean", "n")
    # steps, because each value belongs to a bin; the last value is repeated to close the step
    for lower, upper, alpha, label in ((p2_5, p97_5, 0.15, "2σ"), (p16, p84, 0.3, "1σ")):
        axes.fill_between(
            edges, np.append(lower, lower[-1]), np.append(upper, upper[-1]), step="post",
            color=BLUE, lw=0, alpha=alpha, label=label,
        )  # fmt: skip
    axes.step(edges, np.append(mean, mean[-1]), where="post", color=BLUE, label="mean")
    axes.axhline(0, color=INK, lw=1, ls="--")
    axes.set(
        xlabel=f"True {_MASS}",
        ylabel=r"$\epsilon = \log_{10}(M_\mathrm{true}/M_\mathrm{pred})$ [dex]",
    )
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom - 0.1 * (top - bottom), top + 0.12 * (top - bottom))
    for left, right, count in zip(low, high, n, strict=True):
        axes.annotate(
            f"n = {count}" if left == low[0] else f"{count}", ((left + right) / 2, 0.02), xycoords=("data", "axes fraction"),
            ha="center", fontsize=7.5, color=MUTED,
        )  # fmt: skip
    axes.legend(ncols=3, loc="upper right")


@_figure()
def joint_density(axes: Axes, joint: pa.Table) -> None:
    """Joint density of point estimate and true mass (table ``joint``, paper's Fig. 4)."""
    if joint.num_rows < 4:
        return _nothing(axes, "There is no joint density to draw.")
    predicted, true, density = to_numpy(joint, "log10_m200c", "log10_m200c_true", "density")
    x, y = np.unique(predicted), np.unique(true)
    grid = np.zeros((y.size, x.size))
    grid[np.searchsorted(y, true), np.searchsorted(x, predicted)] = density
    # one hue from clear to full: legible on light and dark paper alike
    ramp = LinearSegmentedColormap.from_list("ramp", [(0.13, 0.4, 0.68, 0.0), (0.13, 0.4, 0.68, 1)])
    image = axes.pcolormesh(x, y, grid, cmap=ramp, shading="nearest", rasterized=True)
    if grid.max() > 0:
        axes.contour(x, y, grid, levels=_mass_levels(grid), colors=[RED], linewidths=1)
    _diagonal(axes, x, y)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    axes.set(xlabel=f"CNN$_{{3D}}$ {_MASS}", ylabel=f"True {_MASS}")
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02, shrink=0.9)
    bar.set_label(r"Joint probability density [dex$^{-2}$]")
    bar.outline.set_visible(False)  # type: ignore[operator]


def _mass_levels(grid: np.ndarray) -> np.ndarray:
    """Densities whose contours hold 95 and 68 per cent of the total."""
    ordered = np.sort(grid.ravel())[::-1]
    inside = np.cumsum(ordered) / ordered.sum()
    rows = np.searchsorted(inside, (0.95, 0.68))
    return np.unique(ordered[np.minimum(rows, ordered.size - 1)])


@_figure()
def coverage(axes: Axes, table: pa.Table) -> None:
    """Part of true masses inside the central interval, by its probability (paper's Fig. 6)."""
    if not table.num_rows:
        return _nothing(axes, "No mock was evaluated: there is no coverage to draw.")
    columns = ("level", "coverage", "coverage_low", "coverage_high")
    level, covered, low, high = to_numpy(table, *columns)
    axes.fill_between(
        level, low, high, color=MUTED, alpha=0.25, lw=0, label="95 % of calibrated posteriors"
    )
    axes.plot([0, 1], [0, 1], "--", color=INK, lw=1, label="ideal")
    axes.plot(level, covered, color=BLUE, label="CNN$_{3D}$ posteriors")
    axes.set(
        xlabel="Posterior probability in the interval", ylabel="Part of true masses inside",
        xlim=(0, 1), ylim=(0, 1),
    )  # fmt: skip
    axes.set_aspect("equal")
    axes.legend(loc="upper left")


def with_galweight(masses: pa.Table, clusters: pa.Table) -> pa.Table:
    """Rows of `masses` with a posterior and a GalWeight mass, joined, in order of cluster_id."""
    columns = ["cluster_id", "log10_m200_galweight", "log10_m200_galweight_err"]
    plain = masses.drop_columns("posterior") if "posterior" in masses.column_names else masses
    joined = plain.join(clusters.select(columns), "cluster_id", join_type="inner")
    ours, theirs = joined["log10_m200c_p50"], joined["log10_m200_galweight"]
    both = pc.and_(pc.is_valid(ours), pc.is_valid(theirs))
    return joined.filter(both).sort_by("cluster_id")


@_figure()
def predicted_galweight(axes: Axes, masses: pa.Table, clusters: pa.Table) -> None:
    """Posterior medians of the survey's clusters against GalWeight's masses."""
    rows = with_galweight(masses, clusters)
    if not rows.num_rows:
        return _nothing(axes, "No cluster has both masses: nothing to compare.")
    galweight, predicted = to_numpy(rows, "log10_m200_galweight", "log10_m200c_p50")
    error, minus, plus = to_numpy(rows, "log10_m200_galweight_err", "sigma_minus", "sigma_plus")
    _points(axes, galweight, predicted)
    _diagonal(axes, galweight, predicted)
    if np.isfinite(minus).any():
        _typical_error(axes, np.nanmedian(error), np.nanmedian(minus), np.nanmedian(plus))
    axes.set(xlabel=r"GalWeight $\log_{10} M_{200}$ [$h^{-1}\,M_\odot$]",
             ylabel=f"CNN$_{{3D}}$ {_MASS}")  # fmt: skip


def _typical_error(axes: Axes, x_error: float, minus: float, plus: float) -> None:
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    span = right - axes.get_xlim()[0]
    x_error = x_error if np.isfinite(x_error) else 0.0
    x, y = right - 0.06 * span - x_error, bottom + 0.05 * span + minus
    axes.errorbar(x, y, xerr=x_error, yerr=[[minus], [plus]], color=INK, fmt="none", lw=1)
    axes.annotate("median error", (x, y - minus), (0, -3), textcoords="offset points",
                  ha="center", va="top", fontsize=7.5, color=MUTED)  # fmt: skip


@_figure()
def pull_histogram(axes: Axes, pulls: np.ndarray) -> None:
    """Pulls against GalWeight with the unit Gaussian (paper's Fig. 10)."""
    pulls = pulls[np.isfinite(pulls)]
    if not pulls.size:
        return _nothing(axes, "No cluster has both masses with errors: there are no pulls.")
    shown = np.clip(pulls, -5, 5)
    axes.hist(
        shown, bins=np.linspace(-5, 5, 41).tolist(), density=True, color=BLUE, alpha=0.45, lw=0,
        label=f"{pulls.size} clusters",
    )  # fmt: skip
    t = np.linspace(-5, 5, 201)
    axes.plot(t, np.exp(-t * t / 2) / np.sqrt(2 * np.pi), "--", color=INK, label="unit Gaussian")
    if pulls.size > 1 and np.std(pulls) > 0:
        mean, std = np.mean(pulls), np.std(pulls, ddof=1)
        fitted = np.exp(-(((t - mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi))
        axes.plot(t, fitted, color=RED, label=f"mean {mean:+.2f}, std {std:.2f}")
    axes.set(
        xlabel=r"$\log_{10}(M_\mathrm{pred}/M_\mathrm{GalWeight})\;/\;\sigma_\mathrm{com}$",
        ylabel="Probability density", xlim=(-5, 5),
    )  # fmt: skip
    axes.legend(loc="upper left")


@_figure(6.2, 4.2)
def offsets(axes: Axes, table: pa.Table, words: dict[str, str] | None = None) -> None:
    """Observed and predicted log10(M_pred/M_GalWeight), even and odd clusters apart.

    Parameters
    ----------
    table : pyarrow.Table
        Table ``offsets``.
    words : dict of str to str, optional
        What the legend says of each half besides its name.
    """
    drawn = False
    for half, colour in (("even", BLUE), ("odd", RED)):
        rows = table.filter(pc.equal(table["half"], half)).sort_by("offset_low")
        if not rows.num_rows:
            continue
        low, high, seen, said = to_numpy(
            rows, "offset_low", "offset_high", "n_observed", "n_predicted"
        )
        # Two bins to one: some 380 clusters a half.
        whole = 2 * (low.size // 2)
        low, high = low[:whole:2], high[1:whole:2]
        seen, said = (x[:whole].reshape(-1, 2).sum(axis=1) for x in (seen, said))
        if not seen.sum():
            continue
        drawn = True
        total = seen.sum() * (high - low)
        label = f"{half}{': ' + words[half] if words and half in words else ''}"
        middle = (low + high) / 2 + (0.012 if half == "odd" else -0.012)
        axes.errorbar(middle, seen / total, np.sqrt(np.maximum(seen, 1)) / total, fmt="o", ms=3.5,
                      lw=1, color=colour, label=label)  # fmt: skip
        if said.sum():
            axes.stairs(said / said.sum() / (high - low), [*low, high[-1]], color=colour, lw=1.4,
                        fill=False, label=f"{half}, expected")  # fmt: skip
    if not drawn:
        return _nothing(axes, "No cluster has both masses: nothing to compare.")
    axes.axvline(0, color=MUTED, lw=0.8, ls=":")
    axes.set(
        xlabel=r"$\log_{10}(M_\mathrm{pred}/M_\mathrm{GalWeight})$ [dex]",
        ylabel=r"Probability density [dex$^{-1}$]", xlim=(-1.2, 1.2),
    )  # fmt: skip
    axes.set_ylim(0, axes.get_ylim()[1] * 1.35)
    axes.legend(loc="upper left", fontsize=7.5, ncols=2)


_ESTIMATORS = {
    "cnn3d": ("CNN$_{3D}$", BLUE, "-"),
    "galweight": ("GalWeight", RED, "-"),
    "truth": ("true masses", GREEN, ":"),
    "tinker08": ("Tinker+2008", INK, "--"),
    "expected_cnn3d": ("CNN$_{3D}$, expected", BLUE, "--"),
}
#: Estimators whose mass functions are in the table but not in the figure.
_NOT_DRAWN = ("point", "expected_point", "expected_galweight")


@_figure()
def mass_function(axes: Axes, table: pa.Table, completeness_log10_m200c: float = 14.0) -> None:
    """Mass functions with their Poisson bands and Tinker+2008 (paper's Fig. A1)."""
    drawn = table.filter(pc.greater(table["density_h3_mpc3_dex"], 0))
    drawn = drawn.filter(pc.invert(pc.is_in(drawn["estimator"], pa.array(_NOT_DRAWN))))
    theory = pa.array(["tinker08", "expected_cnn3d"])
    observed = drawn.filter(pc.invert(pc.is_in(drawn["estimator"], theory)))
    if not observed.num_rows:
        return _nothing(axes, "No cluster has a mass: there is no mass function to draw.")
    for name in sorted(set(drawn["estimator"].to_pylist())):
        label, colour, line = _ESTIMATORS.get(name, (name, GREEN, ":"))
        rows = drawn.filter(pc.equal(drawn["estimator"], name)).sort_by("log10_m200c")
        mass, density, low, high = to_numpy(
            rows, "log10_m200c", "density_h3_mpc3_dex", "density_low", "density_high"
        )
        banded = np.isfinite(low) & np.isfinite(high)
        if banded.any():
            axes.fill_between(
                mass[banded], np.maximum(low[banded], 1e-12), high[banded], color=colour,
                alpha=0.2, lw=0,
            )  # fmt: skip
        axes.plot(mass, density, line, color=colour, label=label)
    values = observed["density_h3_mpc3_dex"].to_numpy()
    axes.set(
        xlabel=_MASS, ylabel=r"$dn/d\log_{10}M$ [$h^3\,$Mpc$^{-3}\,$dex$^{-1}$]", yscale="log",
        ylim=(max(values.max() * 1e-4, 1e-9), values.max() * 8),
    )  # fmt: skip
    mass = observed["log10_m200c"].to_numpy()
    axes.set_xlim(mass.min(), mass.max())
    if axes.get_xlim()[0] < completeness_log10_m200c:
        axes.axvspan(
            axes.get_xlim()[0], completeness_log10_m200c, color=MUTED, alpha=0.15, lw=0,
            label="incomplete",
        )  # fmt: skip
    axes.legend()


@_figure(7.0, 3.9)
def sky_map(axes: Axes, masses: pa.Table, rejected: pa.Table | None = None) -> None:
    """Positions of the clusters, coloured by mass; east to the left."""
    if not masses.num_rows:
        return _nothing(axes, "No cluster was selected: the map is empty.")
    ra, dec, mass, n = to_numpy(masses, "ra", "dec", "log10_m200c", "n_galaxies")
    everything = ra if rejected is None else np.concatenate([ra, rejected["ra"].to_numpy()])
    cut = _widest_gap(everything)
    if rejected is not None and rejected.num_rows:
        other_ra, other_dec = to_numpy(rejected, "ra", "dec")
        axes.plot(_unwrap(other_ra, cut), other_dec, "x", ms=2.5, mew=0.7, color=MUTED, alpha=0.7,
                  label="not selected", rasterized=rejected.num_rows > _MANY_POINTS)  # fmt: skip
    size = 6 + 22 * np.sqrt(np.asarray(n, float) / max(np.max(n), 1))
    none = ~np.isfinite(mass)
    if none.any():
        axes.scatter(_unwrap(ra, cut)[none], dec[none], s=size[none], facecolors="none",
                     edgecolors=RED, lw=0.9, label="no mass")  # fmt: skip
    if (~none).any():
        points = axes.scatter(
            _unwrap(ra, cut)[~none], dec[~none], s=size[~none], c=mass[~none], cmap=_RAMP, lw=0,
            alpha=0.9, rasterized=len(ra) > _MANY_POINTS,
        )  # fmt: skip
        bar = axes.figure.colorbar(points, ax=axes, pad=0.02)
        bar.set_label(_MASS)
        bar.outline.set_visible(False)  # type: ignore[operator]
    axes.set(xlabel="Right ascension, J2000 [deg]", ylabel="Declination, J2000 [deg]")
    axes.invert_xaxis()
    axes.xaxis.set_major_formatter(lambda value, _: f"{value % 360:g}")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.1), ncols=2)


def _widest_gap(ra: np.ndarray) -> float:
    """Middle of the widest gap in right ascension, deg: where a map is best cut."""
    ordered = np.sort(ra)
    gaps = np.diff(np.append(ordered, ordered[0] + 360))
    widest = int(np.argmax(gaps))
    return float(ordered[widest] + gaps[widest] / 2) % 360


def _unwrap(ra: np.ndarray, cut: float) -> np.ndarray:
    return cut + np.mod(ra - cut, 360)


def overview(
    masses: pa.Table,
    clusters: pa.Table,
    coverage_table: pa.Table,
    residual_table: pa.Table,
    mass_function_table: pa.Table,
    completeness_log10_m200c: float = 14.0,
) -> Figure:
    """Four figures in one: masses against GalWeight, coverage, residuals, mass function."""
    paper: dict[Any, Any] = {"savefig.facecolor": "white", "figure.facecolor": "white"}
    with matplotlib.rc_context(STYLE | paper):
        figure = Figure(figsize=(11, 9), layout="constrained")
        axes = figure.subplots(2, 2)
        predicted_galweight.draw(axes[0, 0], masses, clusters)  # type: ignore[attr-defined]
        coverage.draw(axes[0, 1], coverage_table)  # type: ignore[attr-defined]
        residuals.draw(axes[1, 0], residual_table)  # type: ignore[attr-defined]
        mass_function.draw(  # type: ignore[attr-defined]
            axes[1, 1], mass_function_table, completeness_log10_m200c
        )
        titles = ("Clusters: CNN$_{3D}$ and GalWeight", "Posteriors on mocks",
                  "Residuals on mocks", "Mass function")  # fmt: skip
        for one, title in zip(axes.flat, titles, strict=True):
            one.set_title(title)
        return figure
