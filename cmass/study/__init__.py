"""study: what each ingredient of the simulator is worth, and what not knowing it costs.

A study trains many networks, each on mocks of another simulator, and compares them: on their own
mocks, on those of the full simulator, and on the clusters of a survey. Each network is a unit of
work that is resumed after a break. Studies are not steps of the pipeline: no product depends on
them, and their networks are not registered.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cmass.errors import ParameterError, WorkspaceError
from cmass.mock.ingredients import EVERYTHING, INGREDIENTS, ingredient
from cmass.params import Params
from cmass.pipeline import workspace_lock
from cmass.tables import read_json, read_table, write_json, write_table
from cmass.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from cmass.study.units import Unit

log = logging.getLogger(__name__)

#: Ingredient that stands for all nuisance parameters drawn per halo.
NUISANCE = "nuisance_randomisation"
#: What the two simulators are called in table `nuisance`.
KINDS = {EVERYTHING: "drawn per halo", NUISANCE: "fixed"}

#: Seconds, as measured: a window simulated on one core; 10⁹ voxels trained on, with two; the rest.
_PER_WINDOW, _PER_GIGAVOXEL, _PER_UNIT = 0.0145, 110.0, 30.0


@dataclass(frozen=True)
class Result:
    """What a study ends with.

    Attributes
    ----------
    table : pyarrow.Table
        Table `ingredients` or `nuisance`.
    markdown : str
        The same, averaged over the seeds.
    """

    table: pa.Table
    markdown: str


def plan(
    names: Sequence[str], seeds: Sequence[int], workspace: Workspace, params: Params, *,
    full: bool = False,
) -> list[Unit]:  # fmt: skip
    """Units of a study: for every seed the full simulator, then those without an ingredient.

    Raises
    ------
    ParameterError
        A name is no ingredient, there is no seed, or the mocks are not the simulator's.
    """
    from cmass.study.units import plan_unit

    if params.mock.source != "embedded":
        raise ParameterError(
            f"mock.source is {params.mock.source}: studies switch off ingredients of the embedded "
            "simulator, which simulation files have not"
        )
    if not seeds:
        raise ParameterError("study.seeds: a study needs one seed at least")
    for name in names:
        ingredient(name)
    wanted = [EVERYTHING, *dict.fromkeys(names)]
    # Seed after seed: after a break there is a whole table of the first seeds.
    return [
        plan_unit(name, seed, workspace, params, full=full)
        for seed in dict.fromkeys(seeds)
        for name in wanted
    ]


def estimated_seconds(units: Sequence[Unit]) -> float:
    """How long the units that are not made yet will take.

    From the time that finished units took on this machine, or from a rate measured on two cores.
    """
    left = [u for u in units if not u.is_made()]
    took = [read_json(u.folder / "unit.json")["seconds"] for u in units if u.is_made()]
    if took:
        return statistics.median(took) * len(left)
    total = 0.0
    for unit in left:
        p = unit.params
        trained = p.split.train * p.train.epochs * p.voxels.n**3
        total += p.mock.haloes.n_windows * _PER_WINDOW / p.workers
        total += trained / 1e9 * _PER_GIGAVOXEL + _PER_UNIT
    return total


def in_words(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def make_units(units: Sequence[Unit]) -> None:
    """Make the units that are not made yet, in order, saying how far the work is."""
    from cmass.study.units import make_unit

    everything = {u.seed: u for u in units if u.name == EVERYTHING}
    for number, unit in enumerate(units, start=1):
        if unit.is_made():
            log.info("study: %d of %d, %s: made before", number, len(units), unit.words)
            continue
        left = in_words(estimated_seconds(units))
        log.info("study: %d of %d, %s; about %s left", number, len(units), unit.words, left)
        make_unit(unit, everything[unit.seed])


def run_ingredients(
    workspace: Workspace,
    params: Params,
    *,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    compare_galweight: bool = False,
) -> Result:
    """Make the table of ingredients: what each is worth, one switched off at a time.

    Writes ``study/small/ingredients.parquet`` and ``.md``. All units that are there go into the
    table, also those that an earlier call with other names made.

    Parameters
    ----------
    workspace, params
    only : sequence of str
        Ingredients to switch off; by default every one.
    seeds : sequence of int
        By default those under ``study``.
    compare_galweight : bool
        Compare with GalWeight's masses: a look at the result, which is counted.

    Returns
    -------
    Result
    """
    from cmass.study import documents, numbers
    from cmass.study.units import read_survey

    seeds = seeds or params.study.seeds
    units = plan(only or list(INGREDIENTS), seeds, workspace, params)
    with workspace_lock(workspace):
        make_units(units)
        made = [u for u in plan(list(INGREDIENTS), seeds, workspace, params) if u.is_made()]
        catalogue = _look(workspace, "ingredients") if compare_galweight else None
        survey = read_survey(workspace)
        _say_what_is_missing(survey is None, workspace)
        table = numbers.ingredients_table({(u.name, u.seed): u for u in made}, survey, catalogue)
        words = documents.ingredients_markdown(table, survey.name if survey else None)
        return _keep(workspace.study / "small", "ingredients", table, words)


def run_nuisance(
    workspace: Workspace,
    params: Params,
    *,
    seeds: Sequence[int] = (),
    full: bool = False,
    compare_galweight: bool = False,
) -> Result:
    """Compare networks that saw nuisance parameters drawn per halo with such that did not.

    Writes ``nuisance.parquet`` and ``.md`` below ``study/small``, or ``study/profile`` where the
    networks have the profile's own size.

    Parameters
    ----------
    workspace, params
    seeds : sequence of int
        By default those under ``study``.
    full : bool
        Voxels, windows and epochs of the profile instead of those under ``study``.
    compare_galweight : bool
        Compare with GalWeight's masses: a look at the result, which is counted.

    Returns
    -------
    Result
    """
    from cmass.study import documents, numbers
    from cmass.study.units import read_survey

    units = plan([NUISANCE], seeds or params.study.seeds, workspace, params, full=full)
    with workspace_lock(workspace):
        make_units(units)
        catalogue = _look(workspace, "nuisance") if compare_galweight else None
        survey = read_survey(workspace)
        _say_what_is_missing(survey is None, workspace)
        by_key = {(u.name, u.seed): u for u in units}
        table = numbers.nuisance_table(KINDS, by_key, survey, catalogue)
        words = documents.nuisance_markdown(table)
        return _keep(workspace.study / ("profile" if full else "small"), "nuisance", table, words)


def _keep(folder: Path, name: str, table: pa.Table, words: str) -> Result:
    write_table(folder / f"{name}.parquet", table, name)
    (folder / f"{name}.md").write_text(words + "\n", encoding="utf-8")
    log.info("study: %s", folder / f"{name}.parquet")
    return Result(table, words)


def _say_what_is_missing(no_survey: bool, workspace: Workspace) -> None:
    if no_survey:
        log.warning(
            "study: %s holds no selected windows, so networks are compared on mocks alone; "
            "`cmass select --survey %s` makes them", workspace.selected, workspace.survey,
        )  # fmt: skip


def _look(workspace: Workspace, study: str) -> pa.Table:
    """The survey's catalogue with GalWeight's masses; of a real survey, the look is noted."""
    path = workspace.selected / "clusters.parquet"
    if not path.exists():
        raise WorkspaceError(
            f"{path} does not exist: a comparison with GalWeight needs `cmass select` first"
        )
    if workspace.survey != "embedded":
        file = workspace.study / "looks.json"
        looks = read_json(file) if file.exists() else []
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(file, [*looks, {"study": study, "survey": workspace.survey, "when": now}])
        log.warning(
            "study: this is look number %d at GalWeight's masses of %s; docs/mocks.md counts them",
            len(looks) + 1, workspace.survey,
        )  # fmt: skip
    return read_table(path, "clusters")
