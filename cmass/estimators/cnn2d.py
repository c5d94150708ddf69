"""CNN_2D: mass from the distribution of projected radius and velocity (Ho+2019)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cmass.estimators.density_network import CELLS, DensityNetwork, densities
from cmass.estimators.windows import Windows


class CNN2D(DensityNetwork):
    """A network on the kernel density of (R, v) in the window's inscribed circle."""

    name: ClassVar[str] = "cnn2d"
    title: ClassVar[str] = "CNN 2D"
    reads: ClassVar[str] = "projected radii and velocities"
    radii: ClassVar[int] = CELLS

    def density(self, windows: Windows) -> NDArray[np.float32]:
        """Density of (v, R), shape (n, 50, 50)."""
        window = self.params.window
        return densities(
            windows, window.half_width_mpc_h, window.v_max_km_s,
            self.params.rivals.density_bandwidth, radii=self.radii,
        )  # fmt: skip
