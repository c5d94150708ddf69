"""learning: how the scatter falls with the number of training windows.

Networks learn from nested parts of one training set; test and evaluation sets are the same. Small
sets are run through more often, so that every network may take as many steps as the one with most
windows: what differs is what they see, not how long they look.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import curve_fit

from cmass.evaluate import metrics
from cmass.params import Params
from cmass.seeds import generator
from cmass.study import Study, check_plan, documents
from cmass.study.scores import halo_ids, residuals, scores, table_of
from cmass.study.units import Unit, small
from cmass.tables import make_table, to_numpy
from cmass.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

#: Windows at which the power law's amplitude is given.
PIVOT = 1000.0
#: Training windows of the paper, for which the fit is read off.
PAPER = 17_000
_ROUNDS = 200


def plan(workspace: Workspace, params: Params, seeds: Sequence[int]) -> list[Unit]:
    """A network for every size and seed; the sizes of one seed share its mocks."""
    check_plan(params, seeds)
    study = params.study
    sizes = sorted(set(study.learning_sizes))
    units = []
    for seed in dict.fromkeys(seeds):
        own = small(params, train=sizes[-1], evaluation=study.evaluation_large)
        for n in sizes:
            longer = sizes[-1] / n
            train = own.train.model_copy(update={
                "epochs": math.ceil(own.train.epochs * longer),
                "patience": math.ceil(own.train.patience * longer),
            })  # fmt: skip
            name = f"learning_{n}"
            units.append(Unit(
                name, own.model_copy(update={"seed": seed, "train": train}),
                workspace.study / "small" / f"{name}-{seed}", f"{n} training windows", n_train=n,
            ))  # fmt: skip
    return units


def power_law(n: ArrayLike, floor: float, amplitude: float, slope: float) -> Array:
    """Scatter of a network that learned from n windows: floor + amplitude (n/1000)^−slope, dex."""
    return floor + amplitude * (np.asarray(n, float) / PIVOT) ** -slope


def fit_power_law(n: ArrayLike, scatter: ArrayLike) -> Array:
    """Floor (dex), amplitude (dex) and slope of `power_law`, by least squares, none negative.

    Parameters
    ----------
    n, scatter : array_like, shape (k,)
        Training windows and scatter, dex; k at least 4.
    """
    x, y = np.asarray(n, float), np.asarray(scatter, float)
    start = [0.8 * y.min(), max(y.max() - 0.8 * y.min(), 1e-3), 0.5]
    found, _ = curve_fit(
        power_law, x, y, p0=start, bounds=([0, 0, 0.05], [y.min(), 10, 3]), maxfev=20_000
    )
    return np.asarray(found)


def tables(units: Sequence[Unit], workspace: Workspace, params: Params) -> dict[str, pa.Table]:
    """Tables `learning` and `learning_fit`."""
    rows: list[dict[str, Any]] = []
    owns: list[tuple[Array, NDArray[np.int64], int]] = []
    for unit in units:
        own = unit.predictions("own")
        rows.append({"n_train": unit.n_train, "seed": unit.seed, "n_learned": unit.n_learned,
                     "epochs": unit.params.train.epochs} | scores(own, unit.seed))  # fmt: skip
        owns.append((residuals(own), halo_ids(own["cluster_id"]), unit.seed))
    n = np.array([row["n_learned"] for row in rows], float)
    y = np.array([row["epsilon_scatter"] for row in rows])
    values = _fitted(n, y)
    rest = y - power_law(n, *values[:3])
    noise = float(np.sqrt((rest**2).sum() / max(len(y) - 3, 1)))
    rng = generator(params.seed, "study-learning")
    drawn = np.array([
        _fitted(n, _resampled(owns, rng) + noise * rng.standard_normal(len(y)))
        for _ in range(_ROUNDS)
    ])  # fmt: skip
    fit = {
        "metric": ["floor", "amplitude", "slope", f"at_{PAPER}"],
        "value": values, "error": drawn.std(axis=0, ddof=1), "unit": ["dex", "dex", "", "dex"],
    }  # fmt: skip
    return {"learning": table_of("learning", rows), "learning_fit": make_table("learning_fit", fit)}


def _fitted(n: Array, y: Array) -> Array:
    found = fit_power_law(n, y)
    return np.append(found, power_law(PAPER, *found))


def _resampled(owns: list[tuple[Array, NDArray[np.int64], int]], rng: np.random.Generator) -> Array:
    """Scatter of each network on resampled haloes: those of one seed judge all its networks."""
    repeats: dict[int, NDArray[np.int64]] = {}
    out = []
    for e, halo, seed in owns:
        if seed not in repeats:
            known = np.unique(halo)
            drawn = rng.choice(known, known.size)
            repeats[seed] = np.bincount(drawn, minlength=int(known.max()) + 1)
        out.append(metrics.scatter(np.repeat(e, repeats[seed][halo])))
    return np.array(out)


def markdown(tables: Mapping[str, pa.Table]) -> str:
    """One line a size, and the fit in a sentence."""
    cells = []
    for _, rows in documents.groups(tables["learning"], "n_train"):
        own = documents.mean_of(rows, "epsilon_scatter", "epsilon_scatter_error")
        cells.append([
            str(round(np.mean([r["n_learned"] for r in rows]))), str(rows[0]["epochs"]),
            documents.seeds_of(rows),
            documents.value_cell(*documents.mean_of(rows, "epsilon_mean", "epsilon_mean_error"),
                                 sign=True),
            documents.value_cell(*own),
            documents.value_cell(*documents.mean_of(rows, "coverage_68", "coverage_68_error")),
        ])  # fmt: skip
    head = ["training windows", "epochs at most", "seeds", "ε mean, dex", "scatter, dex",
            "inside 68 %"]  # fmt: skip
    fit = {r["metric"]: (r["value"], r["error"]) for r in tables["learning_fit"].to_pylist()}
    words = (
        f"Fit: scatter = f + a (n/1000)^−b with f = {documents.value_cell(*fit['floor'])} dex, "
        f"a = {documents.value_cell(*fit['amplitude'])} dex, "
        f"b = {documents.value_cell(*fit['slope'], digits=2)}; "
        f"at {PAPER} windows {documents.value_cell(*fit[f'at_{PAPER}'])} dex."
    )
    return f"{documents.grid(head, cells)}\n\n{words}"


def draw(tables: Mapping[str, pa.Table]) -> Figure:
    """Scatter by number of training windows, and the fit."""
    from cmass.study.figures import BLUE, INK, MUTED, one_panel

    figure, axes = one_panel()
    table = tables["learning"]
    n, y, error = to_numpy(table, "n_learned", "epsilon_scatter", "epsilon_scatter_error")
    fit = {r["metric"]: r["value"] for r in tables["learning_fit"].to_pylist()}
    law = [fit[k] for k in ("floor", "amplitude", "slope")]
    seeds = np.array(table["seed"].to_pylist())
    for number, seed in enumerate(np.unique(seeds)):
        own = seeds == seed
        shift = 1 + 0.03 * (number - 0.5)
        axes.errorbar(
            n[own] * shift, y[own], yerr=error[own], fmt="os^D"[number % 4], ms=5, capsize=2,
            color=BLUE, alpha=0.9 - 0.2 * (number % 4), label=f"seed {seed}",
        )  # fmt: skip
    x = np.geomspace(n.min() / 1.3, max(n.max(), PAPER) * 1.2, 200)
    axes.plot(x, power_law(x, *law), color=INK, label="power law and floor")
    axes.axhline(law[0], color=MUTED, ls=":", label="floor")
    axes.axvline(PAPER, color=MUTED, lw=1, ls="--")
    axes.annotate("paper", (PAPER, y.max()), (-4, 0), textcoords="offset points", ha="right",
                  va="top", color=MUTED, fontsize=9)  # fmt: skip
    axes.set(
        xscale="log", xlabel="Training windows",
        ylabel=r"Scatter of $\log_{10}(M_\mathrm{true}/M_\mathrm{pred})$ [dex]",
    )  # fmt: skip
    ticks = sorted({*table["n_train"].to_pylist(), PAPER})
    axes.set_xticks(ticks, [str(t) for t in ticks], rotation=30)
    axes.minorticks_off()
    axes.legend()
    return figure


STUDY = Study(
    "learning", ("learning", "learning_fit"), tables, markdown, draw,
    "Scatter of the mass by the number of training windows, with a power law and floor", plan,
)  # fmt: skip
