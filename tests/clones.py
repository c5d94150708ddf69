"""Clones of this working tree, for tests that run commands as a user would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def fresh_clone(folder: Path) -> Path:
    """Copy what git knows of this tree to `folder`, with a ``cmass`` command for its code."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs the git repository")
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in names:
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    run(folder, "git", "init", "--quiet")
    command = folder / ".bin" / "cmass"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m cmass.cli "$@"\n')
    command.chmod(0o755)
    return folder


def run(folder: Path, *command: str, code: int = 0, **environment: str) -> str:
    """Output of a command in `folder`, with its ``cmass``; it must end with `code`."""
    path = f"{folder}/.bin{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(folder)} | environment,
    )  # fmt: skip
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr
