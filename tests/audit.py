"""Are the pinned versions known to be faulty, and may they be given on? ``python -m tests.audit``.

Without ``--online`` the list of advisories that comes along (``.ci/advisories.toml``) is asked, which is
as old as its last commit. With it, pip-audit asks its database about every line of constraints.txt.
``--licences`` writes docs/licences.md.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LICENCES = ROOT / "docs" / "licences.md"
#: Words of licences under which a package may be used and given on beside BSD-3-Clause.
ALLOWED = (
    "MIT", "BSD", "Apache", "ISC", "PSF", "Python Software Foundation", "Zlib", "ZPL", "Unlicense",
    "HPND", "0BSD", "CC0", "MPL", "Mozilla Public License", "LGPL", "Lesser General Public License",
    "Public Domain", "EPL", "WTFPL", "CNRI", "Historical Permission", "Artistic",
)  # fmt: skip
_ALLOWED = re.compile(rf"\b(?:{'|'.join(ALLOWED)})", re.IGNORECASE)
#: The GPL itself asks that what uses the package is under it, unless another licence may be chosen.
_GPL = re.compile(r"(?<!L)(?<!Lesser )\bA?(?:GPL|General Public License)", re.IGNORECASE)
#: Licences that are told in words, or not at all, by the package's own metadata.
KNOWN = {
    "grandalf": "GPL-2.0-only OR EPL-1.0",
    "huey": "MIT",
    "namex": "Apache-2.0",
    "skops": "MIT",
    "text-unidecode": "Artistic-1.0 OR GPL-1.0-or-later",
    "zc-lockfile": "ZPL-2.1",
}
#: Used, and under a licence outside the list: why that is possible.
EXCEPTIONS = {
    "pygit2": "GPL-2.0-only with an exception for whatever links to it; used by DVC, not by cmass",
}
#: What `pip install cmass` brings, and with what drives it.
RUNTIME = ("cmass", "cmass[orchestration]", "cmass[rivals]", "cmass[dask]")


def pinned() -> dict[str, str]:
    """Version by package of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = (re.match(r"([\w.-]+)==([^\s;]+)", line) for line in lines)
    return {canonicalize_name(m[1]): m[2] for m in found if m}


def known_faults(versions: dict[str, str]) -> tuple[list[str], list[str]]:
    """Advisories that hold for these versions: those to mend, and those that are accepted."""
    text = (ROOT / ".ci" / "advisories.toml").read_text(encoding="utf-8")
    faults, accepted = [], []
    for one in tomllib.loads(text)["advisory"]:
        version = versions.get(canonicalize_name(one["package"]))
        if version is None or version not in SpecifierSet(one["affected"], prereleases=True):
            continue
        words = f"{one['package']} {version}: {one['id']}, {one['words']}"
        if "verdict" in one:
            accepted.append(f"{words} ({one['verdict']})")
        else:
            faults.append(words)
    return faults, accepted


def runtime_packages() -> list[str]:
    """Every package that `RUNTIME` needs here, by canonical name."""
    todo = [Requirement(text) for text in RUNTIME]
    seen: set[tuple[str, str]] = set()
    while todo:
        one = todo.pop()
        for extra in ("", *sorted(one.extras)):
            key = (canonicalize_name(one.name), extra)
            if key in seen:
                continue
            try:
                needs = requires(one.name) or []
            except PackageNotFoundError:
                continue
            seen.add(key)
            environment = {**default_environment(), "extra": extra}
            for text in needs:
                need = Requirement(text)
                if need.marker is None or need.marker.evaluate(environment):
                    todo.append(need)
    return sorted({name for name, _ in seen} - {"cmass"})


def licence(name: str) -> str:
    """Licence of a package as its metadata tells it, in one line."""
    if name in KNOWN:
        return KNOWN[name]
    about = distribution(name).metadata
    words = about.get("License-Expression") or ""
    if not words:
        classes = [
            c.rpartition(" :: ")[2]
            for c in about.get_all("Classifier") or []
            if c.startswith("License ::")
        ]
        words = ", ".join(c for c in classes if c != "OSI Approved")
    first = (about.get("License") or "").strip().split("\n")[0]
    return words or first[:60] or "not told"


def outside(licences: dict[str, str]) -> list[str]:
    """Packages under a licence that is not allowed."""
    return sorted(
        name for name, words in licences.items()
        if name not in EXCEPTIONS
        and (not _ALLOWED.search(words) or (_GPL.search(words) and " OR " not in words))
    )  # fmt: skip


def licences_table(licences: dict[str, str]) -> str:
    """docs/licences.md."""
    versions = pinned()
    rows = [f"| {name} | {versions.get(name, '')} | {words} |" for name, words in licences.items()]
    notes = [f"- {name}: {why}" for name, why in EXCEPTIONS.items()]
    return "\n".join([
        "# Licences", "",
        "cmass is under BSD-3-Clause. What it needs to run, with DVC, Prefect, Dask and the rivals, on Linux;",
        "made by `python -m tests.audit --licences`, held current by a test.", "",
        "| package | version | licence |", "|---|---|---|", *rows, "", *notes,
    ]).rstrip() + "\n"  # fmt: skip


def main() -> int:
    """Ask; 1 where a pinned version is known to be faulty."""
    parser = argparse.ArgumentParser(prog="python -m tests.audit", description=__doc__)
    parser.add_argument("--online", action="store_true", help="ask pip-audit's database")
    parser.add_argument("--licences", action="store_true", help="write docs/licences.md")
    options = parser.parse_args()
    if options.licences:
        table = licences_table({name: licence(name) for name in runtime_packages()})
        LICENCES.write_text(table, encoding="utf-8")
    if options.online:
        command = [
            sys.executable,
            "-m",
            "pip_audit",
            "--no-deps",
            "--disable-pip",
            "-r",
            "constraints.txt",
        ]
        done = subprocess.run(command, cwd=ROOT, check=False)
        sys.stdout.write(f"audit: pip-audit asked its database, exit code {done.returncode}\n")
        return done.returncode
    faults, accepted = known_faults(pinned())
    for words in faults:
        sys.stdout.write(f"FAULTY  {words}\n")
    for words in accepted:
        sys.stdout.write(f"accepted  {words}\n")
    sys.stdout.write(
        "audit: the list of .ci/advisories.toml was asked, no database; `make audit ONLINE=1` asks one\n"
    )
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
