"""Time and memory against the number of clusters: the line, the limits, and how it is watched."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import growth
from benchmarks.bench_inference import write_survey
from benchmarks.growth import Cost, line, measure, misses, report
from cmass.params import load_params
from cmass.pipeline import STEPS as ALL_STEPS

HOLD = "import time; held = b'x' * ({mb} * 2**20); time.sleep(1.5)"


def test_a_line_is_found_with_its_start():
    found = line(growth.SIZES, [3 + 0.02 * n for n in growth.SIZES])
    assert found.start_s == pytest.approx(3)
    assert found.per_1000_s == pytest.approx(20)
    assert found.departure < 1e-6


def test_time_that_grows_faster_is_off_the_line():
    sizes = growth.SIZES
    assert line(sizes, [1 + 1e-6 * n**2 for n in sizes]).departure > growth.LINEAR


def _hold(mb: int) -> list[str]:
    return [sys.executable, "-c", HOLD.format(mb=mb)]


def test_memory_is_that_of_process_and_children(tmp_path: Path):
    """A process that starts another which holds 200 MB, as workers do."""
    alone = measure("a", 1, _hold(0), tmp_path)
    child = f"import subprocess, sys; subprocess.run({_hold(200)!r})"
    both = measure("b", 1, [sys.executable, "-c", child], tmp_path)
    assert alone.peak_mb < 50
    assert both.peak_mb - alone.peak_mb == pytest.approx(200, abs=30)
    assert both.wall_s > 1.5


def test_processor_time_is_the_childs(tmp_path: Path):
    busy = "import time\nwhile time.process_time() < 1: pass"
    assert measure("a", 1, [sys.executable, "-c", busy], tmp_path).cpu_s == pytest.approx(
        1, abs=0.3
    )


def test_a_step_that_fails_says_its_last_words(tmp_path: Path):
    with pytest.raises(RuntimeError, match="no such thing"):
        measure("a", 1, [sys.executable, "-c", "raise SystemExit('no such thing')"], tmp_path)


def _costs(seconds_per_cluster: float = 0.01, mb: float = 500) -> list[Cost]:
    sizes = (500, 2000, 8000)
    return [Cost(s, n, n / 50, 2 + seconds_per_cluster * n, mb) for n in sizes for s in ("mock", "train")]  # fmt: skip


def test_what_holds_too_much_is_named():
    assert misses(_costs()) == []
    words = misses(_costs(mb=3000))
    assert len(words) == 3  # training may hold that, the mock may not
    assert all("mock holds 3000 MB" in w for w in words)
    assert len(misses(_costs(mb=5000))) == 6


def test_time_that_is_no_line_is_a_miss():
    bent = [Cost("mock", n, 1.0, 1 + 1e-6 * n**2, 100) for n in growth.SIZES]
    assert any("from a line" in w for w in misses(bent))


def test_the_table_has_a_row_a_step():
    text = report(_costs())
    assert "| mock " in text and "| train" in text and "| all " in text
    assert "7 s, 500 MB" in text and "10.00 s" in text


def test_sizes_reach_the_parameters(tmp_path: Path):
    growth.write_params(tmp_path / "p.yaml", 2000)
    params = load_params(tmp_path / "p.yaml")
    assert (params.mock.haloes.n_windows, params.population.n_windows) == (2000, 500)
    assert params.split.train + params.split.test + params.split.evaluation <= 0.96 * 2000
    assert params.train.epochs == params.rivals.deepsets.epochs == 1
    assert {s.name for s in ALL_STEPS} >= set(growth.STEPS) - {"estimate"}


def test_what_was_measured_is_not_measured_again(tmp_path: Path, monkeypatch):
    asked: list[str] = []

    def stand_in(step: str, clusters: int, command: list[str], folder: Path) -> Cost:
        asked.append(step)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return Cost(step, clusters, 1.0, 1.0, 100.0)

    monkeypatch.setattr(growth, "measure", stand_in)
    with pytest.raises(KeyboardInterrupt):
        growth.run([100], tmp_path)
    costs = growth.run([100], tmp_path)
    # Once to compile, once to measure.
    assert asked == [*growth.STEPS[:3], *growth.STEPS[2:], *growth.STEPS]
    assert [c.step for c in costs] == list(growth.STEPS)


def test_the_commands_are_those_of_cmass(tmp_path: Path):
    """A step that lacks its input says so; what is no command or option would be refused."""
    growth.write_params(tmp_path / "params.yaml", 100)
    with pytest.raises(RuntimeError, match=r"run\s+`cmass mock`"):
        measure("split", 100, growth.command("split", tmp_path), tmp_path)
    write_survey(tmp_path, 3, 3)
    measure("estimate", 3, growth.command("estimate", tmp_path), tmp_path)
    assert (tmp_path / "masses.parquet").exists()


def test_costs_of_another_commit_are_measured_again(tmp_path: Path, monkeypatch):
    asked: list[str] = []

    def stand_in(step: str, clusters: int, command: list[str], folder: Path) -> Cost:
        asked.append(step)
        return Cost(step, clusters, 1.0, 1.0, 100.0)

    monkeypatch.setattr(growth, "measure", stand_in)
    monkeypatch.setattr(growth.paired, "state", lambda: "cmass at a")
    before = growth.run([100], tmp_path)
    assert growth.run([100], tmp_path) == before and asked == 2 * list(growth.STEPS)
    monkeypatch.setattr(growth.paired, "state", lambda: "cmass at b")
    after = growth.run([100], tmp_path)
    assert asked == 4 * list(growth.STEPS)
    assert "cmass at b" in report(after) and "cmass at a" not in report(after)
