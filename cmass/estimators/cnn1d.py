"""CNN_1D: mass from the distribution of the line-of-sight velocities (Ho+2019)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cmass.estimators.density_network import DensityNetwork, densities
from cmass.estimators.windows import Windows


class CNN1D(DensityNetwork):
    """A network on the kernel density of the velocities inside an aperture."""

    name: ClassVar[str] = "cnn1d"
    title: ClassVar[str] = "CNN 1D"
    reads: ClassVar[str] = "velocities inside an aperture"
    radii: ClassVar[int] = 1

    def density(self, windows: Windows) -> NDArray[np.float32]:
        """Density of v of the galaxies in the aperture, shape (n, 50, 1)."""
        how = self.params.rivals
        return densities(
            windows, how.velocity_aperture_mpc_h, self.params.window.v_max_km_s,
            how.density_bandwidth, radii=self.radii,
        )  # fmt: skip
