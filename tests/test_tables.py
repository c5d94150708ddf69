"""Tables on disk: what goes in comes out, bad rows are named, writes are whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmass.columns import TABLES, Column, TableSchema
from cmass.errors import InputError, WorkspaceError
from cmass.tables import (
    atomic_path,
    check_table,
    file_digest,
    make_table,
    read_json,
    read_table,
    to_numpy,
    write_json,
    write_table,
)

ROOT = Path(__file__).parents[1]
_INTS = {"int8": 7, "int16": 15, "int32": 31, "int64": 63}


def values(column: Column) -> st.SearchStrategy:
    """Values that the dictionary allows in `column`."""
    if column.type == "string":
        one: st.SearchStrategy = st.text(max_size=8)
    elif column.type == "bool":
        one = st.booleans()
    elif column.type in _INTS:
        top = 2 ** _INTS[column.type] - 1
        low = -top if column.minimum is None else int(np.ceil(column.minimum))
        one = st.integers(low, top if column.maximum is None else int(column.maximum))
    elif column.type == "list<float32>":
        one = st.lists(st.floats(0, 1, width=32), max_size=4)
    elif column.type == "map<string,float64>":
        one = st.dictionaries(st.text(max_size=4), st.floats(0, 1), max_size=3).map(
            lambda d: list(d.items())
        )
    else:
        one = st.floats(
            column.minimum, column.maximum, allow_nan=False, allow_infinity=False,
            exclude_min=column.open_minimum, exclude_max=column.open_maximum,
            width=32 if column.type == "float32" else 64,
        )  # fmt: skip
    return st.none() | one if column.nullable else one


@st.composite
def tables(draw, schema: TableSchema) -> pa.Table:
    """Tables that keep to `schema`, with unique keys."""
    rows = draw(
        st.lists(
            st.fixed_dictionaries({c.name: values(c) for c in schema.columns}), max_size=4,
            unique_by=(lambda r: tuple(r[k] for k in schema.key)) if schema.key else None,
        )
    )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=schema.arrow_schema())


@pytest.mark.parametrize("name", TABLES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_round_trip(name, data, tmp_path_factory):
    table = data.draw(tables(TABLES[name]))
    folder = tmp_path_factory.mktemp("round")
    write_table(folder / "a.parquet", table, name)
    write_table(folder / "b.parquet", table, name)
    back = read_table(folder / "a.parquet", name)
    assert back.equals(table)
    assert file_digest(folder / "a.parquet") == file_digest(folder / "b.parquet")
    again = make_table(name, dict(zip(back.column_names, back.columns, strict=True)))
    assert again.equals(table)


# ------------------------------------------------------------------------------------ bad rows

GOOD = {
    "galaxy_id": [1, 2, 3], "ra": [0.0, 180.0, 359.9], "dec": [-90.0, 0.0, 90.0],
    "z": [0.01, 0.05, 0.1], "z_err": [1e-4, None, 1e-4], "r_mag": [17.0, None, 17.5],
    "in_legacy": [True, None, False], "s82": [False, False, None],
}  # fmt: skip


def galaxies(**changes) -> pa.Table:
    return make_table("raw_galaxies", GOOD | changes)


@pytest.mark.parametrize(
    ("column", "bad", "words"),
    [
        ("ra", 361.0, "ra must be < 360"),
        ("ra", 360.0, "ra must be < 360"),
        ("ra", -0.1, "ra must be >= 0"),
        ("ra", float("nan"), "ra is not finite"),
        ("ra", float("inf"), "ra is not finite"),
        ("ra", None, "missing value"),
        ("dec", 90.1, "dec must be <= 90"),
        ("z", 0.0, "z must be > 0"),
        ("z", -0.01, "z must be > 0"),
        ("z_err", -1.0, "z_err must be >= 0"),
    ],
)
def test_a_bad_value_is_named_with_file_column_and_row(column, bad, words):
    table = galaxies()
    values = table[column].to_pylist()
    values[1] = bad
    at = table.column_names.index(column)
    table = table.set_column(
        at, table.schema.field(at).with_nullable(True), pa.array(values, table[column].type)
    )
    with pytest.raises(InputError, match=words) as caught:
        check_table(table, TABLES["raw_galaxies"], "sky.parquet")
    assert (caught.value.column, caught.value.row) == (column, 1)
    assert str(caught.value.file) == "sky.parquet"


def test_good_values_at_the_edges_pass():
    check_table(galaxies(), TABLES["raw_galaxies"])


def test_duplicate_ids():
    with pytest.raises(InputError, match="the key appears 3 times.*galaxy_id.*7"):
        check_table(galaxies(galaxy_id=[7, 7, 7]), TABLES["raw_galaxies"])


def test_a_key_of_two_columns():
    columns = {
        "cluster_id": ["a", "a", "b"], "galaxy_id": [1, 2, 1], "x_proj": [0.0] * 3,
        "y_proj": [0.0] * 3, "v_los": [0.0] * 3,
    }  # fmt: skip
    check_table(make_table("galaxies", columns), TABLES["galaxies"])
    with pytest.raises(InputError, match="cluster_id, galaxy_id"):
        check_table(make_table("galaxies", columns | {"galaxy_id": [1, 1, 1]}), TABLES["galaxies"])


def test_missing_column_and_wrong_type():
    table = galaxies()
    with pytest.raises(InputError, match="lacks a column.*dec.*Its columns are galaxy_id, ra"):
        check_table(table.drop_columns(["dec"]), TABLES["raw_galaxies"])
    text = table.set_column(1, "ra", pa.array(["1", "2", "3"]))
    with pytest.raises(InputError, match=r"expected type double, found string.*ra"):
        check_table(text, TABLES["raw_galaxies"])


def test_make_table_names_missing_and_unknown_columns():
    with pytest.raises(InputError, match=r"missing columns \['dec'\], unknown columns \['decl'\]"):
        make_table("raw_galaxies", {("decl" if k == "dec" else k): v for k, v in GOOD.items()})


def test_make_table_takes_nan_for_missing_only_where_that_is_allowed():
    table = galaxies(z_err=np.array([np.nan, 1e-4, 1e-4]), ra=np.array([np.nan, 1.0, 2.0]))
    assert table["z_err"].null_count == 1
    assert table["ra"].null_count == 0
    with pytest.raises(InputError, match="ra is not finite"):
        check_table(table, TABLES["raw_galaxies"])


def test_a_bad_table_is_not_written(tmp_path):
    with pytest.raises(InputError):
        write_table(tmp_path / "t.parquet", galaxies(ra=[0.0, 1.0, 361.0]), "raw_galaxies")
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------- files


def test_a_folder_of_shards_is_read_in_name_order(tmp_path):
    for number in (2, 0, 1):
        table = galaxies(galaxy_id=[3 * number + i for i in range(3)])
        write_table(tmp_path / f"shard-{number}.parquet", table, "raw_galaxies")
    assert read_table(tmp_path, "raw_galaxies", ["galaxy_id"])["galaxy_id"].to_pylist() == list(
        range(9)
    )


@pytest.mark.parametrize("keep", [0, 3, 40, 0.5, -5])
def test_truncated_files_are_named(tmp_path, keep):
    path = tmp_path / "t.parquet"
    write_table(path, galaxies(), "raw_galaxies")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(InputError, match="not a readable Parquet file") as caught:
        read_table(path, "raw_galaxies")
    assert caught.value.file == path


def test_missing_file_and_empty_folder(tmp_path):
    for path in (tmp_path / "no.parquet", tmp_path):
        with pytest.raises(WorkspaceError, match="run the step that makes it first"):
            read_table(path, "raw_galaxies")


def test_a_file_that_lacks_a_column(tmp_path):
    pq.write_table(galaxies().drop_columns(["z"]), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="lacks a column.*t.parquet, column z"):
        read_table(tmp_path / "t.parquet", "raw_galaxies")


def test_to_numpy_makes_missing_floats_nan():
    ids, errors = to_numpy(galaxies(), "galaxy_id", "z_err")
    assert ids.tolist() == [1, 2, 3]
    assert np.isnan(errors).tolist() == [False, True, False]


def test_json(tmp_path):
    path = tmp_path / "v.json"
    write_json(path, {"b": 1, "a": [1.5, None, "h⁻¹"]})
    assert read_json(path) == {"b": 1, "a": [1.5, None, "h⁻¹"]}
    assert path.read_text().index('"a"') < path.read_text().index('"b"')
    path.write_text('{"a": ')
    with pytest.raises(WorkspaceError, match="v.json is damaged"):
        read_json(path)
    with pytest.raises(WorkspaceError, match="does not exist"):
        read_json(tmp_path / "no.json")


def test_digest_of_a_folder_sees_names_and_contents(tmp_path):
    (tmp_path / "a").write_text("1")
    first = file_digest(tmp_path)
    (tmp_path / "a").write_text("2")
    second = file_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, second, file_digest(tmp_path)}) == 3
    # the empty file's SHA-256, as everyone knows it
    (tmp_path / "b").write_text("")
    assert file_digest(tmp_path / "b").startswith("e3b0c44298fc1c14")


# ----------------------------------------------------------------------------------- atomicity


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert path.read_text() == "old"


def test_a_full_disk_is_a_workspace_error(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with (
        pytest.raises(WorkspaceError, match="no space left.*run the same command again"),
        atomic_path(path),
        open("/dev/full", "w") as stream,
    ):
        stream.write("x" * 100_000)
    assert path.read_text() == "old"


_WRITER = """
import sys, time
from pathlib import Path
from cmass.tables import atomic_path
path = Path(sys.argv[1])
for i in range(10**6):
    with atomic_path(path) as temporary:
        temporary.write_text(f"{i}:" + str(i % 10) * 200_000 + ":end")
    if i == 5:
        print("going", flush=True)
"""


def test_a_reader_never_sees_half_a_file_whenever_the_writer_is_killed(tmp_path):
    path = tmp_path / "f"
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "going\n"
    seen = set()
    for _ in range(300):
        text = path.read_text()
        number, body, end = text.split(":")
        assert end == "end"
        assert body == str(int(number) % 10) * 200_000
        seen.add(number)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert len(seen) > 1
    assert path.read_text().endswith(":end")


def test_files_are_readable_by_others(tmp_path):
    write_json(tmp_path / "v.json", 1)
    assert (tmp_path / "v.json").stat().st_mode & 0o777 == 0o644
    assert json.loads((tmp_path / "v.json").read_text()) == 1
