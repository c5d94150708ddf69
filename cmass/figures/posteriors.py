"""The network's answers on mocks: joint density, predictions, residuals, coverage, contamination.

The paper's Figs. 4 to 7, and the training that led there.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cmass import seeds
from cmass.evaluate import BANDS, metrics, residuals_table
from cmass.figures.house import Entry, Inputs, Number, Tables, rows
from cmass.figures.style import (
    BLUE,
    CLEAR_TO_BLUE,
    CNN,
    CNN_MASS,
    EPSILON,
    GREEN,
    INK,
    MUTED,
    RAMP,
    RED,
    TRUE_MASS,
    bands,
    canvas,
    diagonal,
    drawing,
    nothing,
    plain_log_ticks,
)
from cmass.params import Params
from cmass.posterior import grid_edges, quantiles
from cmass.recalibration import Posteriors, Recalibration, pairs_of
from cmass.tables import make_table, read_json, to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

#: Fewest mocks in a bin that is drawn.
_BIN_MIN = 5
#: Edges of the bins of a more massive neighbour's distance (eq. 6) and mass ratio.
_NEAR = (0.0, 2.0, 3.0, 4.0, 5.0, 6.0, np.inf)
_RATIO = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0, np.inf)


# ----------------------------------------------------------------------------- training


@drawing()
def loss_curve(axes: Axes, history: pa.Table) -> None:
    """Training and validation loss by epoch (table ``training_history``)."""
    if not history.num_rows:
        return nothing(axes, "No epoch was trained: there is no loss to draw.")
    epoch, loss, val_loss = to_numpy(history, "epoch", "loss", "val_loss")
    axes.plot(epoch, np.sqrt(loss), "o-", ms=3, color=BLUE, label="training")
    axes.plot(epoch, np.sqrt(val_loss), "s-", ms=3, color=RED, label="validation")
    best = int(np.argmin(val_loss))
    axes.axvline(epoch[best], color=GREEN, lw=1, ls=":", label=f"best epoch ({epoch[best]})")
    axes.set(xlabel="Epoch", ylabel="Root mean square error [dex]", yscale="log")
    plain_log_ticks(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()


# --------------------------------------------------------------------------------- Fig. 4


@drawing()
def joint_density(axes: Axes, joint: pa.Table) -> None:
    """Joint density of point estimate and true mass (table ``joint``)."""
    if joint.num_rows < 4:
        return nothing(axes, "There is no joint density to draw.")
    predicted, true, density = to_numpy(joint, "log10_m200c", "log10_m200c_true", "density")
    x, y = np.unique(predicted), np.unique(true)
    grid = np.zeros((y.size, x.size))
    grid[np.searchsorted(y, true), np.searchsorted(x, predicted)] = density
    image = axes.pcolormesh(x, y, grid, cmap=CLEAR_TO_BLUE, shading="nearest", rasterized=True)
    if grid.max() > 0:
        axes.contour(x, y, grid, levels=mass_levels(grid), colors=[RED], linewidths=1)
    diagonal(axes, x, y)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xlabel=CNN_MASS, ylabel=TRUE_MASS)
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02, shrink=0.9)
    bar.set_label(r"Joint probability density [dex$^{-2}$]")
    bar.outline.set_visible(False)  # type: ignore[operator]


def mass_levels(grid: np.ndarray) -> np.ndarray:
    """Densities whose contours hold 95 and 68 per cent of the total."""
    ordered = np.sort(grid.ravel())[::-1]
    inside = np.cumsum(ordered) / ordered.sum()
    found = np.searchsorted(inside, (0.95, 0.68))
    return np.unique(ordered[np.minimum(found, ordered.size - 1)])


def _joint_tables(inputs: Inputs) -> dict[str, pa.Table]:
    return {name: inputs[name] for name in ("joint", "test_predictions")}


def _joint_numbers(tables: Tables, params: Params) -> list[Number]:
    return [
        Number("Bandwidth factor of the density", params.posterior.plain_bandwidth, paper=0.20),
        Number("Test windows", float(tables["test_predictions"].num_rows), paper=20_000.0),
    ]


# --------------------------------------------------------------------------------- Fig. 5


def prediction_bands(
    true: Array, predicted: Array, posterior_quantiles: Array, width_dex: float
) -> pa.Table:
    """Table `prediction_bands`: means over the mocks in bins of true mass.

    Parameters
    ----------
    true, predicted : ndarray, shape (n,)
        log10 M200c in h⁻¹ M☉.
    posterior_quantiles : ndarray, shape (n, 5)
        2.275, 15.866, 50, 84.134 and 97.725 % of each posterior; NaN where there is none.
    width_dex : float
    """
    columns: dict[str, list[Any]] = {
        name: [] for name in
        ("log10_m200c_low", "log10_m200c_centre", "log10_m200c_high", "n", "log10_m200c",
         *(f"log10_m200c_{level}" for level in BANDS))
    }  # fmt: skip
    for low, high in pairwise(metrics.mass_bin_edges(true, width_dex)):
        own = (true >= low) & (true < high) & np.isfinite(posterior_quantiles).all(axis=1)
        means = [predicted[own].mean(), *posterior_quantiles[own].mean(axis=0)] if own.any() else []
        values = [low, (low + high) / 2, high, own.sum(), *(means or [None] * (1 + len(BANDS)))]
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    return make_table("prediction_bands", columns)


def _prediction_tables(inputs: Inputs) -> dict[str, pa.Table]:
    width = inputs.params.figures.mass_bin_dex
    true, predicted, n_galaxies, z = to_numpy(
        inputs["predictions"], "log10_m200c_true", "log10_m200c", "n_galaxies", "z"
    )
    recalibration = Recalibration.from_json(
        read_json(inputs.workspace.posterior / "recalibration.json")
    )
    posteriors = Posteriors(pairs_of(inputs["test_predictions"]), recalibration)
    edges = grid_edges(inputs["posterior_grid"])
    probabilities = posteriors.posterior(predicted, n_galaxies, z, edges)
    levels = quantiles(probabilities, edges, list(BANDS.values()))
    return {
        "prediction_bands": prediction_bands(true, predicted, levels, width),
        "residual_bands": residuals_table(true, predicted, width),
        "calibration": inputs["calibration"],
    }


@canvas(5.6, 7.2)
def predictions(figure: Figure, band_table: pa.Table, residual_table: pa.Table) -> None:
    """Predictions with posterior bands by true mass, and the residuals below."""
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.55, 1])
    shown = band_table.filter(pc.greater_equal(band_table["n"], _BIN_MIN))
    if not shown.num_rows:
        nothing(upper, "No mass bin holds enough mocks: there are no predictions to draw.")
        lower.set_axis_off()
        return
    centre, mean = to_numpy(shown, "log10_m200c_centre", "log10_m200c")
    edges = ("p2_5", "p16", "p84", "p97_5")
    bands(upper, centre, to_numpy(shown, *(f"log10_m200c_{e}" for e in edges)))
    upper.plot(centre, mean, color=BLUE, label="mean prediction")
    upper.plot(centre, centre, "--", color=INK, lw=1, label="equality")
    upper.set(ylabel=CNN_MASS)
    upper.legend(loc="upper left", ncols=2)
    residuals.draw(lower, residual_table, at_least=_BIN_MIN)  # type: ignore[attr-defined]
    lower.set_xlim(centre[0], centre[-1])


@drawing()
def residuals(axes: Axes, table: pa.Table, colour: str = BLUE, at_least: int = 2) -> None:
    """Mean and 1 and 2 sigma bands of the residuals by true mass (table ``residuals``)."""
    shown = table.filter(pc.and_(pc.greater_equal(table["n"], at_least), pc.is_valid(table["p50"])))
    if not shown.num_rows:
        return nothing(axes, "No mass bin holds a mock: there are no residuals to draw.")
    low, high, centre = to_numpy(shown, "log10_m200c_low", "log10_m200c_high", "log10_m200c_centre")
    limits, mean, n = (
        to_numpy(shown, "p2_5", "p16", "p84", "p97_5"), *to_numpy(shown, "mean", "n")
    )  # fmt: skip
    steps = centre.size <= _FEW_BINS
    if steps:  # each value belongs to a wide bin; the last one is repeated to close the step
        edges = np.append(low, high[-1])
        bands(axes, edges, [np.append(x, x[-1]) for x in limits], colour, step="post")
        axes.step(edges, np.append(mean, mean[-1]), where="post", color=colour, label="mean")
    else:
        bands(axes, centre, limits, colour)
        axes.plot(centre, mean, color=colour, label="mean")
    axes.axhline(0, color=INK, lw=1, ls="--")
    axes.set(xlabel=TRUE_MASS, ylabel=EPSILON)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom - 0.1 * (top - bottom), top + 0.12 * (top - bottom))
    if steps:
        for left, right, count in zip(low, high, n, strict=True):
            axes.annotate(
                f"n = {count}" if left == low[0] else f"{count}", ((left + right) / 2, 0.02),
                xycoords=("data", "axes fraction"), ha="center", fontsize=7.5, color=MUTED,
            )  # fmt: skip
    axes.legend(ncols=3, loc="upper right")


#: Up to so many bins are drawn as steps with their numbers.
_FEW_BINS = 8


# --------------------------------------------------------------------------------- Fig. 6


@drawing()
def coverage(axes: Axes, table: pa.Table) -> None:
    """Part of true masses inside the central interval, by its probability."""
    if not table.num_rows:
        return nothing(axes, "No mock was evaluated: there is no coverage to draw.")
    columns = ("level", "coverage", "coverage_low", "coverage_high")
    level, covered, low, high = to_numpy(table, *columns)
    axes.fill_between(
        level, low, high, color=MUTED, alpha=0.25, lw=0, label="95 % of calibrated posteriors"
    )
    axes.plot([0, 1], [0, 1], "--", color=INK, lw=1, label="ideal")
    axes.plot(level, covered, color=BLUE, label=f"{CNN} posteriors")
    axes.set(
        xlabel="Posterior probability in the interval", ylabel="Part of true masses inside",
        xlim=(0, 1), ylim=(0, 1),
    )  # fmt: skip
    axes.set_aspect("equal")
    axes.legend(loc="upper left")


# --------------------------------------------------------------------------------- Fig. 7


def contamination(predictions: pa.Table, clusters: pa.Table) -> pa.Table:
    """Table `contamination`: point estimates with the most massive neighbour in the window."""
    place = pc.index_in(
        predictions["cluster_id"], value_set=clusters["cluster_id"].combine_chunks()
    )
    own = clusters.take(place)
    return make_table(
        "contamination",
        {
            "cluster_id": predictions["cluster_id"], "halo_id": own["halo_id"],
            "log10_m200c_true": predictions["log10_m200c_true"],
            "log10_m200c": predictions["log10_m200c"],
            "contaminant_mass_ratio": own["contaminant_mass_ratio"],
            "contaminant_distance": own["contaminant_distance"],
        },
    )  # fmt: skip


def excess(table: pa.Table, width_dex: float) -> Array:
    """Residual less the mean residual of clean windows of the same true mass, dex, shape (n,).

    Mean reversion gives light haloes residuals of their own, and light haloes have more massive
    neighbours most often: without this the one would pass for the other. Clean windows, without
    a more massive neighbour, are averaged in bins of `width_dex`, with lines between the bins'
    mean masses. NaN where fewer than two bins hold clean windows.
    """
    true, predicted, ratio = to_numpy(
        table, "log10_m200c_true", "log10_m200c", "contaminant_mass_ratio"
    )
    epsilon, clean = metrics.residual(true, predicted), np.isnan(ratio)
    if not true.size:
        return epsilon
    number = np.digitize(true, metrics.mass_bin_edges(true, width_dex))
    found = [
        (true[own].mean(), epsilon[own].mean())
        for k in np.unique(number) if (own := clean & (number == k)).sum() >= _BIN_MIN
    ]  # fmt: skip
    if len(found) < 2:
        return np.full(true.size, np.nan)
    return epsilon - np.interp(true, *np.array(found).T)


def contamination_bins(table: pa.Table, params: Params) -> pa.Table:
    """Table `contamination_bins`: the excess by distance and mass ratio of the neighbour.

    Errors are from resampling haloes. The row ``clean`` is of the windows without a more
    massive neighbour: its mean is zero by construction, up to rounding of the bins.
    """
    columns: dict[str, list[Any]] = {
        name: [] for name in
        ("statistic", "coordinate_low", "coordinate_high", "n", "mean", "error", "scatter")
    }  # fmt: skip
    if table.num_rows:
        rest = excess(table, 2 * params.figures.mass_bin_dex)
        halo, ratio, distance = to_numpy(
            table, "halo_id", "contaminant_mass_ratio", "contaminant_distance"
        )
        bootstrap = metrics.Bootstrap(
            halo, seeds.generator(params.seed, "figures-contamination"), rounds=200
        )
        bins = [("clean", 0.0, np.inf, np.isnan(ratio))]
        for name, value, edges in (
            ("distance", distance, _NEAR), ("mass_ratio", ratio, _RATIO),
        ):  # fmt: skip
            for a, b in pairwise(edges):
                bins.append((name, a, b, (value >= a) & (value < b)))
        for name, a, b, own in bins:
            own &= np.isfinite(rest)

            def mean(chosen: metrics.Rows) -> float:
                return float(rest[chosen].mean()) if chosen.size else float("nan")

            values = (
                name, a, b if np.isfinite(b) else None, own.sum(),
                rest[own].mean() if own.any() else None,
                bootstrap.error(mean, own) if own.sum() > 1 else None,
                metrics.scatter(rest[own]) if own.sum() > 1 else None,
            )  # fmt: skip
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    return make_table("contamination_bins", columns)


def _contamination_tables(inputs: Inputs) -> dict[str, pa.Table]:
    table = contamination(inputs["predictions"], inputs["mock_clusters"])
    return {
        "contamination": table, "contamination_bins": contamination_bins(table, inputs.params),
    }  # fmt: skip


#: Distances of a neighbour (eq. 6) whose symbols the legend shows.
_SHOWN_DISTANCES = (2, 4, 6)


def _dot_area(distance: Any) -> Any:
    """Area of a symbol in square points, by the distance of the neighbour (eq. 6)."""
    return np.clip(140 / np.maximum(distance, 1) ** 2, 4, 90)


@canvas(10.4, 4.9)
def contaminated(figure: Figure, table: pa.Table, by_bin: pa.Table) -> None:
    """Predictions coloured by a more massive neighbour, and what it does to the residual."""
    if not table.num_rows:
        nothing(figure.add_subplot(), "No mock was evaluated: there is nothing to draw.")
        return
    grid = figure.add_gridspec(2, 2, width_ratios=[1.45, 1])
    left = figure.add_subplot(grid[:, 0])
    true, predicted, ratio, distance = to_numpy(
        table, "log10_m200c_true", "log10_m200c", "contaminant_mass_ratio", "contaminant_distance"
    )
    clean = np.isnan(ratio)
    left.plot(true[clean], predicted[clean], "o", ms=2, mew=0, color=MUTED, alpha=0.35,
              rasterized=True)  # fmt: skip
    left.plot([], [], "o", ms=3, mew=0, color=MUTED,
              label=f"none more massive ({clean.sum()})")  # fmt: skip
    diagonal(left, true, predicted)
    left.set(xlabel=TRUE_MASS, ylabel=CNN_MASS)
    if (~clean).any():
        order = np.argsort(ratio[~clean])
        x, y, c, d = (a[~clean][order] for a in (true, predicted, ratio, distance))
        image = left.scatter(
            x, y, c=c, s=_dot_area(d), cmap=RAMP, lw=0.4,
            edgecolors=INK, norm=LogNorm(1, max(10.0, float(c.max()))), alpha=0.9,
            rasterized=len(x) > 1500,
        )  # fmt: skip
        bar = figure.colorbar(image, ax=left, pad=0.02, shrink=0.9)
        bar.set_label("Mass ratio, neighbour over cluster")
        bar.outline.set_visible(False)  # type: ignore[operator]
        plain_log_ticks(bar.ax)
    for distance_shown in _SHOWN_DISTANCES:
        left.scatter([], [], s=_dot_area(distance_shown), facecolors="none", edgecolors=INK, lw=0.6,
                     label=f"neighbour at $d$ = {distance_shown}")  # fmt: skip
    left.legend(loc="lower right")
    for place, (name, words) in enumerate(
        (("distance", "Phase-space distance $d$ of the neighbour (eq. 6)"),
         ("mass_ratio", "Mass ratio, neighbour over cluster"))
    ):  # fmt: skip
        axes = figure.add_subplot(grid[place, 1])
        own = by_bin.filter(pc.equal(by_bin["statistic"], name))
        own = own.filter(pc.and_(pc.greater(own["n"], 1), pc.is_valid(own["mean"])))
        axes.axhline(0, color=INK, lw=1, ls="--")
        axes.set(xlabel=words, ylabel=r"$\Delta\epsilon$ [dex]")
        if not own.num_rows:
            nothing(axes, "No such neighbour.")
            continue
        n, mean, error, scatter = to_numpy(own, "n", "mean", "error", "scatter")
        place_of = np.arange(own.num_rows)
        axes.errorbar(place_of, mean, scatter, fmt="none", color=BLUE, alpha=0.25, lw=5)
        axes.errorbar(place_of, mean, error, fmt="o", ms=4.5, color=BLUE, lw=1.4, capsize=2)
        names = [
            f"{r['coordinate_low']:g}–{r['coordinate_high']:g}" if r["coordinate_high"]
            else f"> {r['coordinate_low']:g}" for r in own.to_pylist()
        ]  # fmt: skip
        axes.set_xticks(place_of, [f"{a}\n({k})" for a, k in zip(names, n, strict=True)],
                        fontsize=8)  # fmt: skip
        axes.set_xlim(-0.5, own.num_rows - 0.5)
        axes.grid(False, axis="x")


def _contamination_numbers(tables: Tables, params: Params) -> list[Number]:
    table, by_bin = tables["contamination"], tables["contamination_bins"]
    (ratio,) = to_numpy(table, "contaminant_mass_ratio")
    known = ratio[np.isfinite(ratio)]
    found = [Number("Windows with a more massive neighbour", float(known.size))]
    if known.size:
        found.append(Number("Largest mass ratio", float(known.max()), paper=20.0))
    for one in by_bin.to_pylist():
        if one["statistic"] == "distance" and one["mean"] is not None:
            upper = f" to {one['coordinate_high']:g}" if one["coordinate_high"] else " and beyond"
            found.append(
                Number(f"Excess residual, distance {one['coordinate_low']:g}{upper}",
                       one["mean"], one["error"], unit="dex")
            )  # fmt: skip
    return found


FIGURES = (
    Entry(
        "loss", "Training", "quality", ("history",), lambda t, p: loss_curve(t["history"]),
        "Root mean square error of log mass on training and validation mocks by epoch. The weights "
        "of the best epoch are kept.",
    ),
    Entry(
        "fig04_joint_density", "Joint density of prediction and truth", "proof",
        ("joint", "test_predictions"), lambda t, p: joint_density(t["joint"]),
        "Point estimate and true mass of the test mocks. A vertical slice is the posterior of a "
        "cluster with that point estimate, as the paper takes it: before recalibration. Contours "
        "hold 68 % and 95 %; the dashed line is equality.",
        paper="Fig. 4", tables=_joint_tables, numbers=_joint_numbers,
    ),
    Entry(
        "fig05_predictions", "Prediction and residual by true mass", "proof",
        ("predictions", "test_predictions", "posterior_grid", "calibration"),
        lambda t, p: predictions(t["prediction_bands"], t["residual_bands"]),
        "Evaluation mocks, which neither the network nor the posterior has seen, in bins of true "
        "mass. Above: mean point estimate and mean 1σ and 2σ limits of the posteriors (flat prior). "
        "Below: mean and 1σ and 2σ bands of ε = log₁₀(M_true/M_pred) of the point estimates; "
        "positive where the network underestimates.",
        paper="Fig. 5", tables=_prediction_tables,
        numbers=rows("calibration", "epsilon_mean", "epsilon_scatter", "epsilon_scatter_robust"),
    ),
    Entry(
        "fig06_coverage", "Coverage", "proof", ("coverage", "calibration"),
        lambda t, p: coverage(t["coverage"]),
        "How often the true mass lies in the central interval of the posterior, against the "
        "probability in that interval. The grey band holds 95 % of calibrated posteriors. The paper "
        "calls its curve near ideal and gives no number.",
        paper="Fig. 6",
        numbers=rows("calibration", "coverage_68", "coverage_95", "coverage_error_max",
                     "coverage_error_mean"),
    ),
    Entry(
        "fig07_contamination", "Contamination by more massive neighbours", "proof",
        ("predictions", "mock_clusters"),
        lambda t, p: contaminated(t["contamination"], t["contamination_bins"]),
        "Evaluation mocks. Left: point estimates, coloured by the mass of the most massive neighbour "
        "in the window over the cluster's own, larger symbols for nearer ones (distance in phase "
        "space, eq. 6). Right: Δε, the residual less that of windows of the same mass without such a "
        "neighbour, by distance and by mass ratio; negative where the neighbour makes the network "
        "overestimate. Points have errors of the mean, broad bars the scatter; in brackets the number "
        "of windows. Windows centred on a halo that a finder would list as part of the neighbour "
        "are in no set. The paper shows its test set.",
        paper="Fig. 7", tables=_contamination_tables, numbers=_contamination_numbers, wide=True,
    ),
)  # fmt: skip
