"""The store of versions under a real DVC: in and out, damage, a remote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cmass.errors import WorkspaceError
from cmass.tables import file_digest
from cmass.versions.store import Store

NAME = "2026.11.23-0a1b2c3d"


@pytest.fixture
def kept(tmp_path, monkeypatch) -> tuple[Store, str, str]:
    """A store with one folder: store, what points at the folder, its digest."""
    monkeypatch.delenv("CMASS_REMOTE", raising=False)
    store = Store(tmp_path / "archive")
    store.open()
    home = store.folder / NAME
    (home / "raw").mkdir(parents=True)
    (home / "raw" / "a.bin").write_bytes(b"words" * 1000)
    (home / "b.txt").write_text("more")
    digest = file_digest(home)
    return store, store.put(NAME), digest


def cached(store: Store) -> list[Path]:
    return [p for p in (store.folder / ".dvc" / "cache").rglob("*") if p.is_file()]


def test_what_was_put_comes_back_and_the_folder_is_not_kept_twice(kept, tmp_path):
    store, pointer, digest = kept
    assert not (store.folder / NAME).exists()
    store.get(NAME, pointer, digest, tmp_path / "back")
    assert file_digest(tmp_path / "back") == digest
    assert not (store.folder / NAME).exists()


def test_a_damaged_cache_is_healed_from_the_remote(kept, tmp_path, monkeypatch):
    store, pointer, digest = kept
    monkeypatch.setenv("CMASS_REMOTE", str(tmp_path / "remote"))
    store.open()
    assert store.remote() == str(tmp_path / "remote")
    assert store.push() == [NAME]
    assert store.is_pushed(NAME) and store.push() == []
    shutil.rmtree(tmp_path / "remote")  # it lost what it had
    assert store.push() == []
    assert (tmp_path / "remote").exists()
    for file in cached(store):
        file.chmod(0o644)
        file.write_bytes(b"damaged")
        file.chmod(0o444)  # as DVC has them: they cannot be written to
    for number, file in enumerate(cached(store)):
        (tmp_path / f"link-{number}").hardlink_to(file)
    store.get(NAME, pointer, digest, tmp_path / "back")
    assert file_digest(tmp_path / "back") == digest
    assert {link.read_bytes() for link in tmp_path.glob("link-*")} == {b"damaged"}
    monkeypatch.setenv("CMASS_REMOTE", str(tmp_path / "nowhere"))  # the cache is whole again
    store.open()
    store.get(NAME, pointer, digest, tmp_path / "back")


def test_what_could_not_be_pushed_is_pushed_later(kept, tmp_path, monkeypatch):
    store, _, _ = kept
    assert store.is_pushed(NAME)  # nowhere to
    (tmp_path / "file").touch()
    monkeypatch.setenv("CMASS_REMOTE", str(tmp_path / "file" / "no folder"))
    store.open()
    with pytest.raises(WorkspaceError, match="dvc push"):
        store.push()
    assert not store.is_pushed(NAME)
    monkeypatch.setenv("CMASS_REMOTE", str(tmp_path / "remote"))
    store.open()
    assert store.push() == [NAME]
    assert store.is_pushed(NAME)


def test_what_is_not_whole_anywhere_is_not_called_pushed(kept, tmp_path, monkeypatch):
    store, pointer, digest = kept
    for file in cached(store):
        file.unlink()
    monkeypatch.setenv("CMASS_REMOTE", str(tmp_path / "remote"))
    store.open()
    with pytest.raises(WorkspaceError, match=f"does not have all of .*{NAME}, nor has"):
        store.push()
    assert not store.is_pushed(NAME)
    # nor is a pointer left by one that could not be had
    other = Store(tmp_path / "elsewhere")
    other.open()
    with pytest.raises(WorkspaceError):
        other.get(NAME, pointer, digest, tmp_path / "back")
    assert not other.holds(NAME)


@pytest.mark.slow
def test_a_damaged_remote_is_an_error_too(kept, tmp_path, monkeypatch):
    store, pointer, digest = kept
    monkeypatch.setenv("CMASS_REMOTE", str(tmp_path / "remote"))
    store.open()
    assert store.push() == [NAME]
    for file in [*cached(store), *(p for p in (tmp_path / "remote").rglob("*") if p.is_file())]:
        file.chmod(0o644)
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(WorkspaceError):
        store.get(NAME, pointer, digest, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_the_reason_is_dvcs_and_not_where_to_chat(kept):
    store, _, _ = kept
    with pytest.raises(WorkspaceError, match="nowhere") as caught:
        store._dvc("pull", "nowhere.dvc")
    assert "Having any troubles" not in str(caught.value)


@pytest.mark.slow
def test_without_a_remote_a_damaged_cache_is_an_error(kept, tmp_path):
    store, pointer, digest = kept
    file = max(cached(store), key=lambda p: p.stat().st_size)
    file.chmod(0o644)
    file.write_bytes(b"damaged")
    with pytest.raises(WorkspaceError, match=f"does not have {NAME} whole, and names no remote"):
        store.get(NAME, pointer, digest, tmp_path / "back")


@pytest.mark.slow
def test_another_machine_gets_it_from_the_remote(kept, tmp_path, monkeypatch):
    store, pointer, digest = kept
    monkeypatch.setenv("CMASS_REMOTE", str(tmp_path / "remote"))
    store.open()
    assert store.push() == [NAME]
    other = Store(tmp_path / "elsewhere" / "archive")
    other.open()
    other.get(NAME, pointer, digest, tmp_path / "back")
    assert file_digest(tmp_path / "back") == digest
