"""What a model is worth: the measures that the gates look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cmass.tables import read_json, read_table
from cmass.workspace import Workspace

#: Measures of a model, in the order in which they are told, and what each is.
MEASURES = {
    "scatter_dex": "scatter of log10(M_true/M_pred) on the mocks, dex",
    "bias_max_dex": "largest mean of log10(M_true/M_pred) in a bin of true mass, either sign, dex",
    "coverage_error_max": "largest error of a credible interval's coverage on the mocks",
    "crps_dex": "continuous ranked probability score of the posteriors on the mocks, dex",
    "pull_mean_beyond": "mean pull against the survey's own masses less what mocks predict",
    "pull_std_beyond": "standard deviation of that pull less what mocks predict",
    "realism": "rms deviation of mocks from the survey, in allowed differences",
}


@dataclass(frozen=True)
class Measure:
    """A number with its standard error, 0 where none is known, and where it was taken."""

    value: float
    error: float = 0.0
    where: str = ""


Scores = Mapping[str, Measure]


def scores_of(workspace: Workspace) -> dict[str, Measure]:
    """Measures of the model in a view of a workspace, by their name in `MEASURES`.

    Those that could not be taken, as pulls of a survey without masses of its own, are left out.
    """
    found = _of_mocks(workspace) | _of_survey(workspace)
    realism = read_json(workspace.realism / "metrics.json")
    # Even clusters calibrated the simulator; odd ones were not looked at.
    for half in ("odd", "even"):
        if "total_deviation" in realism.get(half, {}):
            found["realism"] = Measure(realism[half]["total_deviation"], where=f"{half} clusters")
            break
    return {name: found[name] for name in MEASURES if name in found}


def _of_mocks(workspace: Workspace) -> dict[str, Measure]:
    rows = read_table(workspace.evaluation / "calibration.parquet", "calibration").to_pylist()
    overall = {r["metric"]: _measure(r) for r in rows if r["bin"] == "all"}
    found = {
        name: overall[metric]
        for name, metric in (
            ("scatter_dex", "epsilon_scatter"), ("coverage_error_max", "coverage_error_max"),
            ("crps_dex", "crps"),
        )
        if overall.get(metric) is not None
    }  # fmt: skip
    biases = [
        Measure(abs(r["value"]), r["error"] or 0.0, f"log10 M {r['bin']}") for r in rows
        if r["metric"] == "epsilon_mean" and r["bin"] != "all" and r["value"] is not None
    ]  # fmt: skip
    if biases:
        found["bias_max_dex"] = max(biases, key=lambda m: m.value)
    return {name: measure for name, measure in found.items() if measure is not None}


def _of_survey(workspace: Workspace) -> dict[str, Measure]:
    rows = read_table(workspace.masses / "comparison.parquet", "calibration").to_pylist()
    measured = {r["metric"]: _measure(r) for r in rows if r["bin"] == workspace.survey}
    found = {}
    for name, metric in (("pull_mean_beyond", "pull_mean"), ("pull_std_beyond", "pull_std")):
        pull, expected = measured.get(metric), measured.get(f"expected_{metric}")
        if pull is not None and expected is not None:
            error = (pull.error**2 + expected.error**2) ** 0.5
            found[name] = Measure(pull.value - expected.value, error, workspace.survey)
    return found


def _measure(row: Mapping[str, Any]) -> Measure | None:
    return None if row["value"] is None else Measure(row["value"], row["error"] or 0.0)


def as_metrics(scores: Scores) -> dict[str, float]:
    """Flat numbers for the registry: ``judge.<measure>`` and ``judge.<measure>_error``."""
    flat = {}
    for name, measure in scores.items():
        flat[f"judge.{name}"] = measure.value
        flat[f"judge.{name}_error"] = measure.error
    return flat


def from_tags(tags: Mapping[str, str]) -> dict[str, Measure]:
    """Measures of a version that was judged, from its tags; empty for one that was not."""
    return {
        name: Measure(float(tags[f"judge.{name}"]), float(tags.get(f"judge.{name}_error", 0)))
        for name in MEASURES
        if f"judge.{name}" in tags
    }
