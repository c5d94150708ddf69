"""Work in shards: made by any executor, in any order, resumed after a break.

Shards of one product are written into ``<folder>.partial`` and the folder is put in
place when all are there: a half-made product is never taken for a whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cmass.progress import track


@dataclass(frozen=True)
class Shard:
    """One piece of work.

    Attributes
    ----------
    number : int
        Its place in the product.
    outputs : tuple of str
        Files it writes, relative to the product's folder; each in one piece.
    arguments : tuple
        What the function needs beside the folder; must pickle.
    """

    number: int
    outputs: tuple[str, ...]
    arguments: tuple[Any, ...]


def digest_of(*values: Any) -> str:
    """SHA-256 of values that JSON can hold (parameters, checksums)."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


#: Code that mock windows depend on.
SIMULATOR_SOURCES = ("mock", "cosmology.py", "mass_function.py", "seeds.py")
#: Code that predictions of CNN_3D depend on, beside its weights and the voxels.
PREDICTION_SOURCES = (
    "networks/cnn3d.py", "half.py", "networks/compiled", "networks/prediction.py",
)  # fmt: skip
#: Code that makes a CNN_3D of voxels.
TRAINING_SOURCES = (
    "networks/cnn3d.py", "half.py", "networks/compiled", "networks/engines.py",
    "networks/streaming.py", "networks/training.py",
)  # fmt: skip


def source_digest(*names: str) -> str:
    """SHA-256 of the package's own code: of modules or folders named relative to ``cmass/``.

    What is half made is only kept when the code that made it is still the same.
    """
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for name in names:
        path = package / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(package).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


@contextmanager
def local_executor(workers: int) -> Iterator[Executor]:
    """Processes on this machine; work not begun is cancelled when the block ends early.

    Work at hand is waited for, so that nothing writes once the caller has left.
    """
    executor = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_settle_worker
    )
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=True, cancel_futures=True)
        raise
    executor.shutdown()


def _settle_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent is gone (it may be killed)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


@contextmanager
def staged_folder(folder: Path, digest: str) -> Iterator[Path]:
    """Give ``<folder>.partial`` and move it to `folder` when the block ends well.

    What an earlier, broken run left there is kept if it was for the same `digest`
    and removed otherwise.
    """
    partial = folder.with_name(folder.name + ".partial")
    old = folder.with_name(folder.name + ".old")
    mark, placed = partial / "digest", folder / "digest"
    if old.exists():
        shutil.rmtree(old)
    if partial.exists() and not _says(mark, digest):
        shutil.rmtree(partial)
    if not partial.exists() and _says(placed, digest):
        folder.rename(partial)  # killed just before the last line below
    partial.mkdir(parents=True, exist_ok=True)
    mark.write_text(digest)
    yield partial
    # The mark goes last: a kill at any of these lines loses no work.
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    if old.exists():
        shutil.rmtree(old)
    placed.unlink()


def _says(mark: Path, digest: str) -> bool:
    return mark.exists() and mark.read_text() == digest


def run_shards(
    function: Callable[..., None],
    shards: Sequence[Shard],
    folder: Path,
    *,
    digest: str,
    workers: int,
    description: str,
) -> None:
    """Make all shards of a product and put its folder in place.

    Parameters
    ----------
    function : callable
        ``function(folder, shard)``, importable; writes the shard's outputs below
        `folder`, each in one piece.
    shards : sequence of Shard
    folder : Path
        The product's final folder.
    digest : str
        Identity of the work (parameters and inputs): shards of a broken run are kept
        only if it was the same.
    workers : int
        Processes; 1 works in this process.
    description : str
        Label of the progress bar.
    """
    with staged_folder(folder, digest) as partial:
        for shard in shards:
            for name in shard.outputs:
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
        left = [s for s in shards if not all((partial / name).exists() for name in s.outputs)]
        if workers == 1 or len(left) <= 1:
            for shard in track(left, description):
                function(partial, shard)
            return
        with local_executor(workers) as executor:
            futures = [executor.submit(function, partial, shard) for shard in left]
            for future in track(as_completed(futures), description, total=len(futures)):
                future.result()
