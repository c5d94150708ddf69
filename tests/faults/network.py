"""A network that drops, stalls and lies: ``cmass ingest`` against a server on this machine."""

from __future__ import annotations

import pickle
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.faults.stage import Fault, Stage, refused, require
from tests.service.mirror import embedded_archive, served, write_params
from tests.surveys import Archive

#: What an answer may be instead of itself (tests.surveys.ArchiveHandler), by kind.
KINDS = {
    "drops": ("drop", "truncate", "cut", "cut-at-line"),
    "stalls": ("stall", "trickle"),
    "lies": ("html", "empty", "500", "429", "other", "long", "twice", "noise"),
}
_TRIES, _LIMIT_S = 4, 2.0
#: What a short answer survives.
_HARMLESS = ("trickle", "twice")


def archive_of(stage: Stage) -> Archive:
    """The embedded survey as archives would serve it; kept, as it takes a while to make."""
    file = stage.root / "archive.pickle"
    if not file.exists():
        file.write_bytes(pickle.dumps(embedded_archive()))
    archive: Archive = pickle.loads(file.read_bytes())  # noqa: S301  # our own
    return archive


@contextmanager
def _network(stage: Stage) -> Iterator[tuple[Archive, Path]]:
    with served(archive_of(stage)) as archive:
        file = write_params(archive, stage.root / "network.yaml")
        values = yaml.safe_load(file.read_text())
        values["ingest"]["network"] |= {
            "attempts": _TRIES,
            "timeout_s": _LIMIT_S,
            "backoff_s": 0.05,
        }
        file.write_text(yaml.safe_dump(values, sort_keys=False))
        yield archive, file


def _tables(raw: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(raw.glob("*.parquet"))}


def of_kind(kind: str) -> Fault:
    """Some answers are faulty, or all of one service."""

    def attempt(stage: Stage, rng: random.Random) -> str:
        shutil.rmtree(stage.data, ignore_errors=True)
        raw = stage.data / "smoke" / "sdss" / "raw"
        with _network(stage) as (archive, params):
            options: dict[str, Any] = {"params": params}
            run = stage.start("ingest", **options)
            require(run.wait() == 0, f"the undisturbed ingest: {run.text[-1500:]}")
            whole, paths = _tables(raw), ("/viz", "/sql", "/window.ply")
            require(len(whole) >= 3, f"only {list(whole)}")
            shutil.rmtree(stage.data)
            # Some: fewer than there are tries, so that all comes in the end.
            faults = {
                path: [rng.choice(KINDS[kind]) for _ in range(rng.randrange(_TRIES))]
                for path in paths
            }
            for path, some in faults.items():
                archive.fail(path, *some)
            run = stage.start("ingest", **options)
            require(run.wait() == 0, f"{faults}: code {run.code()}: {run.text[-1500:]}")
            require(_tables(raw) == whole, f"{faults}: other tables")
            # All of one service, from a random answer on: refused, and what was there stays.
            archive.faults.clear()
            shutil.rmtree(stage.data / "downloads")
            path, hard = rng.choice(paths), [k for k in KINDS[kind] if k not in _HARMLESS]
            archive.fail(
                path,
                *[""] * rng.randrange(3 if path == "/sql" else 1),
                *[rng.choice(hard) for _ in range(500)],
            )
            words = refused(
                stage.start("ingest", "--force", **options),
                4,
                "gave no usable answer.*run the same command again",
            )
            require(_tables(raw) == whole, "the older tables were changed")
            archive.faults.clear()
            run = stage.start("ingest", "--force", **options)
            require(run.wait() == 0 and _tables(raw) == whole, f"the next run: {run.text[-1500:]}")
        return f"{sum(map(len, faults.values()))} faults survived; {path} away: {words[:140]}"

    return Fault(
        f"a network that {kind}", f"{', '.join(KINDS[kind])}: some answers, then all of a random service",
        "some: tried again, same tables; all: code 4 with the reason, older tables untouched; the next run fetches the rest",
        attempt,
    )  # fmt: skip


FAULTS = [of_kind(kind) for kind in KINDS]
