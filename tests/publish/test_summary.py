"""Numbers of a release in words."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from cmass.columns import FLAGS
from cmass.figures.survey import with_galweight
from cmass.publish import summary
from cmass.tables import read_table
from cmass.workspace import Workspace


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (float("nan"), "–"), (764.0, "764"), (0.1571, "0.157"), (-0.02, "−0.020"),
     (1.0, "1.000"), (0.0, "0.000"), (0.00012, "0.00012"), (-3.0, "−3")],
)  # fmt: skip
def test_numbers_as_text(value, text) -> None:
    assert summary.number_text(value) == text
    assert summary.number_text(1.0, count=True) == "1"


def test_flags_are_counted_bit_by_bit() -> None:
    names = list(FLAGS)
    both = FLAGS[names[0]].value | FLAGS[names[2]].value
    masses = pa.table({"flag": pa.array([0, both, FLAGS[names[2]].value], pa.int32())})
    counts = {f.name: f.count for f in summary.flag_counts(masses)}
    assert counts.pop(names[0]) == 1
    assert counts.pop(names[2]) == 2
    assert set(counts.values()) == {0}


def test_pulls_are_differences_over_combined_errors(released: Workspace) -> None:
    masses = read_table(released.masses / "masses.parquet", "masses")
    clusters = read_table(released.selected / "clusters.parquet", "clusters")
    joined = with_galweight(masses, clusters)
    assert joined.num_rows == 38  # two of forty have no mass
    known = {c["cluster_id"]: c["log10_m200_galweight"] for c in clusters.to_pylist()}
    # by construction the errors are 0.15 (Gaussian posterior) and 0.10 dex
    expected = [
        (row["log10_m200c_p50"] - known[row["cluster_id"]]) / np.hypot(0.15, 0.10)
        for row in joined.to_pylist()
    ]
    # the fixture's 15.866 % is five digits of the normal's tail: 1e-4 of sigma
    np.testing.assert_allclose(summary.pulls(joined), expected, rtol=1e-4)


def test_leaves_of_nested_facts() -> None:
    facts = {"a": {"b": 1, "c": [1, 2], "none": None}, "d": [{"e": "x"}, {"e": "y"}]}
    assert summary.leaves(facts) == [
        ("a.b", "1"), ("a.c", "1, 2"), ("d[0].e", "x"), ("d[1].e", "y"),
    ]  # fmt: skip
