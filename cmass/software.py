"""The software that makes the products: versions of packages, commit of the clone."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cmass

#: Packages that shape the products.
PACKAGES = (
    "numpy", "scipy", "pyarrow", "duckdb", "tensorflow-cpu", "jax", "keras", "astropy", "colossus",
    "numba", "matplotlib", "mlflow", "dvc", "great-expectations",
)  # fmt: skip
#: What decides the products; anything else in a clone may change without making it dirty.
_CODE = ("cmass", "params.yaml", "constraints.txt", "pyproject.toml")


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
