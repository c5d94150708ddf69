"""A log whose reader leaves costs nothing but the log."""

from __future__ import annotations

import subprocess
import sys

import pyarrow.parquet as pq

from benchmarks.bench_inference import write_survey

_WRITES = """
import sys
from pathlib import Path
from cmass.streams import Undisturbed
sys.stderr = Undisturbed(sys.stderr)
for number in range(20000):
    print("line", number, file=sys.stderr, flush=number % 7 == 0)
sys.stderr.write("last")
Path(sys.argv[1]).write_text("done")
"""


def _with_the_log_closed(command: list[str]) -> int:
    """Run a command whose standard error nobody reads after its first line; its exit code."""
    child = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert child.stderr is not None
    child.stderr.readline()
    child.stderr.close()
    return child.wait()


def test_work_goes_on_when_nobody_reads_its_log(tmp_path):
    file = tmp_path / "done"
    assert _with_the_log_closed([sys.executable, "-c", _WRITES, str(file)]) == 0
    assert file.read_text() == "done"


def test_estimates_are_written_when_nobody_reads_the_log(tmp_path):
    write_survey(tmp_path, 8, 8)
    out = tmp_path / "masses.parquet"
    command = [sys.executable, "-m", "cmass.cli", "estimate"]
    tables = [str(tmp_path / f"{name}.parquet") for name in ("clusters", "galaxies")]
    assert _with_the_log_closed([*command, *tables, "--out", str(out)]) == 0
    assert pq.read_table(out).num_rows == 8
