"""Four figures in one picture, for a README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import pyarrow as pa
from matplotlib.figure import Figure

from cmass.figures.posteriors import coverage, residuals
from cmass.figures.style import CNN, STYLE
from cmass.figures.survey import mass_function, predicted_galweight
from cmass.params import Params
from cmass.tables import atomic_path, read_table
from cmass.workspace import Workspace


def overview(
    masses: pa.Table, clusters: pa.Table, coverage_table: pa.Table, residual_table: pa.Table,
    mass_function_table: pa.Table, completeness_log10_m200c: float = 14.0,
) -> Figure:  # fmt: skip
    """Four figures in one: masses against GalWeight, coverage, residuals, mass function."""
    paper: dict[Any, Any] = {"savefig.facecolor": "white", "figure.facecolor": "white"}
    with matplotlib.rc_context(STYLE | paper):
        figure = Figure(figsize=(11, 9), layout="constrained")
        axes = figure.subplots(2, 2)
        predicted_galweight.draw(axes[0, 0], masses, clusters)  # type: ignore[attr-defined]
        coverage.draw(axes[0, 1], coverage_table)  # type: ignore[attr-defined]
        residuals.draw(axes[1, 0], residual_table)  # type: ignore[attr-defined]
        mass_function.draw(  # type: ignore[attr-defined]
            axes[1, 1], mass_function_table, completeness_log10_m200c
        )
        titles = (f"Clusters: {CNN} and GalWeight", "Posteriors on mocks",
                  "Residuals on mocks", "Mass function")  # fmt: skip
        for one, title in zip(axes.flat, titles, strict=True):
            one.set_title(title)
        return figure


def save_overview(workspace: Workspace, path: Path, params: Params | None = None) -> None:
    """Save one picture of a workspace's results, for a README.

    Masses against GalWeight, coverage, residuals and mass function, as PNG.

    Parameters
    ----------
    workspace : Workspace
        With the products of evaluate and infer.
    path : Path
        The PNG file; replaced in one piece.
    params : Params, optional
        For the completeness limit of the mass function.
    """
    complete = (params or Params()).infer.completeness_log10_m200c
    figure = overview(
        read_table(workspace.masses / "masses.parquet", "masses"),
        read_table(workspace.selected / "clusters.parquet", "clusters"),
        read_table(workspace.evaluation / "coverage.parquet", "coverage"),
        read_table(workspace.evaluation / "residuals.parquet", "residuals"),
        read_table(workspace.masses / "mass_function.parquet", "mass_function"),
        complete,
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
