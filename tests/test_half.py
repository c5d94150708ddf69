"""Half floats are numpy's, to the bit."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from cmass.half import grids_as_bytes, grids_from_bytes, half_floats


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


def test_grids_come_back_from_bytes_whole_and_in_slices():
    grids = np.random.default_rng(1).random((7, 3, 3, 3)).astype(np.float16)
    column = grids_as_bytes(grids)
    np.testing.assert_array_equal(grids_from_bytes(column), grids)
    np.testing.assert_array_equal(grids_from_bytes(column[2:5]), grids[2:5])
    # As the column's words say, for those who read it with something else.
    first = np.frombuffer(column[4].as_py(), "<f2").reshape(3, 3, 3)
    np.testing.assert_array_equal(first, grids[4])


def test_grids_of_any_order_in_memory():
    grids = np.random.default_rng(1).random((2, 3, 3, 3)).astype(np.float16).transpose(0, 3, 2, 1)
    np.testing.assert_array_equal(grids_from_bytes(grids_as_bytes(grids)), grids)


def test_bytes_of_no_cube_are_refused():
    with pytest.raises(ValueError, match="52 bytes are no cube"):
        grids_from_bytes(pa.array([bytes(52)], pa.binary(52)))
