"""Time and memory of the steps that see every mock cluster, at several numbers of clusters.

Every step runs as the command that users give, in a process of its own; memory is what its process
and all their children hold together, each shared page counted once (PSS), looked at several times
a second. Time must grow as a line with the number of clusters, memory stay below a limit. What was
measured is kept: the same command goes on where it was stopped.

    python -m benchmarks.growth                                 # 500 to 40 000 clusters, half an hour
    python -m benchmarks.growth --sizes 200 400 --work FOLDER   # sizes and a folder of your own
    python -m benchmarks.growth --docs docs/performance.md      # and writes table and figure there
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import yaml

from benchmarks import paired
from benchmarks.bench_inference import write_survey
from cmass.params import load_params

SIZES = (500, 1500, 6000, 40_000)
#: Clusters of the runs that only compile.
_FEW = 300
#: Steps that see every mock cluster, in order; `estimate` gets as many real ones.
STEPS = (
    "mock", "population", "split", "voxelize", "train", "posterior", "oddity", "evaluate", "rivals",
    "estimate",
)  # fmt: skip
#: Part of the windows in each set, of those that are left when blended ones are out.
_TRAIN, _TEST, _EVALUATION = 0.33, 0.37, 0.26
#: Windows of the population for each of the mock: about as many as profile `paper` has.
_POPULATION = 0.25
#: MB that a step may hold, and what training may.
LIMIT_MB, LIMIT_TRAINING_MB = 2048.0, 4096.0
TRAINING = ("train", "rivals")
#: Largest departure of seconds from the line through them.
LINEAR = 0.1
#: Places on the sky of the clusters that `estimate` gets: more would overlap, and a cluster would
#: then have more galaxies the more clusters there are.
_PLACES = 500
#: Seconds between looks at the memory.
_LOOK_S = 0.2
#: Markers of the table in the document.
BLOCK = "growth"


@dataclass(frozen=True)
class Cost:
    """What one step took at one size.

    Attributes
    ----------
    step : str
    clusters : int
    wall_s, cpu_s : float
        Wall time, and processor time of all processes.
    peak_mb : float
        Largest sum over the step's processes, MB (2²⁰ bytes).
    about : str
        Machine and commit that were measured.
    """

    step: str
    clusters: int
    wall_s: float
    cpu_s: float
    peak_mb: float
    about: str = ""


def measure(step: str, clusters: int, command: Sequence[str], folder: Path) -> Cost:
    """Run a command and watch it.

    Raises
    ------
    RuntimeError
        It failed; its last words are the message.
    """
    with open(folder / f"{step}.log", "w+", encoding="utf-8") as log:
        before = os.times()
        start = time.monotonic()
        child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        looks = _Looks(child.pid)
        code = child.wait()
        wall = time.monotonic() - start
        after = os.times()
        peak = looks.end()
        if code:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)} left with {code}:\n{log.read()[-2000:]}")
    cpu = (after.children_user + after.children_system) - (
        before.children_user + before.children_system
    )
    return Cost(step, clusters, wall, cpu, peak)


class _Looks:
    """The largest memory of a process and its children, as often as one looks."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._peak = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(_LOOK_S):
            self._peak = max(self._peak, self._now())

    def _now(self) -> float:
        held = 0
        try:
            processes = [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:  # it has just ended
            return 0.0
        for one in processes:
            try:
                held += one.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):  # a child has just ended
                continue
        return held / 2**20

    def end(self) -> float:
        """Stop looking; the peak in MB."""
        self._over.set()
        self._thread.join()
        return self._peak


def write_params(file: Path, clusters: int) -> None:
    """Parameters of a run with so many mock clusters: standard, but for the sizes and the epochs."""
    values = load_params().model_dump(mode="json")
    values["mock"]["haloes"]["n_windows"] = clusters
    values["population"]["n_windows"] = int(_POPULATION * clusters)
    values["split"] |= {
        "train": int(_TRAIN * clusters), "test": int(_TEST * clusters),
        "evaluation": int(_EVALUATION * clusters),
    }  # fmt: skip
    values["train"]["epochs"] = 1
    rivals = values["rivals"]
    for section in ("training", "flow", "deepsets"):
        rivals[section]["epochs"] = 1
    rivals["deepsets"]["members"] = 1
    file.write_text(yaml.safe_dump(values), encoding="utf-8")


def run(sizes: Sequence[int], work: Path) -> list[Cost]:
    """Costs of all steps at all sizes; those that `work` holds are not measured again.

    Costs of another machine or commit are, with all that their steps had made. Before the first of
    them every step runs once on few clusters: compiled loops are compiled then, and kept.
    """
    about = f"{paired.machine(load=False)}; {paired.state()}"
    _measure_all(_FEW, work / "compile", about)
    costs: list[Cost] = []
    for clusters in sizes:
        costs += _measure_all(clusters, work / str(clusters), about)
    return costs


def _measure_all(clusters: int, folder: Path, about: str) -> list[Cost]:
    """Costs of all steps at one size; `folder` keeps them."""
    kept = folder / "costs.json"
    folder.mkdir(parents=True, exist_ok=True)
    known = [Cost(**c) for c in json.loads(kept.read_text())] if kept.exists() else []
    if any(c.about != about for c in known):
        known = []
        shutil.rmtree(folder)
        folder.mkdir()
    write_params(folder / "params.yaml", clusters)
    for step in STEPS:
        if any(c.step == step for c in known):
            continue
        if step == "estimate":
            write_survey(folder, clusters, min(_PLACES, clusters))
        cost = replace(measure(step, clusters, command(step, folder), folder), about=about)
        print(
            f"{clusters:6d} {step:10s} {cost.wall_s:8.1f} s {cost.peak_mb:6.0f} MB",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        known.append(cost)
        kept.write_text(json.dumps([asdict(c) for c in known]), encoding="utf-8")
    shutil.rmtree(folder / "data", ignore_errors=True)  # gigabytes, and measured
    return known


def command(step: str, folder: Path) -> list[str]:
    """The command that runs a step on what `folder` holds."""
    cmass = [sys.executable, "-m", "cmass.cli", step]
    if step == "estimate":
        tables = [str(folder / f"{name}.parquet") for name in ("clusters", "galaxies")]
        return [*cmass, *tables, "--out", str(folder / "masses.parquet")]
    where = ["--params", str(folder / "params.yaml"), "--data", str(folder / "data")]
    return [*cmass, *where, "--force"]


@dataclass(frozen=True)
class Line:
    """Seconds of a step as a line in the number of clusters.

    Attributes
    ----------
    start_s : float
        At no cluster: starting, imports.
    per_1000_s : float
    departure : float
        Largest relative difference between a measurement and the line.
    """

    start_s: float
    per_1000_s: float
    departure: float


def line(clusters: Sequence[float], seconds: Sequence[float]) -> Line:
    """The line that goes through all measurements with the least squares of relative differences.

    Examples
    --------
    >>> line([1000, 2000, 4000], [3.0, 5.0, 9.0])
    Line(start_s=1.0, per_1000_s=2.0, departure=0.0)
    """
    n, t = np.asarray(clusters, float) / 1000, np.asarray(seconds, float)
    start, slope = np.linalg.lstsq(np.column_stack([1 / t, n / t]), np.ones_like(t), rcond=None)[0]
    departure = np.abs((start + slope * n) / t - 1).max()
    return Line(round(float(start), 6), round(float(slope), 6), round(float(departure), 6))


def _total(costs: Sequence[Cost]) -> dict[int, float]:
    totals: dict[int, float] = {}
    for cost in costs:
        totals[cost.clusters] = totals.get(cost.clusters, 0.0) + cost.cpu_s
    return totals


def misses(costs: Sequence[Cost]) -> list[str]:
    """Steps that hold too much, and time that is no line, in words."""
    words = []
    for cost in costs:
        limit = LIMIT_TRAINING_MB if cost.step in TRAINING else LIMIT_MB
        if cost.peak_mb > limit:
            words.append(
                f"{cost.step} holds {cost.peak_mb:.0f} MB at {cost.clusters} clusters, "
                f"{limit:.0f} are allowed"
            )
    totals = _total(costs)
    if len(totals) > 2:
        departure = line(list(totals), list(totals.values())).departure
        if departure > LINEAR:
            words.append(f"all steps together depart from a line by {departure:.0%}")
    return words


def report(costs: Sequence[Cost]) -> str:
    """Table of processor seconds and peak memory by step and size, as Markdown."""
    sizes = sorted({c.clusters for c in costs})
    found = {(c.step, c.clusters): c for c in costs}
    rows = []
    for step in [s for s in STEPS if (s, sizes[0]) in found]:
        own = [found[step, size] for size in sizes]
        rows.append(_row(step, [c.cpu_s for c in own], sizes, [c.peak_mb for c in own]))
    totals = _total(costs)
    rows.append(_row("all", [totals[size] for size in sizes], sizes, [None] * len(sizes)))
    head = [
        "step", *(f"{size} clusters" for size in sizes), "start", "per 1000", "off the line",
    ]  # fmt: skip
    return f"{costs[0].about}\n\n{paired.table(head, rows)}"


def _row(
    name: str, seconds: list[float], sizes: list[int], peaks: Sequence[float | None]
) -> list[str]:
    fit = line(sizes, seconds)
    cells = [
        f"{t:.0f} s" + (f", {p:.0f} MB" if p else "") for t, p in zip(seconds, peaks, strict=True)
    ]
    return [name, *cells, f"{fit.start_s:.1f} s", f"{fit.per_1000_s:.2f} s", f"{fit.departure:.0%}"]


def draw(costs: Sequence[Cost], file: Path) -> None:
    """Processor time and peak memory against the number of clusters, a line a step."""
    import matplotlib.pyplot as plt

    from cmass.figures.style import PNG_DPI, STYLE

    with plt.rc_context(STYLE | {"figure.facecolor": "white", "axes.facecolor": "white"}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(11.4, 4.2), layout="constrained")
        colours = plt.get_cmap("tab10")
        for i, step in enumerate(s for s in STEPS if any(c.step == s for c in costs)):
            own = sorted((c for c in costs if c.step == step), key=lambda c: c.clusters)
            n = [c.clusters for c in own]
            left.plot(n, [c.cpu_s for c in own], "o-", ms=4, color=colours(i), label=step)
            right.plot(n, [c.peak_mb for c in own], "o-", ms=4, color=colours(i))
        totals = _total(costs)
        sizes = sorted(totals)
        left.plot(sizes, [totals[s] for s in sizes], "k.", label="all")
        fit = line(sizes, [totals[s] for s in sizes])
        fine = np.geomspace(sizes[0], sizes[-1], 100)
        left.plot(fine, fit.start_s + fit.per_1000_s * fine / 1000, "k:", label="line through all")
        left.set(
            xscale="log", yscale="log", xlabel="clusters", ylabel="processor time, s",
            title="time",
        )  # fmt: skip
        right.axhline(LIMIT_MB, color="k", ls=":")
        right.axhline(LIMIT_TRAINING_MB, color="k", ls="--")
        right.annotate("limit of training", (sizes[0], LIMIT_TRAINING_MB), va="bottom")
        right.annotate("limit of other steps", (sizes[0], LIMIT_MB), va="bottom")
        right.set(
            xscale="log", xlabel="clusters", ylabel="peak memory of all processes, MB",
            title="memory", ylim=(0, 1.1 * LIMIT_TRAINING_MB),
        )  # fmt: skip
        figure.legend(*left.get_legend_handles_labels(), loc="outside right center")
        figure.savefig(file, dpi=PNG_DPI, metadata={"Software": None})
        plt.close(figure)


def main() -> int:
    """Measure, print, write; 1 if something is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--work", type=Path, default=Path("data") / "growth")
    parser.add_argument(
        "--docs", type=Path, help="write table and figure between the markers of this file"
    )
    options = parser.parse_args()
    if options.docs:
        from cmass.study.documents import around_markers

        around_markers(options.docs, BLOCK)  # said before the work, not after it
    costs = run(options.sizes, options.work)
    text = report(costs)
    print(text)
    if options.docs:
        from cmass.study.documents import put_between_markers

        figure = options.docs.with_name("growth.png")
        draw(costs, figure)
        caption = "Processor time and memory against the number of clusters"
        put_between_markers(options.docs, BLOCK, f"{text}\n\n![{caption}]({figure.name})")
    return paired.say(misses(costs))


if __name__ == "__main__":
    sys.exit(main())
