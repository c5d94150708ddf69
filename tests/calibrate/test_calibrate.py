"""The calibrate command in small: real simulator, few windows, a survey made by it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from cmass import calibrate
from cmass.calibrate import design
from cmass.calibrate.values import with_values
from cmass.errors import ParameterError, WorkspaceError
from cmass.evaluate.volume import comoving_volume
from cmass.params import load_params
from cmass.shards import Shard
from cmass.tables import make_table, read_table, write_table
from cmass.workspace import Workspace

# One process: the fits are the costly part.
pytestmark = pytest.mark.xdist_group("calibrate")
SHIPPED = Path(__file__).parents[2] / "params.yaml"
PRIORS = {
    "mock.members.velocity_bias": (0.7, 1.4),
    "mock.members.concentration_ratio": (0.3, 1.8),
}
TRUTH = {"mock.members.velocity_bias": 1.2, "mock.members.concentration_ratio": 0.6}


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """A survey of simulated windows of known parameters, and a design for two of them."""
    folder = tmp_path_factory.mktemp("calibrate")
    base = load_params(SHIPPED, "smoke")
    haloes = {"population.log10_m200c_min": 13.8, "population.log10_m200c_max": 14.8,
              "mock.environment.radius_mpc_h": 25.0}  # fmt: skip
    params = with_values(
        base.model_copy(update={"workers": 1}),
        {"calibrate.priors": PRIORS, "calibrate.n_points": 9, "calibrate.n_windows": 90,
         "calibrate.check_windows": 90, "realism.distance_bins": 1, "realism.richness_bin_dex": 0.25,
         "realism.bootstrap_rounds": 50, **haloes},
    )  # fmt: skip
    workspace = Workspace(folder, "smoke", "embedded")
    sky = design.simulated(params.model_copy(update={"seed": 99}), TRUTH, 160)
    # a real survey holds haloes as the mass function does
    density = np.quantile(sky.weight, 0.7)
    keep = np.random.default_rng(4).random(len(sky)) < sky.weight / density
    sky = sky.select(keep)
    far = params.window.distance_max_mpc_h
    params = with_values(params, {"infer.area_deg2": 1 / density / comoving_volume(1.0, far)})
    ids = [f"cl-{2 * i:04d}" for i in range(len(sky))]
    # Odd clusters are nothing like the mocks: all their galaxies are in one place.
    odd = sky.select(np.arange(5))
    ids += [f"cl-{2 * i + 1:04d}" for i in range(5)]
    sky = replace(
        sky, **{name: np.concatenate([getattr(sky, name), getattr(odd, name)])
                for name in ("z", "distance_mpc_h", "log10_m200")},
        points=np.vstack([sky.points, 0.01 * odd.points]),
        offsets=np.concatenate([sky.offsets, sky.offsets[-1] + odd.offsets[1:]]),
    )  # fmt: skip
    clusters = {
        "cluster_id": ids, "ra": np.arange(len(sky)) * 1.0, "dec": np.zeros(len(sky)), "z": sky.z,
        "distance_mpc_h": sky.distance_mpc_h, "n_galaxies": sky.counts,
        "log10_m200_galweight": sky.log10_m200, "log10_m200_galweight_err": np.full(len(sky), 0.1),
        "flag": np.zeros(len(sky), int),
    }  # fmt: skip
    galaxies = {
        "cluster_id": [i for i, k in zip(ids, sky.counts, strict=True) for _ in range(k)],
        "galaxy_id": np.arange(len(sky.points)), "x_proj": sky.points[:, 0],
        "y_proj": sky.points[:, 1], "v_los": sky.points[:, 2],
    }  # fmt: skip
    for name, columns in (("clusters", clusters), ("galaxies", galaxies)):
        write_table(workspace.selected / f"{name}.parquet", make_table(name, columns), name)
    return workspace, params


@pytest.fixture(scope="module")
def done(setting, tmp_path_factory):
    workspace, params = setting
    file = Path(shutil.copy(SHIPPED, tmp_path_factory.mktemp("file") / "params.yaml"))
    return workspace, params, file, calibrate.run(workspace, params, file)


def test_the_design_starts_where_the_parameters_stand(setting):
    _, params = setting
    u = design.design_points(params)
    assert u.shape == (9, 2)
    assert np.abs(u).max() <= 1
    start = design.values_at(params, u[0])
    assert start == pytest.approx(
        {"mock.members.velocity_bias": params.mock.members.velocity_bias,
         "mock.members.concentration_ratio": params.mock.members.concentration_ratio}
    )  # fmt: skip
    # a Latin hypercube has one point in each of its eight strips
    for axis in u[1:].T:
        assert sorted(np.floor(4 * (axis + 1)).astype(int)) == list(range(8))
    np.testing.assert_array_equal(u, design.design_points(params))


def test_the_truth_is_found_within_its_errors(done):
    *_, result = done
    truth = np.array([TRUTH[n] for n in result.names])
    # three errors, of two parameters
    assert np.all(np.abs(result.best - truth) < 3 * result.error)
    # the survey says more than the prior did about velocities, and little about concentrations
    half_range = (result.high - result.low) / 2
    assert result.error[0] < 0.5 * half_range[0]
    assert result.error[1] < half_range[1]
    assert abs(result.best - truth)[0] < abs(result.start - truth)[0]


def test_values_and_widths_reach_the_parameter_file(done):
    _, _, file, result = done
    params = load_params(file)
    chosen = result.best if result.better else result.start
    for name, best, error in zip(result.names, chosen, result.error_alone, strict=True):
        section, field = name.split(".")[1:]
        value = getattr(getattr(params.mock, section), field)
        assert value == best
        width = params.mock.nuisance[f"{section}.{field}"]
        assert 0 < width <= 1.05 * np.sqrt(3) * error
    assert "# galaxies over the Jeans solution in velocity" in file.read_text()


def test_tables_and_figures_are_there(done):
    workspace, _, _, result = done
    folder = workspace.calibration
    table = read_table(folder / "parameters.parquet", "calibrated_parameters")
    assert table["best"].to_pylist() == result.best.tolist()
    moved = read_table(folder / "sensitivities.parquet", "sensitivities").to_pandas()
    # faster galaxies, larger dispersions
    of_velocity = moved[(moved.statistic == "dispersions")
                        & (moved.parameter == "mock.members.velocity_bias")]  # fmt: skip
    assert of_velocity.sensitivity.mean() > 0.5
    for name in ("sensitivities", "parameters", "ratios"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_simulates_nothing(done, monkeypatch):
    workspace, params, _, result = done

    def fail(*_):
        raise AssertionError("simulated again")

    monkeypatch.setattr(calibrate, "measure_point", fail)
    again = calibrate.run(workspace, params, None)
    np.testing.assert_array_equal(again.best, result.best)
    np.testing.assert_array_equal(again.error, result.error)


def test_only_even_clusters_are_read(done, tmp_path):
    """Odd clusters that are nothing like the mocks do not change what a point measures."""
    workspace, params, _, _ = done
    area = params.infer.area_deg2

    def measured(name: str, workspace: Workspace, area_deg2: float):
        these = with_values(params, {"infer.area_deg2": area_deg2})
        folder = tmp_path / name / "points"
        folder.mkdir(parents=True)
        arguments = ("points", 0, TRUTH, 60, workspace, these)
        design.measure_point(folder, Shard(0, ("point.parquet",), arguments))
        return read_table(folder / "point.parquet", "realism")

    alone = Workspace(tmp_path / "alone", "smoke", "embedded")
    for name in ("clusters", "galaxies"):
        table = read_table(workspace.selected / f"{name}.parquet", name)
        even = pc.match_substring_regex(table["cluster_id"], "[02468]$")
        assert not pc.all(even).as_py()
        write_table(alone.selected / f"{name}.parquet", table.filter(even), name)
    assert measured("all", workspace, area).equals(measured("even", alone, area))


def test_without_priors_there_is_nothing_to_do(setting):
    workspace, params = setting
    empty = params.model_copy(
        update={"calibrate": params.calibrate.model_copy(update={"priors": {}})}
    )
    with pytest.raises(ParameterError, match="nothing to calibrate"):
        calibrate.run(workspace, empty, None)


def test_without_selected_clusters_the_remedy_is_named(setting, tmp_path):
    _, params = setting
    with pytest.raises(WorkspaceError, match="run `cmass select --survey embedded` first"):
        calibrate.run(Workspace(tmp_path, "smoke", "embedded"), params, None)


def test_a_fit_that_its_check_does_not_confirm_moves_nothing(done):
    _, params, _, result = done
    worse = replace(result, deviation_best=result.deviation_start + 0.1)
    written = calibrate.written_values(params, worse)
    for name, start in zip(result.names, result.start, strict=True):
        assert written[name] == start
    better = replace(result, deviation_best=result.deviation_start - 0.1)
    assert calibrate.written_values(params, better)[result.names[0]] == result.best[0]
    assert np.all(result.error_alone <= result.error * (1 + 1e-9))
