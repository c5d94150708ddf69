"""The column dictionary: complete, consistent, and kept by Arrow."""

from __future__ import annotations

import re

import pyarrow.parquet as pq
import pytest
from astropy import units

from cmass.columns import COLUMNS, FLAGS, TABLES, Column, flag_words
from cmass.tables import write_table

#: What the suffix of a name says about the unit.
SUFFIXES = {
    "_mpc_h": "Mpc/h", "_km_s": "km/s", "_msun_h": "Msun/h", "_deg": "deg", "_mag": "mag",
}  # fmt: skip
# VOUnit has no h; it stands for a plain number in units
_H = {"Mpc/h": "Mpc", "Msun/h": "Msun", "log10(Msun/h)": "dex(Msun)"}


@pytest.mark.parametrize("column", COLUMNS.values(), ids=lambda c: c.name)
def test_column(column: Column):
    assert re.fullmatch(r"[a-z][a-z0-9_]*", column.name)
    assert len(column.description) > 5
    assert not column.description.endswith(".")
    assert re.fullmatch(r"[A-Za-z0-9.;-]+", column.ucd)
    for suffix, unit in SUFFIXES.items():
        if column.name.endswith(suffix):
            assert column.unit == unit
    if column.unit and column.unit != "dex":
        units.Unit(_H.get(column.unit, column.unit))  # raises on what is no unit
    if column.minimum is not None and column.maximum is not None:
        assert column.minimum < column.maximum
    assert column.arrow_field().name == column.name


@pytest.mark.parametrize("column", COLUMNS.values(), ids=lambda c: c.name)
def test_masses_carry_their_definition_in_the_name(column):
    """SPEC section 1: the mass definition is in the name, always."""
    if column.unit == "log10(Msun/h)":
        assert any(d in column.name for d in ("m200c", "m500c", "m200_galweight"))


def test_ucds_are_words_of_the_iau_list():
    from astropy.io.votable.ucd import check_ucd

    for column in COLUMNS.values():
        assert check_ucd(column.ucd, check_controlled_vocabulary=True), (column.name, column.ucd)


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda t: t.name)
def test_table(table):
    assert len(set(table.names)) == len(table.names)
    assert set(table.key) <= set(table.names)
    assert table.description
    assert table.arrow_schema().names == table.names
    with pytest.raises(KeyError, match="has no column nothing"):
        table["nothing"]


def test_every_column_is_used():
    used = {name for table in TABLES.values() for name in table.names}
    assert set(COLUMNS) == used


def test_mass_table_has_the_columns_of_the_contract():
    """SPEC section 7, in order."""
    wanted = (
        "cluster_id ra dec z n_galaxies log10_m200c log10_m200c_p16 log10_m200c_p50 "
        "log10_m200c_p84 log10_m200c_hmf_p16 log10_m200c_hmf_p50 log10_m200c_hmf_p84 sigma_minus "
        "sigma_plus flag posterior"
    ).split()
    assert [n for n in TABLES["masses"].names if n in wanted] == wanted


def test_units_survive_a_file(tmp_path):
    schema = TABLES["masses"].arrow_schema()
    write_table(tmp_path / "m.parquet", schema.empty_table(), "masses")
    back = pq.read_schema(tmp_path / "m.parquet")
    for name in TABLES["masses"].names:
        metadata = back.field(name).metadata
        assert metadata[b"unit"].decode() == COLUMNS[name].unit
        assert metadata[b"ucd"].decode() == COLUMNS[name].ucd
        assert metadata[b"description"].decode() == COLUMNS[name].description
    assert back.metadata[b"table"] == b"masses"


def test_flags_are_distinct_bits():
    assert sorted(f.bit for f in FLAGS.values()) == list(range(len(FLAGS)))
    every = sum(f.value for f in FLAGS.values())
    assert every == 2 ** len(FLAGS) - 1
    assert flag_words(every).count(";") == len(FLAGS) - 1
    assert flag_words(0) == ""
    assert flag_words(FLAGS["degenerate"].value) == FLAGS["degenerate"].words
