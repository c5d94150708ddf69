"""Random streams: fixed by what they are drawn for, independent of each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cmass.seeds import generator

ROOT = Path(__file__).parents[1]
IDS = st.integers(0, 2**32 - 1)


@given(IDS, st.text(max_size=20), st.lists(IDS, max_size=3))
def test_the_same_thing_has_the_same_bits(seed, purpose, ids):
    a, b = (generator(seed, purpose, *ids).integers(0, 2**63, 8) for _ in range(2))
    assert np.array_equal(a, b)


def test_other_things_have_other_bits():
    keys = [(1, "a", 0, 1), (2, "a", 0, 1), (1, "b", 0, 1), (1, "a", 1, 0), (1, "a", 1, 1)]
    firsts = {int(generator(*key).integers(0, 2**63)) for key in keys}
    assert len(firsts) == len(keys)


def test_streams_of_neighbouring_ids_are_uniform_and_uncorrelated():
    draws = np.array([generator(7, "halo", i).random(4) for i in range(4000)])
    # one-sample Kolmogorov-Smirnov over all 16 000 draws; fixed seed, so no flakiness
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 0.01
    # correlation between consecutive ids: standard error 1/sqrt(4000) = 0.016, four of them
    correlation = np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]
    assert abs(correlation) < 0.064


def test_bits_are_the_same_in_another_process():
    code = "from cmass.seeds import generator; print(generator(3, 'x', 5).integers(0, 2**63))"
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(other.stdout) == generator(3, "x", 5).integers(0, 2**63)


def test_bits_are_those_of_numpy_philox():
    """The stream's definition in NumPy's own terms: it must not change between versions."""
    import zlib

    sequence = np.random.SeedSequence((3, zlib.crc32(b"halo"), 1, 11))
    expected = np.random.Generator(np.random.Philox(sequence)).normal(size=5)
    assert np.array_equal(generator(3, "halo", 11).normal(size=5), expected)


def test_ids_that_differ_by_a_trailing_zero_are_two_streams():
    assert not np.array_equal(generator(0, "x", 5).random(4), generator(0, "x", 5, 0).random(4))


def test_ids_of_simulations_may_fill_two_words():
    """MDPL2 numbers haloes beyond 2^32; (2^32 + 5) is neither 5 nor (5, 1)."""
    big = 2**32 + 5
    keys = [(5,), (big,), (5, 1), (1, 5), (big, 1), (5, 2**32 + 1), (5, 1, 1)]
    firsts = {int(generator(0, "x", *key).integers(0, 2**63)) for key in keys}
    assert len(firsts) == len(keys)
