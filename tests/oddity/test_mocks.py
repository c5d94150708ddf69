"""Flags keep the false-alarm rate they promise, and find what is odd."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from cmass import infer, oddity
from cmass.columns import FLAGS
from cmass.errors import InputError, WorkspaceError
from cmass.estimators.windows import Windows
from cmass.oddity.injected import FIELD, injected
from cmass.oddity.mocks import Oddity, chance, fit
from cmass.pretrained import from_workspace, load_bundle
from cmass.tables import read_json, read_table, write_json
from tests.tiny import tiny_params, window

PARAMS = tiny_params()


def toy(n, seed):
    """Windows of a simple universe, and features that follow mass, richness and distance."""
    rng = np.random.default_rng(seed)
    mass = rng.uniform(13.6, 15.0, n)
    clouds, members = zip(*(window(m, rng) for m in mass), strict=True)
    offsets = np.concatenate([[0], np.cumsum([len(c) for c in clouds])]).astype(np.int64)
    windows = Windows([str(i) for i in range(n)], np.vstack(clouds), offsets,
                      rng.uniform(0.02, 0.08, n), mass, np.arange(n))  # fmt: skip
    plain = np.column_stack([mass, np.log(members), np.log(windows.z)])
    return windows, np.column_stack([plain, plain**2])


@pytest.fixture(scope="module")
def made():
    return fit(*toy(1500, 1), *toy(2500, 2), np.full(2500, np.nan), PARAMS)


def rate(made, windows, features, name):
    found = made.judge(features, windows.points, windows.offsets, windows.z)
    return (found.flag & FLAGS[name].value > 0).mean(), found


@pytest.mark.parametrize("name", ["unlike_mocks", "two_clusters"])
def test_new_mocks_raise_as_many_false_alarms_as_promised(made, name):
    """1 % of 3000 is 30 ± 5.4; the threshold, from 2500, has 0.2 % of its own: 4 sigma is 1.1 %."""
    found, all_ = rate(made, *toy(3000, 3), name)
    assert found == pytest.approx(0.01, abs=0.011) and found > 0
    p = all_.distance_p if name == "unlike_mocks" else all_.second_peak_p
    for level in (0.1, 0.5, 0.9):
        assert (p <= level).mean() == pytest.approx(level, abs=0.05)


def test_odd_windows_are_found(made):
    """Galaxies spread evenly, with the features of clusters; a rich second clump."""
    windows, features = toy(300, 4)
    even = injected(FIELD, windows, PARAMS.window, 4, 1)
    assert rate(made, even, features, "unlike_mocks")[0] > 0.7
    rng = np.random.default_rng(5)
    clouds = []
    for i in range(len(windows)):
        cloud = windows.cloud(i)
        rich = rng.standard_normal((2 * len(cloud), 3)) * [0.2, 0.2, 300] + [2.5, 0, 0]
        clouds.append(np.vstack([cloud, rich]))
    offsets = np.concatenate([[0], np.cumsum([len(c) for c in clouds])]).astype(np.int64)
    double = replace(windows, points=np.vstack(clouds), offsets=offsets)
    assert rate(made, double, features, "two_clusters")[0] > 0.9
    assert rate(made, windows, features + 20, "unlike_mocks")[0] == 1.0


def test_windows_with_a_second_cluster_do_not_raise_the_threshold():
    """Tall second peaks of mocks that have a neighbour must not count as usual."""
    train, (test, features) = toy(300, 1), toy(400, 2)
    ratio = np.where(np.arange(400) % 2 == 0, 1.0, np.nan)
    both = fit(*train, test, features, np.full(400, np.nan), PARAMS)
    alone = fit(*train, test, features, ratio, PARAMS)
    assert both.peaks.size == 400 and alone.peaks.size == 200
    light = fit(*train, test, features, np.full(400, PARAMS.oddity.neighbour_mass_ratio), PARAMS)
    assert light.peaks.size == 400
    with pytest.raises(InputError, match="without a second cluster"):
        fit(*train, test, features, np.full(400, 3.0), PARAMS)


def test_chance_is_the_part_at_least_as_far_out():
    mocks = np.array([1.0, 2.0, 2.0, 4.0, np.nan])
    found = chance([0.5, 1.0, 2.0, 3.0, 4.0, 5.0, np.nan], mocks)
    np.testing.assert_allclose(found[:6], (1 + np.array([4, 4, 3, 1, 1, 0])) / 5)
    assert np.isnan(found[6])


def test_a_chance_at_the_rate_is_a_false_alarm(made):
    """99 mocks, all nearer: 1/100 is one in a hundred; 98 can show no such rate."""
    windows, features = toy(20, 8)
    for n, flagged in ((99, True), (98, False)):
        other = replace(made, distances=np.zeros(n), peaks=np.full(n, -1.0))
        for name in ("unlike_mocks", "two_clusters"):
            assert rate(other, windows, features, name)[0] == flagged, (n, name)


def test_a_window_of_the_test_set_is_as_far_out_as_itself(made):
    """The farthest of 2500 is one of two at least as far: rounding to the file's precision counts."""
    windows, features = toy(2500, 2)
    found = made.judge(features, windows.points, windows.offsets, windows.z)
    np.testing.assert_array_equal(found.distance, made.distances)
    assert found.distance_p.min() == found.second_peak_p.min() == 2 / 2501


def test_too_few_test_windows_for_the_rate_are_said(caplog):
    train, (test, features) = toy(100, 1), toy(60, 2)
    with caplog.at_level("WARNING", "cmass"):
        fit(*train, test, features, np.full(60, np.nan), PARAMS)
    for name in ("unlike_mocks", "two_clusters"):
        assert f"flag {name} is never set" in caplog.text
    caplog.clear()
    often = PARAMS.model_copy(
        update={"oddity": PARAMS.oddity.model_copy(update={"false_alarm": 0.02})}
    )
    with caplog.at_level("WARNING", "cmass"):
        fit(*train, test, features, np.full(60, np.nan), often)
    assert "never set" not in caplog.text


def test_what_was_saved_says_the_same(made, tmp_path):
    made.save(tmp_path)
    again = Oddity.load(tmp_path)
    windows, features = toy(50, 6)
    a, b = (x.judge(features, windows.points, windows.offsets, windows.z) for x in (made, again))
    for name in ("distance", "distance_p", "second_peak", "second_peak_p", "flag"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    first = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    made.save(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == first
    assert Oddity.load(tmp_path / "absent") is None
    write_json(tmp_path / oddity.SETTINGS, {"space": {}})
    with pytest.raises(InputError, match="not a description of mocks"):
        Oddity.load(tmp_path)


def test_rows_of_nan_are_not_judged(made):
    windows, features = toy(20, 7)
    features[3] = np.nan
    found = made.judge(features, windows.points, windows.offsets, windows.z)
    assert np.isnan(found.distance[3]) and np.isnan(found.second_peak_p[3]) and found.flag[3] == 0
    assert np.isfinite(np.delete(found.distance, 3)).all()


# ------------------------------------------------------------------ through a finished run


def test_a_run_carries_the_measures_to_the_masses(tiny_run):
    workspace, params = tiny_run
    masses = read_table(workspace.masses / "masses.parquet", "masses").to_pandas()
    has = masses.log10_m200c.notna()
    for p, name in (("outlier_p", "unlike_mocks"), ("second_peak_p", "two_clusters")):
        assert (masses[p].notna() == has).all()
        odd = (masses.flag & FLAGS[name].value) > 0
        assert (odd == (masses[p] <= params.oddity.false_alarm)).all()
    rates = read_table(workspace.oddity / "rates.parquet", "oddity_rates").to_pandas()
    mocks = rates.set_index("case").loc["mocks"]
    # 100 windows judged by 200: 1 % has errors of 1 % and 0.7 %
    assert mocks.n == 100 and mocks.unlike_mocks < 0.06
    assert rates.set_index("case").loc[FIELD].unlike_mocks > mocks.unlike_mocks


def some_windows():
    windows, _ = toy(12, 8)
    n = len(windows)
    return infer.Sample(windows.cluster_id, np.zeros(n), np.zeros(n), windows.z,
                        np.zeros(n, np.int32), windows.points, windows.offsets)  # fmt: skip


def test_masses_do_not_change_by_a_bit(tiny_run):
    """The features come from the same pass; without them the estimates are the same."""
    bundle = from_workspace(*tiny_run)
    sample = some_windows()
    flag = sample.flag.copy()
    alone = infer.network_outputs(sample, bundle, flag, progress=False)
    both = infer.network_outputs(sample, bundle, flag, features=True, progress=False)
    assert alone.shape == (12, 1) and both.shape == (12, 129)
    np.testing.assert_array_equal(alone[:, 0], both[:, 0])


def test_a_model_from_before_says_so_and_works(tiny_bundle, tmp_path, caplog):
    """The files of the mocks are missing and so is their mention: everything else is there."""
    old = tmp_path / "old"
    shutil.copytree(tiny_bundle, old)
    new = infer.masses_from_points(some_windows(), load_bundle(old), progress=False)
    (old / oddity.REFERENCE).unlink()
    with pytest.raises(WorkspaceError, match="incomplete"):
        load_bundle(old)
    (old / oddity.SETTINGS).unlink()
    description = read_json(old / "model.json")
    for name in (oddity.SETTINGS, oddity.REFERENCE):
        description["checksums"].pop(name)
    write_json(old / "model.json", description)
    caplog.set_level("INFO")
    bundle = load_bundle(old)
    assert bundle.oddity is None
    table = infer.masses_from_points(some_windows(), bundle, progress=False)
    assert "flags unlike_mocks and two_clusters are not set" in caplog.text
    assert table["outlier_p"].null_count == table["second_peak"].null_count == 12
    assert table["log10_m200c"].equals(new["log10_m200c"])
    assert new["outlier_p"].null_count == 0
