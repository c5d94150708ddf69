"""Suites made from the column dictionary: of rows, of batches of a large table, of numbers."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cmass.columns import TABLES
from cmass.contracts import suites
from cmass.contracts.suites import (
    Limit,
    broken,
    files_check,
    limits_check,
    table_check,
    validate,
)
from cmass.errors import InputError
from cmass.tables import make_table

N = 40


def galaxies(**columns):
    table = {
        "galaxy_id": np.arange(N), "ra": np.linspace(0, 359, N), "dec": np.linspace(-80, 80, N),
        "z": np.full(N, 0.05), "z_err": np.full(N, 1e-4), "r_mag": np.full(N, 17.0),
        "in_legacy": np.ones(N, bool), "s82": np.zeros(N, bool),
    } | columns  # fmt: skip
    schema = TABLES["raw_galaxies"].arrow_schema()
    return pa.table({f.name: pa.array(table[f.name], f.type) for f in schema})


def failed(results, name="raw_galaxies"):
    rows = results["tables"][name]["expectations"]
    return [(row["expectation"], row["column"]) for row in rows if not row["success"]]


def test_every_word_of_the_dictionary_becomes_an_expectation():
    results = validate([table_check("raw_galaxies", galaxies())])
    assert results["success"] and broken(results) == []
    rows = results["tables"]["raw_galaxies"]["expectations"]
    found = {(row["expectation"], row["column"]) for row in rows}
    for column in TABLES["raw_galaxies"].columns:
        assert ("expect_column_values_to_be_of_type", column.name) in found
        assert (("expect_column_values_to_not_be_null", column.name) in found) != column.nullable
        limited = column.minimum is not None or column.type.startswith("float")
        assert (("expect_column_values_to_be_between", column.name) in found) == limited
    assert ("expect_column_values_to_be_unique", "galaxy_id") in found
    assert validate([table_check("raw_galaxies", galaxies())]) == results


#: Column, its values, the expectation of rows that breaks, the one of batches.
BAD = [
    ("ra", np.r_[np.linspace(0, 359, N - 1), 361], "between", "ra.largest"),
    ("ra", np.r_[np.linspace(0, 359, N - 1), 360], "between", "ra.largest"),
    ("z", np.r_[np.full(N - 1, 0.05), 0.0], "between", "z.least"),
    ("z", np.r_[np.full(N - 1, 0.05), np.inf], "between", "z.not_finite"),
    ("dec", [None] + [0.0] * (N - 1), "not_be_null", "dec.missing"),
    ("dec", [np.nan] + [0.0] * (N - 1), "not_be_null", "dec.not_finite"),
    ("galaxy_id", [1, 1, *range(2, N)], "be_unique", "repeated_keys"),
]  # fmt: skip


@pytest.mark.parametrize("column, values, expectation, batches", BAD)
def test_a_bad_value_is_found_and_named(
    column, values, expectation, batches, tmp_path, monkeypatch
):
    table = galaxies(**{column: values})
    results = validate([table_check("raw_galaxies", table)])
    assert [name for _, name in failed(results)] == [column]
    assert failed(results)[0][0].endswith(expectation)
    (words,) = broken(results)
    assert words.startswith(f"table raw_galaxies, {column}: expect column values to")

    # the same by batches: two files of two batches each
    monkeypatch.setattr(suites, "ROWS_AT_ONCE", N - 1)
    monkeypatch.setattr(suites, "BATCH", N // 4)
    files = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for file, part in zip(files, (table.slice(0, N // 2), table.slice(N // 2)), strict=True):
        pq.write_table(part, file)
    check = files_check("raw_galaxies", files)
    assert check.rows == N and len(check.frame) == 4
    assert [name for _, name in failed(validate([check]))] == [batches]


def test_batches_of_a_good_table_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(suites, "ROWS_AT_ONCE", 10)
    table = galaxies(r_mag=[None] * N, in_legacy=[None] * N)
    pq.write_table(table, tmp_path / "t.parquet")
    results = validate([files_check("raw_galaxies", [tmp_path / "t.parquet"])])
    assert results["success"]
    pq.write_table(table.drop_columns(["z"]), tmp_path / "t.parquet")
    results = validate([files_check("raw_galaxies", [tmp_path / "t.parquet"])])
    assert [name for _, name in failed(results)] == ["missing_or_of_another_type"]
    assert broken(results)[0].endswith("1 of 1 rows break it: z")


def test_a_wrong_type_a_missing_column_and_no_row_are_found():
    table = galaxies()
    narrow = table.set_column(1, "ra", table["ra"].cast(pa.float32()))
    results = validate([table_check("raw_galaxies", narrow)])
    assert failed(results) == [("expect_column_values_to_be_of_type", "ra")]
    results = validate([table_check("raw_galaxies", table.drop_columns(["ra"]))])
    assert failed(results) == [("expect_table_columns_to_match_set", "")]
    none = table.slice(0, 0)
    assert not validate([table_check("raw_galaxies", none)])["success"]
    assert validate([table_check("raw_galaxies", none, empty=True)])["success"]


def test_a_key_of_two_columns():
    columns = {"cluster_id": ["a", "a", "b"], "galaxy_id": [1, 2, 1], "x_proj": [0.0] * 3,
               "y_proj": [0.0] * 3, "v_los": [0.0] * 3}  # fmt: skip
    assert validate([table_check("galaxies", make_table("galaxies", columns))])["success"]
    twice = make_table("galaxies", columns | {"galaxy_id": [1, 1, 1]})
    results = validate([table_check("galaxies", twice)])
    assert failed(results, "galaxies") == [
        ("expect_compound_columns_to_be_unique", "cluster_id, galaxy_id")
    ]


def test_missing_integers_are_no_floats():
    """A nullable integer keeps its type in pandas."""
    windows = {"cluster_id": ["a", "b"], "x_proj": [0.0, 1.0], "y_proj": [0.0, 1.0],
               "v_los": [0.0, 1.0], "r_mag": [17.0, None], "galaxy_class": [None, 2],
               "host_log10_m200c": [None, 14.0]}  # fmt: skip
    table = make_table("mock_galaxies", windows)
    assert validate([table_check("mock_galaxies", table)])["success"]


def test_numbers_against_limits():
    limits = [Limit("good", 1.0, 1.0, 1.0), Limit("low", 0.5, 0.6), Limit("none", None, 0, 1),
              Limit("lost", float("nan"), 0, 1)]  # fmt: skip
    results = validate([limits_check("statistics", limits)])
    assert {name for _, name in failed(results, "statistics")} == {"low", "none", "lost"}
    found = {r["column"]: r["found"] for r in results["tables"]["statistics"]["expectations"]}
    assert found["low"] == "0.5" and found["none"] == "nan"


def test_a_damaged_file_is_named(tmp_path):
    file = tmp_path / "t.parquet"
    pq.write_table(galaxies(), file)
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(InputError, match="not a readable Parquet file.*t.parquet"):
        files_check("raw_galaxies", [file])
