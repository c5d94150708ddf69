"""The emulator and the fit, on simulators whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import qmc

from cmass.calibrate import emulator, fit
from cmass.errors import InputError


@pytest.fixture
def rng():
    return np.random.default_rng(17)


def quadratic(rng, d, k):
    """A simulator of k statistics: strong linear, weak square and product terms."""
    linear = rng.normal(size=(d, k))
    square = 0.3 * rng.normal(size=(d, d, k))
    truth = rng.uniform(-0.6, 0.6, d)

    def simulate(u):
        y = u @ linear + np.einsum("mi,mj,ijk->mk", u, u, square)
        return 1 + 0.2 * y

    at_truth = simulate(truth[None])[0]
    return truth, lambda u: simulate(u) - at_truth + 1


def cube(rng, m, d):
    return 2 * qmc.LatinHypercube(d, seed=rng).random(m) - 1


def test_a_quadratic_without_noise_is_recovered(rng):
    _, simulate = quadratic(rng, 3, 5)
    u = cube(rng, 40, 3)
    stand_in = emulator.fit(u, simulate(u))
    new = rng.uniform(-1, 1, (50, 3))
    # the least ridge is 1e-3 of a unit: what it costs is of that order
    np.testing.assert_allclose(stand_in.at(new), simulate(new), atol=3e-3)
    assert stand_in.n_parameters == 3
    gradient = stand_in.gradient(new[0])
    for k in range(5):
        slope = approx_fprime(new[0], lambda x, k=k: stand_in.at(x)[k], 1e-6)
        np.testing.assert_allclose(gradient[k], slope, atol=1e-5)


def test_leave_one_out_is_what_a_new_point_costs(rng):
    """With fewer points than terms and noise, the error says how wrong predictions are."""
    d, noise = 10, 0.03
    _, simulate = quadratic(rng, d, 30)
    u = cube(rng, 60, d)  # of 66 terms
    stand_in = emulator.fit(u, simulate(u) + noise * rng.normal(size=(60, 30)))
    new = cube(rng, 400, d)
    wrong = simulate(new) + noise * rng.normal(size=(400, 30)) - stand_in.at(new)
    found = np.sqrt((wrong**2).mean(axis=0))
    # 60 points know an rms to 9 %; the ridge was chosen on the same points
    assert np.median(stand_in.error / found) == pytest.approx(1, abs=0.25)


def test_misfit_and_noise_are_told_apart(rng):
    """A quartic is more than the quadratic can do; noise is averaged over the points."""
    u, noise = cube(rng, 400, 1), 0.05
    y = 1 + np.column_stack([0 * u, 0.5 * u**4]) + noise * rng.normal(size=(400, 2))
    stand_in = emulator.fit(u, y, np.full(2, noise))
    plain, quartic = np.sqrt(np.diag(stand_in.covariance()))
    # of the noise, sqrt(3 terms/400 points) is left, if no more is taken for misfit
    assert plain < 0.25 * noise
    left = 0.5 * (u**4 - np.polyval(np.polyfit(u[:, 0], u[:, 0] ** 4, 2), u)).std()
    assert quartic == pytest.approx(left, rel=0.25)


def test_an_anchored_emulator_keeps_its_slopes(rng):
    u = 2 * rng.random((20, 2)) - 1
    fitted = emulator.fit(u, np.column_stack([u[:, 0] + u[:, 1] ** 2, 3 - u[:, 1]]))
    here = np.array([0.3, -0.2])
    moved = fitted.anchored(here, np.array([1.0, 2.0]))
    np.testing.assert_allclose(moved.at(here), [1.0, 2.0], atol=1e-12)
    np.testing.assert_allclose(moved.gradient(here), fitted.gradient(here), atol=1e-12)
    np.testing.assert_allclose(
        moved.at(-here) - moved.at(here), fitted.at(-here) - fitted.at(here), atol=1e-12
    )


def test_values_without_signal_get_no_slope(rng):
    u = cube(rng, 60, 5)
    stand_in = emulator.fit(u, 1 + 0.05 * rng.normal(size=(60, 40)))
    assert np.abs(stand_in.gradient(np.zeros(5))).mean() < 0.01


def test_errors_of_the_fit_are_honest(rng):
    """Pulls of the fitted parameters over many surveys with noise have unit scatter."""
    d, k, noise = 4, 40, 0.05
    truth, simulate = quadratic(rng, d, k)
    u = cube(rng, 60, d)
    pulls = []
    for _ in range(60):
        sky = 1 + noise * rng.normal(size=k)
        ratios = simulate(u) / sky
        found = fit.posterior(emulator.fit(u, ratios), noise**2 * np.eye(k), rng)
        pulls.append((found.best - truth) / found.error)
    pulls = np.array(pulls)
    # 240 pulls know their scatter to 5 %; the prior draws them in a little
    assert pulls.std() == pytest.approx(1, abs=0.2)
    assert np.abs(pulls.mean(axis=0)).max() < 0.5


def test_without_information_the_prior_stays(rng):
    u = cube(rng, 40, 3)
    flat = emulator.fit(u, np.ones((40, 6)) + 1e-6 * rng.normal(size=(40, 6)))
    found = fit.posterior(flat, 0.01 * np.eye(6), np.random.default_rng(0))
    np.testing.assert_allclose(found.best, 0, atol=1e-2)
    np.testing.assert_allclose(found.error, 1, rtol=1e-2)


def test_correlated_errors_count_as_one(rng):
    """Ten bins with one common error say no more than one bin."""
    u = cube(rng, 40, 1)
    ten = emulator.fit(u, 1 + 0.2 * np.repeat(u, 10, axis=1))
    one = emulator.fit(u, 1 + 0.2 * u)
    # ridge and jitter leave 1 % of difference
    common = fit.posterior(
        ten, 0.01 * np.ones((10, 10)) + 1e-8 * np.eye(10), np.random.default_rng(0)
    ).error
    alone = fit.posterior(one, np.array([[0.01]]), np.random.default_rng(0)).error
    assert common == pytest.approx(alone, rel=0.02)


def test_sensitivity_is_the_slope_over_what_is_allowed(rng):
    u = cube(rng, 40, 2)
    stand_in = emulator.fit(u, 1 + u @ np.array([[0.2, 0.0], [0.0, -0.3]]))
    moved = fit.sensitivities(stand_in, np.zeros(2), np.array([0.1, 0.15]))
    np.testing.assert_allclose(moved, [[2, 0], [0, -2]], atol=0.02)


def test_shrunk_covariance_keeps_variances(rng):
    samples = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 2]], 20_000)
    many, few = (emulator.shrunk_covariance(samples, n) for n in (None, 8))
    # 20 000 samples know a covariance to about 1 %
    np.testing.assert_allclose(many, [[1, 0.5], [0.5, 2]], atol=0.06)
    np.testing.assert_allclose(few, [[1, 0.4], [0.4, 2]], atol=0.06)


def test_too_few_points_are_refused(rng):
    with pytest.raises(InputError, match="5 are needed"):
        emulator.fit(cube(rng, 4, 2), np.ones((4, 1)))
    with pytest.raises(InputError, match="not finite"):
        emulator.fit(cube(rng, 9, 2), np.full((9, 1), np.nan))
