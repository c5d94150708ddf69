"""Centres of clusters found in phase space, as the mocks' observer finds them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from cmass.cosmology import q0_angular_distance_mpc_h
from cmass.mock.observer import density_peak
from cmass.params import CosmologyParams, WindowParams
from cmass.select import PhaseSpace, phase_space

Array = NDArray[np.float64]

_C_KM_S = speed_of_light / 1e3
#: Times that a window is laid anew about the peak, and shifts that are none.
_ROUNDS, _STILL_MPC_H, _STILL_KM_S = 8, 0.01, 10.0
#: A peak farther off is another structure.
FARTHEST_MPC_H, FARTHEST_KM_S = 1.5, 1500.0


@dataclass(frozen=True)
class Centres:
    """Where clusters are, and how far that is from where they were said to be.

    Attributes
    ----------
    ra, dec, z : ndarray, shape (n,)
        deg, deg, redshift.
    shift_mpc_h, shift_km_s : ndarray, shape (n,)
        Distance on the sky (proper Mpc/h) and in velocity; zero for those that stay.
    lost : ndarray of bool, shape (n,)
        The density rises to a peak beyond `FARTHEST_MPC_H` or `FARTHEST_KM_S`, or to a blueshift: the
        given centre stays.
    """

    ra: Array
    dec: Array
    z: Array
    shift_mpc_h: Array
    shift_km_s: Array
    lost: NDArray[np.bool_]


def recentre(
    ra: Array, dec: Array, z: Array, galaxies: tuple[Array, Array, Array], window: WindowParams,
    cosmology: CosmologyParams, kernel: tuple[float, float],
) -> Centres:  # fmt: skip
    """Walk from given centres uphill to the peak of the density of galaxies in phase space.

    The mean shift of the mocks' observer, with its kernel; the error that the observer adds is left out.

    Parameters
    ----------
    ra, dec, z : ndarray, shape (n,)
    galaxies : tuple of ndarray, each of shape (m,)
        ra, dec (deg), z.
    window : WindowParams
    cosmology : CosmologyParams
    kernel : tuple of float
        Width of the Gaussian kernel on the sky (proper Mpc/h) and in velocity (km/s).
    """
    given = np.column_stack([ra, dec, z]).astype(float)
    at, moving = given.copy(), np.ones(len(given), bool)
    for _ in range(_ROUNDS):
        rows = np.flatnonzero(moving)
        if not rows.size:
            break
        space = phase_space(at[rows, 0], at[rows, 1], at[rows, 2], *galaxies, window, cosmology)
        steps = _steps(space, rows.size, kernel)
        at[rows] = _moved(at[rows], steps, cosmology)
        moving[rows] = (np.hypot(steps[:, 0], steps[:, 1]) > _STILL_MPC_H) | (
            np.abs(steps[:, 2]) > _STILL_KM_S
        )
        moving &= at[:, 2] > 0  # no window can be laid about a blueshift
    sky, speed = _shifts(given, at, cosmology)
    lost = moving & (at[:, 2] > 0)  # still on its way after all rounds
    lost |= (sky > FARTHEST_MPC_H) | (np.abs(speed) > FARTHEST_KM_S) | (at[:, 2] <= 0)
    at[lost] = given[lost]
    return Centres(
        at[:, 0], at[:, 1], at[:, 2], np.where(lost, 0.0, sky), np.where(lost, 0.0, speed), lost
    )


def _steps(space: PhaseSpace, n: int, kernel: tuple[float, float]) -> Array:
    """From the centre of each window to its peak: x, y (Mpc/h), v (km/s); zero where nothing is near."""
    points = np.column_stack([space.x_proj, space.y_proj, space.v_los])
    order = np.argsort(space.cluster_index, kind="stable")
    ends = np.cumsum(np.bincount(space.cluster_index, minlength=n))
    parts = np.split(points[order], ends[:-1])
    return np.array([density_peak(part, kernel, np.zeros(3)) for part in parts])


def _moved(at: Array, steps: Array, cosmology: CosmologyParams) -> Array:
    """Centres after steps of x (east), y (north) and v."""
    from astropy import units
    from astropy.coordinates import SkyCoord

    scale = q0_angular_distance_mpc_h(at[:, 2], cosmology.q0)
    angle = np.hypot(steps[:, 0], steps[:, 1]) / scale
    new = SkyCoord(at[:, 0], at[:, 1], unit="deg").directional_offset_by(
        np.arctan2(steps[:, 0], steps[:, 1]) * units.rad, angle * units.rad
    )
    z = at[:, 2] + (1 + at[:, 2]) * steps[:, 2] / _C_KM_S
    return np.column_stack([new.ra.deg, new.dec.deg, z])


def _shifts(before: Array, now: Array, cosmology: CosmologyParams) -> tuple[Array, Array]:
    """Distance on the sky (Mpc/h) and velocity (km/s) between two sets of centres."""
    from astropy.coordinates import SkyCoord

    first, second = (SkyCoord(c[:, 0], c[:, 1], unit="deg") for c in (before, now))
    sky = first.separation(second).rad * q0_angular_distance_mpc_h(before[:, 2], cosmology.q0)
    return sky, _C_KM_S * (now[:, 2] - before[:, 2]) / (1 + before[:, 2])
