"""Where a release comes from: sources, model, parameters, software, commit."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa

import cmass
from cmass.params import Params
from cmass.publish.summary import leaves
from cmass.tables import make_table, read_json
from cmass.workspace import Workspace

PACKAGES = (
    "numpy", "scipy", "pyarrow", "duckdb", "tensorflow-cpu", "keras", "astropy", "colossus",
    "numba", "matplotlib", "mlflow", "dvc", "great-expectations",
)  # fmt: skip
#: Words in names of statements that differ between two clones that made the same thing: they
#: stay in provenance.json and out of the Parquet file, which has to be the same in both.
VOLATILE = {"date", "time", "retrieved", "path", "mirror", "workers"}
#: What decides the products; anything else in a clone may change without making it dirty.
_CODE = ("cmass", "params.yaml", "constraints.txt", "pyproject.toml")


def gather(workspace: Workspace, params: Params) -> dict[str, Any]:
    """All that is known of where the products of a workspace come from.

    Returns
    -------
    dict
        ``release`` (survey, profile), ``sources`` (raw/provenance.json), ``model``
        (model/model.json), ``registry`` (model/registry.json, if the model is registered),
        ``parameters``, ``software`` (versions by package, Python, git commit and state).
    """
    registry = workspace.model / "registry.json"
    return {
        "release": {"survey": workspace.survey, "profile": workspace.profile},
        "sources": read_json(workspace.raw / "provenance.json"),
        "model": read_json(workspace.model / "model.json"),
        "registry": read_json(registry) if registry.exists() else {},
        "parameters": params.model_dump(mode="json"),
        "software": {**package_versions(), **git_state()},
    }


def as_table(facts: Mapping[str, Any]) -> pa.Table:
    """Table `provenance` of nested facts: one row a statement, the same in every clone.

    Run numbers of the model registry and statements named in `VOLATILE` are left out.
    """
    rows = [
        (item, name, text)
        for item, value in facts.items()
        if item != "registry"
        for name, text in leaves(value)
        if not _volatile(name)
    ]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    return make_table("provenance", dict(zip(("item", "property", "text"), columns, strict=True)))


def _volatile(name: str) -> bool:
    return not VOLATILE.isdisjoint(name.rsplit(".", 1)[-1].lower().split("_"))


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape the products."""
    found = {"cmass": cmass.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, str]:
    """Commit of the clone that holds the package and whether its code is as committed.

    Returns
    -------
    dict of str
        ``git_commit`` and ``git_state`` (``clean`` or ``dirty``: code, parameters or
        pinned versions differ from the commit); empty outside a clone.
    """
    git = shutil.which("git")
    folder = Path(cmass.__path__[0]).parent
    if git is None:
        return {}

    def ask(*arguments: str) -> str | None:
        done = subprocess.run(
            [git, "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "--verify", "HEAD")
    root = ask("rev-parse", "--show-toplevel")
    if commit is None or root is None:
        return {}
    changed = ask("status", "--porcelain", "--", *(str(Path(root) / name) for name in _CODE))
    return {"git_commit": commit, "git_state": "dirty" if changed else "clean"}
