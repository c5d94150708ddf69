"""What a unit says of the evaluation set: quantiles, transform and scores of a known posterior."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import norm

from cmass.estimators.windows import Windows
from cmass.rivals.units import predict
from cmass.tables import to_numpy
from tests.toys import EDGES, normal_posteriors


def test_predictions_are_those_of_a_normal_posterior():
    """Normals of 0.1 dex far from the edges, truths at known places: all columns are analytic."""
    pull = np.array([-1.0, 0.0, 0.5, 2.0])
    centre = np.array([14.1, 14.2, 14.3, 14.4])
    windows = Windows([f"w{i}" for i in range(4)], np.zeros((4, 3)), np.arange(5), np.full(4, 0.05),
                      centre + 0.1 * pull, np.array([7, 7, 8, 9]))  # fmt: skip
    toy = SimpleNamespace(
        name="toy",
        point_and_posterior=lambda w, edges: (
            centre[: len(w)] + 0.01, normal_posteriors(centre[: len(w)], 0.1),
        ),
    )  # fmt: skip
    table, seconds = predict(toy, 3, SimpleNamespace(evaluation=windows, edges=EDGES))
    found = dict(zip(table.column_names, table.columns, strict=True))
    assert found["seed"].to_pylist() == [3] * 4
    assert found["halo_id"].to_pylist() == [7, 7, 8, 9]
    assert seconds > 0
    point, low, middle, high, below, crps, log_score, width = to_numpy(
        table, "log10_m200c", "log10_m200c_p16", "log10_m200c_p50", "log10_m200c_p84",
        "probability_below_true", "crps", "log_score", "width_68",
    )  # fmt: skip
    np.testing.assert_allclose(point, centre + 0.01)
    # Bins of 0.0125 dex, an eighth of the width: linear inside a bin, off by (1/8)²/8 sigma.
    for values, place in ((low, -1), (middle, 0), (high, 1)):
        np.testing.assert_allclose(values, centre + 0.1 * place, atol=2e-4)
    np.testing.assert_allclose(below, norm.cdf(pull), atol=2e-3)
    np.testing.assert_allclose(width, 0.2, atol=4e-4)
    # Gneiting & Raftery 2007, eq. 5.
    expected = 0.1 * (pull * (2 * norm.cdf(pull) - 1) + 2 * norm.pdf(pull) - 1 / np.sqrt(np.pi))
    np.testing.assert_allclose(crps, expected, atol=2e-4)
    # A bin's mean density for the one at the truth: half a bin times the slope, 2/0.1 per dex.
    np.testing.assert_allclose(log_score, norm.logpdf(pull) - np.log(0.1), atol=0.13)
    assert log_score[1] == pytest.approx(norm.logpdf(0, scale=0.1), abs=0.005)
