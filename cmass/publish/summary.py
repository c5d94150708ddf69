"""What a release says of itself in a few numbers: shared by report, model card and README."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cmass.columns import FLAGS
from cmass.tables import to_numpy

#: What the numbers of table `calibration` mean, by metric.
METRIC_WORDS = {
    "n_clusters": "Mock clusters in the evaluation set",
    "n_haloes": "Haloes in the evaluation set",
    "n_without_posterior": "Mocks without a posterior (outside the calibrated range)",
    "n_without_dispersion": "Mocks without a σ–M mass",
    "epsilon_mean": "Mean residual ε = log₁₀(M_true/M_pred)",
    "epsilon_scatter": "Scatter of ε",
    "epsilon_scatter_robust": "Robust scatter of ε (half the 68 % width)",
    "dispersion_epsilon_mean": "σ–M on the same mocks: mean residual",
    "dispersion_epsilon_scatter": "σ–M on the same mocks: scatter",
    "dispersion_epsilon_scatter_robust": "σ–M on the same mocks: robust scatter",
    "scatter_ratio_to_dispersion": "Scatter, CNN₃D over σ–M",
    "scatter_robust_ratio_to_dispersion": "Robust scatter, CNN₃D over σ–M",
    "coverage_68": "True masses inside the 1σ interval (calibrated: 0.683)",
    "coverage_95": "True masses inside the 2σ interval (calibrated: 0.954)",
    "coverage_error_max": "Largest error of the coverage",
    "coverage_error_mean": "Mean error of the coverage",
    "coverage_error_max_plain": "Largest error of the coverage, plain posterior",
    "coverage_error_max_perfect": "95 % of perfect posteriors stay below",
    "coverage_error_max_chance": "Perfect posteriors whose coverage strays as far",
    "coverage_error_bin_max": "Largest error of the coverage in any bin",
    "coverage_error_bin_max_plain": "Largest error of the coverage in any bin, plain posterior",
    "coverage_error_bin_max_perfect": "95 % of perfect posteriors stay below in all bins",
    "crps": "Continuous ranked probability score",
    "crps_plain": "Continuous ranked probability score, plain posterior",
    "crps_gain": "Gain of the ranked probability score by recalibration",
    "log_score": "Mean log posterior density at the truth",
    "log_score_plain": "Mean log posterior density at the truth, plain posterior",
    "log_score_gain": "Gain of the log posterior density by recalibration",
    "width_68": "Mean width of the central 68 %",
    "width_68_plain": "Mean width of the central 68 %, plain posterior",
    "n_compared": "Clusters compared with GalWeight",
    "galweight_offset_median": "Median of log₁₀(M_pred/M_GalWeight)",
    "galweight_scatter": "Scatter of log₁₀(M_pred/M_GalWeight)",
    "galweight_scatter_robust": "Robust scatter of log₁₀(M_pred/M_GalWeight)",
    "pull_mean": "Mean pull against GalWeight",
    "pull_std": "Standard deviation of the pull against GalWeight",
    "galweight_offset_mean": "Mean of log₁₀(M_pred/M_GalWeight)",
    "expected_n_compared": "Clusters that the forward model expects in the comparison",
    "expected_n_windows_effective": "Forward model: effective number of mock windows",
    "expected_n_unmatched": "Forward model: clusters of which the population has no like",
    "expected_galweight_offset_mean": "Mean offset that the forward model expects",
    "expected_galweight_offset_median": "Median offset that the forward model expects",
    "expected_galweight_scatter": "Scatter that the forward model expects",
    "expected_galweight_scatter_robust": "Robust scatter that the forward model expects",
    "expected_pull_mean": "Mean pull that the forward model expects",
    "expected_pull_std": "Standard deviation of the pull that the forward model expects",
    "galweight_offset_mean_beyond_expected": "Mean offset, observed less expected",
    "galweight_scatter_over_expected": "Scatter, observed over expected",
    "galweight_offset_ks_distance": "Largest distance of the observed and expected CDFs",
    "galweight_offset_ks_chance": "Chance of such a distance (Kolmogorov–Smirnov)",
    "virial_offset_median": "Virial mass over GalWeight's: median of log₁₀",
    "virial_scatter": "Virial mass over GalWeight's: scatter of log₁₀",
    "virial_scatter_robust": "Virial mass over GalWeight's: robust scatter of log₁₀",
    "virial_failed": "Part of the clusters whose virial mass is over 0.4 dex off GalWeight's",
    "n_without_virial": "Clusters without a virial mass",
    "n_above_tinker08": "Haloes, Tinker+2008",
    "n_above_point": "Clusters by the network's estimate",
    "n_above_cnn3d": "Clusters by the posterior's median",
    "n_above_posterior": "Clusters by the sum of posteriors",
    "n_above_posterior_hmf": "Clusters by the sum of posteriors, mass-function prior",
    "n_above_galweight": "Clusters by GalWeight",
    "expected_n_above_point": "Expected by the network's estimate",
    "expected_n_above_cnn3d": "Expected by the posterior's median",
    "expected_n_above_posterior": "Expected by the sum of posteriors",
    "expected_n_above_posterior_hmf": "Expected by the sum of posteriors, mass-function prior",
    "expected_n_above_galweight": "Expected by GalWeight",
    "chance_above_point": "Poisson chance, the network's estimate",
    "chance_above_cnn3d": "Poisson chance, the posterior's median",
    "chance_above_galweight": "Poisson chance, GalWeight",
    "selection": "Clusters of the survey over those of the mass function",
    **{
        f"{prefix}galweight_offset_{end}": f"{percent} quantile of log₁₀(M_pred/M_GalWeight){words}"
        for prefix, words in (("", ""), ("expected_", " that the forward model expects"))
        for end, percent in (
            ("p2_5", "2.3 %"),
            ("p16", "15.9 %"),
            ("p84", "84.1 %"),
            ("p97_5", "97.7 %"),
        )
    },
    "truth_offset_mean": "Mean of log₁₀(M_pred/M_true), embedded survey",
    "truth_offset_median": "Median of log₁₀(M_pred/M_true), embedded survey",
    "truth_scatter": "Scatter of log₁₀(M_pred/M_true), embedded survey",
    "truth_scatter_robust": "Robust scatter of log₁₀(M_pred/M_true), embedded survey",
    "truth_pull_mean": "Mean pull against the truth, embedded survey",
    "truth_pull_std": "Standard deviation of the pull against the truth, embedded survey",
    "truth_coverage_68": "True masses inside the 1σ interval, embedded survey (calibrated: 0.683)",
    "truth_coverage_95": "True masses inside the 2σ interval, embedded survey (calibrated: 0.954)",
    "xray_n_matched": "Clusters with an X-ray mass",
    "xray_n_ambiguous": "Of these with a second candidate",
    "xray_n_pairs_refused": "Pairs refused for a nearer one",
    "xray_n_in_survey": "X-ray clusters in the survey’s volume",
    "xray_n_by_chance": "X-ray matches expected by chance",
    "xray_n_compared": "Clusters compared with X-ray masses",
    "xray_conversion_error": "Median error of the X-ray mass from concentrations",
    "xray_mass_error": "Median error of the X-ray mass",
    "effective_area": "Area of the sky that the clusters stand for",
    "sigma_n": "Richness-dependent error σ_N (eq. 7)",
    "sigma_0": "Richness-independent error σ₀ (eq. 7)",
}


#: Estimators in words.
ESTIMATOR_WORDS = {
    "cnn3d": "CNN₃D", "cnn3d_hmf": "CNN₃D (mass-function prior)", "point": "CNN₃D point estimate",
    "dispersion": "σ–M", "galweight": "GalWeight",
}  # fmt: skip


@dataclass(frozen=True)
class Number:
    """One row of table `calibration`, as text."""

    words: str
    metric: str
    bin: str
    value: str
    error: str
    paper: str
    unit: str


@dataclass(frozen=True)
class FlagCount:
    """How many clusters carry one bit of the flag column."""

    value: int
    name: str
    words: str
    count: int


def number_text(value: float | None, *, count: bool = False) -> str:
    """A number for people: counts and large numbers whole, others with three decimals."""
    if value is None or not np.isfinite(value):
        return "–"
    if count or abs(value) >= 1000 or (float(value).is_integer() and abs(value) >= 2):
        text = f"{value:.0f}"
    elif abs(value) >= 0.001 or value == 0:
        text = f"{value:.3f}"
    else:
        text = f"{value:.2g}"
    return text.replace("-", "−", 1) if value < 0 else text


def pair_text(value: float | None, error: float | None) -> tuple[str, str]:
    """A value and its error, both with the decimals that the error asks for, three at least."""
    pair = [x for x in (value, error) if x is not None and np.isfinite(x)]
    if value is None or not error or len(pair) < 2 or abs(value) >= 1000:
        return number_text(value), number_text(error)
    decimals = 3 if error >= 0.0005 else math.ceil(-math.log10(error))
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−", 1), f"{error:.{decimals}f}"


def with_error(value: float | None, error: float | None) -> str:
    """A value with its error behind ±, where it has one."""
    return number_text(value) if error is None else " ± ".join(pair_text(value, error))


#: Smallest chance that is written out.
_CHANCE_MIN = 0.001


def _value_text(metric: str, value: float | None, error: float | None) -> str:
    """A metric's value: counts whole, expected counts with a decimal, tiny chances as bounds."""
    if value is not None and metric.startswith("expected_n_"):
        return f"{value:.1f}"
    if value is not None and value < _CHANCE_MIN and "chance" in metric.split("_"):
        return f"< {_CHANCE_MIN:g}"
    if metric.startswith("n_"):
        return number_text(value, count=True)
    return pair_text(value, error)[0]


def numbers(calibration: pa.Table) -> list[Number]:
    """Rows of table `calibration` in words, in the table's order."""
    return [
        Number(
            metric_words(row["metric"], row["bin"]), row["metric"], row["bin"],
            _value_text(row["metric"], row["value"], row["error"]),
            pair_text(row["value"], row["error"])[1],
            number_text(row["paper_value"]), row["unit"],
        )
        for row in calibration.to_pylist()
    ]  # fmt: skip


#: Subsets of table `calibration` whose name does not say what they are; ends of a survey's name.
_SUBSET_WORDS = {"all": "evaluation mocks", "sigma_m": "σ–M", "cnn3d": "CNN₃D"}
_SUBSET_ENDS = {
    "_even": "even clusters, which calibrated the simulator", "_odd": "odd clusters",
    "_unambiguous": "one X-ray candidate",
}  # fmt: skip


def subset_words(name: str) -> str:
    """What a row of table `calibration` is of."""
    if name in _SUBSET_WORDS:
        return _SUBSET_WORDS[name]
    for end, words in _SUBSET_ENDS.items():
        if name.endswith(end):
            return f"{name.removesuffix(end)}: {words}"
    survey, above, limit = name.partition("_above_")
    if above:
        return f"{survey}: X-ray mass above 10^{limit} h⁻¹ M☉"
    if name.startswith("above "):
        return f"mass above 10^{name.removeprefix('above ')} h⁻¹ M☉"
    return name.replace("-", "–")


def metric_words(metric: str, bin: str) -> str:
    """What the number of a row of table `calibration` is."""
    if metric.startswith("n_flag_") and metric.removeprefix("n_flag_") in FLAGS:
        return f"Clusters with flag {metric.removeprefix('n_flag_')}"
    if metric == "n_clusters" and bin != "all":
        return "Clusters of the survey"
    if metric == "n_without_posterior" and bin != "all":
        return "Clusters without a posterior"
    if metric.startswith("xray_") and metric not in METRIC_WORDS:
        return _xray_words(metric.removeprefix("xray_"))
    return METRIC_WORDS.get(metric, metric.replace("_", " ").capitalize())


#: Statistics of an estimator beside X-ray masses, with the heads of their columns.
XRAY_METRICS = {
    "offset": "median offset", "scatter": "scatter", "scatter_robust": "robust scatter",
    "slope_major_axis": "slope", "abs_offset_beyond_galweight": "offset’s size less GalWeight’s",
    "scatter_about_line_beyond_galweight": "scatter about the line less GalWeight’s",
}  # fmt: skip


@dataclass(frozen=True)
class XrayRow:
    """One estimator beside X-ray masses: the values of `XRAY_METRICS`, and whether it is no worse."""

    title: str
    values: list[str]
    shown_not_worse: str


def xray_rows(calibration: pa.Table, bin: str) -> list[XrayRow]:
    """Estimators beside X-ray masses, from table `calibration`; empty where none was compared.

    `shown_not_worse` is of offset and scatter about the line together, beside GalWeight's.
    """
    rows = {r["metric"]: r for r in calibration.to_pylist() if r["bin"] == bin}
    found = []
    for metric in rows:
        name = metric.removeprefix("xray_offset_")
        if name == metric:
            continue
        cells = [rows.get(f"xray_{statistic}_{name}") for statistic in XRAY_METRICS]
        shown = rows.get(f"xray_shown_not_worse_{name}")
        found.append(
            XrayRow(
                estimator_words(name),
                [with_error(c["value"], c["error"]) if c else "–" for c in cells],
                "–" if shown is None else "yes" if shown["value"] else "no",
            )
        )
    return found


def estimator_words(name: str) -> str:
    """An estimator's name for people; ``rival_`` stands before those that are ours as well."""
    from cmass.figures.rivals import title_of

    if name in ESTIMATOR_WORDS:
        return ESTIMATOR_WORDS[name]
    words = title_of(name.removeprefix("rival_"))
    return f"{words} as a rival (plain posterior)" if name.startswith("rival_") else words


#: What of an estimator is compared with X-ray masses; longer names first.
_XRAY_WORDS = {
    "n_compared_": "clusters compared", "not_worse_": "scatter not above GalWeight’s (1: yes)",
    "abs_offset_beyond_galweight_": "offset’s size less GalWeight’s",
    "shown_not_worse_": "shown not to be worse than GalWeight (1: yes)",
    "scatter_about_line_beyond_galweight_": "scatter about the line less GalWeight’s",
    "scatter_robust_beyond_galweight_": "robust scatter less GalWeight’s",
    "scatter_beyond_galweight_": "scatter less GalWeight’s",
    "scatter_about_line_": "scatter of the X-ray mass about its line on the estimate",
    "scatter_robust_": "robust scatter", "scatter_": "scatter", "offset_": "median offset",
    "slope_major_axis_": "slope of the major axis", "slope_": "slope",
}  # fmt: skip


def _xray_words(rest: str) -> str:
    for start, words in _XRAY_WORDS.items():
        if rest.startswith(start):
            return f"{estimator_words(rest.removeprefix(start))} against X-ray: {words}"
    return f"X-ray: {rest.replace('_', ' ')}"


def calibration_value(calibration: pa.Table, metric: str, bin: str = "all") -> dict[str, Any]:
    """Row of table `calibration` for a metric, or an empty one."""
    for row in calibration.to_pylist():
        if row["metric"] == metric and row["bin"] == bin:
            return row
    return {"value": None, "error": None, "paper_value": None, "unit": ""}


def flag_counts(masses: pa.Table) -> list[FlagCount]:
    """Every bit of the flag column with its words and the number of clusters that carry it."""
    flags = masses["flag"].to_numpy()
    return [
        FlagCount(f.value, f.name, f.words, int(np.count_nonzero(flags & f.value)))
        for f in FLAGS.values()
    ]


def mass_counts(masses: pa.Table) -> dict[str, Any]:
    """Clusters, those with mass, posterior and flags, and the median errors in dex."""
    minus, plus = to_numpy(masses, "sigma_minus", "sigma_plus")
    known = np.isfinite(minus)
    return {
        "clusters": masses.num_rows,
        "with_mass": masses.num_rows - masses["log10_m200c"].null_count,
        "with_posterior": masses.num_rows - masses["log10_m200c_p50"].null_count,
        "flagged": int(pc.sum(pc.not_equal(masses["flag"], 0)).as_py() or 0),
        "sigma_minus": float(np.median(minus[known])) if known.any() else None,
        "sigma_plus": float(np.median(plus[known])) if known.any() else None,
    }


def pulls(joined: pa.Table) -> np.ndarray:
    """Pulls of the posterior medians against GalWeight, as `cmass.evaluate.forward.pull` defines them.

    Parameters
    ----------
    joined : pyarrow.Table
        Rows of masses with GalWeight's masses and errors.

    Returns
    -------
    ndarray, shape (n,)
        NaN where an error is missing.
    """
    from cmass.evaluate.forward import pull

    names = ("log10_m200c_p16", "log10_m200c_p50", "log10_m200c_p84", "log10_m200_galweight",
             "log10_m200_galweight_err")  # fmt: skip
    with np.errstate(divide="ignore", invalid="ignore"):
        return pull(*to_numpy(joined, *names))


def leaves(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Dotted names and texts of the leaves of nested facts; what is None is left out."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        parts = [(f"{prefix}.{key}" if prefix else str(key), part) for key, part in value.items()]
    elif isinstance(value, list) and any(isinstance(v, Mapping | list) for v in value):
        parts = [(f"{prefix}[{number}]", part) for number, part in enumerate(value)]
    else:
        return [(prefix, ", ".join(map(str, value)) if isinstance(value, list) else str(value))]
    return [leaf for name, part in parts for leaf in leaves(part, name)]
