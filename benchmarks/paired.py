"""A hot path against its reference: run in turn, in one process, and compared pair by pair.

What else the machine does slows both runs of a pair, so a ratio holds where seconds do not. Where
both sides use one core, processor time is compared, which other processes hardly touch; where they
use several, wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import cmass
from cmass.software import git_state

Clock = Literal["wall", "cpu"]

#: Packages whose versions decide the speed.
_PACKAGES = {"numpy": "numpy", "scipy": "scipy", "tensorflow-cpu": "tensorflow", "numba": "numba"}


@dataclass(frozen=True)
class Agreement:
    """How far a hot path is from its reference.

    Attributes
    ----------
    what : str
        Of which numbers, and relative to what.
    value, limit : float
    """

    what: str
    value: float
    limit: float


@dataclass(frozen=True)
class Comparison:
    """A hot path beside its reference.

    Attributes
    ----------
    name, reference, size : str
        The path, what it is compared with, and how much of what both were given.
    clock : str
        ``cpu`` (processor time of all threads) or ``wall``.
    reference_s, own_s : float
        Median seconds of one call.
    ratio, ratio_min, ratio_max : float
        Reference over own, pair by pair: median and range.
    agreements : list of Agreement
    target : float, optional
        What the median ratio has to reach.
    floor : float, optional
        The same for the small version: a wide margin below what is usual.
    seconds_target : float, optional
        What the path's own seconds have to stay under.
    note : str
    """

    name: str
    reference: str
    size: str
    clock: Clock
    reference_s: float
    own_s: float
    ratio: float
    ratio_min: float
    ratio_max: float
    agreements: list[Agreement] = field(default_factory=list)
    target: float | None = None
    floor: float | None = None
    seconds_target: float | None = None
    note: str = ""

    def misses(self, small: bool) -> list[str]:
        """What is not as it has to be, in words.

        The small version asks for the floor, and of the best pair alone: on a loaded machine the
        others are slowed down by chance, one side more than the other.
        """
        words = [
            f"{self.name}: {a.what} differ by {a.value:.1e}, {a.limit:g} is allowed"
            for a in self.agreements
            if not a.value <= a.limit
        ]
        least = self.floor if small else self.target
        reached = self.ratio_max if small else self.ratio
        if least is not None and not reached >= least:
            words.append(f"{self.name}: ratio {reached:.3g}, {least:g} is asked for")
        most = None if small else self.seconds_target
        if most is not None and not self.own_s < most:
            words.append(f"{self.name}: {self.own_s:.3g} s, under {most:g} s is asked for")
        return words


@dataclass(frozen=True)
class Measurement:
    """A number without a reference.

    Attributes
    ----------
    name, what : str
    value : float
    unit : str
    target : float, optional
        What the value has to stay under.
    limit : float, optional
        The same for the small version.
    """

    name: str
    what: str
    value: float
    unit: str
    target: float | None = None
    limit: float | None = None

    def misses(self, small: bool) -> list[str]:
        """What is not as it has to be, in words."""
        most = self.limit if small else self.target
        if most is None or self.value < most:
            return []
        return [f"{self.name}: {self.value:.3g} {self.unit}, under {most:g} is asked for"]


Result = Comparison | Measurement


@dataclass(frozen=True)
class Pairs:
    """Seconds of a reference (`slow`) and of a hot path (`quick`), pair by pair."""

    slow: list[float]
    quick: list[float]
    clock: Clock

    def comparison(self, name: str, reference: str, size: str, **about: Any) -> Comparison:
        """The comparison that they make; `about` are further attributes of it."""
        ratios = [a / b for a, b in zip(self.slow, self.quick, strict=True)]
        return Comparison(
            name, reference, size, self.clock, statistics.median(self.slow),
            statistics.median(self.quick), statistics.median(ratios), min(ratios), max(ratios),
            **about,
        )  # fmt: skip


def paired(
    reference: Callable[[], object], own: Callable[[], object], *, pairs: int, clock: Clock,
    reference_calls: float = 1, own_calls: float = 1,
) -> Pairs:  # fmt: skip
    """Time a reference and a hot path in turn, after a call of each that is not timed.

    Parameters
    ----------
    reference, own : callable
    pairs : int
    clock : str
        ``cpu`` or ``wall``.
    reference_calls, own_calls : float
        How many times each does the work whose seconds are wanted: 20 if it loops 20 times,
        0.01 if it does a hundredth of it.
    """
    reference(), own()
    slow, quick = [], []
    for _ in range(pairs):
        slow.append(seconds(reference, clock) / reference_calls)
        quick.append(seconds(own, clock) / own_calls)
    return Pairs(slow, quick, clock)


def seconds(work: Callable[[], object], clock: Clock) -> float:
    """Seconds of one call."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    start = now()
    work()
    return now() - start


def repeated(work: Callable[[], object], times: int) -> Callable[[], None]:
    """The same, so many times over."""

    def loop() -> None:
        for _ in range(times):
            work()

    return loop


def least_seconds(
    work: Callable[[], object], clock: Clock, times: int = 9, calls: int = 1
) -> float:
    """Seconds of one of `calls` calls, the least of so many tries, after a call that is not timed.

    Nothing makes work quicker than it is; much makes it slower.
    """
    work()
    return min(seconds(repeated(work, calls), clock) / calls for _ in range(times))


def cores() -> str:
    """How many this process may use, in words."""
    count = len(os.sched_getaffinity(0))
    return f"{count} core{'s' * (count != 1)}"


def machine(*, load: bool = True) -> str:
    """Processor, cores, memory, software and, if asked, load, in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(p)}" for p, name in _PACKAGES.items())
    return (
        f"{_processor()}, {cores()}, {memory:.0f} GiB; Python "
        f"{platform.python_version()}, {packages}"
        + (f"; load average {os.getloadavg()[0]:.1f}" if load else "")
    )


def state() -> str:
    """The commit that is measured."""
    found = git_state()
    words = f"cmass {cmass.__version__}"
    return f"{words} at {found['git_commit'][:7]} ({found['git_state']})" if found else words


def _processor() -> str:
    """Its name in /proc/cpuinfo, with numbers where the name says little."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    about: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        about.setdefault(key.strip(), value.strip())
    name = about.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in about and "model" in about:
        name += f" (family {about['cpu family']}, model {about['model']})"
    return name


def misses(results: Iterable[Result], small: bool) -> list[str]:
    """What is not as it has to be, in words."""
    return [words for result in results for words in result.misses(small)]


def report(results: Sequence[Result], about: str, small: bool) -> str:
    """Two Markdown tables, comparisons and numbers alone, under the machine's description."""
    compared = [r for r in results if isinstance(r, Comparison)]
    alone = [r for r in results if isinstance(r, Measurement)]
    parts = [about]
    if compared:
        asked = "floor" if small else "target"
        head = ["hot path", "size", "reference", "its time", "time here", "clock",
                "ratio: median (range)", asked, "differs at most by (allowed)"]  # fmt: skip
        parts.append(table(head, [_row(r, small) for r in compared]))
        notes = dict.fromkeys(f"{r.name}: {r.note}" for r in compared if r.note)
        parts += [f"{'. '.join(notes)}."] if notes else []
    if alone:
        rows = [
            [r.name, r.what, f"{r.value:.3g} {r.unit}".strip(), _under(r, small)] for r in alone
        ]
        parts.append(table(["beside it", "what", "value", "target"], rows))
    return "\n\n".join(parts)


def _row(result: Comparison, small: bool) -> list[str]:
    least = result.floor if small else result.target
    asked = "" if least is None else f"≥ {least:g}"
    if result.seconds_target is not None and not small:
        asked += f", < {result.seconds_target:g} s"
    return [
        result.name, result.size, result.reference, _time(result.reference_s), _time(result.own_s),
        result.clock, f"{_number(result.ratio)} ({_number(result.ratio_min)}–{_number(result.ratio_max)})", asked,
        "; ".join(f"{a.what} {a.value:.0e} ({a.limit:g})" for a in result.agreements),
    ]  # fmt: skip


def _under(result: Measurement, small: bool) -> str:
    most = result.limit if small else result.target
    return "" if most is None else f"< {most:g} {result.unit}".strip()


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _time(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns also line up as plain text."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in (head, *rows)
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def to_json(results: Iterable[Result]) -> str:
    """Results as `from_json` reads them."""
    return json.dumps([{"kind": type(r).__name__, **asdict(r)} for r in results])


def from_json(text: str) -> list[Result]:
    """Results that `to_json` wrote."""
    found: list[Result] = []
    for values in json.loads(text):
        if values.pop("kind") == "Measurement":
            found.append(Measurement(**values))
        else:
            values["agreements"] = [Agreement(**a) for a in values["agreements"]]
            found.append(Comparison(**values))
    return found


def main(
    measure: Callable[[bool], list[Result]], n_cores: int | None = None,
    arguments: Sequence[str] | None = None,
) -> int:  # fmt: skip
    """What a module does when it is run alone: measure, print, say what is missed.

    Parameters
    ----------
    measure : callable
        Takes whether the small version is wanted.
    n_cores : int, optional
        How many the process may use; by default all.
    arguments : sequence of str, optional
        By default those of the command.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--small", action="store_true", help="less work, floors instead of targets")
    parser.add_argument("--json", type=Path, help="write the results there and print nothing")
    options = parser.parse_args(arguments)
    if n_cores is not None:
        _restrict(n_cores)
    results = measure(options.small)
    if options.json:
        options.json.write_text(to_json(results), encoding="utf-8")
        return 0
    print(report(results, machine(), options.small))
    return say(misses(results, options.small))


def say(missed: list[str]) -> int:
    """Print what is missed; the exit code."""
    for words in missed:
        print(f"missed: {words}", file=sys.stderr)
    return int(bool(missed))


def _restrict(n_cores: int) -> None:
    """Start this command again on fewer cores: libraries count them once, when imported."""
    allowed = sorted(os.sched_getaffinity(0))
    module = sys.modules["__main__"].__spec__
    if len(allowed) > n_cores and module is not None:
        os.sched_setaffinity(0, set(allowed[:n_cores]))
        os.execv(sys.executable, [sys.executable, "-m", module.name, *sys.argv[1:]])
