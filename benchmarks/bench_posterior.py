"""Posteriors: `JointDensity.slices` against scipy's gaussian_kde at the middle of each bin.

scipy would take minutes for all queries, so it gets some and its time is scaled with their number,
in which it is linear.

    python -m benchmarks.bench_posterior            # 20 000 pairs, 5000 queries, 128 bins
    python -m benchmarks.bench_posterior --small    # the same, fewer times
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from benchmarks import paired
from benchmarks.paired import Agreement, Result
from cmass.posterior import JointDensity

TARGET, FLOOR, SECONDS, AGREEMENT = 100.0, 20.0, 1.0, 1e-6
BANDWIDTH, N_BINS = 0.20, 128
#: Gauss and Legendre's nodes a bin: exact to 1e-12 where a kernel is over twice as wide as a bin.
_NODES = 6

Array = NDArray[np.float64]


def pairs_of(n: int) -> tuple[Array, Array]:
    """Point estimates and true masses like those of the test set: flat in mass, 0.2 dex apart."""
    random = np.random.default_rng(0)
    true = random.uniform(13.5, 15.2, n)
    return 14.35 + 0.8 * (true - 14.35) + random.normal(0, 0.2, n), true


def agreement(density: JointDensity, queries: Array, edges: Array) -> Agreement:
    """Integrals over bins against quadrature of scipy's density."""
    from scipy.stats import gaussian_kde

    theirs = gaussian_kde(np.stack(density.pairs), BANDWIDTH)
    x, weight = np.polynomial.legendre.leggauss(_NODES)
    half = 0.5 * np.diff(edges)
    masses = ((0.5 * (edges[1:] + edges[:-1]))[:, None] + half[:, None] * x).ravel()
    worst = 0.0
    for query, found in zip(queries, density.slices(queries, edges), strict=True):
        values = theirs(np.stack([np.full(masses.size, query), masses])).reshape(-1, _NODES)
        exact = values @ weight * half
        worst = max(worst, float(np.abs(found - exact).max() / exact.max()))
    return Agreement("integrals over bins, of the peak,", worst, AGREEMENT)


def results(small: bool) -> list[Result]:
    """Slices of all queries, from the pairs on."""
    from scipy.stats import gaussian_kde

    n_pairs, n_queries, n_timed = 20_000, 5000, 10 if small else 40
    predicted, true = pairs_of(n_pairs)
    density = JointDensity(predicted, true, BANDWIDTH)
    edges = density.edges(N_BINS)
    queries = np.quantile(predicted, np.random.default_rng(1).uniform(0.001, 0.999, n_queries))
    some = queries[:n_timed]
    points = np.stack([np.repeat(some, N_BINS), np.tile(0.5 * (edges[1:] + edges[:-1]), n_timed)])
    theirs = gaussian_kde(np.stack([predicted, true]), BANDWIDTH)
    pairs = paired.paired(
        lambda: theirs(points),
        lambda: JointDensity(predicted, true, BANDWIDTH).slices(queries, edges),
        pairs=3 if small else 7, clock="cpu", reference_calls=n_timed / n_queries,
    )  # fmt: skip
    return [
        pairs.comparison(
            "posteriors", "scipy gaussian_kde",
            f"{n_pairs} pairs, {n_queries} queries, {N_BINS} bins",
            agreements=[agreement(density, np.sort(queries)[:: n_queries // (2 if small else 5)], edges)],
            target=TARGET, floor=FLOOR, seconds_target=SECONDS,
            note=f"the reference has {n_timed} queries and its time is scaled to {n_queries}",
        )
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(paired.main(results))
