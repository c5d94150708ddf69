"""One unit of a study: mocks of one simulator, a network trained on them, what it predicts.

A unit is a folder that is there when it is whole. It keeps the network, its posterior density and
its predictions; the mocks and voxels, a hundred times larger, go when they have served, save for
the evaluation windows of the full simulator, on which every other network is judged as well.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cmass import mock, pretrained, voxels
from cmass.columns import NOT_CATALOGUED
from cmass.infer import Sample, masses_from_points
from cmass.mock.haloes import plan_haloes
from cmass.mock.ingredients import EVERYTHING, ingredient, without
from cmass.params import Params
from cmass.posterior import TAIL, cumulative_at, quantiles
from cmass.pretrained import Bundle
from cmass.shards import digest_of, source_digest, staged_folder
from cmass.split import set_sizes, split_haloes
from cmass.tables import (
    file_digest,
    make_table,
    points_by_cluster,
    read_json,
    read_table,
    to_numpy,
    write_json,
    write_table,
)
from cmass.workspace import Workspace

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

#: Parameter sections that a unit depends on.
_SECTIONS = (
    "seed", "cosmology", "window", "mock", "split", "voxels", "train", "posterior", "evaluate",
)  # fmt: skip
#: Code that a unit depends on, beside the simulator's.
_SOURCES = (
    "cosmology.py", "mass_function.py", "seeds.py", "split.py", "voxels.py", "networks/cnn3d.py",
    "networks/streaming.py", "networks/training.py", "networks/prediction.py",
    "networks/dispersion.py", "posterior.py", "study/units.py",
)  # fmt: skip
#: Not the simulator's: the list of what can be left out of it, other samples, simulation files.
_NOT_SIMULATOR = {"ingredients", "population", "survey", "boxes"}


@dataclass(frozen=True)
class Unit:
    """A simulator and a seed.

    Attributes
    ----------
    name : str
        The ingredient that is switched off, or ``everything`` where none is.
    params : Params
        Of this unit: its seed, sizes and simulator.
    folder : Path
        Where it lies once it is whole.
    """

    name: str
    params: Params
    folder: Path

    @property
    def seed(self) -> int:
        """Seed of its mocks and its network."""
        return self.params.seed

    @property
    def words(self) -> str:
        """The unit in words, for logs."""
        what = self.name if self.name == EVERYTHING else f"no {ingredient(self.name).title}"
        return f"{what}, seed {self.seed}"

    @property
    def workspace(self) -> Workspace:
        """Its own products: network and posterior density."""
        return Workspace(self.folder, "", self.params.survey)

    def digest(self) -> str:
        """Identity of its parameters and code."""
        values = self.params.model_dump(mode="json")
        return digest_of({name: values[name] for name in _SECTIONS}, _code_digest())

    def is_made(self) -> bool:
        """Whether it is there, made with these parameters and this code."""
        card = self.folder / "unit.json"
        return card.exists() and read_json(card)["digest"] == self.digest()

    def bundle(self) -> Bundle:
        """Its network, with all that posteriors need."""
        return pretrained.from_workspace(self.workspace, self.params)

    def predictions(self, name: str) -> pa.Table:
        """One of its tables `study_predictions`: ``own``, ``reference`` or ``fixed``."""
        return read_table(self.folder / f"{name}.parquet", "study_predictions")


@cache
def _code_digest() -> str:
    """Identity of the code as it was when the study began; it may be edited meanwhile."""
    package = Path(mock.__file__).parent
    parts = sorted(
        p for p in package.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
    )
    simulator = [f"mock/{part.name}" for part in parts if part.stem not in _NOT_SIMULATOR]
    return source_digest(*simulator, *_SOURCES)


def plan_unit(name: str, seed: int, workspace: Workspace, params: Params, *, full: bool) -> Unit:
    """The unit of one simulator and one seed.

    Parameters
    ----------
    name : str
        An ingredient to switch off, or ``everything``.
    seed : int
    workspace, params
    full : bool
        At the profile's own sizes instead of those under ``study``.
    """
    own = params.model_copy(update={"seed": seed})
    if not full:
        own = _small(own)
    if name != EVERYTHING:
        own = without(own, ingredient(name))
    size = "profile" if full else "small"
    return Unit(name, own, workspace.study / size / f"{name}-{seed}")


def _small(params: Params) -> Params:
    study = params.study
    sizes = {"train": study.train, "test": study.test, "evaluation": study.evaluation}
    haloes = params.mock.haloes.model_copy(update={"n_windows": sum(sizes.values())})
    training = {
        "epochs": study.epochs,
        "batch_size": study.batch_size,
        "learning_rate": study.learning_rate,
    }
    return params.model_copy(
        update={
            "mock": params.mock.model_copy(update={"haloes": haloes}),
            "split": params.split.model_copy(update=sizes),
            "voxels": params.voxels.model_copy(update={"n": study.voxels_n}),
            "train": params.train.model_copy(update=training),
        }
    )


def make_unit(unit: Unit, everything: Unit) -> None:
    """Make a unit, or go on with one that a kill left half-made.

    Parameters
    ----------
    unit : Unit
    everything : Unit
        The full simulator's of the same seed, made before; or `unit` itself.
    """
    start = time.monotonic()
    with staged_folder(unit.folder, unit.digest()) as partial:
        work = Workspace(partial, "", unit.params.survey)
        # This table goes last: once it is there, mocks and voxels may be gone.
        if not (partial / "own.parquet").exists():
            _train(work, unit.params)
            _predict(work, unit, everything)
        _tidy(work, keep_evaluation=unit.name == EVERYTHING)
        card = {
            "digest": unit.digest(),
            "without": unit.name,
            "seed": unit.seed,
            "n_haloes": len(plan_haloes(unit.params)),
            "seconds": round(time.monotonic() - start, 1),
        }
        write_json(partial / "unit.json", card)


def _train(work: Workspace, params: Params) -> None:
    """Mocks, split, voxels, network and posterior density; what is there is not made again."""
    import keras

    from cmass import posterior
    from cmass.networks import training

    # Each product below appears when it is whole; the folder's digest holds for all of them.
    if not work.mock.exists():
        mock.run(work, params)
    if not work.split.exists():
        write_split(work, params)
    if not work.voxels.exists():
        voxels.run(work, params)
    keras.utils.clear_session()
    if not (work.model / "model.json").exists():
        training.run(work, params, register=False)
    if not (work.posterior / "range.json").exists():
        posterior.run(work, params)


def write_split(work: Workspace, params: Params) -> None:
    """Deal haloes to sets before windows without a density are left out.

    The sets are then those of every simulator with the same seed: windows can be compared one by
    one, and no halo that one network trained on judges another.
    """
    plans = plan_haloes(params)
    halo = np.repeat([p.halo_id for p in plans], [p.n_sight_lines for p in plans])
    chosen = split_haloes(halo, set_sizes(params.split), params.seed)
    set_of = dict(zip(halo.tolist(), chosen.tolist(), strict=True))
    table = read_table(work.mock / "clusters", "mock_clusters", ["cluster_id", "halo_id", "flag"])
    flags, halo_id = to_numpy(table, "flag", "halo_id")
    sets = np.array([set_of[h] for h in halo_id.tolist()])
    kept = ((flags & NOT_CATALOGUED) == 0) & (sets != "")
    columns = {
        "cluster_id": table["cluster_id"].filter(kept),
        "halo_id": table["halo_id"].filter(kept),
        "set": sets[kept].tolist(),
    }
    write_table(work.split / "split.parquet", make_table("split", columns), "split")


def _predict(work: Workspace, unit: Unit, everything: Unit) -> None:
    """Its network on its own windows and on the full simulator's; the latter's on its own."""
    bundle = pretrained.from_workspace(work, unit.params)
    tables = {"own": judged(bundle, work.voxels / "evaluation")}
    if unit.name != EVERYTHING:
        reference = everything.workspace.voxels / "evaluation"
        tables["reference"] = judged(bundle, reference)
        tables["fixed"] = judged(everything.bundle(), work.voxels / "evaluation")
    for name in sorted(tables, key=lambda n: n == "own"):
        write_table(work.home / f"{name}.parquet", tables[name], "study_predictions")


def judged(bundle: Bundle, folder: Path) -> pa.Table:
    """Table `study_predictions`: a network with its posteriors on windows of known mass."""
    from cmass.networks import prediction

    ids, true, point = prediction.predict_folder(bundle.network, folder)
    probabilities = bundle.density.posterior(point, bundle.edges)
    p16, p50, p84 = quantiles(probabilities, bundle.edges, [TAIL, 0.5, 1 - TAIL]).T
    below = np.clip(cumulative_at(probabilities, bundle.edges, true), 0, 1)  # sums are rounded
    return make_table(
        "study_predictions",
        {
            "cluster_id": ids, "log10_m200c_true": true, "log10_m200c": point,
            "log10_m200c_p16": p16, "log10_m200c_p50": p50, "log10_m200c_p84": p84,
            "probability_below_true": below,
        },
    )  # fmt: skip


def _tidy(work: Workspace, *, keep_evaluation: bool) -> None:
    for folder in (work.mock, work.home / "model.partial"):
        shutil.rmtree(folder, ignore_errors=True)
    if not work.voxels.exists():
        return
    for folder in work.voxels.iterdir():
        if not (keep_evaluation and folder.name == "evaluation"):
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()


# ------------------------------------------------------------------------------------- survey


@dataclass(frozen=True)
class Survey:
    """Windows of a survey's clusters, and what identifies them.

    Attributes
    ----------
    name : str
    sample : Sample
    digest : str
    """

    name: str
    sample: Sample
    digest: str


def read_survey(workspace: Workspace) -> Survey | None:
    """The selected windows of the workspace's survey; None where there are none yet."""
    clusters_file = workspace.selected / "clusters.parquet"
    if not clusters_file.exists():
        return None
    galaxies_file = workspace.selected / "galaxies.parquet"
    clusters = read_table(clusters_file, "clusters")
    columns = ["cluster_id", "x_proj", "y_proj", "v_los"]
    galaxies = read_table(galaxies_file, "galaxies", columns)
    points, offsets = points_by_cluster(galaxies, clusters["cluster_id"])
    ra, dec, z, flag = to_numpy(clusters, "ra", "dec", "z", "flag")
    sample = Sample(clusters["cluster_id"].to_pylist(), ra, dec, z, flag, points, offsets)
    digest = digest_of(file_digest(clusters_file), file_digest(galaxies_file))
    return Survey(workspace.survey, sample, digest)


def survey_masses(unit: Unit, survey: Survey) -> pa.Table:
    """Table `masses` of the survey's clusters by a unit's network, kept with the unit."""
    path = unit.folder / f"{survey.name}.parquet"
    mark = unit.folder / f"{survey.name}.json"
    identity = {"unit": unit.digest(), "survey": survey.digest, "code": source_digest("infer.py")}
    if path.exists() and mark.exists() and json.loads(mark.read_text()) == identity:
        return read_table(path, "masses")
    masses = masses_from_points(survey.sample, unit.bundle())
    mark.unlink(missing_ok=True)
    write_table(path, masses, "masses")
    write_json(mark, identity)
    return masses
