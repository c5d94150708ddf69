"""Toy clusters whose mass is in the number of their galaxies and in their velocities."""

from __future__ import annotations

import numpy as np

from cmass.estimators.windows import Sets, Windows
from cmass.params import Params

#: Scatter of ln N about its mean, and of ln sigma: what limits any estimator.
LN_N_SCATTER = 0.2


def toy_windows(n: int, seed: int) -> Windows:
    """Windows flat in log mass from 13.5 to 15, one halo each, with interlopers."""
    rng = np.random.default_rng(seed)
    log10_m = rng.uniform(13.5, 15.0, n)
    clouds = []
    for m in log10_m:
        members = max(int(60 * 10 ** (0.8 * (m - 14.3)) * np.exp(rng.normal(0, LN_N_SCATTER))), 5)
        radius = 10 ** ((m - 14.3) / 3) * np.abs(rng.normal(0, 0.7, members)).clip(0, 3.9)
        angle = rng.uniform(0, 2 * np.pi, members)
        v = rng.normal(0, 600 * 10 ** ((m - 14.3) / 3), members).clip(-2200, 2200)
        cluster = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), v])
        field = rng.uniform([-4, -4, -2200], [4, 4, 2200], (rng.poisson(60), 3))
        clouds.append(np.concatenate([cluster, field]))
    offsets = np.cumsum([0] + [len(c) for c in clouds])
    return Windows(
        [f"toy-{seed}-{i}" for i in range(n)], np.concatenate(clouds), offsets,
        rng.uniform(0.02, 0.08, n), log10_m, np.arange(n),
    )  # fmt: skip


def toy_sets(n: int = 600) -> Sets:
    """Training, validation and test windows."""
    return Sets(toy_windows(n, 1), toy_windows(n // 4, 2), toy_windows(n // 2, 3))


def toy_params(**rivals) -> Params:
    """Parameters with sections of `rivals` changed."""
    base = Params()
    changed = {k: getattr(base.rivals, k).model_copy(update=v) for k, v in rivals.items()}
    return base.model_copy(update={"rivals": base.rivals.model_copy(update=changed)})


def shuffled(windows: Windows, seed: int = 0) -> Windows:
    """The same clusters with the galaxies of each in another order."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate(
        [rng.permutation(np.arange(a, b)) for a, b in zip(windows.offsets[:-1], windows.offsets[1:], strict=True)]
    )  # fmt: skip
    return Windows(windows.cluster_id, windows.points[rows], windows.offsets, windows.z,
                   windows.log10_m200c_true, windows.halo_id)  # fmt: skip
