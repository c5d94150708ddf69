"""The caustic method, stage by stage, against CausticSNUpy and against what can be done by hand."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from cmass.cosmology import GRAVITY_MPC_KM2_S2_MSUN
from cmass.estimators import caustic
from tests.estimators.toy import toy_params, toy_windows

RADII, SPEEDS = np.linspace(0, 4, 30), np.linspace(-2200, 2200, 30)
Q, SLOPE_MAX, FILLING = 25.0, 2.0, 0.7


@pytest.fixture(scope="module")
def original():
    """CausticSNUpy 1.0.4, which calls a function that NumPy 2.4 no longer has."""
    caustics = pytest.importorskip("causticsnupy.caustics")
    with pytest.MonkeyPatch.context() as patch:
        if not hasattr(np, "trapz"):
            patch.setattr(np, "trapz", np.trapezoid, raising=False)
        yield caustics


@pytest.fixture(scope="module", params=[0, 1, 2, 3])
def cluster(request, original):
    """One toy cluster in rescaled coordinates, with the original's kernel widths and density."""
    from causticsnupy import kde

    windows = toy_windows(8, 21)
    cloud = windows.cloud(int(np.argsort(windows.log10_m200c_true)[-1 - request.param]))
    radius = np.hypot(cloud[:, 0], cloud[:, 1])
    inside = (radius < 4) & (np.abs(cloud[:, 2]) < 2200)
    x, y = 100 * radius[inside], cloud[inside, 2] / Q
    n = x.size
    h_opt = 6.24 / n ** (1 / 6) * np.sqrt((np.std(x) ** 2 + np.std(y) ** 2) / 2)
    pilot = kde.fq(x, y, x, y, kde.triweight, h_opt)
    local = np.sqrt(10 ** np.mean(np.log10(pilot)) / pilot)
    factor = kde.find_hc(h_opt, local, x, y, 30, 30, False)
    h = factor * h_opt * local
    grid = np.meshgrid(RADII * 100, SPEEDS / Q)
    density = 2 * 100 / Q * kde.fq(*grid, x, y, kde.triweight, 3 * h)
    return cloud, x, y, h, density


def _quietly(function, *arguments):
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        return function(*arguments)


def test_kernel_widths_are_the_originals(cluster):
    _, x, y, h, _ = cluster
    np.testing.assert_allclose(caustic._widths(x, y, 30)[:-1], h, rtol=1e-9)


def test_the_density_is_the_originals(cluster):
    _, x, y, h, density = cluster
    found = caustic._spread(x, y, 3 * h, RADII * 100, SPEEDS / Q, -1) / (2 * x.size) * 2 * 100 / Q
    np.testing.assert_allclose(found, density, rtol=1e-9, atol=1e-12 * density.max())


@pytest.mark.parametrize("part", [0.02, 0.1, 0.3])
def test_amplitude_and_mass_at_a_level_are_the_originals(cluster, original, part):
    density = cluster[-1]
    level = part * density.max()
    expected, spread = _quietly(original.calculate_A, level, density, RADII, SPEEDS, SLOPE_MAX)
    found = caustic._amplitude(density, level, RADII, SPEEDS, SLOPE_MAX)
    # Inside 1.5 Mpc/h, where masses are read. The original follows contours, not columns: where
    # an island lies beside the cluster or a contour crosses v = 0 twice it may take another edge.
    assert np.isclose(found[:11], expected[:11], rtol=1e-6, atol=1e-6).mean() > 0.85
    mass, _ = _quietly(original.calculate_M, RADII, expected, spread, FILLING)
    own = FILLING / GRAVITY_MPC_KM2_S2_MSUN * np.trapezoid(found[:10] ** 2, RADII[:10])
    # The original's mass i ends at the point before i; its G is astropy's.
    assert own == pytest.approx(mass[10], rel=0.1)


def test_the_level_is_the_originals(cluster, original):
    density = cluster[-1]
    expected = _quietly(
        original.find_kappa, RADII, SPEEDS, len(RADII), density, 0.6, 500.0**2, SLOPE_MAX
    )
    found = caustic._level(density, RADII, SPEEDS, 0.6, 500.0**2, SLOPE_MAX)
    assert found == pytest.approx(expected, rel=0.1)


def test_an_amplitude_drawn_by_hand_is_read_off():
    """Density 1 - |v|/A(R): it falls to a half at half of A."""
    edge = 1500 / (1 + RADII)
    density = np.clip(1 - np.abs(SPEEDS)[:, None] / edge, 0, None)
    found = caustic._amplitude(density, 0.5, RADII, SPEEDS, SLOPE_MAX)
    # Linear in v between grid points where the density is: exact, but where it is cut at zero.
    np.testing.assert_allclose(found, edge / 2, rtol=0.02)


def test_a_hole_about_zero_velocity_is_passed_over_and_an_end_is_final():
    density = np.where(np.abs(SPEEDS)[:, None] < 1000, 1.0, 0.0) * np.ones(RADII.size)
    plain = caustic._amplitude(density, 0.5, RADII, SPEEDS, SLOPE_MAX)
    density[13:17, 4] = 0.0  # a hole
    density[:, 20] = 0.0  # the end; what lies behind is another structure
    found = caustic._amplitude(density, 0.5, RADII, SPEEDS, SLOPE_MAX)
    np.testing.assert_array_equal(found[:20], plain[:20])
    assert not found[20:].any()


def test_a_steep_rise_is_held_back():
    density = np.where(np.abs(SPEEDS)[:, None] < np.where(RADII < 2, 500, 2000), 1.0, 0.0)
    found = caustic._amplitude(density, 0.5, RADII, SPEEDS, SLOPE_MAX)
    j = int(np.searchsorted(RADII, 2))
    assert found[j] == pytest.approx(found[j - 1] * (RADII[j] / RADII[j - 1]) ** 0.25)


def test_the_mass_is_read_where_it_encloses_the_density():
    radii = np.linspace(0, 4, 400)
    mass = 1e14 * radii  # an isothermal sphere
    density = 1e14 / (4 / 3 * np.pi * 0.81)  # reached at 0.9
    # Logarithms between radii 0.01 apart
    assert caustic._overdensity_mass(radii, mass, density) == pytest.approx(0.9e14, rel=1e-3)
    assert np.isnan(caustic._overdensity_mass(radii, mass, 1e25))
    assert np.isnan(caustic._overdensity_mass(radii, np.full(400, np.nan), density))


def test_a_window_without_members_has_no_caustics():
    windows = toy_windows(1, 3)
    few = windows.take(np.array([0]))
    empty = type(few)(few.cluster_id, few.points[:3], np.array([0, 3]), few.z,
                      few.log10_m200c_true, few.halo_id)  # fmt: skip
    from tests.estimators.toy import toy_params

    assert np.isnan(caustic.Caustic(toy_params(), 1).caustic_mass(empty)).all()


def test_threads_change_nothing():
    windows = toy_windows(230, 5)
    masses = [
        caustic.Caustic(toy_params().model_copy(update={"workers": k}), 1).caustic_mass(windows)
        for k in (1, 2)
    ]
    np.testing.assert_array_equal(*masses)
    alone = caustic.Caustic(toy_params(), 1).caustic_mass(windows.take(np.arange(150, 160)))
    np.testing.assert_array_equal(alone, masses[0][150:160])
    assert np.isfinite(masses[0]).mean() > 0.5
    assert caustic.Caustic(toy_params(), 1).caustic_mass(windows.take(np.arange(0))).size == 0
