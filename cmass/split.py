"""split: training, validation, test and evaluation sets, by halo.

Sight lines of one halo share its galaxies. A halo therefore belongs to one set
with all its windows, unlike the paper's random draw of windows.
"""

from __future__ import annotations

import logging

import numpy as np

from cmass.columns import FLAGS, NOT_CATALOGUED
from cmass.errors import InputError
from cmass.params import Params, SplitParams
from cmass.seeds import generator
from cmass.tables import make_table, read_table, write_table
from cmass.workspace import Workspace

log = logging.getLogger(__name__)

SETS = ("train", "validation", "test", "evaluation")


def split_haloes(halo_id: np.ndarray, sizes: dict[str, int], seed: int) -> np.ndarray:
    """Assign every window to a set so that no halo is in two sets.

    Parameters
    ----------
    halo_id : (N,) int
        Halo of each window.
    sizes : dict of str to int
        Windows wanted in each set; reached exactly while haloes small enough are left.
    seed : int
        Seed of the run: haloes are dealt in a random order that depends on it.

    Returns
    -------
    ndarray of str, (N,)
        Name of the set; empty for windows left over.

    Raises
    ------
    InputError
        There are too few windows for the sizes asked.
    """
    haloes, inverse, counts = np.unique(halo_id, return_inverse=True, return_counts=True)
    order = generator(seed, "split").permutation(len(haloes))
    # Haloes with many windows first, so that single ones can fill the sets exactly.
    order = order[np.argsort(-counts[order], kind="stable")]
    left = dict(sizes)
    chosen = np.full(len(haloes), "", dtype=object)
    for halo in order:
        n = int(counts[halo])
        fits = [name for name, room in left.items() if room >= n]
        if not fits:
            continue
        name = max(fits, key=lambda s: left[s] / sizes[s])
        chosen[halo] = name
        left[name] -= n
    short = {name: room for name, room in left.items() if room > 0}
    if short:
        raise InputError(
            f"too few mock windows for the sets: short by {short}",
            remedy="Raise mock.haloes.n_windows or lower the sizes under split",
        )
    return chosen[inverse]


def set_sizes(split: SplitParams) -> dict[str, int]:
    """Windows wanted in each set."""
    n_validation = round(split.train * split.validation_fraction)
    return {
        "train": split.train - n_validation,
        "validation": n_validation,
        "test": split.test,
        "evaluation": split.evaluation,
    }


def run(workspace: Workspace, params: Params) -> None:
    """Split the mock catalogue; windows without a density are in no set."""
    table = read_table(
        workspace.mock / "clusters", "mock_clusters", ["cluster_id", "halo_id", "flag"]
    )
    flags = table["flag"].to_numpy()
    usable = (flags & NOT_CATALOGUED) == 0
    blended = (flags & FLAGS["blended"].value) != 0
    table = table.filter(usable)
    chosen = split_haloes(table["halo_id"].to_numpy(), set_sizes(params.split), params.seed)
    kept = chosen != ""
    log.info(
        "split: %d windows in sets, %d left over; set aside: %d centred on a more massive halo, "
        "%d others with too few galaxies",
        kept.sum(), (~kept).sum(), blended.sum(), (~usable & ~blended).sum(),
    )  # fmt: skip
    columns = {
        "cluster_id": table["cluster_id"].filter(kept),
        "halo_id": table["halo_id"].filter(kept),
        "set": chosen[kept].tolist(),
    }
    write_table(workspace.split / "split.parquet", make_table("split", columns), "split")
