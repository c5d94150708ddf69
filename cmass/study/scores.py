"""How good a network of a study is on a set of windows, with errors that know the haloes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cmass.columns import TABLES
from cmass.evaluate import calibration, metrics
from cmass.posterior import TAIL
from cmass.seeds import generator
from cmass.tables import make_table, to_numpy

Array = NDArray[np.float64]


def halo_ids(cluster_id: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """Halo of each mock window, from its identifier ``mock-<halo>-<sight line>``."""
    halo = pc.struct_field(pc.extract_regex(cluster_id, r"^mock-(?P<halo>\d+)-"), "halo")
    return halo.cast(pa.int64()).to_numpy(zero_copy_only=False)


def residuals(table: pa.Table) -> Array:
    """log10(M_true/M_pred) of a table `study_predictions`, dex."""
    return metrics.residual(*to_numpy(table, "log10_m200c_true", "log10_m200c"))


def scores(table: pa.Table, seed: int) -> dict[str, Any]:
    """Mean and scatter of the residual and coverage of the 68 % interval, with errors.

    Haloes are resampled with all their windows.

    Parameters
    ----------
    table : pyarrow.Table
        Table `study_predictions`.
    seed : int
        Of the resamples.
    """
    e, halo = residuals(table), halo_ids(table["cluster_id"])
    (below,) = to_numpy(table, "probability_below_true")
    bootstrap = metrics.Bootstrap(halo, generator(seed, "study-scores"))
    known = np.isfinite(below)

    def covered(rows: metrics.Rows) -> float:
        return float(calibration.interval_coverage(below[rows], 1 - 2 * TAIL)[0])

    return {
        "n_evaluation": len(e), "n_haloes": len(np.unique(halo)), "epsilon_mean": float(e.mean()),
        "epsilon_mean_error": bootstrap.error(lambda rows: float(e[rows].mean())),
        "epsilon_scatter": metrics.scatter(e),
        "epsilon_scatter_error": bootstrap.error(lambda rows: metrics.scatter(e[rows])),
        "coverage_68": covered(np.flatnonzero(known)) if known.any() else None,
        "coverage_68_error": bootstrap.error(covered, known) if known.any() else None,
    }  # fmt: skip


def scatter_change(before: pa.Table, after: pa.Table, seed: int) -> tuple[float, float]:
    """Scatter of `after` less that of `before` on the windows that both have, and its error.

    Both tables are resampled together: what the windows have in common cancels.
    """
    place = pc.index_in(after["cluster_id"], value_set=before["cluster_id"].combine_chunks())
    known = place.is_valid()
    a, b = residuals(before.take(place.drop_null())), residuals(after.filter(known))
    halo = halo_ids(after["cluster_id"].filter(known))
    bootstrap = metrics.Bootstrap(halo, generator(seed, "study-change"))

    def change(rows: metrics.Rows) -> float:
        return metrics.scatter(b[rows]) - metrics.scatter(a[rows])

    return change(np.arange(len(a))), bootstrap.error(change)


def table_of(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """A table from rows in which what is missing is missing; what it has no column for is left."""
    return make_table(name, {c: [row.get(c) for row in rows] for c in TABLES[name].names})
