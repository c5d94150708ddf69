"""Whatever is done to the rows of a catalogue: rows in are rows out and rows in quarantine."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from cmass.columns import TABLES
from cmass.contracts.quarantine import sift
from cmass.errors import InputError
from cmass.ingest import galweight, xray
from cmass.params import QuarantineParams
from cmass.tables import check_table
from tests.surveys import catalogue, csv_text, dat_text, xray_catalogue

ROWS, XRAY = catalogue(), xray_catalogue()
#: As many as there are: what is tested is that none is lost.
ALL = QuarantineParams(max_fraction=0, max_rows=len(ROWS))

values = st.one_of(
    st.none(), st.floats(allow_nan=True, allow_infinity=True), st.integers(-(2**70), 2**70),
    st.sampled_from(["", " ", "null", "nan", "-inf", "1e999", "x", "0", "-1", "361", "1,5", "½"]),
)  # fmt: skip
damage = st.lists(
    st.tuples(st.sampled_from(["value", "cut", "extra", "twice", "gone"]), st.integers(0, 39),
              st.integers(0, 38), values),
    max_size=12,
)  # fmt: skip


def damaged(lines, separator, changes):
    """Lines of a table with fields changed, cut, added, repeated or removed."""
    lines = [line.split(separator) for line in lines]
    for kind, row, column, value in changes:
        if not lines:
            break
        parts = lines[row % len(lines)]
        if kind == "value" and parts:
            parts[column % len(parts)] = "" if value is None else str(value)
        elif kind == "cut":
            del parts[max(1, column % (len(parts) + 1)) :]
        elif kind == "extra":
            parts.append("9")
        elif kind == "twice":
            lines.append(list(parts))
        elif kind == "gone" and len(lines) > 1:
            del lines[row % len(lines)]
    return [separator.join(parts) for parts in lines]


def accounted(source, n):
    """Sift; every row of the file is either good or set aside, and each knows why."""
    assert source.n_rows == n
    good, bad = sift(source, ALL)
    assert good.num_rows + bad.num_rows == n
    check_table(good, TABLES[source.name])
    check_table(bad, TABLES["quarantine"])
    numbers = bad["row_number"].to_pylist()
    assert len(set(numbers)) == len(numbers) and all(0 <= k < n for k in numbers)
    for row in bad.to_pylist():
        assert row["item"] == source.name and row["reason"] and json.loads(row["record"])
    return good, bad


@settings(max_examples=60, deadline=None)
@given(damage)
def test_rows_in_are_rows_out_and_quarantined(tmp_path_factory, changes):
    lines = damaged(dat_text(ROWS).splitlines(), "|", changes)
    path = tmp_path_factory.mktemp("dat") / "galwcls.dat"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        source = galweight.read(path)
    except InputError as error:  # most lines are of another length: another table
        assert "fields instead of 39" in str(error) or "empty" in str(error)
        return
    good, _ = accounted(source, len(path.read_text(encoding="utf-8").splitlines()))
    assert changes or good.num_rows == len(ROWS)


@settings(max_examples=30, deadline=None)
@given(damage)
def test_the_same_for_a_csv_file(tmp_path_factory, changes):
    head, *lines = csv_text(XRAY).splitlines()
    changes = [(kind, row, col, v) for kind, row, col, v in changes if kind != "twice"]
    lines = damaged(lines, ",", changes)
    path = tmp_path_factory.mktemp("csv") / "mcxc2.csv"
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    try:
        source = xray.read(path)
    except InputError as error:
        assert any(w in str(error) for w in ("fields instead of", "not readable as CSV", "no rows"))
        return
    accounted(source, sum(bool(line) for line in lines))


def test_quarantine_names_key_and_source(tmp_path):
    rows = catalogue()
    rows[4]["z"] = "far"
    path = tmp_path / "galwcls.dat"
    path.write_text(dat_text(rows))
    _, bad = sift(galweight.read(path))
    (row,) = bad.to_pylist()
    assert (row["key_text"], row["source_file"]) == ("GalWCat19-0005", "galwcls.dat")
    assert (row["column_name"], row["value_text"]) == ("z", "far")
    assert row["row_number"] == 4
