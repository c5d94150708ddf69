"""Galaxy cluster masses as a data product: dynamical masses with calibrated posteriors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cmass import voxels
    from cmass.estimation import estimate

__version__ = "0.1.0"
__all__ = ["__version__", "estimate", "voxels"]


def __getattr__(name: str) -> Any:
    # `import cmass` stays free of NumPy and TensorFlow, so that `cmass --help` is quick.
    if name == "estimate":
        from cmass.estimation import estimate

        return estimate
    if name == "voxels":
        import importlib

        return importlib.import_module("cmass.voxels")
    raise AttributeError(f"module 'cmass' has no attribute {name!r}")
