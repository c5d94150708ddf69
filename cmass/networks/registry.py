"""Trained networks in MLflow: runs, metrics, versions and the champion."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from cmass.errors import WorkspaceError
from cmass.networks import cnn3d, engines
from cmass.params import Params
from cmass.software import git_state
from cmass.workspace import Workspace

if TYPE_CHECKING:
    import keras

    from cmass.networks.training import State

log = logging.getLogger(__name__)

EXPERIMENT = "cmass"
_TRACKING = "MLFLOW_TRACKING_URI"
#: Package behind each backend of Keras, which a served model needs.
_BACKENDS = {"tensorflow": "tensorflow-cpu", "jax": "jax"}


def tracking_uri(workspace: Workspace) -> str:
    """``MLFLOW_TRACKING_URI`` if set, else a SQLite file in the data folder."""
    default = f"sqlite:///{(workspace.mlflow / 'mlflow.db').resolve()}"
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


def _is_champion(client: Any, params: Params) -> bool:
    """Whether a new model takes the alias: a smoke test never displaces a real model."""
    from mlflow.exceptions import MlflowException

    if params.profile != "smoke":
        return True
    try:
        champion = client.get_model_version_by_alias(cnn3d.NAME, "champion")
    except MlflowException:
        return True
    return champion.tags.get("profile") == "smoke"


def _prepare_store(workspace: Workspace, uri: str) -> None:
    """Create the tables of a SQLite store once: two processes that do it together break it."""
    if not uri.startswith("sqlite:///"):
        return
    from mlflow.store.db.utils import _initialize_tables
    from sqlalchemy import create_engine, inspect

    workspace.mlflow.mkdir(parents=True, exist_ok=True)
    with FileLock(workspace.mlflow / "mlflow.lock"):
        engine = create_engine(uri)
        if not inspect(engine).has_table("experiments"):
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


def register(
    workspace: Workspace,
    params: Params,
    model: keras.Model,
    summary: dict[str, Any],
    state: State,
) -> dict[str, Any]:
    """Log a training run and register its model as the champion (save from a smoke test,
    which never displaces a model of another profile).

    Returns
    -------
    dict
        ``name``, ``version``, ``alias``, ``run_id`` and ``tracking_uri``.

    Raises
    ------
    WorkspaceError
        The tracking server does not answer or refuses; the training is kept.
    """
    import keras
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    uri = tracking_uri(workspace)
    state_of_code = git_state()
    data = {name: workspace.voxels / name for name in ("train", "validation")}
    if params.train.grids == "device":
        data = {"mock": workspace.mock, "split": workspace.split}
    try:
        _prepare_store(workspace, uri)
        client = mlflow.MlflowClient(uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            location = None
            if uri.startswith("sqlite:///"):
                location = (workspace.mlflow / "artifacts").resolve().as_uri()
            experiment_id = client.create_experiment(EXPERIMENT, artifact_location=location)
        else:
            experiment_id = experiment.experiment_id
        with (
            _tracked_at(uri),
            mlflow.start_run(
                experiment_id=experiment_id, run_name=f"{params.profile}-cnn3d"
            ) as run,
        ):
            mlflow.log_params(_flatten(params.model_dump(mode="json")))
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
            tags = {
                "data.sha256": summary["data_sha256"],
                "weights.sha256": summary["weights_sha256"],
                **{f"data.dvc_{name}": dvc_hash(path) for name, path in data.items()},
                "keras.backend": keras.backend.backend(),
                "device": engines.device_name(),
                "code.commit": state_of_code.get("git_commit", "unknown"),
                "code.state": state_of_code.get("git_state", "unknown"),
                "profile": params.profile,
                "seed": str(summary["seed"]),
                "inversion_averaged": str(params.train.inversion_averaged).lower(),
            }
            mlflow.set_tags(tags)
            _log_loss_curve(state)
            n = params.voxels.n
            signature = ModelSignature(
                inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, n, n, n, 1), "density")]),
                outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 1), "log10_m200c")]),
            )
            info = mlflow.keras.log_model(
                model, name="cnn3d", signature=signature, registered_model_name=cnn3d.NAME,
                pip_requirements=["keras", _BACKENDS[keras.backend.backend()], "numpy"],
            )  # fmt: skip
            version = str(info.registered_model_version)
            for key, value in tags.items():
                client.set_model_version_tag(cnn3d.NAME, version, key, value)
            champion = _is_champion(client, params)
            if champion:
                client.set_registered_model_alias(cnn3d.NAME, "champion", version)
    except MlflowException as error:
        raise WorkspaceError(
            f"MLflow at {uri} did not take the model: {error}. The training is kept; "
            "run `cmass train` again once it answers"
        ) from error
    return {
        "name": cnn3d.NAME,
        "version": version,
        "alias": "champion" if champion else None,
        "run_id": run.info.run_id,
        "tracking_uri": uri,
    }


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
