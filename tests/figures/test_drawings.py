"""Single drawings: what is drawn, and words where there is nothing to draw."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure

from cmass.columns import TABLES
from cmass.figures import calibration, mocks, posteriors, rivals, survey
from cmass.figures.overview import overview
from cmass.figures.style import CNN, signed
from cmass.tables import make_table, read_table
from cmass.workspace import Workspace


def _empty(name: str) -> pa.Table:
    return TABLES[name].arrow_schema().empty_table()


def _words(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.axes[0].texts)


@pytest.fixture(scope="module")
def products(released: Workspace) -> dict[str, pa.Table]:
    paths = {
        "masses": released.masses / "masses.parquet",
        "clusters": released.selected / "clusters.parquet",
        "rejected_clusters": released.selected / "rejected.parquet",
        "mass_function": released.masses / "mass_function.parquet",
        "offsets": released.masses / "offsets.parquet",
        "predictions": released.evaluation / "predictions.parquet",
        "residuals": released.evaluation / "residuals.parquet",
        "coverage": released.evaluation / "coverage.parquet",
        "joint": released.posterior / "joint.parquet",
        "training_history": released.model / "history.parquet",
    }
    return {name: read_table(path, name) for name, path in paths.items()}


CASES = {
    posteriors.loss_curve: ("training_history",),
    posteriors.residuals: ("residuals",),
    posteriors.joint_density: ("joint",),
    posteriors.coverage: ("coverage",),
    posteriors.predictions: ("prediction_bands", "residuals"),
    posteriors.contaminated: ("contamination", "contamination_bins"),
    calibration.coverage: ("calibration_curves", "calibration_scores"),
    calibration.bins: ("calibration_bins",),
    calibration.tarp: ("calibration_curves",),
    calibration.transforms: ("calibration_histograms",),
    mocks.mass_distributions: ("mass_distributions",),
    mocks.window: ("mock_clusters", "mock_galaxies", "window_voxels"),
    survey.predicted_galweight: ("masses", "clusters"),
    survey.mass_function: ("mass_function",),
    survey.offsets: ("offsets",),
    survey.sky_map: ("masses", "rejected_clusters"),
}


@pytest.mark.parametrize("draw", CASES, ids=lambda d: d.__name__)
def test_empty_tables_are_said_in_words(draw) -> None:
    figure = draw(*(_empty(t) for t in CASES[draw]))
    figure.savefig(io.BytesIO(), format="svg")
    assert _words(figure).endswith(".")
    assert len(_words(figure)) > 20


def test_pulls_without_finite_values_are_said_in_words() -> None:
    assert "no pulls" in _words(survey.pull_histogram(np.array([np.nan, np.nan])))


def test_pull_histogram_counts_and_normalises() -> None:
    pulls = np.random.default_rng(3).normal(0.2, 1.1, 4000)
    axes = survey.pull_histogram(np.append(pulls, np.nan)).axes[0]
    area = sum(bar.get_width() * bar.get_height() for bar in axes.patches)
    assert area == pytest.approx(1.0, abs=1e-9)
    legend = axes.get_legend()
    assert legend is not None
    words = [text.get_text() for text in legend.get_texts()]
    assert "4000 clusters" in words
    # mean and deviation of 4000 draws: errors 0.017 and 0.012, two decimals are shown
    fitted = next(w for w in words if w.startswith("ours: mean"))
    mean, deviation = (float(w.split()[-1]) for w in fitted.split(","))
    assert mean == pytest.approx(0.2, abs=0.06)
    assert deviation == pytest.approx(1.1, abs=0.05)


def test_offsets_are_densities_of_each_half() -> None:
    edges = np.linspace(-1, 1, 41)
    counts = np.where(np.arange(40) == 20, 30, 0)
    columns = {
        "half": ["even"] * 40 + ["odd"] * 40, "offset_low": np.tile(edges[:-1], 2),
        "offset_high": np.tile(edges[1:], 2), "n_observed": np.tile(counts, 2),
        "n_predicted": np.full(80, 0.75),
    }  # fmt: skip
    axes = survey.offsets(make_table("offsets", columns), {"odd": "mean 0.02"}).axes[0]
    points = [c.lines[0].get_ydata() for c in axes.containers]
    assert len(points) == 2
    for y in points:
        assert np.sum(y) * 0.1 == pytest.approx(1)  # bins of 0.05 dex, two to one
    _, labels = axes.get_legend_handles_labels()
    assert "odd: mean 0.02" in labels
    assert "even, expected" in labels


def test_mass_function_draws_what_is_expected_and_leaves_point_estimates_out(products) -> None:
    table = products["mass_function"].to_pandas()
    ours = table[table.estimator == "cnn3d"]
    more = [ours.assign(estimator=name) for name in ("point", "expected_cnn3d", "expected_point")]
    columns = {name: np.concatenate([table[name], *(m[name] for m in more)]) for name in table}
    axes = survey.mass_function(make_table("mass_function", columns)).axes[0]
    _, labels = axes.get_legend_handles_labels()
    assert f"{CNN}, expected" in labels
    assert not any("point" in label for label in labels)


def test_clusters_without_a_mass_are_drawn_apart(products) -> None:
    axes = survey.sky_map(products["masses"]).axes[0]
    by_label = {c.get_label(): len(c.get_offsets()) for c in axes.collections}
    assert by_label["no mass"] == 2
    assert sum(by_label.values()) == 40


def test_no_cluster_with_a_mass_still_gives_a_map(make_workspace) -> None:
    workspace = make_workspace(n_clusters=4, with_masses=False)
    masses = read_table(workspace.masses / "masses.parquet", "masses")
    axes = survey.sky_map(masses).axes[0]
    assert [len(c.get_offsets()) for c in axes.collections] == [4]


def test_the_map_is_cut_where_no_cluster_lies(products) -> None:
    # the fixture's clusters lie between RA 340 and 40 deg, across 0
    axes = survey.sky_map(products["masses"]).axes[0]
    left, right = axes.get_xlim()
    assert left > right  # east to the left
    assert left - right < 70
    assert axes.xaxis.get_major_formatter()(365, 0) == "5"


def test_ticks_of_a_map_of_the_whole_sky_meet_at_zero(products) -> None:
    # every 30 deg: those beyond 360 are 30, 60, not 40, 90
    masses = products["masses"]
    ra = np.linspace(110, 420, masses.num_rows) % 360
    axes = survey.sky_map(masses.set_column(masses.column_names.index("ra"), "ra", pa.array(ra)))
    axes = axes.axes[0]
    ticks = axes.xaxis.get_major_locator()()
    assert {360.0, 390.0} <= set(ticks)
    assert np.all(ticks % 30 == 0)


def test_contours_hold_their_part_of_a_gaussian() -> None:
    # of a bivariate unit normal, 68 % lies within density exp(-chi2/2) with chi2 = -2 ln(0.32)
    x = np.linspace(-5, 5, 401)
    grid = np.exp(-0.5 * (x[:, None] ** 2 + x[None, :] ** 2))
    levels = posteriors.mass_levels(grid)
    np.testing.assert_allclose(levels, [0.05, 0.32], rtol=0.01)  # grid step 0.025 sigma


def test_many_points_are_drawn_as_an_image() -> None:
    n = 5000
    rng = np.random.default_rng(1)
    true = rng.uniform(13.5, 15, n)
    table = make_table("contamination", {
        "cluster_id": [str(i) for i in range(n)], "halo_id": np.arange(n),
        "log10_m200c_true": true, "log10_m200c": true + rng.normal(0, 0.1, n),
        "contaminant_mass_ratio": np.full(n, 2.0), "contaminant_distance": np.full(n, 3.0),
    })  # fmt: skip
    sink = io.BytesIO()
    posteriors.contaminated(table, _empty("contamination_bins")).savefig(sink, format="svg")
    assert len(sink.getvalue()) < 400_000


def test_overview_shows_four_figures(products) -> None:
    figure = overview(
        *(products[n] for n in ("masses", "clusters", "coverage", "residuals", "mass_function"))
    )
    assert len(figure.axes) == 4
    assert all(axes.get_title() and axes.get_xlabel() for axes in figure.axes)


def test_calibration_bins_draw_each_bin_before_and_after(released: Workspace) -> None:
    """Dots at the errors, bars as wide as perfect posteriors stray."""
    table = read_table(released.evaluation / "calibration_bins.parquet", "calibration_bins")
    axes = calibration.bins(table).axes[0]
    rows = [r for r in table.to_pylist() if r["posterior_kind"] == "recalibrated"]
    dots = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    for row in table.to_pylist():
        assert any(abs(x - row["coverage_error"]) < 1e-12 for x in dots)
    assert len(dots) == table.num_rows
    bars = sorted(np.ptp(line.get_xdata()) / 2 for line in axes.lines if line.get_linewidth() == 8)
    assert bars == pytest.approx(sorted(r["perfect_band"] for r in rows))


def test_coverage_is_drawn_less_its_level(released: Workspace) -> None:
    names = ("calibration_curves", "calibration_scores")
    curves, scores = (read_table(released.evaluation / f"{n}.parquet", n) for n in names)
    axes = calibration.coverage(curves, scores).axes[0]
    rows = [r for r in curves.to_pylist() if r["posterior_kind"] == "plain"
            and r["diagnostic"] == "coverage" and r["quantity"] == "all"]  # fmt: skip
    drawn = next(line for line in axes.lines if line.get_label().startswith("plain"))
    np.testing.assert_allclose(drawn.get_ydata(), [r["coverage"] - r["level"] for r in rows])
    assert min(drawn.get_ydata()) < -0.05  # the toy is too narrow


@pytest.mark.parametrize("draw", [calibration.coverage, calibration.tarp])
def test_no_curve_runs_through_the_legend(released: Workspace, draw) -> None:
    names = ("calibration_curves", "calibration_scores")[: len(CASES[draw])]
    figure = draw(*(read_table(released.evaluation / f"{n}.parquet", n) for n in names))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_legend().get_window_extent().y0 >= axes.get_window_extent().y1


def test_symbols_in_the_legend_are_as_large_as_those_drawn() -> None:
    distance = np.array([2.0, 4.0, 6.0])
    table = make_table("contamination", {
        "cluster_id": ["a", "b", "c"], "halo_id": np.arange(3),
        "log10_m200c_true": [14.0, 14.2, 14.4], "log10_m200c": [14.1, 14.3, 14.5],
        "contaminant_mass_ratio": [2.0, 3.0, 4.0], "contaminant_distance": distance,
    })  # fmt: skip
    axes = posteriors.contaminated(table, _empty("contamination_bins")).axes[0]
    drawn, *shown = (c.get_sizes() for c in axes.collections)
    assert list(drawn) == [float(s[0]) for s in shown]


def test_errors_of_rivals_count_each_window_once() -> None:
    """Three seeds see the same windows: their errors are those of one."""
    columns = {
        "log10_m200c_low": [14.0, 14.1], "log10_m200c_centre": [14.05, 14.15],
        "log10_m200c_high": [14.1, 14.2], "n": [300, 300], "mean": [0.0, 0.1],
        "scatter": [0.2, 0.2],
        **{name: [0.0, 0.0] for name in ("p2_5", "p16", "p50", "p84", "p97_5")},
    }  # fmt: skip
    table = make_table("rival_residuals", {"estimator": ["cnn3d", "cnn3d"], **columns})
    scores = make_table("rival_scores", {
        "estimator": ["cnn3d"] * 3, "seed": [1, 2, 3], "metric": ["epsilon_scatter"] * 3,
        "value": [0.2] * 3, "error": [0.01] * 3, "unit": ["dex"] * 3,
    })  # fmt: skip
    upper, lower = rivals.rivals_by_mass(table, scores).axes
    for axes, n in ((upper, 100), (lower, 200)):
        (bars,) = axes.containers[0].lines[2]
        heights = [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()]
        np.testing.assert_allclose(heights, 0.2 / np.sqrt(n))


def test_a_minus_is_a_minus() -> None:
    assert [signed(x) for x in (-0.02, 0.2)] == ["−0.02", "+0.20"]
    assert signed(-0.0321, 3) == "−0.032"
