"""What the units of a study say, as tables `ingredients` and `nuisance`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.special import ndtr

from cmass.evaluate import calibration, metrics
from cmass.evaluate.forward import pull
from cmass.mock.ingredients import EVERYTHING
from cmass.posterior import TAIL
from cmass.study.scores import table_of
from cmass.study.units import Survey, Unit, survey_masses
from cmass.tables import to_numpy

Array = NDArray[np.float64]
Units = Mapping[tuple[str, int], Unit]

#: Row of table `ingredients` that compares two networks of the same simulator.
ANOTHER_SEED = "another_seed"
#: Table `clusters` of the survey where the look at GalWeight is meant, otherwise None.
Catalogue: TypeAlias = pa.Table | None


def ingredients_table(units: Units, survey: Survey | None, catalogue: Catalogue = None) -> pa.Table:
    """Table `ingredients`: what each ingredient is worth, a row for each and each seed.

    Parameters
    ----------
    units : mapping of (name, seed) to Unit
        All made; of every seed the full simulator is among them.
    survey : Survey, optional
        Clusters without known masses on which networks are compared.
    catalogue : pyarrow.Table, optional
        Table `clusters` of the survey: compares with GalWeight, which is a look at the result.
    """
    rows = [_ingredient_row(unit, units[EVERYTHING, unit.seed], survey, catalogue)
            for unit in units.values()]  # fmt: skip
    seeds = sorted({seed for _, seed in units})
    if survey is not None and len(seeds) > 1:
        for seed, following in pairwise(seeds):
            one, other = units[EVERYTHING, seed], units[EVERYTHING, following]
            rows.append({"ingredient": ANOTHER_SEED, "seed": seed, "n_evaluation": 0}
                        | _survey_shift(other, one, survey))  # fmt: skip
    return table_of("ingredients", rows)


def _ingredient_row(
    unit: Unit, everything: Unit, survey: Survey | None, catalogue: Catalogue
) -> dict[str, Any]:
    own = unit.predictions("own")
    row: dict[str, Any] = {
        "ingredient": unit.name, "seed": unit.seed, "n_evaluation": own.num_rows,
        **_epsilon(own, "epsilon"),
    }  # fmt: skip
    if unit.name == EVERYTHING:
        row |= _epsilon(own, "reference_epsilon")
    else:
        row |= _epsilon(unit.predictions("reference"), "reference_epsilon")
        before, after = _paired(everything.predictions("own"), unit.predictions("fixed"))
        row |= {"fixed_network_shift_mean": float((after - before).mean()),
                "fixed_network_shift_scatter": metrics.scatter(after - before)}  # fmt: skip
    if survey is not None:
        row["n_survey"] = int(np.isfinite(_point(unit, survey)).sum())
        if unit.name != EVERYTHING:
            row |= _survey_shift(unit, everything, survey)
        if catalogue is not None:
            row |= _galweight(survey_masses(unit, survey), catalogue)
    return row


def nuisance_table(
    kinds: Mapping[str, str], units: Units, survey: Survey | None, catalogue: Catalogue = None
) -> pa.Table:
    """Table `nuisance`: each network on mocks of each kind and on the survey.

    Parameters
    ----------
    kinds : mapping of str to str
        What to call the simulators in the table, by the name of their units; the full
        simulator's is the one that shifts refer to.
    units, survey, catalogue
        As for `ingredients_table`.
    """
    rows = []
    for (name, seed), unit in units.items():
        everything = units[EVERYTHING, seed]
        if name == EVERYTHING:
            others = {k: units[k, seed].predictions("fixed") for k in kinds if k != EVERYTHING}
            tables = {EVERYTHING: unit.predictions("own"), **others}
        else:
            tables = {EVERYTHING: unit.predictions("reference"), name: unit.predictions("own")}
        for kind, table in tables.items():
            by_everything = everything.predictions("own")
            if kind != EVERYTHING:
                by_everything = units[kind, seed].predictions("fixed")
            row = {"trained_on": kinds[name], "evaluated_on": kinds[kind], "seed": seed,
                   "n": table.num_rows, **_epsilon(table, "epsilon"), **_coverage(table),
                   **_width(table)}  # fmt: skip
            if name != EVERYTHING:
                before, after = _paired(by_everything, table)
                row |= _shift(after - before)
            rows.append(row)
        if survey is not None:
            masses = survey_masses(unit, survey)
            row = {"trained_on": kinds[name], "evaluated_on": survey.name, "seed": seed,
                   "n": int(np.isfinite(_point(unit, survey)).sum()), **_width(masses)}  # fmt: skip
            if name != EVERYTHING:
                row |= _shift(_point(unit, survey) - _point(everything, survey))
            if catalogue is not None:
                row |= _galweight(masses, catalogue)
            rows.append(row)
    return table_of("nuisance", rows)


def _epsilon(table: pa.Table, prefix: str) -> dict[str, float]:
    e = metrics.residual(*to_numpy(table, "log10_m200c_true", "log10_m200c"))
    return {f"{prefix}_mean": float(e.mean()), f"{prefix}_scatter": metrics.scatter(e)}


def _coverage(table: pa.Table) -> dict[str, float]:
    (below,) = to_numpy(table, "probability_below_true")
    known = below[np.isfinite(below)]
    levels = {"coverage_68": 1 - 2 * TAIL, "coverage_95": 1 - 2 * ndtr(-2)}
    if not known.size:  # no prediction lies where the network has posteriors
        return {}
    return {n: float(calibration.interval_coverage(known, v)[0]) for n, v in levels.items()}


def _width(table: pa.Table) -> dict[str, float]:
    """Half the distance between the quantiles at 1 sigma."""
    p16, p84 = to_numpy(table, "log10_m200c_p16", "log10_m200c_p84")
    half = 0.5 * (p84 - p16)
    half = half[np.isfinite(half)]
    if not half.size:
        return {}
    return {
        "half_width_median": float(np.median(half)),
        "half_width_scatter": metrics.scatter(half),
    }


def _point(unit: Unit, survey: Survey) -> Array:
    return to_numpy(survey_masses(unit, survey), "log10_m200c")[0]


def _shift(difference: Array) -> dict[str, float]:
    known = difference[np.isfinite(difference)]
    return {"shift_median": float(np.median(known)), "shift_scatter": metrics.scatter(known)}


def _survey_shift(unit: Unit, everything: Unit, survey: Survey) -> dict[str, float]:
    shift = _shift(_point(unit, survey) - _point(everything, survey))
    return {f"survey_{name}": value for name, value in shift.items()}


def _paired(before: pa.Table, after: pa.Table) -> tuple[Array, Array]:
    """Point estimates of the windows that are in both tables, in one order.

    A window is in one of them only where the other simulator left it too few galaxies.
    """
    rows = pc.index_in(after["cluster_id"], value_set=before["cluster_id"].combine_chunks())
    known = rows.is_valid()
    matched = before.take(rows.drop_null())
    (a,), (b,) = to_numpy(matched, "log10_m200c"), to_numpy(after.filter(known), "log10_m200c")
    return a, b


def _galweight(masses: pa.Table, catalogue: pa.Table) -> dict[str, float]:
    """Offset, scatter and pull against GalWeight, as `cmass infer` gives them."""
    p16, p50, p84 = to_numpy(masses, "log10_m200c_p16", "log10_m200c_p50", "log10_m200c_p84")
    reference, error = to_numpy(catalogue, "log10_m200_galweight", "log10_m200_galweight_err")
    pulls = pull(p16, p50, p84, reference, error)
    known = np.isfinite(pulls)
    if not known.any():
        return {}
    offset = (p50 - reference)[known]
    return {
        "galweight_offset_median": float(np.median(offset)),
        "galweight_scatter": metrics.scatter(offset),
        "galweight_pull_mean": float(pulls[known].mean()),
        "galweight_pull_std": metrics.scatter(pulls[known]),
    }
