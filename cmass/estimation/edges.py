"""Windows that reach outside the data: where a list of galaxies ends, without a footprint.

A survey that ends leaves a side of the window without a galaxy at any redshift. Galaxies in front of
and behind the cluster tell it best, for those near it crowd and leave voids; where a list holds no others,
they must do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmass.params import CosmologyParams, WindowParams
from cmass.select import phase_space

Array = NDArray[np.float64]

#: Directions of the sides that are looked at, and places of the cuts across a window of half width 1.
_ANGLES = np.arange(24) * (2 * np.pi / 24)
_CUTS = np.linspace(0.1, 1.35, 26)
#: Around the centre nothing is counted: the cluster is there.
_CORE = 0.375
#: A side is empty that holds no more than this part of what it should.
_EMPTY = 0.05
#: Galaxies that an empty side should hold: of those at other redshifts, and where a list has too few of
#: them of the window's own. Rates of false and of missed alarms are in docs/science.md.
_LACKING_OTHERS, _LACKING_OWN = 13.0, 30.0
#: Fewest galaxies outside the window's velocities, beyond the core, that are asked first.
_FEWEST_OTHERS = 60
_UNLIMITED_KM_S = 1e9


def _areas() -> Array:
    """Part of the window beyond the core that lies beyond each cut in each direction."""
    axis = (np.arange(160) + 0.5) / 80 - 1
    x, y = (grid.ravel() for grid in np.meshgrid(axis, axis))
    outside = np.hypot(x, y) >= _CORE
    along = np.outer(np.cos(_ANGLES), x[outside]) + np.outer(np.sin(_ANGLES), y[outside])
    return np.stack([(along > cut).mean(axis=1) for cut in _CUTS], axis=1)


_AREAS = _areas()


def find_edges(
    ra: Array, dec: Array, z: Array, galaxies: tuple[Array, Array, Array], window: WindowParams,
    cosmology: CosmologyParams,
) -> Array:  # fmt: skip
    """How much of each window lies outside a list of galaxies, at least.

    Parameters
    ----------
    ra, dec, z : ndarray, shape (n,)
        Clusters.
    galaxies : tuple of ndarray, each of shape (m,)
        ra, dec (deg), z, at all redshifts that the list has.
    window : WindowParams
    cosmology : CosmologyParams

    Returns
    -------
    ndarray, shape (n,)
        Part of the window beyond its largest empty side; 1 where there is no galaxy at all, 0 where the
        window lies inside as far as can be told.
    """
    every = window.model_copy(update={"v_max_km_s": _UNLIMITED_KM_S})
    space = phase_space(ra, dec, z, *galaxies, every, cosmology)
    ends = np.concatenate([[0], np.cumsum(space.counts(len(ra)))])
    places = np.column_stack([space.x_proj, space.y_proj]) / window.half_width_mpc_h
    own = np.abs(space.v_los) <= window.v_max_km_s
    beyond = np.hypot(places[:, 0], places[:, 1]) >= _CORE
    missing = np.zeros(len(ra))
    for i, (first, last) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
        if first == last:
            missing[i] = 1.0
            continue
        outer = beyond[first:last]
        missing[i] = empty_part(places[first:last][outer], own[first:last][outer])
    return missing


def empty_part(places: Array, own: NDArray[np.bool_]) -> float:
    """Largest side of the square |x|, |y| ≤ 1 that has no galaxies where there should be.

    Parameters
    ----------
    places : ndarray, shape (n, 2)
        Of galaxies outside the core.
    own : ndarray of bool, shape (n,)
        Galaxies at the velocities of the window.

    Returns
    -------
    float
        Its part of the area; zero where every side has its galaxies.
    """
    others = (~own).sum() >= _FEWEST_OTHERS
    found, _ = _lacks(places, _EMPTY if others else 0.0)
    # Lists cut around clusters hold of other clusters' windows what happens to lie here: a side that
    # lacks those but has galaxies of its own is no edge.
    _, lacking = _lacks(places[~own if others else own], 1.0)
    found &= lacking > (_LACKING_OTHERS if others else _LACKING_OWN)
    return float(np.max(_AREAS, where=found, initial=0.0))


def _lacks(places: Array, empty: float) -> tuple[NDArray[np.bool_], Array]:
    """Which sides, by direction and cut, hold at most a part of what the rest lets expect; what they lack."""
    along = places @ np.stack([np.cos(_ANGLES), np.sin(_ANGLES)])
    beyond = np.stack([(along > cut).sum(axis=0) for cut in _CUTS], axis=1)
    expected = _AREAS / (1 - _AREAS) * (len(places) - beyond)
    return beyond <= empty * expected, expected - beyond
