"""Sorting on disk and cells, against sorting and searching in memory."""

from __future__ import annotations

from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cmass.mock.boxes import cells
from cmass.mock.boxes.cells import CellStore, Grid, write_cells
from cmass.mock.boxes.sorting import SortedRuns, merge

ROW = np.dtype([("key", "i8"), ("n", "i4")])
POINT = np.dtype([("key", "i8"), ("position", "f4", 3), ("n", "i4")])


def rows(keys, first=0):
    out = np.zeros(len(keys), ROW)
    out["key"], out["n"] = keys, first + np.arange(len(keys))
    return out


@settings(max_examples=60, deadline=None)
@given(
    runs=st.lists(st.lists(st.integers(-5, 40), max_size=60), min_size=1, max_size=6),
    other=st.lists(st.integers(-5, 40), max_size=30),
    at_once=st.integers(1, 50),
)
def test_merged_runs_are_one_stable_sort(tmp_path_factory, runs, other, at_once):
    folder = tmp_path_factory.mktemp("runs")
    source, second = SortedRuns(folder / "a", ROW), SortedRuns(folder / "b", ROW)
    parts = []
    for number, keys in enumerate(runs):
        parts.append(rows(keys, 1000 * number))
        source.add(number, parts[-1], {"number": number})
    second.add(0, rows(other), {})
    assert source.last_state() == {"number": len(runs) - 1}
    pieces = list(merge([source, second], at_once))
    everything = np.concatenate(parts)
    expected = everything[np.argsort(everything["key"], kind="stable")]
    np.testing.assert_array_equal(np.concatenate([p for p, _ in pieces]), expected)
    np.testing.assert_array_equal(
        np.concatenate([q for _, q in pieces])["key"], np.sort(np.array(other, int))
    )
    # a key is in one piece only, of both sources
    keys = [set(p["key"]) | set(q["key"]) for p, q in pieces]
    assert sum(map(len, keys)) == len(set().union(*keys))


def test_pieces_are_about_as_large_as_asked(tmp_path):
    source = SortedRuns(tmp_path, ROW)
    random = np.random.default_rng(0)
    for number in range(7):
        source.add(number, rows(random.integers(0, 10**6, 5000)), {})
    sizes = [len(p) for (p,) in merge([source], 4000)]
    assert sum(sizes) == 35_000
    assert max(sizes) < 2 * 4000


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    box=st.sampled_from([30.0, 90.0, 120.0, 250.0]),
    centre=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 3),
    part=st.floats(0.02, 0.5),
    group=st.sampled_from([1, 30, 4096]),
)
def test_rows_near_a_point_are_those_of_a_search_in_memory(
    tmp_path_factory, seed, box, centre, part, group
):
    random = np.random.default_rng(seed)
    points = np.zeros(400, POINT)
    points["position"] = np.minimum(box * random.random((400, 3)), np.nextafter(box, 0))
    points["n"] = np.arange(400)
    grid = Grid(box)
    points["key"] = grid.cell_of(points["position"])
    folder = tmp_path_factory.mktemp("cells")
    runs = SortedRuns(folder / "runs", POINT)
    runs.add(0, points[:170], {})
    runs.add(1, points[170:], {})
    with mock.patch.object(cells, "_GROUP_ROWS", group):
        write_cells(runs, folder / "cells", 60)
    store = CellStore(folder / "cells", POINT, grid, rows_kept=50)
    at, radius = box * np.array(centre), part * box
    found, offset = store.near(at, radius)
    away = points["position"].astype(float) - at
    away -= box * np.round(away / box)
    inside = np.linalg.norm(away, axis=1) < radius
    np.testing.assert_array_equal(np.sort(found["n"]), np.flatnonzero(inside))
    np.testing.assert_allclose(offset, away[found["n"]])
    assert sum(len(piece) for piece in store.pieces()) == 400


def test_broken_writing_goes_on(tmp_path):
    points = np.zeros(300, POINT)
    points["key"] = np.arange(300) // 10
    runs = SortedRuns(tmp_path / "runs", POINT)
    runs.add(0, points, {})
    write_cells(runs, tmp_path / "cells", 50)
    files = sorted((tmp_path / "cells").iterdir())
    assert len(files) > 3
    kept, content = files[0].stat().st_mtime_ns, files[2].read_bytes()
    files[2].unlink()
    write_cells(runs, tmp_path / "cells", 50)
    assert files[0].stat().st_mtime_ns == kept
    assert files[2].read_bytes() == content


def test_the_walk_keeps_neighbours_together():
    """Along the curve steps are shorter than at random: 8 cells of 27 are next to one another."""
    grid = Grid(400.0)
    random = np.random.default_rng(2)
    position = 400 * random.random((3000, 3))
    along = position[np.argsort(grid.walk(position))]

    def steps(p):
        d = np.diff(p, axis=0)
        return np.linalg.norm(d - 400 * np.round(d / 400), axis=1).mean()

    assert steps(along) < 0.35 * steps(position)
