"""Files in and out: every format gives back what was written."""

import gzip

import numpy as np
import pyarrow as pa
import pytest
from astropy import units
from astropy.io import fits
from astropy.io.votable import parse_single_table
from astropy.table import Table

from cmass import formats
from cmass.errors import InputError
from cmass.tables import make_table

SUFFIXES = [".parquet", ".csv", ".ecsv", ".fits", ".vot"]


def masses():
    """Three rows: full, without a posterior, without a mass."""
    n = np.array([120, 40, 2])
    values = np.array([14.5, 15.6, np.nan])
    quantile = np.array([14.4, np.nan, np.nan])
    columns = {
        "cluster_id": ["GalWCat19-0003", "0042", "é"], "ra": [10.5, 359.9, 0.0],
        "dec": [-10.0, 89.5, 0.0], "z": [0.05, 0.08, 0.02], "n_galaxies": n,
        "log10_m200c": values, "sigma_minus": quantile, "sigma_plus": quantile,
        "log10_m200c_dispersion": values, "outlier_distance": quantile,
        "outlier_p": [0.5, 0.01, np.nan], "second_peak": quantile, "second_peak_p": quantile, "flag": [0, 8, 1],
        "posterior": pa.array([[0.25, 0.5, 0.25], [], []], pa.list_(pa.float32())),
    }  # fmt: skip
    for prior in ("", "hmf_"):
        for q in ("p16", "p50", "p84"):
            columns[f"log10_m200c_{prior}{q}"] = quantile
    return make_table("masses", columns)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(tmp_path, suffix):
    table, path = masses(), tmp_path / f"m{suffix}"
    formats.write(path, table)
    back = formats.read(path)
    assert back.column_names == table.column_names
    for name in table.column_names:
        if name == "posterior" and suffix == ".csv":
            assert back[name].to_pylist()[0] == "0.25 0.5 0.25"
            continue
        expected, found = table[name].to_pylist(), back[name].to_pylist()
        assert found == expected, name
    if suffix != ".csv":
        field = back.schema.field("log10_m200c")
        # h is no unit of astropy's: the name of the unit is kept as it is written.
        assert field.metadata[b"unit"].decode().replace(" ", "") == "log10(Msun/h)"
        assert b"Point estimate" in field.metadata[b"description"] or suffix == ".fits"


def test_independent_readers_see_units_and_ucds(tmp_path):
    formats.write(tmp_path / "m.vot", masses())
    votable = parse_single_table(tmp_path / "m.vot")
    field = votable.get_field_by_id_or_name("ra")
    assert field.ucd == "pos.eq.ra;meta.main"
    assert str(field.unit) == "deg"
    assert "Right ascension" in field.description
    formats.write(tmp_path / "m.fits", masses())
    with fits.open(tmp_path / "m.fits") as hdus:
        hdu = hdus[1]
        number = hdu.columns.names.index("ra") + 1
        assert hdu.columns["ra"].unit == "deg"
        assert hdu.header[f"TUCD{number}"] == "pos.eq.ra;meta.main"
        assert "Right ascension" in hdu.header[f"TCOMM{number}"]
        assert hdu.columns["posterior"].format == "3E"


def test_astropy_table_with_masks_and_units():
    table = Table({"ra": [1.0, 2.0] * units.deg, "name": ["a", "b"]}, masked=True)
    table["z"] = np.ma.array([0.1, 0.2], mask=[False, True])
    table["ra"].info.description = "where"
    arrow = formats.from_astropy(table)
    assert arrow["z"].to_pylist() == [0.1, None]
    assert arrow.schema.field("ra").metadata[b"unit"] == b"deg"
    back = formats.to_astropy(arrow)
    assert back["ra"].unit == units.deg
    assert back["z"].mask.tolist() == [False, True]
    assert back["ra"].description == "where"


def test_big_endian_and_bytes_from_fits():
    table = Table({"n": np.array([1, 2], ">i4"), "name": np.array([b"x", b"yy"])})
    arrow = formats.from_astropy(table)
    assert arrow.to_pydict() == {"n": [1, 2], "name": ["x", "yy"]}


def test_identifiers_keep_leading_zeros(tmp_path):
    (tmp_path / "c.csv").write_text("cluster_id,ra,dec,z\n0007,1,2,0.05\n,1,2,\n")
    table = formats.read(tmp_path / "c.csv")
    assert table["cluster_id"].to_pylist() == ["0007", None]
    assert table["z"].to_pylist() == [0.05, None]


_ROWS = [("0001", 150.25, -2.5), ("0002", 151.0, 3.0)]


@pytest.mark.parametrize(
    ("head", "delimiter"),
    [
        ("cluster_id,ra,dec", ","),
        ("\ufeffcluster_id,ra,dec", ","),
        ("cluster_id;ra;dec", ";"),
        ("cluster_id\tra\tdec", "\t"),
        ("cluster_id, ra, dec", ", "),
        ("# from somebody, in 2026\n# J2000\ncluster_id,ra,dec", ","),
        ("# by numpy.savetxt\n# cluster_id,ra,dec", ","),
        ("# by numpy.savetxt\n# ra, dec, cluster_id", ", "),
        ("#cluster_id;ra;dec", ";"),
        ("ra, dec, cluster_id", ", "),
        ("cluster_id ,ra ,dec", " ,"),
        ("# J2000\n\ncluster_id;ra;dec", ";"),
        ('"cluster_id","ra","dec"', ","),
        ('"cluster_id", "ra", "dec"', ", "),
        ('"ra", "dec", "cluster_id"', ", "),
        ("\n# J2000\n\n# in degrees\ncluster_id\tra\tdec", "\t"),
    ],
)
def test_csv_as_people_write_it(tmp_path, head, delimiter):
    last = head.rstrip('"').endswith("cluster_id")
    rows = "\n".join(delimiter.join(map(str, (*r[1:], r[0]) if last else r)) for r in _ROWS)
    (tmp_path / "a.csv").write_text(f"{head}\n{rows}\n")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(f"{head}\n{rows}\n".encode()))
    for name in ("a.csv", "a.csv.gz"):
        table = formats.read(tmp_path / name)
        assert table.select(["cluster_id", "ra", "dec"]).to_pylist() == [
            dict(zip(("cluster_id", "ra", "dec"), r, strict=True)) for r in _ROWS
        ]


def test_csv_comments_between_rows_are_comments(tmp_path):
    (tmp_path / "a.csv").write_text("ra,dec\n1,2\n# the faint ones\n\n3,4\n")
    assert formats.read(tmp_path / "a.csv").to_pydict() == {"ra": [1, 3], "dec": [2, 4]}


@pytest.mark.parametrize("line", ["5", "5,6,7", "5,6  # by eye, and not well"])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_csv_line_that_is_too_short_or_long_is_named(tmp_path, line, suffix):
    path = tmp_path / f"a{suffix}"
    content = f"# two\nra,dec\n1,2\n\n# more\n3,4\n{line}\n8,9\n".encode()
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    fields = len(line.split(","))
    with pytest.raises(InputError, match=rf"line 7 has {fields} fields, the header 2 .*{line}"):
        formats.read(path)


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tmp_path):
    bomb = tmp_path / "a.csv.gz"
    block = b"a,1,2,0.05\n" * 1_000_000
    with gzip.open(bomb, "wb", 9) as stream:
        stream.write(b"cluster_id,ra,dec,z\n")
        for _ in range(100):
            stream.write(block)
    assert bomb.stat().st_size < 3e6
    with pytest.raises(InputError, match="larger than 1 GB when it is unpacked"):
        formats.read(bomb)


def test_entities_of_a_votable_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("of this machine")
    names = "".join(f'<!ENTITY l{i} "{10 * (f"&l{i - 1};" if i else "lol")}">' for i in range(10))
    body = "<VOTABLE version='1.3'><RESOURCE><DESCRIPTION>{}</DESCRIPTION></RESOURCE></VOTABLE>"
    for dtd, entity in ((names, "&l9;"), (f'<!ENTITY x SYSTEM "file://{secret}">', "&x;")):
        (tmp_path / "a.vot").write_text(f"<!DOCTYPE a [{dtd}]>{body.format(entity)}")
        with pytest.raises(InputError) as raised:
            formats.read(tmp_path / "a.vot")
        assert "of this machine" not in str(raised.value)


def test_csv_without_names_says_what_it_took_for_names(tmp_path):
    (tmp_path / "a.csv").write_text("# two numbers a row\n1.5,2.5\n3.5,4.5\n")
    with pytest.raises(InputError, match=r"The columns are 1\.5, 2\.5"):
        formats.read(tmp_path / "a.csv", {"ra": "RA"})


def test_rename_maps_and_displaces(tmp_path):
    (tmp_path / "c.csv").write_text("ra,RAJ2000\nx,1.5\n")
    assert formats.read(tmp_path / "c.csv", {"ra": "RAJ2000"}).to_pydict() == {"ra": [1.5]}
    with pytest.raises(InputError, match=r"no column 'RA2000'.*RAJ2000"):
        formats.read(tmp_path / "c.csv", {"ra": "RA2000"})


@pytest.mark.parametrize("name", ["c.txt", "c", "c.parquet.bak"])
def test_unknown_suffix(tmp_path, name):
    with pytest.raises(InputError, match=r"\.parquet .*\.fits"):
        formats.read(tmp_path / name)
    with pytest.raises(InputError, match="suffix"):
        formats.write(tmp_path / name, masses())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_empty_and_absent_files(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    with pytest.raises(InputError, match="no such file"):
        formats.read(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="empty"):
        formats.read(path)
    formats.write(path, masses())
    whole = path.read_bytes()
    if suffix == ".csv":
        path.write_bytes(b"a,b\n1,2\n3\n")
    else:
        path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not readable as|line 3 has 1 fields"):
        formats.read(path)
    path.write_bytes(b"<html>404</html>")
    if suffix != ".csv":
        with pytest.raises(InputError, match="not readable as"):
            formats.read(path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.fits"
    formats.write(path, masses())
    before = path.read_bytes()

    def broken(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(formats, "fits_hdu", broken)
    from cmass.errors import WorkspaceError

    with pytest.raises(WorkspaceError, match="no space"):
        formats.write(path, masses())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.fits"]


def test_neither_arrow_nor_astropy():
    with pytest.raises(InputError, match="dict"):
        formats.as_arrow({"ra": [1]})
