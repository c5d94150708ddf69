"""How deep a survey is beside the mocks: from magnitudes, or from galaxies in the outskirts of windows.

A survey that shows more or fewer galaxies of the same cluster and its surroundings than the mocks do
gets other masses. One window says little of that (neighbours differ by half); a list of them says it to a
tenth of a magnitude.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from cmass import cosmology as background
from cmass.mock import luminosity
from cmass.oddity.space import SUMMARIES
from cmass.params import CosmologyParams, GalaxyParams

Array = NDArray[np.float64]

#: Where the polynomial of counts is centred: redshift, dispersion in km/s.
_PIVOT_Z, _PIVOT_KM_S = 0.06, 500.0
#: Fewest mocks whose counts make a scale.
_FEWEST_MOCKS = 60
#: Limits that are looked for, mag from that of the mocks.
_REACH_MAG = 5.0
#: Where ln(count) rises by less per magnitude, galaxies tell no depth: luminosity functions end.
_FLAT = 0.1
#: The mass distribution of a list and the scaling by a luminosity function leave this, mag: lists that
#: the simulator made of limits 17, 17.77 and 19 come out at 17.13, 17.81 and 18.87 (docs/science.md).
SYSTEMATIC_MAG = 0.1
#: Standard error of a median over that of a mean, for a normal distribution.
_MEDIAN_ERROR = np.sqrt(np.pi / 2)
#: Magnitudes on either side of an edge that are compared, and steps of places tried.
_EDGE_MAG, _EDGE_STEP_MAG = 0.3, 0.02
#: Fewest magnitudes that have an edge, and least part of the galaxies that must have one.
_FEWEST_MAGNITUDES, _LEAST_PART = 100, 0.5


@dataclass(frozen=True)
class Depth:
    """Limit of a survey in apparent r.

    Attributes
    ----------
    limit_mag, error_mag : float
    how : str
        ``magnitudes``, ``counts`` or ``as said``.
    n : int
        Galaxies or clusters it was measured on.
    """

    limit_mag: float
    error_mag: float
    how: str
    n: int

    def differs(self, limit_mag: float, tolerance_mag: float) -> bool:
        """Whether it is another depth than `limit_mag`, by more than the tolerance and 3 sigma."""
        difference = abs(self.limit_mag - limit_mag)
        return difference > tolerance_mag and difference > 3 * self.error_mag


def faint_edge(r_mag: ArrayLike) -> Depth | None:
    """Limit of a flux-limited survey: where the number of galaxies falls most.

    The faintest galaxy would not do: surveys hold some from other programmes.

    Parameters
    ----------
    r_mag : array_like, shape (n,)
        Apparent r of all galaxies, NaN where it is not known.

    Returns
    -------
    Depth or None
        None where fewer than half of the galaxies, or fewer than 100, have a magnitude.
    """
    every = np.asarray(r_mag, float)
    known = np.sort(every[np.isfinite(every)])
    if known.size < max(_FEWEST_MAGNITUDES, _LEAST_PART * every.size):
        return None
    at = np.arange(np.quantile(known, 0.02), known[-1] + _EDGE_STEP_MAG, _EDGE_STEP_MAG)
    below, above = (
        np.abs(np.searchsorted(known, at + side * _EDGE_MAG, "right") - np.searchsorted(known, at, "right"))
        for side in (-1, 1)
    )  # fmt: skip
    fall = (below - above) / np.sqrt(np.maximum(below + above, 1.0))
    best = fall >= 0.98 * fall.max()
    return Depth(float(at[best].mean()), _EDGE_STEP_MAG, "magnitudes", int(known.size))


@dataclass(frozen=True)
class CountScale:
    """Galaxies that the mocks show in the outskirts of a window, by redshift and dispersion.

    Attributes
    ----------
    coefficients : ndarray, shape (6,)
        Of ln(1 + count) in 1, x, x², x³, s, s x; x = ln(z/0.06), s = log10(sigma/500 km/s).
    scatter : float
        Of ln(1 + count) about it, by windows.
    n_mocks : int
    z : tuple of float
        Redshifts of the mocks.
    galaxies : GalaxyParams
        Of the mocks, with their flux limit.
    cosmology : CosmologyParams
    """

    coefficients: Array
    scatter: float
    n_mocks: int
    z: tuple[float, float]
    galaxies: GalaxyParams
    cosmology: CosmologyParams

    @classmethod
    def fit(
        cls, plain: Array, galaxies: GalaxyParams, cosmology: CosmologyParams
    ) -> CountScale | None:
        """Scale of mocks; None of too few of them.

        Parameters
        ----------
        plain : ndarray, shape (n, 8)
            `cmass.oddity.space.summaries` of mocks.
        galaxies, cosmology : parameters
            That the mocks were made with.
        """
        z, sigma, counts = _columns(plain)
        known = np.isfinite(z) & np.isfinite(sigma) & np.isfinite(counts)
        if known.sum() < _FEWEST_MOCKS:
            return None
        z, design, y = z[known], _design(z[known], sigma[known]), counts[known]
        coefficients = np.asarray(np.linalg.lstsq(design, y, rcond=None)[0], float)
        scatter = float((y - design @ coefficients).std(ddof=design.shape[1]))
        return cls(
            coefficients, scatter, int(known.sum()), (float(z.min()), float(z.max())), galaxies,
            cosmology,
        )  # fmt: skip

    def depth(self, plain: Array) -> Depth | None:
        """Flux limit at which mocks would show as many galaxies as a list's windows do.

        Counts change with the limit as the luminosity function says; the median window decides.

        Parameters
        ----------
        plain : ndarray, shape (n, 8)
            `cmass.oddity.space.summaries` of the windows.

        Returns
        -------
        Depth or None
            None where no window lies at a redshift of the mocks.
        """
        z, sigma, counts = _columns(plain)
        near = (z >= self.z[0]) & (z <= self.z[1]) & np.isfinite(sigma) & np.isfinite(counts)
        if not near.any():
            return None
        z = z[near]
        excess = counts[near] - _design(z, sigma[near]) @ self.coefficients
        limit = self.galaxies.flux_limit_mag
        reference = self._ln_density(z, limit)

        def left(tried: float) -> float:
            return float(np.median(excess - self._ln_density(z, tried) + reference))

        tried = limit + np.arange(-_REACH_MAG, _REACH_MAG + 0.01, 0.25)
        values = np.array([left(one) for one in tried])
        falling = np.flatnonzero(np.diff(values) < -_FLAT * 0.25)
        low, high = tried[falling[0]], tried[falling[-1] + 1]
        if not left(low) > 0 > left(high):
            # Beyond what luminosity functions reach: shallower or deeper than this, at least.
            found = float(low if left(low) <= 0 else high)
            per_mag = (left(low) - left(high)) / (high - low)
        else:
            found = float(brentq(left, low, high, xtol=1e-3))
            per_mag = max((left(found - 0.25) - left(found + 0.25)) / 0.5, _FLAT)
        variance = (_MEDIAN_ERROR * self.scatter) ** 2 / z.size
        variance += self.scatter**2 * self.coefficients.size / self.n_mocks
        error = np.hypot(np.sqrt(variance) / per_mag, SYSTEMATIC_MAG)
        return Depth(found, float(error), "counts", z.size)

    def _ln_density(self, z: Array, limit_mag: float) -> Array:
        """ln of the number density of galaxies brighter than a flux limit at redshifts."""
        cosmology = background.from_params(self.cosmology)
        modulus = cosmology.distance_modulus_h(cosmology.comoving_distance_mpc_h(z), z)
        faintest = limit_mag - modulus - luminosity.apparent_shift(z, self.galaxies)
        magnitudes = luminosity.FIELD_MAGNITUDES
        function = luminosity.schechter(magnitudes, self.galaxies)
        ends = np.minimum(faintest, self.galaxies.magnitude_max)
        return np.log([luminosity.field_density(function, float(end)) for end in ends])


def _columns(plain: Array) -> tuple[Array, Array, Array]:
    """Redshift, log10 of the dispersion over the pivot, ln(1 + galaxies far out)."""
    z, sigma, far = (
        plain[:, SUMMARIES.index(name)]
        for name in ("redshift", "clipped dispersion", "galaxies far out")
    )
    return 10**z, sigma - np.log10(_PIVOT_KM_S), np.log(10) * far


def _design(z: Array, sigma: Array) -> Array:
    x = np.log(z / _PIVOT_Z)
    return np.column_stack([np.ones_like(x), x, x**2, x**3, sigma, sigma * x])
