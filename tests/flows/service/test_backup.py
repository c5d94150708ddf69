"""What a backup must be before it is put back."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from cmass.errors import CmassError, InputError, WorkspaceError
from cmass.tables import file_digest, read_json, write_json

pytest.importorskip("supervisor")
from flows.service import backup
from flows.service.service import start
from flows.service.settings import ServiceSettings


@pytest.fixture
def folder(tmp_path):
    """A backup of two dumps and an object."""
    folder = tmp_path / "monday"
    names = ["prefect.dump", "mlflow.dump", "objects/mlflow/1/weights"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    write_json(
        folder / "manifest.json",
        {
            "software": {n: version(n) for n in ("prefect", "mlflow")} | {"git_commit": "0123abc"},
            "bucket": "cmass",
            "sha256": {name: file_digest(folder / name) for name in names},
        },
    )
    return folder


def test_a_whole_backup_is_taken(folder):
    assert backup.check(folder)["bucket"] == "cmass"


def _damage(folder):
    (folder / "mlflow.dump").write_text("mlflow.dumP")


def _remove(folder):
    (folder / "objects/mlflow/1/weights").unlink()


def _add(folder):
    (folder / "objects/stranger").write_text("?")


def _no_manifest(folder):
    (folder / "manifest.json").unlink()


def _newer(folder):
    found = read_json(folder / "manifest.json")
    found["software"]["mlflow"] = "99.0"
    write_json(folder / "manifest.json", found)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_damage, r"mlflow\.dump is damaged"),
        (_remove, "weights is missing"),
        (_add, "stranger is not in its manifest"),
        (_no_manifest, "is no backup: it has no manifest"),
        (_newer, r"made with mlflow 99\.0, and .* check out 0123abc and make setup"),
    ],
)
def test_what_is_not_whole_is_refused_before_anything_starts(folder, tmp_path, harm, words):
    harm(folder)
    home = tmp_path / "home"
    with pytest.raises(InputError, match=words):
        start(ServiceSettings(home=home), folder)
    assert {p.name for p in home.iterdir()} <= {".lock"}


def test_a_service_that_is_there_is_not_overwritten(folder, tmp_path):
    (tmp_path / "home" / "postgres").mkdir(parents=True)
    with pytest.raises(WorkspaceError, match="put back into a new one"):
        start(ServiceSettings(home=tmp_path / "home"), folder)


def test_a_failed_backup_leaves_nothing(tmp_path, monkeypatch):
    def broken(*_):
        raise CmassError("pg_dump prefect failed: no server")

    monkeypatch.setattr(backup, "_postgres", broken)
    with pytest.raises(CmassError, match="pg_dump"):
        backup.make(ServiceSettings(home=tmp_path / "home"), tmp_path / "monday")
    assert not list(tmp_path.glob("*monday*"))


def test_what_the_store_does_not_give_is_an_error_of_ours(tmp_path, monkeypatch):
    """Nobody listens there."""
    monkeypatch.setattr(backup, "_postgres", lambda *_: None)
    with pytest.raises(WorkspaceError, match="no backup at .*monday: Could not connect"):
        backup.make(ServiceSettings(home=tmp_path / "home", s3_port=45999), tmp_path / "monday")
    assert not list(tmp_path.glob("*monday*"))


def test_an_object_whose_name_leaves_the_folder_is_refused(tmp_path):
    with pytest.raises(WorkspaceError, match="would leave the backup's folder"):
        backup._object_file(tmp_path, "../../etc/passwd")
