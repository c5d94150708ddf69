"""Sorting on disk: more rows than fit into memory, in runs that are merged piece by piece."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmass.tables import atomic_path, write_json

Rows = NDArray[np.void]


class SortedRuns:
    """Rows in files that are each sorted by their field ``key``.

    Parameters
    ----------
    folder : Path
        Holds ``run-00000.bin`` and so on, each beside a JSON file that is written after it: what
        a break leaves is either whole or not there.
    dtype : numpy.dtype
        Structured, with an integer field ``key``.
    """

    def __init__(self, folder: Path, dtype: np.dtype) -> None:
        self.folder, self.dtype = folder, dtype
        folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return len(self._states())

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob("run-*.json"))

    def last_state(self) -> dict[str, Any] | None:
        """What was said with the last run that is whole."""
        states = self._states()
        return json.loads(states[-1].read_text()) if states else None

    def add(self, number: int, rows: Rows, state: dict[str, Any]) -> None:
        """Write run `number`, in place of an earlier one; `state` says how to go on after it."""
        name = self.folder / f"run-{number:05d}"
        with atomic_path(name.with_suffix(".bin")) as temporary:
            rows[np.argsort(rows["key"], kind="stable")].tofile(temporary)
        write_json(name.with_suffix(".json"), state)

    def open(self) -> list[Rows]:
        """All runs that hold rows, mapped from disk."""
        files = [state.with_suffix(".bin") for state in self._states()]
        return [np.memmap(f, self.dtype, mode="r") for f in files if f.stat().st_size]


def merge(sources: Sequence[SortedRuns], rows_at_once: int) -> Iterator[list[Rows]]:
    """Rows of all sources, range of keys by range of keys, in ascending order.

    A piece holds about `rows_at_once` rows; rows of one key are never parted, and within a key
    come in the order of the runs. The pieces depend on the runs alone.

    Yields
    ------
    list of structured arrays
        One for each source, sorted by key.
    """
    runs = [source.open() for source in sources]
    edges = _edges([run for of_source in runs for run in of_source], rows_at_once)
    starts = [[0] * len(of_source) for of_source in runs]
    for edge in edges:
        piece = []
        for source, of_source, at in zip(sources, runs, starts, strict=True):
            parts = []
            for i, run in enumerate(of_source):
                stop = len(run) if edge is None else bisect_left(run["key"], edge, lo=at[i])
                # read, not mapped: pages of the map would count as ours
                parts.append(_read(run, at[i], stop, source.dtype))
                at[i] = stop
            rows = np.concatenate(parts) if parts else np.zeros(0, source.dtype)
            piece.append(rows[np.argsort(rows["key"], kind="stable")])
        yield piece


def _read(run: Rows, start: int, stop: int, dtype: np.dtype) -> Rows:
    offset = start * dtype.itemsize
    return np.fromfile(run.filename, dtype, stop - start, offset=offset)  # type: ignore[attr-defined]


def _edges(runs: list[Rows], rows_at_once: int) -> list[int | None]:
    """Keys at which pieces end, from a sample of the keys; None for the end of the last one."""
    step = max(rows_at_once // (8 * max(len(runs), 1)), 1)
    samples = np.sort(np.concatenate([run["key"][::step] for run in runs] or [np.zeros(0, int)]))
    edges = np.unique(samples[rows_at_once // step :: max(rows_at_once // step, 1)])
    return [*map(int, edges), None]
