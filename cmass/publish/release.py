"""publish: a release, whole or not at all.

All files are made in a hidden folder beside the releases, read back and compared,
flushed to the disk, and put in place by one rename; then the link ``latest`` is
replaced by one rename. A break at any point leaves the older release in force.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from cmass.columns import TABLES
from cmass.contracts import release as contract
from cmass.errors import WorkspaceError
from cmass.params import Params
from cmass.publish import changes, exports, site, sql
from cmass.publish.exports.votable import with_votable
from cmass.publish.provenance import as_table, gather
from cmass.publish.site import browser
from cmass.shards import digest_of
from cmass.tables import (
    check_table,
    disk_full,
    file_digest,
    make_table,
    read_json,
    read_table,
    write_json,
    write_table,
)
from cmass.workspace import SITE, Workspace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_log = logging.getLogger(__name__)

#: Tables of a release that are its content, in the order of the documentation.
CONTENT = ("masses", "clusters", "galaxies", "posterior_grid", "calibration")
#: All tables of a release.
RELEASE_TABLES = (*CONTENT, "provenance")
#: Tables of releases whose survey has what they are of.
EXTRA = ("xray_matches",)
SUMS = "SHA256SUMS"
_VERSION = re.compile(r"[0-9]{4}\.[0-9]{2}\.[0-9]{2}-[0-9a-f]{8}")


def run(workspace: Workspace, params: Params) -> None:
    """Publish the masses of a workspace as a release and point ``latest`` at it.

    The same content is published once: a complete release that holds it is used again.

    Raises
    ------
    ContractError
        The products of earlier steps do not fit together, are not what users may rely on, or drift
        from the last release.
    WorkspaceError
        A product is missing, the disk is full, or another publish is at work.
    """
    releases = workspace.releases
    try:
        releases.mkdir(parents=True, exist_ok=True)
        with locked(releases):
            _clean(releases)
            staging = releases / ".staging"
            try:
                folder = _publish(workspace, params, staging)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            _point_latest(releases, folder.name)
            _remember(workspace, folder)
            if params.publish.site:  # last: a release does without it, and it can be made again
                site.build(folder, console=browser.kept())
            _prune(releases, folder.name, params.publish.keep)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(releases / "latest") from error
        raise


def _publish(workspace: Workspace, params: Params, staging: Path) -> Path:
    tables = gather_tables(workspace)
    facts = gather(workspace, params)
    last = last_release(workspace)
    # Before anything is written: what breaks its contract leaves no trace of a release.
    checked = contract.check_release(workspace, params, tables, facts, last)
    contracts = contract.gather(workspace, checked)
    tables["provenance"] = as_table(facts)
    staging.mkdir()
    for name in tables:
        write_table(staging / f"{name}.parquet", with_votable(name, tables[name]), name)
    content = content_digest(staging)
    words = [params.publish.title, params.publish.licence]
    identity = digest_of(content, facts["release"], words, _evidence(workspace))

    known = find_release(workspace.releases, identity)
    if known is not None:
        _log.info("%s holds this content already: nothing to write", known.name)
        return known

    now = datetime.now(UTC)
    version = f"{now:%Y.%m.%d}-{identity[:8]}"
    folder = workspace.releases / version
    if folder.exists():
        raise WorkspaceError(
            f"{folder} exists and does not match its checksums. Nobody should change a release: "
            "move that folder away and run publish again"
        )
    facts["release"] |= {
        "version": version, "identity": identity, "content_digest": content,
        "created": now.isoformat(timespec="seconds"),
        "publication": 1 + max(map(_publication, complete_releases(workspace.releases)), default=0),
        "layout": exports.LAYOUT,
    }  # fmt: skip
    changed = changes.since(last, tables["masses"], facts, version)
    write_release(staging, workspace, params, tables, facts, contracts, changed)
    verify(staging)
    _flush(staging)
    staging.rename(folder)
    _flush_folder(workspace.releases)
    masses = tables["masses"]
    _log.info(
        "released %s: %d clusters, %d with a mass, %d galaxies", version, masses.num_rows,
        masses.num_rows - masses["log10_m200c"].null_count, tables["galaxies"].num_rows,
    )  # fmt: skip
    return folder


def gather_tables(workspace: Workspace) -> dict[str, pa.Table]:
    """The content tables of a release, from the products of the steps before."""
    paths = {
        "masses": workspace.masses / "masses.parquet",
        "clusters": workspace.selected / "clusters.parquet",
        "galaxies": workspace.selected / "galaxies.parquet",
        "posterior_grid": workspace.posterior / "posterior_grid.parquet",
    }
    paths |= {n: f for n in EXTRA if (f := workspace.masses / f"{n}.parquet").exists()}
    tables = {name: read_table(path, name) for name, path in paths.items()}
    tables["calibration"] = pa.concat_tables(
        [
            read_table(workspace.evaluation / "calibration.parquet", "calibration"),
            read_table(workspace.masses / "comparison.parquet", "calibration"),
        ],
        promote_options="default",
    )
    # made anew so that units and descriptions are those of today's column dictionary
    return {name: make_table(name, dict(zip(t.column_names, t.columns, strict=True)))
            for name, t in tables.items()}  # fmt: skip


def content_digest(folder: Path) -> str:
    """SHA-256 over names and contents of the content tables below `folder`."""
    files = [f for n in (*CONTENT, *EXTRA) if (f := folder / f"{n}.parquet").exists()]
    return digest_of({file.stem: file_digest(file) for file in files})


def _evidence(workspace: Workspace) -> dict[str, str]:
    """Digests of what shapes the release beside its content: the figures and this code."""
    from cmass.shards import source_digest

    files = [
        workspace.model / "history.parquet",
        *sorted(workspace.evaluation.glob("*.parquet")),
        workspace.masses / "mass_function.parquet",
        workspace.figures / "figures.json",  # holds the digest of every figure and its tables
        workspace.raw / "quarantine.parquet",
        workspace.raw / "footprint.parquet",
    ]
    digests = {f.name: file_digest(f) for f in files if f.exists()}
    code = hashlib.sha256(source_digest("figures").encode())
    here = Path(__file__).parent
    for source in sorted(p for p in here.rglob("*") if p.suffix in (".py", ".jinja2", ".template")):
        if here / SITE not in source.parents:
            code.update(source.read_bytes())
    return {**digests, "code": code.hexdigest()}


def write_release(
    folder: Path, workspace: Workspace, params: Params, tables: dict[str, pa.Table],
    facts: dict[str, Any], contracts: dict[str, Any], changed: changes.Changes,
) -> None:  # fmt: skip
    """Write what a release holds beside its Parquet files, the checksums last."""
    from cmass import figures
    from cmass.figures.overview import save_overview
    from cmass.publish.database import write_database
    from cmass.publish.exports import documents, footprint
    from cmass.publish.model_card import model_card
    from cmass.publish.readme import readme
    from cmass.publish.report import write_report
    from cmass.publish.report.contracts import write_contracts

    write_database(folder / sql.DATABASE, {name: folder / f"{name}.parquet" for name in tables})
    polygons = read_table(workspace.raw / "footprint.parquet", "raw_footprint")
    facts["release"]["footprint"] = footprint.write(folder, polygons, tables["clusters"], facts)
    exports.write(folder, tables, facts)
    write_table(folder / changes.FILE, with_votable("changes", changed.table), "changes")
    documents.write(folder, tables, facts, changed.markdown())
    write_json(folder / "provenance.json", facts)
    write_report(folder / "report.html", workspace, params, tables, facts, contracts)
    write_json(folder / "contracts.json", contracts)
    write_contracts(folder / "contracts.html", params.publish.title, facts["release"], contracts)
    save_overview(workspace, folder / "overview.png", params)
    card = model_card(tables, facts, figures.tables(workspace), figures.missing_words(workspace))
    (folder / "model_card.md").write_text(card, encoding="utf-8")
    (folder / "README.md").write_text(readme(tables, facts), encoding="utf-8")
    lines = [f"{file_digest(p)}  {p.relative_to(folder)}\n" for p in files_of(folder)]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def verify(folder: Path) -> None:
    """Read a release back and raise `WorkspaceError` at the first thing that is not right.

    Checksums; every table against the column dictionary; the database against the
    Parquet files, value by value, and its macros; every other format against the tables. Releases
    of before there were other formats are whole without them.
    """
    check_sums(folder)
    tables = {}
    extra = [name for name in EXTRA if (folder / f"{name}.parquet").exists()]
    with sql.connect(folder / sql.DATABASE) as connection:
        for name in (*RELEASE_TABLES, *extra):
            table = tables[name] = read_table(folder / f"{name}.parquet", name)
            check_table(table, TABLES[name], folder / f"{name}.parquet")
            _check_rows(connection, name, table, folder)
        connection.execute(
            "SELECT mass_quantile(cluster_id, 0.5), prob_above(cluster_id, 14), "
            "(SELECT count(*) FROM cone(0, 0, 1)) FROM masses LIMIT 1"
        ).fetchall()
    facts = read_json(folder / "provenance.json")
    if facts["release"].get("layout", 1) >= exports.LAYOUT:
        exports.verify(folder, tables, facts)


def _check_rows(connection: DuckDBPyConnection, name: str, table: pa.Table, folder: Path) -> None:
    """Raise unless a table of the database holds the values of its Parquet file, in their order."""
    n = 0
    for batch in connection.cursor().sql(f'SELECT * FROM "{name}"').to_arrow_reader():
        expected = table.slice(n, batch.num_rows)
        n += batch.num_rows
        for column in table.column_names:
            there = expected[column].combine_chunks()
            here = batch.column(column)
            if (
                column == "posterior"
            ):  # no posterior is NULL in the database, an empty list in Parquet
                there, here = pc.list_flatten(there), pc.list_flatten(here)
            if not here.cast(there.type).equals(there):
                raise WorkspaceError(
                    f"{folder / sql.DATABASE}: column {column} of table {name} does not hold the "
                    "values of its Parquet file. Run publish again"
                )
    if n != table.num_rows:
        raise WorkspaceError(
            f"{folder / sql.DATABASE}: table {name} does not have the {table.num_rows} rows of its "
            "Parquet file. Run publish again"
        )


def listed_sums(folder: Path) -> dict[str, str]:
    """Checksums by file of a release, as its SHA256SUMS has them."""
    sums = folder / SUMS
    if not sums.is_file():
        raise WorkspaceError(f"{folder} has no {SUMS}: it is not a complete release")
    try:
        text = sums.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise WorkspaceError(f"{sums} is damaged: {error}") from error
    lines = [line.partition("  ") for line in text.splitlines()]
    return {name: digest for digest, _, name in lines}


def check_sums(folder: Path) -> None:
    """Raise `WorkspaceError` unless the files of a release are those of its SHA256SUMS."""
    listed = listed_sums(folder)
    present = {str(p.relative_to(folder)) for p in files_of(folder)} - {SUMS}
    if not listed or present != set(listed):
        odd = sorted(present ^ set(listed))
        raise WorkspaceError(f"{folder} does not hold the files of its {SUMS}: {', '.join(odd)}")
    for name, digest in listed.items():
        if file_digest(folder / name) != digest:
            raise WorkspaceError(f"{folder / name} does not match its checksum in {SUMS}")


def version_folder(releases: Path, version: str) -> Path:
    """Folder of a release by its version, or by ``latest``.

    Raises
    ------
    WorkspaceError
        That is no name of a version, or there is no such release.
    """
    name = version
    if version == "latest" and (releases / "latest").is_symlink():
        name = str((releases / "latest").readlink())
    if not _VERSION.fullmatch(name):
        raise WorkspaceError(
            f"no release {version!r} in {releases}: "
            + (
                "`cmass run` makes one"
                if version == "latest"
                else "versions look like 2026.11.23-0a1b2c3d; `cmass releases` lists them"
            )
        )
    if not (releases / name).is_dir():
        raise WorkspaceError(f"{releases / name} does not exist; `cmass releases` lists what does")
    return releases / name


def complete_releases(releases: Path) -> list[Path]:
    """Folders of whole releases, in the order of their publication.

    Clocks are set back and seconds have room for two: publications are counted, and only those
    of before that was done are told by their time.
    """
    found = []
    for folder in releases.iterdir():
        if folder.is_symlink() or not _VERSION.fullmatch(folder.name):
            continue
        try:
            check_sums(folder)
            release = read_json(folder / "provenance.json")["release"]
            created = datetime.fromisoformat(release["created"])
            number = int(release.get("publication", 0))
        except (WorkspaceError, KeyError, TypeError, ValueError, OSError) as error:
            _log.warning(
                "%s is no release any more (%s): move it away; `cmass publish` makes that of today's "
                "products again", folder, error,
            )  # fmt: skip
            continue
        found.append((number, created.isoformat(), folder.name, folder))
    return [folder for *_, folder in sorted(found)]


def _publication(folder: Path) -> int:
    return int(read_json(folder / "provenance.json")["release"].get("publication", 0))


def find_release(releases: Path, identity: str) -> Path | None:
    """The newest complete release with that identity, if any."""
    for folder in reversed(complete_releases(releases)):
        if read_json(folder / "provenance.json")["release"].get("identity") == identity:
            return folder
    return None


def last_release(workspace: Workspace) -> Path | None:
    """The last release of the workspace's survey and profile; None if there is none.

    That is the one that its products became last, as the receipt says, even if a newer one was left
    for it; without a receipt the newest.
    """
    mine = [f for f in complete_releases(workspace.releases) if _kind(f) == _own_kind(workspace)]
    receipt = read_json(workspace.receipt) if workspace.receipt.exists() else {}
    named = [folder for folder in mine if folder.name == receipt.get("version")]
    return (named or mine)[-1] if mine else None


def _own_kind(workspace: Workspace) -> tuple[str, str]:
    return workspace.profile, workspace.survey


def _kind(folder: Path) -> tuple[str, str]:
    release = read_json(folder / "provenance.json")["release"]
    return release["profile"], release["survey"]


@contextmanager
def locked(releases: Path) -> Iterator[None]:
    """Hold the releases; the kernel lets go when the process ends, however it ends."""
    with open(releases / ".lock", "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkspaceError(
                f"another publish is at work in {releases}: wait for its end and run again"
            ) from None
        yield


def _clean(releases: Path) -> None:
    """Remove what a broken publish left behind."""
    for leftover in releases.glob(".staging*"):
        _log.info("removing %s, left by a publish that did not end", leftover)
        shutil.rmtree(leftover)
    for leftover in releases.glob(".latest*"):
        leftover.unlink()


def files_of(folder: Path) -> list[Path]:
    """The files of a release; its site, which is made of them, is none of them."""
    site = folder / SITE
    return sorted(p for p in folder.rglob("*") if p.is_file() and site not in p.parents)


def _flush(folder: Path) -> None:
    for file in files_of(folder):
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
    for inner in [folder, *(p for p in folder.rglob("*") if p.is_dir())]:
        _flush_folder(inner)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _point_latest(releases: Path, version: str) -> None:
    latest = releases / "latest"
    if latest.is_symlink() and str(latest.readlink()) == version:
        return
    if latest.exists() and not latest.is_symlink():
        raise WorkspaceError(f"{latest} is not a link: move it away and run publish again")
    temporary = releases / ".latest"
    temporary.symlink_to(version)
    os.replace(temporary, latest)
    _flush_folder(releases)
    _log.info("latest is now %s", version)


def _remember(workspace: Workspace, folder: Path) -> None:
    """Write the receipt, the product of this step that DVC sees."""
    release = read_json(folder / "provenance.json")["release"]
    value = {
        "version": folder.name,
        "content_digest": release["content_digest"],
        "files": {f"{n}.parquet": file_digest(folder / f"{n}.parquet") for n in RELEASE_TABLES},
    }
    if not workspace.receipt.exists() or read_json(workspace.receipt) != value:
        write_json(workspace.receipt, value)


def _prune(releases: Path, current: str, keep: int) -> None:
    """Remove the oldest releases of the same profile and survey, so that `keep` are left
    beside the current one."""

    mine = _kind(releases / current)
    others = [f for f in complete_releases(releases) if f.name != current and _kind(f) == mine]
    for folder in others[: max(0, len(others) - keep)]:
        doomed = releases / f".staging-{folder.name}"
        folder.rename(doomed)  # gone at once, even if the removal is broken off
        shutil.rmtree(doomed)
        _log.info("removed release %s: %d older ones are kept (publish.keep)", folder.name, keep)
