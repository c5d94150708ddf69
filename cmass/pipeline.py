"""The steps in order, what each depends on, and how to know that one is up to date.

This is the only list of steps: the command line, ``dvc.yaml`` and ``flows/`` use it.
A step that ran leaves a stamp: digests of its code, of the parameters it reads, of its
inputs and of its outputs. It runs again when one of them has changed, and not otherwise. Nothing
heavy is imported before a step runs.
"""

from __future__ import annotations

import errno
import importlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmass import interrupts
from cmass.errors import CmassError, WorkspaceError
from cmass.machines.threads import one_blas_thread
from cmass.shards import (
    PREDICTION_SOURCES,
    SCRATCH,
    SIMULATOR_SOURCES,
    TRAINING_SOURCES,
    source_digest,
)

if TYPE_CHECKING:
    from cmass.params import Params
    from cmass.workspace import View, Workspace

log = logging.getLogger(__name__)

Paths = Callable[["Workspace"], tuple[Path, ...]]


@dataclass(frozen=True)
class Step:
    """One step of the pipeline.

    Attributes
    ----------
    name : str
        Name of the command, of the DVC stage and of the Prefect task.
    target : str
        ``module:function``; called as ``function(workspace, params)``.
    summary : str
        One line for the command line.
    sections : tuple of str
        Dotted names of the parameters it reads, and no others.
    inputs, outputs : callable
        Files and folders it reads and writes, from the `Workspace`.
    per_survey : bool
        Its products belong to one survey; those of the other steps serve every survey.
    sections_by_survey : dict
        Parameters it reads for one survey only.
    sources : tuple of str
        Its code, relative to ``cmass/``: the step runs again when it changes.
    after : callable
        Files that tell DVC which step comes before; it is not run again because they changed.
    view : str
        Whose models it finds in the workspace: those made last, or the champion's.
    outside : str
        ``module:function`` of what it depends on outside the data folder; called as
        ``function(workspace, params)`` and compared as JSON.
    hands_over : bool
        What it writes is held to a contract (`cmass.contracts.handovers`).
    """

    name: str
    target: str
    summary: str
    sections: tuple[str, ...]
    inputs: Paths
    outputs: Paths
    per_survey: bool = False
    sections_by_survey: tuple[tuple[str, tuple[str, ...]], ...] = ()
    sources: tuple[str, ...] = ()
    after: Paths = lambda w: ()
    view: View = "made"
    outside: str = ""
    hands_over: bool = False

    def sections_for(self, survey: str) -> tuple[str, ...]:
        """Parameters that it reads for `survey`."""
        return self.sections + dict(self.sections_by_survey).get(survey, ())

    def run(self, workspace: Workspace, params: Params) -> None:
        """Import the step's module and run it."""
        _function(self.target)(workspace.seen_as(self.view), params)

    def look_outside(self, workspace: Workspace, params: Params) -> Any:
        """What it depends on outside the data folder, None for most steps."""
        return _function(self.outside)(workspace, params) if self.outside else None


def _function(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


_WEIGHTS = "cnn3d.weights.h5"
#: Steps that train CNN_3D: with ``train.grids: device`` they read no voxels.
_MAKE_GRIDS = ("train", "rivals")
_MODEL_FILES = (_WEIGHTS, "history.parquet", "history.json", "model.json", "registry.json")

_INFER_SECTIONS = (
    "seed", "cosmology", "window", "voxels", "posterior", "evaluate.clip_sigma",
    "evaluate.aperture_mpc_h", "galweight", "rivals", "infer",
)  # fmt: skip
_REALISM_SECTIONS = (
    "seed", "cosmology", "window", "mock.snapshot_redshift", "population", "voxels", "galweight",
    "realism", "infer.area_deg2",
)  # fmt: skip
_INFER_SOURCES = (
    "infer.py", "oddity", "evaluate/comparison.py", "evaluate/external", "evaluate/forward.py", "evaluate/volume.py", "evaluate/realism/windows.py", "ingest/footprint.py", "galweight_mass.py", "pretrained", "posterior.py", "recalibration.py", *PREDICTION_SOURCES, "voxels.py", "mass_function.py", "mass_definition.py", "estimators", "rivals", "cosmology.py", "sky.py", "evaluate/__init__.py", "evaluate/metrics.py", "evaluate/calibration.py",
)  # fmt: skip
_REALISM_SOURCES = (
    "evaluate/realism", "evaluate/volume.py", "ingest/footprint.py", "galweight_mass.py", *PREDICTION_SOURCES, "estimators/richness.py", "voxels.py", "mass_function.py", "mock/population.py", "cosmology.py", "sky.py",
)  # fmt: skip
#: Parameters of infer for one survey only.
_INFER_BY_SURVEY = (("embedded", ("ingest.embedded.log10_m200c_min",)),)


def _released(workspace: Workspace) -> tuple[Path, ...]:
    """What the latest release promises: all but its site, which is made of the rest at any time."""
    from cmass.workspace import SITE

    latest = workspace.releases / "latest"
    if not latest.exists():
        return (latest,)
    return tuple(sorted(path for path in latest.iterdir() if path.name != SITE))


#: Every step, in order (SPEC section 2).
STEPS: tuple[Step, ...] = (
    Step(
        "ingest",
        "cmass.ingest:run",
        "Read the cluster catalogue, the galaxies and the footprint of the survey.",
        sections=("survey", "contracts.quarantine"),
        sections_by_survey=(
            ("sdss", ("mirror", "ingest.z_max", "ingest.network")),
            ("embedded", ("ingest.embedded", "seed", "cosmology", "window", "mock", "galweight")),
        ),
        inputs=lambda w: (),
        outputs=lambda w: (w.raw,),
        sources=("ingest", "contracts/quarantine.py", "contracts/units.py", "galweight_mass.py", "sky.py", *SIMULATOR_SOURCES),
        per_survey=True,
        hands_over=True,
    ),
    Step(
        "select",
        "cmass.select:run",
        "Select nearby clusters inside the footprint and their phase-space windows.",
        sections=("cosmology", "window", "select"),
        inputs=lambda w: (w.raw,),
        outputs=lambda w: (w.selected,),
        sources=("select.py", "sky.py", "ingest/footprint.py", "cosmology.py"),
        per_survey=True,
        hands_over=True,
    ),
    Step(
        "mock",
        "cmass.mock:run",
        "Simulate haloes, their surroundings and galaxies, and observe them.",
        sections=("seed", "cosmology", "window", "mock"),
        inputs=lambda w: (),
        outputs=lambda w: (w.mock,),
        sources=SIMULATOR_SOURCES,
        hands_over=True,
    ),
    Step(
        "population",
        "cmass.mock.population:run",
        "Simulate the windows that a survey would find, for comparison with the sky.",
        sections=("seed", "cosmology", "window", "mock", "population"),
        inputs=lambda w: (),
        outputs=lambda w: (w.population,),
        sources=SIMULATOR_SOURCES,
        hands_over=True,
    ),
    Step(
        "split",
        "cmass.split:run",
        "Divide the mock clusters by halo: train, validation, test, evaluation.",
        sections=("seed", "split"),
        inputs=lambda w: (w.mock,),
        outputs=lambda w: (w.split,),
        sources=("split.py",),
        hands_over=True,
    ),
    Step(
        "voxelize",
        "cmass.voxels:run",
        "Turn the mock clusters into density grids in phase space.",
        sections=("window", "voxels", "train.grids"),
        inputs=lambda w: (w.mock, w.split),
        outputs=lambda w: (w.voxels,),
        sources=("voxels.py", "half.py"),
        hands_over=True,
    ),
    Step(
        "train",
        "cmass.networks.training:run",
        "Train CNN_3D on the density grids and register it.",
        sections=("seed", "window", "voxels", "train"),
        inputs=lambda w: (w.mock, w.split, w.voxels),
        outputs=lambda w: tuple(w.model / name for name in _MODEL_FILES),
        sources=TRAINING_SOURCES,
    ),
    Step(
        "posterior",
        "cmass.posterior:run",
        "Predict the test set and choose how posteriors are made of predictions.",
        sections=(
            "seed", "cosmology", "voxels", "posterior", "evaluate.clip_sigma",
            "evaluate.aperture_mpc_h",
        ),
        inputs=lambda w: (w.voxels / "test", w.mock, w.split, w.model / _WEIGHTS),
        outputs=lambda w: (w.posterior,),
        sources=("posterior.py", "recalibration.py", "estimators/dispersion.py", *PREDICTION_SOURCES, "mass_function.py", "cosmology.py"),
        hands_over=True,
    ),
    Step(
        "oddity",
        "cmass.oddity:run",
        "Learn what mocks look like, to flag clusters unlike any and windows with two clusters.",
        sections=("seed", "cosmology", "window", "voxels", "train.grids", "oddity"),
        inputs=lambda w: (w.voxels, w.mock, w.split, w.model / _WEIGHTS),
        outputs=lambda w: (w.oddity,),
        sources=("oddity", "estimators/dispersion.py", "estimators/richness.py", "estimators/windows.py", "evaluate/metrics.py", "mock/contamination.py", *PREDICTION_SOURCES, "voxels.py", "cosmology.py"),
    ),
    Step(
        "evaluate",
        "cmass.evaluate:run",
        "Judge the masses on the evaluation set: residuals, coverage, scatter.",
        sections=(
            "seed", "cosmology", "window", "mock.snapshot_redshift", "mock.haloes", "population",
            "voxels", "posterior", "evaluate", "galweight",
        ),
        inputs=lambda w: (
            w.voxels / "evaluation", w.mock, w.population, w.model / _WEIGHTS, w.posterior,
        ),
        outputs=lambda w: (w.evaluation,),
        sources=("evaluate/__init__.py", "evaluate/calibration.py", "evaluate/metrics.py", "evaluate/proof.py", "evaluate/scores.py", "evaluate/population.py", "infer.py", "galweight_mass.py", "mass_function.py", "mock/population.py", "posterior.py", "recalibration.py", "estimators/dispersion.py", *PREDICTION_SOURCES, "estimators/richness.py", "cosmology.py", "sky.py", "pretrained", "mock/haloes.py"),
    ),
    Step(
        "rivals",
        "cmass.rivals:run",
        "Fit other estimators of the mass to the same mocks and judge all of them.",
        sections=(
            "seed", "cosmology", "window", "voxels", "train", "posterior", "evaluate", "rivals",
        ),
        inputs=lambda w: (
            w.mock, w.split, w.voxels, w.model / _WEIGHTS,
            w.posterior / "posterior_grid.parquet",
        ),
        outputs=lambda w: (w.rivals,),
        sources=("rivals", "estimators", "evaluate/calibration.py", "evaluate/metrics.py", "evaluate/scores.py", "posterior.py", *TRAINING_SOURCES, "networks/prediction.py", "voxels.py", "cosmology.py"),
    ),
    Step(
        "trial",
        "cmass.promotion.trial:run",
        "Let the latest training weigh the survey, before anyone relies on it.",
        sections=(
            *_INFER_SECTIONS,
            *(s for s in _REALISM_SECTIONS if s.partition(".")[0] not in _INFER_SECTIONS),
        ),
        sections_by_survey=_INFER_BY_SURVEY,
        inputs=lambda w: (
            w.raw, w.selected, w.population, w.model / _WEIGHTS, w.posterior, w.oddity,
            w.evaluation / "population.parquet", w.rivals,
        ),
        outputs=lambda w: (w.trial / "masses", w.trial / "realism"),
        sources=(
            "promotion/trial.py", *_INFER_SOURCES,
            *(s for s in _REALISM_SOURCES if s not in _INFER_SOURCES),
        ),
        per_survey=True,
    ),
    Step(
        "judge",
        "cmass.promotion.judge:run",
        "Hold the latest training against the gates and the champion; move the registry's alias.",
        sections=(
            "seed", "cosmology", "window", "voxels", "mock.haloes", "posterior.plain_bandwidth",
            "judge",
        ),
        inputs=lambda w: (
            w.trial / "masses", w.trial / "realism", w.mock / "clusters", w.population, w.split,
            *(w.model / name for name in _MODEL_FILES), w.posterior, w.oddity, w.evaluation,
            w.rivals,
        ),
        outputs=lambda w: (w.decision,),
        sources=("promotion", "registry.py", "pretrained", "evaluate/population.py", "evaluate/scores.py"),
        per_survey=True,
        outside="cmass.promotion.judge:outside",
    ),
    Step(
        "champion",
        "cmass.promotion.champion:run",
        "Bring the model that the registry's alias names into the workspace.",
        sections=("cosmology", "window", "voxels"),
        inputs=lambda w: (),
        after=lambda w: (w.decision,),
        outputs=lambda w: (w.champion,),
        sources=("promotion", "registry.py"),
        outside="cmass.promotion.champion:outside",
    ),
    Step(
        "infer",
        "cmass.infer:run",
        "Estimate the masses of the survey's clusters and compare them with GalWeight.",
        sections=_INFER_SECTIONS,
        sections_by_survey=_INFER_BY_SURVEY,
        inputs=lambda w: (w.raw, w.selected, w.champion),
        outputs=lambda w: (w.masses,),
        sources=_INFER_SOURCES,
        per_survey=True,
        view="champion",
        hands_over=True,
    ),
    Step(
        "realism",
        "cmass.evaluate.realism:run",
        "Compare the windows of the survey's clusters with those of the mocks.",
        sections=_REALISM_SECTIONS,
        inputs=lambda w: (w.raw / "footprint.parquet", w.selected, w.champion),
        outputs=lambda w: (w.realism,),
        sources=_REALISM_SOURCES,
        per_survey=True,
        view="champion",
    ),
    Step(
        "figures",
        "cmass.figures:run",
        "Draw every figure of the paper and of the proof: PDF, PNG and the tables behind them.",
        sections=(
            "seed", "window", "mock.haloes", "voxels", "posterior", "infer", "realism", "figures", "oddity",
        ),
        inputs=lambda w: (
            w.champion, w.raw / "footprint.parquet", w.selected, w.masses, w.realism,
        ),
        outputs=lambda w: (w.figures,),
        sources=("figures", "publish/summary.py", "evaluate/__init__.py", "evaluate/metrics.py", "evaluate/volume.py", "ingest/footprint.py", "posterior.py", "recalibration.py", "voxels.py", "study", "estimators", "evaluate/calibration.py", "evaluate/forward.py", "evaluate/proof.py", "evaluate/realism", "rivals"),
        per_survey=True,
        view="champion",
    ),
    Step(
        "publish",
        "cmass.publish:run",
        "Write the release: catalogue, database, report, model card, checksums.",
        sections=(
            "profile", "survey", "mirror", "seed", "cosmology", "window", "ingest", "select", "mock",
            "population", "split", "voxels", "train", "posterior", "evaluate", "galweight", "infer",
            "rivals", "oddity", "realism", "figures", "judge", "contracts", "publish",
        ),
        inputs=lambda w: (w.raw, w.selected, w.champion, w.masses, w.realism, w.figures),
        outputs=lambda w: (w.receipt, *_released(w)),
        sources=("publish", "contracts", "figures", "rivals/scores.py", "formats.py", "ingest/footprint.py"),
        per_survey=True,
        view="champion",
    ),
)  # fmt: skip

_BEFORE_MASSES = tuple(s.name for s in STEPS[: [s.name for s in STEPS].index("champion")])
_WITH_CHAMPION = tuple(s.name for s in STEPS if s.name not in _BEFORE_MASSES)
#: What the flows run: names of steps, in order. `ingest` fetches; `release` gives masses by the champion
#: that is there, and `first` makes one before; `retrain` makes a challenger and judges it.
RUNS: dict[str, tuple[str, ...]] = {
    "ingest": ("ingest", "select"),
    "release": ("ingest", "select", *_WITH_CHAMPION),
    "first": tuple(s.name for s in STEPS),
    "retrain": tuple(n for n in _BEFORE_MASSES if n not in ("ingest", "select")),
}


def release_steps(workspace: Workspace, params: Params) -> tuple[str, ...]:
    """Steps of a release: without training where there is a champion, every step where there is none."""
    names = RUNS["release"]
    if "champion" in names and not step("champion").look_outside(workspace, params):
        return RUNS["first"]
    return names


def step(name: str) -> Step:
    """Return the step called `name`."""
    for candidate in STEPS:
        if candidate.name == name:
            return candidate
    raise WorkspaceError(f"no step {name!r}; the steps are {', '.join(s.name for s in STEPS)}")


# --------------------------------------------------------------------- one pipeline at a time


@contextmanager
def workspace_lock(workspace: Workspace) -> Iterator[None]:
    """Hold the data folder for one pipeline.

    The kernel releases the lock when its holder dies, however it dies. What half-written
    files a dead holder left are removed here, where nobody else can be writing.

    Raises
    ------
    WorkspaceError
        Another process holds it; the message names its process id.
    """
    from filelock import FileLock, Timeout

    try:
        workspace.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(workspace.root / ".lock", timeout=0, is_singleton=False)
        lock.acquire()
    except Timeout:
        raise WorkspaceError(
            f"{workspace.root.resolve()} is in use by another pipeline{_holder(workspace.root)}; "
            "wait for it to end, or give another folder with --data"
        ) from None
    except OSError as error:
        if workspace.root.exists() and not workspace.root.is_dir():
            raise WorkspaceError(f"{workspace.root} is a file: --data names a folder") from error
        raise WorkspaceError(
            f"cannot write to the data folder {workspace.root} ({error.strerror}): --data names another"
        ) from error
    holder = workspace.root / ".lock.holder"
    try:
        holder.write_text(json.dumps({"pid": os.getpid(), "command": " ".join(sys.argv)}))
        _sweep(workspace)
        yield
    except OSError as error:
        if _is_disk_full(error):
            from cmass.tables import disk_full

            raise disk_full(holder) from error
        raise
    finally:
        with suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()


def _holder(root: Path) -> str:
    try:
        holder = json.loads((root / ".lock.holder").read_text())
        return f" (process {holder['pid']}: {holder['command']})"
    except (OSError, ValueError, KeyError):
        return ""


def _sweep(workspace: Workspace) -> None:
    """Remove what a kill left: temporary files (tables.atomic_path), shards begun (cmass.shards)."""
    for folder in (workspace.home, workspace.releases):
        for left in folder.rglob(".*.tmp"):
            if left.is_file():
                log.info("removing %s, left by a broken run", left)
                left.unlink(missing_ok=True)
    for left in [p for p in workspace.home.rglob(f"*{SCRATCH}") if p.is_dir()]:
        log.info("removing %s, left by a broken run", left)
        shutil.rmtree(left, ignore_errors=True)


# ------------------------------------------------------------------------------------ stamps


class _Digests:
    """SHA-256 of files, remembered by size, change time and modification time."""

    def __init__(self, workspace: Workspace) -> None:
        self._root = workspace.root
        self._file = workspace.home / ".stamps" / "files.json"
        self._known = _read_json(self._file)
        self._changed = False

    def label(self, path: Path) -> str:
        """Name of `path` in stamps: relative inside the data folder, absolute outside."""
        try:
            return path.relative_to(self._root).as_posix()
        except ValueError:
            return str(path.resolve())

    def of(self, paths: Iterable[Path]) -> dict[str, str] | None:
        """Digests of all files at and under `paths` by label, or None if one is missing."""
        found: dict[str, str] = {}
        for path in paths:
            if not path.exists():
                return None
            files = [path] if path.is_file() else sorted(path.rglob("*"))
            for file in files:
                if file.is_file() and not file.name.startswith("."):
                    found[self.label(file)] = self._one(file)
        return found

    def _one(self, file: Path) -> str:
        from cmass.tables import file_digest

        label, state = self.label(file), file.stat()
        seen = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        known = self._known.get(label)
        if known is None or known[:3] != seen:
            known = self._known[label] = [*seen, file_digest(file)]
            self._changed = True
        return known[3]

    def save(self) -> None:
        """Keep what was learned for the next call."""
        from cmass.tables import write_json

        if self._changed:
            inside = {k: v for k, v in self._known.items() if (self._root / k).exists()}
            write_json(self._file, inside)
            self._changed = False


def _read_json(path: Path) -> dict[str, Any]:
    # A missing or damaged stamp only means that the step runs again.
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _stamp_file(one: Step, workspace: Workspace) -> Path:
    folder = workspace.home / ".stamps"
    return (folder / workspace.survey if one.per_survey else folder) / f"{one.name}.json"


def parameter_values(one: Step, params: Params) -> dict[str, Any]:
    """The values of the parameters that `one` reads, by dotted name."""
    values: dict[str, Any] = {}
    for section in one.sections_for(params.survey):
        value: Any = params
        for part in section.split("."):
            value = getattr(value, part)
        values[section] = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    return values


def _inputs(one: Step, workspace: Workspace, params: Params) -> tuple[Path, ...]:
    given: list[str] = []
    if one.name == "ingest" and params.survey == "sdss" and params.mirror:
        given = [params.mirror]
    if _downloads(one, params):
        given = [str(file) for file in sorted(workspace.downloads.glob("*.body"))]
    if one.name == "mock" and params.mock.source != "embedded":
        files = params.mock.files
        given = [*files.haloes, *files.galaxies, *([files.clusters] if files.clusters else [])]
    if one.name == "figures":  # studies are no steps: what there is of them is drawn
        given = [str(file) for file in sorted(workspace.study.glob("*/*.parquet"))]
    # DVC must be told one list for all parameters: there these stages wait for the voxels too.
    device = one.name in _MAKE_GRIDS and params.train.grids == "device"
    unread = (workspace.voxels,) if device else ()
    read = tuple(path for path in one.inputs(workspace) if path not in unread)
    return read + tuple(Path(path) for path in given)


def _downloads(one: Step, params: Params) -> bool:
    """Whether `one` reads what it fetches over the network: `cmass.ingest.refresh` may renew it."""
    return one.name == "ingest" and params.survey == "sdss" and params.mirror is None


def _why_stale(one: Step, workspace: Workspace, params: Params, digests: _Digests) -> str | None:
    """Why `one` must run, in words; None when it is up to date."""
    stamp = _read_json(_stamp_file(one, workspace))
    if stamp and stamp.get("code") != source_digest(*one.sources):
        return "the step's code changed"
    return _what_changed(one, workspace, params, digests, stamp)


def _inputs_beside(
    stamp: dict[str, Any], one: Step, workspace: Workspace, params: Params, digests: _Digests
) -> dict[str, str] | None:
    """Digests of the inputs of `one`, to be compared with those in `stamp`.

    A download that is no longer kept has not changed.
    """
    inputs = digests.of(_inputs(one, workspace, params))
    if inputs is not None and _downloads(one, params):
        return (stamp.get("inputs") or {}) | inputs
    return inputs


def _what_changed(
    one: Step, workspace: Workspace, params: Params, digests: _Digests, stamp: dict[str, Any]
) -> str | None:
    """What is not as the step that left `stamp` had it, its code apart."""
    if not stamp:
        return "not made yet"
    now, then = parameter_values(one, params), stamp.get("params", {})
    changed = sorted(k for k in now.keys() | then.keys() if now.get(k) != then.get(k))
    if changed:
        return f"parameters changed: {', '.join(changed)}"
    inputs = _inputs_beside(stamp, one, workspace, params, digests)
    if inputs != stamp.get("inputs"):
        return f"inputs changed: {_difference(inputs, stamp.get('inputs'))}"
    outputs = digests.of(one.outputs(workspace))
    if outputs != stamp.get("outputs"):
        return f"outputs missing or changed: {_difference(outputs, stamp.get('outputs'))}"
    if (seen := one.look_outside(workspace, params)) != stamp.get("outside"):
        return f"outside the data folder: {seen}, was {stamp.get('outside')}"
    return None


def _difference(now: dict[str, str] | None, then: dict[str, str] | None) -> str:
    now, then = now or {}, then or {}
    names = sorted(k for k in now.keys() | then.keys() if now.get(k) != then.get(k))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def why_stale(name: str, workspace: Workspace, params: Params) -> str | None:
    """Why the step called `name` would run now, in words; None when it is up to date."""
    return _why_stale(step(name), workspace, params, _Digests(workspace))


def first_stale(
    names: Iterable[str], workspace: Workspace, params: Params
) -> tuple[str, str] | None:
    """The first of the steps `names` that would run now, and why; None when all are up to date."""
    digests = _Digests(workspace)
    for name in names:
        if (reason := _why_stale(step(name), workspace, params, digests)) is not None:
            return name, reason
    return None


def what_changed(name: str, workspace: Workspace, params: Params) -> str | None:
    """What is not as the step called `name` found and left it, whatever its code was then.

    Returns
    -------
    str or None
        Parameters, inputs or outputs, in words; None when all are the same.
    """
    one = step(name)
    stamp = _read_json(_stamp_file(one, workspace))
    return _what_changed(one, workspace, params, _Digests(workspace), stamp)


def _elsewhere(workspace: Workspace) -> str:
    """Where products are that somebody may have meant, in words."""
    from cmass.params import PROFILES

    root, home = workspace.root, workspace.home
    if home.is_dir() and any(home.iterdir()):
        return ""
    if root.name in PROFILES:
        return f"; {root} is the folder of a profile: --data {root.parent} is the one above it"
    made = [name for name in PROFILES if (root / name).is_dir()]
    if made:
        return f"; {root} has products of the profile {', '.join(made)}, which --profile chooses"
    return f"; {root} holds no products at all: does --data name the right folder?"


def _check_inputs(one: Step, workspace: Workspace, params: Params, digests: _Digests) -> None:
    """Raise where an input is missing or breaks its contract; warn where an earlier step would give
    another one."""
    needed = _inputs(one, workspace, params)
    for earlier in STEPS[: STEPS.index(one)]:
        made = earlier.outputs(workspace)
        used = [p for p in needed if any(p == m or m in p.parents for m in made)]
        for path in used:
            if not path.exists():
                raise WorkspaceError(
                    f"{one.name} needs {path}, which is not there: run `cmass {earlier.name}` "
                    f"first, or `cmass run` for all steps{_elsewhere(workspace)}"
                )
        if used:
            _check_contract(earlier, workspace, params, digests)
        stamp = _read_json(_stamp_file(earlier, workspace))
        if not (used and stamp):
            continue
        if stamp.get("params") != parameter_values(earlier, params):
            other = "with other parameters"
        elif (own := _inputs_beside(stamp, earlier, workspace, params, digests)) != stamp.get(
            "inputs"
        ):
            other = f"of other inputs ({_difference(own, stamp.get('inputs'))})"
        else:
            continue
        log.warning("%s uses products of %s made %s; `cmass run` makes them anew", one.name,
                    earlier.name, other)  # fmt: skip


def _check_contract(one: Step, workspace: Workspace, params: Params, digests: _Digests) -> None:
    """Raise `ContractError` unless what `one` wrote is what others may rely on."""
    if one.hands_over:
        from cmass.contracts import handovers

        made = digests.of(one.outputs(workspace))
        read = digests.of(_inputs(one, workspace, params))
        handovers.check(one.name, workspace.seen_as(one.view), params, made=made, read=read)


# --------------------------------------------------------------------------------------- run


def run_step(
    name: str,
    workspace: Workspace,
    params: Params,
    *,
    force: bool = False,
    lock: bool = True,
) -> bool:
    """Run one step unless it is up to date.

    Parameters
    ----------
    name : str
        Name of the step.
    workspace : Workspace
    params : Params
        Its profile and survey are those of `workspace`.
    force : bool
        Run it even if it is up to date.
    lock : bool
        Take `workspace_lock`; a caller that holds it gives False.

    Returns
    -------
    bool
        True if it ran, False if there was nothing to do.

    Raises
    ------
    ContractError
        What it wrote, or what it would read, breaks its contract.
    WorkspaceError
        An earlier step's product is missing, the data folder is in use, or the disk is full.
    """
    if lock:
        with workspace_lock(workspace):
            return run_step(name, workspace, params, force=force, lock=False)
    return run_if_stale(name, workspace, params, force=force) is not None


def run_if_stale(
    name: str, workspace: Workspace, params: Params, *, force: bool = False
) -> str | None:
    """As `run_step`, for a caller that holds `workspace_lock`.

    Returns
    -------
    str or None
        Why it ran, in words; None if there was nothing to do.
    """
    interrupts.check()
    one = step(name)
    digests = _Digests(workspace)
    try:
        reason = "forced" if force else _why_stale(one, workspace, params, digests)
        if reason is None:
            _check_contract(one, workspace, params, digests)
            log.info("%s: up to date", name)
            return None
        _check_inputs(one, workspace, params, digests)
        log.info("%s: %s", name, reason)
        inputs = digests.of(_inputs(one, workspace, params))
        start = time.monotonic()
        with one_blas_thread():
            _run_guarded(one, workspace, params)
        if _downloads(one, params):  # which it has just made
            inputs = digests.of(_inputs(one, workspace, params))
        outputs = digests.of(one.outputs(workspace))
        if outputs is None:
            lacking = [str(p) for p in one.outputs(workspace) if not p.exists()]
            raise WorkspaceError(f"{name} ended without writing {', '.join(lacking)}")
        _check_contract(one, workspace, params, digests)
        _write_stamp(one, workspace, params, inputs or {}, outputs)
        log.info("%s: done in %.0f s", name, time.monotonic() - start)
        return reason
    finally:
        with suppress(OSError, WorkspaceError):  # only speed is lost with it
            digests.save()


def _write_stamp(
    one: Step, workspace: Workspace, params: Params, inputs: dict[str, str], outputs: dict[str, str]
) -> None:
    from cmass.tables import write_json

    stamp = {
        "step": one.name,
        "code": source_digest(*one.sources),
        "params": parameter_values(one, params),
        "inputs": inputs,
        "outputs": outputs,
    }
    if one.outside:
        stamp["outside"] = one.look_outside(workspace, params)
    write_json(_stamp_file(one, workspace), stamp)


def _run_guarded(one: Step, workspace: Workspace, params: Params) -> None:
    """Run `one`; name what a full disk, a dead worker or Ctrl-C did to it."""
    try:
        with interrupts.recognised():
            one.run(workspace, params)
    except KeyboardInterrupt:
        log.warning("%s: interrupted; the same command goes on where it stopped", one.name)
        raise
    except BrokenExecutor as error:
        raise WorkspaceError(
            f"{one.name}: a worker process died, most often for lack of memory. Run the same "
            "command again, with fewer `workers` in params.yaml: it goes on where it stopped"
        ) from error
    except CmassError:
        raise
    except Exception as error:
        if _is_disk_full(error):
            from cmass.tables import disk_full

            raise disk_full(workspace.home / one.name) from error
        raise


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether `error`, or what caused it, is a full disk (DuckDB, SQLite and HDF5 say so in words)."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(w in str(error) for w in ("No space left on device", "database or disk is full")):
            return True
        error = error.__cause__ or error.__context__
    return False


def run_all(
    workspace: Workspace,
    params: Params,
    *,
    force: bool = False,
    lock: bool = True,
) -> list[str]:
    """Run every step that is not up to date, in order.

    Returns
    -------
    list of str
        Names of the steps that ran.
    """
    if lock:
        with workspace_lock(workspace):
            return run_all(workspace, params, force=force, lock=False)
    ran = []
    for number, one in enumerate(STEPS, start=1):
        log.info("step %d of %d: %s", number, len(STEPS), one.name)
        if run_step(one.name, workspace, params, force=force, lock=False):
            ran.append(one.name)
    return ran
