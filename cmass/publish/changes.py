"""What a release says otherwise than an earlier one, cluster by cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cmass.columns import TABLES
from cmass.contracts import drift
from cmass.errors import InputError, WorkspaceError
from cmass.publish.readme import render
from cmass.tables import make_table, read_json, read_table, to_numpy

Array = NDArray[np.float64]
FILE = "changes.parquet"
#: Kinds of change, in the order in which they are told.
KINDS = ("added", "lost", "moved", "mass_gained", "mass_lost", "changed")
#: Errors by which a mass must differ to be told.
SIGMA = 1.0
_MASSES = (
    "cluster_id", "ra", "dec", "z", "log10_m200c", "log10_m200c_p50", "sigma_minus", "sigma_plus", "flag",
)  # fmt: skip
_SHOWN = 30


@dataclass(frozen=True)
class Changes:
    """How two releases differ.

    Attributes
    ----------
    last, now : str or None
        Versions; no `last` for the first release of its kind.
    table : pyarrow.Table
        Table `changes`: a row a cluster that differs, by kind and size.
    numbers : dict
        Clusters in each, in both, by kind; median and scatter of the change of mass, dex.
    causes : dict
        What differs behind them (`drift.differences`).
    """

    last: str | None
    now: str
    table: pa.Table
    numbers: dict[str, Any]
    causes: dict[str, list[str]]

    def markdown(self) -> str:
        """``changes.md`` of the later release."""
        return render(
            "changes.md.jinja2", last=self.last, now=self.now, numbers=self.numbers, causes=self.causes,
            kinds=KINDS, sigma=SIGMA, shown=_SHOWN,
            rows=[r for r in self.table.to_pylist() if r["change"] == "changed"][:_SHOWN],
        )  # fmt: skip


def first(masses: pa.Table, version: str) -> Changes:
    """Changes of a release that has no predecessor: none."""
    numbers = {"clusters_now": masses.num_rows}
    return Changes(None, version, TABLES["changes"].arrow_schema().empty_table(), numbers, {})


def between_folders(last: Path, now: Path) -> Changes:
    """Compare two releases on disk, of whatever layout.

    Raises
    ------
    WorkspaceError
        A folder is no release.
    InputError
        A table is damaged.
    """
    facts = [_facts(folder) for folder in (last, now)]
    names = [facts["release"]["version"] for facts in facts]
    masses = [_read(folder) for folder in (last, now)]
    return between(masses[0], masses[1], facts[0], facts[1], names[0], names[1])


def _facts(folder: Path) -> dict[str, Any]:
    facts = read_json(folder / "provenance.json")
    try:
        facts["release"]["version"]
    except (KeyError, TypeError) as error:
        raise WorkspaceError(
            f"{folder / 'provenance.json'} is no provenance of a release: {error!r}"
        ) from error
    return dict(facts)


def _read(folder: Path) -> pa.Table:
    return read_table(folder / "masses.parquet", "masses", list(_MASSES))


def since(last: Path | None, masses: pa.Table, facts: Mapping[str, Any], version: str) -> Changes:
    """Changes of a release in the making since the folder of the last one."""
    if last is None:
        return first(masses, version)
    return between(_read(last), masses, _facts(last), facts, last.name, version)


def between(
    last: pa.Table, now: pa.Table, last_facts: Mapping[str, Any], facts: Mapping[str, Any],
    last_version: str, version: str,
) -> Changes:  # fmt: skip
    """Compare the tables `masses` of two releases.

    A mass is the median of the flat-prior posterior, or the point estimate where there is no
    posterior. It has changed if it differs by more than the earlier release's error on that side;
    without such an error it has changed if it differs by more than the median error.
    """
    for name, table in (("earlier", last), ("later", now)):
        if table["cluster_id"].combine_chunks().unique().__len__() != table.num_rows:
            raise InputError(
                f"the {name} release has a cluster twice", column="cluster_id",
                remedy="It was changed by hand; publish again",
            )  # fmt: skip
    mine, theirs, same = drift.matched(now, last)
    mass_now, mass_last = _mass(now)[mine], _mass(last)[theirs]
    change = np.where(same, mass_now - mass_last, np.nan)
    minus, plus = (x[theirs] for x in to_numpy(last, "sigma_minus", "sigma_plus"))
    errors = np.where(change < 0, minus, plus)
    typical = np.nanmedian(errors) if np.isfinite(errors).any() else np.nan
    sigma = change / np.where(errors > 0, errors, typical)

    kind = np.full(mine.size, "", dtype="U12")
    kind[np.abs(sigma) > SIGMA] = "changed"
    kind[same & np.isfinite(mass_now) & ~np.isfinite(mass_last)] = "mass_gained"
    kind[same & ~np.isfinite(mass_now) & np.isfinite(mass_last)] = "mass_lost"
    kind[~same] = "moved"
    rows = [
        _rows("added", now, np.setdiff1d(np.arange(now.num_rows), mine), later=True),
        _rows("lost", last, np.setdiff1d(np.arange(last.num_rows), theirs), later=False),
    ]
    told = np.flatnonzero(kind != "")
    place, before = mine[told], theirs[told]
    both = _place(now, place) | {
        "change": kind[told].tolist(), "log10_m200c_last": mass_last[told],
        "log10_m200c_now": mass_now[told], "mass_change_dex": change[told],
        "mass_change_sigma": sigma[told], "flag_now": _take(now, "flag", place),
        "flag_last": _take(last, "flag", before),
    }  # fmt: skip
    table = pa.concat_tables([*rows, make_table("changes", both)])
    counts = Counter(table["change"].to_pylist())
    known = change[np.isfinite(change)]
    numbers = {
        "clusters_last": last.num_rows, "clusters_now": now.num_rows, "in_both": int(mine.size),
        "kinds": {name: counts.get(name, 0) for name in KINDS},
        "compared": int(known.size), "unchanged": int((known == 0).sum()),
        "median_dex": float(np.median(known)) if known.size else None,
        "scatter_dex": float(known.std()) if known.size else None,
        "flag_changed": int((_numpy(now, "flag")[mine] != _numpy(last, "flag")[theirs]).sum()),
    }  # fmt: skip
    return Changes(
        last_version, version, _sorted(table), numbers, drift.differences(facts, last_facts)
    )


def _mass(table: pa.Table) -> Array:
    median, point = to_numpy(table, "log10_m200c_p50", "log10_m200c")
    return np.where(np.isfinite(median), median, point)


def _numpy(table: pa.Table, column: str) -> Any:
    return to_numpy(table, column)[0]


def _take(table: pa.Table, column: str, rows: NDArray[np.int64]) -> pa.Array:
    return table[column].take(pa.array(rows, pa.int64())).combine_chunks()


def _place(table: pa.Table, rows: NDArray[np.int64]) -> dict[str, Any]:
    return {name: _take(table, name, rows) for name in ("cluster_id", "ra", "dec", "z")}


def _rows(kind: str, table: pa.Table, rows: NDArray[np.int64], *, later: bool) -> pa.Table:
    """Clusters that only one release has."""
    nothing, mass = np.full(rows.size, np.nan), _mass(table)[rows]
    flag = _take(table, "flag", rows)
    none = pa.nulls(rows.size, pa.int32())
    return make_table("changes", _place(table, rows) | {
        "change": [kind] * rows.size,
        "log10_m200c_last": nothing if later else mass, "log10_m200c_now": mass if later else nothing,
        "mass_change_dex": nothing, "mass_change_sigma": nothing,
        "flag_last": none if later else flag, "flag_now": flag if later else none,
    })  # fmt: skip


def _sorted(table: pa.Table) -> pa.Table:
    """Kinds in their order, the largest change first."""
    kinds = [KINDS.index(kind) for kind in table["change"].to_pylist()]
    size = np.nan_to_num(np.abs(_numpy(table, "mass_change_sigma")))
    names = table["cluster_id"].to_pylist()
    order = sorted(range(table.num_rows), key=lambda i: (kinds[i], -size[i], names[i]))
    return table.take(pa.array(order, pa.int64()))
