"""Feed readers with damaged files: ``python -m tests.fuzz [--inputs N] [--results FILE] [READER …]``.

Prints a table: files tried, read and refused, crashes, the longest time and the most memory. With
``--results`` every reader's row goes into a file as soon as it is known, and readers that are there
with as many files are not fed again.
"""

from __future__ import annotations

import argparse
import json
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.fuzz.readers import READERS

ROOT = Path(__file__).parents[2]
#: Seconds that a file may take, and MB that a reader's process may hold.
LIMIT_S, LIMIT_MB = 10.0, 1024.0
#: Where a document's table stands.
_MARK, _END = "<!-- fuzz -->", "<!-- /fuzz -->"
#: Seconds until a reader's process has begun.
_START_S = 120.0


@dataclass
class Found:
    """How the files of a reader went."""

    name: str
    read: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    peak_mb: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """Files."""
        return self.read + self.refused + len(self.faults)

    def add(self, line: dict[str, object]) -> None:
        """Count one file."""
        number, outcome = line["number"], line["outcome"]
        seconds, peak_mb = float(str(line["seconds"])), float(str(line["peak_mb"]))
        self.slowest_s, self.peak_mb = max(self.slowest_s, seconds), max(self.peak_mb, peak_mb)
        if outcome == "crash":
            self.faults.append(f"{self.name}, file {number}: {line['words']}")
        elif seconds > LIMIT_S:
            self.faults.append(f"{self.name}, file {number}: took {seconds:.0f} s")
        elif peak_mb > LIMIT_MB:
            self.faults.append(f"{self.name}, file {number}: {peak_mb:.0f} MB")
        elif outcome == "read":
            self.read += 1
        else:
            self.refused += 1


def fuzz(name: str, inputs: int) -> Found:
    """Feed a reader; a process that dies or hangs is a fault, and another one goes on behind it."""
    found, number = Found(name), 0
    while number < inputs:
        with tempfile.TemporaryDirectory() as folder:
            number = _one_process(found, folder, number, inputs)
    return found


def _one_process(found: Found, folder: str, first: int, inputs: int) -> int:
    """Files from `first` on, until one kills the process; the number to go on with."""
    command = [sys.executable, "-m", "tests.fuzz.worker", found.name, folder, str(first)]
    number = first
    with subprocess.Popen(
        [*command, str(inputs - first)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        if not (select.select([child.stdout], [], [], _START_S)[0] and child.stdout.readline()):
            child.kill()
            raise RuntimeError(f"{found.name}: its reader does not read the file that is whole")
        while number < inputs:
            if not select.select([child.stdout], [], [], 3 * LIMIT_S)[0]:
                child.kill()
                found.faults.append(f"{found.name}, file {number}: hangs")
                return number + 1
            text = child.stdout.readline()
            if not text:
                found.faults.append(f"{found.name}, file {number}: exit code {child.wait()}")
                return number + 1
            found.add(json.loads(text))
            number += 1
            if found.peak_mb > LIMIT_MB:  # the next one gets a clean process
                child.kill()
                found.peak_mb = 0.0
                return number
    return number


def table(results: list[Found]) -> str:
    """The table, as Markdown."""
    head = ["reader", "files", "read", "refused", "crashes", "slowest", "peak"]
    rows = [
        [f.name, f"{f.tried}", f"{f.read}", f"{f.refused}", f"{len(f.faults)}",
         f"{f.slowest_s:.2f} s", f"{f.peak_mb:.0f} MB"]
        for f in results
    ]  # fmt: skip
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _kept(file: Path | None) -> dict[str, Found]:
    """Rows of an earlier run, by reader."""
    if file is None or not file.exists():
        return {}
    rows = json.loads(file.read_text(encoding="utf-8"))
    return {row["name"]: Found(**row) for row in rows}


def main() -> int:
    """Feed the readers that are named, or all; 1 if one is at fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("readers", nargs="*", metavar="READER", help=", ".join(READERS))
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--results", type=Path, help="where rows are kept; a run goes on from it")
    parser.add_argument("--docs", type=Path, help="a document whose table is written anew")
    options = parser.parse_args()
    if unknown := set(options.readers) - set(READERS):
        parser.error(f"no reader {', '.join(sorted(unknown))}")
    known = _kept(options.results)
    results = []
    for name in options.readers or READERS:
        if name in known and known[name].tried >= options.inputs:
            results.append(known[name])
            continue
        start = time.monotonic()
        results.append(fuzz(name, options.inputs))
        known[name] = results[-1]
        if options.results:
            rows = [asdict(one) for one in known.values()]
            options.results.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        sys.stderr.write(f"{name}: {time.monotonic() - start:.0f} s\n")
        for fault in results[-1].faults[:5]:
            sys.stderr.write(f"{fault}\n")
    sys.stdout.write(table(results) + "\n")
    if options.docs:
        before, _, rest = options.docs.read_text(encoding="utf-8").partition(_MARK)
        after = rest.partition(_END)[2]
        text = f"{before}{_MARK}\n{table(results)}\n{_END}{after}"
        options.docs.write_text(text, encoding="utf-8")
    return int(any(found.faults for found in results))


if __name__ == "__main__":
    sys.exit(main())
