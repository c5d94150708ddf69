"""A release is whole or not there: contents, checksums, repetition, breaks."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cmass.columns import TABLES
from cmass.errors import ContractError, WorkspaceError
from cmass.params import Params
from cmass.publish import release, run
from cmass.publish.release import (
    RELEASE_TABLES,
    check_sums,
    complete_releases,
    last_release,
    verify,
)
from cmass.tables import make_table, read_json, read_table, write_json, write_table
from cmass.workspace import Workspace
from tests.publish.site.conftest import xray_matches

FILES = {
    *(f"{name}.parquet" for name in RELEASE_TABLES), "cmass.duckdb", "report.html", "overview.png",
    "model_card.md", "contracts.html", "contracts.json",
    "provenance.json", "README.md", "SHA256SUMS", "CITATION.cff", "LICENSE.md",
    "data_dictionary.md", "data_dictionary.json", "changes.md", "changes.parquet",
    "masses.fits", "clusters.fits", "galaxies.fits", "masses.vot", "clusters.vot",
    "masses.mrt", "clusters.mrt", "cds/ReadMe", "cds/masses.dat", "cds/clusters.dat",
    "footprint_moc.fits",
}  # fmt: skip


def _latest(workspace: Workspace) -> Path:
    return workspace.releases / "latest"


def _versions(workspace: Workspace) -> set[str]:
    return {p.name for p in workspace.releases.iterdir() if p.is_dir() and not p.is_symlink()}


def _change_masses(workspace: Workspace, shift: float) -> None:
    path = workspace.masses / "masses.parquet"
    masses = read_table(path, "masses")
    columns = dict(zip(masses.column_names, masses.columns, strict=True))
    columns["log10_m200c"] = pc.add(masses["log10_m200c"], shift)
    write_table(path, make_table("masses", columns), "masses")


def test_release_holds_the_files_and_rows_of_the_contract(released: Workspace) -> None:
    folder = _latest(released)
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {file for file in files if not file.startswith("site/")} == FILES
    assert "site/index.html" in files
    assert not folder.readlink().is_absolute()
    sources = {
        "masses": released.masses / "masses.parquet",
        "clusters": released.selected / "clusters.parquet",
        "galaxies": released.selected / "galaxies.parquet",
        "posterior_grid": released.posterior / "posterior_grid.parquet",
    }
    for name, source in sources.items():
        assert pq.read_table(folder / f"{name}.parquet").equals(pq.read_table(source)), name
    calibration = pq.read_table(folder / "calibration.parquet")
    parts = [
        pq.read_table(released.evaluation / "calibration.parquet"),
        pq.read_table(released.masses / "comparison.parquet"),
    ]
    assert calibration.equals(pa.concat_tables(parts))


def test_parquet_files_carry_units_and_ucds(released: Workspace) -> None:
    for name in RELEASE_TABLES:
        schema = pq.read_schema(_latest(released) / f"{name}.parquet")
        for column in TABLES[name].columns:
            metadata = schema.field(column.name).metadata
            assert metadata[b"unit"].decode() == column.unit
            assert metadata[b"ucd"].decode() == column.ucd
            assert metadata[b"description"].decode() == column.description


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_checksums_hold_for_an_independent_program(released: Workspace) -> None:
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=_latest(released),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(FILES - {"SHA256SUMS", "site"})


def test_publishing_the_same_again_writes_nothing(
    make_workspace, params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = make_workspace(n_clusters=6)
    run(workspace, params)

    def state() -> dict[str, tuple[int, int]]:
        paths = [*workspace.releases.rglob("*"), workspace.receipt]
        return {
            str(p): (p.lstat().st_mtime_ns, p.lstat().st_size) for p in paths if p.name != ".lock"
        }

    before = state()
    with caplog.at_level(logging.INFO):
        run(workspace, params)
    assert state() == before
    assert "holds this content already" in caplog.text


def test_two_clones_release_the_same_bytes(make_workspace, params: Params) -> None:
    one, two = make_workspace("one/data", n_clusters=6), make_workspace("two/data", n_clusters=6)
    provenance = read_json(two.raw / "provenance.json")
    provenance["clusters"]["retrieved"] = "2027-01-01T00:00:00+00:00"
    write_json(two.raw / "provenance.json", provenance)
    card = {"name": "cmass-cnn3d-smoke", "version": "7", "run_id": "0123", "code_commit": "ab" * 20,
            "verdict": "promoted", "reasons": "a gain"}  # fmt: skip
    write_json(two.champion / "champion.json", card)
    for workspace in (one, two):
        run(workspace, params)
    # the version carries the day, which may turn between the two
    receipts = [{**read_json(w.receipt), "version": None} for w in (one, two)]
    assert receipts[0] == receipts[1]
    for name in RELEASE_TABLES:
        file = f"{name}.parquet"
        assert (_latest(one) / file).read_bytes() == (_latest(two) / file).read_bytes(), name


def test_going_back_to_earlier_content_uses_its_release(make_workspace, params: Params) -> None:
    workspace = make_workspace(n_clusters=6)
    original = (workspace.masses / "masses.parquet").read_bytes()
    run(workspace, params)
    first = _latest(workspace).readlink()
    _change_masses(workspace, 0.01)
    run(workspace, params)
    assert _latest(workspace).readlink() != first
    (workspace.masses / "masses.parquet").write_bytes(original)
    run(workspace, params)
    assert _latest(workspace).readlink() == first
    assert len(_versions(workspace)) == 2
    assert read_json(workspace.receipt)["version"] == str(first)


def test_old_releases_are_removed_but_never_the_latest(make_workspace) -> None:
    workspace = make_workspace(n_clusters=6)
    params = Params.model_validate({"profile": "smoke", "publish": {"keep": 1}})
    seen = []
    for _ in range(3):
        run(workspace, params)
        seen.append(str(_latest(workspace).readlink()))
        _change_masses(workspace, 0.01)
    assert len(set(seen)) == 3
    assert _versions(workspace) == set(seen[1:])
    verify(_latest(workspace).resolve())


def test_a_clock_that_is_set_back_takes_no_newer_release_for_an_old_one(
    make_workspace, params: Params, monkeypatch
) -> None:
    """Three in one second and one a day earlier: the last two stay, in the order they were made."""
    workspace, seen = make_workspace(n_clusters=6), []
    params = params.model_copy(update={"publish": params.publish.model_copy(update={"keep": 1})})
    times = iter(
        [datetime(2026, 11, 23, 12, tzinfo=UTC)] * 3 + [datetime(2026, 11, 22, tzinfo=UTC)]
    )

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return next(times)

    monkeypatch.setattr(release, "datetime", Clock)
    for _ in range(4):
        run(workspace, params)
        seen.append(str(_latest(workspace).readlink()))
        assert [p.name for p in complete_releases(workspace.releases)] == seen[-2:]
        _change_masses(workspace, 0.01)
    assert last_release(workspace).name == seen[-1]


def test_a_tampered_release_is_named_and_left_alone(make_workspace, params: Params) -> None:
    workspace = make_workspace(n_clusters=6)
    run(workspace, params)
    card = _latest(workspace) / "model_card.md"
    card.write_text("changed by hand")
    with pytest.raises(WorkspaceError, match="does not match its checksum"):
        check_sums(_latest(workspace))
    with pytest.raises(WorkspaceError, match="move that folder away"):
        run(workspace, params)
    assert card.read_text() == "changed by hand"


def test_leftovers_of_a_broken_publish_are_removed(make_workspace, params: Params) -> None:
    workspace = make_workspace(n_clusters=6)
    staging = workspace.releases / ".staging"
    staging.mkdir(parents=True)
    (staging / "masses.parquet").write_bytes(b"half")
    (workspace.releases / ".latest").symlink_to("nowhere")
    run(workspace, params)
    assert {p.name for p in workspace.releases.iterdir()} == {
        ".lock", "latest", str(_latest(workspace).readlink())
    }  # fmt: skip


def test_one_publish_at_a_time(make_workspace, params: Params) -> None:
    workspace = make_workspace(n_clusters=6)
    workspace.releases.mkdir(parents=True)
    with open(workspace.releases / ".lock", "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(WorkspaceError, match="another publish is at work"):
            run(workspace, params)


def test_a_missing_product_is_named(make_workspace, params: Params) -> None:
    workspace = make_workspace(n_clusters=6)
    (workspace.evaluation / "calibration.parquet").unlink()
    with pytest.raises(WorkspaceError, match=r"evaluation/calibration\.parquet does not exist"):
        run(workspace, params)
    assert not _latest(workspace).is_symlink()


def _without_first_row(workspace: Workspace) -> None:
    path = workspace.masses / "masses.parquet"
    write_table(path, read_table(path, "masses").slice(1), "masses")


def _lose_a_galaxy(workspace: Workspace) -> None:
    path = workspace.selected / "galaxies.parquet"
    write_table(path, read_table(path, "galaxies").slice(1), "galaxies")


def _shorten_a_posterior(workspace: Workspace) -> None:
    path = workspace.masses / "masses.parquet"
    masses = read_table(path, "masses")
    columns = dict(zip(masses.column_names, masses.columns, strict=True))
    columns["posterior"] = [p[:-1] for p in masses["posterior"].to_pylist()]
    write_table(path, make_table("masses", columns), "masses")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_without_first_row, r"selected clusters without a row of masses \(as Test-0000\)"),
        (_lose_a_galaxy, r"masses whose n_galaxies is not their rows in galaxies \(as Test-0000\)"),
        (_shorten_a_posterior, "posteriors of another number of bins"),
    ],
)
def test_products_that_do_not_fit_are_refused(make_workspace, params, spoil, words) -> None:
    workspace = make_workspace(n_clusters=6)
    spoil(workspace)
    with pytest.raises(ContractError, match=words):
        run(workspace, params)
    assert [p.name for p in workspace.releases.iterdir()] == [".lock"]


_PUBLISH = """
import sys
from pathlib import Path
from cmass.params import Params
from cmass.publish import run
from cmass.workspace import Workspace
import cmass.publish.report, cmass.infer, duckdb, jinja2
print("ready", flush=True)
run(Workspace(Path(sys.argv[1]), "smoke", "embedded"), Params(profile="smoke"))
"""


def _start(workspace: Workspace) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _PUBLISH, str(workspace.root)], stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_kill_at_any_time_leaves_latest_whole(make_workspace, params: Params) -> None:
    workspace = make_workspace("killed", n_clusters=6)
    start = time.monotonic()
    process = _start(workspace)
    ready = time.monotonic()
    assert process.wait() == 0
    whole = time.monotonic() - ready
    assert ready - start > 0
    first = _latest(workspace).readlink()
    _change_masses(workspace, 0.01)

    draw = random.Random(20200907)
    # one kill in each part of the run, the last ones where files are put in place
    fractions = [draw.uniform(low, high) for low, high in ((0, 0.3), (0.3, 0.9), (0.9, 1.02))]
    killed = 0
    for fraction in fractions:
        process = _start(workspace)
        time.sleep(fraction * whole)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        assert _latest(workspace).is_symlink()
        verify(_latest(workspace).resolve())
        for version in _versions(workspace):
            if not version.startswith("."):
                check_sums(workspace.releases / version)
    assert killed >= 1
    run(workspace, params)
    assert _latest(workspace).readlink() != first

    clean = make_workspace("clean", n_clusters=6)
    _change_masses(clean, 0.01)
    run(clean, params)
    digests = [read_json(w.receipt)["content_digest"] for w in (workspace, clean)]
    assert digests[0] == digests[1]
    assert not list(workspace.releases.glob(".staging*"))


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a small disk needs root"
)
def test_a_full_disk_is_reported_and_the_old_release_stays(
    tmp_path, make_workspace, params, monkeypatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # no 8 MB of a SQL console
    workspace = make_workspace(n_clusters=6)
    disk = workspace.releases
    disk.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "cmass-test", str(disk)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.strip()}")
    try:
        run(workspace, params)
        first = _latest(workspace).readlink()
        _change_masses(workspace, 0.01)
        with open(disk / "ballast", "wb") as stream:
            free = shutil.disk_usage(disk).free
            stream.write(b"\0" * (free - 600_000))  # room for tables, not for the database
        with pytest.raises(WorkspaceError, match="no space left"):
            run(workspace, params)
        assert _latest(workspace).readlink() == first
        verify(_latest(workspace).resolve())
        assert not list(disk.glob(".staging*"))
        (disk / "ballast").unlink()
        run(workspace, params)
        assert _latest(workspace).readlink() != first
        verify(_latest(workspace).resolve())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_receipt_names_version_and_checksums(released: Workspace) -> None:
    receipt = json.loads(released.receipt.read_text())
    assert receipt["version"] == str(_latest(released).readlink())
    lines = (_latest(released) / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert set(receipt["files"]) == {f"{name}.parquet" for name in RELEASE_TABLES}
    assert all(sums[name] == digest for name, digest in receipt["files"].items())


def test_an_installed_package_outside_git_publishes_too(
    make_workspace, params: Params, monkeypatch
) -> None:
    monkeypatch.setattr("cmass.publish.provenance.git_state", dict)
    workspace = make_workspace()
    run(workspace, params)
    for name in ("report.html", "model_card.md"):
        assert "commit" not in (_latest(workspace) / name).read_text(encoding="utf-8")


def test_x_ray_matches_are_content_of_releases_that_have_them(
    released: Workspace, make_workspace, tmp_path: Path
) -> None:
    workspace = make_workspace(survey="sdss", n_clusters=12)
    assert "xray_matches" not in release.gather_tables(workspace)
    ids = release.gather_tables(workspace)["masses"]["cluster_id"].to_pylist()
    matches = xray_matches(ids[:3])
    write_table(workspace.masses / "xray_matches.parquet", matches, "xray_matches")
    assert release.gather_tables(workspace)["xray_matches"].num_rows == 3

    shutil.copytree(_latest(released), tmp_path / "with")
    before = release.content_digest(tmp_path / "with")
    write_table(tmp_path / "with" / "xray_matches.parquet", matches, "xray_matches")
    assert release.content_digest(tmp_path / "with") != before
