"""The interface between sources of haloes and the observer."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Values of `galaxy_class`.
MEMBER, INFALLING, INTERLOPER = 0, 1, 2


@dataclass
class Galaxies:
    """Galaxies around one halo, N rows.

    Attributes
    ----------
    position_mpc_h : (N, 3)
        Comoving offset from the halo centre, h⁻¹ Mpc.
    velocity_km_s : (N, 3)
        Peculiar velocity relative to the halo, km/s.
    magnitude : (N,)
        Absolute r magnitude, M − 5 log10 h, in the band shifted to z = 0.1.
    host_log10_m200c : (N,)
        log10 M200c of the halo that hosts the galaxy; NaN outside resolved haloes.
    """

    position_mpc_h: Array
    velocity_km_s: Array
    magnitude: Array
    host_log10_m200c: Array

    def __len__(self) -> int:
        return len(self.magnitude)

    def select(self, mask: NDArray[np.bool_]) -> Galaxies:
        """The galaxies for which `mask` holds."""
        return Galaxies(*(getattr(self, f.name)[mask] for f in fields(self)))

    @staticmethod
    def join(parts: list[Galaxies]) -> Galaxies:
        """All galaxies of `parts`, in order."""
        names = [f.name for f in fields(Galaxies)]
        return Galaxies(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))


@dataclass
class Haloes:
    """Haloes around one halo, N rows; units as in `Galaxies`."""

    position_mpc_h: Array
    velocity_km_s: Array
    log10_m200c: Array

    def __len__(self) -> int:
        return len(self.log10_m200c)


@dataclass
class HaloField:
    """One halo with everything around it: what a box of haloes and galaxies gives.

    Attributes
    ----------
    halo_id : int
    log10_m200c : float
        log10 of M200c, h⁻¹ M☉.
    redshift : float
        Redshift of the snapshot that the field is taken from.
    galaxies : Galaxies
    neighbours : Haloes
        Haloes in the surroundings, without the halo itself.
    """

    halo_id: int
    log10_m200c: float
    redshift: float
    galaxies: Galaxies
    neighbours: Haloes
