"""The embedded survey: on its footprint, with the abundance of the mass function."""

from __future__ import annotations

import numpy as np
import pytest

from cmass.columns import TABLES
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


def test_catalogue_masses_scatter_about_the_truth(survey):
    truth = survey["survey_truth"]["log10_m200c_true"].to_numpy()
    difference = np.log10(survey["raw_clusters"]["m200_msun_h"].to_numpy()) - truth
    n = len(truth)
    scatter = PARAMS.ingest.embedded.galweight_scatter_dex
    assert abs(difference.mean()) < 4 * scatter / np.sqrt(n)
    assert difference.std() == pytest.approx(scatter, rel=4 / np.sqrt(2 * n))


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
