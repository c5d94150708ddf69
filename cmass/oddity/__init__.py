"""oddity: what mocks look like, so that clusters unlike any of them carry a flag.

Two measures of a window, each calibrated on mocks to one false-alarm rate: its distance from
the training mocks (`space`), and the height of a second peak in its phase space (`peaks`). The
step learns on the training set, calibrates on the test set, and judges on the evaluation set
and on windows in which something was put wrong (`injected`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmass import cosmology
from cmass.errors import InputError
from cmass.estimators.windows import Windows, mock_windows
from cmass.oddity.injected import FIELD, INJECTED, Neighbours, hosts, injected, neighbours
from cmass.oddity.mocks import REFERENCE, SETTINGS, Found, Oddity, fit
from cmass.params import Params
from cmass.tables import read_table, write_table
from cmass.workspace import Workspace

if TYPE_CHECKING:
    from cmass.networks.compiled import CompiledCNN3D

__all__ = ["REFERENCE", "SETTINGS", "Found", "Oddity", "run"]

log = logging.getLogger(__name__)
Array = NDArray[np.float64]


def run(workspace: Workspace, params: Params) -> None:
    """Learn what mocks look like, calibrate the flags and measure what they find.

    Writes `oddity/oddity.json` and `oddity.parquet` (what `infer` and a bundle need), and
    `rates.parquet`: false alarms and detections.
    """
    from cmass.networks import cnn3d
    from cmass.oddity.rates import Rates, add_mocks

    network = cnn3d.load(workspace.model / "cnn3d.weights.h5", params.voxels.n)
    train, test, judged = mock_windows(workspace, "train", "test", "evaluation")
    if params.train.grids == "device":  # no voxels of the training set lie on disk
        train_features = _features_of(network, train, params)
    else:
        train, train_features = _features(network, workspace, "train", train)
    test, test_features = _features(network, workspace, "test", test)
    judged, judged_features = _features(network, workspace, "evaluation", judged)
    background = cosmology.from_params(params.cosmology)
    galaxies = read_table(
        workspace.mock / "galaxies", "mock_galaxies", ["cluster_id", "host_log10_m200c"]
    )

    def near(windows: Windows) -> Neighbours:
        return neighbours(
            windows, hosts(galaxies, windows), background, params.oddity.neighbour_galaxies
        )

    made = fit(train, train_features, test, test_features, near(test).mass_ratio, params)
    made.save(workspace.oddity)
    rates = Rates()
    found = made.judge(judged_features, judged.points, judged.offsets, judged.z)
    add_mocks(rates, found.flag, judged, near(judged), params)
    some = judged.take(np.arange(min(params.oddity.n_injected, len(judged))))
    for case in (*INJECTED, FIELD):
        wrong = injected(case, some, params.window, params.window.n_galaxies_min, params.seed)
        features = _features_of(network, wrong, params)
        said = made.judge(features, wrong.points, wrong.offsets, wrong.z)
        known = np.isfinite(features[:, 0])  # without a density there is no mass to flag
        rates.add(case, said.flag[known], wrong.halo_id[known], params.seed)
    table = rates.table()
    write_table(workspace.oddity / "rates.parquet", table, "oddity_rates")
    for row in table.to_pylist():
        if row["unlike_mocks"] is not None:
            log.info("oddity: %s (%d): unlike mocks %.3f, two clusters %.3f", row["case"],
                     row["n"], row["unlike_mocks"], row["two_clusters"])  # fmt: skip


def _features_of(network: CompiledCNN3D, windows: Windows, params: Params) -> Array:
    """The network's features of windows, from their galaxies."""
    from cmass.networks import prediction

    clouds = (windows.cloud(i) for i in range(len(windows)))
    outputs = prediction.predict_clouds(
        network, clouds, params.window, params.voxels, features=True
    )
    return outputs[:, 1:]


def _features(
    network: CompiledCNN3D, workspace: Workspace, which: str, windows: Windows
) -> tuple[Windows, Array]:  # fmt: skip
    """Windows of a set that have voxels, in their order there, and the network's features."""
    from cmass.networks import prediction

    ids, _, outputs = prediction.predict_folder(network, workspace.voxels / which, features=True)
    place = {name: row for row, name in enumerate(windows.cluster_id)}
    rows = np.array([place.get(name, -1) for name in ids], np.int64)
    if (rows < 0).any():
        raise InputError(
            "a voxelised cluster is not in the set", column="cluster_id", file=workspace.voxels,
            value=ids[int(np.argmin(rows))], remedy="Run voxelize again",
        )  # fmt: skip
    return windows.take(rows), outputs[:, 1:]
