"""Work in shards: made by any executor, in any order, resumed after a break.

Shards of one product are written into ``<folder>.partial`` and the folder is put in
place when all are there: a half-made product is never taken for a whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial as bound
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmass.errors import MachineError
from cmass.machines import Pool, open_pool
from cmass.progress import track

if TYPE_CHECKING:
    from cmass.params import Params

#: Shards handed out for each that can be made at once: none waits for work, and a million clusters
#: never are in the memory of a scheduler.
_AHEAD = 2
#: Ends the name of the folder in which shards are begun; what a broken run leaves there is swept.
SCRATCH = ".scratch"
#: Seconds after which workers that have joined get their share.
_LOOK_S = 10.0


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
    "networks/streaming.py",
)  # fmt: skip
#: Code that makes a CNN_3D of voxels, or of galaxies.
TRAINING_SOURCES = (
    "networks/cnn3d.py", "half.py", "networks/compiled", "networks/density_layer.py",
    "networks/engines.py", "networks/lists.py", "networks/streaming.py", "networks/training.py",
    "networks/weights_file.py",
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
    function: Callable[[Path, Shard], None],
    shards: Sequence[Shard],
    folder: Path,
    *,
    digest: str,
    params: Params,
    description: str,
) -> None:
    """Make all shards of a product and put its folder in place.

    Parameters
    ----------
    function : callable
        ``function(folder, shard)``, importable; writes the shard's outputs below the folder that it
        is given, which is not `folder`.
    shards : sequence of Shard
        Paths in their arguments are absolute: a worker's current folder may be another.
    folder : Path
        The product's final folder.
    digest : str
        Identity of the work (parameters and inputs): shards of a broken run are kept
        only if it was the same.
    params : Params
        Say who makes the shards: `workers` processes, or the workers of `scheduler`. One process, or
        one shard, is worked on here.
    description : str
        Label of the progress bar.
    """
    with staged_folder(folder, digest) as partial:
        here = partial.resolve()
        for parent in {(here / name).parent for shard in shards for name in shard.outputs}:
            parent.mkdir(parents=True, exist_ok=True)
        left = [s for s in shards if not all((here / name).exists() for name in s.outputs)]
        make = bound(_make_aside, function, here, digest)
        try:
            if len(left) <= 1 or (params.scheduler is None and params.workers == 1):
                for shard in track(left, description):
                    make(shard)
            else:
                with open_pool(params, here / "digest") as pool:
                    for _ in track(_made(pool, make, left), description, total=len(left)):
                        pass
                    _await(here, [name for shard in left for name in shard.outputs], pool.delay_s)
        finally:
            # Whoever still writes there outlived an earlier run; the next run clears up after it.
            shutil.rmtree(_scratch(here), ignore_errors=True)


def _made(pool: Pool, make: Callable[[Shard], None], shards: Sequence[Shard]) -> Iterator[None]:
    """Hand out shards to a pool, some ahead; yield as often as one is made."""
    waiting = iter(shards)
    running: set[Future[None]] = set()
    while True:
        room = max(1, _AHEAD * pool.slots()) - len(running)
        running |= {pool.executor.submit(make, shard) for shard in islice(waiting, max(0, room))}
        if not running:
            return
        done, running = wait(running, _LOOK_S, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
            yield


def _scratch(partial: Path) -> Path:
    """Where shards of a product are written before they are moved to ``<folder>.partial``."""
    return partial.with_suffix(SCRATCH)


def _make_aside(
    function: Callable[[Path, Shard], None], partial: Path, digest: str, shard: Shard
) -> None:
    """Make one shard aside, and move it to its place if that is still the same folder.

    On many machines a worker may outlive the run that it works for, by a kill or a broken line, and
    another run, with other parameters, may by then have begun at the same path: what such a
    worker has made finds no place.
    """
    own = f"{shard.number:05d}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    aside = _scratch(partial) / own
    with _opened(partial, digest) as root:
        try:
            for name in shard.outputs:
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
            function(aside, shard)
            for name in shard.outputs:
                os.replace(aside / name, name, dst_dir_fd=root)
        finally:
            shutil.rmtree(aside, ignore_errors=True)  # cleared by the run that it outlived


@contextmanager
def _opened(partial: Path, digest: str) -> Iterator[int]:
    """Descriptor of the folder at `partial`: of this very folder, whatever stands there later."""
    try:
        root = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _unseen(partial, error) from error
    try:
        try:
            descriptor = os.open("digest", os.O_RDONLY, dir_fd=root)
        except OSError as error:
            raise _unseen(partial / "digest", error) from error
        with open(descriptor) as mark:
            if mark.read() != digest:
                raise MachineError(
                    f"{partial} belongs to another run by now, of other parameters or code: let that "
                    "one end, or give this one a folder of its own with --data"
                )
        yield root
    finally:
        os.close(root)


def _unseen(path: Path, error: OSError) -> MachineError:
    return MachineError(
        f"{socket.gethostname()} cannot read {path} ({error.strerror}). Was it removed meanwhile? If "
        "many machines work, put the data folder (--data) on a file system that all mount at the same "
        "path and write as the same user"
    )


def _await(folder: Path, names: Sequence[str], seconds: float) -> None:
    """Wait until files that others have written are seen from here: network folders are slow."""
    end = time.monotonic() + seconds
    while unseen := set(names) - {p.relative_to(folder).as_posix() for p in folder.rglob("*")}:
        if time.monotonic() > end:
            raise MachineError(
                f"{len(unseen)} files that workers have made are not in {folder}, {min(unseen)} among "
                f"them: does it lie on the same file system on all machines?"
            )
        time.sleep(1.0)
