"""Posteriors that hold what they promise: how the joint density is made, chosen on the test set.

The plain posterior (paper, sections 3.1 and 4.1) is the slice of the joint density of point
estimate and truth, with a kernel of fixed bandwidth. Four things can make it better calibrated,
each chosen by the cross-validated log score of the test set, whose folds are made of haloes:

1. its ends: the prior has edges, where a kernel density, cut off, has half of its height. Folded at
   the edges, it keeps all of it;
2. the bandwidth of the density;
3. what the observer knows beside the estimate: the network reads a density of unit sum and knows
   neither how many galaxies the window has nor how far the cluster is. `Correction` predicts the
   truth from estimate, log number of galaxies and log redshift by a polynomial, and the size of
   the residual by another; the posterior is the slice of the joint density of corrected estimate
   and standardised residual;
4. a monotone map of the probability integral transform, the cumulative of a beta distribution:
   conformal recalibration with two parameters. An isotonic map of a few thousand transforms would
   follow their noise, which is as large as the errors that are left.

A stage that adds parameters is kept if it raises the log score by more than ``posterior.gain_sigma``
standard errors of the gain. No cluster of the evaluation set enters, and none of a survey.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import betainc, betaln, digamma
from scipy.stats import beta

from cmass.errors import InputError
from cmass.params import PosteriorParams
from cmass.posterior import LOG_SCORE_FLOOR, JointDensity
from cmass.tables import make_table, to_numpy

Array = NDArray[np.float64]

#: Bandwidths among which the log score chooses.
BANDWIDTHS = (0.08, 0.10, 0.13, 0.16, 0.20, 0.25, 0.32, 0.40)
#: Orders of the polynomials of location and of log scale, by number of parameters.
CORRECTIONS = ((1, 0), (1, 1), (2, 0), (2, 1), (3, 1))
#: A correction needs so many pairs for each of its parameters.
_PAIRS_PER_PARAMETER = 20
#: A cluster nearer than this is as near as this; the correction stays at its rim long before.
_Z_MIN = 1e-6
#: Rounds of location and scale, each fitted with the other held; they converge in three.
_FIT_ROUNDS = 6


@dataclass(frozen=True)
class Pairs:
    """Estimates of windows of known mass, and what an observer knows of them.

    Attributes
    ----------
    predicted, true : ndarray, shape (n,)
        Point estimate and truth, log10 M200c in h⁻¹ M☉; finite.
    n_galaxies, z : ndarray, shape (n,)
        Galaxies in the window and redshift; positive.
    groups : ndarray of int, shape (n,)
        Halo of each window.
    """

    predicted: Array
    true: Array
    n_galaxies: Array
    z: Array
    groups: NDArray[np.int64]

    def take(self, rows: NDArray[Any]) -> Pairs:
        """Some of the pairs, by row number or mask."""
        return Pairs(
            self.predicted[rows], self.true[rows], self.n_galaxies[rows], self.z[rows],
            self.groups[rows],
        )  # fmt: skip


def pairs_of(predictions: pa.Table) -> Pairs:
    """The pairs of a table `predictions` or `test_pairs`, in the precision of the latter.

    Without haloes (`test_pairs`) each window is of one of its own.
    """
    d, m, z = (
        x.astype(np.float32).astype(float)
        for x in to_numpy(predictions, "log10_m200c", "log10_m200c_true", "z")
    )
    (n,) = to_numpy(predictions, "n_galaxies")
    halo = np.arange(d.size)
    if "halo_id" in predictions.column_names:
        (halo,) = to_numpy(predictions, "halo_id")
    return Pairs(d, m, n.astype(float), z, halo.astype(np.int64))


def pairs_table(pairs: Pairs) -> pa.Table:
    """Table `test_pairs`, by estimate: sorted numbers make a small file."""
    sorted_ = pairs.take(np.argsort(pairs.predicted, kind="stable"))
    return make_table(
        "test_pairs",
        {"log10_m200c_true": sorted_.true, "log10_m200c": sorted_.predicted,
         "n_galaxies": sorted_.n_galaxies.astype(np.int32), "z": sorted_.z},
    )  # fmt: skip


def _known(predicted: Array, n_galaxies: Array, z: Array) -> Array:
    """Estimate, log10 number of galaxies and log10 redshift, shape (n, 3)."""
    return np.column_stack([predicted, np.log10(n_galaxies), np.log10(np.maximum(z, _Z_MIN))])


def powers(x: Array, order: int) -> Array:
    """All products of at most `order` columns of `x`, the constant first, shape (n, k)."""
    columns = [np.ones(len(x))]
    for degree in range(1, order + 1):
        for chosen in combinations_with_replacement(range(x.shape[1]), degree):
            columns.append(np.prod(x[:, chosen], axis=1))
    return np.column_stack(columns)


@dataclass(frozen=True)
class Correction:
    """Truth and size of its residual from estimate, number of galaxies and redshift.

    Attributes
    ----------
    orders : (int, int)
        Orders of the polynomials of location and of log scale.
    location, log_scale : tuple of float
        Their coefficients, in standardised (d̃, log10 n, log10 z).
    centre, spread, low, high : tuple of float
        Mean, standard deviation and range of the three in the test set. Beyond its range the
        correction stays what it is at the rim: a polynomial is no guide there.
    """

    orders: tuple[int, int]
    location: tuple[float, ...]
    log_scale: tuple[float, ...]
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def n_parameters(self) -> int:
        """Numbers that were fitted."""
        return len(self.location) + len(self.log_scale)

    @classmethod
    def fit(cls, pairs: Pairs, orders: tuple[int, int]) -> Self:
        """Fit both polynomials by maximum likelihood of a normal residual.

        Raises
        ------
        InputError
            Fewer pairs than parameters.
        """
        known = _known(pairs.predicted, pairs.n_galaxies, pairs.z)
        centre, spread = known.mean(axis=0), known.std(axis=0)
        spread = np.where(spread > 0, spread, 1.0)
        x = (known - centre) / spread
        mean_of, width_of = powers(x, orders[0]), powers(x, orders[1])
        if len(x) <= mean_of.shape[1] + width_of.shape[1]:
            raise InputError(f"{len(x)} pairs cannot fit a correction of orders {orders}")
        log_scale = np.zeros(width_of.shape[1])
        for round_ in range(_FIT_ROUNDS):
            weight = np.exp(-width_of @ log_scale)
            location = np.linalg.lstsq(
                mean_of * weight[:, None], pairs.true * weight, rcond=None
            )[0]  # fmt: skip
            square = (pairs.true - mean_of @ location) ** 2

            def minus_log_likelihood(
                g: Array, square: Array = square
            ) -> tuple[float, Array]:  # fmt: skip
                chi2 = square * np.exp(-2 * width_of @ g)
                slope = width_of.mean(axis=0) - chi2 @ width_of / chi2.size
                return float((width_of @ g).mean() + 0.5 * chi2.mean()), slope

            if round_ == 0:
                log_scale[0] = 0.5 * math.log(max(float(square.mean()), 1e-12))
            log_scale = minimize(minus_log_likelihood, log_scale, jac=True, method="BFGS").x
        return cls(
            orders,
            *(tuple(map(float, v)) for v in (location, log_scale, centre, spread)),
            *(tuple(map(float, v)) for v in (known.min(axis=0), known.max(axis=0))),
        )

    def apply(self, predicted: Array, n_galaxies: Array, z: Array) -> tuple[Array, Array]:
        """Corrected estimate (log10 M200c) and size of its residual (dex), shape (n,) each."""
        known = np.clip(_known(predicted, n_galaxies, z), self.low, self.high)
        x = (known - np.array(self.centre)) / np.array(self.spread)
        location = powers(x, self.orders[0]) @ np.array(self.location)
        return location, np.exp(powers(x, self.orders[1]) @ np.array(self.log_scale))


@dataclass(frozen=True)
class TransformMap:
    """Map of the probability integral transform: the cumulative of a beta distribution.

    Attributes
    ----------
    a, b : float
        Its parameters; a = b = 1 changes nothing, a = b > 1 narrows posteriors.
    """

    a: float
    b: float

    @classmethod
    def fit(cls, transform: Array) -> Self:
        """Fit to transforms of the test set by maximum likelihood."""
        u = _inside(transform)
        below, above = float(np.log(u).mean()), float(np.log1p(-u).mean())

        def minus_log_likelihood(logs: Array) -> tuple[float, Array]:
            a, b = np.exp(logs)
            slope = np.array([digamma(a) - below, digamma(b) - above]) - digamma(a + b)
            return float(betaln(a, b) - (a - 1) * below - (b - 1) * above), slope * (a, b)

        found = minimize(minus_log_likelihood, np.zeros(2), jac=True, method="BFGS")
        a, b = np.exp(found.x)
        return cls(float(a), float(b))

    def log_density(self, transform: Array) -> Array:
        """What it adds to the log posterior density of a cluster with this transform, nats."""
        return beta.logpdf(_inside(transform), self.a, self.b)

    def apply(self, probabilities: Array) -> Array:
        """Mapped posteriors, shape (n, n_bins)."""
        cumulative = np.cumsum(probabilities, axis=1)
        cumulative = np.column_stack([np.zeros(len(cumulative)), np.minimum(cumulative, 1.0)])
        cumulative[:, -1] = np.where(np.isfinite(cumulative[:, -1]), 1.0, np.nan)
        return np.diff(betainc(self.a, self.b, cumulative), axis=1)


def _inside(transform: Array) -> Array:
    return np.clip(transform, 1e-6, 1 - 1e-6)


@dataclass(frozen=True)
class Recalibration:
    """How posteriors are made of point estimates.

    Attributes
    ----------
    bandwidth : float
        Factor of the kernel's bandwidth.
    correction : Correction, optional
    transform_map : TransformMap, optional
    folded : bool
        Whether densities are folded at the edges of the prior rather than cut off.
    """

    bandwidth: float
    correction: Correction | None = None
    transform_map: TransformMap | None = None
    folded: bool = False

    def as_json(self) -> dict[str, Any]:
        """The same as JSON has it."""
        correction, mapped = self.correction, self.transform_map
        return {
            "bandwidth": self.bandwidth,
            "correction": None if correction is None else {
                name: list(getattr(correction, name)) for name in Correction.__dataclass_fields__
            },
            "transform_map": None if mapped is None else {"a": mapped.a, "b": mapped.b},
            "folded": self.folded,
        }  # fmt: skip

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read `as_json`.

        Raises
        ------
        KeyError, TypeError
            The values are not those of a recalibration.
        """
        correction, mapped = values["correction"], values["transform_map"]
        return cls(
            float(values["bandwidth"]),
            None if correction is None else Correction(
                **{name: tuple(correction[name]) for name in Correction.__dataclass_fields__}
            ),
            None if mapped is None else TransformMap(float(mapped["a"]), float(mapped["b"])),
            bool(values.get("folded", False)),  # models of before have no word of it
        )  # fmt: skip


class Posteriors:
    """Posteriors of point estimates, recalibrated.

    Parameters
    ----------
    pairs : Pairs
        The test set.
    recalibration : Recalibration
        Without correction and map this is the plain joint density.
    """

    def __init__(self, pairs: Pairs, recalibration: Recalibration) -> None:
        self.recalibration = recalibration
        self.plain = JointDensity(pairs.predicted, pairs.true, recalibration.bandwidth)
        centre, scale = self._coordinates(pairs.predicted, pairs.n_galaxies, pairs.z)
        # A kernel density does not change with a linear map: where nothing is corrected, the
        # density of (estimate, residual) is that of (estimate, truth).
        self._density = JointDensity(centre, (pairs.true - centre) / scale, recalibration.bandwidth)

    def _coordinates(self, predicted: Array, n_galaxies: Array, z: Array) -> tuple[Array, Array]:
        """Estimate and scale that the density is made of."""
        correction = self.recalibration.correction
        if correction is None:
            return predicted, np.ones(predicted.size)
        return correction.apply(predicted, n_galaxies, z)

    @property
    def kernel_width_dex(self) -> float:
        """Kernel width in log mass (dex)."""
        return self.plain.kernel_width_dex

    def prior(self, edges: Array) -> Array:
        """Prior probability per bin: the test set's masses under the kernel, unit sum."""
        return self.plain.prior(edges)

    def posterior(self, predicted: Array, n_galaxies: Array, z: Array, edges: Array) -> Array:
        """Posterior probability per mass bin under the flat prior.

        Parameters
        ----------
        predicted : ndarray, shape (n,)
            The network's point estimates d̃.
        n_galaxies, z : ndarray, shape (n,)
            Galaxies in the window and redshift; they count where there is a correction.
        edges : ndarray, shape (n_bins + 1,)
            Edges of the bins in log10 M200c.

        Returns
        -------
        ndarray, shape (n, n_bins)
            Rows sum to one. Rows are NaN where d̃ is outside the calibrated range or is not
            finite: such an estimate has no posterior, and is never clipped.
        """
        d, n, redshift = (np.asarray(x, float) for x in (predicted, n_galaxies, z))
        out = np.full((d.size, len(edges) - 1), np.nan)
        good = np.isfinite(d) & (self.plain.flags(d) == 0)
        centre, scale = self._coordinates(d[good], n[good], redshift[good])
        found = self._density.conditional(
            centre, centre, scale, edges, folded=self.recalibration.folded
        )
        mapped = self.recalibration.transform_map
        out[good] = found if mapped is None else mapped.apply(found)
        return out

    def at_truth(self, pairs: Pairs, limits: tuple[float, float]) -> tuple[Array, Array]:
        """Posterior density (dex⁻¹) and cumulative probability at the truth of each pair.

        Exact, without bins, for posteriors between two log masses `limits`; before the map.
        """
        centre, scale = self._coordinates(pairs.predicted, pairs.n_galaxies, pairs.z)
        return self._density.conditional_at(
            centre, centre, scale, pairs.true, limits, folded=self.recalibration.folded
        )


# ------------------------------------------------------------------------- cross-validation


def halo_folds(
    groups: NDArray[np.int64], folds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Fold of each row, 0 to folds − 1: haloes dealt at random, none to two folds."""
    names, number = np.unique(groups, return_inverse=True)
    return (rng.permutation(names.size) % folds)[number]


def mean_error(values: Array, groups: NDArray[np.int64]) -> tuple[float, float]:
    """Mean of values and its standard error, groups being independent but not rows."""
    _, number = np.unique(groups, return_inverse=True)
    rest = np.bincount(number, values - values.mean())
    return float(values.mean()), float(np.sqrt((rest**2).sum())) / values.size


@dataclass
class Search:
    """Cross-validated scores of ways to make posteriors, in the order they were tried.

    Parameters
    ----------
    pairs : Pairs
    fold : ndarray of int, shape (n,)
    gain_sigma : float
        Standard errors that a gain must exceed to be certain.
    folded : bool
        Whether the densities that are tried are folded at the prior's edges.
    """

    pairs: Pairs
    fold: NDArray[np.int64]
    gain_sigma: float
    folded: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._limits = float(self.pairs.true.min()), float(self.pairs.true.max())
        self._corrections: dict[tuple[int, int], list[Correction]] = {}

    def _correction(self, orders: tuple[int, int] | None, k: int) -> Correction | None:
        if orders is None:
            return None
        if orders not in self._corrections:
            self._corrections[orders] = [
                Correction.fit(self.pairs.take(self.fold != j), orders)
                for j in range(int(self.fold.max()) + 1)
            ]
        return self._corrections[orders][k]

    def out_of_fold(
        self, bandwidth: float, orders: tuple[int, int] | None
    ) -> tuple[Array, Array]:  # fmt: skip
        """Log density and transform at each truth, by the haloes of the other folds."""
        density, transform = np.empty((2, self.pairs.true.size))
        for k in range(int(self.fold.max()) + 1):
            inside = self.fold == k
            how = Recalibration(bandwidth, self._correction(orders, k), folded=self.folded)
            model = Posteriors(self.pairs.take(~inside), how)
            density[inside], transform[inside] = model.at_truth(
                self.pairs.take(inside), self._limits
            )
        return np.log(np.maximum(density, LOG_SCORE_FLOOR)), transform

    def mapped(self, score: Array, transform: Array) -> Array:
        """Log density after a map of the transforms that the other folds have."""
        out = score.copy()
        for k in range(int(self.fold.max()) + 1):
            inside = self.fold == k
            out[inside] += TransformMap.fit(transform[~inside]).log_density(transform[inside])
        return out

    def add(self, stage: str, candidate: str, n_parameters: int, score: Array, than: Array) -> bool:
        """Note a candidate's score and its gain over another's; whether the gain is certain."""
        gain, error = mean_error(score - than, self.pairs.groups)
        self.rows.append(
            {"stage": stage, "candidate": candidate, "n_parameters": n_parameters,
             "log_score": float(score.mean()), "log_score_gain": gain,
             "log_score_gain_error": error, "chosen": False}
        )  # fmt: skip
        return gain > self.gain_sigma * error

    def mark(self, stage: str, candidate: str) -> None:
        """Note that a candidate was chosen."""
        for row in self.rows:
            if row["stage"] == stage:
                row["chosen"] = row["candidate"] == candidate

    def table(self) -> pa.Table:
        """Table `recalibration`."""
        names = ("stage", "candidate", "n_parameters", "log_score", "log_score_gain",
                 "log_score_gain_error", "chosen")  # fmt: skip
        return make_table("recalibration", {n: [row[n] for row in self.rows] for n in names})


def choose(
    pairs: Pairs, how: PosteriorParams, rng: np.random.Generator
) -> tuple[Recalibration, pa.Table]:
    """Choose how posteriors are made, by the cross-validated log score of the test set.

    Parameters
    ----------
    pairs : Pairs
        The test set.
    how : PosteriorParams
    rng : numpy.random.Generator
        Deals haloes to folds.

    Returns
    -------
    Recalibration
    pyarrow.Table
        Table `recalibration`: every candidate with its score. Empty where nothing was to choose.
    """
    n_haloes = np.unique(pairs.groups).size
    automatic = how.bandwidth == "auto"
    fixed = how.plain_bandwidth if how.bandwidth == "auto" else how.bandwidth
    if (not automatic and how.recalibration == "none") or n_haloes < 2 * how.folds:
        return Recalibration(fixed), Search(pairs, np.zeros(0, np.int64), how.gain_sigma).table()
    search = Search(pairs, halo_folds(pairs.groups, how.folds, rng), how.gain_sigma)
    plain, transform = search.out_of_fold(fixed, None)
    search.add("plain", f"bandwidth {fixed:.2f}", 0, plain, plain)
    if how.recalibration == "auto":
        search.folded = True
        tried, its_transform = search.out_of_fold(fixed, None)
        if search.add("edges", "folded at the prior's edges", 0, tried, plain):
            plain, transform = tried, its_transform
            search.mark("edges", "folded at the prior's edges")
        else:
            search.folded = False

    def best_bandwidth(
        stage: str, orders: tuple[int, int] | None, than: Array, now: float
    ) -> tuple[float, Array, Array]:
        found = {}
        for bandwidth in BANDWIDTHS if automatic else (now,):
            found[bandwidth] = search.out_of_fold(bandwidth, orders)
            search.add(stage, f"bandwidth {bandwidth:.2f}", 1, found[bandwidth][0], than)
        best = max(found, key=lambda b: float(found[b][0].mean()))
        search.mark(stage, f"bandwidth {best:.2f}")
        return best, *found[best]

    bandwidth, score, transform = best_bandwidth("bandwidth", None, plain, fixed)
    chosen: tuple[int, int] | None = None
    mapped = False
    if how.recalibration == "auto":
        for orders in CORRECTIONS:
            n_parameters = sum(math.comb(3 + order, 3) for order in orders)
            if pairs.true.size < _PAIRS_PER_PARAMETER * n_parameters:
                continue
            tried, its_transform = search.out_of_fold(bandwidth, orders)
            name = f"location of order {orders[0]}, scale of order {orders[1]}"
            if search.add("correction", name, n_parameters, tried, score):
                chosen, score, transform = orders, tried, its_transform
                search.mark("correction", name)
        if chosen is not None:
            bandwidth, score, transform = best_bandwidth(
                "bandwidth after correction", chosen, score, bandwidth
            )
        after = search.mapped(score, transform)
        mapped = search.add("map", "beta map of the transform", 2, after, score)
        if mapped:
            search.mark("map", "beta map of the transform")
    correction = None if chosen is None else Correction.fit(pairs, chosen)
    transform_map = TransformMap.fit(transform) if mapped else None
    return Recalibration(bandwidth, correction, transform_map, search.folded), search.table()
