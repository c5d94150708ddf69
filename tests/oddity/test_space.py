"""The space of windows: summaries by hand, whitening, and a distance that knows the shape."""

import json

import numpy as np
import pytest

from cmass.oddity.space import SUMMARIES, Space, Whitening, summaries


def test_summaries_by_hand():
    """Six galaxies: two in the core, one far out, one in the wings; counts in places plus one."""
    points = np.array([
        [0.1, 0.0, 100.0], [0.0, -0.2, -100.0], [0.8, 0.0, 300.0], [0.0, 0.9, -300.0],
        [1.5, 0.0, 1500.0], [0.0, -3.0, 50.0],
    ])  # fmt: skip
    (row,) = summaries(points, np.array([0, 6]), [0.05], 4.0, 2200.0)
    named = dict(zip(SUMMARIES, 10**row, strict=True))
    assert named["galaxies in the window"] == pytest.approx(6)
    assert named["redshift"] == pytest.approx(0.05)
    assert named["richness"] == pytest.approx(4 + 1)
    assert named["galaxies in the core"] == pytest.approx(2 + 1)
    assert named["galaxies in the wings"] == pytest.approx(1 + 1)
    assert named["galaxies far out"] == pytest.approx(1 + 1)
    assert named["root mean square velocity"] == pytest.approx(
        np.sqrt((2 * 100**2 + 2 * 300**2 + 1500**2 + 50**2) / 6)
    )


def test_no_dispersion_is_missing_and_no_galaxies_is_no_fault():
    points = np.array([[3.0, 0.0, 0.0], [0.0, 3.0, 10.0], [2.0, 2.0, 30.0]])
    rows = summaries(points, np.array([0, 3, 3]), [0.05, 0.06], 4.0, 2200.0)
    assert np.isnan(rows[0, SUMMARIES.index("clipped dispersion")])
    assert np.isfinite(np.delete(rows[0], SUMMARIES.index("clipped dispersion"))).all()
    assert np.isnan(rows[1, 0])


def test_whitening_gives_unit_covariance():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((4000, 5)) @ rng.standard_normal((5, 5)) + 7
    white = Whitening.fit(x, 5)(x)
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(5), atol=1e-10)
    leading = Whitening.fit(x, 2)
    assert leading.matrix.shape == (5, 2)
    # the first direction is that of the largest eigenvalue of the covariance
    _, vectors = np.linalg.eigh(np.cov(x.T))
    cosine = leading.matrix[:, 0] @ vectors[:, -1] / np.linalg.norm(leading.matrix[:, 0])
    assert abs(cosine) == pytest.approx(1.0, abs=1e-9)
    flat = np.column_stack([x[:, :2], x[:, 0] + x[:, 1]])
    assert Whitening.fit(flat, 3).matrix.shape == (3, 2)


def ring(rng, n):
    """Features on a ring, and summaries that are plain noise."""
    angle = rng.uniform(0, 2 * np.pi, n)
    features = np.column_stack([np.cos(angle), np.sin(angle)]) * rng.normal(5, 0.2, n)[:, None]
    return features, rng.standard_normal((n, 8))


def test_distance_against_all_pairs_and_through_json():
    rng = np.random.default_rng(2)
    space = Space.fit(*ring(rng, 500), n_components=2, n_neighbours=5, n_reference=300)
    features, plain = ring(rng, 40)
    found = space.distance(features, plain)
    assert space.reference.shape == (300, 10) and space.reference.dtype == np.float32
    place = space.whole(np.hstack([space.network(features), plain]))
    pairs = np.linalg.norm(place[:, None] - space.reference[None].astype(float), axis=2)
    np.testing.assert_allclose(found, np.sort(pairs, axis=1)[:, :5].mean(axis=1), rtol=1e-12)
    again = Space.from_json(json.loads(json.dumps(space.as_json())), space.reference)
    np.testing.assert_array_equal(again.distance(features, plain), found)


def test_a_hole_in_the_cloud_is_far_from_every_mock():
    """The middle of a ring is nearest to the mean: a Mahalanobis distance calls it usual."""
    rng = np.random.default_rng(3)
    features, plain = ring(rng, 3000)
    flat = np.broadcast_to(plain[:1], plain.shape) + 1e-9 * plain
    space = Space.fit(features, flat, 2, 10, 3000)
    space = Space(space.network, Whitening(space.whole.mean, space.whole.matrix[:, :2]),
                  space.fill, space.reference[:, :2], 10)  # fmt: skip
    middle = space.distance(np.zeros((1, 2)), flat[:1])
    assert middle[0] > 5 * np.quantile(space.distance(features, flat), 0.99)
    mahalanobis = np.linalg.norm(space.whole(np.hstack([space.network(features), flat])), axis=1)
    at_middle = space.whole(np.hstack([space.network(np.zeros((1, 2))), flat[:1]]))
    assert np.linalg.norm(at_middle) < mahalanobis.min()


def test_a_missing_summary_is_taken_as_usual():
    rng = np.random.default_rng(4)
    features, plain = ring(rng, 800)
    plain[::50, 2] = np.nan
    space = Space.fit(features, plain, 2, 10, 800)
    one = plain[:1].copy()
    one[0, 2] = np.nan
    filled = one.copy()
    filled[0, 2] = np.nanmedian(plain[:, 2])
    assert space.distance(features[:1], one) == space.distance(features[:1], filled)
