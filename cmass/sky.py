"""Directions on the sky."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Solid angle of the whole sky, deg².
SKY_DEG2 = 4 * np.pi * np.degrees(1.0) ** 2


def unit_vectors(ra_deg: ArrayLike, dec_deg: ArrayLike) -> NDArray[np.float64]:
    """Unit vectors (n, 3) of right ascensions and declinations in deg, shape (n,)."""
    ra, dec = np.radians(np.asarray(ra_deg, float)), np.radians(np.asarray(dec_deg, float))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
