"""Posteriors of the mass: the joint density of point estimate and truth, and its slices.

The pairs (d̃, log10 M) of the test set, smoothed by a bivariate Gaussian kernel, are the
joint density P(d̃, log10 M) (paper, sections 3.1 and 4.1); the slice at a cluster's point
estimate d̃ is its posterior. The mass distribution of the test set, flat with edges, is the
prior. The slice of a Gaussian kernel density is a sum of Gaussians and is integrated over
the mass bins exactly: no grid in d̃ and no interpolation.

A Gaussian kernel density is a convolution, and a Gaussian's spectrum ends soon: some hundred waves an
axis, summed over the pairs once, hold the whole density to 1e-11 of its peak (`_Waves`). Slices are
read off them, whatever the number of pairs. Where the density is so low that such an error would
show, and for kernels too narrow for few waves, the sum goes over the pairs (`_slices`, `_at`).
"""

from __future__ import annotations

import logging
import math
from functools import cached_property
from typing import TYPE_CHECKING

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from cmass import seeds
from cmass.columns import FLAGS
from cmass.errors import InputError
from cmass.params import CosmologyParams, Params
from cmass.tables import make_table, read_table, to_numpy, write_json, write_table
from cmass.workspace import Workspace

if TYPE_CHECKING:
    from cmass.networks.compiled import CompiledCNN3D

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

#: Density, dex⁻¹, below which a log score does not count: one cluster costs 13.8 nats at most.
LOG_SCORE_FLOOR = 1e-6

#: Probability below -1 sigma of a normal: the tails that the 1-sigma errors leave out.
TAIL = float(ndtr(-1.0))
#: Kernels lighter than exp(-25) of the heaviest one are skipped (1e-11 each).
_LOG_WEIGHT_CUT = 25.0
#: Kernels are followed to 6.5 sigma in mass (4e-11 outside).
_TAIL_SIGMA = 6.5
#: Waves end where the kernel's spectrum is 1e-12, and their images keep as far away.
_SPECTRUM_SIGMA = 7.5
#: Most waves on both axes together: beyond, sums over the pairs are no slower.
_WAVES_MAX = 60_000
#: Densities below this part of the peak are summed over the pairs.
_LOW_DENSITY = 1e-4
#: What `prediction_table` reads of mock_clusters.
PREDICTION_COLUMNS = ["cluster_id", "halo_id", "z", "n_galaxies", "n_members"]
#: Bins per axis of the joint density that figures show.
_JOINT_BINS = 80


@numba.njit(cache=True, nogil=True)
def _slices(queries, shift, scale, d, m, h, slope, s, edges):  # pragma: no cover - compiled
    """Kernel sums per query and mass bin: sum_i exp(-(q - d_i)²/2h²) ΔΦ; `d` ascending.

    The second coordinate of the pairs, `m`, stands for the mass shift + scale m of the query.
    """
    n_bins = edges.size - 1
    out = np.zeros((queries.size, n_bins))
    logs = np.zeros(queries.size)
    root2 = math.sqrt(2.0)
    for j in range(queries.size):
        q = queries[j]
        right = np.searchsorted(d, q)
        nearest = np.inf
        if right < d.size:
            nearest = d[right] - q
        if right > 0:
            nearest = min(nearest, q - d[right - 1])
        # Weights are relative to the nearest pair, so that none of a far query underflows.
        logs[j] = -0.5 * (nearest / h) ** 2
        reach = math.sqrt(nearest * nearest + 2.0 * _LOG_WEIGHT_CUT * h * h)
        first, last = np.searchsorted(d, q - reach), np.searchsorted(d, q + reach)
        for i in range(first, last):
            offset = q - d[i]
            weight = math.exp(-0.5 * (offset / h) ** 2 - logs[j])
            centre = shift[j] + scale[j] * (m[i] + slope * offset)
            width = s * scale[j]
            k = np.searchsorted(edges, centre - _TAIL_SIGMA * width) - 1
            below = 0.0
            if k < 0:
                k = 0
                below = 0.5 * math.erfc((centre - edges[0]) / (width * root2))
            end = centre + _TAIL_SIGMA * width
            while k < n_bins and edges[k] < end:
                upto = 0.5 * math.erfc((centre - edges[k + 1]) / (width * root2))
                out[j, k] += weight * (upto - below)
                below = upto
                k += 1
    return out, logs


@numba.njit(cache=True, nogil=True)
def _at(queries, shift, scale, masses, d, m, h, slope, s, low, high):  # pragma: no cover
    """Density and cumulative probability of each query's slice at one mass, inside low to high.

    Kernels as in `_slices`, without bins: one mass a query is all that a score needs.
    """
    density, cumulative = np.zeros(queries.size), np.zeros(queries.size)
    root2, root_2pi = math.sqrt(2.0), math.sqrt(2.0 * math.pi)
    for j in range(queries.size):
        q = queries[j]
        right = np.searchsorted(d, q)
        nearest = np.inf
        if right < d.size:
            nearest = d[right] - q
        if right > 0:
            nearest = min(nearest, q - d[right - 1])
        reach = math.sqrt(nearest * nearest + 2.0 * _LOG_WEIGHT_CUT * h * h)
        first, last = np.searchsorted(d, q - reach), np.searchsorted(d, q + reach)
        width = s * scale[j]
        here, below, total = 0.0, 0.0, 0.0
        for i in range(first, last):
            offset = q - d[i]
            weight = math.exp(0.5 * (nearest * nearest - offset * offset) / (h * h))
            centre = shift[j] + scale[j] * (m[i] + slope * offset)
            start = 0.5 * math.erfc((centre - low) / (width * root2))
            pull = (masses[j] - centre) / width
            here += weight * math.exp(-0.5 * pull * pull) / (width * root_2pi)
            below += weight * (0.5 * math.erfc(-pull / root2) - start)
            total += weight * (0.5 * math.erfc((centre - high) / (width * root2)) - start)
        if total > 0.0:
            density[j] = here / total if low <= masses[j] <= high else 0.0
            cumulative[j] = min(max(below / total, 0.0), 1.0)
    return density, cumulative


@numba.njit(cache=True, nogil=True)
def _wave_row(q, first, step, waves, row):  # pragma: no cover
    """Sum over the waves in the first coordinate at q: one complex number per wave in the second."""
    n = waves.shape[1]
    row[:] = 0
    factor = complex(math.cos(step * (q - first)), math.sin(step * (q - first)))
    half = waves.shape[0] // 2
    for side in range(2):
        turn = factor if side == 0 else factor.conjugate()
        wave = complex(1.0, 0.0)
        for a in range(half + 1):
            if side == 0 or a > 0:
                from_row = waves[half + a] if side == 0 else waves[half - a]
                for b in range(n):
                    row[b] += wave * from_row[b]
            wave *= turn


@numba.njit(cache=True, nogil=True)
def _below(x, step, span, row):  # pragma: no cover
    """Integral of a slice from the start of the second axis to x, and the slice at x.

    x is measured from that start and cut off at both ends of the axis.
    """
    x = min(max(x, 0.0), span)
    factor = complex(math.cos(step * x), math.sin(step * x))
    wave, total, density = factor, 0.0, 0.0
    for b in range(1, row.size):
        term = row[b] * wave
        density += term.real
        total += (term.imag - row[b].imag) / (b * step)
        wave *= factor
    return row[0].real * x + 2.0 * total, row[0].real + 2.0 * density


@numba.njit(cache=True, nogil=True)
def _wave_slices(
    queries, shift, scale, slope, first, step, waves, start, step_u, span, edges
):  # pragma: no cover
    """As `_slices`, of the density's waves: mass in each bin, dex⁻¹."""
    out = np.zeros((queries.size, edges.size - 1))
    row = np.zeros(waves.shape[1], np.complex128)
    for j in range(queries.size):
        _wave_row(queries[j], first, step, waves, row)
        # Kernels move with the query: second coordinates are taken along their slope.
        move = slope * queries[j] + start
        before = 0.0
        for k in range(edges.size):
            value, _ = _below((edges[k] - shift[j]) / scale[j] - move, step_u, span, row)
            if k > 0:
                out[j, k - 1] = max(value - before, 0.0)
            before = value
    return out


@numba.njit(cache=True, nogil=True)
def _wave_at(
    queries, shift, scale, masses, slope, first, step, waves, start, step_u, span, low, high
):  # pragma: no cover
    """As `_at`, of the density's waves; and how high they are at the mass and in the slice, dex⁻¹."""
    n = queries.size
    density, cumulative = np.zeros(n), np.zeros(n)
    height, total_height = np.zeros(n), np.zeros(n)
    row = np.zeros(waves.shape[1], np.complex128)
    for j in range(n):
        _wave_row(queries[j], first, step, waves, row)
        move = slope * queries[j] + start
        begin, _ = _below((low - shift[j]) / scale[j] - move, step_u, span, row)
        end, _ = _below((high - shift[j]) / scale[j] - move, step_u, span, row)
        here, value = _below((masses[j] - shift[j]) / scale[j] - move, step_u, span, row)
        total = end - begin
        height[j], total_height[j] = value * span, total
        if total > 0.0:
            density[j] = value / scale[j] / total if low <= masses[j] <= high else 0.0
            cumulative[j] = min(max((here - begin) / total, 0.0), 1.0)
    return density, cumulative, height, total_height


class _Waves:
    """A Gaussian kernel density of two coordinates as a sum of waves.

    The second coordinate is taken along the kernel's slope, so that the kernel is a product.

    Parameters
    ----------
    d, u : ndarray, shape (n,)
        Pairs; u = m − slope d.
    h, s : float
        Widths of the kernel in d and in u.
    """

    def __init__(self, d: Array, u: Array, h: float, s: float) -> None:
        reach_d, reach_u = _SPECTRUM_SIGMA * h, _SPECTRUM_SIGMA * s
        self.first, self.start = float(d.min()) - reach_d, float(u.min()) - reach_u
        length = float(np.ptp(d)) + 2 * reach_d
        self.span = float(np.ptp(u)) + 2 * reach_u
        self.step, self.step_u = 2 * math.pi / length, 2 * math.pi / self.span
        a = np.arange(self.n_waves(length, h) + 1)
        b = np.arange(self.n_waves(self.span, s) + 1)
        along_d = _powers(np.exp(-1j * self.step * (d - self.first)), a.size)
        along_u = _powers(np.exp(-1j * self.step_u * (u - self.start)), b.size).T
        plus, minus = along_d @ along_u, along_d[1:].conj() @ along_u
        both = np.concatenate([minus[::-1], plus]) / (d.size * length * self.span)
        every = np.concatenate([-a[:0:-1], a])
        both *= np.exp(-0.5 * (self.step * h * every) ** 2)[:, None]
        both *= np.exp(-0.5 * (self.step_u * s * b) ** 2)
        self.waves = np.ascontiguousarray(both)

    @staticmethod
    def n_waves(length: float, width: float) -> int:
        """Waves until the spectrum of a kernel ends."""
        return math.ceil(_SPECTRUM_SIGMA / width * length / (2 * math.pi))

    @classmethod
    def of(cls, d: Array, u: Array, h: float, s: float) -> _Waves | None:
        """The waves; None where they would be too many."""
        n = [
            cls.n_waves(float(np.ptp(x)) + 2 * _SPECTRUM_SIGMA * w, w) for x, w in ((d, h), (u, s))
        ]
        return cls(d, u, h, s) if (2 * n[0] + 1) * (n[1] + 1) <= _WAVES_MAX else None

    def covers(self, queries: Array) -> NDArray[np.bool_]:
        """Queries on the first axis, where no image of the density is."""
        place = queries - self.first
        return (place > 0) & (place < 2 * math.pi / self.step)

    @cached_property
    def peak(self) -> float:
        """Largest density of the first coordinate, dex⁻¹."""
        at = self.first + np.linspace(0, 2 * math.pi / self.step, 400)
        half = len(self.waves) // 2
        a = np.arange(-half, half + 1)
        values = np.exp(1j * self.step * (at[:, None] - self.first) * a) @ self.waves[:, 0]
        return float(values.real.max() * self.span)


def _powers(base: NDArray[np.complex128], n: int) -> NDArray[np.complex128]:
    """The first n powers of numbers on the unit circle, from 0, shape (n, size)."""
    out = np.empty((n, base.size), np.complex128)
    out[0] = 1
    for k in range(1, n):
        np.multiply(out[k - 1], base, out=out[k])
    return out


class JointDensity:
    """Gaussian kernel density of (point estimate, true mass), and its exact slices.

    Parameters
    ----------
    predicted : array_like, shape (n,)
        Point estimates d̃ of the test set, log10 M200c in h⁻¹ M☉.
    true : array_like, shape (n,)
        True log10 M200c in h⁻¹ M☉ of the same clusters.
    bandwidth : float
        Factor of the bandwidth matrix H = factor² Σ, with Σ the sample covariance of the
        pairs: the convention of `scipy.stats.gaussian_kde` (paper, eqs. 1-2: 0.20).

    Raises
    ------
    InputError
        Fewer than three pairs, a value that is not finite, or pairs on one line.
    """

    def __init__(self, predicted: ArrayLike, true: ArrayLike, bandwidth: float = 0.20) -> None:
        d, m = np.asarray(predicted, float), np.asarray(true, float)
        if d.ndim != 1 or d.shape != m.shape or d.size < 3:
            raise InputError(
                f"a joint density needs at least 3 pairs, got shapes {d.shape} and {m.shape}"
            )
        if not (np.isfinite(d).all() and np.isfinite(m).all()):
            row = int(np.flatnonzero(~(np.isfinite(d) & np.isfinite(m)))[0])
            raise InputError("a pair of prediction and truth is not finite", row=row)
        covariance = np.cov(d, m)
        determinant = covariance[0, 0] * covariance[1, 1] - covariance[0, 1] ** 2
        if not determinant > 1e-12 * covariance[0, 0] * covariance[1, 1] > 0:
            raise InputError(
                "prediction and truth lie on one line: they have no density",
                remedy="The network may predict one mass for all; train it longer",
            )
        order = np.argsort(d, kind="stable")
        self._d, self._m = d[order], m[order]
        h = bandwidth**2 * covariance
        self._h_d = math.sqrt(h[0, 0])
        self._slope = h[0, 1] / h[0, 0]
        self._s = math.sqrt(h[1, 1] - h[0, 1] ** 2 / h[0, 0])
        #: Kernel width in log mass (dex).
        self.kernel_width_dex = math.sqrt(h[1, 1])

    @cached_property
    def _waves(self) -> _Waves | None:
        return _Waves.of(self._d, self._m - self._slope * self._d, self._h_d, self._s)

    @property
    def calibrated_range(self) -> tuple[float, float]:
        """Smallest and largest point estimate of the test set."""
        return float(self._d[0]), float(self._d[-1])

    @property
    def pairs(self) -> tuple[Array, Array]:
        """Point estimates (ascending) and true log10 masses of the test set."""
        return self._d.copy(), self._m.copy()

    @property
    def mass_range(self) -> tuple[float, float]:
        """Smallest and largest true log10 mass of the test set: the edges of the prior."""
        return float(self._m.min()), float(self._m.max())

    def edges(self, n_bins: int) -> Array:
        """Edges of `n_bins` equal bins between the edges of the prior."""
        return np.linspace(*self.mass_range, n_bins + 1)

    def slices(self, predicted: ArrayLike, edges: Array) -> Array:
        """Slices through the joint density, integrated over mass bins.

        Parameters
        ----------
        predicted : array_like, shape (n,)
            Finite point estimates.
        edges : ndarray, shape (n_bins + 1,)
            Ascending edges of the bins in log10 M200c.

        Returns
        -------
        ndarray, shape (n, n_bins)
            ∫ P(d̃, log10 M) dlog10 M over each bin, dex⁻¹.
        """
        q = np.ascontiguousarray(predicted, float)
        return self._masses(q, np.zeros(q.size), np.ones(q.size), edges, relative=False)

    def _masses(
        self, queries: Array, shift: Array, scale: Array, edges: Array, *, relative: bool
    ) -> Array:
        """Mass of slices in bins, dex⁻¹; `relative`: up to a factor where they are far out."""
        bins, waves = np.ascontiguousarray(edges, float), self._waves
        out = np.empty((queries.size, bins.size - 1))
        known = np.zeros(queries.size, bool)
        if waves is not None:
            known = waves.covers(queries)
            found = _wave_slices(
                queries[known], shift[known], scale[known], self._slope, waves.first, waves.step,
                waves.waves, waves.start, waves.step_u, waves.span, bins,
            )  # fmt: skip
            out[known] = found
            low = found.sum(axis=1) < _LOW_DENSITY * waves.peak
            known[np.flatnonzero(known)[low]] = False
        rest = ~known
        sums, logs = _slices(
            queries[rest], shift[rest], scale[rest], self._d, self._m, self._h_d, self._slope,
            self._s, bins,
        )  # fmt: skip
        if not relative:
            sums *= np.exp(logs)[:, None]
        out[rest] = sums / (self._d.size * math.sqrt(2 * math.pi) * self._h_d)
        return out

    def conditional(
        self, at: Array, shift: Array, scale: Array, edges: Array, *, folded: bool = False
    ) -> Array:
        """Slices whose second coordinate x stands for the mass shift + scale x.

        Parameters
        ----------
        at, shift, scale : ndarray, shape (n,)
            Finite first coordinates; shift and scale in log10 mass.
        edges : ndarray, shape (n_bins + 1,)
            Edges of the bins in log10 M200c.
        folded : bool
            What kernels carry beyond the first and the last edge comes back as in a mirror. Cut off
            instead, a density that ends at an edge has half of its height there.

        Returns
        -------
        ndarray, shape (n, n_bins)
            Probability per bin; rows sum to one.
        """
        q, c, w = (np.ascontiguousarray(x, float) for x in (at, shift, scale))
        bins = np.asarray(edges, float)
        if not folded:
            return normalise(self._masses(q, c, w, bins, relative=True))
        n, low, high = bins.size - 1, bins[0], bins[-1]
        mirrored = [2 * low - bins[::-1], bins[1:], 2 * high - bins[-2::-1]]
        masses = self._masses(q, c, w, np.concatenate(mirrored), relative=True)
        below, inside, above = masses[:, :n], masses[:, n : 2 * n], masses[:, 2 * n :]
        return normalise(inside + below[:, ::-1] + above[:, ::-1])

    def conditional_at(
        self, at: Array, shift: Array, scale: Array, masses: Array, limits: tuple[float, float], *,
        folded: bool = False,
    ) -> tuple[Array, Array]:  # fmt: skip
        """Density (dex⁻¹) and cumulative probability of `conditional` slices at one mass each.

        Parameters
        ----------
        at, shift, scale, masses : ndarray, shape (n,)
        limits : (float, float)
            Where the posterior begins and ends, log10 M200c.
        folded : bool
            At the limits, as in `conditional`.

        Returns
        -------
        density, cumulative : ndarray, shape (n,)
            The density outside the limits is 0.
        """
        if not folded:
            return self._at(at, shift, scale, masses, limits)
        low, high = limits
        m = np.asarray(masses, float)
        wide = (2 * low - high, 2 * high - low)
        inside, upto = self._at(at, shift, scale, m, wide)
        # What mirrors add is right to 1e-9 dex⁻¹, a thousandth of LOG_SCORE_FLOOR, and most often
        # next to nothing: to have it right relative to itself took ten times as long.
        below, upto_below = self._at(at, shift, scale, 2 * low - m, wide, added=True)
        above, upto_above = self._at(at, shift, scale, 2 * high - m, wide, added=True)
        within = (m >= low) & (m <= high)
        density = np.where(within, np.maximum(inside + below + above, 0.0), 0.0)
        cumulative = np.clip(upto - upto_below + 1.0 - upto_above, 0.0, 1.0)
        return density, np.where(within, cumulative, np.where(m < low, 0.0, 1.0))

    def _at(
        self, at: Array, shift: Array, scale: Array, masses: Array, limits: tuple[float, float],
        *, added: bool = False,
    ) -> tuple[Array, Array]:  # fmt: skip
        """`conditional_at`, cut off at the limits.

        Low densities are summed over the pairs, to be right relative to themselves; not if they are
        only added to others: these may be off by 1e-9 dex⁻¹, either way.
        """
        q, c, w, m = (np.ascontiguousarray(x, float) for x in (at, shift, scale, masses))
        density, cumulative = np.empty(q.size), np.empty(q.size)
        known, waves = np.zeros(q.size, bool), self._waves
        if waves is not None:
            known = waves.covers(q)
            density[known], cumulative[known], height, total = _wave_at(
                q[known], c[known], w[known], m[known], self._slope, waves.first, waves.step,
                waves.waves, waves.start, waves.step_u, waves.span, *limits,
            )  # fmt: skip
            least = total if added else np.minimum(height, total)
            known[np.flatnonzero(known)[least < _LOW_DENSITY * waves.peak]] = False
        rest = ~known
        density[rest], cumulative[rest] = _at(
            q[rest], c[rest], w[rest], m[rest], self._d, self._m, self._h_d, self._slope, self._s,
            *limits,
        )  # fmt: skip
        return density, cumulative

    def prior(self, edges: Array) -> Array:
        """Prior probability per bin: the kernel density's marginal in mass, unit sum."""
        cdf = np.array([ndtr((e - self._m) / self.kernel_width_dex).mean() for e in edges])
        probabilities = np.diff(cdf)
        return probabilities / probabilities.sum()

    def flags(self, predicted: ArrayLike) -> NDArray[np.int32]:
        """Flags of point estimates outside the calibrated range, shape (n,)."""
        d = np.asarray(predicted, float)
        low, high = self.calibrated_range
        flag = np.where(d < low, FLAGS["below_calibrated_range"].value, 0)
        return (flag | np.where(d > high, FLAGS["above_calibrated_range"].value, 0)).astype(
            np.int32
        )

    def posterior(self, predicted: ArrayLike, edges: Array) -> Array:
        """Posterior probability per mass bin under the flat prior.

        Parameters
        ----------
        predicted : array_like, shape (n,)
            Point estimates d̃.
        edges : ndarray, shape (n_bins + 1,)
            Edges of the bins in log10 M200c.

        Returns
        -------
        ndarray, shape (n, n_bins)
            Rows sum to one. Rows are NaN where d̃ is outside the calibrated range or is
            not finite: such an estimate has no posterior, and is never clipped.
        """
        d = np.asarray(predicted, float)
        out = np.full((d.size, len(edges) - 1), np.nan)
        good = np.isfinite(d) & (self.flags(d) == 0)
        q = np.ascontiguousarray(d[good])
        found = self._masses(q, np.zeros(q.size), np.ones(q.size), edges, relative=True)
        out[good] = normalise(found)
        return out


def normalise(probabilities: Array) -> Array:
    """Divide each row by its sum; a row without probability becomes NaN."""
    total = probabilities.sum(axis=1, keepdims=True)
    return np.divide(probabilities, total, out=np.full_like(probabilities, np.nan), where=total > 0)


def reweight(probabilities: Array, prior_from: Array, prior_to: Array) -> Array:
    """Exchange the prior of posteriors: P' ∝ P prior_to / prior_from, bin by bin.

    Bins where the old prior is empty have no posterior to reweight and stay empty.

    Parameters
    ----------
    probabilities : ndarray, shape (n, n_bins)
    prior_from, prior_to : ndarray, shape (n_bins,)

    Returns
    -------
    ndarray, shape (n, n_bins)
        Rows sum to one, or are NaN where they were or where nothing is left.
    """
    ratio = np.divide(prior_to, prior_from, out=np.zeros_like(prior_to), where=prior_from > 0)
    return normalise(probabilities * ratio)


def quantiles(probabilities: Array, edges: Array, q: ArrayLike) -> Array:
    """Quantiles of binned posteriors, linear in the cumulative probability inside a bin.

    Parameters
    ----------
    probabilities : ndarray, shape (n, n_bins)
    edges : ndarray, shape (n_bins + 1,)
    q : array_like, shape (n_q,)
        Levels between 0 and 1.

    Returns
    -------
    ndarray, shape (n, n_q)
        In the unit of `edges`; NaN where a row is NaN.
    """
    levels = np.atleast_1d(np.asarray(q, float))
    out = np.full((len(probabilities), levels.size), np.nan)
    for row, p in enumerate(probabilities):
        if np.isfinite(p).all():
            cdf = np.concatenate([[0.0], np.cumsum(p)])
            out[row] = np.interp(levels * cdf[-1], cdf, edges)
    return out


def cumulative_at(probabilities: Array, edges: Array, values: ArrayLike) -> Array:
    """Posterior probability below `values`, one a row: the probability integral transform.

    Returns
    -------
    ndarray, shape (n,)
        0 below the first edge, 1 above the last, NaN where the row is NaN.
    """
    x = np.asarray(values, float)
    out = np.full(len(probabilities), np.nan)
    for row, p in enumerate(probabilities):
        if np.isfinite(p).all():
            out[row] = np.interp(x[row], edges, np.concatenate([[0.0], np.cumsum(p)]))
    return out


def at_edge(probabilities: Array, edges: Array, width_dex: float) -> NDArray[np.bool_]:
    """Rows with more than 15.9 % of the posterior within `width_dex` of an edge of the prior.

    There the prior's edge, not the data, ends the posterior.
    """
    low = cumulative_at(probabilities, edges, np.full(len(probabilities), edges[0] + width_dex))
    high = cumulative_at(probabilities, edges, np.full(len(probabilities), edges[-1] - width_dex))
    return np.nan_to_num(np.maximum(low, 1 - high)) > TAIL


def mass_function_prior(edges: Array, z: float, cosmology: CosmologyParams) -> Array:
    """Prior probability per bin by the halo mass function (Tinker+2008), unit sum."""
    from cmass.mass_function import mass_function

    centres = 0.5 * (edges[1:] + edges[:-1])
    abundance = mass_function(centres, z, cosmology) * np.diff(edges)
    return abundance / abundance.sum()


def grid_table(
    density: JointDensity, n_bins: int, z: float, cosmology: CosmologyParams
) -> pa.Table:
    """Table `posterior_grid`: the bins and both priors."""
    edges = density.edges(n_bins)
    return make_table(
        "posterior_grid",
        {
            "bin_index": np.arange(n_bins),
            "log10_m200c_low": edges[:-1],
            "log10_m200c_centre": 0.5 * (edges[1:] + edges[:-1]),
            "log10_m200c_high": edges[1:],
            "prior_flat": density.prior(edges),
            "prior_hmf": mass_function_prior(edges, z, cosmology),
        },
    )


def grid_edges(grid: pa.Table) -> Array:
    """Edges of the bins of a table `posterior_grid`, shape (n_bins + 1,)."""
    low, high = to_numpy(grid, "log10_m200c_low", "log10_m200c_high")
    return np.append(low, high[-1])


def joint_table(density: JointDensity) -> pa.Table:
    """Table `joint`: the density on a square grid, averaged over each cell's mass."""
    low_d, high_d = density.calibrated_range
    low_m, high_m = density.mass_range
    edges = np.linspace(min(low_d, low_m), max(high_d, high_m), _JOINT_BINS + 1)
    centres = 0.5 * (edges[1:] + edges[:-1])
    values = density.slices(centres, edges) / np.diff(edges)
    return make_table(
        "joint",
        {
            "log10_m200c": np.repeat(centres, _JOINT_BINS),
            "log10_m200c_true": np.tile(centres, _JOINT_BINS),
            "density": values.ravel(),
        },
    )


def run(workspace: Workspace, params: Params) -> None:
    """Predict the test set, and choose how posteriors are made of predictions.

    Writes `posterior/predictions.parquet`, `pairs.parquet` (what posteriors are made of, here and
    in the model that ships), `posterior_grid.parquet`, `joint.parquet` (the plain joint density,
    paper, Fig. 4), `recalibration.json` (what was chosen; cmass.recalibration),
    `recalibration.parquet` (what it was chosen among), `dispersion.json` (the sigma-M relation,
    fitted on the training set) and `range.json` (what the mocks cover: outside, masses are
    flagged).
    """
    from cmass.estimators import dispersion
    from cmass.networks import cnn3d
    from cmass.networks.training import training_range
    from cmass.recalibration import Posteriors, choose, pairs_of, pairs_table

    clusters = read_table(workspace.mock / "clusters", "mock_clusters", PREDICTION_COLUMNS)
    relation = dispersion.fit_mocks(workspace, params)
    network = cnn3d.load(workspace.model / "cnn3d.weights.h5", params.voxels.n)
    predictions = prediction_table(workspace, params, network, clusters, "test", relation)
    pairs = pairs_of(predictions)
    rng = seeds.generator(params.seed, "posterior-folds")
    recalibration, candidates = choose(pairs, params.posterior, rng)
    posteriors = Posteriors(pairs, recalibration)
    density = JointDensity(pairs.predicted, pairs.true, params.posterior.plain_bandwidth)
    median_z = float(np.median(to_numpy(clusters, "z")[0]))
    folder = workspace.posterior
    write_table(folder / "predictions.parquet", predictions, "predictions")
    write_table(folder / "pairs.parquet", pairs_table(pairs), "test_pairs", small=True)
    grid = grid_table(posteriors.plain, params.posterior.n_bins, median_z, params.cosmology)
    write_table(folder / "posterior_grid.parquet", grid, "posterior_grid")
    write_table(folder / "joint.parquet", joint_table(density), "joint")
    write_json(folder / "recalibration.json", recalibration.as_json())
    write_table(folder / "recalibration.parquet", candidates, "recalibration")
    write_json(folder / "dispersion.json", relation.as_json())
    low, high = density.calibrated_range
    limits = {"log10_m200c_predicted_min": low, "log10_m200c_predicted_max": high}
    write_json(folder / "range.json", training_range(workspace) | limits)
    log.info(
        "posterior: %d pairs, calibrated for predictions from %.2f to %.2f; bandwidth %.2f, %s, %s, %s",
        predictions.num_rows, *density.calibrated_range, recalibration.bandwidth,
        "corrected by richness and redshift" if recalibration.correction else "no correction",
        "transform mapped" if recalibration.transform_map else "no map",
        "folded at the prior's edges" if recalibration.folded else "cut off at the prior's edges",
    )  # fmt: skip


def prediction_table(
    workspace: Workspace,
    params: Params,
    network: CompiledCNN3D,
    clusters: pa.Table,
    which: str,
    relation,
) -> pa.Table:
    """Table `predictions` of one set of mocks: the network's and the dispersion's estimates.

    Parameters
    ----------
    workspace, params
    network : CompiledCNN3D
    clusters : pyarrow.Table
        `mock_clusters` with at least `PREDICTION_COLUMNS`.
    which : str
        ``test`` or ``evaluation``.
    relation : cmass.estimators.dispersion.Relation
    """
    import pyarrow.compute as pc

    from cmass.estimators import dispersion
    from cmass.networks import prediction

    ids, true, predicted = prediction.predict_folder(network, workspace.voxels / which)
    rows = pc.index_in(pa.array(ids), value_set=clusters["cluster_id"].combine_chunks())
    if rows.null_count:
        lost = ids[rows.is_null().to_pylist().index(True)]
        raise InputError(
            "a voxelised cluster is not in the mock catalogue", column="cluster_id", value=lost,
            file=workspace.voxels / which, remedy="Run voxelize again",
        )  # fmt: skip
    own = clusters.take(rows)
    measured = dispersion.measure_mocks(workspace, params, own)
    return make_table(
        "predictions",
        {
            "cluster_id": ids,
            "halo_id": own["halo_id"],
            "set": [which] * len(ids),
            "z": own["z"],
            "log10_m200c_true": true,
            "log10_m200c": predicted[:, 0],
            "log10_m200c_dispersion": relation.log10_m200c(measured, to_numpy(own, "z")[0]),
            "n_galaxies": own["n_galaxies"],
            "n_members": own["n_members"],
        },
    )
