"""The section "Mocks beside the sky": scores in words, a figure per statistic."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from matplotlib.colors import to_hex

from cmass.evaluate.realism import FEATURES
from cmass.evaluate.realism.statistics import STATISTICS
from cmass.figures import realism
from cmass.figures.style import RED
from tests.products import realism_rows


@pytest.fixture(scope="module")
def table():
    return realism_rows()


def test_scores_are_those_of_the_odd_half_with_the_even_one_beside(table):
    rows = realism.score_rows(table, 0.1)
    by_title = {r.title: r for r in rows}
    assert len(rows) == len(STATISTICS) + 2
    density = by_title["Surface density"]
    # one of 11 bins is 50 % off, ten are 5 % off, where 10 % is allowed
    assert density.deviation == density.even == f"{np.sqrt((5**2 + 10 * 0.5**2) / 11):.2f}"
    assert (density.agree, density.n_bins, density.agrees) == ("91 %", 11, False)
    assert rows[-1].title == "All statistics"
    assert rows[-1].verdict == f"{sum(r.agrees for r in rows[:-1])} of {len(rows) - 1}"
    assert not rows[-1].agrees


def test_without_a_calibration_half_nothing_stands_beside(table):
    alone = realism.score_rows(realism_rows(("odd",)), 0.1)
    assert {r.even for r in alone} == {""}
    assert realism.score_rows(realism_rows(("even",)), 0.1) == []


@pytest.mark.parametrize("name", [*STATISTICS, FEATURES])
def test_every_statistic_has_a_figure_that_marks_what_disagrees(table, name):
    figure = realism.statistic_figure(table, name)
    ratio = figure.axes[-1]
    open_circles = [
        line for line in ratio.lines
        if line.get_markerfacecolor() == "none" and line.get_linestyle() == "None"
    ]  # fmt: skip
    assert [to_hex(line.get_color()) for line in open_circles] == [RED]
    assert len(open_circles[0].get_xdata()) == 1
    words = "Area under the curve" if name == FEATURES else "Mocks / survey"
    assert ratio.get_ylabel() == words
    if name in STATISTICS and not STATISTICS[name].units:
        assert figure.axes[0].get_ylabel().startswith(STATISTICS[name].value)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")


def test_no_point_is_lost_outside_the_frame(table):
    """The calibration half, three times what the survey shows, is drawn at the frame."""
    ratio, half = (table[c].to_pylist() for c in ("ratio", "half"))
    far = [3.0 if h == "even" and r is not None else r for r, h in zip(ratio, half, strict=True)]
    table = table.set_column(table.column_names.index("ratio"), "ratio", pa.array(far))
    for name in ("clumpiness", "velocities_around"):
        axes = realism.statistic_figure(table, name).axes[-1]
        low, high = axes.get_ylim()
        for line in axes.lines:
            if line.get_marker() in ("D", "o"):
                values = np.asarray(line.get_ydata())
                assert np.all((values >= low) & (values <= high))
        (diamonds,) = (line for line in axes.lines if line.get_marker() == "D")
        assert np.allclose(diamonds.get_ydata(), high)


def test_the_test_on_features_shows_its_own_number(table):
    """The area under the curve is one number of both, not one of the survey and one of mocks."""
    axes = realism.statistic_figure(table, FEATURES).axes[-1]
    rows = [r for r in table.to_pylist() if r["statistic"] == FEATURES and r["half"] == "odd"]
    drawn = [y for line in axes.lines if line.get_marker() == "o" for y in line.get_ydata()]
    expected = [rows[0]["real"] * r["ratio"] for r in rows]
    assert sorted(drawn) == pytest.approx(sorted(expected))
    assert "survey" not in axes.texts[0].get_text()


@pytest.mark.parametrize(
    ("name", "words"),
    [("p16 of 25-40", "16 % of 25–40"), ("1-2 R200", "1–2 R₂₀₀"), ("p95", "95 %"), ("x", "x")],
)
def test_bins_are_named_for_people(name, words):
    assert realism.bin_words(name) == words


def test_a_half_without_rows_says_so(table):
    even = table.filter(pc.equal(table["half"], "even"))
    figure = realism.statistic_figure(even, "clumpiness")
    assert figure.axes[0].texts[0].get_text() == "Nothing to compare in this half."
    captions = [realism.caption(even, name, 0.1) for name in realism.CAPTIONS]
    assert all("nothing to compare" in c for c in captions)


def test_every_statistic_has_a_caption():
    assert set(realism.CAPTIONS) == {*STATISTICS, FEATURES}


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.02, 4.0, [0.03, 0.1, 0.3, 1, 3]), (10, 80, [10, 20, 50]), (12, 60, [20, 30, 40, 50, 60]),
        (30.0, 300.0, [30, 100, 300]),
    ],
)  # fmt: skip
def test_a_logarithmic_axis_has_ticks_whatever_its_range(low, high, ticks):
    assert realism.log_ticks(low, high) == ticks


def test_every_axis_of_every_statistic_has_ticks(table):
    for name in STATISTICS:
        axes = realism.statistic_figure(table, name).axes[-1]
        low, high = axes.get_xlim()
        assert sum(low <= tick <= high for tick in axes.get_xticks()) >= 3, name
