"""CNN_3D for processors: compiled with numba, for training and for estimates without TensorFlow."""

from __future__ import annotations

from cmass.networks.compiled.network import CompiledCNN3D

__all__ = ["CompiledCNN3D"]
