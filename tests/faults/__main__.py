"""Try faults on the real pipeline: ``python -m tests.faults [--repeats N] [--seed N] [FAULT …]``.

Every try is a line of ``--results`` as soon as it is known; tries that are there with the same seed
are not made again, so that a run that was broken off goes on. ``--docs`` writes the table into a
document.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.faults.catalogue import FAULTS, Fault
from tests.faults.stage import ROOT, Stage, warm

_MARK, _END = "<!-- faults -->", "<!-- /faults -->"


def chance(seed: int, name: str, number: int) -> random.Random:
    """The random numbers of a try: of any order of tries the same."""
    return random.Random(f"{seed} {name} {number}")


def attempt(fault: Fault, stage: Stage, seed: int, number: int) -> dict[str, Any]:
    """Try a fault once."""
    start = time.monotonic()
    line: dict[str, Any] = {"fault": fault.name, "seed": seed, "number": number, "ok": True}
    try:
        line["words"] = fault.attempt(stage, chance(seed, fault.name, number))
    except Exception as error:  # of any kind: a try that goes wrong is what we are here to find
        line |= {"ok": False, "words": f"{type(error).__name__}: {error}"[:4000]}
        if not isinstance(error, AssertionError):
            line["words"] += "\n" + traceback.format_exc()[-2000:]
    finally:
        stage.tidy()
    return line | {"seconds": round(time.monotonic() - start, 1)}


def table(lines: list[dict[str, Any]]) -> str:
    """The table, as Markdown, of the faults that were tried."""
    rows = [["fault", "how", "tried", "outcome", "command"], ["---"] * 5]
    for fault in FAULTS.values():
        tries = [line for line in lines if line["fault"] == fault.name]
        bad = sum(not line["ok"] for line in tries)
        outcome = fault.outcome if not bad else f"**{bad} of {len(tries)} failed**"
        if not tries:
            outcome = "not tried"
        rows.append([fault.name, fault.how, str(len(tries)), outcome,
                     f"`python -m tests.faults '{fault.name}'`"])  # fmt: skip
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _kept(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def main() -> int:
    """Try the faults that are named, or all; 1 if one did harm."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=", ".join(FAULTS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, default=ROOT / "data" / "faults", help="work folder")
    parser.add_argument("--results", type=Path, help="lines of JSON; by default in the work folder")
    parser.add_argument("--docs", type=Path, help="a document whose table is written anew")
    parser.add_argument("--table", action="store_true", help="show what is known, try nothing")
    options = parser.parse_args()
    names = [
        n for n in FAULTS if not options.faults or any(n.startswith(f) for f in options.faults)
    ]
    if not names:
        parser.error(f"no fault begins with {options.faults}; there are: {', '.join(FAULTS)}")
    results = options.results or options.work / "results.jsonl"
    lines = _kept(results)
    if not options.table:
        _try_all(names, options, results, lines)
    sys.stdout.write(table(lines) + "\n")
    if options.docs:
        before, _, rest = options.docs.read_text(encoding="utf-8").partition(_MARK)
        after = rest.partition(_END)[2]
        options.docs.write_text(f"{before}{_MARK}\n{table(lines)}\n{_END}{after}", encoding="utf-8")
    return int(not all(line["ok"] for line in lines if line["fault"] in names))


def _try_all(
    names: list[str], options: argparse.Namespace, results: Path, lines: list[dict[str, Any]]
) -> None:
    stage = Stage(options.work)
    warm()
    sys.stderr.write(f"seed {options.seed}\n")
    try:
        _try_each(names, options, results, lines, stage)
    finally:
        for end in stage.at_end:
            end()


def _try_each(
    names: list[str], options: argparse.Namespace, results: Path, lines: list[dict[str, Any]],
    stage: Stage,
) -> None:  # fmt: skip
    for name in names:
        for number in range(options.repeats):
            key = (name, options.seed, number)
            if key in {(one["fault"], one["seed"], one["number"]) for one in lines if one["ok"]}:
                continue
            lines[:] = [one for one in lines if (one["fault"], one["seed"], one["number"]) != key]
            line = attempt(FAULTS[name], stage, options.seed, number)
            lines.append(line)
            results.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
            state = "ok" if line["ok"] else "FAILED"
            sys.stderr.write(
                f"{name}, {number}: {state}, {line['seconds']:.0f} s: {line['words']}\n"
            )


if __name__ == "__main__":
    sys.exit(main())
