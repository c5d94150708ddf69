"""A disk that is full: the data folder on a small tmpfs that a step fills."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.stage import Fault, Stage, refused, require

_ROOM, _PAGE = "2g", 4096
#: Steps that write more than some pages.
STEPS = ("ingest", "select", "mock", "population", "voxelize", "train", "evaluate", "rivals", "trial", "judge", "infer", "figures", "publish")  # fmt: skip


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A tmpfs at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_ROOM}", "cmass-faults", str(folder)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(folder: Path, size: str) -> None:
    """Give the tmpfs another size."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def in_step(name: str) -> Fault:
    """The disk is full after a random part of what the step writes."""

    def attempt(stage: Stage, rng: random.Random) -> str:
        stage.prepare()  # where there is room
        params = stage.titled(f"title {rng.random()}") if name == "publish" else None
        shutil.rmtree(stage.data, ignore_errors=True)
        with small_disk(stage.data):
            stage.reset()
            whole = shutil.disk_usage(stage.data).used
            stage.reset(name)
            if name in ("train", "judge"):  # their registrations too
                shutil.rmtree(stage.data / "mlflow")
                stage.forget("train")
                stage.forget("judge")
            if name == "judge":
                run = stage.start("train")
                require(run.wait() == 0, f"train: {run.text[-1000:]}")
            used = shutil.disk_usage(stage.data).used
            writes = max(whole - used, 8 * _PAGE) if name != "publish" else _size(stage)
            free = int(rng.uniform(0, 0.8) * writes) // _PAGE * _PAGE
            resize(stage.data, str(used + free))
            words = refused(
                stage.start("run", params=params),
                5,
                "no space left on the disk.*run the same command again",
            )
            stage.require_published()
            resize(stage.data, _ROOM)
            stage.heal(params=params)
            if params is not None:
                require(stage.title().startswith("title 0."), "the new version was not published")
        return f"{free // 1024} KB free of {writes // 1024}: {words[:160]}"

    return Fault(
        f"disk full in {name}", "the data folder is a tmpfs with room for a random part of what the step writes; then it grows",
        "code 5, `no space left on the disk`; older release untouched; the next run ends with the same bytes",
        attempt,
    )  # fmt: skip


def _size(stage: Stage) -> int:
    return sum(p.stat().st_size for p in (stage.data / "release" / stage.version).iterdir())


FAULTS = [in_step(name) for name in STEPS]
