"""How the rivals' Keras networks are trained: one loop, resumed after a break, same bits again.

After every epoch all that training needs goes to one checkpoint. A broken fit goes on from there
and ends with the same weights as one that was not broken: batches depend on seed and epoch alone.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cmass.networks.training import State, learning_rate_at, set_up_keras
from cmass.params import RivalTrainingParams
from cmass.seeds import generator
from cmass.tables import atomic_path

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

#: Inputs of a network, one array each, all of the same length.
Inputs = Sequence[NDArray[Any]]


class Batches(Protocol):
    """Inputs that are no arrays of equal length: lists of galaxies, made into batches."""

    def __len__(self) -> int:
        """Clusters."""
        ...

    def batch(self, rows: NDArray[np.integer]) -> Inputs:
        """Inputs of the network for some clusters."""
        ...


#: What changes the inputs of a batch without changing its targets.
Augment = Callable[[Inputs, np.random.Generator], Inputs]


@dataclass
class Progress(State):
    """Where a fit stands.

    Attributes
    ----------
    seconds : float
        Spent in epochs, breaks not counted.
    out_of_time : bool
        The time limit ended it, not its epochs or patience: another machine may get farther.
    """

    seconds: float = 0.0
    out_of_time: bool = False


def fit(
    build: Callable[[], keras.Model],
    train: tuple[Inputs | Batches, NDArray[Any]],
    validation: tuple[Inputs | Batches, NDArray[Any]],
    how: RivalTrainingParams,
    seed: int,
    work: Path,
    *,
    name: str,
    loss: str | Callable[[Any, Any], Any] = "mse",
    augment: Augment | None = None,
    clip_norm: float | None = None,
) -> tuple[keras.Model, Progress]:
    """Build a network and train it with Adam, a cosine of the learning rate and early stopping.

    Parameters
    ----------
    build : callable
        Makes the network with fresh weights; called once Keras is seeded.
    train, validation : (inputs, targets)
        Arrays of equal length; one input array for each input of the network, or `Batches`.
    how : RivalTrainingParams
    seed : int
        Of first weights, batches and what `augment` draws.
    work : Path
        Folder of the checkpoint. It belongs to this fit alone: data and parameters are
        the caller's to watch (see `cmass.shards.staged_folder`).
    name : str
        For the log.
    loss : str or callable
        A loss of Keras, or ``loss(targets, outputs)``.
    augment : callable, optional
        ``augment(inputs, random)``, applied to each training batch if `how.augment` says so.
    clip_norm : float, optional
        Largest norm of the gradient.

    Returns
    -------
    model : keras.Model
        With the weights of the best epoch, by the loss on the validation set.
    progress : Progress
    """
    import keras

    set_up_keras(seed)
    model = build()
    optimizer = keras.optimizers.Adam(
        how.learning_rate, how.beta_1, how.beta_2, global_clipnorm=clip_norm
    )
    model.compile(optimizer, loss, jit_compile=False)
    optimizer.build(model.trainable_variables)
    checkpoint = work / "checkpoint.npz"
    progress, best = Progress(), model.get_weights()
    if checkpoint.exists():
        progress, best = _restore(checkpoint, model)
        log.info("%s: going on after epoch %d", name, progress.epoch)
    inputs, targets = train
    n = len(targets)
    size = min(how.batch_size, n)
    while not (progress.finished(how) or progress.out_of_time):
        start = time.monotonic()
        rate = learning_rate_at(progress.epoch, how)
        optimizer.learning_rate.assign(rate)
        random = generator(seed, "rival-epoch", progress.epoch)
        # What does not fill a batch waits for another epoch: all batches have one shape.
        order = random.permutation(n)[: n // size * size]
        total = 0.0
        for rows in order.reshape(-1, size):
            batch = _batch(inputs, rows)
            if augment is not None and how.augment:
                batch = augment(batch, random)
            total += float(model.train_on_batch(_given(batch), targets[rows]))
            model.reset_metrics()
        progress.add_epoch(total / (n // size), _mean_loss(model, *validation, size), rate)
        if progress.best_epoch == progress.epoch:
            best = model.get_weights()
        progress.seconds += time.monotonic() - start
        late = progress.seconds > how.seconds_max
        progress.out_of_time = late and not progress.finished(how)
        _save(checkpoint, model, progress, best)
        log.debug("%s: epoch %d, loss %.5f, validation %.5f", name, progress.epoch,
                  progress.loss[-1], progress.val_loss[-1])  # fmt: skip
    if progress.out_of_time:
        log.warning(
            "%s: stopped after %d of %d epochs by rivals.training.seconds_max",
            name, progress.epoch, how.epochs,
        )  # fmt: skip
    log.info(
        "%s: best epoch %d of %d, validation loss %.5f, %.0f s",
        name, progress.best_epoch, progress.epoch, min(progress.val_loss), progress.seconds,
    )  # fmt: skip
    model.set_weights(best)
    return model, progress


def predict(
    model: keras.Model, inputs: Inputs | Batches, batch_size: int = 500
) -> NDArray[np.float64]:
    """Outputs (n, units) of a network for all clusters."""
    n = _count(inputs)
    out = [np.empty((0, model.layers[-1].units))]  # its last layer is dense
    for start in range(0, n, batch_size):
        own = np.arange(start, min(start + batch_size, n))
        # Batches of one shape: the last one is filled up, and sums have one order.
        full = _batch(inputs, np.resize(own, batch_size))
        out.append(np.asarray(model.predict_on_batch(_given(full)), np.float64)[: own.size])
    return np.concatenate(out)


def _count(inputs: Inputs | Batches) -> int:
    return len(inputs[0]) if isinstance(inputs, Sequence) else len(inputs)


def _batch(inputs: Inputs | Batches, rows: NDArray[np.integer]) -> Inputs:
    return [x[rows] for x in inputs] if isinstance(inputs, Sequence) else inputs.batch(rows)


def _mean_loss(
    model: keras.Model, inputs: Inputs | Batches, targets: NDArray[Any], size: int
) -> float:
    total = 0.0
    for start in range(0, len(targets), size):
        rows = np.arange(start, min(start + size, len(targets)))
        loss = model.test_on_batch(_given(_batch(inputs, rows)), targets[rows])
        total += float(loss) * rows.size
        model.reset_metrics()
    return total / len(targets)


def _given(inputs: Inputs) -> Any:
    """As Keras wants them: a network with one input takes an array."""
    return inputs[0] if len(inputs) == 1 else list(inputs)


def _all_variables(model: keras.Model) -> list[Any]:
    """Weights, state of the optimiser, and seeds of layers that draw (dropout)."""
    seeds = [v for v in model.non_trainable_variables if not any(v is w for w in model.weights)]
    return [*model.weights, *seeds, *model.optimizer.variables]


def _save(
    checkpoint: Path, model: keras.Model, progress: Progress, best: list[NDArray[Any]]
) -> None:
    arrays = {"progress": np.array(json.dumps(asdict(progress)))}
    arrays |= {f"now_{i}": np.asarray(v) for i, v in enumerate(_all_variables(model))}
    arrays |= {f"best_{i}": w for i, w in enumerate(best)}
    with atomic_path(checkpoint) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def _restore(checkpoint: Path, model: keras.Model) -> tuple[Progress, list[NDArray[Any]]]:
    with np.load(checkpoint, allow_pickle=False) as saved:
        for i, variable in enumerate(_all_variables(model)):
            variable.assign(saved[f"now_{i}"])
        best = [saved[f"best_{i}"] for i in range(len(model.weights))]
        return Progress(**json.loads(str(saved["progress"]))), best
