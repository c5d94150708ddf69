"""sightlines: the floor that the sight line alone sets.

Haloes that no network has seen are observed along many sight lines, each from its own distance. What
the run's network says of one halo then varies by the sight line (projection, interlopers, sampling,
the finder's centre), which a mean over sight lines averages away, and its mean differs from the
truth by the halo (richness, shape, orbits), which no other sight line mends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from cmass import mock, pretrained
from cmass.columns import NOT_CATALOGUED
from cmass.evaluate import metrics
from cmass.params import Params
from cmass.pretrained import Bundle
from cmass.seeds import generator
from cmass.shards import digest_of, source_digest
from cmass.study import Study, documents
from cmass.study.scores import table_of
from cmass.study.units import Unit, judged_points, mock_digest
from cmass.tables import (
    file_digest,
    points_by_cluster,
    read_json,
    read_table,
    to_numpy,
    write_json,
    write_table,
)
from cmass.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

#: Added to the run's seed: haloes that its network has not seen.
_SEED_STEP = 2_000_000
_BINS = 4
#: Fewest haloes of a bin: two numbers are fitted to them.
_HALOES_MIN = 5
#: Far enough below the lightest halo that its rarity asks for more sight lines than there are.
_EDGE_BELOW_DEX = 2.5


@dataclass(frozen=True)
class Components:
    """Scatter within and between haloes, dex.

    Attributes
    ----------
    within : float
        By the sight line: of windows about the mean of their halo.
    between : float
        By the halo: of those means, had they infinitely many sight lines.
    """

    within: float
    between: float

    @property
    def within_fraction(self) -> float:
        """Part of the variance that the sight line makes."""
        total = self.within**2 + self.between**2
        return self.within**2 / total if total > 0 else float("nan")


def components(residuals: ArrayLike, halo: ArrayLike, log10_mass: ArrayLike) -> Components:
    """Analysis of variance of one factor with random effects, about a line in log mass.

    Unbiased in the squares for normal or other errors; a negative square counts as 0.

    Parameters
    ----------
    residuals : array_like, shape (n,)
    halo : array_like, shape (n,)
        Halo of each window; some haloes have several.
    log10_mass : array_like, shape (n,)
        Of the halo: what depends on it linearly is no scatter.
    """
    e = np.asarray(residuals, float)
    x = np.asarray(log10_mass, float)
    x = x - x.mean()
    _, number, counts = np.unique(np.asarray(halo), return_inverse=True, return_counts=True)
    n, h = len(e), len(counts)
    if n <= h or h < 3:
        return Components(float("nan"), float("nan"))
    slope = (x * e).sum() / (x**2).sum() if x.any() else 0.0
    rest = e - e.mean() - slope * x
    means = np.bincount(number, rest) / counts
    within = ((rest - means[number]) ** 2).sum() / (n - h)
    # Two numbers, mean and slope, were fitted to the haloes.
    between = (counts * means**2).sum() / (h - 2)
    typical = (n - (counts**2).sum() / n) / (h - 1)
    square = (between - within) / typical
    return Components(float(np.sqrt(within)), float(np.sqrt(max(square, 0.0))))


def simulator(params: Params) -> Params:
    """Parameters of the mocks: other haloes than the run's, all along many sight lines."""
    study = params.study
    haloes = params.mock.haloes.model_copy(
        update={
            "n_windows": study.sight_line_haloes * study.sight_lines,
            "sight_lines_max": study.sight_lines,
            "log10_m200c_many_sight_lines": params.mock.haloes.log10_m200c_min - _EDGE_BELOW_DEX,
        }
    )
    changed = params.mock.model_copy(update={"haloes": haloes, "haloes_per_shard": 20})
    return params.model_copy(update={"mock": changed, "seed": params.seed + _SEED_STEP})


def work(workspace: Workspace, params: Params) -> str:
    """What the study does."""
    study = params.study
    return (
        f"{study.sight_line_haloes} haloes along {study.sight_lines} sight lines to simulate, and "
        f"{study.sight_line_haloes * study.sight_lines} windows to weigh with {workspace.model}"
    )


def tables(units: Sequence[Unit], workspace: Workspace, params: Params) -> dict[str, pa.Table]:
    """Table `sightlines`."""
    predictions, halo = _predictions(workspace, params)
    true, predicted = to_numpy(predictions, "log10_m200c_true", "log10_m200c")
    e = metrics.residual(true, predicted)
    bootstrap = metrics.Bootstrap(halo, generator(params.seed, "study-sightlines"))
    haloes = params.mock.haloes
    edges = np.linspace(haloes.log10_m200c_min, haloes.log10_m200c_max, _BINS + 1)
    bins = [("all", -np.inf, np.inf)]
    bins += [(f"{a:.2f}-{b:.2f}", a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    rows: list[dict[str, Any]] = []
    for name, low, high in bins:
        inside = (true >= low) & (true < high)
        if len(np.unique(halo[inside])) < _HALOES_MIN:
            continue

        def parts(chosen: metrics.Rows) -> list[float]:
            c = components(e[chosen], halo[chosen], true[chosen])
            return [c.within, c.between, c.within_fraction]

        names = ("within_scatter", "between_scatter", "within_fraction")
        errors = bootstrap.errors(parts, inside)
        numbers: dict[str, Any] = dict(zip(names, parts(np.flatnonzero(inside)), strict=True))
        numbers |= {f"{n}_error": float(v) for n, v in zip(names, errors, strict=True)}
        rows.append({
            "bin": name, "log10_m200c_low": float(true[inside].min()),
            "log10_m200c_centre": float(np.mean(true[inside])),
            "log10_m200c_high": float(true[inside].max()),
            "n_haloes": len(np.unique(halo[inside])), "n_evaluation": int(inside.sum()),
            "epsilon_mean": float(e[inside].mean()), "epsilon_scatter": metrics.scatter(e[inside]),
        } | numbers)  # fmt: skip
    return {"sightlines": table_of("sightlines", rows)}


def _predictions(workspace: Workspace, params: Params) -> tuple[pa.Table, NDArray[np.int64]]:
    """Table `study_predictions` of the windows, and their haloes; made once for each network."""
    from cmass.study.scores import halo_ids

    own = simulator(params)
    folder = Workspace(workspace.study / "profile" / "sightlines", "", params.survey)
    identity = {
        "mock": mock_digest(own), "network": file_digest(workspace.model / pretrained.WEIGHTS),
        "posterior": digest_of(*(
            file_digest(workspace.posterior / name)
            for name in ("predictions.parquet", "recalibration.json")
        )),
        "voxels": digest_of(params.voxels.model_dump(), source_digest("voxels.py")),
    }  # fmt: skip
    file, mark = folder.home / "predictions.parquet", folder.home / "predictions.json"
    if not (mark.exists() and read_json(mark) == identity):
        mock.run(folder, own)
        bundle = pretrained.from_workspace(workspace, params)
        write_table(file, _weigh(folder, bundle), "study_predictions")
        write_json(mark, identity)
    table = read_table(file, "study_predictions")
    return table, halo_ids(table["cluster_id"])


def _weigh(folder: Workspace, bundle: Bundle) -> pa.Table:
    """Table `study_predictions` of all windows that stand for a cluster and have a density."""
    columns = ["cluster_id", "log10_m200c_true", "z", "flag"]
    clusters = read_table(folder.mock / "clusters", "mock_clusters", columns)
    (flag,) = to_numpy(clusters, "flag")
    clusters = clusters.filter((flag & NOT_CATALOGUED) == 0)
    galaxies = read_table(
        folder.mock / "galaxies", "mock_galaxies", ["cluster_id", "x_proj", "y_proj", "v_los"]
    )
    points, offsets = points_by_cluster(galaxies, clusters["cluster_id"])
    point = weigh_points(points, offsets, bundle)
    known = np.isfinite(point)
    clusters, point, n_galaxies = clusters.filter(known), point[known], np.diff(offsets)[known]
    true, z = to_numpy(clusters, "log10_m200c_true", "z")
    return judged_points(
        clusters["cluster_id"], true, point, bundle.posterior(point, n_galaxies, z), bundle.edges
    )


def weigh_points(points: Array, offsets: NDArray[np.int64], bundle: Bundle) -> Array:
    """The network's log10 M200c (n,) of clouds of galaxies; NaN where there is no density."""
    from cmass.networks import prediction
    from cmass.progress import track

    clouds = (points[a:b] for a, b in zip(offsets[:-1], offsets[1:], strict=True))
    shown = track(clouds, "masses", total=len(offsets) - 1)
    return prediction.predict_clouds(bundle.network, shown, bundle.window, bundle.voxels)[:, 0]


def markdown(tables: Mapping[str, pa.Table]) -> str:
    """One line a bin of mass."""
    cells = []
    for r in tables["sightlines"].to_pylist():
        many = r["n_evaluation"] / r["n_haloes"]
        averaged = float(np.hypot(r["between_scatter"], r["within_scatter"] / np.sqrt(many)))
        cells.append([
            r["bin"].replace("-", "–"), str(r["n_haloes"]), str(r["n_evaluation"]),
            documents.value_cell(r["epsilon_scatter"]),
            documents.value_cell(r["within_scatter"], r["within_scatter_error"]),
            documents.value_cell(r["between_scatter"], r["between_scatter_error"]),
            documents.value_cell(r["within_fraction"], r["within_fraction_error"], digits=2),
            documents.value_cell(averaged),
        ])  # fmt: skip
    head = ["log10 M200c", "haloes", "windows", "scatter, dex", "by the sight line",
            "by the halo", "part of the variance by the sight line",
            "scatter of the mean of all sight lines"]  # fmt: skip
    return documents.grid(head, cells)


def draw(tables: Mapping[str, pa.Table]) -> Figure:
    """Scatter by sight line and by halo against mass."""
    from cmass.study.figures import BLUE, INK, RED, one_panel

    table = tables["sightlines"]
    table = table.filter(np.array([b != "all" for b in table["bin"].to_pylist()]))
    x, total, within, within_error, between, between_error = to_numpy(
        table, "log10_m200c_centre", "epsilon_scatter", "within_scatter", "within_scatter_error",
        "between_scatter", "between_scatter_error",
    )  # fmt: skip
    figure, axes = one_panel()
    axes.plot(x, total, "--", color=INK, label="all")
    axes.errorbar(x, within, yerr=within_error, fmt="o-", capsize=3, color=BLUE,
                  label="by the sight line")  # fmt: skip
    axes.errorbar(x, between, yerr=between_error, fmt="s-", capsize=3, color=RED,
                  label="by the halo")  # fmt: skip
    axes.set(xlabel=r"$\log_{10} M_{200c}$ [$h^{-1}\,M_\odot$]", ylim=(0, None),
             ylabel=r"Scatter of $\log_{10}(M_\mathrm{true}/M_\mathrm{pred})$ [dex]")  # fmt: skip
    axes.legend()
    return figure


STUDY = Study(
    "sightlines", ("sightlines",), tables, markdown, draw,
    "Scatter of the mass by the sight line and by the halo", work=work,
)  # fmt: skip
