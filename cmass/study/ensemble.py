"""ensemble: how much of the error is the network's own, and whether its spread knows the error.

Networks that differ in first weights and in the order of batches alone, trained on the same windows,
make errors of their own, which a mean over networks averages away, and errors that they share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import spearmanr

from cmass.evaluate import metrics
from cmass.params import Params
from cmass.seeds import generator
from cmass.study import Study, check_plan, documents
from cmass.study.scores import halo_ids, table_of
from cmass.study.units import Unit, small
from cmass.tables import to_numpy
from cmass.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

#: Added to the mocks' seed for each further network.
_SEED_STEP = 101
_SPREAD_BINS = 5
#: Estimator of `cmass rivals` whose seeds are an ensemble of the run's size.
_NETWORK = "cnn3d"
#: Subsets of networks that are averaged over at most.
_MOST_SUBSETS = 20


def plan(workspace: Workspace, params: Params, seeds: Sequence[int]) -> list[Unit]:
    """``study.ensemble_size`` networks on the mocks of each seed."""
    check_plan(params, seeds)
    units = []
    for seed in dict.fromkeys(seeds):
        own = small(params, evaluation=params.study.evaluation_large)
        own = own.model_copy(update={"seed": seed})
        for number in range(params.study.ensemble_size):
            name = f"ensemble_{number}"
            units.append(Unit(
                name, own, workspace.study / "small" / f"{name}-{seed}", f"network {number + 1}",
                network_seed=seed + _SEED_STEP * number,
            ))  # fmt: skip
    return units


def decompose(residuals: Array) -> tuple[float, float]:
    """Scatter of the networks' own errors and of those that they share, dex.

    Unbiased in the squares: Var(ε) of one network is the sum of both.

    Parameters
    ----------
    residuals : ndarray, shape (k, n)
        log10(M_true/M_pred) of k networks on n windows; k at least 2.

    Returns
    -------
    own, common : float
        0 where chance makes a square negative.
    """
    centred = residuals - residuals.mean(axis=1, keepdims=True)
    k = len(centred)
    own = float(centred.var(axis=0, ddof=1).mean())
    common = float(centred.mean(axis=0).var(ddof=1)) - own / k
    return float(np.sqrt(own)), float(np.sqrt(max(common, 0.0)))


def rows_of(residuals: Array, halo: NDArray[np.int64], source: str, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:  # fmt: skip
    """Rows of tables `ensemble` and `ensemble_spread`.

    Parameters
    ----------
    residuals : ndarray, shape (k, n)
        log10(M_true/M_pred) of k networks on n windows, dex.
    halo : ndarray of int64, shape (n,)
        Resampled with all their windows.
    source : str
        What the networks are, for the table.
    seed : int
    """
    k, n = residuals.shape
    bootstrap = metrics.Bootstrap(halo, generator(seed, "study-ensemble"))
    rows: list[dict[str, Any]] = []
    for size in range(1, k + 1):
        parts = list(combinations(range(k), size))[:_MOST_SUBSETS]
        means = np.array([residuals[list(part)].mean(axis=0) for part in parts])

        def scatter(chosen: metrics.Rows, means=means) -> float:
            return float(np.mean([metrics.scatter(m[chosen]) for m in means]))

        rows.append({
            "source": source, "seed": seed, "n_networks": size, "n_evaluation": n,
            "epsilon_mean": float(means.mean()), "epsilon_scatter": scatter(np.arange(n)),
            "epsilon_scatter_error": bootstrap.error(scatter),
        })  # fmt: skip
    spread, error = residuals.std(axis=0, ddof=1), np.abs(residuals.mean(axis=0))

    def parts_of(chosen: metrics.Rows) -> list[float]:
        return [
            *decompose(residuals[:, chosen]),
            float(spearmanr(spread[chosen], error[chosen])[0]),
        ]

    names = ("network_scatter", "common_scatter", "spread_error_correlation")
    values, errors = parts_of(np.arange(n)), bootstrap.errors(parts_of)
    rows[-1] |= dict(zip(names, values, strict=True))
    rows[-1] |= {f"{name}_error": float(e) for name, e in zip(names, errors, strict=True)}
    spreads: list[dict[str, Any]] = []
    mean = residuals.mean(axis=0)
    edges = np.quantile(spread, np.linspace(0, 1, _SPREAD_BINS + 1))
    which = np.clip(np.searchsorted(edges, spread, side="right") - 1, 0, _SPREAD_BINS - 1)
    for number in range(_SPREAD_BINS):
        inside = which == number
        spreads.append({
            "source": source, "seed": seed, "bin_index": number, "n_evaluation": int(inside.sum()),
            "spread_median": float(np.median(spread[inside])),
            "epsilon_scatter": metrics.scatter(mean[inside]),
            "epsilon_scatter_error": bootstrap.error(lambda r: metrics.scatter(mean[r]), inside),
        })  # fmt: skip
    return rows, spreads


def tables(units: Sequence[Unit], workspace: Workspace, params: Params) -> dict[str, pa.Table]:
    """Tables `ensemble` and `ensemble_spread`: the study's networks, and the run's if it has some."""
    rows: list[dict[str, Any]] = []
    spreads: list[dict[str, Any]] = []
    for seed in dict.fromkeys(u.seed for u in units):
        own = [u.predictions("own") for u in units if u.seed == seed]
        predicted = np.array([to_numpy(t, "log10_m200c")[0] for t in own])
        (true,) = to_numpy(own[0], "log10_m200c_true")
        halo = halo_ids(own[0]["cluster_id"])
        a, b = rows_of(true - predicted, halo, "study", seed)
        rows, spreads = rows + a, spreads + b
    found = networks_of_the_run(workspace, params)
    if found is not None:
        a, b = rows_of(*found, "run", params.seed)
        rows, spreads = rows + a, spreads + b
    return {
        "ensemble": table_of("ensemble", rows),
        "ensemble_spread": table_of("ensemble_spread", spreads),
    }


def networks_of_the_run(
    workspace: Workspace, params: Params
) -> tuple[Array, NDArray[np.int64]] | None:
    """Residuals (k, n) and haloes (n,) of the CNN_3D that `cmass rivals` trained with several seeds.

    None where there are fewer than two, of the step or of the study of the rivals, that were made
    with the present products, parameters and code.
    """
    from cmass.rivals.units import plan as plan_rivals

    homes = (workspace.rivals, workspace.study / "rivals")
    cards = [card for home in homes for card in home.glob(f"{_NETWORK}-*/unit.json")]
    numbers = sorted({int(card.parent.name.rpartition("-")[2]) for card in cards})
    if len(numbers) < 2:
        return None
    only = params.rivals.model_copy(update={"estimators": (_NETWORK,)})
    units = plan_rivals(workspace, params.model_copy(update={"rivals": only}), numbers)
    tables = [unit.predictions() for unit in units if unit.is_made()]
    if len(tables) < 2:
        return None
    true, halo = to_numpy(tables[0], "log10_m200c_true", "halo_id")
    return true - np.array([to_numpy(t, "log10_m200c")[0] for t in tables]), halo


def markdown(tables: Mapping[str, pa.Table]) -> str:
    """One line for each number of networks, and the parts of the error in a sentence."""
    cells, words = [], []
    for source, of_source in documents.groups(tables["ensemble"], "source"):
        for size in sorted({r["n_networks"] for r in of_source}):
            rows = [r for r in of_source if r["n_networks"] == size]
            cells.append([
                _SOURCES[source], documents.seeds_of(rows), str(size),
                documents.value_cell(
                    *documents.mean_of(rows, "epsilon_scatter", "epsilon_scatter_error")
                ),
            ])  # fmt: skip
        last = [r for r in of_source if r["network_scatter"] is not None]

        def number(name: str, last=last, digits: int = 3) -> str:
            pair = documents.mean_of(last, name, f"{name}_error")
            return documents.value_cell(*pair, digits=digits)

        words.append(
            f"{_SOURCES[source].capitalize()}: the network's own error is "
            f"{number('network_scatter')} dex, what networks share "
            f"{number('common_scatter')} dex. Spread of the networks and size of the error of their "
            f"mean: rank correlation {number('spread_error_correlation', digits=2)}."
        )
    head = ["networks", "seeds of mocks", "averaged", "scatter, dex"]
    return "\n\n".join([documents.grid(head, cells), *words])


_SOURCES = {"study": "networks of the study's size", "run": "networks of the run's size"}


def draw(tables: Mapping[str, pa.Table]) -> Figure:
    """Scatter of the mean by number of networks; scatter by spread of the networks."""
    from matplotlib.ticker import MaxNLocator

    from cmass.study.figures import BLUE, GREEN, MUTED, RED, panels

    figure, (left, right) = panels(2, 9.0, 3.8)
    for colour, (source, rows) in zip(
        (BLUE, RED), documents.groups(tables["ensemble"], "source"), strict=False
    ):
        sizes = sorted({r["n_networks"] for r in rows})
        y, error = np.array([
            documents.mean_of([r for r in rows if r["n_networks"] == s], "epsilon_scatter",
                              "epsilon_scatter_error") for s in sizes
        ]).T  # fmt: skip
        left.errorbar(sizes, y, yerr=error, fmt="o", color=colour, capsize=3,
                      label=_SOURCES[source])  # fmt: skip
        last = [r for r in rows if r["network_scatter"] is not None]
        own = documents.mean_of(last, "network_scatter")[0]
        common = documents.mean_of(last, "common_scatter")[0]
        x = np.linspace(1, max(sizes), 100)
        left.plot(x, np.hypot(common, own / np.sqrt(x)), color=colour, lw=1)
        left.axhline(common, color=MUTED, ls=":", lw=1.2)
    left.set(xlabel="Networks averaged",
             ylabel=r"Scatter of $\log_{10}(M_\mathrm{true}/M_\mathrm{pred})$ [dex]")  # fmt: skip
    left.annotate("what they share", (1.0, common), (0, -4), textcoords="offset points", va="top",
                  color=MUTED, fontsize=9)  # fmt: skip
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend()
    for colour, (_, rows) in zip(
        (BLUE, RED), documents.groups(tables["ensemble_spread"], "source"), strict=False
    ):
        x, y, error = (np.array([r[c] for r in rows], float) for c in
                       ("spread_median", "epsilon_scatter", "epsilon_scatter_error"))  # fmt: skip
        right.errorbar(x, y, yerr=error, fmt="o", color=colour, capsize=3)
    top = right.get_xlim()[1]
    right.plot([0, top], [0, top], color=GREEN, lw=1, ls="--", label="scatter = spread")
    right.set(xlabel="Spread of the networks [dex]", ylabel="Scatter of their mean [dex]",
              xlim=(0, top), ylim=(0, None))  # fmt: skip
    right.legend()
    return figure


STUDY = Study(
    "ensemble", ("ensemble", "ensemble_spread"), tables, markdown, draw,
    "Scatter of the mean of several networks, and of windows by the networks' spread", plan,
)  # fmt: skip
