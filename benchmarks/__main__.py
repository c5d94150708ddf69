"""All hot paths against their references, each in a process of its own; one table at the end.

python -m benchmarks                                # leaves with 1 if a target is missed
python -m benchmarks --docs docs/performance.md     # and writes the table there
python -m benchmarks --small                        # in a minute, against wide floors
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import paired
from benchmarks.paired import Result

#: One module each.
HOT_PATHS = ("voxels", "training", "inference", "posterior", "contamination", "boxes")
#: Markers of the table in the document.
BLOCK = "benchmarks"


def measure(name: str, small: bool) -> list[Result] | None:
    """Results of one module, from a fresh process: on its own cores, with its own libraries.

    None, and its last words, if it broke off.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.json"
        options = ["--json", str(file), *(["--small"] if small else [])]
        command = [sys.executable, "-m", f"benchmarks.bench_{name}", *options]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return None
        return paired.from_json(file.read_text(encoding="utf-8"))


def main() -> int:
    """Run them, print and write the table; 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--small", action="store_true", help="less work, floors instead of targets")
    parser.add_argument(
        "--docs", type=Path, help="write the table between the markers of this file"
    )
    options = parser.parse_args()
    if options.docs:
        from cmass.study.documents import around_markers

        around_markers(options.docs, BLOCK)  # said before the work, not after it
    about = f"{paired.machine()}; {paired.state()}"
    found: list[Result] = []
    broken = []
    for name in HOT_PATHS:
        print(f"{name} …", file=sys.stderr, flush=True)
        results = measure(name, options.small)
        found += results or []
        broken += [f"benchmark {name} broke off"] if results is None else []
    text = paired.report(found, about, options.small)
    print(text)
    if options.docs and not broken:
        from cmass.study.documents import put_between_markers

        put_between_markers(options.docs, BLOCK, text)
    return paired.say(broken + paired.misses(found, options.small))


if __name__ == "__main__":
    sys.exit(main())
