"""Trained networks in MLflow: runs, metrics, versions, and the alias that names the champion.

Every profile has a model of its own, ``cmass-cnn3d-<profile>``: models of different sizes do not
displace each other. Version numbers and run ids are MLflow's.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from cmass.errors import WorkspaceError
from cmass.networks import cnn3d, engines
from cmass.params import Params
from cmass.secrets import address, redact
from cmass.software import git_state, package_versions
from cmass.tables import atomic_path, disk_full
from cmass.workspace import Workspace

if TYPE_CHECKING:
    import keras

    from cmass.networks.training import State

log = logging.getLogger(__name__)

EXPERIMENT = "cmass"
#: Alias of the version whose masses are published.
CHAMPION = "champion"
_TRACKING = "MLFLOW_TRACKING_URI"
_SQLITE = "sqlite:///"
#: A server that is away is told after half a minute, one that does not answer after two and a half: MLflow's
#: own patience is four minutes and sixteen. What the environment says counts.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
for _name, _value in _PATIENCE.items():
    os.environ.setdefault(_name, _value)
#: Package behind each backend of Keras, which a served model needs.
_BACKENDS = {"tensorflow": "tensorflow-cpu", "jax": "jax"}


def store_words() -> str:
    """Where the registry is, without a password; the same for a data folder that was moved."""
    return address(os.environ.get(_TRACKING) or "data folder")


def tracking_uri(workspace: Workspace) -> str:
    """``MLFLOW_TRACKING_URI`` if set, else a SQLite file in the data folder."""
    default = f"{_SQLITE}{(workspace.mlflow / 'mlflow.db').resolve()}"
    return os.environ.get(_TRACKING) or default


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def dvc_hash(folder: Path) -> str:
    """The hash by which DVC knows a folder: MD5 of the list of its files and their MD5.

    Worked out from the files themselves: ``dvc.lock`` may speak of an earlier version.
    """
    entries = []
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        with open(file, "rb") as stream:
            md5 = hashlib.file_digest(stream, "md5").hexdigest()
        entries.append({"md5": md5, "relpath": file.relative_to(folder).as_posix()})
    entries.sort(key=lambda e: e["relpath"])
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"


def _prepare_store(workspace: Workspace, uri: str) -> None:
    """Create a SQLite store once, whole or not at all.

    Two processes that do it together break it, and so does one that is killed between two of MLflow's
    dozens of migrations: no later one gets past the tables that are there already.
    """
    if not uri.startswith(_SQLITE):
        return
    file = Path(uri.removeprefix(_SQLITE))
    if file.exists():
        return
    from mlflow.store.db.utils import _initialize_tables
    from sqlalchemy import create_engine

    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if file.exists():
            return
        for left in file.parent.glob(f".{file.name}.*"):  # by one that was killed
            left.unlink()
        with atomic_path(file) as temporary:
            engine = create_engine(f"{_SQLITE}{temporary}")
            _initialize_tables(engine)
            engine.dispose()


@contextmanager
def _tracked_at(uri: str) -> Iterator[None]:
    """MLflow's own functions go to a store, and afterwards where they went before.

    MLflow writes the store into the environment, where the next workspace of this process would find
    it and register there.
    """
    import mlflow

    before = os.environ.get(_TRACKING)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # and so out of the environment
        if before is not None:
            os.environ[_TRACKING] = before


@dataclass(frozen=True)
class Version:
    """A version of a registered model.

    Attributes
    ----------
    number : str
    run_id : str
        The MLflow run that trained it, which holds its metrics and artifacts.
    tags : mapping of str to str
    aliases : tuple of str
    """

    number: str
    run_id: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...] = ()


class Registry:
    """The versions of a workspace's model.

    Parameters
    ----------
    workspace : Workspace
        Its profile names the model; its data folder holds the store unless
        ``MLFLOW_TRACKING_URI`` names another.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.uri = tracking_uri(workspace)
        self.name = model_name(workspace.profile)
        self._workspace = workspace

    def _is_empty(self) -> bool:
        """Whether there is no store yet: who only asks makes none."""
        return self.uri.startswith(_SQLITE) and not Path(self.uri.removeprefix(_SQLITE)).exists()

    @contextmanager
    def _asked(self) -> Iterator[Any]:
        """The client; what MLflow says against the question becomes an error of ours."""
        import mlflow
        from mlflow.exceptions import MlflowException

        try:
            _prepare_store(self._workspace, self.uri)
            yield mlflow.MlflowClient(self.uri)
        except MlflowException as error:
            raise _refusal(
                self.uri, error, "did not answer as it should",
                "Nothing is lost; run the same command again once it does",
            ) from error  # fmt: skip

    def champion(self) -> Version | None:
        """The version that the alias names; None when none has it yet."""
        if self._is_empty():
            return None
        with self._asked() as client:
            return self._by_alias(client)

    def _by_alias(self, client: Any) -> Version | None:
        from mlflow.exceptions import MlflowException

        try:
            return _version(client.get_model_version_by_alias(self.name, CHAMPION))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def version(self, number: str) -> Version:
        """A version by its number.

        Raises
        ------
        WorkspaceError
            There is none of that number.
        """
        known = {version.number: version for version in self.versions()}
        if number not in known:
            listed = ", ".join(known) or "none"
            raise WorkspaceError(
                f"MLflow at {address(self.uri)} knows no version {number} of {self.name} (it has: {listed}). "
                "`cmass models` lists them, --profile those of another profile"
            )
        return known[number]

    def versions(self) -> list[Version]:
        """Every version, oldest first."""
        if self._is_empty():
            return []
        with self._asked() as client:
            found = client.search_model_versions(f"name='{self.name}'")
            named = self._by_alias(client) if found else None
        listed = []
        for one in sorted(map(_version, found), key=lambda v: int(v.number)):
            has = named is not None and one.number == named.number
            listed.append(replace(one, aliases=(CHAMPION,) if has else ()))
        return listed

    def names(self) -> list[str]:
        """Models that the registry has, of any profile."""
        if self._is_empty():
            return []
        with self._asked() as client:
            return sorted(model.name for model in client.search_registered_models())

    def like(self, summary: Mapping[str, Any]) -> Version | None:
        """The version of a training with these weights, of the same data; `summary` is model.json's."""
        for known in self.versions():
            if all(known.tags.get(tag) == summary[key] for tag, key in _SAME.items()):
                return known
        return None

    def crown(self, number: str) -> None:
        """Give the alias to a version."""
        with self._asked() as client:
            client.set_registered_model_alias(self.name, CHAMPION, number)

    def tag(self, number: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        with self._asked() as client:
            for key, value in tags.items():
                client.set_model_version_tag(self.name, number, key, value)

    def untag(self, number: str, key: str) -> None:
        """Remove a tag of a version, if it has it."""
        if key in self.version(number).tags:
            with self._asked() as client:
                client.delete_model_version_tag(self.name, number, key)

    def log_metrics(self, version: Version, metrics: Mapping[str, float]) -> None:
        """Add metrics to the run of a version."""
        with self._asked() as client:
            for key, value in metrics.items():
                client.log_metric(version.run_id, key, value)

    def upload(self, version: Version, folder: Path, place: str) -> None:
        """Copy a folder into the artifacts of a version's run, below `place`."""
        with self._asked() as client:
            client.log_artifacts(version.run_id, str(folder), place)

    def download(self, version: Version, place: str, folder: Path) -> Path:
        """Copy what lies below `place` into `folder`; returns where it lies then.

        Raises
        ------
        WorkspaceError
            There is nothing, or the store does not answer.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with self._asked() as client:
            if not client.list_artifacts(version.run_id, place):
                raise self.lost(version, "is gone")
            return Path(client.download_artifacts(version.run_id, place, str(folder)))

    def lost(self, version: Version, how: str) -> WorkspaceError:
        """What to tell where the artifacts of a version cannot be used."""
        return WorkspaceError(
            f"what {address(self.uri)} has of {self.name} version {version.number} {how}: restore the "
            "registry's artifacts from a backup, or give the alias to another version with "
            "`cmass promote VERSION`"
        )


def _refusal(uri: str, error: Exception, words: str, remedy: str) -> WorkspaceError:
    """What MLflow's own words mean to a user."""
    if uri.startswith(_SQLITE) and "disk is full" in str(error):
        return disk_full(Path(uri.removeprefix(_SQLITE)))
    return WorkspaceError(f"MLflow at {address(uri)} {words}: {redact(str(error))}. {remedy}")


def model_name(profile: str) -> str:
    """Name under which the models of a profile are registered."""
    return f"{cnn3d.NAME}-{profile}"


def _version(version: Any) -> Version:
    aliases = tuple(version.aliases or ())
    return Version(str(version.version), version.run_id, dict(version.tags or {}), aliases)


def register(
    workspace: Workspace,
    params: Params,
    model: keras.Model,
    summary: dict[str, Any],
    state: State,
) -> dict[str, Any]:
    """Log a training run and register its network as a version; the alias stays where it is.

    A training that gave the very weights of a version, from the same data, is that version.

    Returns
    -------
    dict
        ``name``, ``version``, ``run_id`` and ``tracking_uri`` (without a password).

    Raises
    ------
    WorkspaceError
        The tracking server does not answer or refuses; the training is kept.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    registry = Registry(workspace)
    if (known := registry.like(summary)) is not None:
        log.info("train: these are the weights of %s version %s", registry.name, known.number)
        return _entry(registry, known.number, known.run_id)
    tags = _tags(workspace, params, summary)
    try:
        client = mlflow.MlflowClient(registry.uri)
        name = f"{params.profile}-cnn3d"
        with (
            _tracked_at(registry.uri),
            mlflow.start_run(experiment_id=_experiment(client, workspace), run_name=name) as run,
        ):
            mlflow.log_params(_flatten(params.model_dump(mode="json")))
            _log_history(state, summary)
            mlflow.set_tags(tags)
            mlflow.log_dict(package_versions(), "environment.json")
            info = _log_model(model, params, registry.name)
            number = str(info.registered_model_version)
        registry.tag(number, tags)
    except MlflowException as error:
        raise _refusal(
            registry.uri, error, "did not take the model",
            "The training is kept; run `cmass train` again once it answers",
        ) from error  # fmt: skip
    return _entry(registry, number, run.info.run_id)


#: What makes two trainings the same: tags of a version, and where a training's summary has them.
_SAME = {"weights.sha256": "weights_sha256", "data.sha256": "data_sha256"}


def _entry(registry: Registry, number: str, run_id: str) -> dict[str, Any]:
    return {
        "name": registry.name, "version": number, "run_id": run_id, "tracking_uri": address(registry.uri),
    }  # fmt: skip


def _experiment(client: Any, workspace: Workspace) -> str:
    """Identifier of the experiment, made if there is none."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        return str(experiment.experiment_id)
    location = None
    if tracking_uri(workspace).startswith(_SQLITE):
        location = (workspace.mlflow / "artifacts").resolve().as_uri()
    return str(client.create_experiment(EXPERIMENT, artifact_location=location))


def _tags(workspace: Workspace, params: Params, summary: dict[str, Any]) -> dict[str, str]:
    """What made a version: its data, code, machine and choices."""
    import keras

    code = git_state()
    data = {name: workspace.voxels / name for name in ("train", "validation")}
    if params.train.grids == "device":
        data = {"mock": workspace.mock, "split": workspace.split}
    return {
        **{tag: summary[key] for tag, key in _SAME.items()},
        **{f"data.dvc_{name}": dvc_hash(path) for name, path in data.items()},
        "keras.backend": keras.backend.backend(),
        "device": engines.device_name(),
        "code.commit": code.get("git_commit", "unknown"),
        "code.state": code.get("git_state", "unknown"),
        "profile": params.profile,
        "seed": str(summary["seed"]),
        "inversion_averaged": str(params.train.inversion_averaged).lower(),
    }


def _log_history(state: State, summary: dict[str, Any]) -> None:
    """Losses, rates and times of every epoch, into the run that is on."""
    import mlflow

    steps = zip(state.loss, state.val_loss, state.learning_rate, strict=True)
    for epoch, (loss, val_loss, rate) in enumerate(steps, start=1):
        metrics = {"loss": loss, "val_loss": val_loss, "learning_rate": rate}
        mlflow.log_metrics(metrics, step=epoch)
    mlflow.log_metric("validation_rms_dex", summary["validation_rms_dex"])
    if state.epoch_seconds:
        times = zip(state.clusters_per_second, state.epoch_seconds, strict=True)
        for epoch, (speed, seconds) in enumerate(times, start=1):
            metrics = {"clusters_per_second": speed, "epoch_seconds": seconds}
            mlflow.log_metrics(metrics, step=epoch)
        windows = summary["n_train"] + summary["n_validation"]
        mlflow.log_metric("paper_training_minutes", state.paper_minutes(windows))
    _log_loss_curve(state)


def _log_model(model: keras.Model, params: Params, name: str) -> Any:
    import keras
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    n = params.voxels.n
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, n, n, n, 1), "density")]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 1), "log10_m200c")]),
    )
    return mlflow.keras.log_model(
        model, name="cnn3d", signature=signature, registered_model_name=name,
        pip_requirements=["keras", _BACKENDS[keras.backend.backend()], "numpy"],
    )  # fmt: skip


def _log_loss_curve(state: State) -> None:
    import mlflow
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    epochs = np.arange(1, state.epoch + 1)
    axes.plot(epochs, np.sqrt(state.loss), label="training")
    axes.plot(epochs, np.sqrt(state.val_loss), label="validation")
    axes.set(xlabel="epoch", ylabel="rms error of log$_{10}$ M$_{200c}$ [dex]")
    axes.legend()
    mlflow.log_figure(figure, "loss.png")
