"""One unit of a study: mocks of one simulator, a network trained on them, what it predicts.

A unit is a folder that is there when it is whole. It keeps the network, its posterior density and
its predictions; the mocks and voxels, a hundred times larger, go when they have served, save for
the evaluation windows of the full simulator, on which every other network is judged as well.
Units that differ only behind the simulator (voxels, sets, network) can share its mocks.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cmass import mock, pretrained, voxels
from cmass.columns import NOT_CATALOGUED
from cmass.errors import InputError
from cmass.infer import Sample, masses_from_points
from cmass.mock.haloes import plan_haloes
from cmass.mock.ingredients import EVERYTHING, ingredient, without
from cmass.params import Params, WindowParams
from cmass.posterior import TAIL, cumulative_at, quantiles
from cmass.pretrained import Bundle
from cmass.seeds import generator
from cmass.shards import (
    SIMULATOR_SOURCES,
    TRAINING_SOURCES,
    digest_of,
    source_digest,
    staged_folder,
)
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
    "cosmology.py", "mass_function.py", "seeds.py", "split.py", "voxels.py", *TRAINING_SOURCES,
    "networks/prediction.py", "estimators/dispersion.py", "posterior.py", "recalibration.py", "study/units.py",
)  # fmt: skip
#: Not the simulator's: the list of what can be left out of it, other samples, simulation files.
_NOT_SIMULATOR = {"ingredients", "population", "survey", "boxes"}


@dataclass(frozen=True)
class Unit:
    """A named variation of the parameters, a seed, and what its network is judged on.

    Attributes
    ----------
    name : str
        Words joined by underscores; ``everything`` where nothing is varied.
    params : Params
        Of this unit: its seed, sizes and simulator.
    folder : Path
        Where it lies once it is whole.
    title : str
        The variation in words.
    base : Unit, optional
        Made before: what this one is compared with. Its network is judged on this one's windows
        (table ``fixed``) and this one's network on the base's (table ``reference``).
    comparable : bool
        False: networks cannot swap windows (of another size), so that there is table ``own`` alone.
    network_seed : int, optional
        Of first weights and batches, where it is not the mocks'.
    n_train : int, optional
        Windows for training and validation, a part of ``split.train``: parts of the same seed are
        nested.
    split_by : str
        What is dealt to the sets: ``halo`` with all its windows, or each ``window``.
    fresh : Params, optional
        Simulator of windows of other haloes, on which the network is judged as well (table
        ``fresh``).
    """

    name: str
    params: Params
    folder: Path
    title: str
    base: Unit | None = None
    comparable: bool = True
    network_seed: int | None = None
    n_train: int | None = None
    split_by: Literal["halo", "window"] = "halo"
    fresh: Params | None = None

    @property
    def seed(self) -> int:
        """Seed of its mocks and, unless it has its own, its network."""
        return self.params.seed

    @property
    def words(self) -> str:
        """The unit in words, for logs."""
        return f"{self.title}, seed {self.seed}"

    @property
    def workspace(self) -> Workspace:
        """Its own products: network and posterior density."""
        return Workspace(self.folder, "", self.params.survey)

    @property
    def windows_trained_on(self) -> int:
        """Windows that are asked for, for training and validation."""
        return self.params.split.train if self.n_train is None else self.n_train

    @property
    def n_learned(self) -> int:
        """Windows that its network learned from, those for validation among them."""
        model = read_json(self.workspace.model / "model.json")
        return int(model["n_train"] + model["n_validation"])

    def digest(self) -> str:
        """Identity of its parameters and code, and of what it is compared with."""
        values = self.params.model_dump(mode="json")
        more = {
            "network_seed": self.network_seed, "n_train": self.n_train, "split_by": self.split_by,
            "fresh": self.fresh and mock_digest(self.fresh),
            "base": self.base and self.comparable and self.base.digest(),
        }  # fmt: skip
        return digest_of({name: values[name] for name in _SECTIONS}, more, _code_digest())

    def is_made(self) -> bool:
        """Whether it is there, made with these parameters and this code."""
        card = self.folder / "unit.json"
        return card.exists() and read_json(card)["digest"] == self.digest()

    def mock_digests(self) -> set[str]:
        """Identities of the mocks that it needs."""
        return {mock_digest(p) for p in (self.params, self.fresh) if p is not None}

    def bundle(self) -> Bundle:
        """Its network, with all that posteriors need."""
        return pretrained.from_workspace(self.workspace, self.params)

    def predictions(self, name: str) -> pa.Table:
        """One of its tables `study_predictions`: ``own``, ``reference``, ``fixed`` or ``fresh``."""
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


@cache
def _simulator_digest() -> str:
    return source_digest(*SIMULATOR_SOURCES)


def mock_digest(params: Params) -> str:
    """Identity of the mocks that these parameters give."""
    values = params.model_dump(mode="json")
    return digest_of({name: values[name] for name in mock.SECTIONS}, _simulator_digest())[:16]


def plan_unit(
    name: str,
    seed: int,
    workspace: Workspace,
    params: Params,
    *,
    full: bool,
    base: Unit | None = None,
) -> Unit:
    """The unit of one simulator and one seed.

    Parameters
    ----------
    name : str
        An ingredient to switch off, or ``everything``.
    seed : int
    workspace, params
    full : bool
        At the profile's own sizes instead of those under ``study``.
    base : Unit, optional
        The full simulator's of the same seed; by default it is planned here.
    """
    own = params.model_copy(update={"seed": seed})
    if not full:
        own = small(own)
    size = "profile" if full else "small"
    folder = workspace.study / size / f"{name}-{seed}"
    if name == EVERYTHING:
        return Unit(name, own, folder, name)
    one = ingredient(name)
    base = base or plan_unit(EVERYTHING, seed, workspace, params, full=full)
    return Unit(name, without(own, one), folder, f"no {one.title}", base)


def small(params: Params, *, train: int | None = None, evaluation: int | None = None) -> Params:
    """Parameters at the size of a study.

    Parameters
    ----------
    params : Params
    train, evaluation : int, optional
        Windows in these sets, where they are not those under ``study``.
    """
    study = params.study
    sizes = {
        "train": train or study.train, "test": study.test,
        "evaluation": evaluation or study.evaluation,
    }  # fmt: skip
    haloes = params.mock.haloes.model_copy(update={"n_windows": sum(sizes.values())})
    training = {
        "epochs": study.epochs,
        "batch_size": study.batch_size,
        "learning_rate": study.learning_rate,
        "tries": 1,
    }
    return params.model_copy(
        update={
            "mock": params.mock.model_copy(update={"haloes": haloes}),
            "split": params.split.model_copy(update=sizes),
            "voxels": params.voxels.model_copy(update={"n": study.voxels_n}),
            "train": params.train.model_copy(update=training),
        }
    )


def make_unit(unit: Unit, mocks: Path | None = None) -> None:
    """Make a unit, or go on with one that a kill left half-made.

    Parameters
    ----------
    unit : Unit
        What it is compared with was made before.
    mocks : Path, optional
        Folder of mocks that units share; without it the unit simulates its own and removes them.
    """
    start = time.monotonic()
    with staged_folder(unit.folder, unit.digest()) as partial:
        work = Workspace(partial, "", unit.params.survey)
        # This table goes last: once it is there, mocks and voxels may be gone.
        if not (partial / "own.parquet").exists():
            _train(work, unit, mocks)
            _predict(work, unit, mocks)
        _tidy(work, keep_evaluation=unit.name == EVERYTHING)
        card = {
            "digest": unit.digest(),
            "variation": unit.name,
            "seed": unit.seed,
            "n_haloes": len(plan_haloes(unit.params)),
            "seconds": round(time.monotonic() - start, 1),
        }
        write_json(partial / "unit.json", card)


def _provide_mocks(work: Workspace, params: Params, mocks: Path | None) -> None:
    """Mocks of a unit: its own, or a link to those that units share."""
    if work.mock.exists():
        return
    if mocks is None:
        mock.run(work, params)
        return
    shared = Workspace(mocks / mock_digest(params), "", params.survey)
    if not shared.mock.exists():
        mock.run(shared, params)
    work.mock.unlink(missing_ok=True)  # a link to mocks that are gone
    work.home.mkdir(parents=True, exist_ok=True)
    work.mock.symlink_to(shared.mock.resolve())


def _train(work: Workspace, unit: Unit, mocks: Path | None) -> None:
    """Mocks, split, voxels, network and posterior density; what is there is not made again."""
    from cmass import posterior
    from cmass.networks import training

    params = unit.params
    # Each product below appears when it is whole; the folder's digest holds for all of them.
    _provide_mocks(work, params, mocks)
    if not work.split.exists():
        write_split(work, unit)
    if not work.voxels.exists():
        voxels.run(work, params)
    if not (work.model / "model.json").exists():
        seed = unit.seed if unit.network_seed is None else unit.network_seed
        training.run(work, params.model_copy(update={"seed": seed}), register=False)
    if not (work.posterior / "range.json").exists():
        posterior.run(work, _plain(params))


def _plain(params: Params) -> Params:
    """Posteriors as the paper makes them: a study is about networks, and what richness and
    redshift repair afterwards would hide what a network lacks."""
    how = params.posterior
    plain = {"bandwidth": how.plain_bandwidth, "recalibration": "none"}
    return params.model_copy(update={"posterior": how.model_copy(update=plain)})


def write_split(work: Workspace, unit: Unit) -> None:
    """Deal haloes to sets before windows without a density are left out.

    The sets are then those of every simulator with the same seed: windows can be compared one by
    one, and no halo that one network trained on judges another.
    """
    params, sizes = unit.params, set_sizes(unit.params.split)
    table = read_table(work.mock / "clusters", "mock_clusters", ["cluster_id", "halo_id", "flag"])
    flags, halo_id = to_numpy(table, "flag", "halo_id")
    if unit.split_by == "halo":
        plans = plan_haloes(params)
        halo = np.repeat([p.halo_id for p in plans], [p.n_sight_lines for p in plans])
        single = (np.unique(halo, return_counts=True)[1] == 1).any()
        chosen = (split_haloes if single else deal_large_haloes)(halo, sizes, params.seed)
        set_of = dict(zip(halo.tolist(), chosen.tolist(), strict=True))
        sets = np.array([set_of[h] for h in halo_id.tolist()])
        if not single:
            sets = _cut(sets, sizes)
    else:
        sets = split_haloes(np.arange(table.num_rows), sizes, params.seed).astype(str)
    kept = ((flags & NOT_CATALOGUED) == 0) & (sets != "")
    if unit.n_train is not None:
        smaller = params.split.model_copy(update={"train": unit.n_train})
        for name in ("train", "validation"):
            kept &= (sets != name) | _part(
                np.where(kept & (sets == name), halo_id, -1), set_sizes(smaller)[name], unit.seed
            )
    columns = {
        "cluster_id": table["cluster_id"].filter(kept),
        "halo_id": table["halo_id"].filter(kept),
        "set": sets[kept].tolist(),
    }
    write_table(work.split / "split.parquet", make_table("split", columns), "split")


def deal_large_haloes(halo_id: NDArray[np.int64], sizes: dict[str, int], seed: int) -> NDArray:
    """Assign windows to sets so that no halo is in two, where no halo has a single window.

    Such haloes cannot fill sets exactly: each set gets haloes until it has enough windows.

    Parameters
    ----------
    halo_id : ndarray of int64, shape (n,)
    sizes : dict of str to int
        Fewest windows of each set.
    seed : int

    Returns
    -------
    ndarray of str, shape (n,)
        Empty for windows left over.

    Raises
    ------
    InputError
        There are too few windows.
    """
    haloes, number, counts = np.unique(halo_id, return_inverse=True, return_counts=True)
    left = iter(generator(seed, "study-split").permutation(len(haloes)).tolist())
    chosen = np.full(len(haloes), "", object)
    for name, size in sizes.items():
        n = 0
        while n < size:
            halo = next(left, None)
            if halo is None:
                raise InputError(
                    f"too few mock windows for the sets: {name} is short by {size - n}",
                    remedy="Raise mock.haloes.n_windows",
                )
            chosen[halo] = name
            n += counts[halo]
    return chosen[number].astype(str)


def _cut(sets: NDArray, sizes: dict[str, int]) -> NDArray:
    """Leave out the last windows of a set that has more than its size."""
    cut = sets.copy()
    for name, size in sizes.items():
        cut[np.flatnonzero(sets == name)[size:]] = ""
    return cut


def _part(halo_id: NDArray[np.int64], n: int, seed: int) -> NDArray[np.bool_]:
    """The first `n` windows, halo after halo in a random order: nested for one seed.

    Windows of halo -1 do not count.
    """
    rank = generator(seed, "study-part").permutation(int(halo_id.max()) + 1)
    order = np.argsort(np.where(halo_id < 0, len(rank), rank[halo_id]), kind="stable")
    chosen = np.zeros(len(halo_id), bool)
    chosen[order[:n]] = True
    return chosen & (halo_id >= 0)


def _predict(work: Workspace, unit: Unit, mocks: Path | None) -> None:
    """Its network on its own windows and on the base's; the latter's on its own."""
    bundle = pretrained.from_workspace(work, unit.params)
    tables = {"own": judged(bundle, work.voxels / "evaluation")}
    if unit.base is not None and unit.comparable:
        reference = unit.base.workspace.voxels / "evaluation"
        tables["reference"] = judged(bundle, reference)
        tables["fixed"] = judged(unit.base.bundle(), work.voxels / "evaluation")
    if unit.fresh is not None:
        other = Workspace(work.home / "fresh", "", unit.params.survey)
        _provide_mocks(other, unit.fresh, mocks)
        _write_split_of_one(other)
        if not other.voxels.exists():
            voxels.run(other, unit.params)
        tables["fresh"] = judged(bundle, other.voxels / "evaluation")
    for name in sorted(tables, key=lambda n: n == "own"):
        write_table(work.home / f"{name}.parquet", tables[name], "study_predictions")


def _write_split_of_one(work: Workspace) -> None:
    """All windows that stand for a cluster in the evaluation set."""
    columns = ["cluster_id", "halo_id", "flag"]
    table = read_table(work.mock / "clusters", "mock_clusters", columns)
    (flags,) = to_numpy(table, "flag")
    table = table.filter((flags & NOT_CATALOGUED) == 0)
    values = {"cluster_id": table["cluster_id"], "halo_id": table["halo_id"],
              "set": ["evaluation"] * table.num_rows}  # fmt: skip
    write_table(work.split / "split.parquet", make_table("split", values), "split")


def judged(bundle: Bundle, folder: Path) -> pa.Table:
    """Table `study_predictions`: a network with its posteriors on windows of known mass."""
    from cmass.networks import prediction

    ids, true, outputs = prediction.predict_folder(bundle.network, folder)
    point = outputs[:, 0]
    return judged_points(
        ids, true, point, bundle.density.posterior(point, bundle.edges), bundle.edges
    )


def judged_points(
    ids: Sequence[str] | pa.ChunkedArray, true: Array, point: Array, probabilities: Array,
    edges: Array,
) -> pa.Table:  # fmt: skip
    """Table `study_predictions` of point estimates with their posteriors.

    Parameters
    ----------
    ids : sequence of str
    true, point : ndarray, shape (n,)
        log10 M200c, h⁻¹ M☉.
    probabilities : ndarray, shape (n, n_bins)
    edges : ndarray, shape (n_bins + 1,)
        Of the bins of log10 M200c.
    """
    p16, p50, p84 = quantiles(probabilities, edges, [TAIL, 0.5, 1 - TAIL]).T
    below = np.clip(cumulative_at(probabilities, edges, true), 0, 1)  # sums are rounded
    return make_table(
        "study_predictions",
        {
            "cluster_id": ids, "log10_m200c_true": true, "log10_m200c": point,
            "log10_m200c_p16": p16, "log10_m200c_p50": p50, "log10_m200c_p84": p84,
            "probability_below_true": below,
        },
    )  # fmt: skip


def _tidy(work: Workspace, *, keep_evaluation: bool) -> None:
    if work.mock.is_symlink():
        work.mock.unlink()
    for folder in (work.mock, work.home / "model.partial", work.home / "fresh"):
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


def within(sample: Sample, window: WindowParams) -> Sample:
    """The sample with the galaxies inside a window; flags and clusters as they are."""
    reach = np.array([window.half_width_mpc_h, window.half_width_mpc_h, window.v_max_km_s])
    inside = (np.abs(sample.points) <= reach).all(axis=1)
    before = np.concatenate([[0], np.cumsum(inside)])
    return replace(sample, points=sample.points[inside], offsets=before[sample.offsets])


def survey_masses(unit: Unit, survey: Survey) -> pa.Table:
    """Table `masses` of the survey's clusters by a unit's network, kept with the unit.

    Galaxies outside the network's window are left out.
    """
    path = unit.folder / f"{survey.name}.parquet"
    mark = unit.folder / f"{survey.name}.json"
    identity = {"unit": unit.digest(), "survey": survey.digest, "code": source_digest("infer.py")}
    if path.exists() and mark.exists() and json.loads(mark.read_text()) == identity:
        return read_table(path, "masses")
    masses = masses_from_points(within(survey.sample, unit.params.window), unit.bundle())
    mark.unlink(missing_ok=True)
    write_table(path, masses, "masses")
    write_json(mark, identity)
    return masses
