"""GalWCat19 in every format it comes in, whole and broken."""

import numpy as np
import pytest

from cmass.contracts.quarantine import sift
from cmass.errors import InputError
from cmass.ingest import galweight
from tests.surveys import catalogue, dat_text, shared_data, tsv_text


def write(tmp_path, suffix, rows):
    """The rows in a file of the format that belongs to `suffix`."""
    path = tmp_path / f"galwcls{suffix}"
    if suffix == ".dat":
        path.write_text(dat_text(rows))
    elif suffix == ".tsv":
        path.write_text(tsv_text(rows))
    else:
        from astropy.table import Table

        kind = "fits" if suffix == ".fits" else "votable"
        Table(rows=rows, names=list(rows[0])).write(path, format=kind)
    return path


@pytest.mark.parametrize("suffix", [".dat", ".tsv", ".vot", ".xml", ".fits"])
def test_all_formats_give_the_same_table(tmp_path, suffix):
    rows = catalogue()
    good, bad = sift(galweight.read(write(tmp_path, suffix, rows)))
    assert bad.num_rows == 0 and good.num_rows == len(rows)
    assert good["cluster_id"][2].as_py() == "GalWCat19-0003"
    for ours, theirs in {
        "ra": "RAJ2000", "dec": "DEJ2000", "z": "z", "catalogue_distance_mpc_h": "Dist",
        "r200_mpc_h": "r200", "n200": "N200", "sigma200_km_s": "sig200",
        "sigma200_err_lower_km_s": "e_sig200", "sigma200_err_upper_km_s": "E_sig200",
        "m200_msun_h": "M200", "m200_err_msun_h": "e_M200", "m5p5_msun_h": "M5.5",
        "nfw_concentration": "c",
    }.items():  # fmt: skip
        assert good[ours].to_pylist() == [row[theirs] for row in rows], ours


def test_blanks_are_missing(tmp_path):
    rows = catalogue()
    rows[4]["E_sig500"] = ""
    for suffix in (".dat", ".tsv"):
        good, bad = sift(galweight.read(write(tmp_path, suffix, rows)))
        assert bad.num_rows == 0
        assert good["sigma500_err_upper_km_s"].null_count == 1
        assert good["sigma500_err_upper_km_s"][4].as_py() is None


@pytest.mark.parametrize(
    "change, words",
    [
        ({"RAJ2000": 361.0}, "ra must be < 360"),
        ({"RAJ2000": "nan"}, "ra not finite"),
        ({"RAJ2000": "12h30"}, "ra not a number"),
        ({"RAJ2000": ""}, "ra missing"),
        ({"z": 0.0}, "z must be > 0"),
        ({"ClID": 1}, "the same as in row 0"),
        ({"ClID": 2.5}, "cluster_id missing"),
        ({"N200": 12.5}, "n200 not a whole number"),
        ({"M200": -1e14}, "m200_msun_h must be >= 0"),
    ],
)
def test_a_bad_row_is_set_aside_and_kept(tmp_path, change, words):
    rows = catalogue()
    rows[7] |= change
    good, bad = sift(galweight.read(write(tmp_path, ".dat", rows)))
    assert good.num_rows == len(rows) - 1
    assert words in bad["reason"][0].as_py() and bad["row_number"][0].as_py() == 7


def test_a_cut_dat_file_is_an_error(tmp_path):
    text = dat_text(catalogue())
    path = tmp_path / "galwcls.dat"
    path.write_text(text[: len(text) * 2 // 3 - 100])
    with pytest.raises(InputError, match="cut short") as raised:
        galweight.read(path)
    assert raised.value.row == 19
    path.write_text(text[:-4])
    with pytest.raises(InputError, match="cut short"):
        galweight.read(path)


@pytest.mark.parametrize("suffix", [".dat", ".tsv"])
def test_a_line_of_other_length_is_set_aside_and_kept(tmp_path, suffix):
    """One slip in the middle of a file; if most lines are like that it is another table."""
    separator = "|" if suffix == ".dat" else "\t"
    path = write(tmp_path, suffix, catalogue())
    lines = path.read_text().splitlines(keepends=True)
    first = len(lines) - 30 - 2 * (suffix == ".tsv")  # a blank line and #END#
    line = lines[first + 7]
    lines[first + 7] = line.replace(separator, " ", 1)
    path.write_text("".join(lines))
    good, bad = sift(galweight.read(path))
    assert good.num_rows == 29
    (row,) = bad.to_pylist()
    assert (row["row_number"], row["column_name"], row["key_text"]) == (7, "", "")
    assert "fields instead of" in row["reason"] and row["source_file"] == path.name
    assert row["value_text"] == lines[first + 7].rstrip("\n")

    for number in range(first, first + 16):
        lines[number] = "no row\n"
    path.write_text("".join(lines))
    with pytest.raises(InputError, match="1 fields instead of"):
        galweight.read(path)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9, 0.999])
def test_a_cut_tsv_file_is_an_error(tmp_path, part):
    path = tmp_path / "galwcls.tsv"
    text = tsv_text(catalogue())
    path.write_text(text[: int(part * len(text))])
    with pytest.raises(InputError, match="cut short"):
        galweight.read(path)


@pytest.mark.parametrize("suffix", [".dat", ".tsv", ".vot", ".fits"])
@pytest.mark.parametrize("content", [b"", b"\n", b"\x00\xff\xfe"])
def test_an_empty_or_foreign_file_is_an_error(tmp_path, suffix, content):
    path = tmp_path / f"galwcls{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError) as raised:
        galweight.read(path)
    assert str(path) in str(raised.value)


@pytest.mark.filterwarnings("ignore:File may have been truncated")
@pytest.mark.parametrize("suffix", [".vot", ".fits"])
def test_a_cut_binary_file_is_an_error(tmp_path, suffix):
    path = write(tmp_path, suffix, catalogue())
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError):
        galweight.read(path)


def test_a_missing_column_is_named(tmp_path):
    rows = [{k: v for k, v in row.items() if k != "M200"} for row in catalogue()]
    for suffix in (".tsv", ".vot", ".fits"):
        with pytest.raises(InputError, match="lacks columns") as raised:
            galweight.read(write(tmp_path, suffix, rows))
        assert raised.value.column == "M200"
    with pytest.raises(InputError, match="38 fields instead of 39"):
        galweight.read(write(tmp_path, ".dat", rows))


def test_no_file_and_no_reader(tmp_path):
    for suffix in (".dat", ".tsv", ".vot", ".fits"):
        with pytest.raises(InputError, match="no such file"):
            galweight.read(tmp_path / f"absent{suffix}")
    with pytest.raises(InputError, match="no reader"):
        galweight.read(tmp_path / "galwcls.docx")


def test_vizier_says_no(tmp_path):
    path = tmp_path / "galwcls.tsv"
    path.write_text("#\n#*** No such table: galwcls\n#END#\n")
    with pytest.raises(InputError, match="VizieR says: No such table"):
        galweight.read(path)


def test_the_real_catalogue():
    """Counts and the first row as the mirror's README and the file state them."""
    good, bad = sift(galweight.read(shared_data() / "galwcat19" / "galwcls.dat"))
    assert (good.num_rows, bad.num_rows) == (1800, 0)
    first = good.slice(0, 1).to_pylist()[0]
    assert first["cluster_id"] == "GalWCat19-0001"
    assert (first["ra"], first["dec"], first["n200"]) == (230.65973, 27.743846, 167)
    assert first["m200_msun_h"] == 1.3547183e15 and first["nfw_concentration"] == 4.2898652
    assert int((good["catalogue_distance_mpc_h"].to_numpy() < 250).sum()) == 897
    assert np.isnan(good["sigma500_err_lower_km_s"].to_numpy()).sum() == 1


@pytest.mark.parametrize("number", ["inf", "1e308", "-1", "1.5", "nan", "1000000"])
def test_a_number_that_no_cluster_has(tmp_path, number):
    """It is set aside like any other bad value."""
    path = tmp_path / "galwcls.dat"
    lines = dat_text(catalogue(300)).splitlines()
    lines[3] = number + lines[3][lines[3].index("|") :]
    path.write_text("\n".join(lines) + "\n")
    good, bad = sift(galweight.read(path))
    assert (good.num_rows, bad.num_rows) == (299, 1)
