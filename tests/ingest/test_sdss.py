"""SDSS galaxies from a mirror's Parquet file and from SkyServer's answers."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cmass.contracts.quarantine import sift
from cmass.errors import InputError
from cmass.ingest import sdss
from cmass.ingest.footprint import Footprint

NORTH = Footprint(np.zeros(1, np.int32), np.array([[0.0, 0.0, 1.0, 1.0]]))
HEAD = "#Table1\ngalaxy_id,ra,dec,z,z_err,r_mag,programname\n"


def mirror(path, n=50, **columns):
    table = {
        "ra": np.linspace(0, 359, n), "dec": np.linspace(-10, 60, n), "z": np.full(n, 0.07),
        "z_err": np.full(n, 1e-4, np.float32), "in_legacy": np.ones(n, bool), "extra": np.arange(n),
    } | columns  # fmt: skip
    pq.write_table(pa.table({k: v for k, v in table.items() if v is not None}), path)
    return path


def test_mirror_is_passed_through(tmp_path):
    good, bad = sift(sdss.read_mirror(mirror(tmp_path / "g.parquet")))
    assert bad.num_rows == 0
    assert good["galaxy_id"].to_pylist() == list(range(50))
    assert np.array_equal(good["ra"].to_numpy(), np.linspace(0, 359, 50))
    assert good["r_mag"].null_count == good["s82"].null_count == 50
    assert "extra" not in good.column_names


def test_mirror_that_cannot_be_used(tmp_path):
    path = mirror(tmp_path / "g.parquet", z=None)
    with pytest.raises(InputError, match="lacks columns") as raised:
        sdss.read_mirror(path)
    assert raised.value.column == "z"
    mirror(path, z=np.array(["far"] * 50))
    with pytest.raises(InputError, match="expected type double") as raised:
        sdss.read_mirror(path)
    assert raised.value.column == "z"
    mirror(path, n=0)
    with pytest.raises(InputError, match="no rows"):
        sdss.read_mirror(path)
    whole = mirror(path).read_bytes()
    for part in (b"", whole[: len(whole) // 2], b"<html>"):
        path.write_bytes(part)
        with pytest.raises(InputError, match="not a readable Parquet file"):
            sdss.read_mirror(path)
    with pytest.raises(InputError, match="no such file"):
        sdss.read_mirror(tmp_path / "absent.parquet")


def answer(path, *rows, head=HEAD):
    path.write_text(head + "".join(row + "\n" for row in rows))
    return path


def test_chunks_are_joined(tmp_path):
    """Identifiers keep all 19 digits; null magnitudes are missing; footprint and stripe."""
    one = answer(
        tmp_path / "a.csv",
        "299489677444933633,10.5,20.0,0.05,1e-5,17.1,legacy",
        "9223372036854775807,10.5,-20.0,0.06,1e-5,null,legacy",
    )
    two = answer(
        tmp_path / "b.csv",
        "3,200.0,0.5,0.06,1e-5,16.5,legacy",
        "4,350.0,0.5,0.06,1e-5,16.5,legacy",
        "5,100.0,50.0,0.06,1e-5,16.5, Southern ",
    )
    table = sdss.assemble(iter([sdss.read_chunk(one), sdss.read_chunk(two)]), NORTH, "the server")
    good, bad = sift(table)
    assert bad.num_rows == 0
    assert good["galaxy_id"].to_pylist()[:2] == [299489677444933633, 9223372036854775807]
    assert good["r_mag"].null_count == 1 and good["r_mag"][1].as_py() is None
    assert good["in_legacy"].to_pylist() == [True, False, True, True, True]
    assert good["s82"].to_pylist() == [False, False, False, True, True]


def test_an_identifier_beyond_64_bits_is_an_error(tmp_path):
    row = "9223372036854775808,10.5,20.0,0.05,1e-5,17.1,legacy"
    chunk = sdss.read_chunk(answer(tmp_path / "a.csv", row))
    with pytest.raises(InputError, match="does not fit 64 bits") as raised:
        sdss.assemble(iter([chunk]), NORTH, "the server")
    assert raised.value.value == "9223372036854775808"


def test_bad_cells_are_set_aside(tmp_path):
    rows = [f"{i},10.5,20.0,0.05,1e-5,17.1,legacy" for i in range(400)]
    rows[3] = "x,10.5,20.0,0.05,1e-5,17.1,legacy"
    rows[5] = "5,here,20.0,0.05,1e-5,17.1,legacy"
    rows[7] = "7,10.5,,0.05,1e-5,17.1,legacy"
    chunk = sdss.read_chunk(answer(tmp_path / "a.csv", *rows))
    good, bad = sift(sdss.assemble(iter([chunk]), NORTH, "the server"))
    assert good.num_rows == 397
    assert bad["row_number"].to_pylist() == [3, 5, 7]
    assert bad["value_text"].to_pylist() == ["x", "here", ""]


def test_answers_that_are_no_table(tmp_path):
    path = tmp_path / "a.csv"
    answer(path, "1,2,3")
    with pytest.raises(InputError, match="not a CSV answer"):
        sdss.read_chunk(path)
    path.write_text(HEAD + "1,10.5,20.0,0.05")
    with pytest.raises(InputError, match="cut short"):
        sdss.read_chunk(path)
    with pytest.raises(InputError, match="lacks columns") as raised:
        sdss.read_chunk(answer(path, "1,2", head="#Table1\ngalaxy_id,ra\n"))
    assert raised.value.column == "dec, z, z_err, r_mag, programname"
    with pytest.raises(InputError, match="expected a count"):
        sdss.read_count(answer(path, "many", head="#Table1\nn\n"))
    with pytest.raises(InputError, match="one number named n"):
        sdss.read_count(answer(path, "1", "2", head="#Table1\nn\n"))
    assert sdss.read_count(answer(path, "12", head="n\n")) == 12


@pytest.mark.parametrize(
    "text",
    ["#Table1\nn\n\u00b2\n", "#Table1\nn\n-1\n", "#Table1\nn\n" + "9" * 5000 + "\n", "n\n1e3\n"],
)
def test_a_count_that_is_none(tmp_path, text):
    path = tmp_path / "count.csv"
    path.write_text(text)
    with pytest.raises(InputError, match="expected a count"):
        sdss.read_count(path)


def test_answers_with_quoted_and_unreadable_names(tmp_path):
    path = tmp_path / "count.csv"
    path.write_text('"n"\n12\n')
    assert sdss.read_count(path) == 12
    path.write_text('"n""m"\n12\n')
    with pytest.raises(InputError, match="names are not read|one number named n"):
        sdss.read_count(path)
    path.write_bytes(b"n\xff\n12\n")
    with pytest.raises(InputError, match="not a CSV answer"):
        sdss.read_count(path)
