"""Tutorials as notebooks: run once for tests and documentation site alike."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "tutorials"
#: Notebooks that have run, by what was run.
_KEPT = ROOT / "build" / "tutorials"
#: Longest time of one cell, and of the kernel's start on a busy machine, s.
_CELL_S, _START_S = 600, 300


def _digest(text: str) -> str:
    """Of the text, and of all code and data of the package that it may use."""
    total = hashlib.sha256(text.encode())
    for file in sorted((ROOT / "cmass").rglob("*")):
        if file.is_file() and file.suffix != ".pyc":
            total.update(file.read_bytes())
    return total.hexdigest()


def executed(text: str) -> Any:
    """A notebook (nbformat) with its outputs, of Python with ``# %%`` between cells.

    It runs in a folder of its own. One that has run with the same code is not run again.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        A cell raises.
    """
    import jupytext
    import nbformat
    from nbclient import NotebookClient

    kept = _KEPT / f"{_digest(text)}.ipynb"
    if kept.exists():
        return nbformat.read(kept, as_version=4)
    notebook = jupytext.reads(text, fmt="py:percent")
    with tempfile.TemporaryDirectory(prefix="cmass-tutorial-") as folder:
        where = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout=_CELL_S, kernel_name="python3", resources=where)
        client.startup_timeout = _START_S
        client.execute()
    kept.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, kept)
    return notebook
