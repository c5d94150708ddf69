"""What CNN_1D and CNN_2D share: kernel densities of galaxies, and a network from them to the mass.

Both follow Ho+2019 (ApJ 887, 25): two convolutions along the velocity, max-pooling, dropout, three
dense layers. The density has unit sum in every window, so that the number of galaxies is not in it.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numba
import numpy as np
from numpy.typing import NDArray

from cmass.errors import InputError, WorkspaceError
from cmass.estimators import PointEstimator, keras_fit
from cmass.estimators.windows import Sets, Windows
from cmass.networks.weights_file import save_weights

if TYPE_CHECKING:
    import keras

Array = NDArray[np.float64]

#: Fewest galaxies that have a density.
GALAXIES_MIN = 4
#: Cells along each axis (Ho+2019: 48; CNN_3D: 50).
CELLS = 50


@numba.njit(cache=True, nogil=True)
def _axis(values, grid, width, mirrored):  # pragma: no cover - compiled
    """Gaussian of each value (rows) on a grid; mirrored at zero if asked."""
    out = np.empty((values.size, grid.size))
    for i in range(values.size):
        for j in range(grid.size):
            u = (grid[j] - values[i]) / width
            out[i, j] = np.exp(-0.5 * u * u)
            if mirrored:
                u = (grid[j] + values[i]) / width
                out[i, j] += np.exp(-0.5 * u * u)
    return out


@numba.njit(cache=True, nogil=True)
def _densities(radius, v, offsets, radii, speeds, factor, least):  # pragma: no cover - compiled
    """Mean 1 over the grid (n, speeds, radii); one point of `radii` leaves velocities alone."""
    n = offsets.size - 1
    out = np.full((n, speeds.size, radii.size), np.nan, np.float32)
    for c in range(n):
        a, b = offsets[c], offsets[c + 1]
        if b - a < least:
            continue
        bessel = np.sqrt((b - a) / (b - a - 1.0))
        wide_v = factor * np.std(v[a:b]) * bessel
        wide_r = factor * np.std(radius[a:b]) * bessel
        if not wide_v > 0 or (radii.size > 1 and not wide_r > 0):
            continue
        along_v = _axis(v[a:b], speeds, wide_v, False)
        along_r = np.ones((b - a, 1))
        if radii.size > 1:
            along_r = _axis(radius[a:b], radii, wide_r, True)
        grid = along_v.T @ along_r
        total = grid.sum()
        if total > 0:
            out[c] = grid * (grid.size / total)
    return out


def densities(
    windows: Windows, radius_mpc_h: float, v_max_km_s: float, factor: float, *, radii: int
) -> NDArray[np.float32]:
    """Kernel density of velocity, or of radius and velocity, in each window.

    The kernel is a Gaussian whose widths are `factor` times the standard deviations of radius and
    velocity: scipy's convention for a sample without correlation. Radii are mirrored at zero.

    Parameters
    ----------
    windows : Windows
    radius_mpc_h : float
        Galaxies inside count, and the radial grid ends there; proper Mpc/h.
    v_max_km_s : float
        End of the velocity grid.
    factor : float
        Bandwidth factor.
    radii : int
        Radial cells; 1 for the density of the velocities alone.

    Returns
    -------
    ndarray of float32, shape (n, CELLS, radii)
        Mean one in every window; NaN where fewer than 4 galaxies, or galaxies in one place, have
        no density.
    """
    radius = np.hypot(windows.points[:, 0], windows.points[:, 1])
    inside = radius <= radius_mpc_h
    upto = np.concatenate([[0], np.cumsum(inside)]).astype(np.int64)
    centres = (np.arange(radii) + 0.5) * radius_mpc_h / radii
    return _densities(
        radius[inside], np.ascontiguousarray(windows.points[inside, 2]), upto[windows.offsets],
        centres, np.linspace(-v_max_km_s, v_max_km_s, CELLS), factor, GALAXIES_MIN,
    )  # fmt: skip


def _reflected(inputs: keras_fit.Inputs, random: np.random.Generator) -> keras_fit.Inputs:
    """Reverse the velocities of each window with even odds: the mass does not change."""
    (grids,) = inputs
    turned = random.random(len(grids)) < 0.5
    return [np.where(turned[:, None, None], grids[:, ::-1], grids)]


class DensityNetwork(PointEstimator):
    """A network from a kernel density to log10 M200c; a subclass gives `density`."""

    #: Radial cells, which are channels of the convolution along the velocity.
    radii: ClassVar[int]

    _model: keras.Model

    @abstractmethod
    def density(self, windows: Windows) -> NDArray[np.float32]:
        """Inputs of the network, shape (n, CELLS, radii); NaN where there is none."""

    def build(self, mean: float = 0.0) -> keras.Model:
        """The network with fresh weights; its first answer is about `mean` for every window."""
        import keras
        from keras import layers

        # Named, as Keras would count the layers of all networks of this process into the file.
        inputs = keras.Input((CELLS, self.radii), name="density")
        x = layers.Conv1D(24, 5, padding="same", activation="relu", name="wide")(inputs)
        x = layers.Conv1D(10, 3, padding="same", activation="relu", name="narrow")(x)
        x = layers.MaxPooling1D(4, name="pool")(x)
        x = layers.Dropout(0.25, name="drop")(x)
        x = layers.Flatten(name="flatten")(x)
        x = layers.Dense(128, activation="relu", name="first")(x)
        x = layers.Dense(64, activation="relu", name="second")(x)
        start = keras.initializers.Constant(mean)
        answer = layers.Dense(1, bias_initializer=start, name="mass")(x)
        return keras.Model(inputs, answer, name=self.name)

    def fit_point(self, sets: Sets, work: Path) -> None:
        """Least squares on log mass, stopped by the validation set."""
        train, validation = self._samples(sets.train), self._samples(sets.validation)
        mean = float(train[1].mean())
        model, progress = keras_fit.fit(
            lambda: self.build(mean), train, validation, self.params.rivals.training, self.seed,
            work, name=self.name, augment=_reflected,
        )  # fmt: skip
        self.out_of_time, self.seconds_in_epochs = progress.out_of_time, progress.seconds
        # A bare network: the trained one would save its optimiser's state as well.
        self._model = self.build()
        self._model.set_weights(model.get_weights())

    def _samples(self, windows: Windows) -> tuple[list[NDArray[Any]], NDArray[np.float32]]:
        grids = self.density(windows)
        known = np.isfinite(grids[:, 0, 0])
        if not known.any():
            raise InputError(f"{self.name}: no window has a density")
        return [grids[known]], windows.log10_m200c_true[known, None].astype(np.float32)

    def point(self, windows: Windows) -> Array:
        """log10 M200c, mean of a window and of its reflection in v; NaN where there is no density."""
        grids = self.density(windows)
        known = np.isfinite(grids[:, 0, 0])
        out = np.full(len(windows), np.nan)
        both = (grids[known], grids[known][:, ::-1])
        out[known] = np.mean([keras_fit.predict(self._model, [g])[:, 0] for g in both], axis=0)
        return out

    @property
    def n_parameters(self) -> int:
        """Weights of the network."""
        return int(self._model.count_params())

    @property
    def _file(self) -> str:
        return f"{self.name}.weights.h5"

    def save_point(self, folder: Path) -> None:
        """Write the weights."""
        # A fresh network: the trained one would save its optimiser's state as well.
        bare = self.build()
        bare.set_weights(self._model.get_weights())
        save_weights(bare, folder / self._file)

    def load_point(self, folder: Path) -> None:
        """Read the weights."""
        path = folder / self._file
        if not path.exists():
            raise WorkspaceError(f"{path} does not exist: run `cmass rivals` first")
        self._model = self.build()
        self._model.load_weights(path)
