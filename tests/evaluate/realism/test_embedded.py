"""The embedded survey is made by the simulator: the comparison must find it like its mocks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cmass import ingest, select
from cmass.calibrate.values import with_values
from cmass.evaluate import realism
from cmass.mock import population
from cmass.params import load_params
from cmass.workspace import Workspace

SHIPPED = Path(__file__).parents[3] / "params.yaml"


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Windows of the embedded survey and of the population, and the parameters."""
    params = with_values(
        load_params(SHIPPED, "smoke", survey="embedded"),
        {"population.n_windows": 800, "realism.distance_bins": 2, "realism.richness_bin_dex": 0.2},
    )
    workspace = Workspace(tmp_path_factory.mktemp("embedded"), "smoke", "embedded")
    ingest.run(workspace, params)
    select.run(workspace, params)
    population.run(workspace, params)
    real = realism.survey_windows(workspace, params)
    mock = realism.mock_windows(workspace.population, params, population.weights)
    return real, mock, params


def totals(real, mock, params) -> dict[str, realism.Score]:
    out = {}
    for half in realism.HALVES:
        matched = realism.match_half(real, mock, half, params.realism)
        rows = realism.compare(matched, half, params.realism, np.random.default_rng(2))
        out[half] = realism.scores(realism.realism_table(rows), half, params.realism.agreement)[-1]
    return out


@pytest.mark.slow
def test_the_embedded_survey_is_like_the_population(sides):
    real, mock, params = sides
    assert len(real) > 40
    for score in totals(real, mock, params).values():
        # A rms over 13 statistics of what is one by chance; of the standard survey, with 305
        # clusters, both halves give 1.01. Statistics of few clusters scatter: 1.6 is far out.
        assert score.deviation < 1.6
        assert score.agree > 0.5
        assert score.n_bins > 60


@pytest.mark.slow
def test_a_survey_with_faster_galaxies_is_not(sides):
    real, mock, params = sides
    fast = real.points * np.array([1, 1, 1.5])
    score = totals(dataclasses.replace(real, points=fast), mock, params)
    assert max(s.deviation for s in score.values()) > 1.6
