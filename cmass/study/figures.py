"""What the studies' figures share: the report's style and colours."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmass.figures.style import BLUE, GREEN, INK, MUTED, RED, STYLE

__all__ = ["BLUE", "GREEN", "INK", "MUTED", "RED", "one_panel", "panels"]


def one_panel(width: float = 5.4, height: float = 4.0) -> tuple[Figure, Axes]:
    """An empty figure with one panel, inches."""
    figure, axes = panels(1, width, height)
    return figure, axes[0]


def panels(n: int, width: float = 9.0, height: float = 3.8, **more) -> tuple[Figure, list[Axes]]:
    """An empty figure with `n` panels side by side, inches."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, list(np.atleast_1d(figure.subplots(1, n, **more)))
