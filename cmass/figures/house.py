"""What a figure is: the tables it is drawn from, its drawing, its words and its numbers.

A figure is one `Entry` in the tuple ``FIGURES`` of a module of this package. Step `figures`
and the report treat all entries alike: they read the sources, make the tables behind the
figure, draw them, and say which sources are missing and which command makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cmass.params import Params
from cmass.rivals import tables_folder
from cmass.tables import read_table
from cmass.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Tables by the name of their file.
Tables = Mapping[str, pa.Table]

PAPER = "Kodi Ramanah+2020"


@dataclass(frozen=True)
class Source:
    """A product that figures are drawn from.

    Attributes
    ----------
    schema : str
        Its table in the column dictionary.
    path : callable
        From the workspace to its file or folder.
    command : str
        What makes it.
    current : callable, optional
        From workspace and parameters: whether the file that is there belongs to them, where no
        stamp of a step says so.
    """

    schema: str
    path: Callable[[Workspace], Path]
    command: str
    current: Callable[[Workspace, Params], bool] | None = None


def _evaluated(name: str, workspace: Workspace) -> Path:
    return workspace.evaluation / f"{name}.parquet"


#: Products of the steps by name; the name is that of the file that holds a copy of it.
SOURCES: dict[str, Source] = {
    "mock_clusters": Source("mock_clusters", lambda w: w.mock / "clusters", "cmass mock"),
    "mock_galaxies": Source("mock_galaxies", lambda w: w.mock / "galaxies", "cmass mock"),
    "split": Source("split", lambda w: w.split / "split.parquet", "cmass split"),
    "history": Source(
        "training_history", lambda w: w.model / "history.parquet", "cmass train"
    ),
    "joint": Source("joint", lambda w: w.posterior / "joint.parquet", "cmass posterior"),
    "test_predictions": Source(
        "predictions", lambda w: w.posterior / "predictions.parquet", "cmass posterior"
    ),
    "posterior_grid": Source(
        "posterior_grid", lambda w: w.posterior / "posterior_grid.parquet", "cmass posterior"
    ),
    "predictions": Source(
        "predictions", lambda w: w.evaluation / "predictions.parquet", "cmass evaluate"
    ),
    "calibration": Source(
        "calibration", lambda w: w.evaluation / "calibration.parquet", "cmass evaluate"
    ),
    "coverage": Source(
        "coverage", lambda w: w.evaluation / "coverage.parquet", "cmass evaluate"
    ),
    **{
        name: Source(name, partial(_evaluated, name), "cmass evaluate")
        for name in ("calibration_curves", "calibration_bins", "calibration_histograms",
                     "calibration_scores")
    },
    "rival_predictions": Source(
        "rival_predictions", lambda w: w.rivals / "predictions.parquet", "cmass rivals"
    ),
    "rival_scores": Source(
        "rival_scores", lambda w: tables_folder(w) / "scores.parquet", "cmass rivals"
    ),
    "rival_costs": Source(
        "rival_costs", lambda w: tables_folder(w) / "costs.parquet", "cmass rivals"
    ),
    "footprint": Source("raw_footprint", lambda w: w.raw / "footprint.parquet", "cmass ingest"),
    "clusters": Source("clusters", lambda w: w.selected / "clusters.parquet", "cmass select"),
    "rejected": Source(
        "rejected_clusters", lambda w: w.selected / "rejected.parquet", "cmass select"
    ),
    "masses": Source("masses", lambda w: w.masses / "masses.parquet", "cmass infer"),
    "comparison": Source("calibration", lambda w: w.masses / "comparison.parquet", "cmass infer"),
    "mass_function": Source(
        "mass_function", lambda w: w.masses / "mass_function.parquet", "cmass infer"
    ),
    "offsets": Source("offsets", lambda w: w.masses / "offsets.parquet", "cmass infer"),
    "oddity_rates": Source("oddity_rates", lambda w: w.oddity / "rates.parquet", "cmass oddity"),
    "xray_matches": Source(
        "xray_matches", lambda w: w.masses / "xray_matches.parquet", "cmass infer"
    ),
    "realism": Source("realism", lambda w: w.realism / "realism.parquet", "cmass realism"),
}  # fmt: skip


def source(name: str) -> Source:
    """The source called `name`: a product of a step, or a table of a study."""
    from cmass.figures.beyond import sources

    return SOURCES[name] if name in SOURCES else sources()[name]


@dataclass(frozen=True)
class Number:
    """A number of ours with the published one beside it.

    Attributes
    ----------
    words : str
        What it is.
    value, error : float or None
        Ours.
    paper : float or None
        The published one.
    unit : str
    source : str
        Where the published one stands.
    """

    words: str
    value: float | None
    error: float | None = None
    paper: float | None = None
    unit: str = ""
    source: str = PAPER


class Inputs:
    """Sources of one workspace, read when asked for and kept."""

    def __init__(self, workspace: Workspace, params: Params) -> None:
        self.workspace, self.params = workspace, params
        self._read: dict[str, pa.Table] = {}

    def path(self, name: str) -> Path:
        """File or folder of a source."""
        return source(name).path(self.workspace)

    def __getitem__(self, name: str) -> pa.Table:
        if name not in self._read:
            self._read[name] = read_table(self.path(name), source(name).schema)
        return self._read[name]

    def lacking(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that are not there, or not of this workspace's products and parameters."""
        return [name for name in names if not (self.path(name).exists() and self._current(name))]

    def _current(self, name: str) -> bool:
        current = source(name).current
        return current is None or current(self.workspace, self.params)


def _no_numbers(tables: Tables, params: Params) -> list[Number]:
    return []


@dataclass(frozen=True)
class Entry:
    """One figure.

    Attributes
    ----------
    name : str
        Name of its files.
    title : str
    section : str
        A key of `cmass.figures.SECTIONS`.
    sources : tuple of str
        Names of `SOURCES` without which it cannot be made.
    draw : callable
        From the tables behind it and the parameters to a Matplotlib figure.
    caption : str or callable
        What is shown; a callable gets tables and parameters.
    paper : str
        Its number in the paper, as ``Fig. 5``; empty for none.
    tables : callable, optional
        From `Inputs` to the tables behind it, by file name; by default its sources as they
        are.
    numbers : callable
        Numbers of ours with those of the paper, from tables and parameters.
    wide : bool
        Takes the whole width of a page.
    surveys : tuple of str
        Surveys that it can be made for; empty for all.
    """

    name: str
    title: str
    section: str
    sources: tuple[str, ...]
    draw: Callable[[Tables, Params], Figure]
    caption: str | Callable[[Tables, Params], str]
    paper: str = ""
    tables: Callable[[Inputs], dict[str, pa.Table]] | None = None
    numbers: Callable[[Tables, Params], list[Number]] = _no_numbers
    wide: bool = False
    surveys: tuple[str, ...] = ()

    def behind(self, inputs: Inputs) -> dict[str, pa.Table]:
        """The tables behind the figure, by file name."""
        if self.tables is not None:
            return self.tables(inputs)
        return {name: inputs[name] for name in self.sources}

    def words(self, tables: Tables, params: Params) -> str:
        """The caption."""
        return self.caption(tables, params) if callable(self.caption) else self.caption


def schema_of(table: pa.Table) -> str:
    """The column dictionary's name of a table, as its metadata have it."""
    return (table.schema.metadata or {})[b"table"].decode()


def rows(
    name: str, *metrics: str, bin: str | None = "all", source: str = PAPER
) -> Callable[[Tables, Params], list[Number]]:
    """Numbers of a figure that are rows of a table `calibration`.

    Parameters
    ----------
    name : str
        Name of the table among those behind the figure.
    *metrics : str
    bin : str or None
        None for the name of the survey.
    source : str
        Where the published numbers stand.
    """

    def numbers(tables: Tables, params: Params) -> list[Number]:
        return [
            one for metric in metrics
            if (one := row(tables[name], metric, bin or params.survey, source)) is not None
        ]  # fmt: skip

    return numbers


def row(table: pa.Table, metric: str, bin: str, source: str = PAPER) -> Number | None:
    """One row of a table `calibration` in words; None if it is not there or has no value."""
    from cmass.publish.summary import calibration_value, metric_words

    found: dict[str, Any] = calibration_value(table, metric, bin)
    if found["value"] is None:
        return None
    return Number(metric_words(metric, bin), found["value"], found["error"], found["paper_value"],
                  found["unit"], source)  # fmt: skip
