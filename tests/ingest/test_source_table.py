"""Single bad rows are set aside with a reason; a table full of them is an error."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmass.columns import TABLES
from cmass.contracts.quarantine import sift
from cmass.errors import InputError
from cmass.ingest.source_table import SourceTable, numbers
from cmass.tables import check_table


def galaxies(n=1000, **changes):
    """A good table with single values changed: column={row: value}."""
    columns = {
        "galaxy_id": list(range(n)),
        "ra": np.linspace(0, 359, n).tolist(),
        "dec": np.linspace(-80, 80, n).tolist(),
        "z": [0.05] * n,
        "z_err": [1e-4] * n,
        "r_mag": [17.0] * n,
        "in_legacy": [True] * n,
        "s82": [False] * n,
    }
    for name, values in changes.items():
        for row, value in values.items():
            columns[name][row] = value
    types = {"galaxy_id": pa.int64(), "in_legacy": pa.bool_(), "s82": pa.bool_()}
    arrays = {k: pa.array(v, types.get(k, pa.float64())) for k, v in columns.items()}
    return SourceTable("raw_galaxies", "some file", arrays)


@pytest.mark.parametrize(
    "column, value, words",
    [
        ("ra", float("nan"), "ra not finite"),
        ("ra", None, "ra missing"),
        ("ra", 361.0, "ra must be < 360"),
        ("ra", -0.1, "ra must be >= 0"),
        ("dec", 90.5, "dec must be <= 90"),
        ("z", 0.0, "z must be > 0"),
        ("z", -0.01, "z must be > 0"),
        ("z", float("inf"), "z not finite"),
        ("r_mag", -9999.0, "r_mag must be >= -5"),
        ("galaxy_id", 3, "galaxy_id the same as in row 3: must be unique"),
    ],
)
def test_one_bad_row_is_set_aside(column, value, words):
    good, bad = sift(galaxies(**{column: {17: value}}))
    assert good.num_rows == 999 and bad.num_rows == 1
    row = bad.to_pylist()[0]
    assert row["item"] == "raw_galaxies" and row["row_number"] == 17
    assert row["column_name"] == column and row["reason"] == words
    assert json.loads(row["record"])["dec"] is not None
    assert 17 not in good["galaxy_id"].to_pylist() or column == "galaxy_id"
    check_table(good, TABLES["raw_galaxies"])


def test_missing_values_where_allowed_stay():
    good, bad = sift(galaxies(r_mag={0: None, 1: float("nan")}, in_legacy={2: None}))
    assert bad.num_rows == 0
    assert good["r_mag"].null_count == 2 and good["in_legacy"].null_count == 1


def test_of_three_equal_keys_the_first_stays():
    good, bad = sift(galaxies(galaxy_id={500: 4, 600: 4}))
    assert bad["row_number"].to_pylist() == [500, 600]
    assert good["galaxy_id"].to_pylist().count(4) == 1


def test_a_bad_row_does_not_claim_a_key():
    """Row 4 is set aside for its redshift, so row 500 is the only one with that id."""
    _, bad = sift(galaxies(galaxy_id={500: 4}, z={4: -1.0}))
    assert bad["row_number"].to_pylist() == [4]


def test_text_that_is_no_number():
    values, unreadable = numbers(pa.array([" 1.5", "", "null", "2e-3", "x1", "-"]))
    assert values.to_pylist() == [1.5, None, None, 2e-3, None, None]
    assert unreadable == {4: "x1", 5: "-"}
    source = galaxies(r_mag={8: None})
    source.unreadable = {"r_mag": {8: "x1"}}
    _, bad = sift(source)
    assert bad["value_text"].to_pylist() == ["x1"]
    assert json.loads(bad["record"][0].as_py())["r_mag"] == "x1"


def test_whole_numbers_only():
    source = galaxies()
    ids = [float(i) for i in range(1000)]
    ids[3], ids[4] = 3.5, 1e30
    source.columns["galaxy_id"] = pa.array(ids)
    _, bad = sift(source)
    assert bad["row_number"].to_pylist() == [3, 4]


def test_too_many_bad_rows_mean_a_wrong_file():
    ten = dict.fromkeys(range(100, 110), 400.0)
    good, bad = sift(galaxies(ra=ten))
    assert (good.num_rows, bad.num_rows) == (990, 10)
    with pytest.raises(InputError, match="11 of 1000 rows") as raised:
        sift(galaxies(ra=ten | {7: 400.0}))
    assert raised.value.row == 7 and raised.value.value == "400.0"
    assert raised.value.column == "ra" and raised.value.file == "some file"
    # in a short table single slips are no proof
    good, bad = sift(galaxies(20, z=dict.fromkeys(range(5), -1.0)))
    assert (good.num_rows, bad.num_rows) == (15, 5)
    with pytest.raises(InputError):
        sift(galaxies(20, z=dict.fromkeys(range(6), -1.0)))


def test_a_footprint_cannot_spare_a_cap():
    """A polygon without one of its caps would be larger than it is."""
    caps = {name: pa.array([0.0, 0.0, 1.0]) for name in ("cap_x", "cap_y", "cap_z")}
    columns = {"polygon_id": pa.array([0, 0, 0]), **caps, "cap_cm": pa.array([1.0, 1.0, 2.5])}
    with pytest.raises(InputError, match="1 of 3 rows") as raised:
        sift(SourceTable("raw_footprint", "window.ply", columns))
    assert raised.value.column == "cap_cm" and raised.value.row == 2


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 999),
            st.sampled_from(["ra", "dec", "z", "r_mag"]),
            st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)),
        ),
        max_size=9,
    )
)
def test_no_row_is_lost(changes):
    """Rows in = good + set aside, and what is good passes the strict check."""
    values = {}
    for row, column, value in changes:
        values.setdefault(column, {})[row] = value
    good, bad = sift(galaxies(**values))
    assert good.num_rows + bad.num_rows == 1000
    assert not set(good["galaxy_id"].to_pylist()) & set(bad["row_number"].to_pylist())
    check_table(good, TABLES["raw_galaxies"])
    check_table(bad, TABLES["quarantine"])
