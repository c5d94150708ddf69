"""priors: posteriors under the flat and the mass-function prior, each on its own population.

A posterior is calibrated for clusters drawn from its prior. The evaluation set is flat in log mass;
weighted by the mass function it is the other population. The windows of the step `population`, which
begin below the prior's edge, show what that edge does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from cmass import pretrained
from cmass.evaluate import metrics, proof, scores
from cmass.evaluate.proof import FLAT, HMF
from cmass.params import Params
from cmass.posterior import TAIL, cumulative_at, reweight
from cmass.seeds import generator
from cmass.study import Study, documents
from cmass.study.scores import halo_ids, table_of
from cmass.study.units import Unit
from cmass.tables import read_table, to_numpy
from cmass.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

_BIN_MIN = 30


def universe(params: Params) -> str:
    """What the windows of the step `population` are called: they begin at a lighter halo."""
    return f"{HMF}, from 10^{params.population.log10_m200c_min:.1f}"


def weighted_coverage(transform: ArrayLike, weight: ArrayLike, level: float) -> float:
    """Weighted part of the windows with the truth in the central interval of a level.

    Parameters
    ----------
    transform : array_like, shape (n,)
        Posterior probability below the truth.
    weight : array_like, shape (n,)
        Not negative.
    level : float
    """
    depth, w = 2 * np.abs(np.asarray(transform, float) - 0.5), np.asarray(weight, float)
    return float(w[depth <= level].sum() / w.sum()) if w.sum() > 0 else float("nan")


def numbers(
    transform: Array, bias: Array, weight: Array, bootstrap: metrics.Bootstrap,
    where: NDArray[np.bool_],
) -> dict[str, Any]:  # fmt: skip
    """Weighted coverage and bias of posteriors, with errors.

    Parameters
    ----------
    transform : ndarray, shape (n,)
        Posterior probability below the truth.
    bias : ndarray, shape (n,)
        True log mass less the posterior's mean: zero on average for a calibrated posterior,
        whatever the predicted mass.
    weight : ndarray, shape (n,)
    bootstrap : Bootstrap
    where : ndarray of bool, shape (n,)
    """

    def all_of(rows: metrics.Rows) -> list[float]:
        w = weight[rows]
        return [
            weighted_coverage(transform[rows], w, 1 - 2 * TAIL),
            weighted_coverage(transform[rows], w, 1 - 2 * float(ndtr(-2))),
            float((w * bias[rows]).sum() / w.sum()) if w.sum() > 0 else float("nan"),
        ]

    names = ("coverage_68", "coverage_95", "bias")
    values, errors = all_of(np.flatnonzero(where)), bootstrap.errors(all_of, where)
    out: dict[str, Any] = {
        "n_evaluation": int(where.sum()),
        "n_effective": scores.effective_number(weight[where]),
    }
    out |= dict(zip(names, values, strict=True))
    return out | {f"{n}_error": float(e) for n, e in zip(names, errors, strict=True)}


def work(workspace: Workspace, params: Params) -> str:
    """What the study does."""
    return f"posteriors of {workspace.evaluation} to judge under two priors"


def tables(units: Sequence[Unit], workspace: Workspace, params: Params) -> dict[str, pa.Table]:
    """Table `priors`."""
    bundle = pretrained.from_workspace(workspace, params)
    edges, (flat_prior, hmf_prior) = bundle.edges, bundle.priors
    centres = 0.5 * (edges[1:] + edges[:-1])
    predictions = read_table(workspace.evaluation / "predictions.parquet", "predictions")
    true, point, n_galaxies, z = to_numpy(
        predictions, "log10_m200c_true", "log10_m200c", "n_galaxies", "z"
    )
    flat = bundle.posterior(point, n_galaxies, z)
    # Truths beyond the prior's edges belong to neither population.
    inside = (true >= edges[0]) & (true <= edges[-1])
    even = np.where(inside, 1.0, 0.0)
    steep = proof.abundance(true, bundle, params)
    halo = halo_ids(predictions["cluster_id"])
    samples = [(FLAT, true, halo, flat, even), (HMF, true, halo, flat, steep)]
    file = workspace.evaluation / "population.parquet"
    if file.exists():
        seen = read_table(file, "population_masses")
        seen = seen.filter(pc.greater(seen["number_density_h3_mpc3"], 0))
        true, point, density, n_galaxies, z = to_numpy(
            seen, "log10_m200c_true", "log10_m200c", "number_density_h3_mpc3", "n_galaxies", "z"
        )
        posterior = bundle.posterior(point, n_galaxies, z)
        if len(true):
            samples.append((universe(params), true, np.arange(len(true)), posterior, density))
    rows: list[dict[str, Any]] = []
    for population, true, halo, posterior, weight in samples:
        bootstrap = metrics.Bootstrap(halo, generator(params.seed, "study-priors"))
        for prior, probabilities in (
            (FLAT, posterior),
            (HMF, reweight(posterior, flat_prior, hmf_prior)),
        ):
            if prior == FLAT and population not in (FLAT, HMF):
                continue
            transform = cumulative_at(probabilities, edges, true)
            mean = probabilities @ centres
            known = np.isfinite(mean) & (weight > 0)
            if not known.any():
                continue
            mass_bins = metrics.mass_bin_edges(mean[known], params.evaluate.mass_bin_dex)
            bins = [("all", known)]
            for low, high in zip(mass_bins[:-1], mass_bins[1:], strict=True):
                chosen = known & (mean >= low) & (mean < high)
                if chosen.sum() >= _BIN_MIN:
                    bins.append((f"{low:.2f}-{high:.2f}", chosen))
            rows += [
                {"prior": prior, "population": population, "bin": name}
                | numbers(transform, true - mean, weight, bootstrap, where)
                for name, where in bins
            ]
    return {"priors": table_of("priors", rows)}


def markdown(tables: Mapping[str, pa.Table]) -> str:
    """All windows of each prior and population, then bins of a prior on its own population."""
    cells = []
    for r in tables["priors"].to_pylist():
        if r["bin"] != "all" and r["prior"] != r["population"]:
            continue
        cells.append([
            r["prior"], r["population"], r["bin"].replace("-", "–"), str(r["n_evaluation"]),
            f"{r['n_effective']:.0f}",
            documents.value_cell(r["coverage_68"], r["coverage_68_error"]),
            documents.value_cell(r["coverage_95"], r["coverage_95_error"]),
            documents.value_cell(r["bias"], r["bias_error"], sign=True),
        ])  # fmt: skip
    head = ["prior", "population", "posterior's mean, log10 M200c", "windows", "worth", "inside 68 %",
            "inside 95 %", "mean of truth less posterior's mean, dex"]  # fmt: skip
    return documents.grid(head, cells)


def draw(tables: Mapping[str, pa.Table]) -> Figure:
    """Coverage and bias by predicted mass, each prior on its own population."""
    from cmass.study.figures import BLUE, INK, RED, panels

    figure, (left, right) = panels(2, 9.0, 3.8)
    rows = [r for r in tables["priors"].to_pylist()
            if r["bin"] != "all" and r["prior"] == r["population"]]  # fmt: skip
    for prior, colour, mark in ((FLAT, BLUE, "o"), (HMF, RED, "s")):
        own = [r for r in rows if r["prior"] == prior]
        x = [np.mean([float(v) for v in r["bin"].split("-")]) for r in own]
        for axes, name in ((left, "coverage_68"), (right, "bias")):
            y, e = ([r[c] for r in own] for c in (name, f"{name}_error"))
            axes.errorbar(x, y, yerr=e, fmt=mark, color=colour, capsize=3, label=f"{prior} prior")
    left.axhline(1 - 2 * TAIL, color=INK, lw=1, ls="--")
    right.axhline(0, color=INK, lw=1, ls="--")
    mass = r"Posterior's mean, $\log_{10} M_{200c}$ [$h^{-1}\,M_\odot$]"
    left.set(xlabel=mass, ylabel="Truth inside the 68 % interval")
    right.set(xlabel=mass, ylabel="Truth less posterior's mean [dex]")
    left.legend()
    return figure


STUDY = Study(
    "priors", ("priors",), tables, markdown, draw,
    "Coverage and bias of posteriors, each prior on its own population", work=work,
)  # fmt: skip
