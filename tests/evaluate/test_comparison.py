"""Numbers of the comparison with a catalogue, on universes whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from cmass.evaluate import Numbers
from cmass.evaluate.comparison import add_counts
from cmass.params import load_params
from cmass.posterior import normalise, reweight


def test_only_the_mass_functions_prior_returns_the_mass_function():
    """A steep mass function and 0.2 dex of noise: estimates scatter up, posteriors know it."""
    rng = np.random.default_rng(5)
    edges = np.linspace(13.0, 15.5, 251)
    mass = (edges[1:] + edges[:-1]) / 2
    hmf = 10 ** (-2.0 * (mass - 13.0))
    true = rng.choice(mass, 60_000, p=hmf / hmf.sum())
    seen = true + 0.2 * rng.standard_normal(true.size)
    flat = normalise(norm.pdf(seen[:, None], mass, 0.2))
    by_hmf = reweight(flat, np.ones_like(mass), hmf)
    how = load_params().infer
    theory = {t: float((true > t).sum()) for t in how.count_above_log10_m200c}
    numbers = Numbers()
    add_counts(
        numbers, how, edges, {"point": seen}, {"posterior": flat, "posterior_hmf": by_hmf},
        {"point": (seen, np.ones(seen.size))}, {"posterior_hmf": (by_hmf, np.ones(seen.size))},
        theory,
    )  # fmt: skip
    table = numbers.table().to_pandas().set_index(["metric", "bin"])
    for threshold, haloes in theory.items():
        here = table.xs(f"above {threshold:.1f}", level="bin")
        found = here.loc["n_above_posterior_hmf"]
        assert found.value == pytest.approx(haloes, abs=4 * np.sqrt(haloes))
        expected = here.loc["expected_n_above_posterior_hmf"]
        assert found.value == pytest.approx(expected.value, rel=1e-9)
        # analytic for a power law: exp((2 ln 10 · 0.2)²/2) = 1.53
        assert here.loc["n_above_point"].value == pytest.approx(1.53 * haloes, rel=0.25)
        # a flat posterior's width scatters once more
        twice = 1.53 * here.loc["n_above_point"].value
        assert here.loc["n_above_posterior"].value == pytest.approx(twice, rel=0.15)
        assert here.loc["chance_above_point"].value == 1.0
