"""Sets by halo: sizes as asked, no halo in two sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmass.errors import InputError
from cmass.split import split_haloes


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 6), min_size=60, max_size=200))
def test_no_halo_is_in_two_sets(seed, windows_per_halo):
    # Single windows make up the sizes exactly, whatever the others are.
    halo_id = np.repeat(np.arange(len(windows_per_halo) + 40), [*windows_per_halo, *[1] * 40])
    sizes = {"train": 30, "validation": 4, "test": 20, "evaluation": 6}
    chosen = split_haloes(halo_id, sizes, seed)
    for name, size in sizes.items():
        assert (chosen == name).sum() == size
    for halo in np.unique(halo_id):
        assert len(set(chosen[halo_id == halo])) == 1


def test_the_seed_decides():
    halo_id = np.arange(100)
    sizes = {"train": 50, "test": 50}
    first = split_haloes(halo_id, sizes, 1)
    np.testing.assert_array_equal(first, split_haloes(halo_id, sizes, 1))
    assert (first != split_haloes(halo_id, sizes, 2)).any()


def test_too_few_windows_is_an_error_that_says_how_many():
    with pytest.raises(InputError, match="short by .*'train': 2, 'test': 3"):
        split_haloes(np.arange(15), {"train": 10, "test": 10}, 0)
