"""Residuals by what an observer knows of a cluster: distance, richness, predicted mass."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cmass import seeds
from cmass.evaluate import metrics
from cmass.evaluate.calibration import bin_number, quantile_bins
from cmass.figures.house import Entry, Inputs, Tables
from cmass.figures.style import BLUE, EPSILON, INK, MASS, RED, canvas, nothing
from cmass.params import Params
from cmass.tables import make_table, to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

#: Conditions by the name that column `statistic` has: label of the axis.
CONDITIONS = {
    "distance": "Comoving distance [$h^{-1}\\,$Mpc]",
    "richness": "Galaxies in the window",
    "predicted_mass": f"Point estimate {MASS}",
}
#: Most bins of a condition, each with at least so many windows.
_BINS, _BIN_MIN = 6, 15


def residual_bins(predictions: pa.Table, clusters: pa.Table, params: Params) -> pa.Table:
    """Table `residual_bins`: mean and scatter of the residual, with errors, by condition.

    Bins hold like numbers of windows; errors are from resampling haloes.
    """
    place = pc.index_in(
        predictions["cluster_id"], value_set=clusters["cluster_id"].combine_chunks()
    )
    halo, distance = to_numpy(clusters.take(place), "halo_id", "distance_mpc_h")
    true, predicted, n_galaxies = to_numpy(
        predictions, "log10_m200c_true", "log10_m200c", "n_galaxies"
    )
    epsilon = metrics.residual(true, predicted)
    bootstrap = metrics.Bootstrap(
        halo, seeds.generator(params.seed, "figures-conditions"), rounds=200
    )
    columns: dict[str, list[Any]] = {
        c: [] for c in ("statistic", "coordinate_low", "coordinate_high", "n", "mean", "error",
                        "scatter", "scatter_error")
    }  # fmt: skip
    values = {"distance": distance, "richness": n_galaxies.astype(float),
              "predicted_mass": predicted}  # fmt: skip
    for name, value in values.items():
        known = np.isfinite(epsilon) & np.isfinite(value)
        edges = quantile_bins(value[known], _BINS, _BIN_MIN)
        if not edges.size:
            continue
        number = np.where(known, bin_number(value, edges), -1)
        for k, (low, high) in enumerate(pairwise(edges)):
            own = number == k

            def both(rows: metrics.Rows) -> Array:
                return np.array([epsilon[rows].mean(), metrics.scatter(epsilon[rows])])

            mean, scatter = both(np.flatnonzero(own))
            error, scatter_error = bootstrap.errors(both, own)
            found = (name, low, high, own.sum(), mean, error, scatter, scatter_error)
            for column, one in zip(columns.values(), found, strict=True):
                column.append(one)
    return make_table("residual_bins", columns)


def _tables(inputs: Inputs) -> dict[str, pa.Table]:
    table = residual_bins(inputs["predictions"], inputs["mock_clusters"], inputs.params)
    return {"residual_bins": table}


@canvas(10.4, 3.9)
def by_condition(figure: Figure, table: pa.Table) -> None:
    """Mean and scatter of the residual by each condition (table ``residual_bins``)."""
    names = [n for n in CONDITIONS if n in set(table["statistic"].to_pylist())]
    if not names:
        nothing(figure.add_subplot(), "Too few mocks were evaluated for bins: nothing to draw.")
        return
    panels: list[Axes] = list(np.atleast_1d(figure.subplots(1, len(names), sharey=True)))
    for axes, name in zip(panels, names, strict=True):
        own = table.filter(pc.equal(table["statistic"], name))
        low, high, mean, error, scatter, scatter_error = to_numpy(
            own, "coordinate_low", "coordinate_high", "mean", "error", "scatter", "scatter_error"
        )
        middle = np.sqrt(low * high) if name == "richness" else (low + high) / 2
        half = [middle - low, high - middle]
        axes.errorbar(middle, mean, error, half, fmt="o", ms=4, color=BLUE, lw=1, capsize=2,
                      label="mean")  # fmt: skip
        axes.errorbar(middle, scatter, scatter_error, half, fmt="s", ms=4, color=RED, lw=1,
                      capsize=2, label="scatter")  # fmt: skip
        axes.axhline(0, color=INK, lw=1, ls="--")
        axes.set_xlabel(CONDITIONS[name])
        if name == "richness":
            axes.set_xscale("log")
            ticks = [t for t in (10, 20, 50, 100, 200, 500, 1000) if low[0] <= t <= high[-1]]
            axes.set_xticks(ticks, [str(t) for t in ticks])
            axes.minorticks_off()
    panels[0].set_ylabel(f"Mean and scatter of {EPSILON}")
    bottom, top = panels[0].get_ylim()
    panels[0].set_ylim(bottom, top + 0.15 * (top - bottom))
    panels[0].legend(loc="upper left", ncols=2)


def _caption(tables: Tables, params: Params) -> str:
    return (
        "Mean and standard deviation of ε = log₁₀(M_true/M_pred) of the evaluation mocks in bins of "
        "what an observer knows of a cluster. Bins hold like numbers of windows; errors are from "
        "resampling haloes. The mocks are flat in log mass: for a sample that is not, the mean by "
        "predicted mass is another."
    )


FIGURES = (
    Entry(
        "residuals_by_condition", "Residuals by distance, richness and predicted mass",
        "calibration", ("predictions", "mock_clusters"),
        lambda t, p: by_condition(t["residual_bins"]), _caption, tables=_tables, wide=True,
    ),
)  # fmt: skip
