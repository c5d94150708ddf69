"""The mocks: masses of the sets (paper, Fig. 1) and one window with its voxels (Fig. 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cmass.evaluate.metrics import mass_bin_edges
from cmass.figures.house import Entry, Inputs, Number, Tables
from cmass.figures.style import (
    BLUE,
    CLEAR_TO_BLUE,
    GREEN,
    INK,
    MUTED,
    RED,
    STYLE,
    TRUE_MASS,
    VIOLET,
    drawing,
    nothing,
)
from cmass.params import Params
from cmass.split import SETS
from cmass.tables import make_table, to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_SET_STYLE = {
    "train": ("training", BLUE, "-"), "validation": ("validation", MUTED, "--"),
    "test": ("test", RED, "-"), "evaluation": ("evaluation", GREEN, "-"),
}  # fmt: skip
#: Windows of the paper's sets (section 2.2): 10 % of the training set are for validation.
_PAPER_WINDOWS = {"train": 15_300, "validation": 1_700, "test": 20_000, "evaluation": 5_000}
#: Classes of galaxies (column galaxy_class) in words.
_CLASSES = {0: ("member", RED), 1: ("infalling", VIOLET), 2: ("interloper", MUTED)}
_X, _Y = r"$x_\mathrm{proj}$ [$h^{-1}\,$Mpc]", r"$y_\mathrm{proj}$ [$h^{-1}\,$Mpc]"
#: Voxels below this part of the peak are not drawn in 3D.
_FAINTEST = 0.05
_V_LOS = r"$v_\mathrm{los}$ [km/s]"


# --------------------------------------------------------------------------------- Fig. 1


def distributions(split: pa.Table, clusters: pa.Table, width_dex: float) -> pa.Table:
    """Table `mass_distributions`: windows of each set in bins of true mass."""
    rows = pc.index_in(split["cluster_id"], value_set=clusters["cluster_id"].combine_chunks())
    (true,) = to_numpy(clusters.take(rows), "log10_m200c_true")
    which = np.array(split["set"].to_pylist())
    edges = mass_bin_edges(true, width_dex)
    n = [np.histogram(true[which == name], edges)[0] for name in SETS]
    return make_table(
        "mass_distributions",
        {
            "set": np.repeat(SETS, edges.size - 1).tolist(),
            "log10_m200c_low": np.tile(edges[:-1], len(SETS)),
            "log10_m200c_high": np.tile(edges[1:], len(SETS)),
            "n": np.concatenate(n),
        },
    )


def _distribution_tables(inputs: Inputs) -> dict[str, pa.Table]:
    width = inputs.params.figures.mass_bin_dex
    table = distributions(inputs["split"], inputs["mock_clusters"], width)
    return {"mass_distributions": table}


@drawing()
def mass_distributions(axes: Axes, table: pa.Table) -> None:
    """Windows by true mass, one line a set (table ``mass_distributions``)."""
    if not table.num_rows:
        return nothing(axes, "No set holds a window: there are no masses to draw.")
    for name in SETS:
        own = table.filter(pc.equal(table["set"], name))
        low, high, n = to_numpy(own, "log10_m200c_low", "log10_m200c_high", "n")
        label, colour, line = _SET_STYLE[name]
        axes.stairs(n, np.append(low, high[-1]), color=colour, ls=line, lw=1.6,
                    label=f"{label} ({n.sum()})")  # fmt: skip
    width = float(high[0] - low[0])
    axes.set(xlabel=TRUE_MASS, ylabel=f"Windows per bin of {width:.2g} dex [count]")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.28)
    axes.legend(loc="upper right", ncols=2)


def _distribution_caption(tables: Tables, params: Params) -> str:
    haloes = params.mock.haloes
    return (
        "Mock windows by true mass in the sets that train, stop, calibrate and judge the network. "
        f"No halo is in two sets. Masses are drawn flat from {haloes.log10_m200c_min:g} to "
        f"{haloes.log10_m200c_max:g} (the paper: from 13.7 to 14.9, thinning out above); windows "
        "centred on a more massive halo belong to no set."
    )


def _window_numbers(tables: Tables, params: Params) -> list[Number]:
    table = tables["mass_distributions"]
    found = []
    for name in SETS:
        total = pc.sum(table.filter(pc.equal(table["set"], name))["n"]).as_py()
        found.append(Number(f"Windows of the {_SET_STYLE[name][0]} set", float(total or 0),
                            paper=float(_PAPER_WINDOWS[name])))  # fmt: skip
    return found


# --------------------------------------------------------------------------------- Fig. 2


def representative(
    clusters: pa.Table, log10_m200c: float, within_dex: float = 0.1, at_least: int = 10
) -> str:
    """Window of a mass that is like most of that mass.

    The windows within `within_dex` of `log10_m200c` (or the `at_least` nearest in mass, where
    fewer are so near), and of these the one whose number of galaxies is nearest to their median;
    of equals the first by name.

    Parameters
    ----------
    clusters : pyarrow.Table
        cluster_id, log10_m200c_true and n_galaxies of the windows to choose from.
    log10_m200c : float
        h⁻¹ M☉.

    Returns
    -------
    str
        Its cluster_id.
    """
    ids = np.array(clusters["cluster_id"].to_pylist())
    true, n = to_numpy(clusters, "log10_m200c_true", "n_galaxies")
    distance = np.abs(true - log10_m200c)
    limit = max(within_dex, np.sort(distance)[min(at_least, distance.size) - 1])
    near = distance <= limit
    off = np.abs(n[near] - np.median(n[near]))
    return str(np.sort(ids[near][off == off.min()])[0])


def _window_tables(inputs: Inputs) -> dict[str, pa.Table]:
    split, clusters = inputs["split"], inputs["mock_clusters"]
    ids = split.filter(pc.equal(split["set"], "evaluation"))["cluster_id"].combine_chunks()
    chosen = representative(
        clusters.filter(pc.is_in(clusters["cluster_id"], value_set=ids)),
        inputs.params.figures.window_log10_m200c,
    )
    own = clusters.filter(pc.equal(clusters["cluster_id"], chosen))
    galaxies = _galaxies_of(inputs, chosen)
    return {
        "window_cluster": own, "window_galaxies": galaxies,
        "window_voxels": voxel_table(galaxies, inputs.params),
    }  # fmt: skip


def _galaxies_of(inputs: Inputs, cluster_id: str) -> pa.Table:
    """Galaxies of one mock window, without reading those of all others at once."""
    from cmass.columns import TABLES
    from cmass.tables import read_table

    for file in sorted(inputs.path("mock_galaxies").glob("*.parquet")):
        table = read_table(file, "mock_galaxies")
        own = table.filter(pc.equal(table["cluster_id"], cluster_id))
        if own.num_rows:
            return own.combine_chunks()
    return TABLES["mock_galaxies"].arrow_schema().empty_table()


def voxel_table(galaxies: pa.Table, params: Params) -> pa.Table:
    """Table `window_voxels`: the density of one window as the network reads it."""
    from cmass.voxels import density_grid

    n, half, v_max = params.voxels.n, params.window.half_width_mpc_h, params.window.v_max_km_s
    grid = density_grid(
        np.column_stack(to_numpy(galaxies, "x_proj", "y_proj", "v_los")),
        kappa=params.voxels.kappa, half_width=half, v_max=v_max, n=n,
    )  # fmt: skip
    side, speed = np.linspace(-half, half, n), np.linspace(-v_max, v_max, n)
    x, y, v = np.meshgrid(side, side, speed, indexing="ij")
    columns = {
        "x_proj": x.ravel(), "y_proj": y.ravel(), "v_los": v.ravel(), "probability": grid.ravel(),
    }  # fmt: skip
    return make_table("window_voxels", columns)


def window(cluster: pa.Table, galaxies: pa.Table, voxels: pa.Table) -> Figure:
    """One mock window: galaxies and voxels in 3D, and the voxels' three projections."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 8.4))
        if not galaxies.num_rows:
            nothing(figure.add_subplot(), "The window holds no galaxy: there is nothing to draw.")
            return figure
        top = figure.add_gridspec(1, 2, left=0.0, right=0.97, top=1.0, bottom=0.4, wspace=0.02)
        low = figure.add_gridspec(1, 3, left=0.07, right=0.985, top=0.36, bottom=0.075, wspace=0.33)
        grid, axes_of = _grid(voxels)
        edges = float(axes_of[0][-1]), float(axes_of[2][-1])
        _galaxies_3d(figure.add_subplot(top[0], projection="3d"), galaxies, edges)
        _voxels_3d(figure.add_subplot(top[1], projection="3d"), grid, axes_of)
        for place, (across, up) in enumerate(((0, 1), (0, 2), (1, 2))):
            _projection(figure.add_subplot(low[place]), grid, axes_of, galaxies, across, up)
    return figure


def _grid(voxels: pa.Table) -> tuple[Array, list[Array]]:
    """Voxels as a cube (x, y, v), and the coordinates along its axes."""
    columns = to_numpy(voxels, "x_proj", "y_proj", "v_los")
    axes_of = [np.unique(column) for column in columns]
    (probability,) = to_numpy(voxels, "probability")
    return probability.reshape([a.size for a in axes_of]).astype(float), axes_of


def _dress(axes: Any, window: tuple[float, float]) -> None:
    """Axes of a window of half width (h⁻¹ Mpc) and largest speed (km/s)."""
    side, speed = window
    axes.set(xlim=(-side, side), ylim=(-side, side), zlim=(-speed, speed))
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.set_xlabel(_X, labelpad=6)
    axes.set_ylabel(_Y, labelpad=6)
    axes.set_zlabel(_V_LOS, labelpad=11)
    axes.tick_params(labelsize=8, pad=1)
    axes.tick_params(axis="z", pad=6)
    axes.view_init(elev=18, azim=-58)
    axes.set_box_aspect((1, 1, 0.9), zoom=0.94)


def _galaxies_3d(axes: Any, galaxies: pa.Table, window: tuple[float, float]) -> None:
    x, y, v = to_numpy(galaxies, "x_proj", "y_proj", "v_los")
    kind = galaxies["galaxy_class"].fill_null(-1).to_numpy()
    known = False
    for number, (words, colour) in _CLASSES.items():
        own = kind == number
        if own.any():
            known = True
            axes.scatter(x[own], y[own], v[own], s=9, color=colour, lw=0, alpha=0.85,
                         depthshade=False, label=f"{words} ({own.sum()})")  # fmt: skip
    if (kind == -1).any():
        axes.scatter(x[kind == -1], y[kind == -1], v[kind == -1], s=9, color=BLUE, lw=0,
                     depthshade=False, label=f"galaxy ({(kind == -1).sum()})")  # fmt: skip
        known = True
    if known:
        axes.legend(loc="upper left", bbox_to_anchor=(0.08, 0.93), markerscale=1.6)
    _dress(axes, window)


def _voxels_3d(axes: Any, grid: Array, axes_of: list[Array]) -> None:
    """Voxels above a twentieth of the peak; the fainter, the clearer."""
    bright = grid > _FAINTEST * grid.max()
    places, value = np.argwhere(bright), grid[bright] / grid.max()
    order = np.argsort(value)
    x, y, v = (axes_of[k][places[order, k]] for k in range(3))
    colours = np.tile(to_rgba(BLUE), (order.size, 1))
    colours[:, 3] = 0.02 + 0.6 * value[order] ** 1.5
    axes.scatter(x, y, v, c=colours, s=7, marker="s", lw=0, depthshade=False, rasterized=True)
    _dress(axes, (float(axes_of[0][-1]), float(axes_of[2][-1])))


def _projection(
    axes: Axes, grid: Array, axes_of: list[Array], galaxies: pa.Table, across: int, up: int
) -> None:
    (left_out,) = {0, 1, 2} - {across, up}
    flat = grid.sum(axis=left_out)  # axes stay in the order (x, y, v), and across < up
    axes.pcolormesh(axes_of[across], axes_of[up], np.sqrt(flat.T / flat.max()),
                    cmap=CLEAR_TO_BLUE, shading="nearest", rasterized=True)  # fmt: skip
    points = to_numpy(galaxies, "x_proj", "y_proj", "v_los")
    axes.plot(points[across], points[up], "o", ms=1.6, mew=0, color=INK, alpha=0.7)
    names = (_X, _Y, _V_LOS)
    axes.set(xlabel=names[across], ylabel=names[up], xlim=axes_of[across][[0, -1]],
             ylim=axes_of[up][[0, -1]])  # fmt: skip
    axes.grid(False)


def _window_caption(tables: Tables, params: Params) -> str:
    own = tables["window_cluster"].to_pylist()[0]
    return (
        f"Mock window {own['cluster_id']} of the evaluation set: log₁₀ M200c = "
        f"{own['log10_m200c_true']:.2f}, z = {own['z']:.3f}, {own['n_galaxies']} galaxies. Of the "
        f"windows within 0.1 dex of {params.figures.window_log10_m200c:g} it is the one whose "
        "number of galaxies is nearest to their median. Above: galaxies by what they are, and "
        f"the {params.voxels.n}³ voxels that the network reads, above {100 * _FAINTEST:g} % of the peak. Below: the "
        "voxels summed along one axis (shading: square root), galaxies as dots."
    )


FIGURES = (
    Entry(
        "fig01_mass_distributions", "Masses of the mock sets", "proof", ("split", "mock_clusters"),
        lambda t, p: mass_distributions(t["mass_distributions"]),
        _distribution_caption,
        paper="Fig. 1", tables=_distribution_tables, numbers=_window_numbers,
    ),
    Entry(
        "fig02_window", "One cluster and its voxels", "proof",
        ("split", "mock_clusters", "mock_galaxies"),
        lambda t, p: window(t["window_cluster"], t["window_galaxies"], t["window_voxels"]),
        _window_caption, paper="Fig. 2", tables=_window_tables, wide=True,
    ),
)  # fmt: skip
