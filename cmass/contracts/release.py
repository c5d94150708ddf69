"""The last hand-over, to the users of a release: its tables, and how they differ from the last one's."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cmass.contracts import drift
from cmass.contracts.handovers import (
    HANDOVERS,
    Account,
    account_rows,
    mass_limits,
    no_mass_account,
    require,
    result_file,
    together,
)
from cmass.contracts.suites import Limit, limits_check, table_check, validate
from cmass.errors import ContractError
from cmass.params import Params
from cmass.tables import read_json, read_table, write_json
from cmass.workspace import Workspace

log = logging.getLogger(__name__)
#: Rows of the quarantine that a release shows.
QUARANTINE_SHOWN = 50


def check_release(
    workspace: Workspace, params: Params, tables: Mapping[str, pa.Table], facts: Mapping[str, Any],
    last: Path | None,
) -> dict[str, Any]:  # fmt: skip
    """Check the tables of a release before anybody sees them, and their drift from the last one.

    Parameters
    ----------
    workspace : Workspace
    params : Params
    tables : mapping
        Content tables of the release by name.
    facts : mapping
        Provenance of the release.
    last : Path, optional
        Folder of the last release of the same survey and profile.

    Returns
    -------
    dict
        As results of other hand-overs, and ``drift``.

    Raises
    ------
    ContractError
        An expectation is not met, rows of one table have none in another, an account does not
        balance, or the drift is beyond a limit and neither explained nor accepted.
    """
    results = validate(
        [table_check(name, table, empty=name == "calibration") for name, table in tables.items()]
    )
    accounts: list[Account] = []
    compared: dict[str, Any] = {"last": None, "figures": [], "causes": {}, "explained_by": []}
    if results["success"]:
        masses = tables["masses"]
        accounts = [
            Account(
                "clusters: selected, in the release", tables["clusters"].num_rows, masses.num_rows
            ),
            Account(
                "galaxies: counted, in the release", pc.sum(masses["n_galaxies"]).as_py() or 0,
                tables["galaxies"].num_rows,
            ),
            no_mass_account(masses),
        ]  # fmt: skip
        limits = [
            *mass_limits(masses, tables["posterior_grid"].num_rows, params), *_key_limits(tables)
        ]  # fmt: skip
        results = together(results, accounts, limits)
        if last is not None:
            compared = compare(workspace, params, tables, facts, last)
    stopping = [f for f in compared["figures"] if f["verdict"] in (drift.WITHIN, drift.BEYOND)]
    if stopping and params.contracts.drift.action == "stop":
        added = validate(
            [limits_check("drift", [Limit(f["name"], f["value"], 0, f["limit"]) for f in stopping])]
        )
        results = {
            "success": results["success"] and added["success"],
            "tables": results["tables"] | added["tables"],
        }
    result = {
        "step": "publish", "title": "Release", **results, "accounts": account_rows(accounts),
        "drift": compared,
    }  # fmt: skip
    file = result_file(workspace, "publish")
    write_json(file, result)
    _tell(result, params, file)
    require("publish", result, file)
    return result


def _key_limits(tables: Mapping[str, pa.Table]) -> Iterator[Limit]:
    """Every selected cluster has its masses and its galaxies; what breaks that names a cluster."""
    masses, clusters, galaxies = tables["masses"], tables["clusters"], tables["galaxies"]
    selected = set(clusters["cluster_id"].to_pylist())
    weighed = set(masses["cluster_id"].to_pylist())
    counts = galaxies.group_by("cluster_id").aggregate([([], "count_all")])
    counted = dict(zip(*(counts[c].to_pylist() for c in ("cluster_id", "count_all")), strict=True))
    yield _none_of("selected clusters without a row of masses", selected - weighed)
    yield _none_of("rows of masses without a selected cluster", weighed - selected)
    yield _none_of("clusters of galaxies that are not selected", counted.keys() - selected)
    for name in ("clusters", "masses"):
        columns = (tables[name][c].to_pylist() for c in ("cluster_id", "n_galaxies"))
        odd = {one for one, n in zip(*columns, strict=True) if counted.get(one, 0) != n}
        yield _none_of(f"{name} whose n_galaxies is not their rows in galaxies", odd)


def _none_of(words: str, odd: Set[str]) -> Limit:
    return Limit(f"{words} (as {min(odd)})" if odd else words, len(odd), 0, 0)


def compare(
    workspace: Workspace, params: Params, tables: Mapping[str, pa.Table], facts: Mapping[str, Any],
    last: Path,
) -> dict[str, Any]:  # fmt: skip
    """Drift of a release from the one in `last`: figures with verdicts, and what changed between."""
    limits = params.contracts.drift
    then = {name: read_table(last / f"{name}.parquet", name, _COLUMNS[name]) for name in _COLUMNS}
    causes = drift.differences(facts, read_json(last / "provenance.json"))
    found = drift.figures(tables, then, limits)
    figures = drift.judge(found, workspace.survey, last.name, causes, limits)
    accepted = any(one.verdict == drift.ACCEPTED for one in figures)
    return {
        "last": last.name,
        "figures": [asdict(one) for one in figures],
        "causes": causes,
        "explained_by": drift.sample_causes(workspace.survey, causes),
        "accept_reason": limits.accept_reason if accepted else None,
        "action": limits.action,
    }


#: What the comparison reads of the last release; later columns may be missing there.
_COLUMNS = {
    "masses": ["cluster_id", "ra", "dec", "z", "n_galaxies", "log10_m200c", "flag"],
    "clusters": ["cluster_id", "log10_m200_galweight"],
}


def _tell(result: Mapping[str, Any], params: Params, file: Path) -> None:
    """Log the drift; raise `ContractError` where it stops the release."""
    compared = result["drift"]
    last = compared["last"]
    figures = [drift.Figure(**one) for one in compared["figures"]]
    for one in figures:
        if one.verdict != drift.WITHIN:
            log.warning(
                "drift from %s, %s: %s %.3g %s, limit %.3g", last, one.verdict, one.words, one.value,
                one.unit, one.limit,
            )  # fmt: skip
    beyond = [one for one in figures if one.verdict == drift.BEYOND]
    if beyond and params.contracts.drift.action == "stop":
        raise ContractError(
            f"{drift.message(figures, last, compared['causes'])}. {file} holds the whole result"
        )
    if last is None:
        log.info("no earlier release of this survey and profile: nothing to drift from")
    elif not beyond:
        log.info("compared with %s: %d figures, none drifts unexplained", last, len(figures))


def gather(workspace: Workspace, release: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is known of contracts, for the page of a release.

    Returns
    -------
    dict
        ``handovers``: results in the order of the steps, that of the release last;
        ``unchecked``: titles of hand-overs without a result; ``quarantine``: number of rows and the
        first of them.
    """
    results, unchecked = [], []
    for step, one in HANDOVERS.items():
        file = result_file(workspace, step)
        if file.exists():
            result = read_json(file)
            require(step, result, file)
            results.append({k: v for k, v in result.items() if k != "of"})
        else:
            unchecked.append(one.title)
    file = workspace.raw / "quarantine.parquet"
    rows = read_table(file, "quarantine").to_pylist() if file.exists() else []
    return {
        "handovers": [*results, {k: v for k, v in release.items() if k != "drift"}],
        "drift": release["drift"],
        "unchecked": unchecked,
        "quarantine": {"n": len(rows), "rows": rows[:QUARANTINE_SHOWN]},
    }
