"""How masses agree with other masses of the same clusters: offset, scatter, slope, and by how
much one estimator is better than another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmass.evaluate import Numbers, metrics

Array = NDArray[np.float64]

#: Fewest clusters that are compared.
N_MIN = 10
#: What every estimator is measured against, beside the reference itself.
RIVAL = "galweight"


def agreement(estimate: Array, reference: Array) -> Array:
    """Offset, scatter, robust scatter and slopes of `estimate` beside `reference`.

    Parameters
    ----------
    estimate, reference : ndarray, shape (n,)
        log10 masses, finite.

    Returns
    -------
    ndarray, shape (6,)
        Median, standard deviation and half the 15.866–84.134 % width of estimate − reference
        (dex); slope of the least-squares line of the estimate on the reference, which errors of
        the reference flatten; slope of the reduced major axis (ratio of the standard deviations
        with the sign of the correlation), which they do not; standard deviation of the reference
        about its least-squares line on the estimate (dex). The last says how much the estimate
        knows: estimates shrunk towards a mean lower the others, not this one, and a constant
        leaves all of the reference's spread.
    """
    difference = estimate - reference
    x, y = reference - reference.mean(), estimate - estimate.mean()
    variance, covariance = float(x @ x), float(x @ y)
    # All the same: no line goes through it.
    least = covariance / variance if variance > 0 else np.nan
    major = np.sign(covariance) * np.sqrt(float(y @ y) / variance) if variance > 0 else np.nan
    spread = float(y @ y)
    explained = covariance**2 / spread if spread > 0 else 0.0
    about_line = np.sqrt(max(variance - explained, 0.0) / (x.size - 2))
    return np.array(
        [np.median(difference), metrics.scatter(difference), metrics.robust_scatter(difference),
         least, major, about_line]
    )  # fmt: skip


#: Names and units of what `agreement` returns.
STATISTICS = (
    ("offset", "dex"), ("scatter", "dex"), ("scatter_robust", "dex"), ("slope", ""),
    ("slope_major_axis", ""), ("scatter_about_line", "dex"),
)  # fmt: skip
#: Names of what `advantage` returns.
ADVANTAGES = ("abs_offset", "scatter", "scatter_robust", "scatter_about_line")
#: What must be shown to be no larger than `RIVAL`'s by more than a margin, at this many sigma:
#: one-sided 95 %.
_SHOWN = ("abs_offset", "scatter_about_line")
_ONE_SIDED_95 = 1.645


def advantage(one: Array, other: Array) -> Array:
    """|offset| and scatters of one estimator less those of another, as `ADVANTAGES` lists them.

    Parameters
    ----------
    one, other : ndarray, shape (6,)
        As `agreement` gives them. Negative results: `one` is better.
    """
    return np.array([abs(one[0]) - abs(other[0]), *(one - other)[[1, 2, 5]]])


def add_agreement(
    numbers: Numbers, estimates: dict[str, Array], reference: Array, core: tuple[str, ...],
    bin: str, rounds: int, rng: np.random.Generator, margin_dex: float,
) -> None:  # fmt: skip
    """Add rows for each estimator, all on the same clusters.

    Rows: ``xray_n_compared``; for each estimator ``xray_offset_<e>`` (median of
    log10(M/M_X-ray)), ``xray_scatter_<e>``, ``xray_scatter_robust_<e>``, ``xray_slope_<e>``,
    ``xray_slope_major_axis_<e>``; and beside GalWeight ``xray_abs_offset_beyond_galweight_<e>``,
    ``xray_scatter_beyond_galweight_<e>``, ``xray_scatter_robust_beyond_galweight_<e>``: paired
    differences, negative where <e> is better. ``xray_not_worse_<e>`` is 1 where neither scatter
    exceeds GalWeight's by more than one sigma of the paired difference, else 0: few clusters
    pass it easily. ``xray_shown_not_worse_<e>`` is 1 only where |offset| and the scatter about
    the line are each shown, one-sided at 95 %, to exceed GalWeight's by less than `margin_dex`:
    few clusters show nothing. Errors are from resampling clusters, the same ones for all estimators. An estimator that has no mass for
    some of the clusters is compared, with GalWeight too, on those it has, whose number is
    ``xray_n_compared_<e>``.

    Parameters
    ----------
    numbers : Numbers
    estimates : dict of str to ndarray, shape (n,)
        log10 masses by estimator; NaN where missing.
    reference : ndarray, shape (n,)
        log10 of the X-ray masses.
    core : tuple of str
        Estimators that all clusters compared must have.
    bin : str
    rounds : int
        Resamples.
    rng : numpy.random.Generator
    margin_dex : float
        Difference to GalWeight that does not count.
    """
    both = np.isfinite(reference)
    for name in core:
        both = both & np.isfinite(estimates[name])
    numbers.add("xray_n_compared", int(both.sum()), bin=bin)
    sets: dict[bytes, list[str]] = {}
    for name, values in estimates.items():
        rows = both & np.isfinite(values)
        if name not in core and not rows[both].all():
            numbers.add(f"xray_n_compared_{name}", int(rows.sum()), bin=bin)
        sets.setdefault(rows.tobytes(), []).append(name)
    for mask, names in sets.items():
        rows = np.frombuffer(mask, bool)
        if rows.sum() < N_MIN:
            continue
        chosen = {name: estimates[name][rows] for name in dict.fromkeys([*names, RIVAL])}
        _add_set(numbers, chosen, names, reference[rows], bin, rounds, rng, margin_dex)


def _add_set(
    numbers: Numbers, estimates: dict[str, Array], names: list[str], reference: Array, bin: str,
    rounds: int, rng: np.random.Generator, margin_dex: float,
) -> None:  # fmt: skip
    """Rows of `names`, which all have masses for these clusters."""

    def everything(rows: NDArray[np.int64]) -> Array:
        found = {name: agreement(m[rows], reference[rows]) for name, m in estimates.items()}
        paired = [advantage(found[name], found[RIVAL]) for name in names]
        return np.concatenate([*(found[name] for name in names), *paired])

    everyone = np.arange(reference.size)
    values = everything(everyone)
    errors = metrics.Bootstrap(everyone, rng, rounds).errors(everything)
    n = len(STATISTICS)
    for place, name in enumerate(names):
        for k, (statistic, unit) in enumerate(STATISTICS, place * n):
            numbers.add(f"xray_{statistic}_{name}", values[k], bin=bin, error=errors[k], unit=unit)
        if name == RIVAL:
            continue
        first = len(names) * n + place * len(ADVANTAGES)
        for k, statistic in enumerate(ADVANTAGES, first):
            numbers.add(f"xray_{statistic}_beyond_{RIVAL}_{name}", values[k], bin=bin,
                        error=errors[k], unit="dex")  # fmt: skip
        shown = [first + ADVANTAGES.index(statistic) for statistic in _SHOWN]
        limits = values[shown] + _ONE_SIDED_95 * errors[shown]
        numbers.add(f"xray_shown_not_worse_{name}", float((limits < margin_dex).all()), bin=bin)
        scatters = slice(first + 1, first + 3)
        numbers.add(f"xray_not_worse_{name}",
                    float((values[scatters] <= errors[scatters]).all()), bin=bin)  # fmt: skip
