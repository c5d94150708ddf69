"""study: what each ingredient of the simulator is worth, and questions beyond the paper.

A study trains many networks, each on a named variation of the parameters, and compares them: on
their own mocks, on those of the full simulator, and on the clusters of a survey. Each network is a
unit of work that is resumed after a break. Other studies ask the run's own network. Studies are
not steps of the pipeline: no product depends on them, and their networks are not registered.

Every study but the first two is one module that holds a `Study`, listed in `STUDIES`.
"""

from __future__ import annotations

import importlib
import logging
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmass.errors import ParameterError, WorkspaceError
from cmass.mock.ingredients import EVERYTHING, INGREDIENTS, ingredient
from cmass.params import Params
from cmass.pipeline import workspace_lock
from cmass.shards import digest_of
from cmass.tables import file_digest, read_json, read_table, write_json, write_table
from cmass.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

    from cmass.study.units import Unit

log = logging.getLogger(__name__)

#: Ingredient that stands for all nuisance parameters drawn per halo.
NUISANCE = "nuisance_randomisation"
#: What the two simulators are called in table `nuisance`.
KINDS = {EVERYTHING: "drawn per halo", NUISANCE: "fixed"}

#: Studies that are modules of this package, in the order of the documentation.
STUDIES = ("learning", "leak", "sensitivity", "ensemble", "sightlines", "fibres", "priors")

#: Seconds, as measured: a window simulated on one core; 10⁹ voxels trained on, with two; the rest.
_PER_WINDOW, _PER_GIGAVOXEL, _PER_UNIT = 0.0145, 110.0, 30.0


@dataclass(frozen=True)
class Study:
    """A study beyond the simulator's ingredients.

    Attributes
    ----------
    name : str
        Of its command and of its first table.
    products : tuple of str
        Its tables, the first one under its own name.
    tables : callable
        ``tables(units, workspace, params)``: the tables of the column dictionary by name, of units
        that are made.
    markdown : callable
        ``markdown(tables)``: what stands in the documentation.
    figure : callable
        ``figure(tables)``: the same drawn.
    caption : str
        What the figure shows.
    plan : callable, optional
        ``plan(workspace, params, seeds)``: the networks to train; none for a study of the run's
        own network.
    work : callable, optional
        ``work(workspace, params)``: what a study of the run's own network will do, in words.
    """

    name: str
    products: tuple[str, ...]
    tables: Callable[[Sequence[Unit], Workspace, Params], dict[str, pa.Table]]
    markdown: Callable[[Mapping[str, pa.Table]], str]
    figure: Callable[[Mapping[str, pa.Table]], Figure]
    caption: str
    plan: Callable[[Workspace, Params, Sequence[int]], list[Unit]] | None = None
    work: Callable[[Workspace, Params], str] | None = None

    def folder(self, workspace: Workspace) -> Path:
        """Where its tables lie: below ``small``, or ``profile`` for one of the run's network."""
        return workspace.study / ("small" if self.plan else "profile")


@dataclass(frozen=True)
class Result:
    """What a study ends with.

    Attributes
    ----------
    table : pyarrow.Table
        Its first table.
    markdown : str
        The same, averaged over the seeds.
    tables : dict of str to pyarrow.Table
        All of its tables by name.
    picture : Path, optional
        PNG of its figure.
    """

    table: pa.Table
    markdown: str
    tables: dict[str, pa.Table] = field(default_factory=dict)
    picture: Path | None = None


def open_study(name: str) -> Study:
    """The study called `name`.

    Raises
    ------
    ParameterError
        There is none of that name; the message lists those there are.
    """
    if name not in STUDIES:
        raise ParameterError(f"no study {name!r}; there are {', '.join(STUDIES)}")
    study: Study = importlib.import_module(f"{__name__}.{name}").STUDY
    return study


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

    check_plan(params, seeds)
    for name in names:
        ingredient(name)
    units = []
    # Seed after seed: after a break there is a whole table of the first seeds.
    for seed in dict.fromkeys(seeds):
        base = plan_unit(EVERYTHING, seed, workspace, params, full=full)
        units += [base] + [
            plan_unit(name, seed, workspace, params, full=full, base=base)
            for name in dict.fromkeys(names)
            if name != EVERYTHING
        ]
    return units


def check_plan(params: Params, seeds: Sequence[int]) -> None:
    """Raise `ParameterError` where no study can be made of these parameters."""
    if params.mock.source != "embedded":
        raise ParameterError(
            f"mock.source is {params.mock.source}: studies vary the embedded simulator, which "
            "simulation files are not"
        )
    if not seeds:
        raise ParameterError("study.seeds: a study needs one seed at least")


def estimated_seconds(units: Sequence[Unit]) -> float:
    """How long the units that are not made yet will take.

    By a rate measured on two cores, corrected by what finished units took on this machine.
    """
    left = [u for u in units if not u.is_made()]
    made = [u for u in units if u.is_made()]
    factors = [read_json(u.folder / "unit.json")["seconds"] / _seconds(u) for u in made]
    return sum(map(_seconds, left)) * (statistics.median(factors) if factors else 1.0)


def _seconds(unit: Unit) -> float:
    p = unit.params
    trained = unit.windows_trained_on * p.train.epochs * p.voxels.n**3
    simulated = p.mock.haloes.n_windows * _PER_WINDOW / p.workers
    return simulated + trained / 1e9 * _PER_GIGAVOXEL + _PER_UNIT


def made_of(
    study: Study, workspace: Workspace, params: Params, seeds: Sequence[int]
) -> dict[str, Any]:
    """What the tables of a study say something about: the run's network, or networks of its own.

    Code is not in it: a study stands until what it asks about has changed.
    """
    if study.plan is None:
        files = (
            workspace.model / "cnn3d.weights.h5", workspace.posterior / "predictions.parquet",
            workspace.posterior / "recalibration.json",
        )  # fmt: skip
        return {"seeds": [], "network": digest_of(*(file_digest(f) for f in files if f.exists()))}
    units = study.plan(workspace, params, seeds)
    return {"seeds": list(seeds), "networks": digest_of(*map(_settings, units))}


def _settings(unit: Unit) -> str:
    """Digest of a unit's parameters alone."""
    values = unit.params.model_dump(mode="json")
    sections = ("seed", "cosmology", "window", "mock", "split", "voxels", "train")
    return digest_of(
        unit.name, {name: values[name] for name in sections}, unit.network_seed, unit.n_train,
        unit.split_by,
    )  # fmt: skip


def is_current(study: Study, workspace: Workspace, params: Params) -> bool:
    """Whether the tables of a study are there and of the network, or the parameters, of now."""
    card = study.folder(workspace) / f"{study.name}.json"
    if not card.exists():
        return False
    then = read_json(card)
    return then == made_of(study, workspace, params, then["seeds"])


def in_words(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def make_units(units: Sequence[Unit], mocks: Path | None = None) -> None:
    """Make the units that are not made yet, in order, saying how far the work is.

    Parameters
    ----------
    units : sequence of Unit
    mocks : Path, optional
        Folder for mocks that units share: each goes when no unit needs it any more.
    """
    from cmass.study.units import make_unit

    for number, unit in enumerate(units, start=1):
        if mocks is not None:
            _drop_mocks(mocks, units[number - 1 :])
        if unit.is_made():
            log.info("study: %d of %d, %s: made before", number, len(units), unit.words)
            continue
        left = in_words(estimated_seconds(units))
        log.info("study: %d of %d, %s; about %s left", number, len(units), unit.words, left)
        make_unit(unit, mocks)
    if mocks is not None:
        _drop_mocks(mocks, [])


def _drop_mocks(mocks: Path, units: Sequence[Unit]) -> None:
    """Remove shared mocks that none of the units needs that are left to make."""
    needed = {d for u in units if not u.is_made() for d in u.mock_digests()}
    for folder in mocks.iterdir() if mocks.exists() else ():
        if folder.name not in needed:
            shutil.rmtree(folder)


def run_study(
    name: str, workspace: Workspace, params: Params, *, seeds: Sequence[int] = ()
) -> Result:
    """Make the units, tables and figure of one of `STUDIES`.

    Writes its tables as Parquet, ``<name>.md``, the figure as PNG and PDF, and ``<name>.json``, which
    says what they are of, below
    ``study/small``, or ``study/profile`` for a study of the run's own network.

    Parameters
    ----------
    name : str
    workspace, params
    seeds : sequence of int
        By default those under ``study``.
    """
    from cmass.study.documents import save_figure

    study = open_study(name)
    with workspace_lock(workspace):
        units: list[Unit] = []
        seeds = tuple(seeds or params.study.seeds)
        card = study.folder(workspace) / f"{name}.json"
        card.unlink(missing_ok=True)  # it goes with the tables
        if study.plan is not None:
            units = study.plan(workspace, params, seeds)
            make_units(units, workspace.study / "mocks")
        tables = study.tables(units, workspace, params)
        folder = study.folder(workspace)
        for table_name, table in tables.items():
            write_table(folder / f"{table_name}.parquet", table, table_name)
        words = study.markdown(tables)
        (folder / f"{name}.md").write_text(words + "\n", encoding="utf-8")
        picture = save_figure(study.figure(tables), folder / name)
        write_json(card, made_of(study, workspace, params, seeds))
        log.info("study: %s", folder / f"{name}.parquet")
        return Result(tables[name], words, tables, picture)


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
