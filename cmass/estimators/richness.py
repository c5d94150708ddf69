"""Richness: galaxies near a cluster's centre, the quantity that finders select on.

Counts of galaxies in a fixed aperture and velocity range, without a correction for the background or
for the flux limit: at one distance, more means a richer cluster. The estimator of the mass takes
the background off, counted in a ring of the same window, and knows the distance.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cmass.errors import TooFewMocksError
from cmass.estimators import PointEstimator
from cmass.estimators.windows import Sets, Windows
from cmass.tables import read_json, write_json

Array = NDArray[np.float64]

#: Aperture on the sky (proper Mpc/h) and in velocity (km/s): about R200c and 2 sigma of 10^14 Msun/h.
APERTURE_MPC_H, V_MAX_KM_S = 1.0, 1000.0
#: Ring that measures the background, in parts of the window's half width: beyond most members.
_RING = (0.625, 1.0)
_PIVOT_Z = 0.06
_TERMS = ("1", "x", "x²", "t", "x t", "t²")


def count_near_centre(points: Array, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Galaxies within `APERTURE_MPC_H` and `V_MAX_KM_S` of the centre of each cluster.

    Parameters
    ----------
    points : ndarray, shape (n_points, 3)
        x, y (proper Mpc/h) and v (km/s), one cluster after the other.
    offsets : ndarray, shape (n + 1,)
        Where each cluster begins in `points`.

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    near = np.hypot(points[:, 0], points[:, 1]) < APERTURE_MPC_H
    near &= np.abs(points[:, 2]) < V_MAX_KM_S
    upto = np.concatenate([[0], np.cumsum(near)])
    return np.diff(upto[np.asarray(offsets, np.int64)])


def count_in_ring(points: Array, offsets: NDArray[np.int64], half_width_mpc_h: float) -> Array:
    """Galaxies that the background puts into the aperture, by a ring of the same velocities.

    Parameters
    ----------
    points, offsets
        As for `count_near_centre`.
    half_width_mpc_h : float
        Of the window: the ring's outer radius, proper Mpc/h.

    Returns
    -------
    ndarray, shape (n,)
        Count in the ring times the ratio of the areas.
    """
    inner, outer = (part * half_width_mpc_h for part in _RING)
    radius = np.hypot(points[:, 0], points[:, 1])
    inside = (radius >= inner) & (radius < outer) & (np.abs(points[:, 2]) < V_MAX_KM_S)
    upto = np.concatenate([[0], np.cumsum(inside)])
    return np.diff(upto[np.asarray(offsets, np.int64)]) * APERTURE_MPC_H**2 / (outer**2 - inner**2)


class Richness(PointEstimator):
    """Mass from the number of galaxies near the centre and the redshift.

    With x = log10(1 + N), N the count in the aperture less the background, and
    t = log10(z/0.06), log10 M200c is a second-order polynomial of x and t, by least squares: a
    survey limited in flux shows fewer galaxies of the same cluster where it is farther away.
    """

    name: ClassVar[str] = "richness"
    title: ClassVar[str] = "richness"
    reads: ClassVar[str] = "number of galaxies near the centre, redshift"
    seeded: ClassVar[bool] = False

    _coefficients: Array

    def _design(self, windows: Windows) -> Array:
        near = count_near_centre(windows.points, windows.offsets)
        field = count_in_ring(windows.points, windows.offsets, self.params.window.half_width_mpc_h)
        x = np.log10(1 + np.clip(near - field, 0, None))
        t = np.log10(windows.z / _PIVOT_Z)
        return np.column_stack([np.ones_like(x), x, x**2, t, x * t, t**2])

    def fit_point(self, sets: Sets, work: Path) -> None:
        """Least squares on the training and validation mocks."""
        parts = (sets.train, sets.validation)
        design = np.concatenate([self._design(w) for w in parts])
        true = np.concatenate([w.log10_m200c_true for w in parts])
        if len(true) < 10 * len(_TERMS):
            raise TooFewMocksError(
                f"a richness-mass relation needs {10 * len(_TERMS)} mocks, {len(true)} are there"
            )
        self._coefficients = np.linalg.lstsq(design, true, rcond=None)[0]

    def point(self, windows: Windows) -> Array:
        """log10 M200c by the relation; NaN where the redshift is not known."""
        return self._design(windows) @ self._coefficients

    @property
    def n_parameters(self) -> int:
        """Coefficients of the polynomial."""
        return len(_TERMS)

    def save_point(self, folder: Path) -> None:
        """Write ``richness.json``: a coefficient a term."""
        terms = dict(zip(_TERMS, self._coefficients.tolist(), strict=True))
        write_json(folder / "richness.json", terms)

    def load_point(self, folder: Path) -> None:
        """Read ``richness.json``."""
        terms = read_json(folder / "richness.json")
        self._coefficients = np.array([terms[name] for name in _TERMS])
