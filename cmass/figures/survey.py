"""The survey's masses: the map, GalWeight's beside ours (paper, Fig. 10), mass function (Fig. A1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cmass.figures.house import Entry, Inputs, Number, Tables, rows
from cmass.figures.style import (
    BLUE,
    CNN,
    CNN_MASS,
    GREEN,
    INK,
    MANY_POINTS,
    MASS,
    MUTED,
    RAMP,
    RED,
    canvas,
    diagonal,
    drawing,
    legend_above,
    nothing,
    points,
    signed,
)
from cmass.params import Params
from cmass.tables import to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The paper's pull against GalWeight (section 5): mean and standard deviation.
PAPER_PULL = (-0.02, 1.05)


def with_galweight(masses: pa.Table, clusters: pa.Table) -> pa.Table:
    """Rows of `masses` with a posterior and a GalWeight mass, joined, in order of cluster_id."""
    columns = ["cluster_id", "log10_m200_galweight", "log10_m200_galweight_err"]
    plain = masses.drop_columns("posterior") if "posterior" in masses.column_names else masses
    joined = plain.join(clusters.select(columns), "cluster_id", join_type="inner")
    ours, theirs = joined["log10_m200c_p50"], joined["log10_m200_galweight"]
    both = pc.and_(pc.is_valid(ours), pc.is_valid(theirs))
    return joined.filter(both).sort_by("cluster_id")


@drawing()
def predicted_galweight(axes: Axes, masses: pa.Table, clusters: pa.Table) -> None:
    """Posterior medians of the survey's clusters against GalWeight's masses."""
    joined = with_galweight(masses, clusters)
    if not joined.num_rows:
        return nothing(axes, "No cluster has both masses: nothing to compare.")
    galweight, predicted = to_numpy(joined, "log10_m200_galweight", "log10_m200c_p50")
    error, minus, plus = to_numpy(joined, "log10_m200_galweight_err", "sigma_minus", "sigma_plus")
    points(axes, galweight, predicted)
    diagonal(axes, galweight, predicted)
    if np.isfinite(minus).any():
        _typical_error(axes, np.nanmedian(error), np.nanmedian(minus), np.nanmedian(plus))
    axes.set(xlabel=r"GalWeight $\log_{10} M_{200}$ [$h^{-1}\,M_\odot$]", ylabel=CNN_MASS)


def _typical_error(axes: Axes, x_error: float, minus: float, plus: float) -> None:
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    span = right - axes.get_xlim()[0]
    x_error = x_error if np.isfinite(x_error) else 0.0
    x, y = right - 0.06 * span - x_error, bottom + 0.05 * span + minus
    axes.errorbar(x, y, xerr=x_error, yerr=[[minus], [plus]], color=INK, fmt="none", lw=1)
    axes.annotate("median error", (x, y - minus), (0, -3), textcoords="offset points",
                  ha="center", va="top", fontsize=7.5, color=MUTED)  # fmt: skip


@drawing()
def pull_histogram(axes: Axes, pulls: np.ndarray) -> None:
    """Pulls against GalWeight with the unit Gaussian and the paper's."""
    pulls = pulls[np.isfinite(pulls)]
    if not pulls.size:
        return nothing(axes, "No cluster has both masses with errors: there are no pulls.")
    shown = np.clip(pulls, -5, 5)
    axes.hist(
        shown, bins=np.linspace(-5, 5, 41).tolist(), density=True, color=BLUE, alpha=0.45, lw=0,
        label=f"{pulls.size} clusters",
    )  # fmt: skip
    t = np.linspace(-5, 5, 201)

    def gaussian(mean: float, deviation: float) -> np.ndarray:
        return np.exp(-(((t - mean) / deviation) ** 2) / 2) / (deviation * np.sqrt(2 * np.pi))

    axes.plot(t, gaussian(0, 1), "--", color=INK, label="unit Gaussian")
    if pulls.size > 1 and np.std(pulls) > 0:
        mean, deviation = float(np.mean(pulls)), float(np.std(pulls, ddof=1))
        axes.plot(t, gaussian(mean, deviation), color=RED,
                  label=f"ours: mean {signed(mean)}, std {deviation:.2f}")  # fmt: skip
    axes.plot(t, gaussian(*PAPER_PULL), ":", color=GREEN,
              label=f"paper: mean {signed(PAPER_PULL[0])}, std {PAPER_PULL[1]:.2f}")  # fmt: skip
    axes.set(
        xlabel=r"$\log_{10}(M_\mathrm{pred}/M_\mathrm{GalWeight})\;/\;\sigma_\mathrm{com}$",
        ylabel="Probability density", xlim=(-5, 5),
    )  # fmt: skip
    axes.set_ylim(0, axes.get_ylim()[1] * 1.18)
    axes.legend(loc="upper left", fontsize=8.5)


@canvas(10.4, 4.6)
def against_galweight(figure: Figure, masses: pa.Table, clusters: pa.Table) -> None:
    """Masses against GalWeight's, and the pull."""
    from cmass.publish.summary import pulls

    left, right = figure.subplots(1, 2)
    predicted_galweight.draw(left, masses, clusters)  # type: ignore[attr-defined]
    pull_histogram.draw(right, pulls(with_galweight(masses, clusters)))  # type: ignore[attr-defined]


@drawing(6.2, 4.2)
def offsets(axes: Axes, table: pa.Table, words: dict[str, str] | None = None) -> None:
    """Observed and predicted log10(M_pred/M_GalWeight), even and odd clusters apart.

    Parameters
    ----------
    table : pyarrow.Table
        Table ``offsets``.
    words : dict of str to str, optional
        What the legend says of each half besides its name.
    """
    drawn = False
    for half, colour in (("even", BLUE), ("odd", RED)):
        own = table.filter(pc.equal(table["half"], half)).sort_by("offset_low")
        if not own.num_rows:
            continue
        low, high, seen, said = to_numpy(
            own, "offset_low", "offset_high", "n_observed", "n_predicted"
        )
        # Two bins to one: some 380 clusters a half.
        whole = 2 * (low.size // 2)
        low, high = low[:whole:2], high[1:whole:2]
        seen, said = (x[:whole].reshape(-1, 2).sum(axis=1) for x in (seen, said))
        if not seen.sum():
            continue
        drawn = True
        total = seen.sum() * (high - low)
        label = f"{half}{': ' + words[half] if words and half in words else ''}"
        middle = (low + high) / 2 + (0.012 if half == "odd" else -0.012)
        axes.errorbar(middle, seen / total, np.sqrt(np.maximum(seen, 1)) / total, fmt="o", ms=3.5,
                      lw=1, color=colour, label=label)  # fmt: skip
        if said.sum():
            axes.stairs(said / said.sum() / (high - low), [*low, high[-1]], color=colour, lw=1.4,
                        fill=False, label=f"{half}, expected")  # fmt: skip
    if not drawn:
        return nothing(axes, "No cluster has both masses: nothing to compare.")
    axes.axvline(0, color=MUTED, lw=0.8, ls=":")
    axes.set(
        xlabel=r"$\log_{10}(M_\mathrm{pred}/M_\mathrm{GalWeight})$ [dex]",
        ylabel=r"Probability density [dex$^{-1}$]", xlim=(-1.2, 1.2),
    )  # fmt: skip
    axes.set_ylim(0, axes.get_ylim()[1] * 1.02)
    legend_above(axes, ncols=2)


def offset_words(calibration: pa.Table, survey: str) -> dict[str, str]:
    """Mean and scatter of each half's offsets, observed and expected, for a legend."""
    from cmass.publish.summary import calibration_value

    found = {}
    for half in ("even", "odd"):
        values = [
            calibration_value(calibration, f"{prefix}galweight_{name}", f"{survey}_{half}")
            for name in ("offset_mean", "scatter")
            for prefix in ("", "expected_")
        ]
        if all(row["value"] is not None for row in values):
            mean, model_mean, scatter, model_scatter = (row["value"] for row in values)
            found[half] = (
                f"mean {signed(mean, 3)}, scatter {scatter:.3f}\n"
                f"(expected {signed(model_mean, 3)}, {model_scatter:.3f})"
            )
    return found


_ESTIMATORS = {
    "cnn3d": (CNN, BLUE, "-"),
    "galweight": ("GalWeight", RED, "-"),
    "truth": ("true masses", GREEN, ":"),
    "tinker08": ("Tinker+2008", INK, "--"),
    "expected_cnn3d": (f"{CNN}, expected", BLUE, "--"),
}
#: Estimators whose mass functions are in the table but not in the figure.
_NOT_DRAWN = ("point", "expected_point", "expected_galweight")


@drawing()
def mass_function(axes: Axes, table: pa.Table, completeness_log10_m200c: float = 14.0) -> None:
    """Mass functions with their Poisson bands and Tinker+2008."""
    drawn = table.filter(pc.greater(table["density_h3_mpc3_dex"], 0))
    drawn = drawn.filter(pc.invert(pc.is_in(drawn["estimator"], pa.array(_NOT_DRAWN))))
    theory = pa.array(["tinker08", "expected_cnn3d"])
    observed = drawn.filter(pc.invert(pc.is_in(drawn["estimator"], theory)))
    if not observed.num_rows:
        return nothing(axes, "No cluster has a mass: there is no mass function to draw.")
    for name in sorted(set(drawn["estimator"].to_pylist())):
        label, colour, line = _ESTIMATORS.get(name, (name, GREEN, ":"))
        own = drawn.filter(pc.equal(drawn["estimator"], name)).sort_by("log10_m200c")
        mass, density, low, high = to_numpy(
            own, "log10_m200c", "density_h3_mpc3_dex", "density_low", "density_high"
        )
        banded = np.isfinite(low) & np.isfinite(high)
        if banded.any():
            axes.fill_between(
                mass[banded], np.maximum(low[banded], 1e-12), high[banded], color=colour,
                alpha=0.2, lw=0,
            )  # fmt: skip
        axes.plot(mass, density, line, color=colour, label=label)
    values = observed["density_h3_mpc3_dex"].to_numpy()
    axes.set(
        xlabel=MASS, ylabel=r"$dn/d\log_{10}M$ [$h^3\,$Mpc$^{-3}\,$dex$^{-1}$]", yscale="log",
        ylim=(max(values.max() * 1e-4, 1e-9), values.max() * 8),
    )  # fmt: skip
    mass = observed["log10_m200c"].to_numpy()
    axes.set_xlim(mass.min(), mass.max())
    if axes.get_xlim()[0] < completeness_log10_m200c:
        axes.axvspan(
            axes.get_xlim()[0], completeness_log10_m200c, color=MUTED, alpha=0.15, lw=0,
            label="incomplete",
        )  # fmt: skip
    axes.legend()


@drawing(7.0, 3.9)
def sky_map(axes: Axes, masses: pa.Table, rejected: pa.Table | None = None) -> None:
    """Positions of the clusters, coloured by mass; east to the left."""
    if not masses.num_rows:
        return nothing(axes, "No cluster was selected: the map is empty.")
    ra, dec, mass, n = to_numpy(masses, "ra", "dec", "log10_m200c", "n_galaxies")
    everything = ra if rejected is None else np.concatenate([ra, rejected["ra"].to_numpy()])
    cut = _widest_gap(everything)
    if rejected is not None and rejected.num_rows:
        other_ra, other_dec = to_numpy(rejected, "ra", "dec")
        axes.plot(_unwrap(other_ra, cut), other_dec, "x", ms=2.5, mew=0.7, color=MUTED, alpha=0.7,
                  label="not selected", rasterized=rejected.num_rows > MANY_POINTS)  # fmt: skip
    size = 6 + 22 * np.sqrt(np.asarray(n, float) / max(np.max(n), 1))
    none = ~np.isfinite(mass)
    if none.any():
        axes.scatter(_unwrap(ra, cut)[none], dec[none], s=size[none], facecolors="none",
                     edgecolors=RED, lw=0.9, label="no mass")  # fmt: skip
    if (~none).any():
        dots = axes.scatter(
            _unwrap(ra, cut)[~none], dec[~none], s=size[~none], c=mass[~none], cmap=RAMP, lw=0,
            alpha=0.9, rasterized=len(ra) > MANY_POINTS,
        )  # fmt: skip
        bar = axes.figure.colorbar(dots, ax=axes, pad=0.02)
        bar.set_label(MASS)
        bar.outline.set_visible(False)  # type: ignore[operator]
    axes.set(xlabel="Right ascension, J2000 [deg]", ylabel="Declination, J2000 [deg]")
    axes.invert_xaxis()
    axes.xaxis.set_major_locator(MaxNLocator(12, steps=[1, 1.5, 3, 6, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value % 360:g}")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.1), ncols=2)


def _widest_gap(ra: np.ndarray) -> float:
    """Middle of the widest gap in right ascension, deg: where a map is best cut."""
    ordered = np.sort(ra)
    gaps = np.diff(np.append(ordered, ordered[0] + 360))
    widest = int(np.argmax(gaps))
    return float(ordered[widest] + gaps[widest] / 2) % 360


def _unwrap(ra: np.ndarray, cut: float) -> np.ndarray:
    return cut + np.mod(ra - cut, 360)


def _complete(params: Params) -> float:
    return params.infer.completeness_log10_m200c


def _function_caption(tables: Tables, params: Params) -> str:
    return (
        "Clusters per volume and dex (kernel density) with 1σ Poisson bands, the halo mass function "
        "of Tinker+2008, and what the network would say of its haloes (expected). Below log₁₀ M = "
        f"{_complete(params):g} the catalogue is not complete. Counts of point estimates and medians "
        "lie above the mass function because scatter lifts more haloes over a limit than it drops."
    )


def _function_tables(inputs: Inputs) -> dict[str, pa.Table]:
    from cmass.evaluate import Numbers
    from cmass.evaluate.volume import effective_area_deg2

    n = inputs["clusters"].num_rows
    area, numbers = effective_area_deg2(inputs.workspace, inputs.params, n), Numbers()
    numbers.add("effective_area", area, bin=inputs.params.survey, paper=6670.0, unit="deg2")
    return {
        "mass_function": inputs["mass_function"], "comparison": inputs["comparison"],
        "survey_area": numbers.table(),
    }  # fmt: skip


def _function_numbers(tables: Tables, params: Params) -> list[Number]:
    function = tables["mass_function"]
    found: list[Any] = [
        Number("Clusters with both masses", one.value, paper=760.0)
        for one in rows("comparison", "n_compared", bin=None)(tables, params)
    ]
    found += rows("survey_area", "effective_area", bin=None)(tables, params)
    found.append(Number("Completeness limit, log₁₀ M [h⁻¹ M☉]", _complete(params), paper=14.0))
    mass, density = to_numpy(function, "log10_m200c", "density_h3_mpc3_dex")
    names = np.array(function["estimator"].to_pylist())
    for name, words in (("cnn3d", "CNN₃D"), ("galweight", "GalWeight")):
        own, theory = names == name, names == "tinker08"
        if own.any() and theory.any():
            at = _complete(params)
            ours = np.interp(at, mass[own], density[own])
            model = np.interp(at, mass[theory], density[theory])
            found.append(Number(f"{words} over Tinker+2008 at 10^{at:g}", float(ours / model)))
    return found


FIGURES = (
    Entry(
        "sky", "Sky map", "catalogue", ("masses", "rejected"),
        lambda t, p: sky_map(t["masses"], t["rejected"]),
        "The selected clusters, coloured by the network's point estimate; larger symbols have more galaxies "
        "in the window. Crosses are clusters of the source that were not selected: too far, or too "
        "close to the survey's edge. East is to the left.",
        wide=True,
    ),
    Entry(
        "fig10_galweight", "Masses against GalWeight, and the pull", "proof",
        ("masses", "clusters", "comparison"),
        lambda t, p: against_galweight(t["masses"], t["clusters"]),
        "Left: posterior medians against the dynamical masses of the cluster catalogue; the dashed "
        "line is equality. Right: the pull, which is the difference of the two log masses over the "
        "combined error. A perfect simulator does not give a mean of zero here: the flat prior moves "
        "it. The forward model says by how much; its comparison stands under “Beyond the paper”.",
        paper="Fig. 10", wide=True,
        numbers=rows("comparison", "pull_mean", "pull_std", "n_compared", "expected_pull_mean",
                     "expected_pull_std", bin=None),
    ),
    Entry(
        "figA1_mass_function", "Mass function", "proof",
        ("mass_function", "comparison", "clusters", "rejected", "footprint"),
        lambda t, p: mass_function(t["mass_function"], _complete(p)), _function_caption,
        paper="Fig. A1", tables=_function_tables, numbers=_function_numbers,
    ),
    Entry(
        "offsets", "Observed and expected comparison with GalWeight", "beyond",
        ("offsets", "comparison"),
        lambda t, p: offsets(t["offsets"], offset_words(t["comparison"], p.survey)),
        "Log ratio of our masses and GalWeight's, even and odd clusters apart (points with Poisson "
        "errors), and what the mocks predict (lines): the population of haloes, seen by the "
        "network and weighed as GalWeight does, selected as the catalogue is. Ratios of GalWeight's "
        "masses to their imitation come from even clusters; no mass of ours enters the prediction.",
        numbers=rows("comparison", "galweight_offset_mean", "expected_galweight_offset_mean",
                     "galweight_scatter", "expected_galweight_scatter", bin=None),
    ),
)  # fmt: skip
