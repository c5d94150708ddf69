"""Large-scale structure: a Gaussian field with the power it should have, and points that follow."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import fft
from scipy.integrate import quad

from cmass import cosmology as background
from cmass.mass_function import matter_power
from cmass.mock.structure import draw_structure
from cmass.params import Params

PARAMS = Params()
COSMOLOGY = background.from_params(PARAMS.cosmology)
Z = 0.06


def draw(seed: int, **changes: float):
    environment = PARAMS.mock.environment.model_copy(update=changes)
    return draw_structure(environment, PARAMS.cosmology, COSMOLOGY, Z, np.random.default_rng(seed))


def test_sigma8_of_the_power_spectrum():
    def integrand(k):
        x = 8 * k
        window = 3 * (np.sin(x) - x * np.cos(x)) / x**3
        return float(matter_power(k, 0.0, PARAMS.cosmology)) * window**2 * k**2 / (2 * np.pi**2)

    variance = quad(integrand, 1e-4, 20.0, limit=400)[0]
    assert np.sqrt(variance) == pytest.approx(PARAMS.cosmology.sigma8, rel=0.01)


def test_variance_is_that_of_the_smoothed_spectrum():
    drawn = [draw(seed) for seed in range(20)]
    smoothing = PARAMS.mock.environment.structure_smoothing_mpc_h

    def integrand(k):
        power = float(matter_power(k, Z, PARAMS.cosmology))
        return power * np.exp(-((k * smoothing) ** 2)) * k**2 / (2 * np.pi**2)

    fundamental = 2 * np.pi / drawn[0].box_mpc_h
    expected = quad(integrand, 0.5 * fundamental, 10.0, limit=400)[0]
    # Modes of the box are few: 15 % between the sum over them and the integral.
    assert drawn[0].variance == pytest.approx(expected, rel=0.15)
    measured = np.mean([d.overdensity.astype(float).var() for d in drawn])
    # Twenty boxes: 3 %, more for the large modes.
    assert measured == pytest.approx(drawn[0].variance, rel=0.1)


def test_displacement_is_what_linear_theory_says():
    """δ = −∇·ψ, by differentiating in Fourier space."""
    one = draw(3)
    n = len(one.overdensity)
    k = 2 * np.pi * np.fft.fftfreq(n, one.box_mpc_h / n)
    k[n // 2] = 0.0  # the sign of the Nyquist mode is not defined
    axes = (k[:, None, None], k[None, :, None], k[None, None, :])
    divergence = sum(
        fft.ifftn(1j * axis * fft.fftn(moved.astype(float))).real
        for axis, moved in zip(axes, one.displacement_mpc_h, strict=True)
    )
    assert np.abs(divergence + one.overdensity).max() < 0.02 * one.overdensity.std()


def test_speeds_are_those_of_linear_theory():
    """Difference of two points' velocities: (aHf)² ∫ P (1 − sinc-like)… from the same modes."""
    position = 38.0 * np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0]])
    speeds = np.concatenate([draw(seed).flow_km_s(position) for seed in range(60)])
    growth = float(COSMOLOGY.e(Z)) / (1 + Z) * 100.0
    omega = PARAMS.cosmology.omega_m * (1 + Z) ** 3 / float(COSMOLOGY.e(Z)) ** 2
    smoothing = PARAMS.mock.environment.structure_smoothing_mpc_h

    def integrand(k):
        power = float(matter_power(k, Z, PARAMS.cosmology)) * np.exp(-((k * smoothing) ** 2))
        return power / (6 * np.pi**2)

    variance = quad(integrand, 2 * np.pi / 88, 10.0, limit=400)[0]
    one_point = growth * omega**0.55 * np.sqrt(variance)
    # Two far points move nearly independently: √2 of one. Half the box apart, hence 25 %.
    assert speeds.std() == pytest.approx(np.sqrt(2) * one_point, rel=0.25)


@pytest.mark.parametrize("bias", [0.7, 1.5])
def test_points_are_as_many_as_the_mean_density_says(bias):
    density = 0.02
    counts = []
    for seed in range(40):
        structure = draw(seed)
        random = np.random.default_rng(seed)
        owner, position = structure.draw_positions(np.array([density]), np.array([bias]), random)
        assert (np.linalg.norm(position, axis=1) <= structure.radius_mpc_h).all()
        assert (owner == 0).all()
        counts.append(len(position))
    expected = density * 4 / 3 * np.pi * PARAMS.mock.environment.radius_mpc_h**3
    error = np.std(counts) / np.sqrt(len(counts))
    assert np.mean(counts) == pytest.approx(expected, abs=4 * error)


def test_points_follow_the_density():
    structure = draw(5)
    random = np.random.default_rng(1)
    _, position = structure.draw_positions(np.array([0.5]), np.array([1.0]), random)
    n = len(structure.overdensity)
    cell = structure.box_mpc_h / n
    index = np.floor((position + structure.box_mpc_h / 2) / cell).astype(int)
    seen = np.zeros((n, n, n))
    np.add.at(seen, tuple(index.T), 1)
    inside = slice(n // 2 - 6, n // 2 + 6)
    middle = (inside,) * 3
    expected = np.exp(structure.overdensity - 0.5 * structure.variance)[middle]
    ratio = np.polyfit(expected.ravel(), seen[middle].ravel() / (0.5 * cell**3), 1)
    assert ratio[0] == pytest.approx(1.0, abs=0.05)


def test_switched_off_it_is_uniform_and_at_rest():
    structure = draw(1, structure_amplitude=0.0)
    assert np.all(structure.density(1.5) == 1.0)
    assert np.all(structure.flow_km_s(np.array([[10.0, 5.0, 1.0]])) == 0.0)
    still = draw(1, flow=0.0)
    assert np.all(still.flow_km_s(np.array([[10.0, 5.0, 1.0]])) == 0.0)
