"""rivals: other estimators of the mass on the same mocks, and on the survey's clusters.

Every estimator of `cmass.estimators` is fitted to the training set and judged on the evaluation
set, CNN_3D among them; the clipped velocity dispersion is what they are measured by.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cmass.columns import TABLES
from cmass.params import Params
from cmass.tables import make_table, read_json, read_table, write_table
from cmass.workspace import Workspace

if TYPE_CHECKING:
    from cmass.estimators.windows import Windows
    from cmass.rivals.units import Unit

log = logging.getLogger(__name__)


def make_units(units: Sequence[Unit], workspace: Workspace) -> dict[str, str]:
    """Make the units that are not made yet, in order.

    Returns
    -------
    dict of str to str
        Why an estimator could not be fitted, by its name; it is said, and the others go on.
    """
    from cmass.rivals.units import Material, NotFitted, make_unit

    not_fitted: dict[str, str] = {}
    material = None
    for number, unit in enumerate(units, start=1):
        if unit.is_made():
            log.info("rivals: %d of %d, %s: made before", number, len(units), unit.words)
            continue
        log.info("rivals: %d of %d, %s", number, len(units), unit.words)
        material = material or Material.read(workspace)
        try:
            make_unit(unit, material)
        except NotFitted as reason:
            not_fitted[unit.name] = str(reason)
            log.warning("rivals: %s is not fitted: %s", unit.name, reason)
    return not_fitted


def members_of_mocks(workspace: Workspace) -> dict[str, int]:
    """True members inside R200c of every mock cluster."""
    table = read_table(workspace.mock / "clusters", "mock_clusters", ["cluster_id", "n_members"])
    return dict(zip(*(table[c].to_pylist() for c in table.column_names), strict=True))


def run(workspace: Workspace, params: Params) -> None:
    """Fit and judge the rivals.

    Writes one folder an estimator and seed, and of all of them `rivals/predictions.parquet`,
    `scores.parquet` (numbers that the same run gives again) and `costs.parquet` (seconds, which
    it does not).
    """
    from cmass.rivals.scores import costs_table, scores_table
    from cmass.rivals.units import plan

    units = plan(workspace, params)
    not_fitted = make_units(units, workspace)
    folder = workspace.rivals
    folder.mkdir(parents=True, exist_ok=True)
    keep = {u.folder.name for u in units if u.name not in not_fitted}
    for old in folder.iterdir():
        if old.is_dir() and old.name not in keep:
            shutil.rmtree(old)  # of estimators or seeds that are no longer asked for
    made = [u for u in units if u.name not in not_fitted]
    predictions = pa.concat_tables([u.predictions() for u in made]).combine_chunks()
    write_table(folder / "predictions.parquet", predictions, "rival_predictions")
    scores = scores_table(units, not_fitted, members_of_mocks(workspace), params)
    write_table(folder / "scores.parquet", scores, "rival_scores")
    write_table(folder / "costs.parquet", costs_table(units, not_fitted), "rival_costs")
    found = {(r["estimator"], r["seed"], r["metric"]): r["value"] for r in scores.to_pylist()}
    for unit in made:
        value = {m: found[unit.name, unit.number, m] for m in ("epsilon_scatter", "crps")}
        log.info("rivals: %s: scatter %.3f dex, CRPS %.3f dex", unit.words, *value.values())


def identities(workspace: Workspace) -> dict[str, str]:
    """Identity of each unit that the step made, by its folder."""
    cards = sorted(workspace.rivals.glob("*/unit.json"))
    return {card.parent.name: read_json(card)["identity"] for card in cards}


def tables_folder(workspace: Workspace) -> Path:
    """Where the scores of most seeds lie: those of `cmass study rivals`, if it judged the same units."""
    study = workspace.study / "rivals"
    card = study / "made_of.json"
    if card.exists() and read_json(card) == identities(workspace):
        return study
    return workspace.rivals


def survey_masses(workspace: Workspace, params: Params, windows: Windows) -> pa.Table:
    """Table `rival_masses`: a survey's clusters by every rival of the first seed.

    Rivals that the step could not fit have no rows, which is said.
    """
    from cmass.estimators import estimator
    from cmass.posterior import TAIL, grid_edges, quantiles

    grid = read_table(workspace.posterior / "posterior_grid.parquet", "posterior_grid")
    edges = grid_edges(grid)
    columns: dict[str, list[Any]] = {name: [] for name in TABLES["rival_masses"].names}
    for row in read_table(workspace.rivals / "costs.parquet", "rival_costs").to_pylist():
        name, number = row["estimator"], row["seed"]
        kind = estimator(name)
        if kind.seeded and number != params.rivals.seeds[0]:
            continue
        if not row["fitted"]:
            log.warning("infer: no masses by %s: %s", name, row["note"])
            continue
        folder = workspace.rivals / f"{name}-{number}" / "model"
        one = kind.load(folder, params, params.seed + number - 1)
        point, probabilities = one.point_and_posterior(windows, edges)
        p16, p50, p84 = quantiles(probabilities, edges, [TAIL, 0.5, 1 - TAIL]).T
        own = (windows.cluster_id, [name] * len(windows), point, p16, p50, p84)
        for column, values in zip(columns.values(), own, strict=True):
            column.extend(values)
    return make_table("rival_masses", columns)
