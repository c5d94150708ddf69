"""Masses beside X-ray masses of the same clusters, which no galaxy's velocity went into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from cmass.figures.house import Entry, Number, Tables, rows
from cmass.figures.style import (
    BLUE,
    CNN_MASS,
    INK,
    MASS,
    MUTED,
    RED,
    canvas,
    legend_above,
    nothing,
    signed,
)
from cmass.params import Params
from cmass.tables import to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_XRAY_MASS = f"X-ray {MASS}"
#: What is drawn beside X-ray masses: columns of value, lower and upper end or error; label, colour.
_BESIDE = (
    ("log10_m200c_p50", CNN_MASS, BLUE),
    ("log10_m200_galweight", r"GalWeight $\log_{10} M_{200}$ [$h^{-1}\,M_\odot$]", RED),
)
#: Bins of the histogram of differences, dex.
_EDGES = np.linspace(-1.5, 1.5, 31)


@canvas(12.0, 4.2)
def beside_xray(figure: Figure, matches: pa.Table, complete_log10_m200c: float) -> None:
    """Our masses and GalWeight's against X-ray masses (table ``xray_matches``)."""
    both = pc.and_(pc.is_valid(matches["log10_m200c_p50"]),
                   pc.is_valid(matches["log10_m200_galweight"]))  # fmt: skip
    shown = matches.filter(pc.and_(matches["accepted"], both))
    if not shown.num_rows:
        nothing(figure.add_subplot(), "No cluster has an X-ray mass: nothing to compare.")
        return
    *panels, last = figure.subplots(1, 3, width_ratios=(1, 1, 0.9))
    xray, low, high = to_numpy(
        shown, "log10_m200c_xray", "log10_m200c_xray_err_lower", "log10_m200c_xray_err_upper"
    )
    everything = np.concatenate([xray, *to_numpy(shown, *(name for name, *_ in _BESIDE))])
    limits = float(everything.min()) - 0.1, float(everything.max()) + 0.1
    for axes, (name, label, colour) in zip(panels, _BESIDE, strict=True):
        (mass,) = to_numpy(shown, name)
        _points(axes, xray, mass, np.array([low, high]), _errors(shown, name), colour,
                shown["ambiguous"].to_numpy(zero_copy_only=False))  # fmt: skip
        axes.plot(limits, limits, "--", color=INK, lw=1)
        axes.axvline(complete_log10_m200c, color=MUTED, lw=1, ls=":")
        axes.set(xlim=limits, ylim=limits, xlabel=_XRAY_MASS, ylabel=label)
        axes.set_aspect("equal")
        difference = mass - xray
        words = f"median {signed(float(np.median(difference)))} dex"
        if difference.size > 1:
            words += f", scatter {difference.std(ddof=1):.2f} dex"
        axes.set_title(words)
        last.hist(difference, _EDGES, histtype="step", lw=1.6, color=colour, label=label.split()[0])
    last.axvline(0, color=INK, lw=1, ls="--")
    last.set(xlabel=r"$\log_{10}(M/M_\mathrm{X})$ [dex]", ylabel="Clusters [per 0.1 dex]")
    legend_above(last, ncols=2)


def _errors(shown: pa.Table, name: str) -> np.ndarray:
    """Lower and upper errors of a mass, shape (2, n)."""
    if name == "log10_m200_galweight":
        (error,) = to_numpy(shown, "log10_m200_galweight_err")
        return np.array([error, error])
    p16, p50, p84 = to_numpy(shown, "log10_m200c_p16", "log10_m200c_p50", "log10_m200c_p84")
    return np.array([p50 - p16, p84 - p50])


def _points(axes: Axes, x, y, x_error, y_error, colour: str, unsure: np.ndarray) -> None:
    axes.errorbar(x, y, np.nan_to_num(y_error), np.nan_to_num(x_error), fmt="none", color=colour,
                  lw=0.6, alpha=0.3)  # fmt: skip
    axes.plot(x[~unsure], y[~unsure], "o", ms=4, mew=0, color=colour, alpha=0.8)
    if unsure.any():
        axes.plot(x[unsure], y[unsure], "o", ms=4, mfc="none", mew=0.9, color=colour,
                  label="two candidates")  # fmt: skip
        axes.legend(loc="upper left")


def _numbers(tables: Tables, params: Params) -> list[Number]:
    metrics = ["xray_n_matched", "xray_n_by_chance", "xray_n_compared"]
    for name in ("cnn3d", "galweight"):
        metrics += [f"xray_{what}_{name}" for what in ("offset", "scatter", "scatter_robust")]
    metrics += ["xray_scatter_beyond_galweight_cnn3d", "xray_scatter_robust_beyond_galweight_cnn3d"]
    return rows("comparison", *metrics, bin=None)(tables, params)


FIGURES = (
    Entry(
        "xray_masses", "Masses beside X-ray masses", "external", ("xray_matches", "comparison"),
        lambda t, p: beside_xray(t["xray_matches"], p.infer.xray.complete_log10_m200c),
        "Posterior medians (left) and GalWeight's masses (middle) of the same clusters against M200c "
        "from the X-ray luminosity (MCXC-II; M500c brought to M200c in h⁻¹ M☉), and both differences. "
        "Open symbols: clusters with a second candidate among the X-ray clusters. Dashed: equality; "
        "right of the dotted line the X-ray surveys are complete. X-ray masses scatter about the true "
        "ones by some 0.1 dex, and hydrostatic ones are 10 to 30 % low, so that equality is not what "
        "an unbiased mass would show. Differences in scatter are paired: negative where ours is "
        "smaller.",
        numbers=_numbers, wide=True, surveys=("sdss",),
    ),
)  # fmt: skip
