"""Which haloes are observed, from where, and along which sight lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cmass.mass_function import mass_function
from cmass.params import HaloParams, Params
from cmass.seeds import generator


@dataclass(frozen=True)
class HaloPlan:
    """One halo to simulate.

    Attributes
    ----------
    halo_id : int
    log10_m200c : float
        log10 of M200c, h⁻¹ M☉.
    n_sight_lines : int
    """

    halo_id: int
    log10_m200c: float
    n_sight_lines: int


def sight_line_counts(log10_m200c: np.ndarray, z: float, params: Params) -> np.ndarray:
    """Sight lines (N,) on haloes of these masses: their rarity above the edge, up to the most.

    Rarity is that of the mass function at redshift `z`, relative to
    ``log10_m200c_many_sight_lines``.
    """
    haloes = params.mock.haloes
    edge = mass_function(haloes.log10_m200c_many_sight_lines, z, params.cosmology)
    rarity = edge / mass_function(log10_m200c, z, params.cosmology)
    return np.clip(np.rint(rarity), 1, haloes.sight_lines_max).astype(int)


def window_share(log10_m200c: np.ndarray, haloes: HaloParams) -> np.ndarray:
    """Windows per dex, shape of `log10_m200c`: one in the flat part, falling to zero in the tails."""
    low, high, tail = haloes.log10_m200c_min, haloes.log10_m200c_max, haloes.tail_dex
    if not tail:
        return np.where((log10_m200c >= low) & (log10_m200c <= high), 1.0, 0.0)
    return np.interp(log10_m200c, [low - tail, low, high, high + tail], [0.0, 1.0, 1.0, 0.0])


def plan_haloes(params: Params) -> list[HaloPlan]:
    """Haloes whose windows are flat in log mass, ``n_windows`` in all.

    As in the paper (section 2.2), haloes above ``log10_m200c_many_sight_lines`` are
    seen along more than one sight line, as many as their rarity in the mass function
    asks for, up to ``sight_lines_max``; there are as many haloes as flatness needs.
    Beyond the flat part the number of windows falls to zero within ``tail_dex``.
    """
    haloes = params.mock.haloes
    z = params.mock.snapshot_redshift
    low, high, tail = haloes.log10_m200c_min, haloes.log10_m200c_max, haloes.tail_dex
    grid = np.linspace(low - tail, high + tail, 4001)
    weight = window_share(grid, haloes) / sight_line_counts(grid, z, params)
    cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (weight[1:] + weight[:-1]))])
    cumulative *= (grid[1] - grid[0]) / (high - low + tail)
    n_haloes = int(np.ceil(haloes.n_windows * cumulative[-1]))
    while True:
        random = generator(params.seed, "halo-masses")
        # One halo in each of n equal parts of the distribution: flat without Poisson noise.
        u = (random.permutation(n_haloes) + random.random(n_haloes)) / n_haloes
        log10_m = np.interp(u * cumulative[-1], cumulative, grid)
        counts = sight_line_counts(log10_m, z, params)
        total = np.cumsum(counts)
        if total[-1] >= haloes.n_windows:
            break
        # Sight lines are whole numbers: now and then they fall short of their mean.
        n_haloes += 1
    plans = []
    for halo_id, (m, n, before) in enumerate(zip(log10_m, counts, total - counts, strict=True)):
        n_left = min(int(n), haloes.n_windows - int(before))
        if n_left > 0:
            plans.append(HaloPlan(halo_id, float(m), n_left))
    return plans


def draw_distances(halo_id: int, n: int, params: Params) -> np.ndarray:
    """Comoving distances (n,) uniform in the ball, h⁻¹ Mpc, beyond the smallest."""
    low = params.mock.haloes.distance_min_mpc_h**3
    high = params.window.distance_max_mpc_h**3
    u = generator(params.seed, "distance", halo_id).random(n)
    return np.cbrt(low + u * (high - low))
