"""Masses of a survey: flags, comparison and mass function."""

import numpy as np
import pytest
from scipy.stats import poisson

from cmass.columns import FLAGS
from cmass.evaluate.forward import facing_sigma, pull
from cmass.infer import (
    comoving_volume,
    haloes_above,
    mass_function_table,
    number_density,
)
from cmass.params import load_params
from cmass.posterior import cumulative_at, grid_edges, quantiles
from cmass.pretrained import from_workspace
from cmass.tables import read_table


@pytest.fixture(scope="module")
def products(tiny_run):
    workspace, _ = tiny_run
    masses = read_table(workspace.masses / "masses.parquet", "masses").to_pandas()
    numbers = read_table(workspace.masses / "comparison.parquet", "calibration").to_pandas()
    return masses, numbers, workspace


def value(numbers, metric, column="value"):
    row = numbers[(numbers.metric == metric) & (numbers.bin == "embedded")]
    assert len(row) == 1, metric
    return row[column].iloc[0]


def flagged(masses, name):
    return masses["flag"] & FLAGS[name].value > 0


def test_every_cluster_keeps_its_row_and_its_flag(products):
    masses, _, _ = products
    assert masses.cluster_id.tolist() == [f"cl-{i:03d}" for i in range(30)]
    assert flagged(masses, "too_few_galaxies").tolist() == [True] + 29 * [False]
    assert flagged(masses, "degenerate").tolist() == [False, True] + 28 * [False]
    assert flagged(masses, "redshift_outside_training")[2]
    assert flagged(masses, "window_incomplete")[3]
    no_mass = masses[flagged(masses, "too_few_galaxies") | flagged(masses, "degenerate")]
    assert no_mass.log10_m200c.isna().all()
    assert no_mass.log10_m200c_p50.isna().all()
    assert all(len(p) == 0 for p in no_mass.posterior)


def test_posteriors_and_quantiles_belong_together(products):
    masses, _, workspace = products
    grid = read_table(workspace.posterior / "posterior_grid.parquet", "posterior_grid")
    edges = grid_edges(grid)
    has = masses[masses.log10_m200c_p50.notna()]
    assert len(has) > 20
    p = np.array(has.posterior.tolist())
    assert p.shape[1] == grid.num_rows
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-6)  # float32
    found = quantiles(p.astype(float), edges, [0.15866, 0.5, 0.84134])
    columns = has[["log10_m200c_p16", "log10_m200c_p50", "log10_m200c_p84"]].to_numpy()
    np.testing.assert_allclose(found, columns, atol=1e-4)  # levels and float32 rounded
    np.testing.assert_allclose(has.sigma_plus, has.log10_m200c_p84 - has.log10_m200c_p50)
    np.testing.assert_allclose(has.sigma_minus, has.log10_m200c_p50 - has.log10_m200c_p16)
    # The mass function falls, so its posterior lies lower.
    assert (has.log10_m200c_hmf_p50 < has.log10_m200c_p50).all()


def test_comparison_recomputed_plainly(products):
    masses, numbers, workspace = products
    clusters = read_table(workspace.selected / "clusters.parquet", "clusters").to_pandas()
    truth = read_table(workspace.raw / "truth.parquet", "survey_truth").to_pandas()
    both = masses.merge(clusters[["cluster_id", "log10_m200_galweight"]], on="cluster_id")
    both = both.merge(truth, on="cluster_id").dropna(subset=["log10_m200c_p50"])
    offset = (both.log10_m200c_p50 - both.log10_m200_galweight).dropna()
    assert value(numbers, "n_compared") == len(offset)
    assert value(numbers, "galweight_offset_median") == pytest.approx(offset.median())
    assert value(numbers, "galweight_scatter") == pytest.approx(offset.std())
    true_offset = both.log10_m200c_p50 - both.log10_m200c_true
    assert value(numbers, "truth_offset_median") == pytest.approx(true_offset.median())
    assert value(numbers, "pull_mean", "paper_value") == -0.02
    assert value(numbers, "pull_std", "paper_value") == 1.05
    edges = from_workspace(workspace, load_params()).edges
    p = np.array(both.posterior.tolist(), float)
    u = cumulative_at(p, edges, both.log10_m200c_true)
    inside = np.abs(u - 0.5) <= 0.34134
    assert value(numbers, "truth_coverage_68") == pytest.approx(inside.mean())


def test_x_ray_masses_are_compared_on_the_same_clusters(products):
    """Twenty of ours have one in the same place; one of them lacks GalWeight's mass."""
    _, numbers, workspace = products
    matches = read_table(workspace.masses / "xray_matches.parquet", "xray_matches").to_pandas()
    assert (matches.cluster_id == matches.xray_name).all() and matches.accepted.all()
    assert value(numbers, "xray_n_matched") == 20
    known = matches[matches.log10_m200_galweight.notna() & matches.log10_m200c_p50.notna()]
    assert value(numbers, "xray_n_compared") == len(known) < 20
    offset = known.log10_m200c_p50 - known.log10_m200c_xray
    assert value(numbers, "xray_offset_cnn3d") == pytest.approx(np.median(offset), abs=1e-12)
    # the rivals of the run stand beside them
    rivals = read_table(workspace.masses / "rivals.parquet", "rival_masses").to_pandas()
    for name in set(rivals.estimator):
        called = f"rival_{name}" if name in ("dispersion", "cnn3d") else name
        assert f"xray_offset_{called}" in set(numbers.metric), name


def test_pull_uses_the_error_that_faces_the_reference():
    p16, p50, p84 = (np.array([x, x]) for x in (14.0, 14.1, 14.4))
    reference = np.array([14.7, 13.9])
    np.testing.assert_allclose(facing_sigma(p16, p50, p84, reference), [0.3, 0.1])
    np.testing.assert_allclose(pull(p16, p50, p84, reference), [-2.0, 2.0])
    found = pull(p16, p50, p84, reference, np.array([0.4, 0.0]))
    np.testing.assert_allclose(found, [-1.2, 2.0])


def test_forward_model_has_rows_for_each_half(products):
    _, numbers, workspace = products
    offsets = read_table(workspace.masses / "offsets.parquet", "offsets").to_pandas()
    for half, bin in (("all", "embedded"), ("even", "embedded_even"), ("odd", "embedded_odd")):
        rows = numbers[numbers.bin == bin].set_index("metric").value
        counts = offsets[offsets.half == half]
        assert counts.n_observed.sum() == rows["n_compared"] > 5
        assert counts.n_predicted.sum() == pytest.approx(rows["n_compared"])
        for name in ("galweight_offset_mean", "galweight_scatter", "pull_mean", "pull_std"):
            assert np.isfinite(rows[f"expected_{name}"])
        found = rows["galweight_offset_mean"] - rows["expected_galweight_offset_mean"]
        assert rows["galweight_offset_mean_beyond_expected"] == pytest.approx(found)
    assert (numbers.groupby(["metric", "bin"]).size() == 1).all()


def test_counts_above_a_mass(products):
    masses, numbers, workspace = products
    rows = numbers[numbers.bin == "above 14.2"].set_index("metric").value
    assert rows["n_above_cnn3d"] == (masses.log10_m200c_p50 > 14.2).sum()
    assert rows["n_above_point"] == (masses.log10_m200c > 14.2).sum()
    grid = read_table(workspace.posterior / "posterior_grid.parquet", "posterior_grid")
    edges = grid_edges(grid)
    p = np.array([list(x) for x in masses.posterior if len(x)], float)
    above = (1 - cumulative_at(p, edges, np.full(len(p), 14.2))).sum()
    assert rows["n_above_posterior"] == pytest.approx(above, rel=1e-9)
    population = read_table(
        workspace.evaluation / "population.parquet", "population_masses"
    ).to_pandas()
    from cmass.evaluate.volume import effective_area_deg2

    volume = comoving_volume(effective_area_deg2(workspace, load_params(), 30), 250.0)
    # The embedded survey has no halo below its own limit.
    inside = population[population.log10_m200c_true >= 13.7]
    weight = inside.number_density_h3_mpc3 * volume
    expected = weight[inside.log10_m200c > 14.2].sum()
    assert rows["expected_n_above_point"] == pytest.approx(expected, rel=1e-9)


def test_haloes_above_a_mass_is_the_integral():
    pytest.importorskip("colossus")
    from scipy.integrate import quad

    from cmass.mass_function import mass_function

    params = load_params()
    expected = 1e7 * quad(lambda m: mass_function(m, 0.06, params.cosmology), 14.2, 16)[0]
    found = haloes_above((14.2,), 0.06, 1e7, params)[14.2]
    assert found == pytest.approx(expected, rel=1e-4)  # trapezoids of 0.002 dex


def test_number_density_integrates_to_the_count():
    m = np.random.default_rng(0).normal(14.3, 0.2, 500)
    at = np.linspace(13, 15.6, 2000)
    density, low, high = number_density(m, at, 1e6, 0.08)
    assert np.trapezoid(density, at) == pytest.approx(500 / 1e6, rel=1e-6)
    assert (low <= density).all()
    assert (density <= high).all()


def test_poisson_band_is_exact_where_the_count_is_whole():
    """n clusters on one spot: the effective count under the kernel is n sqrt(2)."""
    h, volume, n = 0.1, 1.0, 50
    density, low, high = number_density(np.full(n, 14.0), np.array([14.0]), volume, h)
    effective = n * np.sqrt(2)
    assert density[0] == pytest.approx(n / (np.sqrt(2 * np.pi) * h))
    # The limits are those counts for which the observed one is a 15.866 % tail.
    ratio_low, ratio_high = low[0] / density[0], high[0] / density[0]
    assert 1 - poisson.cdf(70, ratio_low * effective) == pytest.approx(0.15866, abs=0.02)
    assert poisson.cdf(71, ratio_high * effective) == pytest.approx(0.15866, abs=0.02)
    assert ratio_high - 1 == pytest.approx(1 / np.sqrt(effective), rel=0.15)


def test_empty_places_have_an_upper_limit():
    density, low, high = number_density(np.array([14.0]), np.array([20.0]), 2.0, 0.1)
    assert density[0] == low[0] == 0
    # -ln(0.15866) = 1.841 counts in an effective bin of 2 sqrt(pi) h.
    assert high[0] == pytest.approx(1.841 / (2 * np.sqrt(np.pi) * 0.1 * 2.0), rel=1e-3)


def test_mass_function_has_theory_beside_the_measured():
    pytest.importorskip("colossus")
    from cmass.mass_function import mass_function

    params = load_params()
    rng = np.random.default_rng(1)
    table = mass_function_table(
        {"cnn3d": rng.normal(14.3, 0.2, 300), "galweight": np.array([np.nan, 14.0])},
        6670.0, 0.06, params,
    ).to_pandas()  # fmt: skip
    assert set(table.estimator) == {"cnn3d", "tinker08"}  # one mass is no function
    theory = table[table.estimator == "tinker08"]
    expected = mass_function(theory.log10_m200c.to_numpy(), 0.06, params.cosmology)
    np.testing.assert_allclose(theory.density_h3_mpc3_dex, expected)
    assert theory.density_low.isna().all()


def test_volume_of_the_papers_survey():
    # 6670 deg² out to 250 Mpc/h: 6670 (pi/180)² 250³/3 = 1.0582e7.
    assert comoving_volume(6670.0, 250.0) == pytest.approx(1.0582e7, rel=1e-4)
    # 4 pi/3 for the whole sky.
    assert comoving_volume(41252.96125, 1.0) == pytest.approx(4 * np.pi / 3, rel=1e-8)


def test_area_is_the_footprint_less_its_rim(tiny_run):
    """An octant of the sky; one of 31 near clusters inside it was rejected, one is far."""
    from cmass.evaluate.volume import effective_area_deg2

    workspace, params = tiny_run
    octant = 41252.96125 / 8
    # 0.1 %: a million points on the sphere.
    assert effective_area_deg2(workspace, params, 30) == pytest.approx(octant * 30 / 31, rel=1e-3)
    fixed = params.model_copy(
        update={"infer": params.infer.model_copy(update={"area_deg2": 6670.0})}
    )
    assert effective_area_deg2(workspace, fixed, 30) == 6670.0
