"""One reader's process: reads damaged files and says after each how it went.

A line of JSON a file on standard output; a file that crashes, hangs or fills the memory leaves none,
and who watches knows which it was.
"""

from __future__ import annotations

import gzip
import json
import logging
import sys
import time
import traceback
import warnings
from pathlib import Path

from cmass.errors import CmassError
from tests.fuzz.damage import damaged
from tests.fuzz.readers import READERS, Reader


def content(reader: Reader, whole: bytes, number: int) -> bytes:
    """What the file of a number holds."""
    if reader.zipped and number % 2:
        return gzip.compress(damaged(gzip.decompress(whole), number), mtime=0)
    return damaged(whole, number)


def _try(reader: Reader, path: Path) -> dict[str, object]:
    start = time.monotonic()
    try:
        reader.read(path)
        outcome, words = "read", ""
    except CmassError as error:
        outcome, words = "refused", str(error)[:200]
    except Exception:  # what is looked for
        outcome, words = "crash", traceback.format_exc()[-1500:]
    return {
        "outcome": outcome, "words": words, "seconds": time.monotonic() - start,
        "peak_mb": _peak_mb(),
    }  # fmt: skip


def _peak_mb() -> float:
    """Most memory that this program held (``ru_maxrss`` counts who started it, too)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main(name: str, folder: str, first: str, count: str) -> None:
    """Read the files of the numbers from `first` on."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    reader = READERS[name]
    whole = Path(folder) / f"whole{reader.suffix}"
    reader.whole(whole)
    reader.read(whole)  # or what follows says nothing
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    path = Path(folder) / f"damaged{reader.suffix}"
    for number in range(int(first), int(first) + int(count)):
        path.write_bytes(content(reader, whole.read_bytes(), number))
        line = {"number": number, **_try(reader, path)}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
