"""A release with identifiers that users' files may hold, its site, and a server of both."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cmass.columns import TABLES
from cmass.errors import SourceError
from cmass.publish.database import write_database
from cmass.publish.release import SUMS, files_of
from cmass.publish.site import browser, build
from cmass.tables import file_digest, make_table, write_table
from cmass.workspace import Workspace

#: Identifiers by the row of table `masses` that gets them.
HOSTILE = {
    3: "<script>window.broken = 1</script>",
    4: '"><img src=x onerror="window.broken = 2">',
    5: "Abell 2142/b, south",
    6: "../../index",
    7: "a2142",
    8: "A2142",
    9: "=HYPERLINK(\"x\")",
}  # fmt: skip


def hostile_release(released: Workspace, root: Path) -> Path:
    """A copy of the shared release with other identifiers and three X-ray masses."""
    source = (released.releases / "latest").resolve()
    folder = root / "release" / source.name
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("site"))
    ids = pq.read_table(folder / "masses.parquet")["cluster_id"].to_pylist()
    new = {old: HOSTILE.get(place, old) for place, old in enumerate(ids)}
    for name in ("masses", "clusters", "galaxies"):
        table = pq.read_table(folder / f"{name}.parquet")
        column = pa.array([new[one] for one in table["cluster_id"].to_pylist()])
        columns = dict(zip(table.column_names, table.columns, strict=True)) | {"cluster_id": column}
        write_table(folder / f"{name}.parquet", make_table(name, columns), name)
    write_table(folder / "xray_matches.parquet", xray_matches(list(new.values())[10:13]),
                "xray_matches")  # fmt: skip
    database = folder / "cmass.duckdb"
    tables = {p.stem: p for p in folder.glob("*.parquet")}
    write_database(database, tables)
    sums = [
        f"{file_digest(p)}  {p.relative_to(folder)}\n" for p in files_of(folder) if p.name != SUMS
    ]
    (folder / SUMS).write_text("".join(sums))
    (folder.parent / "latest").symlink_to(folder.name)
    return folder


def xray_matches(ids: list[str]) -> pa.Table:
    """Table `xray_matches` of three clusters, the second of which was refused."""
    n = len(ids)
    columns = {
        "cluster_id": ids, "xray_name": [f"MCXC <{i}>" for i in range(n)],
        "accepted": [True, False, True], "ambiguous": [False] * n,
        "log10_m200c_xray": [14.21, 14.5, 14.75], "log10_m200c_xray_err_lower": [0.05, 0.1, None],
        "log10_m200c_xray_err_upper": [0.07, 0.1, None], "log10_m500c_xray": [14.0] * n,
        "z": [0.05] * n, "xray_z": [0.05] * n,
    }  # fmt: skip
    for column in TABLES["xray_matches"].columns:
        columns.setdefault(column.name, [None if column.nullable else 1] * n)
    return make_table("xray_matches", columns)


@pytest.fixture(scope="session")
def console() -> Path:
    """The SQL console's files, kept in the user's cache."""
    try:
        return browser.fetch()
    except SourceError as error:
        pytest.skip(f"DuckDB for browsers cannot be had here: {error}")


@pytest.fixture(scope="session")
def hostile(released: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a release with hostile identifiers, with its site but no console. Read only."""
    folder = hostile_release(released, tmp_path_factory.mktemp("hostile"))
    build(folder, console=None)
    return folder


@contextmanager
def served(folder: Path, hosts: tuple[str, ...] = ("127.0.0.1", "localhost")) -> Iterator[int]:
    """Port of a server of that folder, as `cmass serve` has it."""
    import uvicorn

    from cmass.publish.site.serve import application, listen

    with listen("127.0.0.1", 0) as listening:
        config = uvicorn.Config(application(folder, list(hosts)), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.02)
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
