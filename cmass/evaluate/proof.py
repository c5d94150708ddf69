"""The calibration of posteriors on the evaluation set, before and after recalibration.

Three posteriors stand beside each other: ``plain`` (the paper's, bandwidth 0.20), ``bandwidth``
(the same with the bandwidth that was chosen) and ``recalibrated`` (what is published). Each is
judged as a whole and in bins of what an observer knows (predicted mass, distance, richness) and
of what only a simulation knows (true mass, contamination). A perfect posterior is calibrated in
every bin of the first kind and in none of the second: prior edges and regression to the mean
move it. What it would show there is computed with truths drawn from the posteriors themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cmass import seeds
from cmass.columns import TABLES
from cmass.evaluate import Numbers, scores
from cmass.evaluate import calibration as kernels
from cmass.evaluate.metrics import Bootstrap
from cmass.params import Params
from cmass.posterior import cumulative_at, reweight
from cmass.pretrained import Bundle
from cmass.recalibration import Pairs, Posteriors, Recalibration, mean_error, powers
from cmass.tables import make_table

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

PLAIN, BANDWIDTH, RECALIBRATED = "plain", "bandwidth", "recalibrated"
FLAT, HMF = "flat", "mass function"
#: What bins are made of: quantity, unit, and whether only the truth knows it.
QUANTITIES = {
    "predicted mass": ("log10(Msun/h)", False),
    "distance": ("Mpc/h", False),
    "galaxies in the window": ("", False),
    "true mass": ("log10(Msun/h)", True),
    "contamination": ("", True),
}
#: What of the windows each of them is.
_VALUES = {
    "predicted mass": "predicted", "distance": "distance", "galaxies in the window": "n_galaxies",
    "true mass": "true", "contamination": "contamination",
}  # fmt: skip
#: Posteriors that are judged in bins as well: before and after.
IN_BINS = (PLAIN, RECALIBRATED)
#: Draws behind what a perfect posterior shows where the drawn truth chooses the bin.
_TRUTH_ROUNDS = 300
#: Draws of each posterior behind simulation-based ranks, and bins of both histograms.
_RANK_DRAWS = 99
_HISTOGRAM_BINS = 20


@dataclass(frozen=True)
class Windows:
    """Evaluated windows: what is judged, and what bins are made of.

    Attributes
    ----------
    true, predicted : ndarray, shape (n,)
        log10 M200c (h⁻¹ M☉), and the network's estimate of it.
    n_galaxies, z, distance : ndarray, shape (n,)
        Galaxies in the window, redshift, comoving distance (Mpc/h).
    contamination : ndarray, shape (n,)
        Part of the window's galaxies that are no members inside the sphere of R200c; NaN where
        nobody knows.
    halo : ndarray of int, shape (n,)
    weight : ndarray, shape (n,)
        Haloes of the mass function that a window stands for, up to a factor.
    edges : ndarray, shape (n_bins + 1,)
        Edges of the mass bins.
    """

    true: Array
    predicted: Array
    n_galaxies: Array
    z: Array
    distance: Array
    contamination: Array
    halo: NDArray[np.int64]
    weight: Array
    edges: Array

    def take(self, rows: Mask) -> Windows:
        """Some of the windows."""
        return replace(self, **{
            name: getattr(self, name)[rows]
            for name in ("true", "predicted", "n_galaxies", "z", "distance", "contamination", "halo",
                         "weight")
        })  # fmt: skip


class Judged:
    """Posteriors of windows of known mass, with what every diagnostic needs.

    Parameters
    ----------
    windows : Windows
    probabilities : ndarray, shape (n, n_bins)
        Windows without a posterior (NaN) are left out.
    params : Params
    """

    def __init__(self, windows: Windows, probabilities: Array, params: Params) -> None:
        #: Windows with a posterior, among those given.
        self.known: Mask = np.isfinite(probabilities.sum(axis=1))
        self._given = windows
        self.windows, self.probabilities = windows.take(self.known), probabilities[self.known]
        self.params, self.levels = params, params.evaluate.coverage_levels
        self.transform = cumulative_at(self.probabilities, windows.edges, self.windows.true)

    def rng(self, purpose: str) -> np.random.Generator:
        """The same draws for every posterior: differences are not noise of the draws."""
        return seeds.generator(self.params.seed, f"evaluate-{purpose}")

    @cached_property
    def perfect(self) -> Array:
        """Transforms of perfect posteriors, shape (rounds, n)."""
        return kernels.perfect_like(self.transform, self.windows.halo, self.rng("perfect"))

    @cached_property
    def curve(self) -> kernels.CoverageCurve:
        """Coverage of all windows."""
        return kernels.coverage_curve(self.transform, self.perfect, self.levels)

    @cached_property
    def drawn(self) -> Array:
        """Truths for which these posteriors would be exact, shape (rounds, n)."""
        edges = self.windows.edges
        return kernels.perfect_truths(self.probabilities, edges, self.perfect[:_TRUTH_ROUNDS])

    @cached_property
    def drawn_contamination(self) -> Array:
        """Contamination that windows of the drawn truths would have, shape (rounds, n).

        Contamination depends on the true mass: its logit is regressed on true mass, richness,
        redshift and predicted mass (second order), and residuals are dealt anew. NaN where nobody
        knows the window's own.
        """
        known = np.isfinite(self.windows.contamination)
        w, drawn = self.windows.take(known), self.drawn[:, known]
        given = np.column_stack([np.log10(w.n_galaxies), np.log10(w.z), w.predicted])
        centre, spread = given.mean(axis=0), np.maximum(given.std(axis=0), 1e-9)
        given, middle = (given - centre) / spread, w.true.mean()

        def features(true: Array) -> Array:
            return powers(np.column_stack([true - middle, given]), 2)

        # Half a galaxy on either side keeps windows without a member, or without an interloper.
        odds = np.log((w.contamination * w.n_galaxies + 0.5)
                      / ((1 - w.contamination) * w.n_galaxies + 0.5))  # fmt: skip
        fit = np.linalg.lstsq(features(w.true), odds, rcond=None)[0]
        residuals = odds - features(w.true) @ fit
        rng, out = self.rng("contamination"), np.full(self.drawn.shape, np.nan)
        for row, true in enumerate(drawn):
            logit = features(true) @ fit + rng.permutation(residuals)
            out[row, known] = 1 / (1 + np.exp(-logit))
        return out

    def bins(self, quantity: str) -> tuple[Array, list[Mask], list[Mask] | None]:
        """Edges, windows of each bin and, where the truth decides, windows of each bin and draw.

        The edges are those of all windows given, whether this posterior has them or not: every
        posterior has the same bins. Windows of which the quantity is not known are in no bin.
        """
        name = _VALUES[quantity]
        given, values = getattr(self._given, name), getattr(self.windows, name)
        known = np.isfinite(values)
        if not known.any():
            return np.empty(0), [], None
        how = self.params.evaluate
        given = given[np.isfinite(given)]
        edges = kernels.quantile_bins(given, how.calibration_bins, how.calibration_min)
        k = max(edges.size - 1, 0)
        number = kernels.bin_number(values, edges) if k else values
        masks = [known & (number == i) for i in range(k)]
        if not QUANTITIES[quantity][1] or not k:
            return edges, masks, None
        drawn = self.drawn if quantity == "true mass" else self.drawn_contamination
        of_drawn = np.where(known, kernels.bin_number(drawn, edges), -1)
        return edges, masks, [of_drawn == i for i in range(k)]


def abundance(log10_m200c: Array, bundle: Bundle, params: Params) -> Array:
    """Haloes of the mass function (up to a factor) that each evaluated window stands for.

    Tinker+2008, as the bundle's second prior has it, over the masses that the simulator deals;
    none outside the prior's edges.
    """
    from cmass.mock.haloes import window_share

    edges, hmf = bundle.edges, bundle.priors[1]
    inside = (log10_m200c >= edges[0]) & (log10_m200c <= edges[-1])
    steep = np.where(inside, np.interp(log10_m200c, 0.5 * (edges[1:] + edges[:-1]), hmf), 0.0)
    share = window_share(log10_m200c, params.mock.haloes)
    return np.divide(steep, share, out=np.zeros_like(steep), where=share > 0)


def priors_of(judged: Mapping[str, Judged], bundle: Bundle) -> dict[str, tuple[Array, Array]]:
    """Flat and mass-function prior per bin of each posterior; kernels blur the flat one's edges."""
    flat, hmf = bundle.priors
    plain = bundle.density.prior(bundle.edges)
    return {name: (plain if name == PLAIN else flat, hmf) for name in judged}


def judge(windows: Windows, bundle: Bundle, test: Pairs, params: Params) -> dict[str, Judged]:
    """The three posteriors of the evaluated windows, by name.

    Parameters
    ----------
    windows : Windows
    bundle : Bundle
    test : Pairs
        The test set, of which the posteriors are made.
    params : Params
    """
    chosen = Recalibration(bundle.posteriors.recalibration.bandwidth)
    edges, predicted = windows.edges, windows.predicted
    found = {
        PLAIN: bundle.density.posterior(predicted, edges),
        BANDWIDTH: Posteriors(test, chosen).posterior(
            predicted, windows.n_galaxies, windows.z, edges
        ),
        RECALIBRATED: bundle.posterior(predicted, windows.n_galaxies, windows.z),
    }
    return {name: Judged(windows, p, params) for name, p in found.items()}


def _columns(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    return make_table(name, {c: [row.get(c) for row in rows] for c in TABLES[name].names})


def _curve_rows(curve: kernels.CoverageCurve, **of: Any) -> list[dict[str, Any]]:
    columns = zip(curve.level, curve.coverage, curve.perfect, curve.low, curve.high, strict=True)
    names = ("level", "coverage", "coverage_perfect", "coverage_low", "coverage_high")
    return [{**of, **dict(zip(names, map(float, row), strict=True))} for row in columns]


def _tarp(one: Judged, prior: Array) -> kernels.CoverageCurve:
    edges, w = one.windows.edges, one.windows
    references = kernels.tarp_references(prior, edges, w.true.size, one.rng("references"))
    transform = kernels.tarp_transform(one.probabilities, edges, w.true, references)
    perfect = kernels.perfect_like(transform, w.halo, one.rng("tarp"))
    return kernels.tarp_curve(transform, perfect, one.levels)


def _ranks(one: Judged) -> kernels.Histogram:
    rng, w = one.rng("ranks"), one.windows
    ranks = kernels.sbc_ranks(one.probabilities, w.edges, w.true, _RANK_DRAWS, rng)
    return kernels.flat_histogram(
        kernels.rank_transform(ranks, _RANK_DRAWS, rng),
        kernels.rank_transform(
            kernels.perfect_ranks(one.perfect, _RANK_DRAWS, rng), _RANK_DRAWS, rng
        ),
        _HISTOGRAM_BINS,
    )


def _scores(one: Judged, weights: Array | None = None) -> dict[str, Any]:
    """CRPS, log score, width and entropy, with errors by resampling haloes."""
    p, edges, w = one.probabilities, one.windows.edges, one.windows
    values = {
        "crps": scores.crps(p, edges, w.true), "log_score": scores.log_score(p, edges, w.true),
        "width_68": scores.width_68(p, edges), "entropy": scores.entropy(p, edges),
    }  # fmt: skip
    heavy = np.ones(w.true.size) if weights is None else weights
    out: dict[str, Any] = {"n": w.true.size, "n_effective": scores.effective_number(heavy)}
    bootstrap = Bootstrap(w.halo, one.rng("scores"), rounds=200)
    for name, value in values.items():
        out[name] = float(np.average(value, weights=heavy))

        def mean(rows: NDArray[np.int64], value: Array = value) -> float:
            return float(np.average(value[rows], weights=heavy[rows]))

        if name in ("crps", "log_score"):
            out[f"{name}_error"] = bootstrap.error(mean)
    return out


def _verdict(curve: kernels.CoverageCurve) -> dict[str, float]:
    return {
        "coverage_error": curve.signed_error, "perfect_error": curve.perfect_error,
        "perfect_error_high": curve.perfect_error_high, "chance": curve.chance,
    }  # fmt: skip


def tables(
    judged: Mapping[str, Judged], priors: Mapping[str, tuple[Array, Array]]
) -> dict[str, pa.Table]:
    """Tables of the diagnostics, by name.

    Parameters
    ----------
    judged : dict of str to Judged
        Posteriors by name.
    priors : dict of str to (ndarray, ndarray)
        Flat and mass-function prior (n_bins,) of each posterior.

    Returns
    -------
    dict of str to pyarrow.Table
        ``calibration_curves``, ``calibration_bins``, ``calibration_histograms`` and
        ``calibration_scores``.
    """
    curves: list[dict[str, Any]] = []
    bins: list[dict[str, Any]] = []
    histograms: list[dict[str, Any]] = []
    scored: list[dict[str, Any]] = []
    for name, one in judged.items():
        if not one.transform.size:
            continue
        flat, hmf = priors[name]
        tarp, ranks = _tarp(one, flat), _ranks(one)
        pit = kernels.flat_histogram(one.transform, one.perfect, _HISTOGRAM_BINS)
        curves += _curve_rows(one.curve, posterior_kind=name, diagnostic="coverage", quantity="all",
                              bin="all")  # fmt: skip
        curves += _curve_rows(tarp, posterior_kind=name, diagnostic="tarp", quantity="all",
                              bin="all")  # fmt: skip
        for diagnostic, histogram in (("pit", pit), ("sbc", ranks)):
            histograms += [
                {"posterior_kind": name, "diagnostic": diagnostic, "transform_low": float(low),
                 "transform_high": float(high), "n": int(n), "n_low": float(a), "n_high": float(b)}
                for low, high, n, a, b in zip(
                    histogram.edges[:-1], histogram.edges[1:], histogram.count, histogram.low,
                    histogram.high, strict=True,
                )
            ]  # fmt: skip
        bins += _bin_rows(name, one, curves, QUANTITIES if name in IN_BINS else {})
        scored.append(
            {"posterior_kind": name, "prior": FLAT, "population": FLAT, **_scores(one),
             **_verdict(one.curve), "tarp_error": tarp.signed_error, "tarp_chance": tarp.chance,
             "pit_chance": pit.chi2_chance, "pit_distance": pit.distance,
             "pit_distance_chance": pit.distance_chance, "sbc_chance": ranks.chi2_chance}
        )  # fmt: skip
        scored += _other_priors(name, one, flat, hmf)
    return {
        "calibration_curves": _columns("calibration_curves", curves),
        "calibration_bins": _columns("calibration_bins", bins),
        "calibration_histograms": _columns("calibration_histograms", histograms),
        "calibration_scores": _columns("calibration_scores", scored),
    }


def _bin_rows(
    name: str, one: Judged, curves: list[dict[str, Any]], quantities: Mapping[str, tuple[str, bool]]
) -> list[dict[str, Any]]:
    """Rows of table `calibration_bins`; the bins' curves are added to `curves`."""
    w = one.windows
    crps = scores.crps(one.probabilities, w.edges, w.true)
    log_score = scores.log_score(one.probabilities, w.edges, w.true)
    width = scores.width_68(one.probabilities, w.edges)
    rows = []

    def row(quantity: str, bin: str, low: float | None, high: float | None, unit: str, mask: Mask,
            curve: kernels.CoverageCurve) -> dict[str, Any]:  # fmt: skip
        off = curve.perfect - curve.level
        return {
            "posterior_kind": name, "quantity": quantity, "bin": bin, "bin_low": low, "bin_high": high, "unit": unit, "n": int(mask.sum()),
            "n_haloes": int(np.unique(w.halo[mask]).size), **_verdict(curve),
            "perfect_offset": float(off[np.argmax(np.abs(off))]), "perfect_band": curve.band,
            "mean_transform": float(one.transform[mask].mean()), "crps": float(crps[mask].mean()),
            "log_score": float(log_score[mask].mean()), "width_68": float(width[mask].mean()),
        }  # fmt: skip

    everything = np.ones(w.true.size, bool)
    rows.append(row("all", "all", None, None, "", everything, one.curve))
    for quantity, (unit, by_truth) in quantities.items():
        edges, masks, drawn = one.bins(quantity)
        perfect = one.perfect[:_TRUTH_ROUNDS] if by_truth else one.perfect
        for k, mask in enumerate(masks):
            curve = kernels.coverage_curve(
                one.transform, perfect, one.levels, mask, None if drawn is None else drawn[k]
            )
            low, high = float(edges[k]), float(edges[k + 1])
            digits = ".2f" if high < 20 else ".0f"
            bin = f"{low:{digits}}-{high:{digits}}"
            rows.append(row(quantity, bin, low, high, unit, mask, curve))
            curves += _curve_rows(curve, posterior_kind=name, diagnostic="coverage",
                                  quantity=quantity, bin=bin)  # fmt: skip
    return rows


def _other_priors(name: str, one: Judged, flat: Array, hmf: Array) -> list[dict[str, Any]]:
    """Scores of each prior's posteriors on each population, but for flat on flat."""
    of_hmf = Judged(one.windows, reweight(one.probabilities, flat, hmf), one.params)
    rows = []
    for prior, model in ((FLAT, one), (HMF, of_hmf)):
        for population in (FLAT, HMF):
            if prior == population == FLAT:
                continue
            heavy = model.windows.weight if population == HMF else None
            if heavy is not None and not heavy.sum() > 0:
                continue
            curve = kernels.coverage_curve(
                model.transform, model.perfect, model.levels, weights=heavy
            )
            rows.append({"posterior_kind": name, "prior": prior, "population": population,
                         **_scores(model, heavy), **_verdict(curve)})  # fmt: skip
    return rows


def gain(after: Judged, before: Judged) -> dict[str, tuple[float, float]]:
    """Gain of log score and CRPS (positive: better) and its standard error.

    Window by window, over those that have both posteriors; `after` and `before` are of the same
    windows.
    """
    both = after.known & before.known
    common = after.windows.take(both[after.known])
    edges, true = common.edges, common.true
    one, other = after.probabilities[both[after.known]], before.probabilities[both[before.known]]
    differences = {
        "crps": scores.crps(other, edges, true) - scores.crps(one, edges, true),
        "log_score": scores.log_score(one, edges, true) - scores.log_score(other, edges, true),
    }
    return {name: mean_error(d, common.halo) for name, d in differences.items()}


def worst_bin(one: Judged, quantity: str) -> tuple[float, float] | None:
    """Largest coverage error over the bins of a quantity, and what a perfect posterior stays below.

    The second is the 95 % quantile of perfect posteriors' worst bin; None without bins.
    """
    _, masks, drawn = one.bins(quantity)
    if not masks:
        return None
    errors = [kernels.coverage_error(one.transform[mask], one.levels) for mask in masks]
    perfect = one.perfect if drawn is None else one.perfect[:_TRUTH_ROUNDS]
    chosen = masks if drawn is None else drawn
    by_chance = kernels.perfect_errors(perfect, one.levels, chosen)
    return max(errors), float(np.quantile(by_chance, 0.95))


def add_numbers(numbers: Numbers, judged: Mapping[str, Judged]) -> None:
    """Rows of table `calibration`: before, after, and what perfect posteriors stay below."""
    after, before = judged[RECALIBRATED], judged[PLAIN]
    if not after.transform.size:
        return
    numbers.add("coverage_error_max_plain", before.curve.largest_error)
    numbers.add("coverage_error_max_perfect", after.curve.perfect_error_high)
    numbers.add("coverage_error_max_chance", after.curve.chance)
    for quantity in QUANTITIES:
        for name, one in (("", after), ("_plain", before)):
            found = worst_bin(one, quantity)
            if found is None:
                continue
            numbers.add(f"coverage_error_bin_max{name}", found[0], bin=quantity)
            if not name:
                numbers.add("coverage_error_bin_max_perfect", found[1], bin=quantity)
    edges = after.windows.edges
    units = {"crps": "dex", "log_score": "nat"}
    for score, unit in units.items():
        for name, one in (("", after), ("_plain", before)):
            values = getattr(scores, score)(one.probabilities, edges, one.windows.true)
            mean, error = mean_error(values, one.windows.halo)
            numbers.add(f"{score}{name}", mean, error=error, unit=unit)
    for score, (value, error) in gain(after, before).items():
        numbers.add(f"{score}_gain", value, error=error, unit=units[score])
    for name, one in (("", after), ("_plain", before)):
        width = float(scores.width_68(one.probabilities, edges).mean())
        numbers.add(f"width_68{name}", width, unit="dex")
