"""Rates of flags: counted by hand, with errors of haloes, and told of each kind of neighbour."""

from types import SimpleNamespace

import numpy as np
import pytest

from cmass.columns import FLAGS
from cmass.oddity.injected import Neighbours
from cmass.oddity.rates import Rates, add_mocks
from tests.tiny import tiny_params

ODD, TWO = FLAGS["unlike_mocks"].value, FLAGS["two_clusters"].value
PARAMS = tiny_params()


def rows_of(rates):
    return {row["case"]: row for row in rates.table().to_pylist()}


def test_each_flag_has_its_rate_and_the_error_of_its_haloes():
    """Of 200 haloes with four windows alike: sqrt(p q/200), twice that of 800 windows."""
    rng = np.random.default_rng(1)
    odd, two = (np.repeat(rng.random(200) < p, 4) for p in (0.3, 0.05))
    other = FLAGS["blended"].value
    flag = (odd * ODD + two * TWO + rng.integers(0, 2, 800) * other).astype(np.int32)
    rates = Rates()
    rates.add("toy", flag, np.repeat(np.arange(200), 4), 5)
    row = rows_of(rates)["toy"]
    assert row["n"] == 800
    for name, hit in (("unlike_mocks", odd), ("two_clusters", two)):
        p = hit.mean()
        assert row[name] == pytest.approx(p)
        # 300 resamples: to 4 %.
        assert row[f"{name}_error"] == pytest.approx(np.sqrt(p * (1 - p) / 200), rel=0.15)


def test_none_of_few_is_not_never_and_very_few_say_nothing():
    rates = Rates()
    for n in (9, 10, 40):
        rates.add(str(n), np.zeros(n, np.int32), np.arange(n), 5)
    rows = rows_of(rates)
    assert rows["9"]["unlike_mocks"] is None and rows["9"]["unlike_mocks_error"] is None
    assert rows["9"]["n"] == 9
    for n in (10, 40):
        assert rows[str(n)]["two_clusters"] == 0
        assert rows[str(n)]["two_clusters_error"] == pytest.approx(1 / n)


def test_kinds_of_neighbours_are_told_apart():
    """Ratios on both sides of each limit, at distances on both sides of each; NaN is none."""
    ratio = np.array([np.nan, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0, 3.0, 9.0, 0.1])
    distance = np.array([np.nan, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 3.0, 4.0, 7.0, 1.0])
    repeat = np.repeat(np.arange(11), 10)  # ten windows of each: enough to be told
    limit = PARAMS.oddity.neighbour_mass_ratio
    assert limit == 0.2
    flag = np.where(np.isin(repeat, (5, 6)), TWO, 0).astype(np.int32)
    rates = Rates()
    add_mocks(rates, flag, SimpleNamespace(halo_id=np.arange(110)),
              Neighbours(ratio[repeat], distance[repeat]), PARAMS)  # fmt: skip
    rows = rows_of(rates)
    assert {case: row["n"] // 10 for case, row in rows.items()} == {
        "mocks": 11, "no neighbour above 0.2 of the mass": 4,
        "neighbour of 0.5 to 1 masses": 2, "neighbour of 1 to 3 masses": 2,
        "neighbour of over 3 masses": 1,
        "neighbour of over 0.5 masses, nearer than 2 (eq. 6)": 2,
        "neighbour of over 0.5 masses, 2 to 4 (eq. 6)": 2,
        "neighbour of over 0.5 masses, beyond 4 (eq. 6)": 1,
    }  # fmt: skip
    assert rows["neighbour of 0.5 to 1 masses"]["two_clusters"] == 1
    assert rows["neighbour of 1 to 3 masses"]["two_clusters"] == 0
    assert rows["mocks"]["two_clusters"] == pytest.approx(2 / 11)
