"""Columns of others: which is which, in which unit, and rows that cannot be used."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from hypothesis import given
from hypothesis import strategies as st

from cmass.errors import InputError
from cmass.estimation import intake
from cmass.estimation.intake import CLUSTER_COLUMNS, GALAXY_COLUMNS, choose, cluster_rows, rows_of


def table(units_of: dict[str, str] | None = None, **columns) -> pa.Table:
    arrays = {name: pa.array(values) for name, values in columns.items()}
    fields = [
        pa.field(name, array.type, metadata={"unit": (units_of or {}).get(name, "")})
        for name, array in arrays.items()
    ]
    return pa.Table.from_arrays(list(arrays.values()), schema=pa.schema(fields))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("cluster_id", "ra", "dec", "z"), ("cluster_id", "ra", "dec", "z")),
        (("Name", "RAJ2000", "DEJ2000", "zsp", "z"), ("Name", "RAJ2000", "DEJ2000", "z")),
        (("ClID", "_RA", "_DE", "Redshift"), ("ClID", "_RA", "_DE", "Redshift")),
        (("ID", "ra_deg", "dec_deg", "Z_SPEC"), ("ID", "ra_deg", "dec_deg", "Z_SPEC")),
        (("Cluster", "RA (J2000)", "Dec (J2000)", "cz"), ("Cluster", "RA (J2000)", "Dec (J2000)", "cz")),
        (("RA", "DEC", "zspec"), (None, "RA", "DEC", "zspec")),
    ],
)  # fmt: skip
def test_usual_names_are_found(names, found):
    given_table = table(**{name: [1.0] for name in names})
    choices = {c.ours: c.theirs for c in choose(given_table, CLUSTER_COLUMNS, {}, "clusters")}
    assert tuple(choices.get(ours) for ours in CLUSTER_COLUMNS) == found


def test_a_ucd_says_more_than_a_name_and_the_user_more_than_both():
    fields = [
        pa.field("alpha", pa.float64(), metadata={"ucd": "pos.eq.ra;meta.main"}),
        pa.field("RAJ2000", pa.float64()),
        pa.field("DE", pa.float64()),
        pa.field("z", pa.float64()),
    ]
    one = pa.Table.from_arrays([pa.array([1.0])] * 4, schema=pa.schema(fields))
    assert choose(one, GALAXY_COLUMNS, {}, "galaxies")[0].theirs == "alpha"
    (choice, *_) = choose(one, GALAXY_COLUMNS, {"ra": "RAJ2000[rad]"}, "galaxies")
    assert (choice.theirs, choice.unit, choice.how) == ("RAJ2000", "rad", "as named")


def test_numbers_come_before_text():
    """VizieR gives sexagesimal RAJ2000 and _RA in degrees."""
    one = table(RAJ2000=["10 00 00"], DEJ2000=["+02 00 00"], _RA_icrs=[150.0], _DE=[2.0], z=[0.05])
    choices = choose(one, GALAXY_COLUMNS, {}, "galaxies")
    assert [c.theirs for c in choices] == ["_RA_icrs", "_DE", "z"]


def test_what_is_not_there_is_named_with_what_is():
    with pytest.raises(
        InputError, match=r"no column that can be dec or z.*RA, x.*--column dec="
    ) as caught:
        choose(table(RA=[1.0], x=[2.0]), GALAXY_COLUMNS, {}, "galaxies")
    assert "Declination" in str(caught.value)


@given(
    ra=st.floats(0, 359.999), dec=st.floats(-89.9, 89.9), z=st.floats(0.002, 0.3),
    unit=st.sampled_from(["deg", "rad", "hourangle", "arcmin", "degrees", "h"]),
    speed=st.sampled_from(["km/s", "m/s", "km s-1", ""]),
)  # fmt: skip
def test_units_are_converted(ra, dec, z, unit, speed):
    """Against astropy, whatever unit the file has."""
    angle = units.Unit({"degrees": "deg", "h": "hourangle"}.get(unit, unit))
    velocity = z * 299792.458 * units.km / units.s
    one = table(
        {"RA": unit, "DEC": unit, "redshift": speed},
        RA=[(ra * units.deg).to_value(angle)], DEC=[(dec * units.deg).to_value(angle)],
        redshift=[velocity.to_value(speed) if speed else z],
    )  # fmt: skip
    rows = rows_of(one, choose(one, GALAXY_COLUMNS, {}, "galaxies"), "galaxies")
    assert rows.ra[0] == pytest.approx(ra, abs=1e-9)
    assert rows.dec[0] == pytest.approx(dec, abs=1e-9)
    assert rows.z[0] == pytest.approx(z, rel=1e-12)
    assert rows.good.all()


@given(
    ra=st.floats(0, 359.99), dec=st.floats(-89.9, 89.9), sep=st.sampled_from([":", " ", "fromunit"])
)
def test_sexagesimal_is_read_as_astropy_writes_it(ra, dec, sep):
    place = SkyCoord(ra, dec, unit="deg")
    text = place.to_string("hmsdms", sep=sep, precision=5)
    half = len(text.split()) // 2
    east, north = (" ".join(part) for part in (text.split()[:half], text.split()[half:]))
    one = table(RA=[east, None], DE=[north, ""], z=[0.05, 0.05])
    rows = rows_of(one, choose(one, GALAXY_COLUMNS, {}, "galaxies"), "galaxies")
    apart = SkyCoord(rows.ra[0], rows.dec[0], unit="deg").separation(place)
    assert apart.arcsec < 1e-3
    assert rows.reasons == ["", "ra is missing"]


def test_a_velocity_is_known_by_its_name_or_by_the_user():
    one = table(ra=[1.0], dec=[2.0], cz=[14990.0])
    rows = rows_of(one, choose(one, GALAXY_COLUMNS, {}, "galaxies"), "galaxies")
    assert rows.z[0] == pytest.approx(0.05, rel=1e-3)
    two = table(ra=[1.0], dec=[2.0], z=[14990.0])
    assert (
        "a velocity in km/s?"
        in rows_of(two, choose(two, GALAXY_COLUMNS, {}, "clusters"), "clusters").reasons[0]
    )
    said = choose(two, GALAXY_COLUMNS, {"z": "z[km/s]"}, "galaxies")
    assert rows_of(two, said, "galaxies").z[0] == pytest.approx(0.05, rel=1e-3)


def test_a_unit_of_something_else_is_an_error():
    one = table({"ra": "mag"}, ra=[1.0], dec=[2.0], z=[0.05])
    with pytest.raises(InputError, match=r"'mag', which is no angle.*--column ra=ra\[unit\]"):
        rows_of(one, choose(one, GALAXY_COLUMNS, {}, "galaxies"), "galaxies")


def test_every_broken_row_has_its_reason():
    one = table(
        name=["a", "b", "c", "c", None, "f", "g", "h"],
        ra=["10.0", "x", "12.0", "13.0", "14.0", "500", "-30", "17"],
        dec=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, -91.0],
        z=[0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05],
    )  # fmt: skip
    rows = cluster_rows(one, choose(one, CLUSTER_COLUMNS, {}, "clusters"))
    assert rows.reasons == [
        "", "ra is 'x', which is no number", "name c stands in 2 rows", "name c stands in 2 rows",
        "name is missing", "ra is 500, which is impossible", "", "dec is -91, which is impossible",
    ]  # fmt: skip
    assert rows.ra[6] == 330.0
    np.testing.assert_array_equal(rows.good, [not r for r in rows.reasons])


def test_clusters_without_a_name_are_numbered():
    one = table(ra=[1.0, 2.0], dec=[2.0, 3.0], z=[0.05, 0.06])
    assert cluster_rows(one, choose(one, CLUSTER_COLUMNS, {}, "clusters")).cluster_id == [
        "row 1",
        "row 2",
    ]


def test_what_was_chosen_is_told():
    one = table({"RAJ2000": "deg"}, Name=["a"], RAJ2000=[1.0], DEJ2000=[2.0], z=[0.05])
    words = intake.told(choose(one, CLUSTER_COLUMNS, {}, "clusters"))
    assert words == "cluster_id is Name, ra is RAJ2000 [deg], dec is DEJ2000, z"


@pytest.mark.parametrize("code", [99.0, -9999.0, 0.0, -1e30])
def test_codes_for_missing_magnitudes_are_missing(code, caplog):
    r = np.full(20, 17.0)
    r[:5] = code
    table = pa.table(
        {"ra": np.arange(20.0), "dec": np.zeros(20), "z": np.full(20, 0.05), "rmag": r}
    )
    rows = intake.rows_of(
        table, intake.choose(table, intake.GALAXY_COLUMNS, {}, "galaxies"), "galaxies"
    )
    assert rows.good.all() and rows.r_mag is not None
    assert np.isnan(rows.r_mag).tolist() == [True] * 5 + [False] * 15
    assert "5 of 20 values of rmag are no apparent magnitudes, the first in row 1" in caplog.text


def test_magnitudes_that_are_none_cost_nobody_a_mass(caplog):
    table = pa.table({"ra": [1.0], "dec": [0.0], "z": [0.05], "r_mag": ["n/a?"]})
    rows = intake.rows_of(
        table, intake.choose(table, intake.GALAXY_COLUMNS, {}, "galaxies"), "galaxies"
    )
    assert rows.r_mag is None and rows.good.all()
    assert "magnitudes are not used" in caplog.text


def test_decimal_commas_are_told():
    table = pa.table({"ra": ["331,66854", "12,5"], "dec": ["1,5", "2,5"], "z": [0.05, 0.06]})
    with pytest.raises(InputError, match=r"row 1.*331,66854.*decimal points"):
        intake.rows_of(table, intake.choose(table, ("ra", "dec", "z"), {}, "galaxies"), "galaxies")
