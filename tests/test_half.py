"""Half floats are numpy's, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from cmass.half import half_floats


def _same(values: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    np.testing.assert_array_equal(half_floats(values).view(np.uint16), expected.view(np.uint16))


def test_every_half_float_its_neighbours_and_the_middles_between():
    every = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    _same(every)
    _same(np.nextafter(every, np.float32(np.inf)))
    _same(np.nextafter(every[1:], np.float32(0)))
    _same((every[1:] + every[:-1]) / 2)


def test_floats_of_every_size():
    bits = np.random.default_rng(0).integers(0, 0x7F800000, 500_000, dtype=np.uint32)
    _same(bits.view(np.float32))


@pytest.mark.parametrize("odd", [-1.0, np.nan, -0.0, np.inf])
def test_other_numbers_are_left_to_numpy(odd):
    values = np.array([[0.25, odd], [1e-6, 3.0]], np.float32)
    assert half_floats(values).shape == (2, 2)
    np.testing.assert_array_equal(half_floats(values), values.astype(np.float16))


def test_half_floats_stay():
    values = np.array([1.5, 6e-8], np.float16)
    assert half_floats(values).dtype == np.float16
    np.testing.assert_array_equal(half_floats(values), values)
