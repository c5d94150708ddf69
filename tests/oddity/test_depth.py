"""The depth of a survey, from magnitudes and from numbers of galaxies."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM
from scipy.integrate import quad

from cmass.oddity.depth import CountScale, Depth, faint_edge
from cmass.oddity.space import SUMMARIES
from cmass.params import Params
from cmass.pretrained import load_bundle

GRID_Z = np.linspace(0.019, 0.086, 25)


def magnitudes(limit, n, rng, stragglers=0.0, slope=0.4):
    """Apparent magnitudes of a flux-limited survey, and of other programmes up to 2 mag fainter."""
    inside = limit + np.log10(1 - rng.random(n)) / slope
    beyond = limit + 2 * rng.random(int(stragglers * n))
    return np.concatenate([inside, beyond])


@pytest.mark.parametrize("limit", [15.5, 17.0, 17.77, 19.0, 20.5])
@pytest.mark.parametrize("slope", [0.1, 0.4, 0.6])
@pytest.mark.parametrize("stragglers", [0.0, 0.1])
def test_the_edge_is_where_numbers_fall(limit, slope, stragglers):
    rng = np.random.default_rng(round(100 * limit))
    found = faint_edge(magnitudes(limit, 3000, rng, stragglers, slope))
    assert found is not None
    # Two steps of the places tried; the mean gap of 3000 magnitudes at the limit is a thousandth.
    assert abs(found.limit_mag - limit) <= 0.05


def test_too_few_magnitudes_tell_nothing():
    rng = np.random.default_rng(1)
    r = magnitudes(17.77, 300, rng)
    assert faint_edge(r) is not None
    assert faint_edge(np.concatenate([r, np.full(301, np.nan)])) is None
    assert faint_edge(r[:90]) is None


def luminosity_integral(limit_mag, z):
    """Number of galaxies per volume brighter than a limit, by incomplete gamma functions and astropy."""
    mock = Params().mock.galaxies
    background = FlatLambdaCDM(H0=100, Om0=Params().cosmology.omega_m)
    shift = mock.k_constant + (mock.k_slope - mock.evolution) * (z - 0.1)
    faintest = limit_mag - background.distmod(z).value - shift
    x = 10 ** (-0.4 * (min(faintest, mock.magnitude_max) - mock.schechter_m_star))
    return quad(lambda t: t**mock.schechter_alpha * np.exp(-t), x, np.inf)[0]


@cache
def densities(limit_mag):
    return np.array([luminosity_integral(limit_mag, z) for z in GRID_Z])


def plain(z, sigma, counts):
    """`summaries` with nothing but what the depth is told from."""
    rows = np.zeros((len(z), len(SUMMARIES)))
    for name, values in (
        ("redshift", z), ("clipped dispersion", sigma), ("galaxies far out", counts + 1)
    ):  # fmt: skip
        rows[:, SUMMARIES.index(name)] = np.log10(values)
    return rows


def survey(limit_mag, n, rng, scatter=0.4):
    """Windows whose outskirts hold galaxies as the luminosity function says."""
    z = rng.uniform(0.02, 0.085, n)
    sigma = 10 ** rng.uniform(2.4, 2.95, n)
    density = np.interp(z, GRID_Z, densities(limit_mag))
    mean = 400 * (z / 0.06) ** 0.3 * (sigma / 500) ** 1.1 * density
    return plain(z, sigma, np.round(mean * np.exp(scatter * rng.standard_normal(n))))


@pytest.mark.parametrize("limit", [16.5, 17.0, 17.77, 18.4, 19.0])
def test_counts_tell_the_depth(limit):
    rng = np.random.default_rng(2)
    params = Params()
    scale = CountScale.fit(survey(17.77, 1500, rng), params.mock.galaxies, params.cosmology)
    assert scale is not None and 0.35 < scale.scatter < 0.45
    found = scale.depth(survey(limit, 300, rng))
    assert found is not None and found.n > 290
    assert abs(found.limit_mag - limit) < 0.15
    assert found.differs(17.77, 0.3) == (abs(limit - 17.77) > 0.3)


def test_one_cluster_tells_little_and_says_so():
    rng = np.random.default_rng(3)
    params = Params()
    scale = CountScale.fit(survey(17.77, 1500, rng), params.mock.galaxies, params.cosmology)
    assert scale is not None
    flagged = 0
    for _ in range(40):
        found = scale.depth(survey(17.77, 1, rng))
        flagged += found is not None and found.differs(17.77, 0.3)
    assert flagged <= 1
    assert CountScale.fit(survey(17.77, 40, rng), params.mock.galaxies, params.cosmology) is None
    far = survey(17.77, 5, rng)
    far[:, SUMMARIES.index("redshift")] = np.log10(0.3)
    assert scale.depth(far) is None


@pytest.mark.parametrize("factor", [0.01, 0.2, 4, 10, 1000])
def test_lists_beyond_all_depths_are_told_as_well(factor):
    """Luminosity functions end: more galaxies than any depth has is at least the deepest."""
    rng = np.random.default_rng(6)
    params = Params()
    scale = CountScale.fit(survey(17.77, 1500, rng), params.mock.galaxies, params.cosmology)
    assert scale is not None
    many = survey(17.77, 100, rng)
    many[:, SUMMARIES.index("galaxies far out")] += np.log10(factor)
    found = scale.depth(many)
    assert found is not None and found.differs(17.77, 0.3)
    assert (found.limit_mag > 17.77) == (factor > 1)


def test_a_depth_differs_beyond_tolerance_and_error():
    assert Depth(18.2, 0.1, "counts", 9).differs(17.77, 0.3)
    assert not Depth(18.2, 0.2, "counts", 9).differs(17.77, 0.3)
    assert not Depth(18.0, 0.01, "magnitudes", 9).differs(17.77, 0.3)


def test_the_shipped_model_tells_its_own_depth():
    """Of its reference mocks, which are flat in log mass, the scale gives the limit they were made with."""
    bundle = load_bundle()
    scale = bundle.count_scale
    assert scale is not None and bundle.oddity is not None
    own = bundle.oddity.space.reference_summaries()
    assert own.shape == (2000, len(SUMMARIES))
    counts = 10 ** own[:, SUMMARIES.index("galaxies in the window")]
    assert np.allclose(counts, np.round(counts), atol=0.05)  # numbers of galaxies again
    found = scale.depth(own)
    assert found is not None and abs(found.limit_mag - 17.77) < 0.05
