"""The embedded survey: on its footprint, with the abundance of the mass function."""

from __future__ import annotations

import numpy as np
import pytest

from cmass.columns import TABLES
from cmass.cosmology import from_params, q0_angular_distance_mpc_h
from cmass.galweight_mass import virial_masses
from cmass.mass_function import mass_function
from cmass.mock.survey import footprint_caps, inside_footprint, make_survey
from cmass.params import load_params
from cmass.tables import check_table

PARAMS = load_params(profile="smoke")


@pytest.fixture(scope="module")
def survey():
    return make_survey(PARAMS)


def test_tables_hold_to_the_dictionary(survey):
    for name, table in survey.items():
        check_table(table, TABLES[name])


def test_clusters_are_on_the_footprint_across_ra_zero(survey):
    ra, dec = survey["raw_clusters"]["ra"].to_numpy(), survey["raw_clusters"]["dec"].to_numpy()
    assert inside_footprint(ra, dec, PARAMS.ingest.embedded).all()
    assert (ra > 300).any()
    assert (ra < 60).any()


def test_number_of_clusters_is_that_of_the_mass_function(survey):
    embedded = PARAMS.ingest.embedded
    south, north = np.sin(np.radians([embedded.dec_min_deg, embedded.dec_max_deg]))
    volume = np.radians(30.0) * (north - south) * (250.0**3 - 30.0**3) / 3
    m = np.arange(embedded.log10_m200c_min, 15.4, 0.005)
    expected = mass_function(m, 0.06, PARAMS.cosmology).sum() * 0.005 * volume
    assert abs(survey["raw_clusters"].num_rows - expected) < 4 * np.sqrt(expected)


def test_catalogue_masses_are_measured_on_the_galaxies(survey):
    """The ratio to the virial masses of the selected windows has the parameter's scatter.

    Windows of the survey differ a little from the cones that the catalogue saw: a galaxy in
    two cones is kept in one. The scatter is that of the parameter to 20 %, robustly.
    """
    clusters = survey["raw_clusters"].to_pandas()
    truth = survey["survey_truth"]["log10_m200c_true"].to_numpy()
    galaxies = survey["raw_galaxies"].to_pandas()
    cosmology = from_params(PARAMS.cosmology)
    windows = []
    for row in clusters.itertuples():
        scale = q0_angular_distance_mpc_h(row.z, PARAMS.cosmology.q0)
        # Tangent plane by hand: small angles, so cos(dec) does.
        x = np.radians((galaxies.ra - row.ra + 180) % 360 - 180) * np.cos(np.radians(row.dec))
        y = np.radians(galaxies.dec - row.dec)
        v = 299792.458 * (galaxies.z - row.z) / (1 + row.z)
        near = (np.hypot(x, y) * scale < 3) & (np.abs(v) < 2200)
        windows.append(np.column_stack([x * scale, y * scale, v])[near])
    found = virial_masses(
        np.concatenate(windows), np.cumsum([0, *(len(w) for w in windows)]),
        clusters.z.to_numpy(), cosmology, PARAMS.galweight,
    )  # fmt: skip
    ratio = np.log10(clusters.m200_msun_h) - found.log10_m200
    ratio = ratio[np.isfinite(ratio)]
    scatter = PARAMS.ingest.embedded.galweight_scatter_dex
    assert len(ratio) > 0.9 * len(truth)
    assert abs(np.median(ratio)) < 4 * 1.25 * scatter / np.sqrt(len(ratio))
    robust = 1.4826 * np.median(np.abs(ratio - np.median(ratio)))
    assert robust == pytest.approx(scatter, rel=0.2 + 4 * 1.16 / np.sqrt(2 * len(ratio)))
    # And they know the truth: within what virial masses of some ten galaxies do.
    difference = np.log10(clusters.m200_msun_h) - truth
    assert 0.1 < difference.std() < 0.6
    has = clusters.m200_msun_h.notna()
    mass = 100 * (100 * cosmology.e(clusters.z[has])) ** 2 * clusters.r200_mpc_h[has] ** 3
    np.testing.assert_allclose(mass / 4.300917270e-9, clusters.m200_msun_h[has], rtol=1e-6)


def test_caps_agree_with_the_footprint():
    caps = footprint_caps(PARAMS.ingest.embedded)
    random = np.random.default_rng(0)
    ra, dec = random.random(4000) * 360, np.degrees(np.arcsin(random.uniform(-1, 1, 4000)))
    r, d = np.radians(ra), np.radians(dec)
    vectors = np.stack([np.cos(d) * np.cos(r), np.cos(d) * np.sin(r), np.sin(d)])
    inside = np.zeros(len(ra), bool)
    for polygon in np.unique(caps["polygon_id"]):
        rows = caps["polygon_id"] == polygon
        normal = np.stack([caps[f"cap_{a}"][rows] for a in "xyz"], axis=1)
        cm = caps["cap_cm"][rows][:, None]
        distance = 1 - normal @ vectors
        inside |= np.where(cm >= 0, distance < cm, distance > -cm).all(axis=0)
    np.testing.assert_array_equal(inside, inside_footprint(ra, dec, PARAMS.ingest.embedded))
