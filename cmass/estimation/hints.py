"""Why a list of clusters finds no galaxies: the mistakes that people make, tried out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cmass.params import CosmologyParams, WindowParams
from cmass.select import phase_space
from cmass.sky import unit_vectors

Array = NDArray[np.float64]
#: Right ascension, declination, redshift.
Places = tuple[Array, Array, Array]

#: Clusters that a mistake is tried on, at most.
_TRIED = 200
#: A cluster's centre, and how many times more galaxies must be there when a mistake is undone.
_CORE_MPC_H, _CORE_KM_S, _TELLING = 0.5, 1000.0, 2.5


def _swapped(ra: Array, dec: Array) -> tuple[Array, Array]:
    # What was read as a right ascension may be a declination below zero, brought above it.
    return dec % 360, np.where(ra > 180, ra - 360, ra)


def _from_hours(ra: Array, dec: Array) -> tuple[Array, Array]:
    return 15 * ra, dec


def _from_radians(ra: Array, dec: Array) -> tuple[Array, Array]:
    return np.degrees(ra) % 360, np.degrees(dec)


def _negative(ra: Array, dec: Array) -> tuple[Array, Array]:
    return ra, -dec


#: What may be wrong with the positions of a table, and the words and options for it.
_MISTAKES: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "ra and dec of the {table}, or of the other table, are swapped: give --column {table}.ra={dec} --column {table}.dec={ra}": _swapped,
    "ra of the {table} is in hours: give --column '{table}.ra={ra}[hourangle]'": _from_hours,
    "ra and dec of the {table} are in radians: give --column '{table}.ra={ra}[rad]' "
    "--column '{table}.dec={dec}[rad]'": _from_radians,
    "dec of the {table} has lost its sign": _negative,
}


def mistake(
    clusters: Places, galaxies: Places, names: tuple[tuple[str, str], tuple[str, str]],
    window: WindowParams, cosmology: CosmologyParams,
) -> str:  # fmt: skip
    """The usual mistake without which the clusters have galaxies at their centres, in words.

    Each is undone on the clusters, then on the galaxies, and galaxies are counted near the centres: a
    cluster that is one has some there. Empty where none helps.

    Parameters
    ----------
    clusters, galaxies : tuple of ndarray
        ra, dec (deg), z, as they were read.
    names : tuple of tuple of str
        What the user's tables call ra and dec.
    window : WindowParams
    cosmology : CosmologyParams
    """
    some = np.unique(np.linspace(0, len(clusters[0]) - 1, _TRIED).round().astype(int))
    clusters = _pick(clusters, some)
    core = window.model_copy(update={"half_width_mpc_h": _CORE_MPC_H, "v_max_km_s": _CORE_KM_S})

    def near(c: Places, g: Places) -> float:
        """Typical number of galaxies near a cluster's centre, less one half."""
        c, g = (_pick(x, np.abs(x[1]) <= 90) for x in (c, g))
        counts = np.zeros(len(some))
        if len(c[0]) and len(g[0]):
            found = phase_space(*c, *g, core, cosmology).counts(len(c[0]))
            counts[: found.size] = found
        return float(np.exp(np.log(counts + 0.5).mean()))

    tried = []
    for words, undo in _MISTAKES.items():
        for which, table in enumerate(("clusters", "galaxies")):
            places = [clusters, galaxies]
            ra, dec, z = places[which]
            places[which] = (*undo(ra, dec), z)
            ra_name, dec_name = names[which]
            tried.append((near(*places), words.format(table=table, ra=ra_name, dec=dec_name)))
    # Two that undo the same, as swapped columns in either table, are equally good: the first one.
    most = max(count for count, _ in tried)
    best, words = next(one for one in tried if one[0] > 0.9 * most)
    before = near(clusters, galaxies)
    if best < _TELLING * before:
        return ""
    return f"{words}. A cluster has then {best:.1f} galaxies near its centre, not {before:.1f}"


def _pick(places: Places, rows: NDArray[Any]) -> Places:
    ra, dec, z = places
    return ra[rows], dec[rows], z[rows]


def how_far(clusters: Places, galaxies: Places) -> str:
    """Where the galaxies are beside the clusters, in words."""
    if len(clusters[0]) > len(galaxies[0]):
        return (
            f"the first table has {len(clusters[0])} rows, the second {len(galaxies[0])}: clusters come "
            "first, then galaxies"
        )
    tree = cKDTree(unit_vectors(galaxies[0], galaxies[1]))
    chord, _ = tree.query(unit_vectors(clusters[0], clusters[1]))
    apart = np.degrees(2 * np.arcsin(np.minimum(np.asarray(chord) / 2, 1)))
    low, high = np.quantile(galaxies[2], [0.01, 0.99])
    if np.median(apart) > 1:
        return (
            f"the galaxy nearest to a cluster is {np.median(apart):.1f} deg away (median): do the galaxies "
            f"cover these clusters? They reach from dec {galaxies[1].min():.1f} to {galaxies[1].max():.1f}"
        )
    if np.median(clusters[2]) > high or np.median(clusters[2]) < low:
        return (
            f"the clusters' median redshift is {np.median(clusters[2]):.4g}, the galaxies' redshifts lie "
            f"between {low:.4g} and {high:.4g}"
        )
    return (
        "few galaxies lie within the windows: the list should hold all galaxies of a survey there, "
        "with redshifts"
    )
