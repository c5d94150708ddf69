"""site: a release as web pages that work anywhere, with no network.

A site is made of nothing but its release, lies in the release's folder ``site``, and can be made again
at any time, also of a release that older code published. It is no part of what a release promises:
SHA256SUMS of the release does not list it, and a lost or damaged one makes no release incomplete. It
has a list of its own, ``site/SHA256SUMS``.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from cmass.errors import WorkspaceError
from cmass.shards import source_digest
from cmass.tables import disk_full, file_digest, read_json, write_json
from cmass.workspace import SITE

log = logging.getLogger(__name__)

#: What the site was made of; and the list of its files.
ABOUT, SUMS = "site.json", "SHA256SUMS"
_HERE = Path(__file__).parent


def build(release: Path, *, console: Path | None) -> Path:
    """Make the site of a release, whole or not at all, unless it is there already.

    The caller holds the lock of the releases (`cmass.publish.release.locked`).

    Parameters
    ----------
    release : Path
        Folder of a whole release.
    console : Path or None
        The SQL console's files, as `browser.fetch` or `browser.kept` gives them; None for a site
        whose console says that it is not there.

    Returns
    -------
    Path
        The site's folder.
    """
    site = release / SITE
    made_of = _made_of(release, console)
    if is_current(site, made_of):
        log.info("%s is up to date", site)
        return site
    # Beside the releases, where a broken one is cleared away with broken releases.
    staging = release.parent / f".staging-site-{release.name}"
    old = release.parent / f".staging-old-site-{release.name}"
    try:
        for leftover in (staging, old):
            shutil.rmtree(leftover, ignore_errors=True)
        staging.mkdir()
        _write(staging, release, console)
        write_json(staging / ABOUT, made_of)
        _write_sums(staging)
        if site.exists():
            site.rename(old)
        try:
            staging.rename(site)
        except OSError:
            if old.exists():
                old.rename(site)
            raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(site) from error
        raise
    finally:
        for leftover in (staging, old):
            shutil.rmtree(leftover, ignore_errors=True)
    files = [p for p in site.rglob("*") if p.is_file()]
    size = sum(p.stat().st_size for p in files) / 1e6
    log.info("made %s: %d files, %.1f MB%s", site, len(files), size,
             "" if console else ", without the SQL console")  # fmt: skip
    return site


def is_current(site: Path, made_of: dict[str, Any]) -> bool:
    """Whether a site was made of this release by this code, and is as it was made."""
    try:
        if read_json(site / ABOUT) != made_of:
            return False
        check_site(site)
    except WorkspaceError:
        return False
    return True


def check_site(site: Path) -> None:
    """Raise `WorkspaceError` unless the files of a site are those of its SHA256SUMS."""
    sums = site / SUMS
    if not sums.is_file():
        raise WorkspaceError(f"{site} has no {SUMS}: it is no site. `cmass site` makes it")
    lines = (line.partition("  ") for line in sums.read_text("utf-8").splitlines())
    listed = {name: digest for digest, _, name in lines}
    present = {p.relative_to(site).as_posix() for p in site.rglob("*") if p.is_file()} - {SUMS}
    damaged = [n for n in sorted(present & set(listed)) if file_digest(site / n) != listed[n]]
    odd = sorted(present ^ set(listed)) + damaged
    if odd:
        raise WorkspaceError(
            f"{site} is not as it was made ({', '.join(odd[:5])}): make it again with `cmass site`"
        )


def export(release: Path, out: Path) -> None:
    """Copy a release and its site to a new folder, ready for any web server.

    Raises
    ------
    WorkspaceError
        The folder is there already and not empty.
    """
    from cmass.publish.release import files_of

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WorkspaceError(f"{out} is there already: name a new folder, or remove that one")
    for file in files_of(release):
        place = out / file.relative_to(release)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, place)
    shutil.copytree(release / SITE, out / SITE)
    # For servers that know no other way to lead from the folder to its first page.
    (out / "index.html").write_text(
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>cmass</title>\n'
        f'<meta http-equiv="refresh" content="0; url={SITE}/index.html">\n'
        f'<p><a href="{SITE}/index.html">The catalogue</a></p>\n</html>\n',
        encoding="utf-8",
    )


def _made_of(release: Path, console: Path | None) -> dict[str, Any]:
    """What the content of a site follows from."""
    from cmass.publish.release import SUMS as RELEASE_SUMS
    from cmass.publish.site import browser

    # What pages say comes from these; templates, scripts and styles are no Python.
    sources = source_digest("publish", "columns.py", "figures/style.py", "posterior.py")
    code = hashlib.sha256(sources.encode())
    for file in sorted(p for p in _HERE.parent.rglob("*") if p.is_file()):
        if file.suffix not in (".py", ".pyc"):
            code.update(file.name.encode() + file.read_bytes())
    engine = None if console is None else {p.name: p.version for p in browser.PACKAGES}
    return {
        "release": release.name, "release_sums_sha256": file_digest(release / RELEASE_SUMS),
        "code_sha256": code.hexdigest(), "console": engine,
    }  # fmt: skip


def _write(folder: Path, release: Path, console: Path | None) -> None:
    from cmass.publish.site import browser
    from cmass.publish.site.content import read_release
    from cmass.publish.site.pages import pages, stylesheet

    (folder / "clusters").mkdir()
    for path, text in pages(read_release(release), console=console is not None):
        (folder / path).write_text(text, encoding="utf-8")
    assets = folder / "assets"
    shutil.copytree(_HERE / "assets", assets)
    (assets / "site.css").write_text(stylesheet(), encoding="utf-8")
    if console is not None:
        (assets / "duckdb").mkdir()
        for file in browser.files(console):
            _link(file, assets / "duckdb" / file.name)


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the two lie on different disks."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _write_sums(folder: Path) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    lines = [f"{file_digest(p)}  {p.relative_to(folder).as_posix()}\n" for p in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
