"""The imitation of GalWeight's masses."""

import numpy as np
import pytest
from scipy.integrate import cumulative_trapezoid

from cmass.cosmology import GRAVITY_MPC_KM2_S2_MSUN as G
from cmass.cosmology import Cosmology
from cmass.errors import InputError
from cmass.galweight_mass import REASONS, _virial_profile, virial_masses
from cmass.params import GalweightParams

COSMOLOGY = Cosmology(0.307115)
PLAIN = GalweightParams(zero_point_dex=0.0)


def nfw_mass(x):
    return np.log1p(x) - x / (1 + x)


def nfw_cluster(rng, log10_m, n, c=5.0, extent=2.0, z=0.06):
    """n galaxies of an isotropic NFW halo to `extent` R200, velocities from Jeans' equation."""
    mass = 10**log10_m
    r200 = np.cbrt(G * mass / (100 * (100 * COSMOLOGY.e(z)) ** 2))
    rs = r200 / c
    x = np.geomspace(1e-4, 100 * c, 8000)
    rho = 1 / (x * (1 + x) ** 2)
    force = G * mass * nfw_mass(x) / nfw_mass(c) / (x * rs) ** 2
    # rho sigma² (x) = integral of rho force rs dx from x outwards.
    pressure = -cumulative_trapezoid((rho * force * rs)[::-1], x[::-1], initial=0)[::-1]
    radius = np.interp(rng.random(n) * nfw_mass(extent * c), nfw_mass(x), x)
    direction = rng.standard_normal((n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    place = radius[:, None] * rs * direction
    sigma = np.sqrt(np.interp(radius, x, pressure / rho))
    return np.column_stack([place[:, :2], sigma * rng.standard_normal(n)])


def weigh(clouds, z=0.06, how=PLAIN):
    offsets = np.cumsum([0, *(len(c) for c in clouds)])
    return virial_masses(np.concatenate(clouds), offsets, np.full(len(clouds), z), COSMOLOGY, how)


@pytest.mark.parametrize("log10_m", [13.8, 14.3, 14.8])
def test_pure_haloes_have_their_mass(log10_m):
    """Without interlopers and without the zero point, an NFW halo weighs what it is.

    0.1 dex: a virial mass is exact only for members out to infinity; the surface term and
    the fit of one concentration to all make up for it to some ten per cent of the mass.
    """
    rng = np.random.default_rng(1)
    found = weigh([nfw_cluster(rng, log10_m, 500) for _ in range(12)])
    assert (found.reason == 0).all()
    assert found.log10_m200.mean() == pytest.approx(log10_m, abs=0.1)
    radius = np.cbrt(G * 10**found.log10_m200 / (100 * (100 * COSMOLOGY.e(0.06)) ** 2))
    np.testing.assert_allclose(found.r200_mpc_h, radius, rtol=1e-10)


def test_interlopers_are_left_out():
    """A third of uniform background moves the mass by less than 0.1 dex."""
    rng = np.random.default_rng(2)
    pure, mixed = [], []
    for _ in range(20):
        cloud = nfw_cluster(rng, 14.4, 200, extent=1.4)
        flat = rng.uniform([-4, -4, -2200], [4, 4, 2200], (100, 3))
        pure.append(cloud)
        mixed.append(np.concatenate([cloud, flat]))
    difference = weigh(mixed).log10_m200 - weigh(pure).log10_m200
    assert abs(difference.mean()) < 0.1


def test_virial_profile_against_plain_sums():
    rng = np.random.default_rng(3)
    x, y, v = rng.normal(size=(3, 30)) * np.array([[0.5], [0.5], [700.0]])
    found = _virial_profile(x, y, v, 0.0)
    for n in (2, 5, 30):
        pairs = [(i, j) for i in range(n) for j in range(i)]
        inverse = sum(1 / np.hypot(x[i] - x[j], y[i] - y[j]) for i, j in pairs)
        expected = 1.5 * np.pi / G * np.var(v[:n], ddof=1) * n * (n - 1) / inverse
        assert found[n - 1] == pytest.approx(expected, rel=1e-10)  # rounding of sums
    assert found[0] == 0


def test_scaling_lengths_and_velocities_alike_scales_mass_by_the_cube():
    """Gravity has no scale: with every length and velocity twice as large, M is 8 M."""
    cloud = nfw_cluster(np.random.default_rng(4), 14.2, 300)
    names = ("aperture_mpc_h", "outer_mpc_h", "inner_mpc_h", "start_km_s", "floor_km_s",
             "softening_mpc_h")  # fmt: skip
    twice = {name: 2 * getattr(PLAIN, name) for name in names}
    twice["cut_slope_sigma"] = PLAIN.cut_slope_sigma / 2
    one = weigh([cloud])
    two = weigh([2 * cloud], how=PLAIN.model_copy(update=twice))
    assert two.log10_m200[0] - one.log10_m200[0] == pytest.approx(np.log10(8), abs=1e-3)
    assert two.r200_mpc_h[0] == pytest.approx(2 * one.r200_mpc_h[0], rel=1e-3)
    assert two.n_members[0] == one.n_members[0]


def test_zero_point_is_added():
    cloud = nfw_cluster(np.random.default_rng(5), 14.2, 200)
    moved = PLAIN.model_copy(update={"zero_point_dex": -0.2})
    found = weigh([cloud], how=moved).log10_m200[0] - weigh([cloud]).log10_m200[0]
    assert found == pytest.approx(-0.2, abs=1e-9)


def test_members_are_counted_inside_r200():
    cloud = nfw_cluster(np.random.default_rng(6), 14.5, 400, extent=1.2)
    found = weigh([cloud])
    inside = np.hypot(cloud[:, 0], cloud[:, 1]) < found.r200_mpc_h[0]
    # Up to 5 % lie beyond the velocity cut.
    assert 0.95 * inside.sum() <= found.n_members[0] <= inside.sum()


def test_what_cannot_be_weighed_says_why():
    rng = np.random.default_rng(7)
    good = nfw_cluster(rng, 14.2, 50)
    still = good.copy()
    still[:, 2] = 0.0
    clouds = [good, good[:3], still, np.empty((0, 3)), good]
    offsets = np.cumsum([0, *(len(c) for c in clouds)])
    z = np.array([0.05, 0.05, 0.05, 0.05, np.nan])
    found = virial_masses(np.concatenate(clouds), offsets, z, COSMOLOGY, PLAIN)
    assert found.reason.tolist() == [0, 1, 3, 1, 2]
    assert np.isfinite(found.log10_m200).tolist() == [True, False, False, False, False]
    assert np.isnan(found.r200_mpc_h[1:]).all()
    assert len(REASONS) == 4


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="do not fit"):
        virial_masses(np.zeros((5, 3)), [0, 4], [0.05], COSMOLOGY)
    with pytest.raises(InputError, match="not finite"):
        virial_masses(np.full((5, 3), np.nan), [0, 5], [0.05], COSMOLOGY)
