"""Windows with something wrong, and mocks with a neighbour: what the flags should find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cmass import seeds
from cmass.cosmology import Cosmology
from cmass.estimators.windows import Windows
from cmass.mock.contamination import phase_space_distance
from cmass.params import WindowParams

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Neighbours:
    """The most massive other halo with galaxies in each of n windows; NaN where there is none.

    Attributes
    ----------
    mass_ratio : ndarray, shape (n,)
        Its mass over the cluster's.
    distance : ndarray, shape (n,)
        From the cluster to the mean of its galaxies in the window (eq. 6).
    """

    mass_ratio: Array
    distance: Array


def neighbours(
    windows: Windows, host_log10_m200c: NDArray[np.float32], cosmology: Cosmology, n_min: int
) -> Neighbours:  # fmt: skip
    """Neighbours of mock windows, from the host of each galaxy.

    Parameters
    ----------
    windows : Windows
    host_log10_m200c : ndarray of float32, shape (n_points,)
        log10 M200c of the halo that each galaxy of `windows` belongs to; NaN for none.
    cosmology : Cosmology
    n_min : int
        Fewest galaxies in the window that make a neighbour.
    """
    ratio, distance = np.full(len(windows), np.nan), np.full(len(windows), np.nan)
    for i in range(len(windows)):
        own = windows.log10_m200c_true[i]
        host = host_log10_m200c[windows.offsets[i] : windows.offsets[i + 1]]
        # A mass to seven digits names its halo.
        masses, count = np.unique(host[np.isfinite(host)], return_counts=True)
        masses = masses[(count >= n_min) & (masses != np.float32(own))]
        if masses.size:
            heaviest = masses.max()
            x, y, v = windows.cloud(i)[host == heaviest].mean(axis=0)
            ratio[i] = 10 ** (float(heaviest) - own)
            distance[i] = phase_space_distance(
                x, y, v, float(heaviest), own, windows.z[i], cosmology
            )
    return Neighbours(ratio, distance)


def hosts(galaxies: pa.Table, windows: Windows) -> NDArray[np.float32]:
    """Column host_log10_m200c of table `mock_galaxies`, galaxy by galaxy of `windows`."""
    import pyarrow.compute as pc

    place = pc.index_in(galaxies["cluster_id"], value_set=pa.array(windows.cluster_id))
    number = pc.fill_null(place, -1).to_numpy()
    order = np.argsort(number, kind="stable")
    order = order[np.searchsorted(number[order], 0) :]
    return galaxies["host_log10_m200c"].to_numpy()[order].astype(np.float32)


def faster(factor: float) -> Callable[[Array, Array, np.random.Generator], Array]:
    """All velocities times `factor`."""
    return lambda cloud, other, rng: cloud * [1.0, 1.0, factor]


def thinned(cloud: Array, other: Array, rng: np.random.Generator) -> Array:
    """Half of the galaxies, drawn at random."""
    return cloud[rng.permutation(len(cloud))[: (len(cloud) + 1) // 2]]


def half_covered(cloud: Array, other: Array, rng: np.random.Generator) -> Array:
    """The galaxies on one side of a line through the centre, at a random angle."""
    angle = rng.uniform(0, 2 * np.pi)
    return cloud[cloud[:, 0] * np.cos(angle) + cloud[:, 1] * np.sin(angle) > 0]


def superposed(cloud: Array, other: Array, rng: np.random.Generator) -> Array:
    """The galaxies of another window beside: up to 3 Mpc/h an axis and 1000 km/s away."""
    shift = np.append(rng.uniform(-3, 3, 2), rng.uniform(-1000, 1000))
    return np.vstack([cloud, other + shift])


#: What is done to windows, by its name in table `oddity_rates`.
INJECTED: dict[str, Callable[[Array, Array, np.random.Generator], Array]] = {
    "velocities x 1.5": faster(1.5),
    "velocities / 1.5": faster(1 / 1.5),
    "half of the galaxies": thinned,
    "half of the window": half_covered,
    "another window on top": superposed,
}
#: Galaxies spread evenly over the window, as many as there were.
FIELD = "field alone"


def injected(
    case: str, windows: Windows, window: WindowParams, n_min: int, seed: int
) -> Windows:  # fmt: skip
    """The windows with something wrong; those left with fewer than `n_min` galaxies drop out.

    Parameters
    ----------
    case : str
        A key of `INJECTED`, or `FIELD`.
    windows : Windows
        The window laid on another is the one before it.
    window : WindowParams
        Galaxies that leave it are lost.
    n_min : int
    seed : int
        Of the run; draws are a window's own.
    """
    edge = np.array([window.half_width_mpc_h, window.half_width_mpc_h, window.v_max_km_s])
    clouds, rows = [], []
    for i in range(len(windows)):
        rng = seeds.generator(seed, f"oddity {case}", i)
        cloud = windows.cloud(i)
        if case == FIELD:
            cloud = rng.uniform(-1, 1, cloud.shape) * edge
        else:
            cloud = INJECTED[case](cloud, windows.cloud((i - 1) % len(windows)), rng)
        cloud = cloud[(np.abs(cloud) <= edge).all(axis=1)]
        if len(cloud) >= n_min:
            clouds.append(cloud)
            rows.append(i)
    kept = windows.take(np.array(rows, np.int64))
    offsets = np.concatenate([[0], np.cumsum([len(c) for c in clouds])]).astype(np.int64)
    points = np.vstack(clouds) if clouds else np.empty((0, 3))
    return replace(kept, points=points, offsets=offsets)
