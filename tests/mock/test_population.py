"""The population: flat in log mass, weighted to the mass function, each halo on its own."""

from __future__ import annotations

import numpy as np
import pytest

from cmass.columns import FLAGS, NOT_CATALOGUED
from cmass.evaluate.realism.windows import mock_windows
from cmass.mass_function import mass_function
from cmass.mock import population
from cmass.params import load_params
from cmass.tables import read_table, to_numpy
from cmass.workspace import Workspace


@pytest.fixture
def params():
    base = load_params(profile="smoke")
    small = base.population.model_copy(update={"n_windows": 24})
    return base.model_copy(update={"population": small, "workers": 1})


def test_weights_add_up_to_the_mass_function(params):
    large = params.model_copy(
        update={"population": params.population.model_copy(update={"n_windows": 20000})}
    )
    masses = np.array([p.log10_m200c for p in population.plan_population(large)])
    total = population.weights(masses, large)[masses > 14].sum()
    grid = np.linspace(14, large.population.log10_m200c_max, 2000)
    z = params.mock.snapshot_redshift
    expected = np.trapezoid(mass_function(grid, z, params.cosmology), grid)
    # Stratified sampling: 13 000 haloes above 10^14 leave no Poisson noise, only the bins' width.
    assert total == pytest.approx(expected, rel=1e-3)


def test_haloes_are_new_and_seen_once(params):
    plans = population.plan_population(params)
    assert len({p.halo_id for p in plans}) == 24
    assert min(p.halo_id for p in plans) >= population.FIRST_HALO_ID
    assert {p.n_sight_lines for p in plans} == {1}
    masses = np.sort([p.log10_m200c for p in plans])
    width = (15.3 - 13.0) / 24
    assert np.all((masses - 13.0) // width == np.arange(24))


def test_all_clusters_share_one_universe(params):
    assert not population.one_universe(params).mock.randomise_nuisance
    asked = params.population.model_copy(update={"randomise_nuisance": True})
    drawn = params.model_copy(update={"population": asked})
    assert population.one_universe(drawn).mock.randomise_nuisance
    fixed = drawn.mock.model_copy(update={"randomise_nuisance": False})
    fixed_params = drawn.model_copy(update={"mock": fixed})
    assert not population.one_universe(fixed_params).mock.randomise_nuisance


def test_run_writes_windows(params, tmp_path):
    workspace = Workspace(tmp_path, "smoke", "embedded")
    population.run(workspace, params)
    clusters = read_table(workspace.population / "clusters", "mock_clusters")
    galaxies = read_table(workspace.population / "galaxies", "mock_galaxies")
    n, distance = to_numpy(clusters, "n_galaxies", "distance_mpc_h")
    assert clusters.num_rows == 24
    assert n.sum() == galaxies.num_rows
    assert (distance >= params.mock.haloes.distance_min_mpc_h).all()
    assert (distance <= params.window.distance_max_mpc_h).all()


def test_a_halo_on_top_of_a_heavier_one_is_no_cluster(params, tmp_path):
    """Groups of 10^13 near rich clusters: what the finder sees there is the cluster."""
    groups = params.population.model_copy(
        update={"n_windows": 150, "log10_m200c_min": 13.0, "log10_m200c_max": 13.2}
    )
    params = params.model_copy(update={"population": groups})
    workspace = Workspace(tmp_path, "smoke", "embedded")
    population.run(workspace, params)
    clusters = read_table(workspace.population / "clusters", "mock_clusters")
    flag, distance = to_numpy(clusters, "flag", "contaminant_distance")
    blended = (flag & FLAGS["blended"].value) != 0
    assert 0.02 < blended.mean() < 0.3
    # the nearest of the heavier ones is as near as the heaviest, or nearer
    near = distance < params.mock.observer.separation
    assert blended[near].all()
    assert np.isfinite(distance[blended]).all()
    windows = mock_windows(workspace.population, params, population.weights)
    assert len(windows) + windows.n_left_out == (flag & NOT_CATALOGUED == 0).sum() < 150
