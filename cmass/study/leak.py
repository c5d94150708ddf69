"""leak: what it is worth to judge a network on sight lines of haloes that it learned from.

The same mocks, each halo seen along many sight lines, are dealt to the sets window by window or halo
by halo. Each network is judged on its own evaluation set and on haloes that none has seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from scipy.optimize import brentq

from cmass.mass_function import mass_function
from cmass.params import HaloParams, Params
from cmass.split import SETS
from cmass.study import Study, check_plan, documents
from cmass.study.scores import scores, table_of
from cmass.study.units import Unit, small
from cmass.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Fewest and most sight lines on a halo, where all have many; the most are the paper's.
FEWEST, MOST = 10, 25
#: Added to a unit's seed: haloes that no network of it has seen.
FRESH_SEED = 1_000_000
#: Where windows are judged.
OWN, FRESH = "own evaluation set", "fresh haloes"


def everywhere(params: Params) -> HaloParams:
    """Haloes of all masses along `FEWEST` to `MOST` sight lines, more where they are rarer."""
    haloes, z = params.mock.haloes, params.mock.snapshot_redshift

    def rarity(edge: float) -> float:
        low, at = mass_function(np.array([haloes.log10_m200c_min, edge]), z, params.cosmology)
        return float(np.log(at / (FEWEST * low)))

    edge = brentq(rarity, 10.0, haloes.log10_m200c_min)
    return haloes.model_copy(
        update={
            "sight_lines_max": MOST, "log10_m200c_many_sight_lines": float(edge),
            # Sets of whole haloes are not reached exactly: room for one more in each.
            "n_windows": haloes.n_windows + len(SETS) * MOST,
        }
    )  # fmt: skip


def as_in_the_paper(params: Params) -> HaloParams:
    """Up to `MOST` sight lines above 10^14.3, as the paper has them (section 2.2)."""
    return params.mock.haloes.model_copy(
        update={"sight_lines_max": MOST, "log10_m200c_many_sight_lines": 14.3}
    )


_KINDS = {
    "many": (everywhere, f"{FEWEST} to {MOST}"),
    "paper": (as_in_the_paper, f"1 to {MOST} (paper)"),
}


def plan(workspace: Workspace, params: Params, seeds: Sequence[int]) -> list[Unit]:
    """Two networks for every kind of mocks and seed: split by window and by halo."""
    check_plan(params, seeds)
    n_fresh = params.study.evaluation_large
    units = []
    for kind, (haloes_of, sight_lines) in _KINDS.items():
        for seed in dict.fromkeys(seeds):
            own = small(params, evaluation=n_fresh).model_copy(update={"seed": seed})
            fresh = _with_haloes(own, own.mock.haloes.model_copy(update={"n_windows": n_fresh}))
            fresh = fresh.model_copy(update={"seed": seed + FRESH_SEED})
            own = _with_haloes(own, haloes_of(own))
            ways: tuple[Literal["window", "halo"], ...] = ("window", "halo")
            for way in ways:
                name = f"leak_{kind}_{way}"
                units.append(Unit(
                    name, own, workspace.study / "small" / f"{name}-{seed}",
                    f"{sight_lines} sight lines, split by {way}", split_by=way, fresh=fresh,
                ))  # fmt: skip
    return units


def _with_haloes(params: Params, haloes: HaloParams) -> Params:
    mock = params.mock.model_copy(update={"haloes": haloes})
    return params.model_copy(update={"mock": mock})


def tables(units: Sequence[Unit], workspace: Workspace, params: Params) -> dict[str, pa.Table]:
    """Table `leak`."""
    rows: list[dict[str, Any]] = []
    for unit in units:
        kind = unit.name.split("_")[1]
        for judged_on, which in ((OWN, "own"), (FRESH, "fresh")):
            rows.append({
                "sight_lines": _KINDS[kind][1], "split_by": unit.split_by, "judged_on": judged_on,
                "seed": unit.seed, "n_learned": unit.n_learned,
            } | scores(unit.predictions(which), unit.seed))  # fmt: skip
    return {"leak": table_of("leak", rows)}


def by_split(table: pa.Table) -> list[dict[str, Any]]:
    """Means over the seeds: a row for each kind of mocks and split.

    ``own``, ``fresh``, ``leak`` (their difference), ``own_coverage`` and ``fresh_coverage`` are
    pairs of value and error. Haloes of the two sets are others, so errors add in quadrature.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        found.setdefault((row["sight_lines"], row["split_by"]), []).append(row)
    out = []
    for (sight_lines, split_by), rows in found.items():
        own = {r["seed"]: r for r in rows if r["judged_on"] == OWN}
        fresh = {r["seed"]: r for r in rows if r["judged_on"] == FRESH}
        change = {s: fresh[s]["epsilon_scatter"] - own[s]["epsilon_scatter"] for s in own}
        error = {
            s: float(np.hypot(fresh[s]["epsilon_scatter_error"], own[s]["epsilon_scatter_error"]))
            for s in own
        }
        numbers: dict[str, Any] = {"leak": documents.mean_and_error(change, error)}
        for name, which in (("own", own), ("fresh", fresh)):
            chosen = list(which.values())
            numbers[name] = documents.mean_of(chosen, "epsilon_scatter", "epsilon_scatter_error")
            numbers[f"{name}_coverage"] = documents.mean_of(
                chosen, "coverage_68", "coverage_68_error"
            )
        out.append({"sight_lines": sight_lines, "split_by": split_by, "seeds": len(own)} | numbers)
    return out


def markdown(tables: Mapping[str, pa.Table]) -> str:
    """One line for each kind of mocks and split."""
    cells = []
    for row in by_split(tables["leak"]):
        cells.append([
            row["sight_lines"], row["split_by"], str(row["seeds"]),
            documents.value_cell(*row["own"]), documents.value_cell(*row["fresh"]),
            documents.value_cell(*row["leak"], sign=True),
            documents.value_cell(*row["own_coverage"]),
            documents.value_cell(*row["fresh_coverage"]),
        ])  # fmt: skip
    head = ["sight lines a halo", "split by", "seeds", "scatter on its own evaluation set, dex",
            "on fresh haloes", "difference", "inside 68 %, own", "inside 68 %, fresh"]  # fmt: skip
    return documents.grid(head, cells)


def draw(tables: Mapping[str, pa.Table]) -> Figure:
    """Scatter on each network's own evaluation set and on fresh haloes, by split."""
    from cmass.study.figures import BLUE, RED, one_panel

    rows = by_split(tables["leak"])
    figure, axes = one_panel(5.8, 3.8)
    place = np.arange(len(rows))
    for name, colour, mark, shift in (("own", RED, "s", -0.08), ("fresh", BLUE, "o", 0.08)):
        value, error = np.array([row[name] for row in rows]).T
        label = OWN if name == "own" else FRESH
        axes.errorbar(place + shift, value, yerr=error, fmt=mark, ms=6, capsize=3, color=colour,
                      label=f"judged on {label}" if name == "fresh" else "judged on its own evaluation set")  # fmt: skip
    words = [f"split by {row['split_by']}\n{row['sight_lines']}\nsight lines" for row in rows]
    axes.set_xticks(place, words)
    axes.set(
        ylabel=r"Scatter of $\log_{10}(M_\mathrm{true}/M_\mathrm{pred})$ [dex]",
        xlim=(-0.5, len(rows) - 0.5),
    )  # fmt: skip
    axes.grid(False, axis="x")
    axes.legend()
    return figure


STUDY = Study(
    "leak", ("leak",), tables, markdown, draw,
    "What a random split of windows hides: scatter on its own evaluation set and on fresh haloes",
    plan,
)  # fmt: skip
