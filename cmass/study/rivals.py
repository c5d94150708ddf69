"""study rivals: every estimator with several seeds, as one table.

Units of seeds that the step `rivals` has made are taken from there; the others lie below
``study/rivals/``. Mocks and splits are the run's own for every seed, which is that of first weights
and batches: what it moves is what chance in training moves.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cmass.errors import ParameterError
from cmass.estimators import estimators
from cmass.params import Params
from cmass.pipeline import workspace_lock
from cmass.rivals import identities, make_units, members_of_mocks
from cmass.rivals.scores import REFERENCE, costs_table, scores_table
from cmass.rivals.units import Unit, plan
from cmass.study import Result
from cmass.tables import make_table, write_json, write_table
from cmass.workspace import Workspace

log = logging.getLogger(__name__)

#: Numbers of what an estimator costs, with their units, beside the scores.
_COSTS = {"training_seconds": "s", "seconds_per_1000": "s", "n_parameters": ""}
#: Columns of the Markdown table: metric, heading, digits.
_SHOWN = (
    ("epsilon_mean", "mean of ε", 3), ("epsilon_scatter", "scatter", 3),
    ("scatter_ratio", "÷ σ–M", 3), ("epsilon_scatter_massive", "above 10^{massive}", 3),
    ("sigma_n", "σ_N", 3), ("sigma_0", "σ_0", 3), ("coverage_error", "coverage error", 3),
    ("crps", "CRPS", 4), ("log_score", "log score", 3), ("n_without", "without", 0),
    ("seconds_per_1000", "s per 1000", 2), ("training_seconds", "training, s", 0),
    ("n_parameters", "parameters", 0),
)  # fmt: skip


def study_seeds(params: Params, seeds: Sequence[int] = ()) -> tuple[int, ...]:
    """Seeds of the study, from 1; by default 1, 2 and 3.

    Raises
    ------
    ParameterError
        A seed is below 1.
    """
    chosen = tuple(dict.fromkeys(seeds)) or (1, 2, 3)
    if min(chosen) < 1:
        raise ParameterError("--seed: seeds of the rivals are counted from 1, the run's own")
    return chosen


def study_units(
    workspace: Workspace, params: Params, seeds: Sequence[int] = (), names: Sequence[str] = ()
) -> list[Unit]:
    """Units of the study: by default seeds 1, 2 and 3 of every estimator there is."""
    return plan(workspace, params, study_seeds(params, seeds), names or sorted(estimators()))


def run(
    workspace: Workspace, params: Params, *, seeds: Sequence[int] = (), names: Sequence[str] = ()
) -> Result:
    """Fit rivals with every seed and lay them side by side; by default every one there is.

    Writes ``study/rivals/rivals.parquet`` (table `rival_study`), ``rivals.md``, and the scores of
    every seed, ``scores.parquet`` and ``costs.parquet``.
    """
    units = study_units(workspace, params, seeds, names)
    with workspace_lock(workspace):
        not_fitted = make_units(units, workspace)
        scores = scores_table(units, not_fitted, members_of_mocks(workspace), params)
        costs = costs_table(units, not_fitted)
        table = study_table(scores, costs)
        titles = {unit.name: unit.kind.title for unit in units}
        words = markdown(table, titles, not_fitted, params.rivals.massive_log10_m200c)
        folder = workspace.study / "rivals"
        made_of = folder / "made_of.json"
        made_of.unlink(missing_ok=True)  # it goes with the tables
        write_table(folder / "scores.parquet", scores, "rival_scores")
        write_table(folder / "costs.parquet", costs, "rival_costs")
        write_table(folder / "rivals.parquet", table, "rival_study")
        (folder / "rivals.md").write_text(words + "\n", encoding="utf-8")
        write_json(made_of, identities(workspace))
    log.info("study: %s", folder / "rivals.parquet")
    return Result(table, words)


def to_do(units: Sequence[Unit]) -> list[Unit]:
    """Units that are not made yet and can be."""
    return [u for u in units if not u.is_made() and not u.lacks()]


def study_table(scores: pa.Table, costs: pa.Table) -> pa.Table:
    """Table `rival_study`: means over seeds.

    Parameters
    ----------
    scores, costs : pyarrow.Table
        Tables `rival_scores` and `rival_costs` of all seeds.

    Returns
    -------
    pyarrow.Table
        `seed_error` is the standard error of the mean over seeds, `error` the bootstrap over the
        evaluation haloes, which all seeds share and no number of seeds makes smaller.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in scores.to_pylist():
        found.setdefault((row["estimator"], row["metric"]), []).append(row)
    for row in costs.to_pylist():
        for metric, unit in _COSTS.items() if row["fitted"] else ():
            cost = {"value": row[metric], "error": None, "unit": unit}
            found.setdefault((row["estimator"], metric), []).append(cost)
    columns: dict[str, list[Any]] = {
        n: [] for n in ("estimator", "metric", "n_seeds", "value", "seed_error", "error", "unit")
    }
    for (estimator, metric), rows in found.items():
        values = np.array([r["value"] for r in rows if r["value"] is not None], float)
        errors = np.array([r["error"] for r in rows if r["error"] is not None], float)
        several = values.size > 1
        cells = {
            "estimator": estimator, "metric": metric, "n_seeds": values.size,
            "value": float(values.mean()) if values.size else None,
            "seed_error": float(values.std(ddof=1) / np.sqrt(values.size)) if several else None,
            "error": float(errors.mean()) if errors.size else None, "unit": rows[0]["unit"],
        }  # fmt: skip
        for name, value in cells.items():
            columns[name].append(value)
    return make_table("rival_study", columns)


def markdown(
    table: pa.Table, titles: Mapping[str, str], not_fitted: Mapping[str, str], massive: float
) -> str:
    """Table `rival_study` as Markdown: one line an estimator, the smallest scatter first.

    Parameters
    ----------
    table : pyarrow.Table
    titles : mapping of str to str
        Title by estimator.
    not_fitted : mapping of str to str
        Why an estimator could not be fitted.
    massive : float
        log10 M200c above which the scatter is given as well.
    """
    rows = {(r["estimator"], r["metric"]): r for r in table.to_pylist()}
    names = list(dict.fromkeys(table["estimator"].to_pylist()))
    fitted = [n for n in names if n not in not_fitted]
    # Those without a scatter, for want of any mass, come last.
    known = {n: rows[n, "epsilon_scatter"]["value"] for n in fitted}
    fitted.sort(key=lambda n: (known[n] is None, known[n] or 0.0))
    headings = [heading.format(massive=massive) for _, heading, _ in _SHOWN]
    lines = [_line(["estimator", *headings]), "|" + "---|" * (len(headings) + 1)]
    for name in fitted:
        cells = [_cell(rows.get((name, metric)), digits) for metric, _, digits in _SHOWN]
        lines.append(_line([titles[name], *cells]))
    seeds = max((r["n_seeds"] for r in rows.values()), default=0)
    lines += [
        "",
        f"Mean over {seeds} seed{'s' if seeds != 1 else ''}; ± the error that the choice of "
        "evaluation haloes leaves, in brackets the standard error of the mean over seeds. "
        f"÷ σ–M: on the windows that both have a mass for. `{REFERENCE}` is σ–M.",
    ]
    by_chance = [r["value"] for r in rows.values() if r["metric"] == "coverage_error_chance"]
    if by_chance:
        lines[-1] += (
            " By chance alone 95 % of perfect posteriors, correlated inside haloes as these are, have "
            f"a coverage error below {max(by_chance):.3f}."
        )
    lines += [f"Not fitted: {titles[n]} ({why})." for n, why in not_fitted.items()]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(row: Mapping[str, Any] | None, digits: int) -> str:
    """Value ± error (error over seeds), as far as they are known."""
    if row is None or row["value"] is None:
        return "–"
    text = f"{row['value']:.{digits}f}".replace("-", "−")
    if row["error"] is not None:
        text += f" ± {row['error']:.{digits}f}"
    if row["seed_error"]:
        text += f" ({row['seed_error']:.{digits}f})"
    return text
