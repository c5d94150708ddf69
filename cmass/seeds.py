"""Random numbers that depend on what they are drawn for, not on the order of work."""

from __future__ import annotations

import zlib

import numpy as np


def generator(run_seed: int, purpose: str, *ids: int) -> np.random.Generator:
    """Return the generator of one thing (a halo, a shard, a sight line).

    Parameters
    ----------
    run_seed : int
        The seed of the whole run, not negative.
    purpose : str
        What is drawn, for instance ``"halo-field"``; streams of different
        purposes are independent.
    *ids : int
        Identity of the thing drawn for, not negative.

    Returns
    -------
    numpy.random.Generator
        Philox generator: the same arguments give the same bits on any machine,
        in any order, in any number of workers.
    """
    # NumPy pads short keys with zeros and cuts long numbers into words: the number of ids and
    # their lengths keep (1,) and (1, 0), and (2³² + 5,) and (5, 1), apart.
    shape = len(ids) + sum(_extra_words(int(i)) << 8 * place for place, i in enumerate(ids, 1))
    key = (int(run_seed), zlib.crc32(purpose.encode()), shape, *(int(i) for i in ids))
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def _extra_words(number: int) -> int:
    """Words of 32 bits that a number takes beyond the first."""
    return max(number.bit_length() - 1, 0) // 32
