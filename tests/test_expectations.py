"""Suites made from the column dictionary, and the masses that must fit the radii."""

import numpy as np
import pyarrow as pa
import pytest

from cmass.columns import TABLES
from cmass.cosmology import Cosmology
from cmass.errors import InputError
from cmass.expectations import check_units, mass_radius_ratio, require, validate
from cmass.ingest import galweight
from cmass.ingest.source_table import sift
from tests.surveys import catalogue, dat_text, shared_data

H = 0.6777
BACKGROUND = Cosmology(0.307115)


def clusters(tmp_path, **factors):
    path = tmp_path / "galwcls.dat"
    path.write_text(dat_text(catalogue(**factors)))
    return sift(galweight.read(path))[0]


def galaxies(n=40, **columns):
    table = {
        "galaxy_id": np.arange(n), "ra": np.linspace(0, 359, n), "dec": np.linspace(-80, 80, n),
        "z": np.full(n, 0.05), "z_err": np.full(n, 1e-4), "r_mag": np.full(n, 17.0),
        "in_legacy": np.ones(n, bool), "s82": np.zeros(n, bool),
    } | columns  # fmt: skip
    schema = TABLES["raw_galaxies"].arrow_schema()
    return pa.table({f.name: pa.array(table[f.name], f.type) for f in schema})


def test_masses_that_fit_have_ratio_one(tmp_path):
    """The catalogue's masses come from astropy's critical density."""
    ratios = mass_radius_ratio(clusters(tmp_path), BACKGROUND)
    # G of cmass and of astropy agree to 1e-5; radii are written in full precision.
    assert ratios == pytest.approx({"500": 1, "200": 1, "100": 1, "5p5": 1}, rel=1e-4)


@pytest.mark.parametrize(
    "h_mass, h_radius, words",
    [
        (1 / H, 1, "the masses are in Msun, not Msun/h: multiply them by h"),
        (H, 1, "the masses were multiplied by h twice"),
        (1, 1 / H, "the radii are in Mpc, not Mpc/h: multiply them by h"),
        (1, H, "the radii were multiplied by h twice"),
        (1 / H, 1 / H, "masses and radii are in Msun and Mpc: multiply both by h"),
        (1e-14, 1, "No power of h explains the ratio"),
    ],
)
def test_a_lost_h_is_named(tmp_path, h_mass, h_radius, words):
    table = clusters(tmp_path, h_mass=h_mass, h_radius=h_radius)
    with pytest.raises(InputError, match="masses or radii lack the factor h") as raised:
        check_units(table, BACKGROUND, H, "galwcls.dat")
    assert words in str(raised.value) and "galwcls.dat" in str(raised.value)
    assert raised.value.value == pytest.approx(h_mass / h_radius**3, rel=2e-3)


def test_a_few_per_cent_are_not_an_h(tmp_path):
    check_units(clusters(tmp_path, h_mass=1.08), BACKGROUND, H)
    with pytest.raises(InputError):
        check_units(clusters(tmp_path, h_mass=1.12), BACKGROUND, H)


def test_good_tables_pass(tmp_path):
    tables = {"raw_clusters": clusters(tmp_path), "raw_galaxies": galaxies()}
    results = validate(tables)
    assert results["success"]
    require(results)
    rows = results["tables"]["raw_galaxies"]["expectations"]
    found = {(row["expectation"], row["column"]) for row in rows}
    # one for each type, each limit, each column that may not be empty, and the key
    for column in TABLES["raw_galaxies"].columns:
        assert ("expect_column_values_to_be_of_type", column.name) in found
        assert (("expect_column_values_to_not_be_null", column.name) in found) != column.nullable
        limited = column.minimum is not None or column.maximum is not None
        assert (("expect_column_values_to_be_between", column.name) in found) == limited
    assert ("expect_column_values_to_be_unique", "galaxy_id") in found
    assert validate(tables) == results


@pytest.mark.parametrize(
    "column, values, expectation",
    [
        ("ra", np.r_[np.linspace(0, 359, 39), 361], "expect_column_values_to_be_between"),
        ("ra", np.r_[np.linspace(0, 359, 39), 360], "expect_column_values_to_be_between"),
        ("z", np.r_[np.full(39, 0.05), 0.0], "expect_column_values_to_be_between"),
        ("dec", [None] + [0.0] * 39, "expect_column_values_to_not_be_null"),
        ("galaxy_id", [1, 1, *range(2, 40)], "expect_column_values_to_be_unique"),
    ],
)
def test_a_bad_value_is_found(column, values, expectation):
    results = validate({"raw_galaxies": galaxies(**{column: values})})
    broken = [r for r in results["tables"]["raw_galaxies"]["expectations"] if not r["success"]]
    assert [(r["expectation"], r["column"]) for r in broken] == [(expectation, column)]
    with pytest.raises(InputError, match=expectation) as raised:
        require(results)
    assert raised.value.column == column


def test_a_wrong_type_and_a_missing_row_are_found():
    table = galaxies()
    narrow = table.set_column(1, "ra", table["ra"].cast(pa.float32()))
    broken = validate({"raw_galaxies": narrow})["tables"]["raw_galaxies"]["expectations"]
    assert [r["column"] for r in broken if not r["success"]] == ["ra"]
    assert not validate({"raw_galaxies": table.slice(0, 0)})["success"]


def test_the_real_masses_fit_their_radii():
    good, _ = sift(galweight.read(shared_data() / "galwcat19" / "galwcls.dat"))
    ratios = mass_radius_ratio(good, BACKGROUND)
    # GalWCat19 used Omega_m = 0.3: H(z)² differs by up to 0.5 % below z = 0.2
    assert ratios == pytest.approx({"500": 1, "200": 1, "100": 1, "5p5": 1}, abs=0.01)
