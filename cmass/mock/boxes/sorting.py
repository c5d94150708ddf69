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

    def clear(self) -> None:
        """Remove all runs."""
        for state in self._states():
            # The state goes first: a run without one does not count.
            state.unlink()
            state.with_suffix(".bin").unlink()

    def last_state(self) -> dict[str, Any] | None:
        """What was said with the last run that is whole."""
        states = self._states()
        return json.loads(states[-1].read_text()) if states else None

    def add(self, number: int, rows: Rows, state: dict[str, Any]) -> None:
        """Write run `number`, in place of an earlier one; `state` says how to go on after it."""
        name = self.folder / f"run-{number:05d}"
        order = np.argsort(rows["key"], kind="stable")
        with atomic_path(name.with_suffix(".bin")) as temporary, open(temporary, "wb") as stream:
            for part in np.array_split(order, 8):  # no second copy of all rows
                rows[part].tofile(stream)
        write_json(name.with_suffix(".json"), state)

    def runs(self) -> list[Run]:
        """All runs that are whole."""
        return [Run(state.with_suffix(".bin"), self.dtype) for state in self._states()]


class Run:
    """The keys of one sorted file, read one at a time: a map of the file would count as memory."""

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self.path, self.dtype = path, dtype
        self._length = path.stat().st_size // dtype.itemsize
        self._key: np.dtype = dtype["key"]
        self._offset = int(dtype.fields["key"][1])  # type: ignore[index]

    def __len__(self) -> int:
        return self._length

    def keys(self, places: Sequence[int]) -> list[int]:
        """Keys of the rows at `places`."""
        found = []
        with open(self.path, "rb", buffering=0) as stream:
            for place in places:
                stream.seek(place * self.dtype.itemsize + self._offset)
                found.append(int(np.frombuffer(stream.read(self._key.itemsize), self._key)[0]))
        return found

    def find(self, key: int, low: int) -> int:
        """First row from `low` on whose key is not smaller."""
        return bisect_left(range(self._length), key, lo=low, key=lambda i: self.keys([i])[0])

    def read(self, start: int, stop: int) -> Rows:
        """The rows from `start` to `stop`."""
        offset = start * self.dtype.itemsize
        return np.fromfile(self.path, self.dtype, stop - start, offset=offset)


def merge(sources: Sequence[SortedRuns], rows_at_once: int) -> Iterator[list[Rows]]:
    """Rows of all sources, range of keys by range of keys, in ascending order.

    A piece holds about `rows_at_once` rows; rows of one key are never parted, and within a key
    come in the order of the runs. The pieces depend on the runs alone.

    Yields
    ------
    list of structured arrays
        One for each source, sorted by key.
    """
    runs = [source.runs() for source in sources]
    edges = _edges([run for of_source in runs for run in of_source], rows_at_once)
    starts = [[0] * len(of_source) for of_source in runs]
    for edge in edges:
        yield [
            _take(of_source, at, edge, source.dtype)
            for source, of_source, at in zip(sources, runs, starts, strict=True)
        ]


def _take(runs: list[Run], at: list[int], edge: int | None, dtype: np.dtype) -> Rows:
    """Rows of all runs from the places `at` to the key `edge`, sorted; `at` moves on."""
    parts = [np.zeros(0, dtype)]
    for i, run in enumerate(runs):
        stop = len(run) if edge is None else run.find(edge, at[i])
        parts.append(run.read(at[i], stop))
        at[i] = stop
    rows = np.concatenate(parts)
    del parts
    return rows[np.argsort(rows["key"], kind="stable")]


def _edges(runs: list[Run], rows_at_once: int) -> list[int | None]:
    """Keys at which pieces end, from a sample of the keys; None for the end of the last one."""
    step = max(rows_at_once // (8 * max(len(runs), 1)), 1)
    samples = np.sort([key for run in runs for key in run.keys(range(0, len(run), step))])
    edges = np.unique(samples[rows_at_once // step :: max(rows_at_once // step, 1)])
    return [*map(int, edges), None]
