"""The clipped velocity dispersion, against known answers."""

import numpy as np
import pyarrow as pa
import pytest
from scipy.integrate import trapezoid
from scipy.stats import truncnorm

from cmass.cosmology import Cosmology
from cmass.errors import InputError
from cmass.estimators.dispersion import Relation, clipped_sigma_km_s, fit, gapper_km_s
from cmass.params import load_params
from cmass.tables import make_table, write_table
from cmass.workspace import Workspace

COSMOLOGY = Cosmology(0.307115)


def gapper_by_definition(v):
    """Beers+1990, eq. 9, written as the paper does."""
    v = np.sort(v)
    i = np.arange(1, v.size)
    return np.sqrt(np.pi) / (v.size * (v.size - 1)) * np.sum(i * (v.size - i) * np.diff(v))


def cloud(rng, n, sigma, n_field=0, radius=1.0):
    r = radius * np.sqrt(rng.uniform(0, 1, n + n_field))
    phi = rng.uniform(0, 2 * np.pi, n + n_field)
    v = np.concatenate([sigma * rng.standard_normal(n), rng.uniform(-2200, 2200, n_field)])
    return np.column_stack([r * np.cos(phi), r * np.sin(phi), v])


def measure(*clouds, clip=2.7):
    offsets = np.concatenate([[0], np.cumsum([len(c) for c in clouds])])
    return clipped_sigma_km_s(np.concatenate(clouds), offsets, clip=clip)


def test_gapper_equals_its_definition_and_a_normal_sigma():
    v = np.sort(600 * np.random.default_rng(0).standard_normal(5000))
    assert gapper_km_s(v) == pytest.approx(gapper_by_definition(v), rel=1e-12)
    # Standard error of sigma: sigma/sqrt(2n) = 1 %.
    assert gapper_km_s(v) == pytest.approx(600, rel=0.03)


@pytest.mark.parametrize("sigma", [300.0, 500.0, 800.0])
def test_clean_normal_gives_the_truncated_dispersion(sigma):
    found = measure(cloud(np.random.default_rng(1), 20000, sigma))[0]
    # A normal cut at 2.7 of its own clipped dispersion, iterated to the fixed point. The
    # gapper tends to sqrt(pi) times the integral of F (1 - F).
    expected = sigma
    for _ in range(50):
        cut = 2.7 * expected / sigma
        x = np.linspace(-cut, cut, 4001)
        cdf = truncnorm(-cut, cut).cdf(x)
        expected = sigma * np.sqrt(np.pi) * trapezoid(cdf * (1 - cdf), x)
    # 20 000 galaxies: 0.5 % standard error.
    assert found == pytest.approx(expected, rel=0.015)


def test_interlopers_are_clipped():
    rng = np.random.default_rng(2)
    dirty = cloud(rng, 2000, 500.0, n_field=200)
    assert measure(dirty, clip=2.7)[0] == pytest.approx(500, rel=0.06)
    assert measure(dirty, clip=50.0)[0] > 580


def test_offset_velocity_does_not_matter():
    c = cloud(np.random.default_rng(4), 400, 500.0)
    moved = c + np.array([0, 0, 350.0])
    np.testing.assert_allclose(measure(moved), measure(c), rtol=1e-12)


def test_only_the_aperture_counts():
    rng = np.random.default_rng(5)
    inner = cloud(rng, 300, 400.0, radius=0.9)
    ring = cloud(rng, 300, 900.0, radius=0.1) + np.array([0.9, 0.9, 0])
    both = np.vstack([ring, inner])
    assert measure(both)[0] == measure(inner)[0]
    offsets = np.array([0, 600])
    assert clipped_sigma_km_s(both, offsets, aperture_mpc_h=2.0)[0] > 1.2 * measure(inner)[0]


def test_too_few_galaxies_have_none():
    rng = np.random.default_rng(6)
    far = cloud(rng, 50, 500.0) + np.array([3.0, 0, 0])
    same = np.zeros((10, 3))
    found = measure(cloud(rng, 3, 500.0), far, same, cloud(rng, 50, 500.0))
    assert np.isnan(found[:3]).all()
    assert np.isfinite(found[3])


def test_fit_recovers_a_known_relation():
    rng = np.random.default_rng(7)
    z = rng.uniform(0.01, 0.085, 3000)
    sigma = 10 ** rng.uniform(2.4, 3.0, 3000)
    truth = Relation(14.3, 2.9, 0.1, 3000, 0.307115, 2.7, 1.0)
    m = truth.log10_m200c(sigma, z) + 0.1 * rng.standard_normal(3000)
    sigma[:5] = np.nan
    found = fit(sigma, z, m, 0.307115)
    # Standard errors: 0.1/sqrt(3000) = 0.002 on the offset, 0.01 on the slope.
    assert found.intercept == pytest.approx(14.3, abs=0.01)
    assert found.slope == pytest.approx(2.9, abs=0.05)
    assert found.scatter_dex == pytest.approx(0.1, rel=0.05)
    assert found.n == 2995
    assert Relation.from_json(found.as_json()) == found


def test_relation_depends_on_redshift_as_e_of_z():
    relation = Relation(14.0, 3.0, 0.1, 10, 0.307115, 2.7, 1.0)
    found = relation.log10_m200c([500.0, 500.0], [0.0, 0.08])
    assert found[0] == pytest.approx(14.0)
    assert found[1] == pytest.approx(14.0 - np.log10(COSMOLOGY.e(0.08)))


def test_errors_are_named():
    with pytest.raises(InputError, match="needs 10"):
        fit([500.0] * 5, 0.05, [14.0] * 5, 0.3)
    with pytest.raises(InputError, match="sigma-M relation"):
        Relation.from_json({"slope": 1})


def test_mocks_are_measured_shard_by_shard(tmp_path):
    """Any number of shards, any order asked for, same dispersions as in memory."""
    from cmass.estimators.dispersion import measure_mocks

    rng = np.random.default_rng(8)
    clouds = [cloud(rng, 60, s) for s in (300.0, 500.0, 700.0, 400.0)]
    ids = [f"mock-{i}" for i in range(4)]
    workspace = Workspace(tmp_path, "smoke", "embedded")
    for shard, members in enumerate(((0, 1), (2, 3))):
        points = np.vstack([clouds[i] for i in members])
        n = len(points)
        table = make_table("mock_galaxies", {
            "cluster_id": [ids[i] for i in members for _ in range(60)],
            "x_proj": points[:, 0], "y_proj": points[:, 1], "v_los": points[:, 2],
            "r_mag": np.full(n, 17.0), "galaxy_class": np.zeros(n, int),
            "host_log10_m200c": np.full(n, 14.0),
        })  # fmt: skip
        write_table(
            workspace.mock / "galaxies" / f"shard-{shard:05d}.parquet", table, "mock_galaxies"
        )
    asked = pa.table({"cluster_id": [ids[3], "absent", ids[0]], "z": [0.05, 0.05, 0.05]})
    found = measure_mocks(workspace, load_params(), asked)
    np.testing.assert_allclose(found[[0, 2]], measure(clouds[3], clouds[0]), rtol=1e-12)
    assert np.isnan(found[1])
