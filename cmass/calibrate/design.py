"""The design of a calibration: where the simulator is run, and what one run gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from cmass.calibrate.values import value_of, with_values
from cmass.columns import NOT_CATALOGUED
from cmass.errors import InputError, ParameterError
from cmass.evaluate.realism import compare, match_half, realism_table
from cmass.evaluate.realism.windows import Windows, make_windows, survey_windows
from cmass.mock import observe_halo
from cmass.mock.population import plan_population, weights
from cmass.params import Params
from cmass.seeds import generator
from cmass.shards import Shard
from cmass.tables import write_table

Array = NDArray[np.float64]

#: The half that calibrates; the other one is for the report.
HALF = "even"


def design_points(params: Params) -> Array:
    """Design points in units of the priors, shape (n_points, d), from -1 to 1.

    The first point is where the parameters stand, moved into the priors if they are
    outside; the others are a Latin hypercube of low discrepancy.
    """
    names, low, high = prior_ranges(params)
    here = np.array([value_of(params, n) for n in names])
    start = np.clip(2 * (here - low) / (high - low) - 1, -1, 1)
    random = generator(params.seed, "calibrate-design")
    cube = qmc.LatinHypercube(len(names), seed=random, optimization="random-cd")
    return np.vstack([start, 2 * cube.random(params.calibrate.n_points - 1) - 1])


def prior_ranges(params: Params) -> tuple[tuple[str, ...], Array, Array]:
    """Names of the free parameters, and the ends of their prior ranges."""
    priors = params.calibrate.priors
    if not priors:
        raise ParameterError("calibrate.priors is empty: there is nothing to calibrate")
    ranges = np.array(list(priors.values()), float)
    return tuple(priors), ranges[:, 0], ranges[:, 1]


def values_at(params: Params, u: Array) -> dict[str, float]:
    """Parameter values, by name, at a point in units of the priors."""
    names, low, high = prior_ranges(params)
    return dict(zip(names, (low + (u + 1) / 2 * (high - low)).tolist(), strict=True))


def simulated(params: Params, values: Mapping[str, float], n_windows: int) -> Windows:
    """A population of windows made with other values, matched to nothing yet.

    Parameters are what they are said to be: nothing is drawn about them.
    """
    changed = with_values(
        params,
        {
            **values,
            "mock.randomise_nuisance": False,
            "mock.nuisance": {},
            "population.n_windows": n_windows,
        },
    )
    clusters, clouds = [], []
    for plan in plan_population(changed):
        rows, galaxies = observe_halo(plan, changed)
        clusters += rows
        clouds += [np.column_stack([g["x_proj"], g["y_proj"], g["v_los"]]) for g in galaxies]
    counts = np.array([len(c) for c in clouds])
    usable = np.flatnonzero([row["flag"] & NOT_CATALOGUED == 0 for row in clusters])
    offsets = np.concatenate([[0], np.cumsum(counts[usable])])
    true = np.array([clusters[i]["log10_m200c_true"] for i in usable])
    halo = np.array([clusters[i]["halo_id"] for i in usable])
    density = weights(true, changed)
    return make_windows(
        np.vstack([clouds[i] for i in usable]), offsets,
        np.array([clusters[i]["z"] for i in usable]), changed,
        weight=density, group=halo, number=halo, density_h3_mpc3=density,
    )  # fmt: skip


def measure_point(folder: Path, shard: Shard) -> None:
    """Simulate one design point, compare it with the survey and write what came out."""
    kind, number, values, n_windows, workspace, params = shard.arguments
    real = survey_windows(workspace, params)
    # Every point has haloes of its own: their noise averages out in the fit.
    seed = int(generator(params.seed, f"calibrate {kind}", shard.number).integers(1 << 31))
    mocks = simulated(params.model_copy(update={"seed": seed}), values, n_windows)
    matched = match_half(real, mocks, HALF, params.realism)
    if not matched.real.weight.any():
        raise InputError(f"design point {number} has no mock like any cluster: {values}")
    rows = compare(matched, HALF, params.realism, generator(params.seed, "calibrate-bootstrap"))
    table = realism_table(rows)
    write_table(folder / shard.outputs[0], table, "realism")
