"""Pairs of clusters of two catalogues that are the same cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cmass.cosmology import Cosmology, line_of_sight_velocity_km_s
from cmass.sky import unit_vectors
from cmass.tables import to_numpy

Array = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Places:
    """Where clusters are: right ascension and declination in deg, redshift; shape (n,) each."""

    ra: Array
    dec: Array
    z: Array

    @classmethod
    def of(cls, table: pa.Table) -> Places:
        """Places of the rows of a table with columns ra, dec, z."""
        return cls(*to_numpy(table, "ra", "dec", "z"))

    def rows(self, which: NDArray) -> Places:
        """The places chosen by a mask or by row numbers."""
        return Places(self.ra[which], self.dec[which], self.z[which])

    def turned(self, degrees: float) -> Places:
        """The same places at right ascensions larger by `degrees`."""
        return Places((self.ra + degrees) % 360, self.dec, self.z)


@dataclass(frozen=True)
class Limits:
    """How far apart one cluster may lie in two catalogues.

    Attributes
    ----------
    radius_mpc_h : float
        Projected, proper, at the redshift of ours.
    velocity_km_s : float
        |c (z_other − z)/(1 + z)|.
    cosmology : Cosmology
    """

    radius_mpc_h: float
    velocity_km_s: float
    cosmology: Cosmology


@dataclass(frozen=True)
class Pairs:
    """Pairs within the limits, the closest first.

    Attributes
    ----------
    cluster, other : ndarray of int, shape (n_pairs,)
        Rows in the two catalogues.
    separation_mpc_h, velocity_km_s : ndarray, shape (n_pairs,)
        Proper, projected; and c (z_other − z)/(1 + z).
    """

    cluster: Rows
    other: Rows
    separation_mpc_h: Array
    velocity_km_s: Array


def candidate_pairs(ours: Places, others: Places, limits: Limits) -> Pairs:
    """All pairs within the limits, sorted by their distance in units of both limits."""
    theirs = unit_vectors(others.ra, others.dec)
    scale = limits.cosmology.angular_distance_mpc_h(ours.z)
    # A chord of 2 sin(angle/2); nothing is farther away than 180 deg.
    reach = 2 * np.sin(0.5 * np.minimum(limits.radius_mpc_h / scale, np.pi))
    centres = unit_vectors(ours.ra, ours.dec)
    found = cKDTree(theirs).query_ball_point(centres, reach * (1 + 1e-9))
    cluster = np.repeat(np.arange(ours.z.size), [len(one) for one in found])
    other = np.array([row for one in found for row in one], np.int64)
    chord = np.linalg.norm(centres[cluster] - theirs[other], axis=1)
    separation = 2 * np.arcsin(0.5 * chord) * scale[cluster]
    velocity = line_of_sight_velocity_km_s(others.z[other], ours.z[cluster])
    keep = (separation <= limits.radius_mpc_h) & (np.abs(velocity) <= limits.velocity_km_s)
    distance = np.hypot(separation / limits.radius_mpc_h, velocity / limits.velocity_km_s)
    order = np.flatnonzero(keep)
    order = order[np.lexsort((other[order], cluster[order], distance[order]))]
    return Pairs(cluster[order], other[order], separation[order], velocity[order])


def one_to_one(pairs: Pairs) -> NDArray[np.bool_]:
    """Which pairs are matches: the closest first, and no cluster twice on either side."""
    accepted = np.zeros(pairs.cluster.size, bool)
    ours: set[int] = set()
    others: set[int] = set()
    for row, (one, other) in enumerate(zip(pairs.cluster, pairs.other, strict=True)):
        if one not in ours and other not in others:
            accepted[row] = True
            ours.add(int(one))
            others.add(int(other))
    return accepted


def ambiguous(pairs: Pairs) -> NDArray[np.bool_]:
    """Pairs whose cluster, on either side, is in another pair as well."""
    twice = np.zeros(pairs.cluster.size, bool)
    for side in (pairs.cluster, pairs.other):
        _, number, count = np.unique(side, return_inverse=True, return_counts=True)
        twice |= count[number] > 1
    return twice


def chance_matches(
    ours: Places, others: Places, limits: Limits, shifts_deg: Sequence[float],
    inside: Callable[[Array, Array], NDArray[np.bool_]],
) -> tuple[float, float]:  # fmt: skip
    """Matches expected of catalogues that know nothing of each other, and their error.

    The other catalogue is turned about the poles by each shift; the matches of its clusters
    inside the survey are counted and brought to the number that lies there unturned.

    Parameters
    ----------
    ours, others : Places
    limits : Limits
    shifts_deg : sequence of float
        Larger than superclusters are wide.
    inside : callable
        Which right ascensions and declinations (deg) lie in the survey.

    Returns
    -------
    mean, error : float
        The error is that of the mean over the shifts; NaN for one shift.
    """
    there = int(inside(others.ra, others.dec).sum())
    counts = []
    for shift in shifts_deg:
        turned = others.turned(shift)
        turned = turned.rows(inside(turned.ra, turned.dec))
        if turned.z.size:
            matches = one_to_one(candidate_pairs(ours, turned, limits)).sum()
            counts.append(matches * there / turned.z.size)
    if not counts:
        return float("nan"), float("nan")
    error = np.std(counts, ddof=1) / np.sqrt(len(counts)) if len(counts) > 1 else np.nan
    return float(np.mean(counts)), float(error)
