"""Masses that must fit the radii."""

import pytest

from cmass.contracts.quarantine import sift
from cmass.contracts.units import check_units, mass_radius_ratio
from cmass.cosmology import Cosmology
from cmass.errors import InputError
from cmass.ingest import galweight
from tests.surveys import catalogue, dat_text, shared_data

H = 0.6777
BACKGROUND = Cosmology(0.307115)


def clusters(tmp_path, **factors):
    path = tmp_path / "galwcls.dat"
    path.write_text(dat_text(catalogue(**factors)))
    return sift(galweight.read(path))[0]


def test_masses_that_fit_have_ratio_one(tmp_path):
    """The catalogue's masses come from astropy's critical density."""
    ratios = mass_radius_ratio(clusters(tmp_path), BACKGROUND)
    # G of cmass and of astropy agree to 1e-5; radii are written in full precision.
    assert ratios == pytest.approx({"500": 1, "200": 1, "100": 1, "5p5": 1}, rel=1e-4)


@pytest.mark.parametrize(
    "h_mass, h_radius, words",
    [
        (1 / H, 1, "the masses are in Msun, not Msun/h: multiply them by h"),
        (H, 1, "the masses were multiplied by h twice"),
        (1, 1 / H, "the radii are in Mpc, not Mpc/h: multiply them by h"),
        (1, H, "the radii were multiplied by h twice"),
        (1 / H, 1 / H, "masses and radii are in Msun and Mpc: multiply both by h"),
        (1e-14, 1, "No power of h explains the ratio"),
    ],
)
def test_a_lost_h_is_named(tmp_path, h_mass, h_radius, words):
    table = clusters(tmp_path, h_mass=h_mass, h_radius=h_radius)
    with pytest.raises(InputError, match="masses or radii lack the factor h") as raised:
        check_units(table, BACKGROUND, H, "galwcls.dat")
    assert words in str(raised.value) and "galwcls.dat" in str(raised.value)
    assert raised.value.value == pytest.approx(h_mass / h_radius**3, rel=2e-3)


def test_a_few_per_cent_are_not_an_h(tmp_path):
    check_units(clusters(tmp_path, h_mass=1.08), BACKGROUND, H)
    with pytest.raises(InputError):
        check_units(clusters(tmp_path, h_mass=1.12), BACKGROUND, H)


def test_the_real_masses_fit_their_radii():
    good, _ = sift(galweight.read(shared_data() / "galwcat19" / "galwcls.dat"))
    ratios = mass_radius_ratio(good, BACKGROUND)
    # GalWCat19 used Omega_m = 0.3: H(z)² differs by up to 0.5 % below z = 0.2
    assert ratios == pytest.approx({"500": 1, "200": 1, "100": 1, "5p5": 1}, abs=0.01)
