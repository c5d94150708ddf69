"""Damage to a file, drawn by a number."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

#: What stands where a number, a name or a separator was expected.
_WORDS = (
    b"", b"0", b"-1", b"1e308", b"-1e-320", b"nan", b"-inf", b"9" * 40, b"2147483648", b"0x41",
    b"1,5", b"1.2.3", b"null", b"True", b"'", b'"', b"\x00", b"\xff\xfe", b"\r", b"\n\n", b"\t",
    b";", b"|", b"&amp;", b"]]>", b"<!--", b"../../etc/passwd", "é".encode(), "\u202e".encode(),
    b"%s%n", b"${HOME}", b"NaN" * 9, b"#END#", b"END", b" " * 80,
)  # fmt: skip
_NUMBER = re.compile(rb"\d+(?:\.\d+)?")
#: Most of the file's start in which structure lies.
_START = 4096

Damage = Callable[[bytearray, np.random.Generator], bytearray]


def _place(data: bytearray, random: np.random.Generator) -> int:
    """A place in the file, every other time near its start."""
    end = len(data) if random.random() < 0.5 else min(len(data), _START)
    return int(random.integers(end)) if end else 0


def _flip(data: bytearray, random: np.random.Generator) -> bytearray:
    if data:
        data[_place(data, random)] ^= 1 << int(random.integers(8))
    return data


def _overwrite(data: bytearray, random: np.random.Generator) -> bytearray:
    at, length = _place(data, random), int(random.integers(1, 9))
    kind = int(random.integers(3))
    filled = random.bytes(length) if kind == 0 else bytes([0 if kind == 1 else 255]) * length
    data[at : at + length] = filled[: max(len(data) - at, 0)]
    return data


def _cut_out(data: bytearray, random: np.random.Generator) -> bytearray:
    at = _place(data, random)
    del data[at : at + int(random.integers(1, 200))]
    return data


def _truncate(data: bytearray, random: np.random.Generator) -> bytearray:
    return data[: _place(data, random)]


def _repeat(data: bytearray, random: np.random.Generator) -> bytearray:
    at, length = _place(data, random), int(random.integers(1, 300))
    return data[: at + length] + data[at : at + length] * int(random.integers(1, 20)) + data[at:]


def _word(data: bytearray, random: np.random.Generator) -> bytearray:
    at = _place(data, random)
    word = _WORDS[int(random.integers(len(_WORDS)))]
    return data[:at] + word + data[at + int(random.integers(2)) * len(word) :]


def _number(data: bytearray, random: np.random.Generator) -> bytearray:
    """Another number, or none, where one stands."""
    found = list(_NUMBER.finditer(bytes(data[:_START] if random.random() < 0.7 else data)))
    if not found:
        return _word(data, random)
    one = found[int(random.integers(len(found)))]
    word = _WORDS[int(random.integers(len(_WORDS)))]
    return data[: one.start()] + word + data[one.end() :]


def _shuffle(data: bytearray, random: np.random.Generator) -> bytearray:
    """Two pieces of the file change places."""
    a, b = sorted((_place(data, random), _place(data, random)))
    length = int(random.integers(1, 100))
    return data[:a] + data[b : b + length] + data[a + length : b] + data[a : a + length] + data[b + length :]  # fmt: skip


_ALL: tuple[Damage, ...] = (
    _flip, _overwrite, _cut_out, _truncate, _repeat, _word, _number, _number, _shuffle,
)  # fmt: skip


def damaged(whole: bytes, number: int) -> bytes:
    """The file with one to six damages, always the same for a number."""
    random = np.random.default_rng([20260923, number])
    data = bytearray(whole)
    for _ in range(int(random.integers(1, 7))):
        data = _ALL[int(random.integers(len(_ALL)))](data, random)
    return bytes(data)
