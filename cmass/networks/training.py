"""train: CNN_3D by least squares on log mass (paper, section 3.4).

After every epoch the whole state (weights, optimiser, history, best weights) goes to
a checkpoint file, one for each network. A broken run goes on from there and ends with the same weights as
one that was not broken: batches depend on the seed and the epoch alone.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from cmass.errors import ParameterError, WorkspaceError
from cmass.networks import cnn3d, engines, streaming
from cmass.networks.lists import mock_lists
from cmass.params import Params, StepParams
from cmass.progress import track
from cmass.seeds import generator
from cmass.shards import TRAINING_SOURCES, digest_of, source_digest
from cmass.tables import (
    atomic_path,
    file_digest,
    make_table,
    read_json,
    read_table,
    to_numpy,
    write_json,
    write_table,
)
from cmass.workspace import Workspace

log = logging.getLogger(__name__)

#: Parameter sections that training depends on, beside the data.
SECTIONS = ("seed", "window", "voxels", "train")
#: The paper's training (section 3.4): windows for training and validation, epochs, minutes on an
#: NVIDIA V100.
PAPER_WINDOWS, PAPER_EPOCHS, PAPER_MINUTES = 17_000, 50, 10


class DivergenceError(ParameterError):
    """A training whose loss has left the finite numbers."""


@dataclass
class State:
    """Where training stands after some epochs.

    Attributes
    ----------
    epoch : int
    loss, val_loss : list of float
        Mean squared error of each epoch, dex squared.
    learning_rate : list of float
    clusters_per_second : list of float
        Trained on, of each epoch. Times are no part of what two trainings have in common.
    epoch_seconds : list of float
        Of each epoch, the validation set included.
    """

    epoch: int = 0
    loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    clusters_per_second: list[float] = field(default_factory=list, compare=False)
    epoch_seconds: list[float] = field(default_factory=list, compare=False)

    def add_epoch(self, loss: float, val_loss: float, learning_rate: float) -> None:
        """Note the losses of an epoch.

        Raises
        ------
        DivergenceError
            The validation loss is not finite: no later epoch is better.
        """
        if not math.isfinite(val_loss):
            raise DivergenceError(
                f"training diverged: the validation loss of epoch {self.epoch + 1} is {val_loss}; "
                f"lower the learning rate (now {learning_rate:g})"
            )
        self.epoch += 1
        self.loss.append(loss)
        self.val_loss.append(val_loss)
        self.learning_rate.append(learning_rate)

    def add_times(self, clusters_per_second: float, seconds: float) -> None:
        """Note what an epoch took."""
        self.clusters_per_second.append(clusters_per_second)
        self.epoch_seconds.append(seconds)

    @property
    def speed(self) -> float:
        """Clusters per second: the median of the epochs after the first, which compiles."""
        return float(np.median(self.clusters_per_second[1:] or self.clusters_per_second))

    def paper_minutes(self, n_clusters: int) -> float:
        """Minutes of the paper's epochs over its number of windows at the speed of this training.

        Parameters
        ----------
        n_clusters : int
            Clusters of this training, for training and validation.
        """
        epoch = float(np.median(self.epoch_seconds[1:] or self.epoch_seconds))
        return PAPER_EPOCHS * epoch * PAPER_WINDOWS / n_clusters / 60

    @property
    def best_epoch(self) -> int:
        """Epoch (from 1) of the smallest validation loss."""
        return int(np.argmin(self.val_loss)) + 1

    def finished(self, train: StepParams) -> bool:
        """All epochs done, or no gain for `patience` epochs."""
        stale = self.epoch > 0 and self.epoch - self.best_epoch >= train.patience
        return self.epoch >= train.epochs or stale


def set_up_keras(seed: int) -> None:
    """Make Keras repeat itself bit for bit: seeds, and TensorFlow's deterministic kernels.

    The backend is the one that Keras was imported with: ``KERAS_BACKEND``, TensorFlow by default.
    """
    import keras

    keras.utils.set_random_seed(seed % 2**31)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def learning_rate_at(epoch: int, train: StepParams) -> float:
    """Learning rate of an epoch (from 0): cosine from the first to the final rate."""
    if train.epochs == 1:
        return train.learning_rate
    phase = 0.5 * (1 + np.cos(np.pi * epoch / (train.epochs - 1)))
    return float(
        train.learning_rate_final + (train.learning_rate - train.learning_rate_final) * phase
    )


def fit(
    training: streaming.Source,
    validation: streaming.Source,
    checkpoint: Path,
    params: Params,
    seed: int,
    identity: str,
) -> tuple[list[np.ndarray], State]:
    """Train CNN_3D, or go on with a checkpoint of the same `identity`.

    Parameters
    ----------
    training, validation : Source
        Voxels on disk, or lists of galaxies where ``train.grids`` is device.
    checkpoint : Path
        File of the state after each epoch.
    params : Params
        Sections voxels, window and train.
    seed : int
    identity : str
        Digest of data and parameters: a checkpoint of another one is not used.

    Returns
    -------
    weights : list of ndarray
        Those of the best epoch, in the order of ``cnn3d.build``.
    state : State
    """
    import keras

    train = params.train
    set_up_keras(seed)
    model = cnn3d.build(params.voxels.n, train.dense_activation)
    # Start at the mean mass: the first epochs need not learn a constant.
    output = model.layers[-1]
    output.bias.assign([float(training.masses().mean())])
    engine = engines.make(model, params)
    state, best = State(), engine.get_weights()
    # Backends draw other first weights and round in other ways.
    identity = f"{identity} {type(engine).__name__} {keras.backend.backend()}"
    restored = _restore(checkpoint, identity, engine, len(best))
    if restored is not None:
        state, best = restored
        over = " (finished)" if state.finished(train) else ""
        log.info("train: going on after epoch %d%s", state.epoch, over)
    steps = -(-len(training) // train.batch_size)
    while not state.finished(train):
        rate = learning_rate_at(state.epoch, train)
        random = generator(seed, "train-epoch", state.epoch)
        start = time.monotonic()
        stream = streaming.prefetched(
            training.batches(train.batch_size, random, augmented=train.augment)
        )
        total, seen = 0.0, 0
        for batch in track(stream, f"train: epoch {state.epoch + 1}/{train.epochs}", steps):
            total += engine.step(batch, rate) * len(batch)
            seen += len(batch)
        speed = seen / (time.monotonic() - start)
        held = mean_squared_error(engine, validation, train.batch_size)
        state.add_epoch(total / seen, held, rate)
        state.add_times(speed, time.monotonic() - start)
        if state.best_epoch == state.epoch:
            best = engine.get_weights()
        _save(checkpoint, identity, engine, state, best)
        log.info(
            "train: epoch %d/%d, loss %.5f, validation %.5f (best %.5f), %.0f clusters/s",
            state.epoch, train.epochs, state.loss[-1], state.val_loss[-1], min(state.val_loss),
            speed,
        )  # fmt: skip
    return best, state


@dataclass(frozen=True)
class Try:
    """A trained network, and the seed of its first weights and batches."""

    seed: int
    weights: list[np.ndarray]
    state: State

    @property
    def best_val_loss(self) -> float:
        """Smallest mean squared error on the validation set, dex squared."""
        return min(self.state.val_loss)


@dataclass(frozen=True)
class Tries:
    """Some trained networks.

    Attributes
    ----------
    best : Try
        The one with the smallest validation loss.
    summary : list of dict
        ``seed``, ``best_epoch`` and ``best_val_loss`` (dex squared) of each, in order; the last two
        are None of one that diverged.
    seconds : float
        All their epochs took, sessions that were broken off included.
    """

    best: Try
    summary: list[dict[str, float | None]]
    seconds: float


def fit_tries(
    training: streaming.Source, validation: streaming.Source, work: Path, params: Params,
    seed: int, identity: str,
) -> Tries:  # fmt: skip
    """Train ``train.tries`` networks and keep the best on the validation set.

    The first has the seed that is given, the others' are drawn by it. Each has a checkpoint in `work`
    (see `fit`): a broken run trains none again. One that diverges is left out.

    Raises
    ------
    DivergenceError
        All of them diverged.
    """
    made: list[Try] = []
    summary: list[dict[str, float | None]] = []
    for number in range(params.train.tries):
        own = int(generator(seed, "train-try", number).integers(2**31)) if number else seed
        if params.train.tries > 1:
            log.info("train: network %d of %d, seed %d", number + 1, params.train.tries, own)
        checkpoint = work / f"checkpoint-{number}.npz"
        try:
            one = Try(own, *fit(training, validation, checkpoint, params, own, f"{identity} {own}"))
        except DivergenceError as error:
            if not made and number + 1 == params.train.tries:
                raise
            log.warning("train: network %d of %d: %s", number + 1, params.train.tries, error)
            summary.append({"seed": own, "best_epoch": None, "best_val_loss": None})
            continue
        summary.append(
            {"seed": own, "best_epoch": one.state.best_epoch, "best_val_loss": one.best_val_loss}
        )
        made.append(one)
    seconds = sum(sum(one.state.epoch_seconds) for one in made)
    return Tries(min(made, key=lambda one: one.best_val_loss), summary, seconds)


def mean_squared_error(engine: engines.Engine, source: streaming.Source, batch_size: int) -> float:
    """Mean squared error of log mass over a set, dex squared."""
    total, seen = 0.0, 0
    for batch in streaming.prefetched(source.batches(batch_size)):
        residual = engine.predict(batch) - batch.masses
        total += float((residual**2).sum())
        seen += len(batch)
    return total / seen


def _save(
    checkpoint: Path, identity: str, engine: engines.Engine, state: State, best: list[np.ndarray]
) -> None:
    arrays: dict[str, np.ndarray] = {
        "header": np.array(json.dumps({"identity": identity, "state": asdict(state)}))
    }
    arrays |= {f"state_{i}": x for i, x in enumerate(engine.state())}
    arrays |= {f"best_{i}": w for i, w in enumerate(best)}
    with atomic_path(checkpoint) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def _restore(
    checkpoint: Path, identity: str, engine: engines.Engine, n_weights: int
) -> tuple[State, list[np.ndarray]] | None:
    if not checkpoint.exists():
        return None
    with np.load(checkpoint, allow_pickle=False) as saved:
        header = json.loads(str(saved["header"]))
        if header["identity"] != identity:
            log.info("train: the checkpoint is of other data or parameters, starting anew")
            return None
        n_state = sum(name.startswith("state_") for name in saved.files)
        engine.restore([saved[f"state_{i}"] for i in range(n_state)])
        best = [saved[f"best_{i}"] for i in range(n_weights)]
    return State(**header["state"]), best


def training_range(workspace: Workspace) -> dict[str, float]:
    """What the training mocks cover: masses, distances, redshifts, galaxies per window."""
    clusters = read_table(workspace.mock / "clusters", "mock_clusters")
    split = read_table(workspace.split / "split.parquet", "split", ["cluster_id", "set"])
    trained = {
        name
        for name, which in zip(
            split["cluster_id"].to_pylist(), split["set"].to_pylist(), strict=True
        )
        if which == "train"
    }
    mask = np.array([name in trained for name in clusters["cluster_id"].to_pylist()])
    mass, distance, z, n = (
        values[mask]
        for values in to_numpy(clusters, "log10_m200c_true", "distance_mpc_h", "z", "n_galaxies")
    )
    low, high = np.quantile(n, [0.0005, 0.9995])
    return {
        "log10_m200c_min": float(mass.min()),
        "log10_m200c_max": float(mass.max()),
        "distance_mpc_h_min": float(distance.min()),
        "distance_mpc_h_max": float(distance.max()),
        "z_min": float(z.min()),
        "z_max": float(z.max()),
        "n_galaxies_low": float(low),
        "n_galaxies_high": float(high),
    }


def _data(
    workspace: Workspace, params: Params
) -> tuple[streaming.Source, streaming.Source, str]:  # fmt: skip
    """What the network learns from and is watched on, and a digest of the files behind it."""
    if params.train.grids == "device":
        files = (workspace.mock / "galaxies", workspace.mock / "clusters", workspace.split)
        return (
            mock_lists(workspace, params, "train"), mock_lists(workspace, params, "validation"),
            digest_of(*(file_digest(path) for path in files)),
        )  # fmt: skip
    folders = workspace.voxels / "train", workspace.voxels / "validation"
    digest = digest_of(*(file_digest(folder) for folder in folders))
    return streaming.Files(folders[0]), streaming.Files(folders[1]), digest


def register_again(workspace: Workspace, params: Params) -> None:
    """Register the training that the workspace holds at a registry that does not know it."""
    from cmass import registry

    history = read_table(workspace.model / "history.parquet", "training_history").to_pydict()
    state = State(
        len(history["epoch"]), *(history[n] for n in ("loss", "val_loss", "learning_rate"))
    )
    weights = workspace.model / "cnn3d.weights.h5"
    network = cnn3d.load(weights, params.voxels.n)
    summary = read_json(workspace.model / "model.json")
    if file_digest(weights) != summary["weights_sha256"]:
        raise WorkspaceError(
            f"{weights} is not what was trained: `cmass train --force` makes it again"
        )
    registry.register(workspace, params, cnn3d.keras_model(network), summary, state)


def run(workspace: Workspace, params: Params, *, register: bool = True) -> None:
    """Train CNN_3D, write its weights and history, and register it in MLflow.

    Parameters
    ----------
    workspace, params
    register : bool
        False: the network is for a study, and MLflow does not hear of it.
    """
    from cmass import registry

    training, validation, data_digest = _data(workspace, params)
    chosen = params.model_dump(mode="json")
    code = source_digest(*TRAINING_SOURCES)
    identity = digest_of({s: chosen[s] for s in SECTIONS}, data_digest, code)
    work = workspace.home / "model.partial"
    work.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    tries = fit_tries(training, validation, work, params, params.seed, identity)
    best, state = tries.best, tries.best.state
    weights = workspace.model / "cnn3d.weights.h5"
    workspace.model.mkdir(parents=True, exist_ok=True)
    temporary = work / "cnn3d.weights.h5"
    network = cnn3d.compiled(best.weights, params.voxels.n, params.train)
    cnn3d.save(network, temporary)
    temporary.replace(weights)
    history = {
        "epoch": np.arange(1, state.epoch + 1),
        "loss": state.loss,
        "val_loss": state.val_loss,
        "learning_rate": state.learning_rate,
    }
    epochs = make_table("training_history", history)
    write_table(workspace.model / "history.parquet", epochs, "training_history")
    write_json(workspace.model / "history.json", epochs.to_pylist())  # what `dvc plots` reads
    summary = {
        "network": "cnn3d",
        "n_weights": network.n_parameters,
        "dense_activation": params.train.dense_activation,
        "inversion_averaged": params.train.inversion_averaged,
        "n_train": len(training),
        "n_validation": len(validation),
        "seed": best.seed,
        "tries": tries.summary,
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "best_val_loss": min(state.val_loss),
        "validation_rms_dex": float(np.sqrt(min(state.val_loss))),
        "weights_sha256": file_digest(weights),
        "data_sha256": data_digest,
        "profile": params.profile,
        "training_range": training_range(workspace),
    }
    write_json(workspace.model / "model.json", summary)
    where = "not registered"
    if register:
        version = registry.register(workspace, params, cnn3d.keras_model(network), summary, state)
        write_json(workspace.model / "registry.json", version)
        where = f"{version['name']} version {version['version']}"
    # The checkpoint goes only now: when the registry fails, the next run need not train again.
    shutil.rmtree(work)
    log.info(
        "train: %.0f clusters/s on %s; %d epochs of %d windows would take %.0f min "
        "(paper, on a V100: about %d)",
        state.speed, engines.device_name(), PAPER_EPOCHS, PAPER_WINDOWS,
        state.paper_minutes(len(training) + len(validation)), PAPER_MINUTES,
    )  # fmt: skip
    log.info(
        "train: seed %d, best epoch %d of %d, validation rms %.4f dex of windows alone, %.0f s, %s",
        best.seed, state.best_epoch, state.epoch, summary["validation_rms_dex"], time.monotonic() - start,
        where,
    )  # fmt: skip
