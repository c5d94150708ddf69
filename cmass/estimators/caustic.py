"""The caustic method: mass from the escape velocity, read off the edges of a cluster in (R, v).

After Diaferio (1999, MNRAS 309, 610) and Serra et al. (2011, MNRAS 412, 800), with the choices of
their implementation CausticSNUpy 1.0.4, which does not run with NumPy 2.4 and takes seconds a
cluster; the tests hold each stage of this one to it.

1. The density of galaxies in (H0 R, v/q) is estimated with an adaptive triweight kernel, mirrored
   at R = 0, whose width minimises an estimate of the integrated squared error.
2. Where the density falls to κ lie the caustics; their amplitude is A(R), the smaller of the two
   velocities. κ is the level at which the escape velocity, <A²> weighted by density inside the mean
   radius of the members, is four times their velocity dispersion squared.
3. G M(<r) = F_β ∫ A² dr, with F_β = 0.7, read where it encloses 200 critical densities.

The centre is the catalogue's, so that the binary tree by which the original finds centre and
candidate members is not needed: members are those of the clipped dispersion. A power law between
caustic and true mass, fitted on the training mocks, takes out F_β and what projection does to it.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numba
import numpy as np
from numpy.typing import NDArray

from cmass import cosmology
from cmass.cosmology import GRAVITY_MPC_KM2_S2_MSUN
from cmass.errors import TooFewMocksError
from cmass.estimators import PointEstimator
from cmass.estimators.dispersion import clipped_sigma_km_s
from cmass.estimators.windows import Sets, Windows
from cmass.params import CausticParams
from cmass.tables import read_json, write_json

Array = NDArray[np.float64]

#: H0 that turns h⁻¹ Mpc into km/s, so that both axes of the density have one unit.
_H0 = 100.0
#: Serra+2011, eq. 20.
_H_OPT = 6.24
#: Search for the kernel's width: first value and step, in optimal widths, and steps at most.
_WIDTH_START, _WIDTH_STEP, _WIDTH_STEPS = 0.005, 0.01, 155
#: Levels that the search for κ tries, up to the peak of the density.
_LEVELS = 101
#: Where d ln A / d ln R exceeds the limit, A grows with this slope instead (Serra+2011, 4.3).
_NEW_SLOPE = 0.25


@numba.njit(cache=True, nogil=True)
def _spread(x, y, h, xs, ys, skip):  # pragma: no cover - compiled
    """Sum of mirrored triweight kernels on a grid (ys, xs), not divided by 2N."""
    out = np.zeros((ys.size, xs.size))
    dx, dy = xs[1] - xs[0], ys[1] - ys[0]
    for i in range(x.size):
        if i == skip:
            continue
        norm = 4.0 / math.pi / h[i] ** 2
        low_y = max(0, math.ceil((y[i] - h[i] - ys[0]) / dy))
        high_y = min(ys.size - 1, math.floor((y[i] + h[i] - ys[0]) / dy))
        for side in (1.0, -1.0):
            centre = side * x[i]
            low_x = max(0, math.ceil((centre - h[i] - xs[0]) / dx))
            high_x = min(xs.size - 1, math.floor((centre + h[i] - xs[0]) / dx))
            for k in range(low_y, high_y + 1):
                b = ((ys[k] - y[i]) / h[i]) ** 2
                for j in range(low_x, high_x + 1):
                    rest = 1.0 - ((xs[j] - centre) / h[i]) ** 2 - b
                    if rest > 0:
                        out[k, j] += norm * rest**3
    return out


@numba.njit(cache=True, nogil=True)
def _at_galaxies(x, y, h, own):  # pragma: no cover - compiled
    """Kernel sums at the galaxies themselves, not divided; `own`: with each one's own kernel."""
    n = x.size
    out = np.zeros(n)
    for i in range(n):
        for j in range(n):
            if i == j and not own:
                continue
            b = ((y[i] - y[j]) / h[j]) ** 2
            norm = 4.0 / math.pi / h[j] ** 2
            for side in (1.0, -1.0):
                rest = 1.0 - ((x[i] - side * x[j]) / h[j]) ** 2 - b
                if rest > 0:
                    out[i] += norm * rest**3
    return out


@numba.njit(cache=True, nogil=True)
def _trapezoid_2d(values, dx, dy):  # pragma: no cover - compiled
    total = values.sum()
    total -= 0.5 * (values[0].sum() + values[-1].sum() + values[:, 0].sum() + values[:, -1].sum())
    total += 0.25 * (values[0, 0] + values[0, -1] + values[-1, 0] + values[-1, -1])
    return total * dx * dy


@numba.njit(cache=True, nogil=True)
def _vertex(x, y):  # pragma: no cover - compiled
    """Abscissa of the parabola through three points of equal distance."""
    bend = y[0] - 2 * y[1] + y[2]
    return x[1] + 0.5 * (x[1] - x[0]) * (y[0] - y[2]) / bend


@numba.njit(cache=True, nogil=True)
def _widths(x, y, cells):  # pragma: no cover - compiled
    """Kernel width of each galaxy; the last element is the factor found, NaN for none."""
    n = x.size
    h_opt = _H_OPT / n ** (1 / 6) * math.sqrt(0.5 * (np.var(x) + np.var(y)))
    out = np.full(n + 1, np.nan)
    if not h_opt > 0:
        return out
    pilot = _at_galaxies(x, y, np.full(n, h_opt), True) / (2 * n)
    local = np.sqrt(np.exp(np.log(pilot).mean()) / pilot) * h_opt
    factors, costs = np.zeros(3), np.zeros(3)
    for step in range(_WIDTH_STEPS):
        factor = _WIDTH_START + step * _WIDTH_STEP
        h = factor * local
        xs = np.linspace(0.0, (x + h).max(), cells)
        ys = np.linspace((y - h).min(), (y + h).max(), cells)
        density = _spread(x, y, h, xs, ys, -1) / (2 * n)
        cost = _trapezoid_2d(density**2, xs[1] - xs[0], ys[1] - ys[0])
        cost -= 2.0 / n * _at_galaxies(x, y, h, False).sum() / (2 * (n - 1))
        factors[:2], costs[:2] = factors[1:], costs[1:]
        factors[2], costs[2] = factor, cost
        if step >= 2 and costs[2] > costs[1]:
            best = _vertex(factors, costs)
            out[:n], out[n] = best * local, best
            return out
    return out


@numba.njit(cache=True, nogil=True)
def _edge(column, level, speeds, start, step):  # pragma: no cover - compiled
    """|v| at which the density falls below `level` on the way out from the middle; 0 for never above.

    Holes about v = 0 are passed over.
    """
    above = column[start] >= level
    k = start
    while 0 <= k + step < speeds.size:
        a, b = column[k] - level, column[k + step] - level
        if b >= 0:
            above = True
        elif above:
            return abs(speeds[k] + (speeds[k + step] - speeds[k]) * a / (a - b))
        k += step
    return abs(speeds[k]) if above else 0.0


@numba.njit(cache=True, nogil=True)
def _amplitude(density, level, radii, speeds, slope_max):  # pragma: no cover - compiled
    """A(R): the smaller |v| at which the density falls to `level`; 0 beyond the caustics' end."""
    out = np.zeros(radii.size)
    middle = speeds.size // 2
    begun = False
    for j in range(radii.size):
        column = density[:, j]
        out[j] = min(
            _edge(column, level, speeds, middle - 1, 1), _edge(column, level, speeds, middle, -1)
        )
        if out[j] > 0:
            begun = True
        elif begun:
            break
    for j in range(1, radii.size - 1):
        if out[j] > 0 and out[j + 1] > 0:
            slope = radii[j] / out[j] * (out[j + 1] - out[j]) / (radii[j + 1] - radii[j])
            if slope > slope_max:
                out[j + 1] = out[j] * (radii[j + 1] / radii[j]) ** _NEW_SLOPE
    return out


@numba.njit(cache=True, nogil=True)
def _imbalance(density, level, radii, speeds, mean_radius, variance, slope_max):  # pragma: no cover
    """|<v_esc²> - 4 <v²>| at a level; infinite where nothing is inside the caustics."""
    amplitude = _amplitude(density, level, radii, speeds, slope_max)
    dv = speeds[1] - speeds[0]
    weights, escape, last = 0.0, 0.0, -1
    phi = np.zeros(radii.size)
    for j in range(radii.size):
        if radii[j] >= mean_radius:
            break
        last = j
        before = -1.0
        for k in range(speeds.size):
            if abs(speeds[k]) < amplitude[j]:
                if before >= 0:
                    phi[j] += 0.5 * (before + density[k, j]) * dv
                before = density[k, j]
    for j in range(last):
        step = 0.5 * (radii[j + 1] - radii[j])
        weights += step * (phi[j] + phi[j + 1])
        escape += step * (amplitude[j] ** 2 * phi[j] + amplitude[j + 1] ** 2 * phi[j + 1])
    if weights <= 0:
        return np.inf
    return abs(escape / weights - 4 * variance)


@numba.njit(cache=True, nogil=True)
def _level(density, radii, speeds, mean_radius, variance, slope_max):  # pragma: no cover
    """κ: the first minimum of the imbalance on the way up from zero; NaN for none."""
    step = density.max() / _LEVELS
    levels, costs = np.zeros(3), np.zeros(3)
    falling = False
    for number in range(_LEVELS):
        levels[:2], costs[:2] = levels[1:], costs[1:]
        levels[2] = number * step
        costs[2] = _imbalance(density, levels[2], radii, speeds, mean_radius, variance, slope_max)
        if number >= 1:
            if number >= 2 and falling and costs[2] > costs[1]:
                # An infinite neighbour leaves no parabola: the level in the middle stands.
                return _vertex(levels, costs) if np.isfinite(costs).all() else levels[1]
            if costs[2] <= costs[1]:
                falling = True
    return np.nan


@numba.njit(cache=True, nogil=True)
def _profile(
    cloud, mean_radius, sigma, r_max, v_max, q, smoothing, filling, slope_max, cells
):  # pragma: no cover
    """Radii and enclosed masses (h⁻¹ M☉) of one cluster; masses are NaN where it has no caustics."""
    radii = np.linspace(0.0, r_max, cells)
    mass = np.full(cells, np.nan)
    radius = np.sqrt(cloud[:, 0] ** 2 + cloud[:, 1] ** 2)
    inside = (radius < r_max) & (np.abs(cloud[:, 2]) < v_max)
    x, y = radius[inside] * _H0, cloud[inside, 2] / q
    if x.size < 4:
        return radii, mass
    h = _widths(x, y, cells)
    if not h[-1] > 0:
        return radii, mass
    h *= smoothing
    speeds = np.linspace(-v_max, v_max, cells)
    density = _spread(x, y, h[:-1], radii * _H0, speeds / q, -1) / (2 * x.size) * _H0 / q * 2
    level = _level(density, radii, speeds, mean_radius, sigma**2, slope_max)
    if np.isnan(level):
        return radii, mass
    amplitude = _amplitude(density, level, radii, speeds, slope_max)
    total = 0.0
    mass[0] = 0.0
    for j in range(1, cells):
        step = 0.5 * (radii[j] - radii[j - 1])
        total += step * (amplitude[j] ** 2 + amplitude[j - 1] ** 2)
        mass[j] = filling * total / GRAVITY_MPC_KM2_S2_MSUN
    return radii, mass


@numba.njit(cache=True, nogil=True)
def _overdensity_mass(radii, mass, density):  # pragma: no cover - compiled
    """Mass inside the radius of a mean `density`, from the inside out; NaN where there is none."""
    before = 0.0
    for j in range(1, radii.size):
        if np.isnan(mass[j]) or mass[j] <= 0:
            return np.nan
        wanted = 4.0 / 3.0 * math.pi * radii[j] ** 3 * density
        now = math.log(mass[j] / wanted)
        if now < 0:
            if j == 1:
                return np.nan
            part = before / (before - now)
            a, b = math.log(mass[j - 1]), math.log(mass[j])
            return math.exp(a + part * (b - a))
        before = now
    return np.nan


@numba.njit(cache=True, nogil=True)
def _masses(points, offsets, sigma, density, aperture, clip, r_max, v_max, q, smoothing, filling, slope_max, cells):  # pragma: no cover  # fmt: skip
    n = offsets.size - 1
    out = np.full(n, np.nan)
    for c in range(n):
        if not sigma[c] > 0 or not density[c] > 0:
            continue
        cloud = points[offsets[c] : offsets[c + 1]].copy()
        radius = np.sqrt(cloud[:, 0] ** 2 + cloud[:, 1] ** 2)
        near = radius <= aperture
        middle = np.median(cloud[near, 2])
        member = near & (np.abs(cloud[:, 2] - middle) <= clip * sigma[c])
        if member.sum() < 1:
            continue
        cloud[:, 2] -= cloud[member, 2].mean()
        radii, mass = _profile(cloud, radius[member].mean(), sigma[c], r_max, v_max, q, smoothing, filling,
                               slope_max, cells)  # fmt: skip
        out[c] = _overdensity_mass(radii, mass, density[c])
    return out


#: Clusters that a thread takes at once.
_CLUSTERS_AT_ONCE = 100


class Caustic(PointEstimator):
    """Mass inside 200 critical densities by the caustic method, rescaled by a power law."""

    name: ClassVar[str] = "caustic"
    title: ClassVar[str] = "caustics"
    reads: ClassVar[str] = "projected radii and velocities"
    seeded: ClassVar[bool] = False
    sources: ClassVar[tuple[str, ...]] = ("estimators/dispersion.py",)

    _relation: tuple[float, float]

    def caustic_mass(self, windows: Windows) -> Array:
        """M200c by the caustics alone, h⁻¹ M☉, shape (n,); NaN where they give none."""
        how, evaluate, window = self.params.rivals.caustic, self.params.evaluate, self.params.window
        sigma = clipped_sigma_km_s(
            windows.points, windows.offsets, clip=evaluate.clip_sigma,
            aperture_mpc_h=evaluate.aperture_mpc_h,
        )  # fmt: skip
        density = 200 * cosmology.from_params(self.params.cosmology).critical_density(windows.z)
        points = np.ascontiguousarray(windows.points, float)

        def part(rows: Array) -> Array:
            a, b = rows[0], rows[-1] + 1
            return _masses(
                points, windows.offsets[a : b + 1], sigma[a:b], density[a:b],
                evaluate.aperture_mpc_h, evaluate.clip_sigma, window.half_width_mpc_h,
                window.v_max_km_s, *_numbers(how),
            )  # fmt: skip

        if not len(windows):
            return np.empty(0)
        parts = np.array_split(np.arange(len(windows)), -(-len(windows) // _CLUSTERS_AT_ONCE))
        with ThreadPoolExecutor(self.params.workers) as pool:  # compiled code without the lock
            return np.concatenate([*pool.map(part, parts)])

    def fit_point(self, sets: Sets, work: Path) -> None:
        """Fit the power law between caustic and true mass on training and validation mocks."""
        parts = (sets.train, sets.validation)
        raw = np.concatenate([np.log10(self.caustic_mass(w)) for w in parts])
        true = np.concatenate([w.log10_m200c_true for w in parts])
        known = np.isfinite(raw)
        if known.sum() < 10:
            raise TooFewMocksError(f"a caustic relation needs 10 masses, {known.sum()} are there")
        slope, intercept = np.polyfit(raw[known] - 14, true[known], 1)
        self._relation = float(intercept), float(slope)

    def point(self, windows: Windows) -> Array:
        """log10 M200c by the power law; NaN where the caustics give no mass."""
        intercept, slope = self._relation
        return intercept + slope * (np.log10(self.caustic_mass(windows)) - 14)

    @property
    def n_parameters(self) -> int:
        """Intercept and slope of the power law."""
        return 2

    def save_point(self, folder: Path) -> None:
        """Write ``caustic.json``."""
        names = ("log10_m200c_at_1e14", "slope")
        write_json(folder / "caustic.json", dict(zip(names, self._relation, strict=True)))

    def load_point(self, folder: Path) -> None:
        """Read ``caustic.json``."""
        values = read_json(folder / "caustic.json")
        self._relation = values["log10_m200c_at_1e14"], values["slope"]


def _numbers(how: CausticParams) -> tuple[float, float, float, float, int]:
    return how.q, how.smoothing, how.filling, how.slope_max, how.cells
