"""sensitivity: what the choices of the paper and of the simulator are worth, one at a time.

Each variation is one `Variation` below: its parameters, and whether a network of the usual choice
can read its windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cmass.calibrate.values import with_values
from cmass.columns import FLAGS
from cmass.evaluate import metrics
from cmass.mock.ingredients import EVERYTHING
from cmass.params import Params
from cmass.study import Study, check_plan, documents
from cmass.study.scores import residuals, scatter_change, scores, table_of
from cmass.study.units import Survey, Unit, plan_unit, read_survey, survey_masses
from cmass.tables import to_numpy
from cmass.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Variation:
    """Parameters that are changed together.

    Attributes
    ----------
    name : str
        Words joined by underscores: a folder of the study has this name.
    title : str
        In the table.
    values : mapping of str to value
        By dotted name.
    comparable : bool
        Whether its networks and the usual ones can read each other's windows.
    """

    name: str
    title: str
    values: Mapping[str, Any]
    comparable: bool = True


def _cosmology(
    omega_m: float, omega_b: float, h: float, sigma8: float, ns: float
) -> dict[str, float]:
    values = {"omega_m": omega_m, "omega_b": omega_b, "h": h, "sigma8": sigma8, "ns": ns}
    return {f"cosmology.{name}": value for name, value in values.items()}


_ALL = (
    Variation("kappa_0.15", "κ = 0.15", {"voxels.kappa": 0.15}),
    Variation("kappa_0.20", "κ = 0.20", {"voxels.kappa": 0.20}),
    Variation("window_1.6", "window ±1.6 h⁻¹ Mpc", {"window.half_width_mpc_h": 1.6}, False),
    Variation("window_6", "window ±6 h⁻¹ Mpc", {"window.half_width_mpc_h": 6.0}, False),
    Variation("flux_17.5", "flux limit r = 17.5", {"mock.galaxies.flux_limit_mag": 17.5}),
    Variation("flux_18.0", "flux limit r = 18.0", {"mock.galaxies.flux_limit_mag": 18.0}),
    Variation("planck_2018", "Planck 2018 (Ωm 0.3111, σ8 0.8102)",
              _cosmology(0.3111, 0.04897, 0.6766, 0.8102, 0.9665)),
    # As the Illustris simulations have it (Vogelsberger+2014).
    Variation("wmap_9", "WMAP (Ωm 0.2726, σ8 0.809)",
              _cosmology(0.2726, 0.0456, 0.704, 0.809, 0.963)),
    Variation("dense_linear", "linear dense layers (the paper's)",
              {"train.dense_activation": "linear"}),
    Variation("distance_150", "nearer than 150 h⁻¹ Mpc", {"window.distance_max_mpc_h": 150.0}),
)  # fmt: skip

#: Every variation by name.
VARIATIONS: Mapping[str, Variation] = MappingProxyType({v.name: v for v in _ALL})


def plan(workspace: Workspace, params: Params, seeds: Sequence[int]) -> list[Unit]:
    """For every seed the usual choice, then every variation of it."""
    check_plan(params, seeds)
    units = []
    for seed in dict.fromkeys(seeds):
        base = plan_unit(EVERYTHING, seed, workspace, params, full=False)
        units.append(base)
        for one in VARIATIONS.values():
            folder = workspace.study / "small" / f"{one.name}-{seed}"
            varied = with_values(base.params, one.values)
            units.append(Unit(one.name, varied, folder, one.title, base, one.comparable))
    return units


def tables(units: Sequence[Unit], workspace: Workspace, params: Params) -> dict[str, pa.Table]:
    """Table `sensitivity`."""
    survey = read_survey(workspace)
    return {"sensitivity": table_of("sensitivity", [_row(unit, survey, params) for unit in units])}


def _row(unit: Unit, survey: Survey | None, params: Params) -> dict[str, Any]:
    own = unit.predictions("own")
    row: dict[str, Any] = {"variation": unit.name, "seed": unit.seed} | scores(own, unit.seed)
    base = unit.base
    if base is None:
        row |= _epsilon(own, "reference") | _epsilon(own, "fixed_network")
    else:
        usual = base.predictions("own")
        row["scatter_change"], row["scatter_change_error"] = scatter_change(usual, own, unit.seed)
        if unit.comparable:
            fixed = unit.predictions("fixed")
            row |= _epsilon(unit.predictions("reference"), "reference")
            row |= _epsilon(fixed, "fixed_network")
            place = pc.index_in(fixed["cluster_id"], value_set=usual["cluster_id"].combine_chunks())
            (before,) = to_numpy(usual.take(place.drop_null()), "log10_m200c")
            (after,) = to_numpy(fixed.filter(place.is_valid()), "log10_m200c")
            row |= {"fixed_network_shift_mean": float((after - before).mean()),
                    "fixed_network_shift_scatter": metrics.scatter(after - before)}  # fmt: skip
    # Windows of the survey are as wide as the run's: a network of wider ones has none to read.
    if survey is not None and unit.params.window.half_width_mpc_h <= params.window.half_width_mpc_h:
        row |= _survey_numbers(unit, survey)
    return row


def _epsilon(table: pa.Table, prefix: str) -> dict[str, float]:
    e = residuals(table)
    return {
        f"{prefix}_epsilon_mean": float(e.mean()),
        f"{prefix}_epsilon_scatter": metrics.scatter(e),
    }


def _survey_numbers(unit: Unit, survey: Survey) -> dict[str, Any]:
    """Clusters weighed, and the shift of their masses, at redshifts that the network has seen."""
    mass, flag = to_numpy(survey_masses(unit, survey), "log10_m200c", "flag")
    known = np.isfinite(mass) & ((flag & FLAGS["redshift_outside_training"].value) == 0)
    if unit.base is None:
        return {"n_survey": int(known.sum())}
    (usual,) = to_numpy(survey_masses(unit.base, survey), "log10_m200c")
    shift = (mass - usual)[known & np.isfinite(usual)]
    return {
        "n_survey": int(known.sum()), "survey_shift_median": float(np.median(shift)),
        "survey_shift_scatter": metrics.scatter(shift),
    }  # fmt: skip


def markdown(tables: Mapping[str, pa.Table]) -> str:
    """One line a variation, means over the seeds."""
    cells = []
    for name, rows in documents.groups(tables["sensitivity"], "variation"):

        def cell(value: str, error: str | None = None, sign: bool = True, rows=rows) -> str:
            return documents.value_cell(*documents.mean_of(rows, value, error), sign=sign)

        usual = name == EVERYTHING
        cells.append([
            "the usual choice" if usual else VARIATIONS[name].title, documents.seeds_of(rows),
            cell("epsilon_mean", "epsilon_mean_error"),
            cell("epsilon_scatter", "epsilon_scatter_error", sign=False),
            cell("scatter_change", "scatter_change_error"),
            cell("fixed_network_epsilon_mean"), cell("fixed_network_epsilon_scatter", sign=False),
            cell("reference_epsilon_mean"), cell("reference_epsilon_scatter", sign=False),
            cell("survey_shift_median"), cell("survey_shift_scatter", sign=False),
        ])  # fmt: skip
    head = [
        "variation", "seeds", "own: ε mean", "scatter", "change of scatter",
        "usual network on its windows: ε mean", "scatter",
        "its network on the usual windows: ε mean", "scatter", "survey: shift", "scatter",
    ]  # fmt: skip
    return documents.grid(head, cells)


def draw(tables: Mapping[str, pa.Table]) -> Figure:
    """Change of scatter, and shift of the usual network, by variation."""
    from cmass.study.figures import BLUE, INK, RED, panels

    found = [(n, r) for n, r in documents.groups(tables["sensitivity"], "variation")
             if n != EVERYTHING]  # fmt: skip
    figure, (left, right) = panels(2, 9.0, 1.2 + 0.34 * len(found), sharey=True)
    place = np.arange(len(found))[::-1]
    change = np.array([
        documents.mean_of(r, "scatter_change", "scatter_change_error") for _, r in found
    ])  # fmt: skip
    left.errorbar(change[:, 0], place, xerr=change[:, 1], fmt="o", color=BLUE, capsize=3)
    left.set_yticks(place, [VARIATIONS[n].title for n, _ in found])
    left.set_xlabel("Change of the scatter, own windows [dex]")
    usual = next(r for n, r in documents.groups(tables["sensitivity"], "variation")
                 if n == EVERYTHING)  # fmt: skip
    for y, (_, rows) in zip(place, found, strict=True):
        for value, colour, mark, label in (
            ("fixed_network_epsilon_mean", RED, "s", "usual network on these windows"),
            ("epsilon_mean", BLUE, "o", "network trained on these windows"),
        ):
            mean, error = documents.mean_of(rows, value)
            if np.isfinite(mean):
                right.errorbar(mean, y, xerr=error if np.isfinite(error) else None, fmt=mark,
                               color=colour, capsize=3, label=label if y == place[0] else None)  # fmt: skip
    right.axvline(documents.mean_of(usual, "epsilon_mean")[0], color=INK, lw=1, ls=":")
    right.set_xlabel(r"Mean of $\log_{10}(M_\mathrm{true}/M_\mathrm{pred})$ [dex]")
    # Above the panel: there is no empty corner for it whatever the values.
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1)
    left.axvline(0, color=INK, lw=1, ls="--")
    return figure


STUDY = Study(
    "sensitivity", ("sensitivity",), tables, markdown, draw,
    "Change of the scatter, and mean residual of the usual and of the retrained network, by variation",
    plan,
)  # fmt: skip
