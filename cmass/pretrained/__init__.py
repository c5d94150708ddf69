"""The model that ships with the package, and how a finished run becomes one.

A bundle is a folder with everything that turns galaxies into posteriors: the network's
weights, the test set's predictions and masses (the joint density), the mass bins and priors, the
sigma-M relation, what its mocks look like (`cmass.oddity`), and `model.json` with parameters,
range and provenance.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cmass import limits
from cmass.errors import InputError, WorkspaceError
from cmass.estimators.dispersion import Relation
from cmass.oddity import REFERENCE, SETTINGS, Oddity
from cmass.oddity.depth import CountScale
from cmass.params import CosmologyParams, GalaxyParams, Params, VoxelParams, WindowParams
from cmass.posterior import JointDensity, grid_edges
from cmass.recalibration import Posteriors, Recalibration, pairs_of
from cmass.tables import file_digest, read_json, read_table, to_numpy, write_json
from cmass.workspace import Workspace

if TYPE_CHECKING:
    from cmass.networks.compiled import CompiledCNN3D

Array = NDArray[np.float64]

#: Folder of the bundle that ships.
SHIPPED = Path(__file__).parent
WEIGHTS = "cnn3d.weights.h5"
#: Parameters and range of a model, in the folder of a champion.
SETTINGS_FILE = "settings.json"
#: Parameters that shaped a model and its evidence; those of the run that shows it may be others.
_MADE_WITH = (
    "seed", "mock", "population", "split", "train", "posterior", "oddity", "evaluate", "rivals",
)  # fmt: skip
_FILES = (WEIGHTS, "pairs.parquet", "posterior_grid.parquet", "dispersion.json")
_ODDITY = (SETTINGS, REFERENCE)
#: Most bytes of one file of a bundle: those of the model that ships have 1.4 MB together.
_FILE_MAX_BYTES = 200_000_000


@dataclass(frozen=True)
class TrainingRange:
    """What the mocks cover; masses of clusters outside are flagged.

    Attributes
    ----------
    n_galaxies : tuple of float
        0.05 % and 99.95 % quantiles of the galaxies in a window.
    z : tuple of float
        Smallest and largest redshift.
    distance_mpc_h : tuple of float
        Smallest and largest comoving distance, h⁻¹ Mpc.
    flux_limit_mag : float or None
        Depth in apparent r; None for a model from before models told.
    """

    n_galaxies: tuple[float, float]
    z: tuple[float, float]
    distance_mpc_h: tuple[float, float]
    flux_limit_mag: float | None


@dataclass(frozen=True)
class Bundle:
    """A trained model with all that its posteriors need.

    Attributes
    ----------
    weights : Path
        Weights of CNN_3D.
    density : JointDensity
        Plain joint density of point estimate and truth, with the paper's bandwidth.
    posteriors : Posteriors
        What makes posteriors: the density as it was recalibrated on the test set.
    grid : pyarrow.Table
        Table `posterior_grid`.
    relation : Relation
        The sigma-M relation.
    range : TrainingRange
    window : WindowParams
    voxels : VoxelParams
    cosmology : CosmologyParams
    provenance : dict
        Where the bundle comes from.
    oddity : Oddity or None
        What its mocks look like; None for a model from before flags told.
    """

    weights: Path
    density: JointDensity
    posteriors: Posteriors
    grid: pa.Table
    relation: Relation
    range: TrainingRange
    window: WindowParams
    voxels: VoxelParams
    cosmology: CosmologyParams
    provenance: dict[str, Any]
    oddity: Oddity | None = None

    @cached_property
    def network(self) -> CompiledCNN3D:
        """The network, loaded at first use."""
        from cmass.networks import cnn3d

        if not self.weights.exists():
            raise WorkspaceError(f"{self.weights} does not exist: train a model first")
        return cnn3d.load(self.weights, self.voxels.n)

    @cached_property
    def edges(self) -> Array:
        """Edges of the mass bins, log10 of h⁻¹ M☉, shape (n_bins + 1,)."""
        return grid_edges(self.grid)

    def posterior(self, predicted: Array, n_galaxies: Array, z: Array) -> Array:
        """Posterior probability per mass bin of point estimates, shape (n, n_bins).

        Parameters
        ----------
        predicted : ndarray, shape (n,)
            Point estimates of log10 M200c (h⁻¹ M☉); one that has no posterior gets NaN.
        n_galaxies, z : ndarray, shape (n,)
            Galaxies in the window, and redshift.
        """
        return self.posteriors.posterior(predicted, n_galaxies, z, self.edges)

    @property
    def _mock_params(self) -> dict[str, Any]:
        """Parameters of its mocks as JSON has them; empty for a model that does not say."""
        found: dict[str, Any] = self.provenance.get("params", {}).get("mock", {})
        return found

    @cached_property
    def count_scale(self) -> CountScale | None:
        """Galaxies in the outskirts of the mocks' windows; None where the model does not say."""
        galaxies = self._mock_params.get("galaxies")
        if galaxies is None or self.oddity is None:
            return None
        return CountScale.fit(
            self.oddity.space.reference_summaries(), GalaxyParams.model_validate(galaxies),
            self.cosmology,
        )  # fmt: skip

    @property
    def centre_kernel(self) -> tuple[float, float]:
        """Kernel by which the mocks' observer finds centres: on the sky (Mpc/h), in velocity (km/s)."""
        observer = self._mock_params.get("observer")
        if observer is None:
            raise InputError(
                "the model does not say how its mocks were centred, so that nothing can be recentred as they were",
                remedy="Use a model that `cmass train --like` or a release made, or the one that ships",
            )
        return float(observer["centre_kernel_mpc_h"]), float(observer["centre_kernel_km_s"])

    @property
    def priors(self) -> tuple[Array, Array]:
        """Prior probabilities per bin: flat, halo mass function."""
        flat, hmf = to_numpy(self.grid, "prior_flat", "prior_hmf")
        return flat, hmf


def _assemble(
    weights: Path, posterior: Path, settings: dict[str, Any], provenance: dict[str, Any],
    oddity: Path,
) -> Bundle:  # fmt: skip
    """Bundle of the files in `posterior` and `oddity`; `settings` holds parameters and range as
    JSON has them."""
    if "recalibration" in settings:
        recalibration = Recalibration.from_json(settings["recalibration"])
        plain_bandwidth = settings["plain_bandwidth"]
    else:  # a model from before posteriors were recalibrated
        recalibration, plain_bandwidth = Recalibration(settings["bandwidth"]), settings["bandwidth"]
    pairs = pairs_of(read_table(posterior / "pairs.parquet", "test_pairs"))
    relation = posterior / "dispersion.json"
    return Bundle(
        weights=weights,
        density=JointDensity(pairs.predicted, pairs.true, plain_bandwidth),
        posteriors=Posteriors(pairs, recalibration),
        grid=read_table(posterior / "posterior_grid.parquet", "posterior_grid"),
        relation=Relation.from_json(read_json(relation), relation),
        range=_training_range(settings["range"]),
        window=WindowParams.model_validate(settings["window"]),
        voxels=VoxelParams.model_validate(settings["voxels"]),
        cosmology=CosmologyParams.model_validate(settings["cosmology"]),
        provenance=provenance,
        oddity=Oddity.load(oddity),
    )


def _training_range(values: dict[str, float]) -> TrainingRange:
    limit = values.get("flux_limit_mag")
    return TrainingRange(
        n_galaxies=(float(values["n_galaxies_low"]), float(values["n_galaxies_high"])),
        z=(float(values["z_min"]), float(values["z_max"])),
        distance_mpc_h=(float(values["distance_mpc_h_min"]), float(values["distance_mpc_h_max"])),
        flux_limit_mag=None if limit is None else float(limit),
    )


def settings_of(workspace: Workspace, params: Params) -> dict[str, Any]:
    """Parameters and range of the model of a workspace: as it was kept, or of this run."""
    if workspace.view == "champion":
        settings: dict[str, Any] = read_json(workspace.champion / SETTINGS_FILE)
        return settings
    used = params.model_dump(mode="json")
    return {
        "plain_bandwidth": params.posterior.plain_bandwidth,
        "recalibration": read_json(workspace.posterior / "recalibration.json"),
        "range": read_json(workspace.posterior / "range.json")
        | {"flux_limit_mag": params.mock.galaxies.flux_limit_mag},
        **{name: used[name] for name in ("window", "voxels", "cosmology")},
        "made_with": {name: used[name] for name in _MADE_WITH},
    }


def from_workspace(workspace: Workspace, params: Params) -> Bundle:
    """The model of a run, after the steps train and posterior."""
    settings = settings_of(workspace, params)
    return _assemble(
        workspace.model / WEIGHTS, workspace.posterior, settings,
        {"profile": params.profile, "params": settings["made_with"]}, workspace.oddity,
    )  # fmt: skip


def load_bundle(folder: Path | str | None = None) -> Bundle:
    """Load a bundle: the one that ships, or one that `make_bundle` wrote.

    Parameters
    ----------
    folder : path, optional
        Folder of the bundle; by default that of the one that ships.

    Raises
    ------
    InputError
        A file is damaged or is not the one that `model.json` was written with.
    WorkspaceError
        A file is missing.
    """
    folder = SHIPPED if folder is None else Path(folder)
    if not (folder / "model.json").exists():
        raise WorkspaceError(
            f"{folder} holds no model (model.json is missing): give the folder of a bundle, "
            "or reinstall the package for the one that ships"
        )
    description = read_json(folder / "model.json")
    checksums = description.get("checksums") if isinstance(description, dict) else None
    if not isinstance(checksums, dict):
        raise InputError(
            "not a description of a model: it has no checksums", file=folder / "model.json"
        )
    # Models from before flags told of odd windows lack the files of these.
    listed = [name for name in _ODDITY if name in checksums]
    for name in (*_FILES, *listed):
        path = folder / name
        if not path.exists():
            raise WorkspaceError(f"{path} does not exist: the model is incomplete")
        if path.stat().st_size > _FILE_MAX_BYTES:
            raise InputError("larger than any file of a model", file=path)
        if path.suffix == ".parquet":
            limits.check_parquet_file(path)
        if file_digest(path) != checksums.get(name):
            raise InputError(
                "the file is not the one the model was made with", file=path,
                remedy="Copy the model again, or reinstall the package",
            )  # fmt: skip
    try:
        return _assemble(
            folder / WEIGHTS, folder, description["settings"], description["provenance"], folder
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise InputError(
            f"not a description of a model: {error}", file=folder / "model.json"
        ) from error


def bundle_of_release(data: Path, folder: Path) -> None:
    """Copy the model of the latest release in `data` to `folder`, with its provenance.

    Commit, parameters and figures are those that the release was made with.

    Raises
    ------
    WorkspaceError
        There is no release, it is one of profile smoke, or something was made again after it.
    """
    from cmass.pipeline import what_changed

    release = data / "release" / "latest"
    if not release.exists():
        raise WorkspaceError(f"{release} does not exist: finish a run first (`cmass run`)")
    facts = read_json(release / "provenance.json")
    params = Params.model_validate(facts["parameters"])
    workspace = Workspace(data, params.profile, facts["release"]["survey"], "champion")
    if params.profile == "smoke":
        raise WorkspaceError(f"{release.resolve()} is of profile smoke, whose masses are no masses")
    # What publish read is what the rest of the bundle is made of, but for oddity's, which infer read.
    for name in ("infer", "publish"):
        if (changed := what_changed(name, workspace, params)) is not None:
            raise WorkspaceError(
                f"products are not those of {release.resolve()} ({name}: {changed}): run `cmass run`"
            )
    software, survey = facts["software"], workspace.survey
    figures = {
        "mocks": read_json(workspace.evaluation / "metrics.json")["all"],
        survey: read_json(workspace.masses / "metrics.json")[survey],
    }
    make_bundle(
        workspace, params, folder, figures=figures,
        commit=f"{software.get('git_commit', 'unknown')} ({software.get('git_state', 'no clone')})",
    )  # fmt: skip


def make_bundle(
    workspace: Workspace, params: Params, folder: Path, *, commit: str | None = None,
    figures: dict[str, Any] | None = None, like: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Copy the model of a finished run to `folder`, with its provenance.

    Parameters
    ----------
    workspace, params
        A run with the steps train and posterior done.
    folder : Path
        Where the bundle goes; files of an older one are replaced, `model.json` last.
    commit : str, optional
        Version of the code that made it.
    figures : dict, optional
        How good it is: measures by what they were taken on.
    like : dict, optional
        The survey that its mocks were made for (`cmass.estimation.like`).
    """
    from cmass import __version__

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").unlink(missing_ok=True)
    homes = dict.fromkeys(_FILES, workspace.posterior)
    homes |= {WEIGHTS: workspace.model} | dict.fromkeys(_ODDITY, workspace.oddity)
    for name, home in homes.items():
        if not (home / name).exists():
            raise WorkspaceError(
                f"{home / name} does not exist: run train, posterior and oddity first"
            )
        shutil.copyfile(home / name, folder / name)
    settings = settings_of(workspace, params)
    made_with = settings.pop("made_with")
    description = {
        "settings": settings,
        "checksums": {name: file_digest(folder / name) for name in homes},
        "provenance": {
            "commit": commit,
            "version": __version__,
            "profile": params.profile,
            "training": read_json(workspace.model / "model.json"),
            "figures": figures or {},
            **({"like": like} if like else {}),
            "params": {
                name: made_with[name] if name in made_with else settings[name]
                for name in ("seed", "cosmology", "window", "mock", "split", "voxels", "train",
                             "posterior", "oddity")
            },
        },
    }  # fmt: skip
    write_json(folder / "model.json", description)
    load_bundle(folder)
