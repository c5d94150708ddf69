"""What windows of galaxies look like, in numbers: each statistic a vector of bins.

A statistic is prepared once for a set of windows and then taken at any number of weight
vectors: means, bootstrap errors and matched mocks are matrix products. All of them, for
1000 windows, take about two seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from cmass.evaluate.realism.windows import Windows

Array = NDArray[np.float64]

#: Galaxies within this times V200c (3 sigma of a cluster) count as near in velocity.
V_CUT_V200 = 2.0
#: Outer radius of stacks, Mpc/h: the largest circle in the window of the paper.
R_MAX_MPC_H = 4.0
#: Pairs nearer than this in velocity can belong together, km/s.
PAIR_V_KM_S = 500.0


class Prepared(Protocol):
    """A statistic of given windows, to be taken at weights."""

    def at(self, weights: Array) -> Array:
        """Values (b, k) at weight vectors (b, n)."""


@dataclass(frozen=True)
class Stacked:
    """finish(sum w numerator / sum w denominator) per bin; NaN where nothing is summed.

    Attributes
    ----------
    numerator, denominator : ndarray, shape (n, k)
        What each window adds.
    finish : callable
        Applied to the ratio, as the square root to a variance.
    """

    numerator: Array
    denominator: Array
    finish: Callable[[Array], Array] = lambda x: x

    def at(self, weights: Array) -> Array:
        above, below = weights @ self.numerator, weights @ self.denominator
        ratio = np.full(above.shape, np.nan)
        np.divide(above, below, out=ratio, where=below > 0)
        return self.finish(ratio)


@dataclass(frozen=True)
class Summed:
    """Sum w numerator per bin.

    Attributes
    ----------
    numerator : ndarray, shape (n, k)
        What each window adds.
    """

    numerator: Array

    def at(self, weights: Array) -> Array:
        return weights @ self.numerator


@dataclass(frozen=True)
class Quantiles:
    """Weighted quantiles of one value a window.

    Attributes
    ----------
    values : ndarray, shape (n,)
    levels : ndarray, shape (k,)
    """

    values: Array
    levels: Array

    def at(self, weights: Array) -> Array:
        order = np.argsort(self.values, kind="stable")
        values, out = self.values[order], np.empty((len(weights), self.levels.size))
        for row, weight in enumerate(weights[:, order]):
            used = weight > 0
            w = weight[used]
            # Each value stands in the middle of its own weight.
            place = (np.cumsum(w) - 0.5 * w) / w.sum()
            out[row] = np.interp(self.levels, place, values[used])
        return out


@dataclass(frozen=True)
class QuantilesWithin:
    """Weighted quantiles of one value a window, in groups of windows, one group after the other.

    Attributes
    ----------
    values : ndarray, shape (n,)
    levels : ndarray, shape (k,)
    groups : ndarray of bool, shape (g, n)
    """

    values: Array
    levels: Array
    groups: NDArray[np.bool_]

    def at(self, weights: Array) -> Array:
        out = np.full((len(weights), len(self.groups), self.levels.size), np.nan)
        for place, group in enumerate(self.groups):
            known = (weights[:, group] > 0).any(axis=1)
            if known.any():
                inside = Quantiles(self.values[group], self.levels)
                out[known, place] = inside.at(weights[known][:, group])
        return out.reshape(len(weights), -1)


@dataclass(frozen=True)
class Statistic:
    """One statistic of the realism report.

    Attributes
    ----------
    name, title : str
    coordinate, coordinate_unit : str
        What the bins are bins of; unit in VOUnit notation.
    value, unit : str
        What is measured, and its unit.
    low, high : ndarray, shape (k,)
        Bin edges in the coordinate.
    prepare : callable
        From windows to what can be taken at weights.
    log : tuple of bool
        Whether coordinate and value are drawn on logarithmic axes.
    labels : tuple of str
        Names of bins that are no intervals.
    units : tuple of str
        Units of the bins, where they differ.
    absolute : bool
        Taken at the windows' density in the universe, not at weights that match the survey.
    """

    name: str
    title: str
    coordinate: str
    coordinate_unit: str
    value: str
    unit: str
    low: Array
    high: Array
    prepare: Callable[[Windows], Prepared]
    log: tuple[bool, bool] = (False, False)
    labels: tuple[str, ...] = ()
    units: tuple[str, ...] = field(default=())
    absolute: bool = False

    def bin_names(self) -> list[str]:
        """A name for each bin."""
        if self.labels:
            return list(self.labels)
        return [f"{a:g}-{b:g}" for a, b in zip(self.low, self.high, strict=True)]

    def bin_units(self) -> list[str]:
        """The unit of each bin's value."""
        return list(self.units) or [self.unit] * self.low.size


# -------------------------------------------------------------------------------- small parts


def _root(x: Array) -> Array:
    # Estimates of squares without shot noise may come out negative; so do their roots.
    return np.sign(x) * np.sqrt(np.abs(x))


def _radius(w: Windows) -> Array:
    return np.hypot(w.points[:, 0], w.points[:, 1])


def _members(w: Windows) -> NDArray[np.bool_]:
    """Galaxies projected inside R200 and near in velocity."""
    c = w.cluster
    inside = _radius(w) < w.r200_mpc_h[c]
    return inside & (np.abs(w.points[:, 2]) < V_CUT_V200 * w.v200_km_s[c])


def _histogram(
    w: Windows, x: Array, edges: Array, where: NDArray[np.bool_], add: Array | None = None
) -> Array:
    """Sum of `add` (1: count) per window and bin of x over points in `where`, shape (n, k)."""
    k = edges.size - 1
    bin = np.searchsorted(edges, x, side="right") - 1
    used = where & (bin >= 0) & (bin < k)
    flat = w.cluster[used] * k + bin[used]
    more = None if add is None else add[used]
    return np.bincount(flat, more, len(w) * k).reshape(len(w), k).astype(float)


def _in_bins(x: Array, edges: Array) -> Array:
    """1 where x lies in the bin and 0 elsewhere, shape (n, k)."""
    bin = np.searchsorted(edges, x, side="right") - 1
    return (bin[:, None] == np.arange(edges.size - 1)).astype(float)


def _per_window(w: Windows, counts: Array) -> Stacked:
    return Stacked(counts, np.ones_like(counts))


# --------------------------------------------------------------------------------- statistics

#: Richness above which a catalogue is taken to miss no cluster: the SDSS holds as many as Tinker's
#: mass function asks for from about 40 on, and ever fewer below.
_RICH = np.array([40.0, 60.0, 500.0])

_LEVELS = np.array([0.05, 0.16, 0.50, 0.84, 0.95])
_MASSES = np.array([13.5, 13.7, 13.85, 14.0, 14.15, 14.3, 14.5, 14.8])
_DISTANCES = np.array([30.0, 110.0, 150.0, 180.0, 205.0, 230.0, 250.0])
_RADII = np.array([0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0])
_VELOCITIES = np.linspace(-2200.0, 2200.0, 12)
_SPEEDS = np.linspace(0.0, 2200.0, 9)
_FRACTIONS = np.array([0.0, 0.15, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0])
_ZONES = np.array([0.0, 1.0, 2.0])
#: Fewest members from which a centre is taken.
_CENTRE_MIN = 5
_SEPARATIONS = np.array([0.02, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0])


def _abundance(w: Windows) -> Prepared:
    return Summed(1e9 * _in_bins(w.richness.astype(float), _RICH))


#: Richness in which the scatter of dynamical masses is compared: rich enough that the catalogue's own
#: limit in mass, 10^13.57, cuts nothing off.
_RICH_ENOUGH = np.array([25.0, 40.0, 500.0])
_WITHIN = np.array([0.16, 0.50, 0.84])


def _velocity_by_richness(w: Windows) -> Prepared:
    groups = _in_bins(w.richness.astype(float), _RICH_ENOUGH).T > 0
    return QuantilesWithin(w.v200_km_s, _WITHIN, groups)


def _window_counts(w: Windows) -> Prepared:
    return Quantiles(w.counts.astype(float), _LEVELS)


def _counts_in(value: Callable[[Windows], Array], by: Callable[[Windows], Array], edges: Array):
    """Mean of a count in bins of a property of the cluster."""

    def prepare(w: Windows) -> Prepared:
        inside = _in_bins(by(w), edges)
        return Stacked(value(w)[:, None] * inside, inside)

    return prepare


def members_inside_r200(w: Windows) -> Array:
    """N(<R200): galaxies projected inside R200 and within 2 V200c, shape (n,)."""
    return np.bincount(w.cluster, _members(w), len(w)).astype(float)


def _surface_density(w: Windows) -> Prepared:
    counts = _histogram(w, _radius(w), _RADII, np.ones(len(w.points), bool))
    area = np.pi * np.diff(_RADII**2)
    return Stacked(counts, np.broadcast_to(area, counts.shape))


def _velocities(low_r200: float, high_r200: float):
    """Galaxies per window and bin of v in a ring between radii in R200."""

    def prepare(w: Windows) -> Prepared:
        r, r200 = _radius(w), w.r200_mpc_h[w.cluster]
        ring = (r >= low_r200 * r200) & (r < np.minimum(high_r200 * r200, R_MAX_MPC_H))
        return _per_window(w, _histogram(w, w.points[:, 2], _VELOCITIES, ring))

    return prepare


def _mean_velocity(w: Windows) -> Array:
    """Mean v of the members of each window, shape (n,); 0 without members."""
    member = _members(w)
    n = np.bincount(w.cluster, member, len(w))
    total = np.bincount(w.cluster, member * w.points[:, 2], len(w))
    return np.divide(total, n, out=np.zeros(len(w)), where=n > 0)


def _dispersions(w: Windows) -> Prepared:
    c = w.cluster
    v = w.points[:, 2] - _mean_velocity(w)[c]
    near = np.abs(v) < V_CUT_V200 * w.v200_km_s[c]
    near &= _radius(w) < R_MAX_MPC_H
    x = _radius(w) / w.r200_mpc_h[c]
    return Stacked(
        _histogram(w, x, _FRACTIONS, near, v**2), _histogram(w, x, _FRACTIONS, near), _root
    )


def _quadrupole(w: Windows) -> Prepared:
    c, r = w.cluster, _radius(w)
    near = (np.abs(w.points[:, 2]) < V_CUT_V200 * w.v200_km_s[c]) & (r < R_MAX_MPC_H)
    x = np.minimum(r / w.r200_mpc_h[c], 2.5)
    edges = np.append(_ZONES, 3.0)
    angle = 2 * np.arctan2(w.points[:, 1], w.points[:, 0])
    cosine = _histogram(w, x, edges, near, np.cos(angle))
    sine = _histogram(w, x, edges, near, np.sin(angle))
    n = _histogram(w, x, edges, near)
    # The sum over pairs i != j of cos 2(phi_i - phi_j): the galaxies' own terms, which are
    # the shot noise, are taken off.
    pairs = cosine**2 + sine**2 - n
    some = n >= 2
    return Stacked(
        np.divide(pairs, n - 1, out=np.zeros_like(n), where=some), np.where(some, n, 0.0), _root
    )


@numba.njit(cache=True, nogil=True)
def _pairs(points, offsets, edges, v_max, r_max):  # pragma: no cover - compiled
    """Pairs by projected separation, and those expected if angles were random, (n, k) each."""
    n, k = offsets.size - 1, edges.size - 1
    found, expected = np.zeros((n, k)), np.zeros((n, k))
    below = np.empty(k + 1)
    largest = edges[k]
    for c in range(n):
        cloud = points[offsets[c] : offsets[c + 1]]
        radius = np.sqrt(cloud[:, 0] ** 2 + cloud[:, 1] ** 2)
        order = np.argsort(radius)
        for a in range(order.size):
            i = order[a]
            ri = radius[i]
            if ri >= r_max:
                break
            for b in range(a + 1, order.size):
                j = order[b]
                rj = radius[j]
                # Radii ascend: from here on all are too far out.
                if rj >= r_max or rj - ri > largest:
                    break
                if abs(cloud[i, 2] - cloud[j, 2]) > v_max:
                    continue
                squared = (cloud[i, 0] - cloud[j, 0]) ** 2 + (cloud[i, 1] - cloud[j, 1]) ** 2
                for e in range(k + 1):
                    s = edges[e]
                    if s <= rj - ri:
                        below[e] = 0.0
                    elif s >= ri + rj:
                        below[e] = 1.0
                    else:
                        cosine = (ri * ri + rj * rj - s * s) / (2 * ri * rj)
                        below[e] = math.acos(min(max(cosine, -1.0), 1.0)) / math.pi
                for e in range(k):
                    expected[c, e] += below[e + 1] - below[e]
                    if edges[e] ** 2 <= squared < edges[e + 1] ** 2:
                        found[c, e] += 1
    return found, expected


def pair_counts(w: Windows) -> tuple[Array, Array]:
    """Pairs of galaxies by projected separation, found and expected, shape (n, k) each.

    Expected is the mean over all ways to turn each galaxy about the centre, keeping R and
    v: for two radii the distribution of their separation is known, so none is drawn.
    """
    return _pairs(
        np.ascontiguousarray(w.points, float), np.asarray(w.offsets, np.int64), _SEPARATIONS,
        PAIR_V_KM_S, R_MAX_MPC_H,
    )  # fmt: skip


def _clumpiness(w: Windows) -> Prepared:
    return Stacked(*pair_counts(w))


def _interlopers(w: Windows) -> Prepared:
    r = _radius(w)
    outside = (r >= w.r200_mpc_h[w.cluster]) & (r < R_MAX_MPC_H)
    counts = _histogram(w, np.abs(w.points[:, 2]), _SPEEDS, outside)
    area = np.pi * np.maximum(R_MAX_MPC_H**2 - w.r200_mpc_h**2, 0.0)
    return Stacked(counts, np.broadcast_to(area[:, None], counts.shape))


def _centres(w: Windows) -> Prepared:
    member, c = _members(w), w.cluster
    n = np.bincount(c, member, len(w))
    total = np.column_stack(
        [np.bincount(c, member * w.points[:, axis], len(w)) for axis in range(3)]
    )
    enough = (n >= _CENTRE_MIN).astype(float)[:, None] * np.ones(3)
    return Stacked(enough * (total / np.maximum(n, 1)[:, None]) ** 2, enough, _root)


def _statistic(name, title, coordinate, coordinate_unit, value, unit, edges, prepare, **more):
    edges = np.asarray(edges, float)
    return Statistic(
        name, title, coordinate, coordinate_unit, value, unit, edges[:-1], edges[1:], prepare,
        **more,
    )  # fmt: skip


_PROXY = "Proxy log₁₀ M₂₀₀"
_FAR = "Comoving distance"
_PER_BIN = "Galaxies per cluster and bin"

#: Every statistic of galaxies in windows, by name.
STATISTICS: dict[str, Statistic] = {
    s.name: s
    for s in (
        _statistic(
            "abundance", "Abundance of rich clusters", "Galaxies near the centre", "",
            "Clusters per volume", "h3/Gpc3", _RICH, _abundance, log=(True, True), absolute=True,
        ),
        Statistic(
            "window_counts", "Galaxies per window", "Quantile", "", "Galaxies in the window", "",
            _LEVELS, _LEVELS, _window_counts, labels=tuple(f"p{100 * q:.0f}" for q in _LEVELS),
        ),
        _statistic(
            "members_by_mass", "Galaxies inside R200 by mass", _PROXY, "log10(Msun/h)", "N(<R₂₀₀)",
            "", _MASSES, _counts_in(members_inside_r200, lambda w: w.log10_m200, _MASSES),
            log=(False, True),
        ),
        Statistic(
            "velocity_by_richness", "Dynamical mass at fixed richness", "Galaxies near the centre",
            "", "V₂₀₀ of the proxy mass", "km/s", np.repeat(_RICH_ENOUGH[:-1], _WITHIN.size),
            np.repeat(_RICH_ENOUGH[1:], _WITHIN.size), _velocity_by_richness,
            labels=tuple(
                f"p{100 * q:.0f} of {a:g}-{b:g}"
                for a, b in pairwise(_RICH_ENOUGH.tolist()) for q in _WITHIN
            ),
        ),
        _statistic(
            "members_by_distance", "Galaxies inside R200 by distance", _FAR, "Mpc/h", "N(<R₂₀₀)",
            "", _DISTANCES, _counts_in(members_inside_r200, lambda w: w.distance_mpc_h, _DISTANCES),
        ),
        _statistic(
            "window_by_distance", "Galaxies per window by distance", _FAR, "Mpc/h",
            "Galaxies in the window", "", _DISTANCES,
            _counts_in(lambda w: w.counts.astype(float), lambda w: w.distance_mpc_h, _DISTANCES),
        ),
        _statistic(
            "surface_density", "Surface density", "R", "Mpc/h", "Galaxies per area", "h2/Mpc2",
            _RADII, _surface_density, log=(True, True),
        ),
        _statistic(
            "velocities_inside", "Velocities inside R200", "v", "km/s", _PER_BIN, "", _VELOCITIES,
            _velocities(0, 1),
        ),
        _statistic(
            "velocities_around", "Velocities at 1–2 R200", "v", "km/s", _PER_BIN, "", _VELOCITIES,
            _velocities(1, 2),
        ),
        _statistic(
            "velocities_beyond", "Velocities beyond 2 R200", "v", "km/s", _PER_BIN, "", _VELOCITIES,
            _velocities(2, np.inf),
        ),
        _statistic(
            "dispersions", "Velocity dispersion profile", "R/R₂₀₀", "",
            "Dispersion within 2 V₂₀₀", "km/s", _FRACTIONS, _dispersions,
        ),
        Statistic(
            "quadrupole", "Asymmetry of the window", "R/R₂₀₀", "", "Quadrupole amplitude", "",
            _ZONES, np.append(_ZONES[1:], np.inf), _quadrupole,
            labels=("inside R200", "1-2 R200", "beyond 2 R200"),
        ),
        _statistic(
            "clumpiness", "Clumpiness", "Projected separation", "Mpc/h",
            "Pairs over pairs at random angles", "", _SEPARATIONS, _clumpiness, log=(True, False),
        ),
        _statistic(
            "interlopers", "Galaxies outside R200 by velocity", "|v|", "km/s", "Galaxies per area",
            "h2/Mpc2", _SPEEDS, _interlopers,
        ),
        Statistic(
            "centres", "Errors of the centre", "Axis", "", "Rms offset of the members", "",
            np.arange(3.0), np.arange(3.0) + 1, _centres, labels=("x", "y", "v"),
            units=("Mpc/h", "Mpc/h", "km/s"),
        ),
    )
}  # fmt: skip


def bootstrap_weights(w: Windows, rounds: int, rng: np.random.Generator) -> Array:
    """Weights (rounds, n) of resamples of groups with replacement, times the windows' own."""
    used = w.weight > 0
    _, group = np.unique(np.where(used, w.group, -1), return_inverse=True)
    first = 0 if used.all() else 1  # group 0 collects what does not count
    n = int(group.max()) + 1 - first
    repeats = np.zeros((rounds, n + first))
    repeats[:, first:] = rng.multinomial(n, np.full(n, 1 / n), rounds)
    return repeats[:, group] * w.weight


#: Names of the statistics that mocks are matched to the survey for, and of the others.
RELATIVE = tuple(n for n, s in STATISTICS.items() if not s.absolute)
ABSOLUTE = tuple(n for n, s in STATISTICS.items() if s.absolute)


def measure(
    w: Windows, rounds: int, rng: np.random.Generator, names: tuple[str, ...] = tuple(STATISTICS)
) -> dict[str, tuple[Array, Array]]:
    """Values (k,) and bootstrap samples (rounds, k) of statistics.

    Relative ones are taken at the windows' weights, absolute ones at their densities.
    """
    drawn = {}
    for absolute in {STATISTICS[name].absolute for name in names}:
        one = w.with_weight(w.density_h3_mpc3) if absolute else w
        drawn[absolute] = np.vstack([one.weight, bootstrap_weights(one, rounds, rng)])
    out = {}
    for name in names:
        values = STATISTICS[name].prepare(w).at(drawn[STATISTICS[name].absolute])
        out[name] = values[0], values[1:]
    return out


def bootstrap_error(rounds: Array) -> Array:
    """Standard deviations (k,) of resamples (rounds, k).

    NaN where a tenth of the resamples has no value: there are fewer than three clusters.
    """
    known = np.isfinite(rounds)
    enough = known.mean(axis=0) >= 0.9
    filled = np.where(known, rounds, 0.0)
    n = np.maximum(known.sum(axis=0), 2)
    mean = filled.sum(axis=0) / n
    variance = np.where(known, (rounds - mean) ** 2, 0.0).sum(axis=0) / (n - 1)
    return np.where(enough, np.sqrt(variance), np.nan)
