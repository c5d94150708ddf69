"""How GalWeight weighs a cluster, imitated on the galaxies of a window.

GalWCat19 (Abdullah+2020) finds members by their place in phase space, applies the virial
estimator with the surface-pressure term to them, fits an NFW profile to the masses within
each radius and reads off where it encloses 200 critical densities. Here the same is done
on the galaxies of one window, with a velocity cut that falls with radius in place of
GalWeight's contour. The few numbers that GalWeight's papers leave open (the cut, the
apertures, the zero point) are set so that GalWCat19's own masses come out
(`fit_zero_point`, docs/science.md); no network mass is involved. The same function runs on
the sky and on mocks, so that both are weighed alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmass.cosmology import GRAVITY_MPC_KM2_S2_MSUN, Cosmology
from cmass.errors import InputError
from cmass.params import GalweightParams

Array = NDArray[np.float64]

#: Why a cluster has no mass; the place in the list is `Dynamics.reason`.
REASONS = ("measured", "too few members", "no redshift", "members without dispersion or extent")
_CLIPS = 20
_G = GRAVITY_MPC_KM2_S2_MSUN


@dataclass(frozen=True)
class Dynamics:
    """Virial masses of n windows, as GalWeight would give them.

    Attributes
    ----------
    log10_m200 : ndarray, shape (n,)
        log10 M200 in h⁻¹ M☉ (200 critical densities); NaN where not measured.
    r200_mpc_h : ndarray, shape (n,)
        Its radius, proper h⁻¹ Mpc.
    sigma_km_s : ndarray, shape (n,)
        Velocity dispersion of the members inside the aperture, km/s.
    n_members : ndarray of int, shape (n,)
        Members projected inside R200.
    reason : ndarray of int8, shape (n,)
        Place in `REASONS`: 0 where the mass is measured.
    """

    log10_m200: Array
    r200_mpc_h: Array
    sigma_km_s: Array
    n_members: NDArray[np.int64]
    reason: NDArray[np.int8]


@numba.njit(cache=True, nogil=True)
def _nfw(x):  # pragma: no cover - compiled
    return math.log1p(x) - x / (1.0 + x)


@numba.njit(cache=True, nogil=True)
def _clip(radius, v, aperture, cut, start, floor):  # pragma: no cover - compiled
    """Mean and dispersion inside the aperture, clipped at cut x dispersion until it stays."""
    centre, sigma, n = 0.0, start, 0
    for _ in range(_CLIPS):
        n, total, square = 0, 0.0, 0.0
        limit = max(sigma, floor)
        for i in range(v.size):
            if radius[i] < aperture and abs(v[i] - centre) < cut[i] * limit:
                n += 1
                total += v[i]
                square += v[i] * v[i]
        if n < 3:
            return centre, sigma, n
        centre = total / n
        new = math.sqrt(max(square / n - centre * centre, 0.0) * n / (n - 1))
        if abs(new - sigma) < 0.5:
            return centre, new, n
        sigma = new
    return centre, sigma, n


@numba.njit(cache=True, nogil=True)
def _virial_profile(x, y, v, softening):  # pragma: no cover - compiled
    """Virial mass of the first 1, 2, … members (Heisler+1985); ascending in radius.

    M = (3 pi / 2 G) N sum (v - <v>)² / sum_{i<j} 1/R_ij, with N - 1 for the mean's freedom.
    """
    mass = np.zeros(v.size)
    total = square = inverse = 0.0
    for i in range(v.size):
        total += v[i]
        square += v[i] * v[i]
        for j in range(i):
            inverse += 1.0 / math.sqrt(
                (x[i] - x[j]) ** 2 + (y[i] - y[j]) ** 2 + softening * softening
            )
        if i > 0:
            n = i + 1.0
            variance = max(square - total * total / n, 0.0) / (n - 1.0)
            mass[i] = 1.5 * math.pi / _G * variance * n * (n - 1.0) / inverse
    return mass


@numba.njit(cache=True, nogil=True)
def _log_r200(radius, mass, first, c, density):  # pragma: no cover - compiled
    """ln R200 of the NFW profile of concentration c through the masses, weighted by count.

    The surface term S = (x/(1+x))² / m(x) / 3 (The & White 1986, isotropic NFW, x = R/r_s)
    and the profile depend on r_s = R200/c, so R200 is found by iteration.
    """
    log_r = 0.0
    for _ in range(100):
        rs = math.exp(log_r) / c
        total = weight = 0.0
        for i in range(first, radius.size):
            x = max(radius[i], 1e-3) / rs
            surface = (x / (1.0 + x)) ** 2 / _nfw(x) / 3.0
            total += (i + 1.0) * math.log(mass[i] * (1.0 - surface) / _nfw(x))
            weight += i + 1.0
        # Mass inside R200 as the profile has it, against 200 critical densities.
        wanted = math.log(density * math.exp(3.0 * log_r))
        step = 0.4 * (total / weight + math.log(_nfw(c)) - wanted)
        log_r += step
        if abs(step) < 1e-6:
            break
    return log_r


@numba.njit(cache=True, nogil=True)
def _weigh(points, offsets, density, how, n_min, out, n_members, reason):  # pragma: no cover
    aperture, outer, inner, centre_cut, slope, least, start, floor, softening, c, zero = how
    for k in range(offsets.size - 1):
        p = points[offsets[k] : offsets[k + 1]]
        if not math.isfinite(density[k]):
            reason[k] = 2
            continue
        radius = np.sqrt(p[:, 0] ** 2 + p[:, 1] ** 2)
        cut = np.maximum(centre_cut - slope * radius, least)
        centre, sigma, n = _clip(radius, p[:, 2], aperture, cut, start, floor)
        if n < n_min:
            reason[k] = 1
            continue
        member = np.abs(p[:, 2] - centre) < cut * max(sigma, floor)
        own = np.flatnonzero(member & (radius < outer))
        own = own[np.argsort(radius[own])]
        mass = _virial_profile(p[own, 0], p[own, 1], p[own, 2], softening)
        r = radius[own]
        first = min(max(n_min - 1, np.searchsorted(r, inner)), own.size - 1)
        if sigma <= 0.0 or mass[first:].min() <= 0.0 or r[-1] <= 0.0:
            reason[k] = 3
            continue
        log_r = _log_r200(r, mass, first, c, density[k]) + zero * math.log(10.0) / 3.0
        out[k, 0] = math.log10(density[k]) + 3.0 * log_r / math.log(10.0)
        out[k, 1] = math.exp(log_r)
        out[k, 2] = sigma
        n_members[k] = (member & (radius < out[k, 1])).sum()


def virial_masses(
    points: ArrayLike, offsets: ArrayLike, z: ArrayLike, cosmology: Cosmology,
    how: GalweightParams | None = None,
) -> Dynamics:  # fmt: skip
    """Weigh clusters as GalWeight does, from the galaxies in their windows.

    Parameters
    ----------
    points : array_like, shape (n_points, 3)
        x, y (proper h⁻¹ Mpc) and v (km/s) with respect to the catalogue's centre, one
        cluster after the other.
    offsets : array_like of int, shape (n + 1,)
        Where each cluster begins in `points`.
    z : array_like, shape (n,)
        Redshifts; NaN gives no mass.
    cosmology : Cosmology
        Its H(z), with h = 1: M200 = 100 H(z)² R200³ / G.
    how : GalweightParams, optional
        Apertures, velocity cut and zero point; by default the ones that fit GalWCat19.

    Returns
    -------
    Dynamics

    Raises
    ------
    InputError
        Shapes that do not fit, or a galaxy with a value that is not finite.
    """
    how = how or GalweightParams()
    cloud = np.ascontiguousarray(points, float).reshape(-1, 3)
    begins = np.ascontiguousarray(offsets, np.int64)
    redshift = np.asarray(z, float)
    n = redshift.size
    if begins.shape != (n + 1,) or begins[0] != 0 or begins[-1] != len(cloud):
        raise InputError(
            f"{n} redshifts, {begins.size} offsets that end at "
            f"{begins[-1] if begins.size else 'nothing'}, and {len(cloud)} galaxies do not fit"
        )
    bad = ~np.isfinite(cloud).all(axis=1)
    if bad.any():
        raise InputError("a galaxy's place is not finite", row=int(np.flatnonzero(bad)[0]))
    density = 100 * (100 * cosmology.e(redshift)) ** 2 / _G
    numbers = (
        how.aperture_mpc_h, how.outer_mpc_h, how.inner_mpc_h, how.cut_centre_sigma,
        how.cut_slope_sigma, how.cut_min_sigma, how.start_km_s, how.floor_km_s,
        how.softening_mpc_h, how.concentration, how.zero_point_dex,
    )  # fmt: skip
    out = np.full((n, 3), np.nan)
    members, reason = np.zeros(n, np.int64), np.zeros(n, np.int8)
    _weigh(cloud, begins, density, numbers, how.n_members_min, out, members, reason)
    return Dynamics(out[:, 0], out[:, 1], out[:, 2], members, reason)
