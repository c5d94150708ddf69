"""Readers in a loop on ``release/latest`` while releases are published and older ones go."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from cmass.params import Params, PublishParams
from cmass.publish import release, sql
from cmass.tables import make_table, read_json, read_table, write_table
from cmass.workspace import Workspace
from tests.faults.stage import Fault, Stage, require
from tests.products import build_workspace

PUBLICATIONS = 20


def _next_version(workspace: Workspace) -> None:
    """Other masses: the sum of them tells versions apart."""
    file = workspace.masses / "masses.parquet"
    masses = read_table(file, "masses")
    columns = dict(zip(masses.column_names, masses.columns, strict=True))
    columns["log10_m200c"] = pc.add(masses["log10_m200c"], 1e-4)
    write_table(file, make_table("masses", columns), "masses")


def through_sql(latest: Path) -> str:
    """One statement over several tables: the version, and masses that belong to it."""
    answer = sql.query(
        latest,
        "SELECT sum(m.log10_m200c) AS total, count(*) AS n, (SELECT count(*) FROM galaxies) AS galaxies FROM masses m "
        "JOIN clusters c USING (cluster_id)",
    )
    row = answer.to_pylist()[0]
    return f"{row['total']:.6f} {row['n']} {row['galaxies']}"


def through_parquet(latest: Path) -> str:
    """The version is looked up once; its files are read after a pause."""
    folder = latest.resolve()
    masses = pq.read_table(folder / "masses.parquet")
    time.sleep(random.uniform(0, 0.3))
    clusters = pq.read_table(folder / "clusters.parquet")
    galaxies = pq.read_table(folder / "galaxies.parquet")
    digest = read_json(folder / "provenance.json")["release"]["content_digest"]
    require(
        release.content_digest(folder) == digest, f"{folder.name}: its tables are another version's"
    )
    total = pc.sum(
        masses.filter(pc.is_in(masses["cluster_id"], clusters["cluster_id"]))["log10_m200c"]
    ).as_py()
    return f"{total:.6f} {masses.num_rows} {galaxies.num_rows}"


READERS: dict[str, Callable[[Path], str]] = {"SQL": through_sql, "Parquet": through_parquet}


def _read_until(stop: Path, latest: Path, read: Callable[[Path], str], file: Path) -> None:
    """Read until told to stop; leave answers, and errors, in `file`."""
    answers: dict[str, int] = {}
    errors: list[str] = []
    while not stop.exists():
        try:
            answer = read(latest)
            answers[answer] = answers.get(answer, 0) + 1
        except Exception:  # any at all is what must not happen
            errors.append(traceback.format_exc()[-600:])
    file.write_text(json.dumps({"answers": answers, "errors": errors}))


def attempt(stage: Stage, rng: random.Random) -> str:
    """Publish again and again; every answer must be of one version that was published."""
    home = stage.root / "readers"
    shutil.rmtree(home, ignore_errors=True)
    workspace = build_workspace(home / "data", n_clusters=8, n_mocks=60)
    params = Params(profile="smoke", publish=PublishParams(keep=1))
    release.run(workspace, params)
    latest, stop = workspace.releases / "latest", home / "stop"
    names = [*READERS] * 2
    children = []
    for number, name in enumerate(names):
        sys.stderr.flush()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                random.seed(number)
                _read_until(stop, latest, READERS[name], home / f"{number}.json")
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    published = {through_sql(latest)}
    for _ in range(PUBLICATIONS):
        _next_version(workspace)
        release.run(workspace, params)
        published.add(through_sql(latest))
        time.sleep(rng.uniform(0, 0.5))
    stop.touch()
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    require(codes == [0] * len(names), f"readers ended with {codes}")
    found = [json.loads((home / f"{number}.json").read_text()) for number in range(len(names))]
    errors = [error for one in found for error in one["errors"]]
    require(not errors, f"{len(errors)} errors, the first: {errors[:1]}")
    answers = {answer for one in found for answer in one["answers"]}
    require(len(published) == PUBLICATIONS + 1, f"{len(published)} versions were published")
    require(answers <= published, f"answers of no version: {answers - published}")
    reads = sum(sum(one["answers"].values()) for one in found)
    shutil.rmtree(home)
    return f"{reads} answers of {len(answers)} versions through {PUBLICATIONS} publications"


FAULTS = [
    Fault("readers through 20 publications", "two readers by SQL and two of Parquet files in a loop, `publish.keep` 1",
          "no error; every answer is of one whole version", attempt),
]  # fmt: skip
