"""The estimators whose network gives a posterior itself: DeepSets and the flow."""

from __future__ import annotations

import numpy as np
import pytest

from cmass.evaluate.calibration import interval_coverage
from cmass.evaluate.metrics import robust_scatter
from cmass.posterior import cumulative_at
from tests.estimators.toy import shuffled, toy_params, toy_sets, toy_windows

pytest.importorskip("tensorflow")
pytest.importorskip("flowjax")

from cmass.estimators.deepsets import DeepSets, components, negative_log_density
from cmass.estimators.flow import Flow

EDGES = np.linspace(13.2, 15.3, 106)
PARAMS = toy_params(
    deepsets={"epochs": 12, "members": 2, "width": 24, "batch_size": 32},
    flow={"epochs": 20, "batch_size": 32, "components": 6, "width": 12, "learning_rate": 3e-3},
)


# One process: the fits are the costly part.
pytestmark = pytest.mark.xdist_group("posterior-networks")


@pytest.fixture(scope="module", params=[DeepSets, Flow], ids=lambda kind: kind.name)
def fitted(request, tmp_path_factory):
    one = request.param(PARAMS, seed=5)
    one.fit(toy_sets(), tmp_path_factory.mktemp("work"))
    return one


def test_it_beats_the_prior_by_far_and_knows_its_error(fitted):
    windows = toy_windows(400, 9)
    posterior = fitted.posterior(windows, EDGES)
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    error = windows.log10_m200c_true - fitted.point(windows)
    # The scatter of ln N alone is worth 0.2 / (0.8 ln 10) = 0.11 dex; the prior's is 0.43.
    assert robust_scatter(error) < 0.2
    assert abs(error.mean()) < 0.05
    transform = cumulative_at(posterior, EDGES, windows.log10_m200c_true)
    # Binomial error of 400 clusters 0.023, and 600 windows to learn the width from.
    assert interval_coverage(transform, 0.68)[0] == pytest.approx(0.68, abs=0.1)


def test_the_point_is_the_mean_of_the_posterior(fitted):
    windows = toy_windows(50, 10)
    wide = np.linspace(11, 18, 1401)
    mean = fitted.posterior(windows, wide) @ (0.5 * (wide[1:] + wide[:-1]))
    np.testing.assert_allclose(fitted.point(windows), mean, atol=0.02)


def test_one_look_gives_what_two_give(fitted, monkeypatch):
    windows = toy_windows(20, 10)
    point, posterior = fitted.point(windows), fitted.posterior(windows, EDGES)
    reads = "_mixtures" if fitted.name == "deepsets" else "_context"
    look, looks = getattr(fitted, reads), []
    monkeypatch.setattr(fitted, reads, lambda *a: looks.append(1) or look(*a))
    both = fitted.point_and_posterior(windows, EDGES)
    np.testing.assert_array_equal(both[0], point)
    np.testing.assert_array_equal(both[1], posterior)
    assert looks == [1]


def test_order_and_orientation_do_not_matter(fitted):
    windows = toy_windows(30, 11)
    turned = shuffled(windows)
    angle = 0.7
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, -1]]
    )
    turned = type(windows)(turned.cluster_id, turned.points @ turn.T, turned.offsets, turned.z,
                           turned.log10_m200c_true, turned.halo_id)  # fmt: skip
    np.testing.assert_allclose(fitted.point(turned), fitted.point(windows), atol=2e-4)


def test_a_mass_does_not_depend_on_its_neighbours_in_the_batch(fitted):
    windows = toy_windows(150, 12)
    alone = fitted.point(windows.take(np.array([120, 3])))
    np.testing.assert_allclose(alone, fitted.point(windows)[[120, 3]], atol=1e-4)


def test_too_few_galaxies_have_no_mass(fitted):
    windows = toy_windows(3, 13)
    keep = np.r_[0:3, windows.offsets[1] : windows.offsets[3]]
    few = type(windows)(
        windows.cluster_id, windows.points[keep],
        np.array([0, 3, *(windows.offsets[2:] - windows.offsets[1] + 3)]), windows.z,
        windows.log10_m200c_true, windows.halo_id,
    )  # fmt: skip
    assert np.isnan(fitted.point(few)).tolist() == [True, False, False]
    assert np.isnan(fitted.posterior(few, EDGES)).all(axis=1).tolist() == [True, False, False]


def test_what_was_saved_gives_the_same_bits(fitted, tmp_path):
    windows = toy_windows(40, 14)
    fitted.save(tmp_path)
    loaded = type(fitted).load(tmp_path, PARAMS, seed=5)
    np.testing.assert_array_equal(
        loaded.posterior(windows, EDGES), fitted.posterior(windows, EDGES)
    )
    assert loaded.n_parameters == fitted.n_parameters > 1000


def test_the_loss_is_the_density_of_the_mixture():
    rng = np.random.default_rng(3)
    outputs, true = rng.normal(0, 1, (7, 12)), rng.normal(0, 1, (7, 1))
    weights, means, scatters = components(outputs)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    from scipy.stats import norm

    density = (weights * norm.pdf(true, means, scatters)).sum(axis=1)
    loss = float(negative_log_density(true.astype("float32"), outputs.astype("float32")))
    assert loss == pytest.approx(-np.log(density).mean(), rel=1e-5)  # float32


def test_deepsets_shares_its_time_among_its_networks(tmp_path, caplog):
    params = toy_params(deepsets={"epochs": 3, "members": 3, "width": 8, "seconds_max": 1e-6})
    one = DeepSets(params, seed=5)
    one.fit(toy_sets(), tmp_path / "work")
    assert one.out_of_time  # after one epoch of the first network
    model = tmp_path / "model"
    model.mkdir()
    one.save(model)
    assert [f.name for f in model.glob("*.h5")] == ["network-0.weights.h5"]
    windows = toy_windows(10, 12)
    again = DeepSets.load(model, params, 5)
    np.testing.assert_array_equal(again.point(windows), one.point(windows))


def test_the_flow_says_that_its_time_ran_out(tmp_path):
    one = Flow(toy_params(flow={"epochs": 3, "seconds_max": 1e-6}), seed=5)
    one.fit(toy_sets(), tmp_path)
    assert one.out_of_time
