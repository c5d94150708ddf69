"""Damaged files are read or refused in words; a few here, thousands with ``python -m tests.fuzz``."""

from __future__ import annotations

import pytest

from tests.fuzz import __main__ as fuzzing
from tests.fuzz import worker
from tests.fuzz.damage import damaged
from tests.fuzz.readers import READERS, Reader

#: Files a reader in the quick tests; `make fuzz` tries ten thousand.
_QUICK = 12


@pytest.mark.parametrize("name", READERS)
def test_a_few_damaged_files(name):
    found = fuzzing.fuzz(name, _QUICK)
    assert not found.faults, "\n".join(found.faults[:3])
    assert found.tried == _QUICK
    assert found.refused > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_ten_thousand_damaged_files(name):
    found = fuzzing.fuzz(name, 10_000)
    assert not found.faults, "\n".join(found.faults[:10])


def test_damage_is_the_same_for_a_number():
    whole = bytes(range(256)) * 20
    assert damaged(whole, 3) == damaged(whole, 3) != damaged(whole, 4)
    assert sum(damaged(whole, n) != whole for n in range(100)) > 95


def test_a_reader_that_fails_otherwise_is_a_crash(tmp_path):
    def fail(path):
        raise KeyError("by accident")

    file = tmp_path / "f"
    assert worker._try(Reader("r", "", lambda p: None, fail), file)["outcome"] == "crash"
