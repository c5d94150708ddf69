"""A release, archived, lost and made again by the commands; and what refuses to be archived."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cmass.tables import file_digest
from tests.clones import fresh_clone, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgSign=false")


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> tuple[Path, str]:
    """A committed clone with a release of profile smoke, archived with a remote: clone, version."""
    clone = fresh_clone(tmp_path_factory.mktemp("versions") / "clone")
    (clone / ".gitignore").write_text((clone / ".gitignore").read_text() + "/.bin/\n")
    run(clone, "git", "add", ".")
    run(clone, "git", *IDENTITY, "commit", "--quiet", "--message", "all")
    run(clone, "cmass", "run", "--profile", "smoke")
    version = (clone / "data" / "release" / "latest").readlink().name
    output = run(clone, "cmass", "archive", CMASS_REMOTE=str(clone.parent / "remote"))
    assert f"{version} is archived" in output
    return clone, version


def test_a_version_is_made_again_to_the_byte_and_training_too(released):
    clone, version = released
    released_files = {
        p.name: file_digest(p) for p in (clone / "data" / "release" / version).glob("*.parquet")
    }
    output = run(clone, "cmass", "rebuild", version, "--check", "--train")
    again = clone / "data" / "rebuilt" / version
    assert {p.name: file_digest(p) for p in again.glob("*.parquet")} == released_files
    assert len(released_files) == 6
    assert "model/cnn3d.weights.h5" in output
    assert "other software" not in output


def test_a_version_outlives_its_data_folder(released, tmp_path):
    """The tag and the remote are enough, even where code and data have gone on."""
    clone, version = released
    other = tmp_path / "other"
    shutil.copytree(clone, other, ignore=shutil.ignore_patterns("data"))
    (other / "cmass" / "select.py").write_text("raise SystemExit('another code')\n")
    environment = {"CMASS_REMOTE": str(clone.parent / "remote")}
    output = run(other, "cmass", "rebuild", version, "--check", **environment)
    assert "masses.parquet" in output
    assert " NO " not in output


def test_what_differs_is_named_and_fails_the_check(released, tmp_path):
    """An archive that says other bytes were released: the rebuilt ones are not those."""
    from cmass.versions.rebuild import compare

    clone, version = released
    folder = tmp_path / version
    shutil.copytree(clone / "data" / "release" / version, folder)
    sums = folder / "SHA256SUMS"
    digest = file_digest(folder / "masses.parquet")
    sums.write_text(sums.read_text().replace(digest, "0" * 64))
    found = compare(folder, clone / "data" / "release" / version)
    assert [one.name for one in found if not one.same] == ["masses.parquet"]


def test_code_that_was_not_committed_is_not_archived(released, tmp_path):
    clone, _ = released
    other = tmp_path / "other"
    shutil.copytree(clone, other, symlinks=True)
    provenance = other / "data" / "release" / "latest" / "provenance.json"
    facts = json.loads(provenance.read_text())
    facts["software"]["git_state"] = "dirty"
    run(other, "git", "tag", "--delete", *run(other, "git", "tag").split())
    provenance.write_text(json.dumps(facts))
    sums = provenance.with_name("SHA256SUMS")
    lines = [line for line in sums.read_text().splitlines() if "provenance.json" not in line]
    sums.write_text("\n".join([*lines, f"{file_digest(provenance)}  provenance.json"]) + "\n")
    output = run(other, "cmass", "archive", code=5)
    assert "not committed (dirty)" in " ".join(output.split())


@pytest.mark.parametrize("name", ["2026.01.01-00000000", "../../etc", "latest"])
def test_a_version_that_is_not_there_is_named(released, name):
    clone, _ = released
    output = run(clone, "cmass", "rebuild", name, code=5)
    assert "is not archived here" in " ".join(output.split())
