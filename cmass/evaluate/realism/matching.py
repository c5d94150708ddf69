"""Weights that give the mocks the survey's distribution of richness and distance.

Clusters are found by their galaxies, so a catalogue is complete or not in richness: mocks that
match in it stand for what a finder picks. The scatter of a dynamical mass at fixed richness is not
selected upon; matched in that mass instead, poor groups whose dispersion is high by chance, which
no finder sees, would stand for rich clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmass.evaluate.realism.windows import Windows

Array = NDArray[np.float64]

#: Fewest mocks in a bin that may stand for the real clusters there.
_MOCKS_MIN = 3


@dataclass(frozen=True)
class Matched:
    """A survey and mocks of the same distribution of richness and distance.

    Attributes
    ----------
    real, mock : Windows
        Real windows weigh 1, or 0 where there are no mocks like them; mocks weigh so that
        every bin holds as much as the survey does.
    bin_real, bin_mock : ndarray of int64
        Bin of each window; negative outside all bins.
    n_without_mocks : int
        Real clusters in bins with too few mocks.
    n_effective : float
        (sum w)² / sum w² of the mocks.
    """

    real: Windows
    mock: Windows
    bin_real: NDArray[np.int64]
    bin_mock: NDArray[np.int64]
    n_without_mocks: int
    n_effective: float


def distance_edges(distance_mpc_h: Array, n_bins: int) -> Array:
    """Edges (n_bins + 1,) of bins with equally many clusters; open at both ends."""
    inner = np.quantile(distance_mpc_h, np.linspace(0, 1, n_bins + 1)[1:-1])
    return np.concatenate([[0.0], inner, [np.inf]])


def match(real: Windows, mock: Windows, richness_bin_dex: float, edges_mpc_h: Array) -> Matched:
    """Weigh mocks to the survey in bins of (log richness, distance).

    A mock's weight is its own (the mass function's) times the real count of its bin over
    the weighted count of mocks there.

    Parameters
    ----------
    real, mock : Windows
    richness_bin_dex : float
        Width of the bins of log10 of the richness, aligned to multiples of it.
    edges_mpc_h : ndarray, shape (k + 1,)
        Bins of distance.
    """

    def bins(windows: Windows) -> NDArray[np.int64]:
        rich = np.log10(np.maximum(windows.richness, 1))
        row = np.floor(rich / richness_bin_dex + 1e-9).astype(np.int64)
        far = np.searchsorted(edges_mpc_h, windows.distance_mpc_h, side="right") - 1
        return row * len(edges_mpc_h) + far

    bin_real, bin_mock = bins(real), bins(mock)
    every, place = np.unique(np.concatenate([bin_real, bin_mock]), return_inverse=True)
    of_real, of_mock = place[: len(real)], place[len(real) :]
    wanted = np.bincount(of_real, real.weight, every.size)
    there = np.bincount(of_mock, mock.weight, every.size)
    number = np.bincount(of_mock, mock.weight > 0, every.size)
    served = (number >= _MOCKS_MIN) & (there > 0)
    factor = np.divide(wanted, there, out=np.zeros(every.size), where=served)
    weight = mock.weight * factor[of_mock]
    kept = real.weight * served[of_real]
    squares = float((weight**2).sum())
    return Matched(
        real.with_weight(kept), mock.with_weight(weight), of_real, of_mock,
        int(((real.weight > 0) & ~served[of_real]).sum()),
        float(weight.sum() ** 2) / squares if squares > 0 else 0.0,
    )  # fmt: skip
