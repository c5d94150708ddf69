"""The few numbers that say how a run went: for the terminal, the Prefect artifact and DVC."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from cmass.workspace import Workspace

#: Numbers of table `calibration` that make the headline, in order, and what they are.
HEADLINES = {
    "epsilon_mean": "mocks: mean of log10(M_true/M_pred)",
    "epsilon_scatter": "mocks: scatter of log10(M_true/M_pred)",
    "dispersion_epsilon_scatter": "mocks: the same by the velocity dispersion",
    "coverage_68": "mocks: truth inside the 68 % interval",
    "coverage_95": "mocks: truth inside the 95 % interval",
    "n_clusters": "survey: clusters in the catalogue",
    "n_without_posterior": "survey: clusters without a posterior",
    "galweight_offset_median": "survey: median of log10(M_pred/M_GalWeight)",
    "galweight_scatter": "survey: scatter of log10(M_pred/M_GalWeight)",
    "pull_mean": "survey: mean pull against GalWeight",
    "pull_std": "survey: standard deviation of that pull",
    "truth_offset_median": "survey: median of log10(M_pred/M_true), embedded truth",
    "truth_scatter": "survey: scatter of log10(M_pred/M_true), embedded truth",
}
_OF_SURVEY = ("n_clusters", "n_without_posterior")


@dataclass(frozen=True)
class Headline:
    """One number with its error and the paper's value, None where there is none."""

    metric: str
    words: str
    value: float | None
    error: float | None
    paper_value: float | None
    unit: str

    def cells(self) -> tuple[str, str, str, str]:
        """Words, value with unit, error and the paper's value as text."""
        value = _text(self.value, count=self.metric.startswith("n_"))
        return (
            self.words,
            f"{value} {self.unit}" if value and self.unit else value,
            _text(self.error),
            _text(self.paper_value),
        )


def _text(value: float | None, count: bool = False) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if count else f"{value:.3f}"


def headline_numbers(workspace: Workspace) -> list[Headline]:
    """Headline numbers of the latest evaluation and masses, in the order of `HEADLINES`.

    Raises
    ------
    WorkspaceError
        The steps evaluate and infer have not run.
    """
    from cmass.tables import read_table

    of_mocks = read_table(workspace.evaluation / "calibration.parquet", "calibration")
    of_survey = read_table(workspace.masses / "comparison.parquet", "calibration")
    rows = {r["metric"]: r for r in of_mocks.to_pylist()
            if r["bin"] == "all" and r["metric"] not in _OF_SURVEY}  # fmt: skip
    rows |= {r["metric"]: r for r in of_survey.to_pylist()
             if r["bin"] in ("all", workspace.survey)}  # fmt: skip
    return [
        Headline(name, words, *(rows[name][k] for k in ("value", "error", "paper_value", "unit")))
        for name, words in HEADLINES.items()
        if name in rows
    ]


def markdown(workspace: Workspace) -> str:
    """Headline numbers as a Markdown table, with the version of the release."""
    from cmass.tables import read_json

    version = read_json(workspace.receipt)["version"]
    lines = [
        f"## cmass {workspace.profile}/{workspace.survey}: release {version}",
        "",
        "| number | value | error | paper |",
        "|---|---|---|---|",
    ]
    lines += ["| " + " | ".join(h.cells()) + " |" for h in headline_numbers(workspace)]
    release = (workspace.releases / version).resolve()
    return "\n".join([*lines, "", f"Release folder: `{release}`"]) + "\n"


def write_metrics(path: Path, table: pa.Table) -> None:
    """Write the numbers of a `calibration` table as the JSON that ``dvc metrics`` reads."""
    from cmass.tables import write_json

    values: dict[str, dict[str, float]] = {}
    for row in table.to_pylist():
        if row["value"] is not None:
            values.setdefault(row["bin"], {})[row["metric"]] = row["value"]
    write_json(path, values)
