"""The hot paths keep their speed: the small benchmarks against floors, and how these are judged.

A floor lies so far below what is usual that a loaded machine stays above it; a hot path that lost
what makes it fast does not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import (
    bench_contamination,
    bench_inference,
    bench_posterior,
    bench_training,
    bench_voxels,
    networks,
    paired,
)
from benchmarks.paired import Agreement, Comparison, Measurement, Pairs
from cmass.study.documents import around_markers

DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"


def made(ratio: float = 10.0, best: float = 12.0, differs: float = 1e-8) -> Comparison:
    return Comparison(
        "path", "reference", "size", "cpu", 5.0, 0.5, ratio, 8.0, best,
        [Agreement("numbers", differs, 1e-6)], target=10.0, floor=11.0, seconds_target=1.0,
    )  # fmt: skip


def test_both_sides_take_turns_after_a_call_that_does_not_count():
    calls: list[str] = []
    found = paired.paired(
        lambda: calls.append("reference"), lambda: calls.append("own"), pairs=3, clock="wall"
    )
    assert calls == ["reference", "own"] * 4
    assert len(found.slow) == len(found.quick) == 3


def test_seconds_are_those_of_the_work_that_is_wanted(monkeypatch):
    ticks = iter([0.0, 6.0, 10.0, 13.0])
    monkeypatch.setattr(paired.time, "process_time", lambda: next(ticks))
    found = paired.paired(
        int, int, pairs=1, clock="cpu", reference_calls=0.1, own_calls=30
    )  # fmt: skip
    assert found.slow == pytest.approx([60.0])
    assert found.quick == pytest.approx([0.1])


def test_a_ratio_is_taken_pair_by_pair():
    """A machine that is twice as slow for a while moves neither median nor range."""
    found = Pairs([4.0, 8.0, 4.0], [1.0, 2.0, 1.0], "cpu").comparison("a", "b", "c")
    assert (found.ratio, found.ratio_min, found.ratio_max) == (4.0, 4.0, 4.0)
    assert (found.reference_s, found.own_s) == (4.0, 1.0)


def test_what_is_missed_is_said():
    assert made().misses(small=False) == made().misses(small=True) == []
    assert made(ratio=9.0).misses(small=False) == ["path: ratio 9, 10 is asked for"]
    assert made(best=9.0).misses(small=True) == ["path: ratio 9, 11 is asked for"]
    for small in (True, False):
        assert "numbers differ by 1.0e-05" in made(differs=1e-5).misses(small)[0]
        assert made(differs=np.nan).misses(small)
        assert made(ratio=np.nan, best=np.nan).misses(small)
    slow = Measurement("command", "all of it", 20.0, "s", target=15.0, limit=60.0)
    assert slow.misses(small=True) == []
    assert slow.misses(small=False) == ["command: 20 s, under 15 is asked for"]
    assert paired.misses([made(9.0), slow], small=False)[1].startswith("command")


def test_results_survive_json_and_make_a_table():
    results = [made(), Measurement("command", "all of it", 2.0, "s", 15.0)]
    assert paired.from_json(paired.to_json(results)) == results
    text = paired.report(results, "a machine", small=False)
    for words in (
        "a machine",
        "10 (8–12)",
        "≥ 10, < 1 s",
        "numbers 1e-08 (1e-06)",
        "| 2 s ",
        "500 ms",
    ):
        assert words in text
    lines = [line for line in text.splitlines() if line.startswith("| path")]
    assert lines[0].count("|") == 10


def test_the_machine_is_described():
    words = paired.machine()
    for name in ("core", "GiB", "Python 3", "numpy", "tensorflow", "numba", "load average"):
        assert name in words


def test_the_document_has_a_place_for_the_table():
    around_markers(DOCUMENT, command.BLOCK)


def test_lead_of_the_largest_output_under_a_window():
    outputs = np.zeros((2, 3, 3, 3, 1), np.float32)
    outputs[0, 0, 0, 0], outputs[0, 1, 1, 1] = 3.0, 1.0  # the only window that ReLU left open
    outputs[1, 2, 2, 2] = 2.0  # alone under its window
    np.testing.assert_array_equal(networks.smallest_lead(outputs), [2.0, np.inf])


def kept(module) -> None:
    missed = paired.misses(module.results(small=True), small=True)
    assert not missed, missed


def test_density_grids():
    kept(bench_voxels)


@pytest.mark.xdist_group("tensorflow")
def test_training_steps():
    pytest.importorskip("tensorflow")
    kept(bench_training)


@pytest.mark.xdist_group("tensorflow")
def test_estimates():
    pytest.importorskip("tensorflow")
    kept(bench_inference)


def test_posteriors():
    kept(bench_posterior)


def test_contamination():
    kept(bench_contamination)
