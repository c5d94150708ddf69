"""Files that are damaged or poisoned: of the workspace, the champion, the registry and the archive."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cmass.errors import WorkspaceError
from cmass.tables import file_digest
from cmass.versions.store import REMOTE_VARIABLE, Store
from tests.faults.stage import Fault, Stage, refused, require


def flip(file: Path, rng: random.Random) -> int:
    """Turn one bit of `file` over where it lies, and set its times back; returns the byte."""
    before, place = file.stat(), rng.randrange(file.stat().st_size)
    file.chmod(0o644)
    with open(file, "rb+") as stream:
        stream.seek(place)
        (byte,) = stream.read(1)
        stream.seek(place)
        stream.write(bytes([byte ^ (1 << rng.randrange(8))]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    return place


#: Products of which a bit is turned, by the step that makes them again.
PRODUCTS = {
    "ingest": "smoke/embedded/raw/*.parquet",
    "select": "smoke/embedded/selected/*.parquet",
    "mock": "smoke/mock/*/*.parquet",
    "population": "smoke/population/*/*.parquet",
    "split": "smoke/split/*.parquet",
    "voxelize": "smoke/voxels/*/*.parquet",
    "train": "smoke/model/cnn3d.weights.h5",
    "posterior": "smoke/posterior/*.parquet",
    "oddity": "smoke/oddity/*.parquet",
    "evaluate": "smoke/evaluation/*.parquet",
    "rivals": "smoke/rivals/*.parquet",
    "trial": "smoke/embedded/trial/masses/*.parquet",
    "champion": "smoke/champion/*/*.parquet",
    "infer": "smoke/embedded/masses/*.parquet",
    "realism": "smoke/embedded/realism/*.parquet",
    "figures": "smoke/embedded/figures/**/*.parquet",
}


def flipped(stage: Stage, rng: random.Random) -> str:
    """A bit of a product, after a run that has looked at all of them."""
    stage.reset()
    stage.heal()  # all digests are remembered
    maker = rng.choice(list(PRODUCTS))
    file = rng.choice(sorted(stage.data.glob(PRODUCTS[maker])))
    label = file.relative_to(stage.data).as_posix()
    place = flip(file, rng)
    stage.require_published()
    run = stage.heal()
    require(
        f"{maker}: outputs missing or changed: {label}" in run.text,
        f"{label}: not noticed by {maker}:\n{run.text[-1500:]}",
    )
    return f"{label}, byte {place}: {maker} ran again"


def of_a_release(stage: Stage, rng: random.Random) -> str:
    """A bit of a published file: no reader is told that it is whole, and nobody mends it silently."""
    stage.reset()
    folder = stage.data / "release" / stage.version
    file = rng.choice(
        sorted(p for p in folder.iterdir() if p.suffix in (".parquet", ".duckdb", ".html"))
    )
    flip(file, rng)
    words = refused(
        stage.start("publish"), 5, "does not match its checksums.*move that folder away"
    )
    shutil.move(folder, stage.root / "moved")
    shutil.rmtree(stage.root / "moved")
    run = stage.start("run")
    require(run.wait() == 0, f"the next run ended with {run.code()}: {run.text[-1500:]}")
    stage.require_published(older=False)
    return f"{file.name}: {words[:160]}"


_TRAINING = ("model", "posterior", "evaluation", "oddity", "rivals", "population", "split")


def _put(stage: Stage, *, away: bool) -> None:
    """Take the training's own products out of the workspace, or back."""
    for name in _TRAINING:
        place, aside = stage.data / "smoke" / name, stage.data / "smoke" / f"{name}-away"
        shutil.move(*((place, aside) if away else (aside, place)))


def champion_from_registry(stage: Stage, rng: random.Random) -> str:
    """champion/ is damaged, and the training that it came from is gone: the registry has it."""
    stage.reset()
    file = rng.choice(sorted((stage.data / "smoke" / "champion").glob("*/*.parquet")))
    _put(stage, away=True)
    before = file_digest(file)
    flip(_own(file), rng)
    run = stage.start("champion")
    require(run.wait() == 0, f"champion ended with {run.code()}: {run.text[-1500:]}")
    require(file_digest(file) == before, f"{file.name} is still damaged")
    stage.require_published()
    _put(stage, away=False)
    stage.forget("champion")  # the registry's has no galaxies of windows, which one figure shows
    stage.heal()
    return f"{file.parent.name}/{file.name} came back from the registry"


def _own(file: Path) -> Path:
    """`file` by itself: in a champion's folder it is a link to the training's."""
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)
    return file


def registry_damaged(stage: Stage, rng: random.Random) -> str:
    """champion/ is gone and the registry's copy is damaged: refused, and the masses stay."""
    stage.reset("champion")
    _put(stage, away=True)
    files = sorted(p for p in stage.data.glob("mlflow/artifacts/**/bundle-*/**/*") if p.is_file())
    file = rng.choice(files)
    kept = file.read_bytes()
    flip(file, rng)
    words = refused(stage.start("champion"), 5, "does not match its checksum: restore the registry")
    stage.require_published()
    file.write_bytes(kept)  # from a backup
    again = stage.start("champion")
    require(
        again.wait() == 0, f"restored, champion ended with {again.code()}: {again.text[-1500:]}"
    )
    _put(stage, away=False)
    stage.forget("champion")  # the registry's has no galaxies of windows, which one figure shows
    stage.heal()
    return f"{file.name}: {words[:120]}"


def archive_damaged(stage: Stage, rng: random.Random) -> str:
    """A bit of DVC's cache entries; the remote has them whole, or has them damaged too."""
    stage.reset()
    place = stage.root / "store"
    shutil.rmtree(place, ignore_errors=True)
    os.environ[REMOTE_VARIABLE] = str(place / "remote")
    try:
        store, source = Store(place / "archive"), stage.data / "release" / stage.version
        store.open()
        shutil.copytree(source, store.folder / stage.version)
        digest = file_digest(store.folder / stage.version)
        pointer = store.put(stage.version)
        store.push()
        cached = [
            p
            for p in (store.folder / ".dvc" / "cache").rglob("*")
            if p.is_file() and p.stat().st_size
        ]
        damaged = rng.choice(sorted(cached))
        rng.choice([flip, lambda f, _: _cut(f)])(damaged, rng)
        store.get(stage.version, pointer, digest, place / "back")
        require(file_digest(place / "back") == digest, "another folder came back")
        remote = {p.name: p for p in (place / "remote").rglob("*") if p.is_file()}
        for file in (damaged, remote[damaged.name]):
            flip(file, rng)
        try:
            store.get(stage.version, pointer, digest, place / "again")
        except WorkspaceError as error:
            return f"{damaged.name[:8]}: healed from the remote; both damaged: {error}"[:200]
        # DVC remembers lists of files elsewhere: without them it may still bring all that is in one.
        require(file_digest(place / "again") == digest, "a damaged remote was believed")
        return f"{damaged.name[:8]}: healed; both damaged: brought whole without it"
    finally:
        del os.environ[REMOTE_VARIABLE]


def _cut(file: Path) -> None:
    file.chmod(0o644)
    os.truncate(file, file.stat().st_size // 2)


#: What is poisoned, the column, and the step that would read it.
POISON = {
    "smoke/embedded/masses/masses.parquet": (("log10_m200c", "err_plus"), "publish"),
    "smoke/embedded/selected/clusters.parquet": (("ra", "z", "distance_mpc_h"), "infer"),
    "smoke/embedded/selected/galaxies.parquet": (("x_proj", "v_los"), "infer"),
    "smoke/split/split.parquet": (("halo_id",), "voxelize"),
}


def poisoned(stage: Stage, rng: random.Random) -> str:
    """A value out of range in a table between two steps."""
    stage.reset()
    name = rng.choice(list(POISON))
    columns, reader = POISON[name]
    file, column = stage.data / name, rng.choice(columns)
    table = pq.read_table(file)
    column = column if column in table.column_names else table.column_names[1]
    values = table[column].to_pylist()
    values[rng.randrange(len(values))] = (
        -999 if column == "halo_id" else rng.choice([float("nan"), 1e30, -999.0])
    )
    place = table.column_names.index(column)
    changed = table.set_column(
        place, table.schema.field(place), pa.array(values, table.schema.field(place).type)
    )
    file.unlink()
    pq.write_table(changed, file)
    words = refused(stage.start(reader, "--force"), 7, column)
    stage.require_published()
    stage.heal()
    return f"{name}, {column}: {words[:160]}"


def cut_shard(stage: Stage, rng: random.Random) -> str:
    """A shard that ends early, as after a copy that was broken off."""
    stage.reset()
    pattern, reader = rng.choice(
        [("smoke/mock/*/*.parquet", "split"), ("smoke/voxels/train/*.parquet", "train"),
         ("smoke/voxels/test/*.parquet", "posterior"), ("smoke/embedded/raw/*.parquet", "select")]
    )  # fmt: skip
    file = rng.choice(sorted(stage.data.glob(pattern)))
    os.truncate(file, rng.randrange(file.stat().st_size))
    run = stage.start(reader, "--force")
    require(
        run.wait() in (2, 7), f"{reader} of {file.name} ended with {run.code()}: {run.text[-1500:]}"
    )
    words = refused(run, run.wait(), file.name)
    stage.require_published()
    stage.heal()
    return f"{file.name}: {words[:160]}"


FAULTS = [
    Fault("a bit of a product", "one bit of a random product is turned over, its modification time set back",
          "the step that makes it runs again, and only what follows from it; same bytes", flipped),
    Fault("a bit of a release", "one bit of a random file of the release in force",
          "code 5: that version is no longer one; moved away, the next run publishes", of_a_release),
    Fault("a bit of the champion", "one bit of a file of `champion/`, the training's own products gone",
          "the registry's bundle takes its place; same bytes", champion_from_registry),
    Fault("a bit of the registry", "one bit of the bundle's artifacts, `champion/` and the training gone",
          "code 5, and nothing is published; the artifact restored, the next run goes on", registry_damaged),
    Fault("a bit of the archive", "one bit, or the end, of an entry of DVC's cache; then of the remote as well",
          "fetched from the remote; both damaged: an error, unless DVC can do without that entry", archive_damaged),
    Fault("a poisoned table", "a value out of its range, or none, in a table between two steps; the reader is run by itself",
          "code 7 with table, column and values; `cmass run` makes the table again", poisoned),
    Fault("a shard cut short", "a Parquet file of a random length; the reader is run by itself",
          "code 2 or 7 with the file's name; `cmass run` makes it again", cut_shard),
]  # fmt: skip
