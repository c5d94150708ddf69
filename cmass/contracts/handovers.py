"""The hand-overs: which tables a step leaves to the next, how their rows add up, and what is checked.

A hand-over is checked on what lies on the disk, after the step and again by whoever reads it, if
it is not as it was checked. Its result is a file, the same for the same tables: every expectation of
Great Expectations with what was found, and accounts of rows, in = out + set aside. A step whose result is
bad leaves no stamp, and no other step reads its tables.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cmass.columns import FLAGS, NOT_CATALOGUED
from cmass.contracts.suites import (
    Check,
    Limit,
    broken,
    files_check,
    limits_check,
    part_limit,
    validate,
)
from cmass.errors import ContractError, InputError
from cmass.shards import digest_of, source_digest
from cmass.tables import count_rows, read_json, read_table, table_files, to_numpy, write_json

if TYPE_CHECKING:
    from cmass.params import Params
    from cmass.workspace import Workspace

log = logging.getLogger(__name__)

#: Sets of mock windows, in order.
SETS = ("train", "validation", "test", "evaluation")
#: Sum of a grid over voxels.scale: half floats leave a part in a thousand.
_SUM_TOLERANCE = 0.01
#: Grids that are read of a shard of voxels: the rest is looked at for its size and its cluster alone.
_GRIDS_A_SHARD = 20
#: Broken expectations that a message names.
_NAMED = 5


@dataclass(frozen=True)
class Account:
    """Rows that came, rows that went on, and where the others are.

    Attributes
    ----------
    item : str
        What is counted.
    rows_in, rows_out : int
    set_aside : dict
        Rows that did not go on, by reason.
    """

    item: str
    rows_in: int
    rows_out: int
    set_aside: dict[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        """Rows that nobody can account for; zero where the account balances."""
        return self.rows_in - self.rows_out - sum(self.set_aside.values())


@dataclass(frozen=True)
class Tables:
    """A table of the column dictionary where a step leaves it."""

    name: str
    files: Callable[[Workspace], Path]
    optional: bool = False
    empty: bool = False


@dataclass(frozen=True)
class HandOver:
    """What a step hands over.

    Attributes
    ----------
    title : str
        For people.
    tables : tuple of Tables
    accounts : callable
        Accounts of rows, of workspace and parameters.
    statistics : callable
        Numbers with limits, of workspace and parameters.
    """

    title: str
    tables: tuple[Tables, ...]
    accounts: Callable[[Workspace, Params], Iterator[Account]] | None = None
    statistics: Callable[[Workspace, Params], Iterator[Limit]] | None = None


# ------------------------------------------------------------------------------------- raw


def _raw_accounts(workspace: Workspace, params: Params) -> Iterator[Account]:
    """What the source had, what was kept, what lies in quarantine."""
    aside = read_table(workspace.raw / "quarantine.parquet", "quarantine", ["item", "reason"])
    products = read_json(workspace.raw / "provenance.json")["products"]
    for one in HANDOVERS["ingest"].tables:
        file = one.files(workspace)
        if one.name == "quarantine" or not file.exists():
            continue
        reasons = aside.filter(pc.equal(aside["item"], one.name))["reason"].to_pylist()
        yield Account(
            one.name, products[file.stem]["rows_in_source"], count_rows(file), _counted(reasons)
        )


def _counted(reasons: Sequence[str]) -> dict[str, int]:
    """Reasons, counted and sorted; those that differ in their numbers alone are one, with those of the first."""
    kinds: dict[str, Counter[str]] = {}
    for reason in reasons:
        kinds.setdefault(re.sub(r"\d+(\.\d+)?", "…", reason), Counter())[reason] += 1
    return {
        next(iter(same)) + (" and the like" if len(same) > 1 else ""): same.total()
        for _, same in sorted(kinds.items())
    }


# -------------------------------------------------------------------------------- selected


def _selected_accounts(workspace: Workspace, params: Params) -> Iterator[Account]:
    rejected = read_table(
        workspace.selected / "rejected.parquet", "rejected_clusters", ["reason"]
    )  # fmt: skip
    yield Account(
        "clusters: of raw, selected", count_rows(workspace.raw / "clusters.parquet"),
        count_rows(workspace.selected / "clusters.parquet"), _counted(rejected["reason"].to_pylist()),
    )  # fmt: skip
    clusters = read_table(workspace.selected / "clusters.parquet", "clusters", ["n_galaxies"])
    counted = int(pc.sum(clusters["n_galaxies"]).as_py() or 0)
    yield Account(
        "galaxies: counted, listed", counted, count_rows(workspace.selected / "galaxies.parquet")
    )


def _selected_statistics(workspace: Workspace, params: Params) -> Iterator[Limit]:
    clusters = read_table(workspace.selected / "clusters.parquet", "clusters")
    galaxies = read_table(workspace.selected / "galaxies.parquet", "galaxies", ["cluster_id"])
    yield _foreign("galaxies of clusters that are not selected", galaxies, clusters)
    yield _no_mass(clusters, params)
    window = read_table(
        workspace.selected / "galaxies.parquet", "galaxies", ["x_proj", "y_proj", "v_los"]
    )  # fmt: skip
    yield from _inside(window, params)


def _foreign(name: str, table: pa.Table, clusters: pa.Table) -> Limit:
    """Number of clusters that `table` names and `clusters` does not have."""
    ids = pc.unique(table["cluster_id"])
    known = pc.is_in(ids, value_set=clusters["cluster_id"].combine_chunks())
    return Limit(name, len(ids) - (pc.sum(known).as_py() or 0), 0, 0)


def _no_mass(clusters: pa.Table, params: Params) -> Limit:
    (flag,) = to_numpy(clusters, "flag")
    few = (flag & FLAGS["too_few_galaxies"].value) != 0
    most = params.contracts.no_mass_max_fraction
    return part_limit("part of the windows with too few galaxies", _mean(few), few.size, most)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _inside(window: pa.Table, params: Params) -> Iterator[Limit]:
    """Galaxies lie inside the phase-space window, and not all in one half of it."""
    width, v_max = params.window.half_width_mpc_h, params.window.v_max_km_s
    for name, end in (("x_proj", width), ("y_proj", width), ("v_los", v_max)):
        yield _largest(name, [window[name]], end)


def _largest(name: str, arrays: Sequence[pa.ChunkedArray], end: float) -> Limit:
    ends = [pc.min_max(values).as_py() for values in arrays if len(values)]
    largest = max((max(abs(e["min"]), abs(e["max"])) for e in ends), default=None)
    return Limit(f"largest |{name}|", largest, 0, end * (1 + 1e-6))


# -------------------------------------------------------------------------------- mocks


def _mock_accounts(
    folder: Callable[[Workspace], Path]
) -> Callable[[Workspace, Params], Iterator[Account]]:  # fmt: skip
    def accounts(workspace: Workspace, params: Params) -> Iterator[Account]:
        columns = ["cluster_id", "n_galaxies"]
        clusters = read_table(folder(workspace) / "clusters", "mock_clusters", columns)
        counted = int(pc.sum(clusters["n_galaxies"]).as_py() or 0)
        yield Account(
            "galaxies: counted, listed", counted, count_rows(folder(workspace) / "galaxies")
        )

    return accounts


def _mock_statistics(
    folder: Callable[[Workspace], Path]
) -> Callable[[Workspace, Params], Iterator[Limit]]:  # fmt: skip
    def statistics(workspace: Workspace, params: Params) -> Iterator[Limit]:
        where = folder(workspace)
        clusters = read_table(
            where / "clusters", "mock_clusters", ["cluster_id", "flag", "log10_m200c_true"]
        )
        (flag,) = to_numpy(clusters, "flag")
        if where == workspace.mock:  # the population holds haloes that no finder lists
            yield _no_mass(clusters, params)
            blended = (flag & FLAGS["blended"].value) != 0
            yield part_limit(
                "part of the windows centred on a more massive halo", _mean(blended), blended.size,
                params.contracts.blended_max_fraction,
            )  # fmt: skip
        largest = {"x_proj": 0.0, "y_proj": 0.0, "v_los": 0.0}
        for file in table_files(where / "galaxies"):
            window = read_table(file, "mock_galaxies", list(largest))
            for one in _inside(window, params):
                name = one.name.removeprefix("largest |").removesuffix("|")
                largest[name] = max(largest[name], one.value or 0.0)
        width = params.window.half_width_mpc_h
        for name, end in (
            ("x_proj", width),
            ("y_proj", width),
            ("v_los", params.window.v_max_km_s),
        ):
            yield Limit(f"largest |{name}|", largest[name], 0, end * (1 + 1e-6))

    return statistics


def _split_accounts(workspace: Workspace, params: Params) -> Iterator[Account]:
    """Windows of the mock: in sets, without a density or in no catalogue, or left over."""
    clusters = read_table(workspace.mock / "clusters", "mock_clusters", ["cluster_id", "flag"])
    split = read_table(workspace.split / "split.parquet", "split", ["cluster_id"])
    (flag,) = to_numpy(clusters, "flag")
    blended = (flag & FLAGS["blended"].value) != 0
    few = ((flag & NOT_CATALOGUED) != 0) & ~blended
    in_sets = pc.is_in(
        clusters["cluster_id"], value_set=split["cluster_id"].combine_chunks()
    ).to_numpy(zero_copy_only=False)
    yield Account(
        "windows: of the mock, in sets", clusters.num_rows, split.num_rows,
        {
            "centred on a more massive halo": int(blended.sum()),
            "too few galaxies for a density": int(few.sum()),
            "left over: the sets are full": int((~in_sets & ~blended & ~few).sum()),
        },
    )  # fmt: skip


def _split_statistics(workspace: Workspace, params: Params) -> Iterator[Limit]:
    split = read_table(workspace.split / "split.parquet", "split")
    pairs = split.group_by(["halo_id", "set"]).aggregate([])
    # training and validation share no halo either
    yield Limit("haloes in two sets", pairs.num_rows - len(pc.unique(pairs["halo_id"])), 0, 0)


# ------------------------------------------------------------------------------- voxels


def _voxel_sets(workspace: Workspace) -> list[str]:
    return [name for name in SETS if (workspace.voxels / name).is_dir()]


def _voxel_accounts(workspace: Workspace, params: Params) -> Iterator[Account]:
    split = read_table(workspace.split / "split.parquet", "split", ["cluster_id", "set"])
    for name in SETS:
        wanted = pc.sum(pc.equal(split["set"], name)).as_py() or 0
        if name in _voxel_sets(workspace):
            yield Account(
                f"windows of {name}: split, voxelised", wanted, count_rows(workspace.voxels / name)
            )
        elif params.train.grids == "device" and name in ("train", "validation"):
            yield Account(f"windows of {name}", wanted, 0, {"made on the device": wanted})
        else:
            yield Account(f"windows of {name}: split, voxelised", wanted, 0)


def _voxel_statistics(workspace: Workspace, params: Params) -> Iterator[Limit]:
    """Every cluster by name and mass; the first grids of every shard by their numbers."""
    split = read_table(workspace.split / "split.parquet", "split", ["cluster_id", "set"])
    n, scale = params.voxels.n, params.voxels.scale
    foreign, repeated, wrong = 0, 0, 0
    sums: list[float] = []
    negative = not_finite = 0
    for name in _voxel_sets(workspace):
        known = split.filter(pc.equal(split["set"], name))["cluster_id"].combine_chunks()
        seen = []
        for file in table_files(workspace.voxels / name):
            try:
                parquet = pq.ParquetFile(file, memory_map=True)
                wrong += parquet.schema_arrow.field("voxels").type != pa.binary(2 * n**3)
                seen.append(parquet.read(columns=["cluster_id"])["cluster_id"])
                batch = next(parquet.iter_batches(_GRIDS_A_SHARD, columns=["voxels"]))
            except (pa.ArrowException, OSError, KeyError, StopIteration) as error:
                raise InputError(f"not a readable shard of voxels: {error}", file=file) from error
            for grid in batch.column("voxels"):
                values = np.frombuffer(grid.as_buffer(), "<f2").astype(np.float32)
                sums.append(float(values.sum(dtype=np.float64)) / scale)
                negative += int((values < 0).sum())
                not_finite += int((~np.isfinite(values)).sum())
        ids = pa.chunked_array([chunk for one in seen for chunk in one.chunks], pa.string())
        foreign += len(ids) - (pc.sum(pc.is_in(ids, value_set=known)).as_py() or 0)
        repeated += len(ids) - len(pc.unique(ids))
    finite = np.array(sums)[np.isfinite(sums)]
    yield Limit("clusters that the split does not have in the set", foreign, 0, 0)
    yield Limit("clusters that are there twice", repeated, 0, 0)
    yield Limit("shards whose grids are of another size", wrong, 0, 0)
    yield Limit(f"voxels below zero, in {len(sums)} grids", negative, 0, 0)
    yield Limit(f"voxels that are not finite, in {len(sums)} grids", not_finite, 0, 0)
    for words, value in (
        ("least", finite.min(initial=np.inf)),
        ("largest", finite.max(initial=-np.inf)),
    ):
        yield Limit(
            f"{words} sum of a grid", float(value) if finite.size else None, 1 - _SUM_TOLERANCE,
            1 + _SUM_TOLERANCE,
        )  # fmt: skip


# ------------------------------------------------------------------------ predictions, masses


def _prediction_accounts(workspace: Workspace, params: Params) -> Iterator[Account]:
    split = read_table(workspace.split / "split.parquet", "split", ["set"])
    wanted = pc.sum(pc.equal(split["set"], "test")).as_py() or 0
    predictions = read_table(workspace.posterior / "predictions.parquet", "predictions")
    yield Account("windows of test: split, predicted", wanted, predictions.num_rows)
    none = predictions["log10_m200c"].null_count
    yield Account(
        "windows of test: predicted, posteriors are made of", predictions.num_rows,
        count_rows(workspace.posterior / "pairs.parquet"), {"no point estimate": none} if none else {},
    )  # fmt: skip


def _prediction_statistics(workspace: Workspace, params: Params) -> Iterator[Limit]:
    predictions = read_table(workspace.posterior / "predictions.parquet", "predictions")
    point, true = to_numpy(predictions, "log10_m200c", "log10_m200c_true")
    point = point[np.isfinite(point)]
    yield Limit(
        "scatter of point estimates", float(point.std()) if point.size else None,
        params.contracts.prediction_scatter_min_dex,
    )  # fmt: skip
    yield Limit(
        "median point estimate", float(np.median(point)) if point.size else None,
        float(true.min()), float(true.max()),
    )  # fmt: skip
    grid = read_table(workspace.posterior / "posterior_grid.parquet", "posterior_grid")
    for name in ("prior_flat", "prior_hmf"):
        yield Limit(f"sum of {name}", float(to_numpy(grid, name)[0].sum()), 1 - 1e-6, 1 + 1e-6)


def _mass_accounts(workspace: Workspace, params: Params) -> Iterator[Account]:
    """Every selected cluster keeps its row; those without a mass carry a flag that says why."""
    masses = read_table(
        workspace.masses / "masses.parquet", "masses", ["cluster_id", "log10_m200c", "flag"]
    )  # fmt: skip
    selected = read_table(workspace.selected / "clusters.parquet", "clusters", ["cluster_id"])
    known = pc.is_in(masses["cluster_id"], value_set=selected["cluster_id"].combine_chunks())
    yield Account(
        "clusters: selected, with a row of masses", selected.num_rows, pc.sum(known).as_py() or 0
    )
    yield Account("rows of masses: of selected clusters", masses.num_rows, selected.num_rows)
    yield no_mass_account(masses)


def no_mass_account(masses: pa.Table) -> Account:
    """Rows of masses: with a mass, and without by the flag that says why."""
    (flag,) = to_numpy(masses, "flag")
    none = masses["log10_m200c"].is_null().to_numpy(zero_copy_only=False)
    aside: dict[str, int] = {}
    left = none.copy()
    for name in ("bad_input", "too_few_galaxies", "degenerate"):
        mine = left & ((flag & FLAGS[name].value) != 0)
        if mine.any():
            aside[FLAGS[name].words] = int(mine.sum())
        left &= ~mine
    return Account("clusters: with a row, with a mass", masses.num_rows, int((~none).sum()), aside)


def _mass_statistics(workspace: Workspace, params: Params) -> Iterator[Limit]:
    masses = read_table(workspace.masses / "masses.parquet", "masses")
    grid = read_table(workspace.posterior / "posterior_grid.parquet", "posterior_grid")
    yield from mass_limits(masses, grid.num_rows, params)


def mass_limits(masses: pa.Table, n_bins: int, params: Params) -> Iterator[Limit]:
    """What a table of masses must be like beyond its columns."""
    none = masses["log10_m200c"].is_null().to_numpy(zero_copy_only=False)
    yield part_limit(
        "part of the clusters without a mass", _mean(none), none.size,
        params.contracts.no_mass_max_fraction,
    )  # fmt: skip
    p16, p50, p84 = to_numpy(masses, "log10_m200c_p16", "log10_m200c_p50", "log10_m200c_p84")
    known = np.isfinite(p50)
    wrong = known & ~((p16 <= p50) & (p50 <= p84))
    yield Limit("posteriors whose percentiles are out of order", int(wrong.sum()), 0, 0)
    posterior = masses["posterior"].combine_chunks()
    lengths = pc.list_value_length(posterior).to_numpy(zero_copy_only=False)
    has = lengths > 0
    yield Limit("posteriors of another number of bins", int((lengths[has] != n_bins).sum()), 0, 0)
    yield Limit("percentiles without a posterior, or the reverse", int((has != known).sum()), 0, 0)
    values = posterior.flatten().to_numpy(zero_copy_only=False).astype(float)
    ends = np.cumsum(lengths[has])
    total = np.concatenate([[0.0], np.cumsum(values)])
    sums = total[ends] - total[ends - lengths[has]]
    yield Limit(
        "largest error of a posterior's sum", float(np.abs(sums - 1).max(initial=0)), 0, 1e-3
    )
    yield Limit("least probability of a bin", float(values.min(initial=0)), 0)


# ------------------------------------------------------------------------------- the list


def _raw(name: str) -> Callable[[Workspace], Path]:
    return lambda w: w.raw / f"{name}.parquet"


#: What each step hands over, by the step's name. The release is checked where it is made.
HANDOVERS: dict[str, HandOver] = {
    "ingest": HandOver(
        "Raw tables",
        (
            Tables("raw_clusters", _raw("clusters")),
            Tables("raw_galaxies", _raw("galaxies")),
            Tables("raw_footprint", _raw("footprint")),
            Tables("survey_truth", _raw("truth"), optional=True),
            Tables("xray_clusters", _raw("xray"), optional=True),
            Tables("quarantine", _raw("quarantine"), empty=True),
        ),
        _raw_accounts,
    ),
    "select": HandOver(
        "Selected clusters",
        (
            Tables("clusters", lambda w: w.selected / "clusters.parquet"),
            Tables("galaxies", lambda w: w.selected / "galaxies.parquet"),
            Tables("rejected_clusters", lambda w: w.selected / "rejected.parquet", empty=True),
        ),
        _selected_accounts,
        _selected_statistics,
    ),
    "mock": HandOver(
        "Mock windows",
        (
            Tables("mock_clusters", lambda w: w.mock / "clusters"),
            Tables("mock_galaxies", lambda w: w.mock / "galaxies"),
            Tables("mock_remarks", lambda w: w.mock / "remarks.parquet", optional=True),
        ),
        _mock_accounts(lambda w: w.mock),
        _mock_statistics(lambda w: w.mock),
    ),
    "population": HandOver(
        "Windows of the population",
        (
            Tables("mock_clusters", lambda w: w.population / "clusters"),
            Tables("mock_galaxies", lambda w: w.population / "galaxies"),
        ),
        _mock_accounts(lambda w: w.population),
        _mock_statistics(lambda w: w.population),
    ),
    "split": HandOver(
        "Sets of mock windows",
        (Tables("split", lambda w: w.split / "split.parquet"),),
        _split_accounts,
        _split_statistics,
    ),
    "voxelize": HandOver("Voxels", (), _voxel_accounts, _voxel_statistics),
    "posterior": HandOver(
        "Predictions of the test set",
        (
            Tables("predictions", lambda w: w.posterior / "predictions.parquet"),
            Tables("test_pairs", lambda w: w.posterior / "pairs.parquet"),
            Tables("posterior_grid", lambda w: w.posterior / "posterior_grid.parquet"),
        ),
        _prediction_accounts,
        _prediction_statistics,
    ),
    "infer": HandOver(
        "Masses",
        (Tables("masses", lambda w: w.masses / "masses.parquet"),),
        _mass_accounts,
        _mass_statistics,
    ),
}


def result_file(workspace: Workspace, step: str) -> Path:
    """Where the result of a step's hand-over lies.

    Those of a training go with the model: a champion has its own beside it.
    """
    from cmass.pipeline import step as named

    return workspace.contracts(per_survey=named(step).per_survey) / f"{step}.json"


# ---------------------------------------------------------------------------------- checking


def check(
    step: str, workspace: Workspace, params: Params, *, made: Mapping[str, str] | None,
    read: Mapping[str, str] | None,
) -> dict[str, Any]:  # fmt: skip
    """Check what a step hands over, unless these very tables were checked before.

    Parameters
    ----------
    step : str
        Name of the step, one of `HANDOVERS`.
    workspace : Workspace
    params : Params
    made, read : mapping, optional
        SHA-256 of the files that the step wrote and read, by name; None where they are not there
        any more.

    Returns
    -------
    dict
        The result, as it lies in `result_file`.

    Raises
    ------
    ContractError
        An expectation is not met, or an account does not balance.
    InputError
        A table is damaged.
    """
    file = result_file(workspace, step)
    of = {
        "code": source_digest("contracts", "columns.py"),
        "limits": digest_of(params.contracts.model_dump(exclude={"drift", "quarantine"})),
        "tables": digest_of(made),
    }
    known = _known(file)
    same = known and all(known["of"].get(name) == value for name, value in of.items())
    # What a step has read may be gone by now, as voxels are when networks are trained.
    if known and same and (read is None or known["of"].get("inputs") == digest_of(read)):
        result = known
    else:
        result = {"of": {**of, "inputs": digest_of(read)}, **examine(step, workspace, params)}
        write_json(file, result)
        log.info("%s: %s", step, in_words(result))
    require(step, result, file)
    return result


def _known(file: Path) -> dict[str, Any]:
    from cmass.errors import WorkspaceError

    try:
        value = read_json(file)
    except WorkspaceError:  # none yet, or cut short: checking again costs seconds
        return {}
    return value if isinstance(value, dict) and isinstance(value.get("of"), dict) else {}


def examine(step: str, workspace: Workspace, params: Params) -> dict[str, Any]:
    """Result of one hand-over: ``title``, ``success``, ``tables`` (see `validate`), ``accounts``."""
    one = HANDOVERS[step]
    checks: list[Check] = []
    for table in one.tables:
        path = table.files(workspace)
        if table.optional and not path.exists():
            continue
        checks.append(files_check(table.name, table_files(path), empty=table.empty))
    # What does not fit the dictionary cannot be counted on.
    first = validate(checks) if checks else {"success": True, "tables": {}}
    accounts: list[Account] = []
    if first["success"]:
        accounts = list(one.accounts(workspace, params)) if one.accounts else []
        statistics = list(one.statistics(workspace, params)) if one.statistics else []
        first = together(first, accounts, statistics)
    return {"step": step, "title": one.title, **first, "accounts": account_rows(accounts)}


def together(
    results: dict[str, Any], accounts: Sequence[Account], statistics: Sequence[Limit]
) -> dict[str, Any]:
    """`results` with those of accounts and statistics."""
    more = []
    if accounts:
        limits = [Limit(f"{a.item}: rows unaccounted for", a.missing, 0, 0) for a in accounts]
        more.append(limits_check("accounts", limits))
    if statistics:
        more.append(limits_check("statistics", statistics))
    if not more:
        return results
    added = validate(more)
    return {
        "success": results["success"] and added["success"],
        "tables": results["tables"] | added["tables"],
    }


def account_rows(accounts: Sequence[Account]) -> list[dict[str, Any]]:
    """Accounts as JSON holds them."""
    return [
        {
            "item": a.item, "rows_in": a.rows_in, "rows_out": a.rows_out,
            "set_aside": [{"reason": r, "n": n} for r, n in a.set_aside.items()],
            "balanced": a.missing == 0,
        }
        for a in accounts
    ]  # fmt: skip


def in_words(result: Mapping[str, Any]) -> str:
    """A result in one line, for the log."""
    rows = [row for table in result["tables"].values() for row in table["expectations"]]
    bad = sum(not row["success"] for row in rows)
    held = f"{len(rows)} expectations hold" if not bad else f"{bad} of {len(rows)} do not hold"
    aside = sum(one["n"] for a in result["accounts"] for one in a["set_aside"])
    return f"contract: {held}, {aside} rows set aside and accounted for"


def require(step: str, result: Mapping[str, Any], file: Path) -> None:
    """Raise `ContractError` if a result is bad; it names what does not hold."""
    if result["success"]:
        return
    words = broken(result)
    named = words[:_NAMED] + ([f"and {len(words) - _NAMED} more"] if len(words) > _NAMED else [])
    raise ContractError(
        f"what {step} hands over breaks its contract:\n  "
        + "\n  ".join(named)
        + f"\nNo step reads it, and the release in force stays as it is. {file} holds the whole result. "
        + REMEDIES.get(step, REMEDIES["default"])
    )


#: What to do about a broken hand-over, by step.
REMEDIES = {
    "ingest": "Look at the source that the table came from, mend or fetch it again, then run ingest",
    "select": "Run select again; if it is the same again, look at raw/ and at the sections window, select "
    "and contracts of params.yaml",
    "infer": "Run infer again; if it is the same again, look at the model (evaluate) and at the section "
    "contracts of params.yaml",
    "publish": "Run the steps that made these tables again, then publish",
    "default": "Files that something else wrote to are made anew by `cmass run`; if it is the same again, "
    "look at the section contracts of params.yaml, or report a fault of cmass",
}
