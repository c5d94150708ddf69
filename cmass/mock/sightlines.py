"""Sight lines on one halo, as far from one another as can be."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from cmass.seeds import generator

Array = NDArray[np.float64]


def smallest_angle_deg(directions: Array) -> float:
    """Smallest angle between any two of the unit vectors (N, 3), degrees."""
    cosines = directions @ directions.T
    upper = cosines[np.triu_indices(len(directions), k=1)]
    return float(np.degrees(np.arccos(np.clip(upper.max(), -1, 1))))


@lru_cache(maxsize=32)
def spread_directions(n: int, tries: int = 4) -> Array:
    """Directions that maximise the smallest angle between any two (Tammes' problem).

    Points first repel one another with a force that steepens, then the smallest
    angle itself is maximised under constraints (SLSQP); the best of `tries` starts.

    Parameters
    ----------
    n : int
        How many, at least 1.
    tries : int
        Random starts, drawn from a fixed seed.

    Returns
    -------
    ndarray, (n, 3)
        Unit vectors, always the same for the same arguments.
    """
    if n == 1:
        return np.array([[0.0, 0.0, 1.0]])
    if n == 2:
        return np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    starts = (
        _spread(generator(0, "spread-directions", n, i).standard_normal((n, 3)))
        for i in range(tries)
    )
    return max(starts, key=smallest_angle_deg)


def _normalised(flat: Array) -> Array:
    points = flat.reshape(-1, 3)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def _spread(start: Array) -> Array:
    n = len(start)
    rows, columns = np.triu_indices(n, k=1)

    def repulsion(flat: Array, power: int) -> tuple[float, Array]:
        raw = flat.reshape(-1, 3)
        length = np.linalg.norm(raw, axis=1, keepdims=True)
        unit = raw / length
        difference = unit[rows] - unit[columns]
        square = np.maximum((difference**2).sum(axis=1), 1e-12)
        scale = square.min()
        terms = (scale / square) ** (power / 2)
        pull = -(power * terms / square)[:, None] * difference / terms.sum()
        gradient = np.zeros_like(raw)
        np.add.at(gradient, rows, pull)
        np.add.at(gradient, columns, -pull)
        gradient = (gradient - (gradient * unit).sum(axis=1, keepdims=True) * unit) / length
        return float(np.log(terms.sum()) - power / 2 * np.log(scale)), gradient.ravel()

    flat = _normalised(start.ravel()).ravel()
    for power in (2, 8, 32, 128):
        flat = minimize(repulsion, flat, args=(power,), jac=True, method="L-BFGS-B").x
        flat = _normalised(flat).ravel()

    def slack(variables: Array) -> Array:
        points = _normalised(variables[:-1])
        return variables[-1] - (points[rows] * points[columns]).sum(axis=1)

    def slack_gradient(variables: Array) -> Array:
        raw = variables[:-1].reshape(-1, 3)
        length = np.linalg.norm(raw, axis=1, keepdims=True)
        unit = raw / length
        cosine = (unit[rows] * unit[columns]).sum(axis=1, keepdims=True)
        matrix = np.zeros((len(rows), n, 3))
        pairs = np.arange(len(rows))
        matrix[pairs, rows] = -(unit[columns] - cosine * unit[rows]) / length[rows]
        matrix[pairs, columns] = -(unit[rows] - cosine * unit[columns]) / length[columns]
        return np.hstack([matrix.reshape(len(rows), -1), np.ones((len(rows), 1))])

    points = flat.reshape(-1, 3)
    largest = (points[rows] * points[columns]).sum(axis=1).max()
    solution = minimize(
        lambda v: (v[-1], np.eye(1, len(v), len(v) - 1)[0]),
        np.append(flat, largest),
        jac=True,
        method="SLSQP",
        constraints={"type": "ineq", "fun": slack, "jac": slack_gradient},
        options={"maxiter": 300, "ftol": 1e-14},
    )
    best = _normalised(solution.x[:-1])
    return best if smallest_angle_deg(best) >= smallest_angle_deg(points) else points


def sight_lines(n: int, random: np.random.Generator) -> Array:
    """`n` spread directions, turned by a random rotation; unit vectors (n, 3)."""
    matrix, upper = np.linalg.qr(random.standard_normal((3, 3)))
    return spread_directions(n) @ (matrix * np.sign(np.diag(upper))).T


def plane_of_sky(direction: Array) -> tuple[Array, Array]:
    """Two unit vectors that span the plane at right angles to `direction`."""
    helper = np.eye(3)[np.argmin(np.abs(direction))]
    first = np.cross(helper, direction)
    first /= np.linalg.norm(first)
    return first, np.cross(direction, first)
