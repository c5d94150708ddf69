"""The exam: challenger and champion weigh the same windows, that neither was trained on.

Scores of each model's own evaluation set cannot be compared: another split, or other mocks, make
another exam, and an easier one looks like a better model. The windows of the population are of haloes
of their own, flat in log mass, and the workspace has them for every training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cmass import pretrained
from cmass.errors import InputError
from cmass.evaluate.population import population_table
from cmass.evaluate.scores import crps
from cmass.params import Params
from cmass.posterior import grid_edges
from cmass.seeds import generator
from cmass.tables import file_digest, read_table, to_numpy
from cmass.workspace import Workspace

Array = NDArray[np.float64]
_ROUNDS = 400


@dataclass(frozen=True)
class Answers:
    """What a model says of the windows.

    Attributes
    ----------
    cluster_id : list of str
    true : ndarray, shape (n,)
        log10 M200c (h⁻¹ M☉).
    point : ndarray, shape (n,)
        Point estimates; NaN where there is none.
    crps : ndarray, shape (n,)
        Of the posteriors. A window without one counts as one of which only the prior is known.
    """

    cluster_id: list[str]
    true: Array
    point: Array
    crps: Array


@dataclass(frozen=True)
class Pair:
    """A score of both on the same windows, and the difference with its standard error."""

    challenger: float
    champion: float
    difference: float
    error: float


@dataclass(frozen=True)
class Exam:
    """Scores of challenger and champion.

    Attributes
    ----------
    n : int
        Windows.
    crps_dex, scatter_dex : Pair
    """

    n: int
    crps_dex: Pair
    scatter_dex: Pair


def answers(table: pa.Table, grid: pa.Table, low: float, high: float) -> Answers:
    """Answers from table `population_masses`, for true masses from `low` to `high`.

    Parameters
    ----------
    table : pa.Table
    grid : pa.Table
        Table `posterior_grid` of the same model.
    low, high : float
        log10 of h⁻¹ M☉.
    """
    true, point, density = to_numpy(
        table, "log10_m200c_true", "log10_m200c", "number_density_h3_mpc3"
    )
    rows = np.flatnonzero((true >= low) & (true <= high) & (density > 0))
    edges, (flat,) = grid_edges(grid), to_numpy(grid, "prior_flat")
    posteriors = table["posterior"].to_pylist()
    probabilities = np.array([posteriors[i] or flat for i in rows]).reshape(rows.size, flat.size)
    ids = table["cluster_id"].to_pylist()
    return Answers(
        [ids[i] for i in rows], true[rows], point[rows], crps(probabilities, edges, true[rows])
    )


def compare(challenger: Answers, champion: Answers, random: np.random.Generator) -> Exam:
    """Scores of both on the windows; errors are of the differences, window by window.

    Raises
    ------
    InputError
        They did not weigh the same windows.
    """
    if challenger.cluster_id != champion.cluster_id:
        raise InputError("challenger and champion weighed other windows", column="cluster_id")
    n = len(challenger.cluster_id)
    gain = challenger.crps - champion.crps
    by_crps = Pair(
        float(challenger.crps.mean()), float(champion.crps.mean()), float(gain.mean()),
        float(gain.std(ddof=1) / np.sqrt(n)),
    )  # fmt: skip
    both = np.isfinite(challenger.point) & np.isfinite(champion.point)
    one, other = ((a.true - a.point)[both] for a in (challenger, champion))
    picks = random.integers(one.size, size=(_ROUNDS, one.size))
    resampled = one[picks].std(axis=1, ddof=1) - other[picks].std(axis=1, ddof=1)
    scatter, theirs = float(one.std(ddof=1)), float(other.std(ddof=1))
    by_scatter = Pair(scatter, theirs, scatter - theirs, float(resampled.std(ddof=1)))
    return Exam(n, by_crps, by_scatter)


def examine(workspace: Workspace, params: Params) -> Exam:
    """Let the latest training and the model in ``champion/`` weigh the population of the workspace.

    Returns
    -------
    Exam
    """
    haloes = params.mock.haloes
    span = haloes.log10_m200c_min, haloes.log10_m200c_max
    mine = answers(*_told(workspace), *span)
    view = workspace.seen_as("champion")
    if file_digest(view.population) == file_digest(workspace.population):
        theirs = answers(*_told(view), *span)
    else:
        bundle = pretrained.from_workspace(view, params)
        theirs = answers(population_table(workspace, params, bundle), bundle.grid, *span)
    return compare(mine, theirs, generator(params.seed, "exam"))


def _told(workspace: Workspace) -> tuple[pa.Table, pa.Table]:
    return (
        read_table(workspace.evaluation / "population.parquet", "population_masses"),
        read_table(workspace.posterior / "posterior_grid.parquet", "posterior_grid"),
    )
