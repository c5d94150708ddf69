"""The model that ships: whole, small, and right on a survey whose truth is known."""

from __future__ import annotations

import re

import numpy as np
import pytest

import cmass
from cmass.mock.survey import make_survey
from cmass.params import load_params
from cmass.pretrained import SHIPPED, load_bundle
from cmass.tables import read_json

pytestmark = pytest.mark.xdist_group("tensorflow")


def test_is_small_and_says_where_it_comes_from():
    files = [f for f in SHIPPED.iterdir() if f.is_file() and f.suffix != ".py"]
    assert sum(f.stat().st_size for f in files) < 1_000_000
    provenance = read_json(SHIPPED / "model.json")["provenance"]
    assert re.fullmatch(r"[0-9a-f]{40} \(clean\)", provenance["commit"])
    assert (
        provenance["training"]["weights_sha256"]
        == read_json(SHIPPED / "model.json")["checksums"]["cnn3d.weights.h5"]
    )
    # At paper scale: 17 000 training windows less those for validation, 5000 that judge.
    assert provenance["profile"] == "paper"
    assert provenance["training"]["n_train"] > 15_000
    figures = provenance["figures"]
    assert figures["mocks"]["n_clusters"] > 4500
    assert figures["mocks"]["epsilon_scatter"] < 0.19
    assert figures["sdss"]["n_clusters"] > 700


def test_loads_without_arguments():
    bundle = load_bundle()
    assert bundle.network.n_parameters == 123_189
    assert bundle.voxels.n == 50


def test_masses_of_a_survey_with_known_truth():
    """New haloes of the simulator, as a survey: unbiased, and posteriors as wide as they say.

    A clone's embedded survey has haloes that no mock of the training has (other ids).
    """
    params = load_params(profile="smoke")
    survey = make_survey(params)
    truth = survey["survey_truth"]["log10_m200c_true"].to_numpy()
    table = cmass.estimate(
        survey["raw_clusters"].select(["cluster_id", "ra", "dec", "z"]),
        survey["raw_galaxies"].select(["ra", "dec", "z"]),
    ).to_pandas()
    assert list(table["cluster_id"]) == survey["raw_clusters"]["cluster_id"].to_pylist()
    inside = table["log10_m200c_p50"].notna().to_numpy()
    # Windows at the footprint's edge are cut, so the median and not the mean; 74 clusters.
    offset = np.median(table["log10_m200c_p50"][inside] - truth[inside])
    assert abs(offset) < 0.08
    low, high = (table[f"log10_m200c_{q}"][inside] for q in ("p16", "p84"))
    covered = ((truth[inside] > low) & (truth[inside] < high)).mean()
    assert abs(covered - 0.683) < 4 * np.sqrt(0.683 * 0.317 / inside.sum())
