"""Files of a survey that are poisoned: ``cmass run`` and ``cmass ingest`` on a mirror folder."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.network import archive_of
from tests.faults.stage import Command, Fault, Stage, refused, require

_CATALOGUE, _GALAXIES, _WINDOW = "galwcat19/galwcls.tsv", "sdss/galaxies.parquet", "sdss/window.ply"
#: Rows that are poisoned at most: so many are set aside, more stop the run.
_SPARED = 5


def _mirror(stage: Stage) -> Path:
    """The embedded survey as a mirror folder."""
    archive, folder = archive_of(stage), stage.root / "mirror"
    shutil.rmtree(folder, ignore_errors=True)
    for name in (_CATALOGUE, _GALAXIES):
        (folder / name).parent.mkdir(parents=True)
    (folder / _CATALOGUE).write_text(archive.tsv)
    (folder / _WINDOW).write_text(archive.window)
    rows = [{n: g[n] for n in ("ra", "dec", "z", "z_err")} for g in archive.galaxies]
    pq.write_table(pa.Table.from_pylist(rows), folder / _GALAXIES)
    return folder


def _cut(file: Path, rng: random.Random) -> None:
    os.truncate(file, rng.randrange(int(0.9 * file.stat().st_size)))


def _page(file: Path, rng: random.Random) -> None:
    file.write_text("<html><head><title>503 Service Unavailable</title></head></html>\n" * 40)


def _noise(file: Path, rng: random.Random) -> None:
    file.write_bytes(rng.randbytes(50_000))


def _no_column(file: Path, rng: random.Random) -> None:
    if file.name == "galaxies.parquet":
        pq.write_table(pq.read_table(file).drop_columns([rng.choice(["ra", "dec", "z"])]), file)
    else:
        word = {"galwcls.tsv": "RAJ2000", "window.ply": "caps"}[file.name]
        file.write_text(file.read_text().replace(word, "moonphase"))


def _words(file: Path, rng: random.Random) -> None:
    """Every number is a word."""
    if file.name == "galaxies.parquet":
        table = pq.read_table(file)
        place = table.column_names.index("z")
        pq.write_table(table.set_column(place, "z", pa.array(["high"] * table.num_rows)), file)
    else:
        file.write_text(file.read_text().replace("0.", "nought point "))


_HARM: dict[str, Callable[[Path, random.Random], None]] = {
    "cut short": _cut, "a page of HTML": _page, "noise": _noise, "a column gone": _no_column,
    "words for numbers": _words,
}  # fmt: skip


def _tables(stage: Stage) -> dict[str, bytes]:
    raw = stage.data / "smoke" / "sdss" / "raw"
    return {p.name: p.read_bytes() for p in sorted(raw.glob("*.parquet"))}


def _whole_ingest(stage: Stage, folder: Path) -> tuple[str, ...]:
    words = ("--survey", "sdss", "--mirror", str(folder))
    run = stage.start("ingest", *words)
    require(run.wait() == 0, f"the undisturbed ingest: {run.text[-1500:]}")
    return words


def _require_healed(stage: Stage, words: tuple[str, ...], whole: dict[str, bytes]) -> None:
    run = stage.start("ingest", *words)
    require(run.wait() == 0 and _tables(stage) == whole, f"the next run: {run.text[-1500:]}")


def poisoned_file(stage: Stage, rng: random.Random) -> str:
    """A file that is another one: nothing is written, and the masses stay."""
    stage.reset()
    folder = _mirror(stage)
    words = _whole_ingest(stage, folder)
    whole = _tables(stage)
    file, kind = folder / rng.choice([_CATALOGUE, _GALAXIES, _WINDOW]), rng.choice(list(_HARM))
    kept = file.read_bytes()
    _HARM[kind](file, rng)
    said = refused(stage.start("run", *words), 2, file.name)
    require(_tables(stage) == whole, "the older tables were changed")
    stage.require_published()
    file.write_bytes(kept)
    _require_healed(stage, words, whole)
    return f"{file.name}, {kind}: {said[:160]}"


def _poison_catalogue(file: Path, rng: random.Random, n: int) -> None:
    """Values of some clusters: out of range, or no number."""
    lines = file.read_text().split("\n")
    head = next(i for i, line in enumerate(lines) if line.startswith("ClID\t"))
    names = lines[head].split("\t")
    for number in rng.sample(range(head + 3, lines.index("#END#") - 1), n):
        cells = lines[number].split("\t")
        cells[names.index(rng.choice(["RAJ2000", "DEJ2000", "z"]))] = rng.choice(
            ["999", "-7e9", "x"]
        )
        lines[number] = "\t".join(cells)
    file.write_text("\n".join(lines))


def _poison_galaxies(file: Path, rng: random.Random, n: int) -> None:
    table = pq.read_table(file)
    rows = table.to_pylist()
    for row in rng.sample(rows, n):
        row[rng.choice(["ra", "dec", "z"])] = rng.choice([None, float("nan"), float("inf"), -999.0])
    pq.write_table(pa.Table.from_pylist(rows, table.schema), file)


def poisoned_rows(stage: Stage, rng: random.Random) -> str:
    """Some rows of a file: they are set aside with their reasons, and the rows add up."""
    stage.reset()
    folder = _mirror(stage)
    words = _whole_ingest(stage, folder)
    whole, n = _tables(stage), rng.randint(1, _SPARED)
    name, poison, table = rng.choice(
        [(_CATALOGUE, _poison_catalogue, "clusters"), (_GALAXIES, _poison_galaxies, "galaxies")]
    )
    kept = (folder / name).read_bytes()
    poison(folder / name, rng, n)
    run: Command = stage.start("ingest", *words)
    require(run.wait() == 0, f"{n} bad rows ended it with {run.code()}: {run.text[-1500:]}")
    raw = stage.data / "smoke" / "sdss" / "raw"
    aside = pq.read_table(raw / "quarantine.parquet").to_pylist()
    rows_now = pq.read_metadata(raw / f"{table}.parquet").num_rows
    rows_before = pq.read_metadata(pa.BufferReader(whole[f"{table}.parquet"])).num_rows
    require(len(aside) == n and all(row["reason"] for row in aside), f"{n} poisoned, {aside}")
    require(rows_now + n == rows_before, f"{rows_before} rows, {rows_now} kept, {n} poisoned")
    require(run.text.count("set aside") >= 1, f"nobody is told: {run.text[-800:]}")
    stage.require_published()
    (folder / name).write_bytes(kept)
    _require_healed(stage, words, whole)
    return f"{name}: {rows_before} rows = {rows_now} and {n} set aside: {aside[0]['reason']}"


FAULTS = [
    Fault("a poisoned source file", f"a file of the mirror is replaced: {', '.join(_HARM)}",
          "code 2 with the file's name; older tables and release untouched; the file restored, the same tables",
          poisoned_file),
    Fault("poisoned rows of a source", f"one to {_SPARED} rows out of range, missing or no numbers",
          "set aside with their reasons, the user is told, rows add up; the file restored, the same tables", poisoned_rows),
]  # fmt: skip
