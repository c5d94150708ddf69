"""What a table must be like, made from the column dictionary, and checked by Great Expectations.

Beside the dictionary stands one physical check: masses must fit radii, which shows at once
where a factor of h was lost.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from cmass.columns import GALWEIGHT_OVERDENSITIES, TABLES, Column, TableSchema
from cmass.cosmology import GRAVITY_MPC_KM2_S2_MSUN, Cosmology
from cmass.errors import InputError
from cmass.tables import to_numpy

log = logging.getLogger(__name__)
#: Largest deviation of the median mass from that of its radius.
MASS_RATIO_TOLERANCE = 0.10
#: pandas types that hold each Arrow type with missing values, and their names for it.
_PANDAS = {
    "string": "str", "bool": "bool", "int8": "int8", "int16": "int16", "int32": "int32",
    "int64": "int64", "float32": "float32", "float64": "float64",
}  # fmt: skip


def mass_radius_ratio(table: pa.Table, cosmology: Cosmology) -> dict[str, float]:
    """Median of M / (Δ/2 H(z)² r³ / G) with h = 1, by overdensity Δ as in column names.

    Parameters
    ----------
    table : pa.Table
        Table raw_clusters.
    cosmology : Cosmology
        For H(z)/H0.

    Returns
    -------
    dict
        One ratio for each overdensity that has masses and radii; 1 where the units fit.
    """
    ratios = {}
    for name in GALWEIGHT_OVERDENSITIES:
        mass, radius, z = to_numpy(table, f"m{name}_msun_h", f"r{name}_mpc_h", "z")
        known = (mass > 0) & (radius > 0)
        if not known.any():
            continue
        hubble = 100.0 * cosmology.e(z[known])
        delta = float(name.replace("p", "."))
        expected = 0.5 * delta * hubble**2 * radius[known] ** 3 / GRAVITY_MPC_KM2_S2_MSUN
        ratios[name] = float(np.median(mass[known] / expected))
    return ratios


def check_units(table: pa.Table, cosmology: Cosmology, h: float, file: str | None = None) -> None:
    """Raise `InputError` where the masses of table raw_clusters do not fit its radii.

    Parameters
    ----------
    table : pa.Table
    cosmology : Cosmology
    h : float
        H0/(100 km/s/Mpc), to say which factor is missing.
    file : str, optional
        For the error.
    """
    for name, ratio in mass_radius_ratio(table, cosmology).items():
        if abs(ratio - 1) <= MASS_RATIO_TOLERANCE:
            continue
        # A quantity without its h⁻¹ is larger or smaller by 1/h.
        causes = {
            "the masses are in Msun, not Msun/h: multiply them by h": 1 / h,
            "the masses were multiplied by h twice: divide them by h": h,
            "the radii are in Mpc, not Mpc/h: multiply them by h": h**3,
            "the radii were multiplied by h twice: divide them by h": h**-3,
            "masses and radii are in Msun and Mpc: multiply both by h": h**2,
            "masses and radii were multiplied by h twice: divide both by h": h**-2,
        }
        cause, expected = min(causes.items(), key=lambda item: abs(np.log(ratio / item[1])))
        guess = f"It looks as if {cause}" if abs(np.log(ratio / expected)) < 0.1 else (
            "No power of h explains the ratio: check the units and the columns"
        )  # fmt: skip
        raise InputError(
            f"masses or radii lack the factor h: the median M{name} is {ratio:.3f} times the mass "
            f"that r{name} gives ({name.replace('p', '.')}/2 H(z)² r³/G with h = 1)",
            file=file, column=f"m{name}_msun_h, r{name}_mpc_h", value=round(ratio, 3),
            remedy=guess,
        )  # fmt: skip


def check_xray_units(table: pa.Table, file: str | None = None) -> None:
    """Raise `InputError` where the masses of table xray_clusters do not fit its radii.

    M500 = 250 H(z)² R500³ / G in the catalogue's own cosmology, by definition; a factor of h
    lost from either shows as 0.7 or 0.7³.

    Parameters
    ----------
    table : pa.Table
    file : str, optional
        For the error.
    """
    from cmass.ingest.xray import H70, OMEGA_M

    mass, radius, z = to_numpy(table, "m500_h70_msun", "r500_h70_mpc", "z")
    hubble = 100 * H70 * np.sqrt(OMEGA_M * (1 + z) ** 3 + 1 - OMEGA_M)
    ratio = mass / (250 * hubble**2 * radius**3 / GRAVITY_MPC_KM2_S2_MSUN)
    median = float(np.median(ratio))
    if abs(median - 1) > MASS_RATIO_TOLERANCE:
        raise InputError(
            f"X-ray masses do not fit their radii: the median M500 is {median:.3g} times 250 H(z)² "
            "R500³/G with H0 = 70 km/s/Mpc",
            file=file, column="m500_h70_msun, r500_h70_mpc", value=round(median, 3),
            remedy="M500 is in 10^14 Msun and R500 in Mpc, both without h; check the units",
        )  # fmt: skip
    for row in np.flatnonzero(np.abs(ratio - 1) > MASS_RATIO_TOLERANCE):
        log.warning(
            "%s: M500 of %s is %.2f times what its R500 gives; both are kept as they stand",
            file or "X-ray clusters", table["xray_name"][int(row)].as_py(), ratio[row],
        )  # fmt: skip


def validate(tables: Mapping[str, pa.Table]) -> dict[str, Any]:
    """Check tables against the suites made from the column dictionary.

    Parameters
    ----------
    tables : mapping
        Table by its name in `cmass.columns.TABLES`.

    Returns
    -------
    dict
        ``success`` and ``tables``: for each its ``rows``, ``success`` and a list of
        ``expectations`` (type, column, limits, success, what was found). The same tables give
        the same dict.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    # It reports every internal step at level info.
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    import great_expectations as gx

    context: Any = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    source = context.data_sources.add_pandas("cmass")
    results: dict[str, Any] = {}
    for name, table in tables.items():
        schema = TABLES[name]
        batch = (
            source.add_dataframe_asset(name)
            .add_batch_definition_whole_dataframe(name)
            .get_batch({"dataframe": _frame(table, schema)})
        )
        suite = gx.ExpectationSuite(name=name)
        for expectation in _expectations(schema):
            suite.add_expectation(expectation)
        outcome = batch.validate(suite)
        rows = [_plain(result) for result in outcome.results]
        rows.sort(key=lambda row: (row["column"], row["expectation"]))
        results[name] = {
            "rows": table.num_rows, "success": bool(outcome.success), "expectations": rows,
        }  # fmt: skip
    return {"success": all(r["success"] for r in results.values()), "tables": results}


def require(results: Mapping[str, Any]) -> None:
    """Raise `InputError` for the first expectation of `validate` that was not met."""
    for name, table in results["tables"].items():
        for row in table["expectations"]:
            if not row["success"]:
                raise InputError(
                    f"table {name}: {row['expectation']} is not met; {row['found']}",
                    column=row["column"] or None,
                    remedy="raw/expectations.json holds the whole result",
                )


def _frame(table: pa.Table, schema: TableSchema) -> Any:
    """pandas frame whose types keep missing integers and booleans apart from values."""
    import pandas as pd

    types = {pa.bool_(): pd.BooleanDtype(), pa.int32(): pd.Int32Dtype()}
    return table.select(schema.names).to_pandas(types_mapper=types.get)


def _expectations(schema: TableSchema) -> list[Any]:
    import great_expectations.expectations as gxe

    made: list[Any] = [
        gxe.ExpectTableColumnsToMatchSet(column_set=schema.names, exact_match=True),
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
    ]
    for column in schema.columns:
        if column.type in _PANDAS:
            made.append(
                gxe.ExpectColumnValuesToBeOfType(column=column.name, type_=_PANDAS[column.type])
            )
        if not column.nullable:
            made.append(gxe.ExpectColumnValuesToNotBeNull(column=column.name))
        if column.minimum is not None or column.maximum is not None:
            made.append(gxe.ExpectColumnValuesToBeBetween(column=column.name, **_limits(column)))
    if len(schema.key) == 1:
        made.append(gxe.ExpectColumnValuesToBeUnique(column=schema.key[0]))
    elif schema.key:
        made.append(gxe.ExpectCompoundColumnsToBeUnique(column_list=list(schema.key)))
    return made


def _limits(column: Column) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if column.minimum is not None:
        limits |= {"min_value": column.minimum, "strict_min": column.open_minimum}
    if column.maximum is not None:
        limits |= {"max_value": column.maximum, "strict_max": column.open_maximum}
    return limits


def _plain(result: Any) -> dict[str, Any]:
    """One result without what changes from run to run."""
    config = result.expectation_config
    kwargs = {k: v for k, v in config.kwargs.items() if k != "batch_id"}
    column = kwargs.pop("column", "") or ", ".join(kwargs.pop("column_list", []))
    kwargs.pop("column_set", None)
    found = result.result or {}
    if "unexpected_count" in found:
        words = f"{found['unexpected_count']} of {found['element_count']} rows break it"
        examples = [str(value) for value in found.get("partial_unexpected_list", [])[:3]]
        words += f": {', '.join(examples)}" if examples else ""
    elif "observed_value" in found:
        words = f"found {found['observed_value']}"
    else:
        info = getattr(result, "exception_info", None) or {}
        words = str(info.get("exception_message") or "no result")
    return {
        "expectation": config.type,
        "column": column,
        "limits": dict(sorted(kwargs.items())),
        "success": bool(result.success),
        "found": words,
    }
