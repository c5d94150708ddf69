"""MCXC-II in every format it comes in, whole and broken; and the factor h in its masses."""

import numpy as np
import pytest

from cmass.contracts.quarantine import sift
from cmass.contracts.suites import table_check, validate
from cmass.contracts.units import check_xray_units
from cmass.errors import InputError
from cmass.ingest import xray
from tests.surveys import csv_text, shared_data, tsv_text, xray_catalogue


def write(tmp_path, suffix, rows):
    path = tmp_path / f"mcxc2{suffix}"
    if suffix in (".csv", ".tsv"):
        path.write_text((csv_text if suffix == ".csv" else tsv_text)(rows))
    else:
        from astropy.table import Table

        Table(rows=rows, names=list(rows[0])).write(
            path, format="fits" if suffix == ".fits" else "votable"
        )
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".vot", ".xml", ".fits"])
def test_all_formats_give_the_same_table(tmp_path, suffix):
    rows = xray_catalogue()
    good, bad = sift(xray.read(write(tmp_path, suffix, rows)))
    assert bad.num_rows == 0 and good.num_rows == len(rows)
    assert good["xray_name"].to_pylist() == [row["MCXC"] for row in rows]
    assert good["ra"].to_pylist() == [row["RAJ2000"] for row in rows]
    assert good["z"].to_pylist() == [row["z"] for row in rows]
    for ours, theirs, unit in (
        ("m500_h70_msun", "M500", 1e14), ("m500_h70_err_lower_msun", "e_M500", 1e14),
        ("m500_h70_err_upper_msun", "E_M500", 1e14), ("l500_h70_erg_s", "L500", 1e44),
        ("r500_h70_mpc", "R500", 1.0),
    ):  # fmt: skip
        # one rounding of a product
        np.testing.assert_allclose(good[ours], [row[theirs] * unit for row in rows], rtol=1e-15)
    assert validate([table_check("xray_clusters", good)])["success"]


def test_masses_carry_h(tmp_path):
    """By hand: 2e14 Msun at H0 = 70 is 1.4e14 Msun/h; its errors are those of the logarithm."""
    rows = xray_catalogue()
    rows[4] |= {"M500": 2.0, "e_M500": 0.5, "E_M500": 0.25}
    good, _ = sift(xray.read(write(tmp_path, ".csv", rows)))
    row = good.slice(4, 1).to_pylist()[0]
    assert row["log10_m500c_xray"] == pytest.approx(14.146128, abs=1e-6)
    assert row["log10_m500c_xray_err_lower"] == pytest.approx(np.log10(2.0 / 1.5), rel=1e-12)
    assert row["log10_m500c_xray_err_upper"] == pytest.approx(np.log10(2.25 / 2.0), rel=1e-12)


@pytest.mark.parametrize("h0", [50.0, 67.77, 70.0, 100.0])
def test_the_mass_with_h_does_not_depend_on_h0(h0):
    """A flux weighed through distance, luminosity and an L-M relation, all in another H0.

    The relation's own points scale as L ∝ h⁻² and M ∝ h⁻¹; distances by astropy.
    """
    from astropy.cosmology import FlatLambdaCDM

    def log10_m_with_h(h0, recalibrate=True):
        h = h0 / 100
        distance_cm = FlatLambdaCDM(H0=h0, Om0=0.3).luminosity_distance(0.08).to_value("cm")
        luminosity = 4 * np.pi * distance_cm**2 * 5e-12
        scale = xray.H70 / h if recalibrate else 1.0
        # log10(L/1e44) = 0.282 + 1.675 log10(M/3e14): the relation inside the catalogue's table
        m = 3e14 * scale * (luminosity / (1e44 * scale**2) / 10**0.282) ** (1 / 1.675)
        return np.log10(m * h)

    reference = log10_m_with_h(70.0)
    assert log10_m_with_h(h0) == pytest.approx(reference, abs=1e-9)
    # Were the relation kept as it stands instead, the run's h would shift masses by 0.003 dex.
    fixed = log10_m_with_h(67.77, recalibrate=False) - reference
    assert fixed == pytest.approx((1 - 2 / 1.675) * np.log10(0.6777 / 0.7), abs=1e-9)
    assert abs(fixed) < 0.003


def test_the_cosmology_of_the_catalogue_is_near_enough():
    """Omega_m 0.3 against the run's, through distance, E(z) and the L-M relation: < 0.001 dex."""
    from astropy.cosmology import FlatLambdaCDM

    def log10_m(omega_m, z):
        background = FlatLambdaCDM(H0=70, Om0=omega_m)
        # L = 4 pi D² F; M from log10 L = ... + 1.675 log10 M + 2 log10 E(z), as in the table
        luminosity = 2 * np.log10(background.luminosity_distance(z).value)
        return (luminosity - 2 * np.log10(background.efunc(z))) / 1.675

    for z in (0.01, 0.05, 0.085):
        assert abs(log10_m(0.307115, z) - log10_m(0.3, z)) < 1e-3


@pytest.mark.parametrize(
    "change, words",
    [
        ({"M500": -1.0}, "m500_h70_msun must be > 0"),
        ({"M500": ""}, "m500_h70_msun missing"),
        ({"M500": "1.2e"}, "m500_h70_msun not a number"),
        ({"MCXC": ""}, "xray_name missing"),
        ({"MCXC": "MCXC J0000.0+0000"}, "the same as in row 0"),
        ({"DEJ2000": -91.0}, "dec must be >= -90"),
        ({"z": 0.0}, "z must be > 0"),
    ],
)
def test_a_bad_row_is_set_aside_and_kept(tmp_path, change, words):
    rows = xray_catalogue()
    rows[7] |= change
    good, bad = sift(xray.read(write(tmp_path, ".csv", rows)))
    assert good.num_rows == len(rows) - 1
    assert words in bad["reason"][0].as_py() and bad["row_number"][0].as_py() == 7


def test_missing_errors_are_missing(tmp_path):
    """94 of the real rows have none; an error beyond the mass has no lower end either."""
    rows = xray_catalogue()
    rows[2] |= {"e_M500": "", "E_M500": ""}
    rows[3] |= {"e_M500": rows[3]["M500"] + 1}
    good, bad = sift(xray.read(write(tmp_path, ".tsv", rows)))
    assert bad.num_rows == 0
    assert good["log10_m500c_xray_err_lower"].to_pylist()[2:4] == [None, None]
    assert good["log10_m500c_xray_err_upper"][2].as_py() is None
    assert good["log10_m500c_xray_err_upper"][3].as_py() > 0


@pytest.mark.parametrize("part", [0.3, 0.7, 0.99])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_cut_file_is_an_error(tmp_path, suffix, part):
    path = write(tmp_path, suffix, xray_catalogue())
    text = path.read_text()
    path.write_text(text[: int(part * len(text))])
    with pytest.raises(InputError, match="cut short|fields instead of|not readable as CSV"):
        xray.read(path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".vot", ".fits", ".docx"])
def test_no_such_file_or_no_reader(tmp_path, suffix):
    with pytest.raises(InputError, match="no such file|no reader"):
        xray.read(tmp_path / f"mcxc2{suffix}")


@pytest.mark.parametrize(
    "column, factor", [("M500", 0.7), ("M500", 1e14), ("R500", 0.7), ("R500", 1000.0)]
)
def test_other_units_are_refused(tmp_path, column, factor):
    rows = [row | {column: row[column] * factor} for row in xray_catalogue()]
    with pytest.raises(InputError, match="do not fit their radii|must be <= 20"):
        good, _ = sift(xray.read(write(tmp_path, ".csv", rows)))
        check_xray_units(good)


def test_one_odd_row_is_kept_with_a_remark(tmp_path, caplog):
    rows = xray_catalogue()
    rows[5]["R500"] *= 1.4
    good, bad = sift(xray.read(write(tmp_path, ".csv", rows)))
    check_xray_units(good)
    assert bad.num_rows == 0 and good.num_rows == 20
    assert "M500 of MCXC J0005.0+0000 is 0.36 times" in caplog.text


def test_the_real_catalogue():
    """Counts and a row as the file states them; the luminosity-mass relation of the tests above."""
    (path,) = (shared_data() / "reference").glob("mcxc2*.csv")
    good, bad = sift(xray.read(path))
    check_xray_units(good)
    assert (good.num_rows, bad.num_rows) == (xray.N_CLUSTERS, 0)
    rows = {row["xray_name"]: row for row in good.to_pylist()}
    one = rows["MCXC J0257.6+0600"]
    assert (one["xray_other_name"], one["xray_catalogue"], one["z"]) == ("A400", "BCS", 0.0244)
    assert one["log10_m500c_xray"] == pytest.approx(np.log10(0.8336e14 * 0.7), abs=1e-9)
    assert good["log10_m500c_xray_err_lower"].null_count == 94
    luminosity, mass, z = (
        good[c].to_numpy() for c in ("l500_h70_erg_s", "m500_h70_msun", "z")
    )  # fmt: skip
    e = np.sqrt(0.3 * (1 + z) ** 3 + 0.7)
    relation = 0.282 + 1.675 * np.log10(mass / 3e14) + 2 * np.log10(e)
    # the table's own rounding: 0.0042 dex at the smallest luminosities
    assert np.abs(np.log10(luminosity / 1e44) - relation)[luminosity > 1e43].max() < 0.005
