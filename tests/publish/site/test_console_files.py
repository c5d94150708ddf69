"""DuckDB for browsers: what npm brings is used only if it is what was pinned."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from cmass.errors import SourceError
from cmass.publish.site import browser

WASM = b"\0asm" + bytes(2000)
FILES = {
    "dist/duckdb-eh.wasm": WASM,
    "dist/duckdb-browser-eh.worker.js": b"work()\n//# sourceMappingURL=worker.js.map",
    "dist/duckdb-browser.mjs": b'import*as a from"apache-arrow";a();',
    "Arrow.es2015.min.js": b"this.Arrow={}",
}


def _archive() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in FILES.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that brings one package, called as npm is, and a cache that is empty.

    The folder holds what it brings (`package.tgz`) and one line for each call (`calls`).
    """
    archive = _archive()
    (tmp_path / "package.tgz").write_bytes(archive)
    program = tmp_path / "npm.py"
    program.write_text(
        "import pathlib, shutil, sys\n"
        f"here = pathlib.Path({str(tmp_path)!r})\n"
        "(here / 'calls').open('a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        "if (here / 'fails').exists():\n    sys.exit('getaddrinfo EAI_AGAIN')\n"
        "shutil.copy(here / 'package.tgz', 'package.tgz')\n"
    )
    digest = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    names = {n: (Path(n).name, hashlib.sha256(c).hexdigest()) for n, c in FILES.items()}
    monkeypatch.setattr(
        browser, "PACKAGES", (browser.Package("duck", "1.0.0", digest, "MIT", names),)
    )
    monkeypatch.setattr(browser, "_npm", lambda: [sys.executable, str(program)])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_files_are_brought_once_and_kept(npm: Path) -> None:
    assert browser.kept() is None
    folder = browser.fetch()
    assert folder.is_relative_to(npm / "cache" / "cmass")
    assert browser.kept() == folder == browser.fetch()
    calls = (npm / "calls").read_text().splitlines()
    assert len(calls) == 1
    assert calls[0].startswith("pack duck@1.0.0 --ignore-scripts")
    assert gzip.decompress((folder / "duckdb-eh.wasm.gz").read_bytes()) == WASM
    assert 'from"../apache-arrow.mjs"' in (folder / "duckdb-browser.mjs").read_text()
    assert "sourceMappingURL" not in (folder / "duckdb-browser-eh.worker.js").read_text()
    assert not list(folder.parent.glob(".console-*"))


def test_damage_in_the_cache_is_noticed_and_mended(npm: Path) -> None:
    folder = browser.fetch()
    for damage in (
        lambda: (folder / "duckdb-browser.mjs").write_text("other"),
        lambda: (folder / "duckdb-eh.wasm.gz").unlink(),
        lambda: (folder / "console.json").write_text("{"),
    ):
        damage()
        assert browser.kept() is None
        assert browser.fetch() == folder == browser.kept()


def test_another_package_than_the_pinned_one_is_not_used(npm: Path) -> None:
    (npm / "package.tgz").write_bytes(_archive() + b"\0")
    with pytest.raises(SourceError, match="pinned"):
        browser.fetch()
    assert browser.kept() is None


def test_no_network_and_no_npm_are_said_with_the_way_round(
    npm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (npm / "fails").touch()
    with pytest.raises(SourceError, match=r"EAI_AGAIN.*--no-console"):
        browser.fetch()
    assert browser.kept() is None
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(browser, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match=r"cmass\[site\].*--no-console"):
        browser._npm()
