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


@pytest.mark.parametrize(
    ("value", "error", "texts"),
    [(0.0871, 0.00086, ("0.087", "0.001")), (0.00067, 0.029, ("0.001", "0.029")),
     (-0.00087, 0.006, ("−0.001", "0.006")), (-0.0002, 0.006, ("0.000", "0.006")),
     (0.00852, 0.00049, ("0.0085", "0.0005")), (0.2, None, ("0.200", "–")),
     (None, None, ("–", "–")), (7000.0, 84.0, ("7000", "84"))],
)  # fmt: skip
def test_a_value_has_the_decimals_of_its_error(value, error, texts) -> None:
    assert summary.pair_text(value, error) == texts
    assert summary.with_error(value, error) == (texts[0] if error is None else " ± ".join(texts))


def rows(**values: float) -> pa.Table:
    return pa.table({
        "metric": list(values), "bin": ["sdss"] * len(values), "value": list(values.values()),
        "error": [0.02] * len(values), "paper_value": [None] * len(values),
        "unit": [""] * len(values),
    })  # fmt: skip


def test_a_chance_is_never_written_as_zero() -> None:
    table = rows(galweight_offset_ks_chance=0.0, chance_above_point=0.25, xray_n_by_chance=1.6)
    texts = {n.metric: n.value for n in summary.numbers(table)}
    assert texts == {
        "galweight_offset_ks_chance": "< 0.001", "chance_above_point": "0.250",
        "xray_n_by_chance": "1.600",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [("all", "evaluation mocks"), ("sigma_m", "σ–M"), ("sdss", "sdss"),
     ("sdss_odd", "sdss: odd clusters"), ("above 14.4", "mass above 10^14.4 h⁻¹ M☉"),
     ("sdss_above_14.3", "sdss: X-ray mass above 10^14.3 h⁻¹ M☉"), ("13.5-13.8", "13.5–13.8")],
)  # fmt: skip
def test_subsets_are_named_for_people(name, words) -> None:
    assert summary.subset_words(name) == words


def test_estimators_beside_xray_masses_stand_in_rows() -> None:
    table = rows(
        xray_n_compared=147.0, xray_offset_cnn3d=0.319, xray_scatter_cnn3d=0.27,
        xray_abs_offset_beyond_galweight_cnn3d=0.138, xray_shown_not_worse_cnn3d=0.0,
        xray_offset_galweight=0.18, xray_scatter_galweight=0.28, xray_offset_rival_cnn3d=0.35,
        xray_shown_not_worse_rival_cnn3d=1.0,
    )  # fmt: skip
    ours, galweight, rival = summary.xray_rows(table, "sdss")
    assert (ours.title, ours.shown_not_worse) == ("CNN₃D", "no")
    cells = dict(zip(summary.XRAY_METRICS, ours.values, strict=True))
    assert cells["offset"] == "0.319 ± 0.020"
    assert cells["abs_offset_beyond_galweight"] == "0.138 ± 0.020"
    assert cells["slope_major_axis"] == "–"
    assert (galweight.title, galweight.shown_not_worse) == ("GalWeight", "–")
    assert rival.title == "CNN 3D as a rival (plain posterior)"
    assert rival.shown_not_worse == "yes"
    assert summary.xray_rows(table, "embedded") == []


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
