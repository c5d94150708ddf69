"""The realism step: rows, scores, and a comparison that knows like from unlike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cmass.evaluate import realism
from cmass.evaluate.realism.statistics import STATISTICS
from cmass.params import Params, RealismParams
from cmass.tables import read_json, read_table
from tests.evaluate.realism.test_statistics import windows_of
from tests.tiny import window


def cloud_windows(n: int, seed: int, change=lambda cloud, rng: cloud):
    """Windows of synthetic clusters, with their true masses for proxies."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(13.8, 14.8, n)
    clouds = [change(window(m, rng)[0], rng) for m in true]
    windows = windows_of(clouds, true, rng.uniform(0.03, 0.08, n))
    return replace(
        windows, density_h3_mpc3=np.full(n, 1e-6 / n)
    )  # any number fills the same volume


def compared(real, mock) -> dict[str, realism.Score]:
    how = RealismParams()
    matched = realism.match_half(real, mock, "odd", how)
    rows = realism.compare(matched, "odd", how, np.random.default_rng(0))
    return {s.statistic: s for s in realism.scores(realism.realism_table(rows), "odd", 0.1)}


def test_the_same_simulator_agrees_with_itself():
    score = compared(cloud_windows(400, 1), cloud_windows(1500, 2))
    # Errors of one sigma decide where they exceed 10 %, so deviations of about one and two
    # thirds of such bins are what chance gives; elsewhere all agree.
    assert score["total"].deviation < 1.1
    assert score["total"].agree > 0.7
    assert score["total"].n_bins > 70
    assert score["surface_density"].agree == 1


def doubled(cloud, rng):
    return np.vstack([cloud, cloud + rng.normal(size=cloud.shape) * [0.02, 0.02, 20]])


def displaced(cloud, rng):
    return cloud + np.array([0.3, 0.0, 0.0])


@pytest.mark.parametrize(
    ("change", "statistics"),
    [
        # (matched in richness, twice as many galaxies are told apart by how they lie)
        (doubled, ("clumpiness",)),
        (displaced, ("centres",)),
    ],
)
def test_another_sky_is_told_apart_where_it_differs(change, statistics):
    score = compared(cloud_windows(400, 1, change), cloud_windows(1500, 2))
    for name in statistics:
        assert score[name].deviation > 2, name
        assert score[name].agree < 1, name


def test_a_displaced_centre_leaves_the_counts_alone():
    score = compared(cloud_windows(400, 1, displaced), cloud_windows(1500, 2))
    assert score["window_counts"].deviation < 1.2


def test_rows_say_what_agrees():
    rows = realism.rows_of(
        "s", ["a", "b", "c", "d"], np.zeros(4), np.array([1, 2, 3, np.inf]), [""] * 4,
        real=np.array([10.0, 10.0, 10.0, np.nan]), real_error=np.array([0.1, 3.0, 0.3, 1.0]),
        mock=np.array([10.9, 13.5, 11.1, 1.0]), mock_error=np.array([0.1, 4.0, 0.4, 1.0]),
        half="odd", agreement=0.1,
    )  # fmt: skip
    # 9 % off; 35 % off with an error of 50 %; 11 % off with one of 5 %; nothing to compare
    assert [r["agrees"] for r in rows] == [True, True, False, None]
    table = realism.realism_table(rows)
    assert table["coordinate_high"].to_pylist() == [1, 2, 3, None]
    one, total = realism.scores(table, "odd", 0.1)
    expected = np.sqrt(np.mean(np.square([0.09 / 0.1, 0.35 / 0.5, 0.11 / 0.1])))
    assert one.deviation == pytest.approx(expected)
    assert one.agree == pytest.approx(2 / 3)
    assert (one.n_bins, total.statistic, total.deviation) == (3, "total", one.deviation)
    assert realism.scores(table, "even", 0.1) == []


def test_the_step_writes_every_statistic_of_both_halves(tiny_run):
    workspace, _ = tiny_run
    table = read_table(workspace.realism / "realism.parquet", "realism").to_pandas()
    metrics = read_json(workspace.realism / "metrics.json")
    for half in ("even", "odd"):
        here = table[table.half == half]
        for name, statistic in STATISTICS.items():
            assert (here.statistic == name).sum() == statistic.low.size, name
        assert 0 < metrics[half]["n_compared"] <= 15
        assert metrics[half]["total_deviation"] > 0
        counted = here.dropna(subset=["ratio"])
        np.testing.assert_allclose(counted.ratio, counted.mock / counted.real)
    # the values are those of the windows that count, not of all
    assert table[table.statistic == "window_counts"].real.between(10, 400).all()


def test_every_statistic_says_what_it_is():
    for statistic in STATISTICS.values():
        names = statistic.bin_names()
        assert len(set(names)) == len(names) == statistic.low.size == len(statistic.bin_units())
        assert statistic.title
        assert np.all(statistic.high >= statistic.low)


def test_parameters_are_checked():
    with pytest.raises(ValueError, match="greater than 0"):
        Params.model_validate({"realism": {"richness_bin_dex": 0}})
