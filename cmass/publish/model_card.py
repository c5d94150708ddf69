"""model_card.md: what the model is for, how good it is, and where not to use it.

Every number in the card comes from the release's tables, the tables behind the figures, the
parameters or the provenance; none is typed. What has no table yet is left out, with the command
that makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cmass.publish import summary
from cmass.publish.readme import render

Tables = Mapping[str, pa.Table]

#: Metrics of the evaluation set that the card gives overall.
_OVERALL = ("epsilon_mean", "epsilon_scatter", "epsilon_scatter_robust", "sigma_n", "sigma_0",
            "dispersion_epsilon_scatter", "scatter_ratio_to_dispersion")  # fmt: skip
#: Metrics of an estimator among its rivals, with the heads of their columns.
RIVAL_METRICS = {
    "epsilon_mean": "bias", "epsilon_scatter": "scatter",
    "epsilon_scatter_massive": "scatter, massive", "sigma_n": "σ_N", "sigma_0": "σ₀",
    "coverage_error": "coverage error", "crps": "CRPS",
}  # fmt: skip
#: Metrics of the posteriors before and after recalibration.
_BEFORE_AFTER = ("coverage_error_max", "crps", "log_score", "width_68")
#: Quantities of table `calibration_bins` whose name alone does not say what they are.
_QUANTITIES = {"distance": "distance by redshift, h⁻¹ Mpc"}
#: Conditions of table `residual_bins` in words, with the unit of their bins.
_CONDITIONS = {
    "distance": "Comoving distance, h⁻¹ Mpc", "richness": "Galaxies in the window",
    "predicted_mass": "Point estimate, log₁₀ h⁻¹ M☉",
}  # fmt: skip


@dataclass(frozen=True)
class Bin:
    """One row of residuals, as text: the bin, its windows, mean and scatter with errors."""

    words: str
    n: str
    mean: str
    scatter: str


@dataclass(frozen=True)
class Calibrated:
    """One number of the posteriors as text: before, after, and what perfect ones stay below."""

    words: str
    n: str
    before: str
    after: str
    perfect: str


@dataclass(frozen=True)
class Rival:
    """One estimator among its rivals: its metrics with errors, in the order of `RIVAL_METRICS`, and seeds."""

    title: str
    values: list[str]
    seeds: str
    parameters: str
    seconds: str


def mass_bins(calibration: pa.Table) -> list[Bin]:
    """Residuals by true mass, from table `calibration`."""
    found: dict[str, dict[str, str]] = {}
    for row in calibration.to_pylist():
        if row["metric"] in ("epsilon_mean", "epsilon_scatter") and row["bin"] != "all":
            cells = found.setdefault(row["bin"], {})
            cells[row["metric"]] = summary.with_error(row["value"], row["error"])
    return [
        Bin(name.replace("-", "–"), "", c.get("epsilon_mean", "–"), c.get("epsilon_scatter", "–"))
        for name, c in found.items()
    ]  # fmt: skip


def condition_bins(table: pa.Table | None) -> dict[str, list[Bin]]:
    """Residuals by condition in words, from table `residual_bins`."""
    found: dict[str, list[Bin]] = {}
    for row in table.to_pylist() if table is not None else []:
        digits = "{:.0f}–{:.0f}" if row["coordinate_low"] >= 20 else "{:.2f}–{:.2f}"
        found.setdefault(_CONDITIONS[row["statistic"]], []).append(
            Bin(digits.format(row["coordinate_low"], row["coordinate_high"]), str(row["n"]),
                summary.with_error(row["mean"], row["error"]),
                summary.with_error(row["scatter"], row["scatter_error"]))
        )  # fmt: skip
    return found


def before_after(calibration: pa.Table) -> list[Calibrated]:
    """Posteriors before and after recalibration, from table `calibration`; empty without them."""
    found = []
    for metric in _BEFORE_AFTER:
        plain, after, perfect = (
            summary.calibration_value(calibration, f"{metric}{end}")
            for end in ("_plain", "", "_perfect")
        )
        if plain["value"] is None or after["value"] is None:
            continue
        found.append(
            Calibrated(_with_unit(summary.metric_words(metric, "all"), plain["unit"]), "",
                       summary.with_error(plain["value"], plain["error"]),
                       summary.with_error(after["value"], after["error"]),
                       summary.number_text(perfect["value"]))
        )  # fmt: skip
    return found


def _with_unit(words: str, unit: str) -> str:
    return f"{words}, {unit}" if unit else words


def _count(n: int, what: str) -> str:
    """A number of things, as 1 cluster and 2 clusters."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def coverage_in_bins(table: pa.Table | None) -> dict[str, list[Calibrated]]:
    """Coverage errors in bins by quantity, from table `calibration_bins`."""
    rows = table.to_pylist() if table is not None else []
    plain = {(r["quantity"], r["bin"]): r for r in rows if r["posterior_kind"] == "plain"}
    found: dict[str, list[Calibrated]] = {}
    for row in rows:
        if row["posterior_kind"] != "recalibrated" or row["quantity"] == "all":
            continue
        before = plain.get((row["quantity"], row["bin"]), {})
        quantity = _QUANTITIES.get(row["quantity"], row["quantity"])
        found.setdefault(quantity, []).append(
            Calibrated(row["bin"].replace("-", "–"), str(row["n"]),
                       summary.number_text(before.get("coverage_error")),
                       summary.number_text(row["coverage_error"]),
                       summary.number_text(row["perfect_error_high"]))
        )  # fmt: skip
    return found


def rival_rows(evidence: Tables) -> list[Rival]:
    """Estimators by scatter, from tables `rival_scores` and `rival_costs`; empty without them."""
    if "rival_scores" not in evidence:
        return []
    from cmass.figures.rivals import title_of
    from cmass.rivals.scores import estimators_by_scatter, n_seeds, over_seeds, score

    scores = evidence["rival_scores"]
    costs: dict[str, dict[str, Any]] = {}
    if "rival_costs" in evidence:
        for row in evidence["rival_costs"].to_pylist():
            costs.setdefault(row["estimator"], row)
    found = []
    for name in estimators_by_scatter(scores):
        values = [summary.with_error(*over_seeds(*score(scores, name, m))) for m in RIVAL_METRICS]
        cost = costs.get(name, {})
        found.append(
            Rival(title_of(name), values, str(n_seeds(scores, name)),
                  summary.number_text(cost.get("n_parameters"), count=True),
                  summary.number_text(cost.get("seconds_per_1000")))
        )  # fmt: skip
    return found


def failure_modes(tables: Tables, evidence: Tables, facts: Mapping[str, Any]) -> list[str]:
    """Where the masses are known to fail, each a sentence with its numbers."""
    found = []
    if "contamination" in evidence:
        table, bins = evidence["contamination"], evidence["contamination_bins"].to_pylist()
        near = table.num_rows - table["contaminant_mass_ratio"].null_count
        words = (
            f"**Blends.** {near} of {table.num_rows} evaluation windows hold a neighbour more massive "
            "than the cluster"
        )
        known = [b for b in bins if b["statistic"] == "mass_ratio" and b["error"] is not None]
        if known:
            parts = [f"{summary.with_error(b['mean'], b['error'])} dex {_ratio(b)}" for b in known]
            words += (
                ". Residual less that of clean windows of the same mass (negative: the mass is "
                "overestimated): " + ", ".join(parts)
            )
        found.append(words + ".")
    flags = {f.name: f for f in summary.flag_counts(tables["masses"])}
    n = tables["masses"].num_rows
    edge, unlike, double = (
        flags[name] for name in ("posterior_at_edge", "unlike_mocks", "two_clusters")
    )
    found.append(
        f"**Odd windows.** Of the {_count(n, 'cluster')} of this release, {unlike.count} lie farther "
        f"from every mock than mocks do (flag {unlike.value}), and {double.count} show a second "
        f"structure in the window (flag {double.value}). A flag that is not set is no certificate: what makes another "
        "plausible cluster, such as wrong velocities, is not seen."
    )
    found.append(
        f"**Edges of the prior.** {edge.count} of the {n} clusters of this release have a posterior "
        f"that the prior's edge cuts (flag {edge.value}): their medians and widths depend on the edge."
    )
    bins = mass_bins(tables["calibration"])
    if len(bins) > 1:
        found.append(
            "**Ends of the mass range.** Estimates tend towards the middle of the training range. Mean ε "
            "(negative: the mass is overestimated) is "
            f"{bins[0].mean} dex at log₁₀ M {bins[0].words} and {bins[-1].mean} dex at "
            f"{bins[-1].words}. The posteriors allow for it on average, the point estimates do not."
        )
    outside = [flags["below_calibrated_range"], flags["above_calibrated_range"],
               flags["redshift_outside_training"]]  # fmt: skip
    found.append(
        "**Outside the range.** A point estimate beyond those of all test mocks has no posterior "
        f"({_count(outside[0].count, 'cluster')} below, {outside[1].count} above). Distances that the "
        f"mocks do not cover: {_count(outside[2].count, 'cluster')}; numbers of galaxies that they do "
        f"not cover: {_count(flags['unlike_training'].count, 'cluster')}."
    )
    return found


def _ratio(row: Mapping[str, Any]) -> str:
    low, high = row["coordinate_low"], row["coordinate_high"]
    of = f"{row['n']} windows"
    if high is None:
        return f"beyond mass ratio {low:g} ({of})"
    return f"at mass ratio {low:g}–{high:g} ({of})"


def _is_of_survey(metric: str) -> bool:
    """Whether the card lists a number of the survey; estimators beside X-ray masses have a table."""
    if metric.startswith(("n_flag_", "xray_n_pairs", "virial", "n_without")):
        return False
    return not metric.startswith("xray_") or metric in summary.METRIC_WORDS


def model_card(
    tables: Tables, facts: Mapping[str, Any], evidence: Tables | None = None,
    missing: list[str] | None = None,
) -> str:  # fmt: skip
    """Markdown of the model card.

    Parameters
    ----------
    tables : mapping of str to pyarrow.Table
        Tables of the release.
    facts : mapping
        Provenance, as `cmass.publish.provenance.gather` gives it.
    evidence : mapping of str to pyarrow.Table, optional
        Tables behind the figures (`cmass.figures.tables`).
    missing : list of str, optional
        What figures could not be made, in words.
    """
    evidence = evidence or {}
    survey = facts["release"]["survey"]
    rows = summary.numbers(tables["calibration"])
    evaluated = [r for r in rows if r.bin in ("all", "cnn3d", "sigma_m")]
    return render(
        "model_card.md.jinja2", release=facts["release"], software=facts["software"], registry=facts["registry"],
        parameters={**facts["parameters"], **facts["model_parameters"]},
        model=[leaf for leaf in summary.leaves(facts["model"]) if leaf[0] != "profile"],
        sources=[leaf for leaf in summary.leaves(facts["sources"])
                 if leaf[0].rsplit(".", 1)[-1] in ("citation", "producer", "licence")],
        overall=[r for r in evaluated if r.metric in _OVERALL],
        calibration=[r for r in rows if r.metric in ("coverage_68", "coverage_95")],
        before_after=before_after(tables["calibration"]),
        coverage_bins=coverage_in_bins(evidence.get("calibration_bins")),
        mass_bins=mass_bins(tables["calibration"]),
        conditions=condition_bins(evidence.get("residual_bins")),
        rivals=rival_rows(evidence), rival_heads=list(RIVAL_METRICS.values()),
        real=[r for r in rows if r.bin == survey and _is_of_survey(r.metric)],
        xray=summary.xray_rows(tables["calibration"], survey),
        xray_heads=list(summary.XRAY_METRICS.values()),
        xray_margin=facts["parameters"]["infer"]["xray"]["margin_dex"],
        failures=failure_modes(tables, evidence, facts),
        sets=evidence["mass_distributions"].to_pandas().groupby("set")["n"].sum().to_dict()
        if "mass_distributions" in evidence else {},
        flags=summary.flag_counts(tables["masses"]), counts=summary.mass_counts(tables["masses"]),
        missing=missing or [],
    )  # fmt: skip
