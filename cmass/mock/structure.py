"""Large-scale structure around a halo: where the background lies, and how it streams.

A Gaussian field with the linear power spectrum, smoothed, on a periodic grid. Haloes and galaxies
of bias b follow exp(b δ − b² σ²/2), a log-normal density with mean one (Coles & Jones 1991); the
same δ moves them coherently, by linear theory, relative to the halo at the centre. What clusters
around that halo itself, b_c b_h ξ(r), is added in `environment`: for a log-normal process the mean
density around one of its points is that of the process times exp(covariance), here to first order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import map_coordinates

from cmass.cosmology import Cosmology
from cmass.mass_function import matter_power
from cmass.params import CosmologyParams, EnvironmentParams

Array = NDArray[np.float64]
Grid = NDArray[np.float32]

#: Side of the periodic box over the diameter of the simulated surroundings.
_BOX_MARGIN = 1.1
#: Highest bias in exp(b δ): beyond it the log-normal density is carried by single cells.
_BIAS_MAX = 2.0
_GROWTH_INDEX = 0.55


@dataclass(frozen=True)
class _Modes:
    """What turns the modes of unit white noise into a field; all of one grid.

    Attributes
    ----------
    overdensity : (n, n, n // 2 + 1)
        Root of the smoothed power per mode.
    displacement : (3, n, n, n // 2 + 1)
        The same times i k / k², Mpc/h: δ = −∇·ψ.
    variance : float
        Of the overdensity over all realisations.
    """

    overdensity: Grid
    displacement: NDArray[np.complex64]
    variance: float


@lru_cache(maxsize=2)
def _modes(
    n: int, box_mpc_h: float, smoothing_mpc_h: float, z: float, cosmology: CosmologyParams
) -> _Modes:
    k = 2 * np.pi * np.fft.fftfreq(n, box_mpc_h / n)
    kz = 2 * np.pi * np.fft.rfftfreq(n, box_mpc_h / n)
    axes = np.meshgrid(k, k, kz, indexing="ij")
    square = sum(axis**2 for axis in axes)
    square[0, 0, 0] = 1.0
    power = matter_power(np.sqrt(square), z, cosmology) * np.exp(-square * smoothing_mpc_h**2)
    power[0, 0, 0] = 0.0
    per_mode = power / (box_mpc_h / n) ** 3
    twice = np.where((kz > 0) & (kz < kz[-1]), 2.0, 1.0)  # modes that rfftn leaves out
    root = np.sqrt(per_mode)
    return _Modes(
        root.astype(np.float32),
        np.stack([1j * axis / square * root for axis in axes]).astype(np.complex64),
        float((per_mode * twice).sum() / n**3),
    )


@lru_cache(maxsize=4)
def _cells(n: int, box_mpc_h: float, radius_mpc_h: float) -> tuple[NDArray[np.int64], Array]:
    """Cells that reach into the sphere: flat indices, and lower corners (m, 3) in Mpc/h."""
    cell = box_mpc_h / n
    low = cell * np.arange(n) - box_mpc_h / 2
    nearest = np.where(low > 0, low, np.minimum(low + cell, 0.0))
    square = nearest[:, None, None] ** 2 + nearest[None, :, None] ** 2 + nearest**2
    index = np.flatnonzero(square.ravel() < radius_mpc_h**2)
    return index, np.stack([low[i] for i in np.unravel_index(index, (n, n, n))], axis=1)


@dataclass(frozen=True)
class Structure:
    """The field around one halo, which is at the origin.

    Attributes
    ----------
    radius_mpc_h : float
        Radius of the sphere that is filled, comoving.
    box_mpc_h : float
        Side of the periodic box, comoving.
    overdensity : (n, n, n)
        Linear overdensity δ, smoothed; the origin is at the grid's centre.
    variance : float
        Of δ over all realisations.
    displacement_mpc_h : (3, n, n, n)
        Linear displacement, comoving Mpc/h, relative to the origin's.
    km_s_per_mpc_h : float
        Peculiar velocity per displacement, a H f.
    """

    radius_mpc_h: float
    box_mpc_h: float
    overdensity: Grid
    variance: float
    displacement_mpc_h: Grid
    km_s_per_mpc_h: float

    def density(self, bias: float) -> Array:
        """Density over the mean in the cells that reach into the sphere, for galaxies of `bias`."""
        cells, _ = _cells(len(self.overdensity), self.box_mpc_h, self.radius_mpc_h)
        b = min(bias, _BIAS_MAX)
        delta = self.overdensity.ravel()[cells].astype(float)
        return np.exp(b * delta - 0.5 * b**2 * self.variance)

    def draw_positions(
        self, mean_density: Array, bias: Array, random: np.random.Generator
    ) -> tuple[NDArray[np.int64], Array]:
        """Draw a Poisson sample of several populations that follow the structure.

        Parameters
        ----------
        mean_density : (m,)
            Comoving density of each population, h³ Mpc⁻³.
        bias : (m,)
            Its bias.
        random : numpy.random.Generator

        Returns
        -------
        population : (N,)
            Index of each point's population, ascending.
        position_mpc_h : (N, 3)
            Inside the sphere.
        """
        n = len(self.overdensity)
        cell = self.box_mpc_h / n
        _, corners = _cells(n, self.box_mpc_h, self.radius_mpc_h)
        # Populations of like bias share one cumulative density: steps of a quarter are enough.
        rounded = np.round(4 * np.minimum(bias, _BIAS_MAX)) / 4
        owners, places = [], []
        for value in np.unique(rounded):
            own = np.flatnonzero(rounded == value)
            cumulative = np.cumsum(self.density(float(value)))
            counts = random.poisson(mean_density[own] * cell**3 * cumulative[-1])
            total = int(counts.sum())
            chosen = np.searchsorted(cumulative, random.random(total) * cumulative[-1])
            owners.append(np.repeat(own, counts))
            places.append(corners[chosen] + cell * random.random((total, 3)))
        owner, place = np.concatenate(owners), np.concatenate(places)
        inside = (place**2).sum(axis=1) < self.radius_mpc_h**2
        owner, place = owner[inside], place[inside]
        order = np.argsort(owner, kind="stable")
        return owner[order], place[order]

    def flow_km_s(self, position_mpc_h: Array) -> Array:
        """Coherent peculiar velocity (N, 3) at positions (N, 3), relative to the origin's."""
        n = len(self.overdensity)
        if not self.km_s_per_mpc_h:
            return np.zeros_like(position_mpc_h)
        # Grid values stand at the middle of cells.
        at = (position_mpc_h.T + self.box_mpc_h / 2) * (n / self.box_mpc_h) - 0.5
        moved = [map_coordinates(axis, at, order=1, mode="grid-wrap")
                 for axis in self.displacement_mpc_h]  # fmt: skip
        return self.km_s_per_mpc_h * np.stack(moved, axis=1).astype(float)


def draw_structure(
    environment: EnvironmentParams,
    cosmology_parameters: CosmologyParams,
    cosmology: Cosmology,
    z: float,
    random: np.random.Generator,
) -> Structure:
    """Draw the large-scale structure around one halo.

    Parameters
    ----------
    environment : EnvironmentParams
        ``structure_amplitude`` 0 leaves the background uniform, ``flow`` 0 leaves it at rest.
    cosmology_parameters, cosmology : the run's cosmology
    z : float
        Redshift of the snapshot.
    random : numpy.random.Generator
    """
    n, box = environment.structure_cells, 2 * _BOX_MARGIN * environment.radius_mpc_h
    modes = _modes(n, box, environment.structure_smoothing_mpc_h, z, cosmology_parameters)
    amplitude = np.float32(environment.structure_amplitude)
    noise = fft.rfftn(random.standard_normal((n, n, n), dtype=np.float32))
    noise *= amplitude
    overdensity = fft.irfftn(noise * modes.overdensity, s=(n, n, n))
    displacement = fft.irfftn(noise * modes.displacement, s=(n, n, n), axes=(1, 2, 3))
    growth = float(cosmology_parameters.omega_m * (1 + z) ** 3 / cosmology.e(z) ** 2)
    speed = environment.flow * 100.0 * float(cosmology.e(z)) / (1 + z) * growth**_GROWTH_INDEX
    middle = (slice(None),) + (slice(n // 2 - 1, n // 2 + 1),) * 3
    at_origin = displacement[middle].mean(axis=(1, 2, 3))
    return Structure(
        environment.radius_mpc_h, box, overdensity, modes.variance * float(amplitude) ** 2,
        displacement - at_origin[:, None, None, None], speed,
    )  # fmt: skip
