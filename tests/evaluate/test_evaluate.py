"""The evaluate step: its tables, held to plain recomputation."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from cmass.columns import TABLES
from cmass.evaluate import Numbers, metrics, residuals_table
from cmass.tables import read_table


@pytest.fixture(scope="module")
def products(tiny_run):
    workspace, params = tiny_run
    names = {"predictions": "predictions", "calibration": "calibration", "coverage": "coverage",
             "residuals": "residuals"}  # fmt: skip
    tables = {
        file: read_table(workspace.evaluation / f"{file}.parquet", name).to_pandas()
        for file, name in names.items()
    }
    return tables, params


def value(table, metric, bin="all", column="value"):
    row = table[(table.metric == metric) & (table.bin == bin)]
    assert len(row) == 1, f"{metric} {bin}"
    return row[column].iloc[0]


def test_residuals_are_those_of_the_predictions(products):
    tables, _ = products
    p, c = tables["predictions"], tables["calibration"]
    epsilon = p.log10_m200c_true - p.log10_m200c
    assert value(c, "epsilon_mean") == pytest.approx(epsilon.mean(), abs=1e-12)
    assert value(c, "epsilon_scatter") == pytest.approx(epsilon.std(), abs=1e-12)
    assert value(c, "epsilon_mean", column="paper_value") == 0.04
    assert value(c, "epsilon_scatter", column="paper_value") == 0.16
    # 50 haloes with two sight lines each: the error lies between that of 100 and 50 rows.
    error = value(c, "epsilon_mean", column="error")
    assert 0.8 * epsilon.std() / 10 < error < 1.3 * epsilon.std() / np.sqrt(50)


def test_rival_is_measured_on_the_same_clusters(products):
    tables, _ = products
    p, c = tables["predictions"], tables["calibration"]
    rival = (p.log10_m200c_true - p.log10_m200c_dispersion).dropna()
    assert value(c, "dispersion_epsilon_scatter") == pytest.approx(rival.std(), abs=1e-12)
    assert value(c, "n_without_dispersion") == len(p) - len(rival)
    both = p[p.log10_m200c_dispersion.notna()]
    ratio = (both.log10_m200c_true - both.log10_m200c).std() / rival.std()
    assert value(c, "scatter_ratio_to_dispersion") == pytest.approx(ratio, abs=1e-12)


def test_mass_bins_add_up(products):
    tables, params = products
    r, p = tables["residuals"], tables["predictions"]
    assert r.n.sum() == len(p)
    np.testing.assert_allclose(r.log10_m200c_high - r.log10_m200c_low, params.evaluate.mass_bin_dex)
    full = r[r.n > 1]
    assert ((full.p16 <= full.p50) & (full.p50 <= full.p84)).all()
    assert np.average(full["mean"], weights=full.n) == pytest.approx(
        (p.log10_m200c_true - p.log10_m200c).mean(), abs=0.02
    )


def test_coverage_is_plausible_and_has_its_band(products):
    tables, params = products
    c = tables["coverage"]
    assert len(c) == params.evaluate.coverage_levels
    assert (np.diff(c.coverage) >= 0).all()
    assert (c.coverage_low <= c.coverage_high).all()
    largest = (c.coverage - c.level).abs().max()
    assert value(tables["calibration"], "coverage_error_max") == pytest.approx(largest)
    # 50 independent haloes: a Kolmogorov deviation beyond 1.63/sqrt(50) has 1 % chance.
    assert largest < 0.23


def test_units_and_descriptions_are_in_the_files(tiny_run):
    workspace, _ = tiny_run
    schema = pq.read_schema(workspace.evaluation / "residuals.parquet")
    assert schema.field("scatter").metadata[b"unit"] == b"dex"
    assert schema.names == TABLES["residuals"].names


def test_a_second_run_writes_the_same_bytes(tiny_run):
    from cmass import evaluate
    from cmass.tables import file_digest

    workspace, params = tiny_run
    before = file_digest(workspace.evaluation)
    evaluate.run(workspace, params)
    assert file_digest(workspace.evaluation) == before


def test_numbers_that_are_not_finite_become_missing():
    numbers = Numbers()
    numbers.add("a", float("nan"), error=float("inf"))
    row = numbers.table().to_pylist()[0]
    assert row["value"] is None
    assert row["error"] is None


def test_residual_bins_of_one_or_no_cluster_have_no_scatter():
    table = residuals_table(np.array([13.6, 13.62, 14.5]), np.array([13.5, 13.6, 14.5]), 0.3)
    rows = table.to_pylist()
    assert [r["n"] for r in rows] == [2, 0, 0, 1]
    lonely = rows[3]
    assert lonely["scatter"] is None
    assert lonely["mean"] == pytest.approx(0.0)
    empty = [r for r in rows if r["n"] == 0]
    assert all(r["mean"] is None for r in empty)
    assert metrics.residual(13.6, 13.5) == pytest.approx(0.1)


def test_calibration_is_judged_before_and_after(tiny_run):
    """The four tables are there, and their numbers are those of table `calibration`."""
    workspace, _ = tiny_run
    names = ("curves", "bins", "histograms", "scores")
    found = {
        name: read_table(
            workspace.evaluation / f"calibration_{name}.parquet", f"calibration_{name}"
        ).to_pandas()
        for name in names
    }
    c = read_table(workspace.evaluation / "calibration.parquet", "calibration").to_pandas()
    kinds = {"plain", "bandwidth", "recalibrated"}
    assert all(set(table.posterior_kind) == kinds for table in found.values())
    # 100 windows fill no bin of 200
    assert set(found["bins"].quantity) == {"all"}
    scores = found["scores"].set_index(["posterior_kind", "prior", "population"])
    row = scores.loc["recalibrated", "flat", "flat"]
    assert value(c, "crps") == pytest.approx(row.crps)
    assert value(c, "log_score") == pytest.approx(row.log_score)
    assert value(c, "coverage_error_max") == pytest.approx(abs(row.coverage_error))
    before = scores.loc["plain", "flat", "flat"]
    assert value(c, "coverage_error_max_plain") == pytest.approx(abs(before.coverage_error))
    assert value(c, "crps_plain") == pytest.approx(before.crps)
    if row.n == before.n:
        assert value(c, "crps_gain") == pytest.approx(before.crps - row.crps)
    coverage = read_table(workspace.evaluation / "coverage.parquet", "coverage").to_pandas()
    curve = found["curves"].query("posterior_kind == 'recalibrated' and diagnostic == 'coverage'")
    np.testing.assert_allclose(curve.coverage, coverage.coverage)
    assert set(scores.index.get_level_values("population")) == {"flat", "mass function"}
    assert set(found["histograms"].diagnostic) == {"pit", "sbc"}
