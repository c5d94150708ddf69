"""figures: every figure of the paper and of the proof, as PDF, PNG and the tables behind them.

Each figure is an `Entry` of a module of this package. Step `figures` writes them all; the
report draws the same entries as SVG from the same tables. A figure whose sources are not there
is left out, and ``figures.json`` says what it lacks and which command makes that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmass.params import Params
from cmass.tables import file_digest, read_json, read_table, write_json, write_table
from cmass.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from cmass.figures.house import Entry, Inputs

log = logging.getLogger(__name__)

#: Sections of the report: titles by the name that entries use, in order.
SECTIONS = {
    "catalogue": "The catalogue",
    "proof": "The proof: the paper's figures",
    "calibration": "Calibration",
    "rivals": "Rivals on the same mocks",
    "realism": "Mocks beside the sky",
    "beyond": "Beyond the paper",
    "external": "External truth",
    "quality": "Training and data quality",
}
#: Order of the paper's figures.
_PAPER_ORDER = ("Fig. 1", "Fig. 2", "Fig. 4", "Fig. 5", "Fig. 6", "Fig. 7", "Fig. 8", "Fig. 9",
                "Fig. 10", "Fig. A1")  # fmt: skip
INDEX = "figures.json"


@cache
def entries(survey: str | None = None) -> tuple[Entry, ...]:
    """All figures (of a survey), in the order of the report."""
    from cmass.figures import (
        beyond,
        calibration,
        conditions,
        external,
        mocks,
        oddity,
        posteriors,
        realism,
        rivals,
    )
    from cmass.figures import survey as masses

    themes = (
        mocks, posteriors, calibration, conditions, rivals, masses, realism, oddity, beyond, external,
    )  # fmt: skip
    found = [e for theme in themes for e in theme.FIGURES if _is_for(e, survey)]
    sections = list(SECTIONS)

    def place(entry: Entry) -> tuple[int, int]:
        number = _PAPER_ORDER.index(entry.paper) if entry.paper else len(_PAPER_ORDER)
        return sections.index(entry.section), number

    return tuple(sorted(found, key=place))


def _is_for(entry: Entry, survey: str | None) -> bool:
    return survey is None or not entry.surveys or survey in entry.surveys


def run(workspace: Workspace, params: Params) -> None:
    """Make every figure whose sources are there: PDF, PNG, tables and `figures.json`.

    Each table behind a figure is written once, under its name, also where several figures use
    it. Files that no figure has any more are removed.
    """
    from cmass.figures.house import Inputs

    inputs, folder = Inputs(workspace, params), workspace.figures
    made: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = []
    for entry in entries(workspace.survey):
        lacks = _lacks(entry, inputs)
        if lacks:
            missing.append({"name": entry.name, "title": entry.title, "paper": entry.paper,
                            "section": entry.section, "lacks": lacks})  # fmt: skip
            continue
        made.append(_make(entry, inputs, folder))
    kept = {name for one in made for name in one["sha256"]} | {INDEX}
    write_json(
        folder / INDEX,
        {"profile": workspace.profile, "survey": workspace.survey, "figures": made,
         "missing": missing},
    )  # fmt: skip
    for file in folder.iterdir():
        if file.is_file() and not file.name.startswith(".") and file.name not in kept:
            file.unlink()
    log.info("figures: %d in %s", len(made), folder)
    for words in missing_words(workspace):
        log.info("figures: %s", words)


def _lacks(entry: Entry, inputs: Inputs) -> list[dict[str, str]]:
    root = inputs.workspace.root
    return [
        {"file": inputs.path(name).relative_to(root).as_posix(), "command": _maker(name, inputs)}
        for name in inputs.lacking(entry.sources)
    ]


def _maker(name: str, inputs: Inputs) -> str:
    """The command that makes a source, in the view of the workspace that is drawn."""
    from cmass.figures.house import source

    workspace, path = inputs.workspace, inputs.path(name)
    if workspace.view == "trial" and workspace.trial in path.parents:
        return "cmass trial"
    if workspace.view == "champion" and workspace.champion in path.parents:
        return "cmass champion"
    return source(name).command


def _make(entry: Entry, inputs: Inputs, folder: Path) -> dict[str, Any]:
    """Write one figure; returns what the index says of it."""
    from cmass.figures.house import schema_of
    from cmass.figures.style import save

    params = inputs.params
    behind = entry.behind(inputs)
    tables: dict[str, str] = {}
    for name, table in behind.items():
        tables[f"{name}.parquet"] = schema_of(table)
        write_table(folder / f"{name}.parquet", table, schema_of(table))
    files = save(entry.draw(behind, params), folder, entry.name)
    names = [*(file.name for file in files), *tables]
    return {
        "name": entry.name, "title": entry.title, "paper": entry.paper, "section": entry.section,
        "caption": entry.words(behind, params),
        "numbers": [asdict(number) for number in entry.numbers(behind, params)],
        "files": [file.name for file in files], "tables": tables,
        "sha256": {name: file_digest(folder / name) for name in names},
    }  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """A figure that step `figures` made, ready to be drawn again."""

    entry: Entry
    caption: str
    numbers: list[dict[str, Any]]
    tables: dict[str, pa.Table]


def index(workspace: Workspace) -> dict[str, Any]:
    """What step `figures` made and what it could not make; empty lists before it ran."""
    file = workspace.figures / INDEX
    return read_json(file) if file.exists() else {"figures": [], "missing": []}


def drawn(workspace: Workspace) -> Iterator[Drawn]:
    """Figures of the index with the tables behind them, in order."""
    known = {entry.name: entry for entry in entries()}
    for one in index(workspace)["figures"]:
        tables = {
            Path(file).stem: read_table(workspace.figures / file, schema)
            for file, schema in one["tables"].items()
        }
        yield Drawn(known[one["name"]], one["caption"], one["numbers"], tables)


def tables(workspace: Workspace) -> dict[str, pa.Table]:
    """All tables behind the figures, by name."""
    return {name: table for one in drawn(workspace) for name, table in one.tables.items()}


def missing_words(workspace: Workspace, section: str | None = None) -> list[str]:
    """One line a command: which figures (of a section) wait for it, and for which files."""
    wanted: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for one in index(workspace)["missing"]:
        if section not in (None, one["section"]):
            continue
        for lack in one["lacks"]:
            titles, files = wanted.setdefault(lack["command"], ({}, {}))
            title = f"{one['paper']} ({one['title']})" if one["paper"] else f"“{one['title']}”"
            titles[title] = None
            files[lack["file"]] = None
    return [
        f"{', '.join(titles)} {'lacks' if len(titles) == 1 else 'lack'} {', '.join(files)}, which "
        f"`{command}` makes"
        for command, (titles, files) in wanted.items()
    ]
