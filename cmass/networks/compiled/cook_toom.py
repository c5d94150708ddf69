"""Cook and Toom's algorithm: short correlations with fewer products."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

#: Outputs that are computed together.
TILE = 4

Matrix = tuple[tuple[float, ...], ...]


class CookToom(NamedTuple):
    """Four outputs y = outputs · (kernel g ⊙ inputs d) of the correlation of d with a kernel g.

    Attributes
    ----------
    outputs : (4, width + 3)
    kernel : (width + 3, width)
    inputs : (width + 3, width + 3)
    """

    outputs: Matrix
    kernel: Matrix
    inputs: Matrix


@lru_cache
def cook_toom(width: int) -> CookToom:
    """Matrices for a kernel of 3 or 5 values.

    Grid and kernel are written as values of polynomials at 0, ±1, ±2, for width 5 also ±1/2, and at
    infinity (Toom 1963; Winograd 1980 for the form as it stands here). Worked out in fractions.
    """
    half = Fraction(1, 2)
    points = [Fraction(p) for p in (0, 1, -1, 2, -2)] + [half, -half][: width - 3]
    n = len(points) + 1
    outputs = [[point**i for point in points] + [Fraction(i == TILE - 1)] for i in range(TILE)]
    kernel, inputs, every = [], [], [Fraction(1)]
    for point in points:
        others, size = [Fraction(1)], Fraction(1)
        for other in points:
            if other != point:
                others, size = _times(others, other), size * (point - other)
        kernel.append([point**k / size for k in range(width)])
        inputs.append([*others, Fraction(0)])
        every = _times(every, point)
    kernel.append([Fraction(k == width - 1) for k in range(width)])
    inputs.append(every)
    assert len(inputs) == n
    return CookToom(_floats(outputs), _floats(kernel), _floats(inputs))


def _times(polynomial: list[Fraction], root: Fraction) -> list[Fraction]:
    """Coefficients, constant first, of a polynomial times (x − root)."""
    shifted = [Fraction(0), *polynomial]
    return [a - root * b for a, b in zip(shifted, [*polynomial, Fraction(0)], strict=True)]


def _floats(matrix: list[list[Fraction]]) -> Matrix:
    return tuple(tuple(float(value) for value in row) for row in matrix)
