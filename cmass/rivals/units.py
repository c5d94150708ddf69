"""One unit of the rivals: an estimator fitted with one seed, and what it says of the evaluation set.

A unit is a folder that is there when it is whole: ``model/`` (what `Estimator.save` wrote),
``predictions.parquet`` and ``unit.json``. A broken one goes on where it stopped.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cmass.errors import TooFewMocksError, WorkspaceError
from cmass.estimators import Estimator, estimator, estimators
from cmass.estimators.windows import Sets, Windows, mock_windows
from cmass.evaluate import scores
from cmass.params import Params
from cmass.posterior import TAIL, cumulative_at, grid_edges, quantiles
from cmass.shards import digest_of, source_digest, staged_folder
from cmass.software import package_versions
from cmass.tables import (
    file_digest,
    make_table,
    read_json,
    read_table,
    write_json,
    write_table,
)
from cmass.workspace import Workspace

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

#: Parameters that any estimator may read, beside those under ``rivals``.
SECTIONS = ("seed", "cosmology", "window", "voxels", "posterior", "evaluate")
#: Which estimators and which seeds there are is no matter to any one of them.
_NO_MATTER = {"estimators", "seeds"}
#: Code that every unit depends on.
_SOURCES = (
    "estimators/__init__.py", "estimators/windows.py", "estimators/keras_fit.py",
    "networks/training.py", "evaluate/scores.py", "posterior.py", "cosmology.py",
    "rivals/units.py",
)  # fmt: skip
#: Clusters that warm an estimator up before it is timed.
_WARM_UP = 8


@dataclass(frozen=True)
class Unit:
    """An estimator and a seed.

    Attributes
    ----------
    kind : type of Estimator
    number : int
        Number of the seed, from 1 (the run's own).
    params : Params
        Of the run.
    folder : Path
        Where it lies once it is whole.
    identity : str
        Digest of parameters, inputs and code.
    """

    kind: type[Estimator]
    number: int
    params: Params
    folder: Path
    identity: str

    @property
    def name(self) -> str:
        """Name of the estimator."""
        return self.kind.name

    @property
    def seed(self) -> int:
        """Seed of first weights and batches."""
        return self.params.seed + self.number - 1

    @property
    def words(self) -> str:
        """The unit in words, for logs."""
        return f"{self.name}, seed {self.number}" if self.kind.seeded else self.name

    def is_made(self) -> bool:
        """Whether it is there, made of these inputs with these parameters and this code."""
        card = self.folder / "unit.json"
        return card.exists() and read_json(card)["identity"] == self.identity

    def card(self) -> dict[str, Any]:
        """``unit.json``: what it cost, and with what it was made."""
        return read_json(self.folder / "unit.json")

    def predictions(self) -> pa.Table:
        """Its rows of table `rival_predictions`."""
        return read_table(self.folder / "predictions.parquet", "rival_predictions")

    def lacks(self) -> str:
        """What it needs and is not installed; empty for nothing."""
        extra = self.kind.extra
        if extra and importlib.util.find_spec(extra) is None:
            return _missing(extra)
        return ""

    def load(self) -> Estimator:
        """The fitted estimator."""
        return self.kind.load(self.folder / "model", self.params, self.seed)


def _missing(extra: str) -> str:
    return f"needs {extra}, which is not installed: pip install --constraint constraints.txt '.[rivals]', then --force"


class NotFitted(Exception):
    """An estimator that could not be fitted here, and why."""


def plan(
    workspace: Workspace, params: Params, seeds: Sequence[int] = (), names: Sequence[str] = ()
) -> list[Unit]:
    """Units of estimators, by default those of the parameters; estimator after estimator.

    Those of ``rivals.estimators`` and of ``rivals.seeds`` lie with the products of the step, others
    with the studies. An estimator without randomness is one unit, of seed 1.
    """
    asked = params.rivals.estimators or tuple(sorted(estimators()))
    own = params.rivals.seeds
    inputs = _input_digests(workspace)
    units = []
    for name in dict.fromkeys(names or asked):
        kind = estimator(name)
        for number in dict.fromkeys(seeds or own) if kind.seeded else (1,):
            home = workspace.study / "rivals"
            if name in asked and (number in own or not kind.seeded):
                home = workspace.rivals
            folder = home / f"{name}-{number}"
            units.append(Unit(kind, number, params, folder,
                              _identity(kind, number, workspace, params, inputs)))  # fmt: skip
    return units


def _input_digests(workspace: Workspace) -> list[str]:
    files = (
        workspace.mock / "clusters", workspace.mock / "galaxies", workspace.split / "split.parquet",
    )  # fmt: skip
    for file in files:
        if not file.exists():
            raise WorkspaceError(
                f"{file} does not exist: rivals are fitted to the mocks of a run, make it first "
                "with `cmass run`"
            )
    # Of the run's posteriors only their bins: another network is no reason to fit rivals again.
    return [*map(file_digest, files), digest_of(_edges(workspace).tolist())]


def _edges(workspace: Workspace) -> Array:
    grid = read_table(workspace.posterior / "posterior_grid.parquet", "posterior_grid")
    return grid_edges(grid)


def _identity(
    kind: type[Estimator], number: int, workspace: Workspace, params: Params, inputs: list[str]
) -> str:
    values = params.model_dump(mode="json")
    read = {name: values[name] for name in (*SECTIONS, *kind.sections)}
    rivals = {k: v for k, v in values["rivals"].items() if k not in _NO_MATTER}
    # The estimator's own module, and those of what it is derived from.
    package = Path(inspect.getfile(Estimator)).parents[1]
    own = {Path(inspect.getfile(c)) for c in kind.__mro__ if c.__module__.startswith("cmass.")}
    code = sorted({p.relative_to(package).as_posix() for p in own if package in p.parents})
    other = [file_digest(p) for p in kind.products(workspace) if p.exists()]
    return digest_of(
        kind.name, number, read, rivals, inputs, other,
        source_digest(*sorted({*code, *kind.sources, *_SOURCES})),
    )  # fmt: skip


@dataclass(frozen=True)
class Material:
    """What all units of a run are fitted to and judged on.

    Attributes
    ----------
    sets : Sets
    evaluation : Windows
    edges : ndarray, shape (n_bins + 1,)
        Bins of log10 M200c on which posteriors are judged.
    """

    sets: Sets
    evaluation: Windows
    edges: Array

    @classmethod
    def read(cls, workspace: Workspace) -> Material:
        """The mocks of a run."""
        train, validation, test, evaluation = mock_windows(
            workspace, "train", "validation", "test", "evaluation"
        )
        return cls(Sets(train, validation, test, workspace), evaluation, _edges(workspace))


def make_unit(unit: Unit, material: Material) -> None:
    """Make a unit, or go on with one that a kill left half-made.

    Raises
    ------
    NotFitted
        A package that it needs beside cmass's own is missing or broken, or the mocks are too few.
    """
    if lacking := unit.lacks():
        raise NotFitted(lacking)
    with staged_folder(unit.folder, unit.identity) as partial:
        model, work, fitted = partial / "model", partial / "work", partial / "fitted.json"
        if not fitted.exists():
            work.mkdir(exist_ok=True)
            one = unit.kind(unit.params, unit.seed)
            start = time.monotonic()
            try:
                one.fit(material.sets, work)
            except ImportError as error:
                if not unit.kind.extra:
                    raise
                raise NotFitted(f"{unit.kind.extra} is installed, but broken: {error}") from error
            except TooFewMocksError as error:
                raise NotFitted(str(error)) from error
            # After a break this session is not all; then the epochs are the larger part.
            seconds = max(time.monotonic() - start, one.seconds_in_epochs)
            model.mkdir(exist_ok=True)
            one.save(model)
            write_json(fitted, _costs(one, unit, seconds))
        shutil.rmtree(work, ignore_errors=True)
        # What judges is what was saved.
        judge = unit.kind.load(model, unit.params, unit.seed)
        table, per_thousand = predict(judge, unit.number, material)
        write_table(partial / "predictions.parquet", table, "rival_predictions")
        card = read_json(fitted) | {
            "identity": unit.identity, "estimator": unit.name, "seed": unit.number,
            "seconds_per_1000": per_thousand, "software": package_versions(),
        }  # fmt: skip
        fitted.unlink()
        write_json(partial / "unit.json", card)


def _costs(one: Estimator, unit: Unit, seconds: float) -> dict[str, Any]:
    limit = unit.params.rivals.training.seconds_max
    note = ""
    if one.out_of_time:
        note = "its time limit (seconds_max) ended the training"
    elif seconds > limit and not one.taken_over:
        note = f"trained longer than rivals.training.seconds_max ({limit:.0f} s)"
    if note:
        log.warning("rivals: %s: %s", unit.words, note)
    return {
        "note": note,
        "n_parameters": one.n_parameters,
        "training_seconds": None if one.taken_over else round(seconds, 1),
    }


def predict(one: Estimator, number: int, material: Material) -> tuple[pa.Table, float]:
    """Table `rival_predictions` of one fitted estimator, and its seconds per 1000 clusters."""
    windows, edges = material.evaluation, material.edges
    one.point_and_posterior(windows.take(np.arange(min(_WARM_UP, len(windows)))), edges)
    start = time.monotonic()
    point, probabilities = one.point_and_posterior(windows, edges)
    seconds = time.monotonic() - start
    true = windows.log10_m200c_true
    p16, p50, p84 = quantiles(probabilities, edges, [TAIL, 0.5, 1 - TAIL]).T
    below = np.clip(cumulative_at(probabilities, edges, true), 0, 1)  # sums are rounded
    n = len(windows)
    table = make_table(
        "rival_predictions",
        {
            "estimator": [one.name] * n, "seed": np.full(n, number),
            "cluster_id": windows.cluster_id, "halo_id": windows.halo_id,
            "log10_m200c_true": true, "log10_m200c": point,
            "log10_m200c_p16": p16, "log10_m200c_p50": p50, "log10_m200c_p84": p84,
            "probability_below_true": below,
            "crps": scores.crps(probabilities, edges, true),
            "log_score": scores.log_score(probabilities, edges, true),
            "width_68": scores.width_68(probabilities, edges),
        },
    )  # fmt: skip
    return table, 1000 * seconds / n
