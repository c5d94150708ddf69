"""Surveys of other depths: flagged by the model that ships, and measured so that mocks can be like them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow as pa
import pytest

import cmass
from cmass.columns import FLAGS
from cmass.errors import InputError, ParameterError
from cmass.estimation import like
from cmass.mock.survey import make_survey
from cmass.oddity.depth import Depth
from cmass.params import Params, load_params
from cmass.pretrained import load_bundle
from tests.tiny import tiny_params

pytestmark = pytest.mark.xdist_group("tensorflow")
DEEP, SHALLOW, SDSS = 19.0, 17.0, 17.77


@cache
def survey(limit_mag):
    """Clusters, galaxies and true masses of a survey as the simulator makes it."""
    values = load_params(profile="smoke").model_dump()
    values["mock"]["galaxies"]["flux_limit_mag"] = limit_mag
    values["seed"] = 31
    tables = make_survey(Params.model_validate(values))
    return tables["raw_clusters"].select(["cluster_id", "ra", "dec", "z"]), tables["raw_galaxies"]


def galaxies_of(limit_mag, magnitudes):
    return survey(limit_mag)[1].select(["ra", "dec", "z", *(["r_mag"] if magnitudes else [])])


@pytest.mark.parametrize("magnitudes", [True, False])
@pytest.mark.parametrize("limit_mag", [DEEP, SHALLOW, SDSS])
def test_the_shipped_model_flags_surveys_of_another_depth(limit_mag, magnitudes, caplog):
    clusters = survey(limit_mag)[0]
    masses = cmass.estimate(clusters, galaxies_of(limit_mag, magnitudes), progress=False)
    flagged = (masses["flag"].to_numpy() & FLAGS["depth_outside_training"].value) > 0
    assert flagged.all() if limit_mag != SDSS else not flagged.any()
    told = "cmass train --like" in caplog.text
    assert told == (limit_mag != SDSS)
    if told:
        assert all("deeper, shallower or sparser" in x for x in masses["remark"].to_pylist())


@pytest.mark.parametrize("limit_mag", [DEEP, SHALLOW])
def test_a_survey_is_measured(limit_mag):
    clusters, bundle = survey(limit_mag)[0], load_bundle()
    z = clusters["z"].to_numpy()
    by = {}
    for magnitudes in (True, False):
        found = like.measure((clusters, galaxies_of(limit_mag, magnitudes)), bundle)
        by[found.depth.how] = found.depth.limit_mag
        # One cluster in a hundred on either side is not imitated.
        assert z.min() <= found.z[0] <= np.sort(z)[1] and np.sort(z)[-2] <= found.z[1] <= z.max()
        assert found.n_clusters == clusters.num_rows
    assert by["magnitudes"] == pytest.approx(limit_mag, abs=0.05)
    assert by["counts"] == pytest.approx(limit_mag, abs=0.35)  # some sixty clusters
    said = like.measure((clusters, galaxies_of(limit_mag, True)), bundle, limit_mag=18.2)
    assert said.depth == Depth(18.2, 0.0, "as said", 0)


def test_mocks_are_made_as_deep_and_as_far():
    params = load_params(profile="smoke")
    one = like.Survey(Depth(18.634, 0.1, "counts", 80), (0.05, 0.12), 0.09, 80, 9000)
    made = like.parameters(one, params)
    assert made.mock.galaxies.flux_limit_mag == 18.63
    assert made.mock.snapshot_redshift == 0.09
    # colossus has 148.0 and 349.9 Mpc/h for z = 0.05 and 0.12 in MDPL2's cosmology.
    assert made.mock.haloes.distance_min_mpc_h == pytest.approx(0.9 * 148.0, rel=2e-3)
    assert made.window.distance_max_mpc_h == pytest.approx(1.1 * 349.9, rel=2e-3)
    assert made.mock.haloes.n_windows == params.mock.haloes.n_windows
    thin = like.parameters(replace(one, z=(0.08, 0.08)), params)
    low, high = thin.mock.haloes.distance_min_mpc_h, thin.window.distance_max_mpc_h
    assert high / low == pytest.approx(1.5, rel=1e-2)
    assert np.sqrt(low * high) == pytest.approx(np.sqrt(0.99) * 235.3, rel=1e-2)


def test_what_cannot_be_imitated_is_an_error():
    bundle = load_bundle()
    clusters = pa.table({"cluster_id": ["a"], "ra": [10.0], "dec": [0.0], "z": [0.05]})
    galaxies = pa.table({"ra": [10.0] * 9, "dec": [0.0] * 9, "z": [0.05] * 9})
    far = clusters.set_column(3, "z", pa.array([0.4]))
    with pytest.raises(InputError, match=r"depth of the survey cannot be told.*--depth 18.5"):
        like.measure((far, galaxies), bundle)
    with pytest.raises(InputError, match=r"reach a redshift of 0.400.*nearer clusters"):
        like.measure((far, galaxies), bundle, limit_mag=18.0)
    with pytest.raises(ParameterError, match=r"--depth 25: .* 14 to 20.5"):
        like.measure((clusters, galaxies), bundle, limit_mag=25.0)
    with pytest.raises(InputError, match="no cluster can be used: z is missing"):
        like.measure(
            (clusters.set_column(3, "z", pa.array([None], pa.float64())), galaxies), bundle
        )


def test_a_list_too_near_for_mocks_is_refused():
    near = like.Survey(Depth(17.0, 0.1, "counts", 80), (0.003, 0.006), 0.005, 80, 9000)
    with pytest.raises(InputError, match="mocks begin at 30"):
        like.parameters(near, load_params(profile="smoke"))
    some = like.parameters(replace(near, z=(0.003, 0.012)), load_params(profile="smoke"))
    assert some.mock.haloes.distance_min_mpc_h == 30
    assert some.window.distance_max_mpc_h == 45


def test_a_model_is_made_for_a_survey(tmp_path):
    """Mocks to model in small, through every step; the model knows what it was made for."""
    base = tiny_params()
    values = base.model_dump()
    values["mock"]["haloes"] |= {"n_windows": 260}
    values["population"] |= {"n_windows": 60}
    values["split"] |= {"train": 140, "test": 80, "evaluation": 24}
    values["train"] |= {"epochs": 2, "batch_size": 20}
    values["voxels"] |= {"n": 20}
    survey_ = like.Survey(Depth(17.0, 0.02, "magnitudes", 900), (0.03, 0.06), 0.045, 60, 900)
    params = like.parameters(survey_, Params.model_validate(values))
    out = tmp_path / "model"
    figures = like.train(survey_, params, out)
    assert figures["n_clusters"] == 24
    bundle = load_bundle(out)
    assert bundle.range.flux_limit_mag == 17.0
    low, high = bundle.range.distance_mpc_h
    assert params.mock.haloes.distance_min_mpc_h <= low < high <= params.window.distance_max_mpc_h
    assert bundle.provenance["like"]["depth"]["limit_mag"] == 17.0
    assert load_params(out / like.PARAMS_FILE, "smoke") == params
    before = (out / "cnn3d.weights.h5").stat().st_mtime_ns, (out / "model.json").read_bytes()
    like.train(survey_, params, out)  # nothing is made again
    work = (out / like.WORK / "smoke" / "model" / "cnn3d.weights.h5").stat().st_mtime_ns
    assert work <= before[0] and (out / "model.json").read_bytes() == before[1]
    clusters, galaxies = survey(SHALLOW)[0], galaxies_of(SHALLOW, True)
    masses = cmass.estimate(clusters, galaxies, model=out, progress=False)
    assert not (masses["flag"].to_numpy() & FLAGS["depth_outside_training"].value).any()
