"""CNN_3D, the paper's network, as one estimator among others.

The run's own seed takes over the network that the step `train` trained; any other seed is trained
on the same windows in the same way.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from cmass.estimators import PointEstimator
from cmass.estimators.windows import Sets, Windows
from cmass.networks import cnn3d
from cmass.shards import TRAINING_SOURCES
from cmass.workspace import Workspace

if TYPE_CHECKING:
    from cmass.networks.compiled import CompiledCNN3D
    from cmass.networks.streaming import Source

Array = NDArray[np.float64]

_WEIGHTS = "cnn3d.weights.h5"


class CNN3D(PointEstimator):
    """Mass from the kernel density of (x, y, v) on a grid (paper, section 3.3)."""

    name: ClassVar[str] = "cnn3d"
    title: ClassVar[str] = "CNN 3D"
    reads: ClassVar[str] = "positions and velocities in the whole window"
    sections: ClassVar[tuple[str, ...]] = ("train",)
    sources: ClassVar[tuple[str, ...]] = (
        *TRAINING_SOURCES, "networks/prediction.py", "voxels.py",
    )  # fmt: skip

    _network: CompiledCNN3D

    @classmethod
    def products(cls, workspace: Workspace) -> tuple[Path, ...]:
        """The run's network."""
        return (workspace.model / _WEIGHTS,)

    def fit_point(self, sets: Sets, work: Path) -> None:
        """Take over the run's network, or train one on the same windows."""
        from cmass.networks import training

        run, n = sets.workspace, self.params.voxels.n
        how = self.params.train
        if run is not None and self.seed == self.params.seed:
            self._network, self.taken_over = cnn3d.load(run.model / _WEIGHTS, n), True
            return
        train, validation = self._sources(sets, work)
        tries = training.fit_tries(train, validation, work, self.params, self.seed, "")
        self.seconds_in_epochs = tries.seconds
        self._network = cnn3d.compiled(tries.best.weights, n, how)

    def _sources(self, sets: Sets, work: Path) -> tuple[Source, Source]:
        """What a network of this seed learns from and is watched on."""
        from cmass.networks.lists import Lists
        from cmass.networks.streaming import Files

        if self.params.train.grids == "device":
            train, validation = (
                Lists.checked(w.points, w.offsets, w.log10_m200c_true, self.params, w.cluster_id)
                for w in (sets.train, sets.validation)
            )
            return train, validation
        run = sets.workspace
        voxels = _voxelize(sets, work / "voxels", self) if run is None else run.voxels
        return Files(voxels / "train"), Files(voxels / "validation")

    def point(self, windows: Windows) -> Array:
        """log10 M200c from galaxies; NaN where the window has no density."""
        from cmass.networks import prediction

        clouds = (windows.cloud(i) for i in range(len(windows)))
        return prediction.predict_clouds(
            self._network, clouds, self.params.window, self.params.voxels
        )[:, 0]

    @property
    def n_parameters(self) -> int:
        """Weights of the network."""
        return self._network.n_parameters

    def save_point(self, folder: Path) -> None:
        """Write the weights."""
        cnn3d.save(self._network, folder / _WEIGHTS)

    def load_point(self, folder: Path) -> None:
        """Read the weights."""
        self._network = cnn3d.load(folder / _WEIGHTS, self.params.voxels.n)


def _voxelize(sets: Sets, folder: Path, estimator: CNN3D) -> Path:
    """Voxels of windows that no run has made any of; what is there is not made again."""
    from cmass.voxels import write_grids

    for name, windows in (("train", sets.train), ("validation", sets.validation)):
        if (folder / name).exists():
            continue
        partial = folder / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        size = estimator.params.voxels.clusters_per_shard
        for number, start in enumerate(range(0, len(windows), size)):
            part = windows.take(np.arange(start, min(start + size, len(windows))))
            write_grids(
                partial / f"shard-{number:05d}.parquet", part.cluster_id,
                part.log10_m200c_true.tolist(), part.points, part.offsets, estimator.params,
            )  # fmt: skip
        partial.rename(folder / name)
    return folder
