"""external: our masses beside masses that no galaxy's velocity went into (X-ray, MCXC-II).

Clusters are matched by place and redshift (`matching`), X-ray masses are brought to M200c
(`cmass.mass_definition`), and all estimators are compared with them on the same clusters
(`agreement`).
"""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cmass import cosmology
from cmass.evaluate import Numbers
from cmass.evaluate.external.agreement import add_agreement
from cmass.evaluate.external.matching import (
    Limits,
    Places,
    ambiguous,
    candidate_pairs,
    chance_matches,
    one_to_one,
)
from cmass.ingest.footprint import Footprint
from cmass.mass_definition import log10_m200c_from_m500c
from cmass.params import Params
from cmass.tables import make_table, read_table, to_numpy, write_table
from cmass.workspace import Workspace

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

#: Columns of table `xray_matches` that are compared, by estimator.
ESTIMATORS = {
    "cnn3d": "log10_m200c_p50",
    "cnn3d_hmf": "log10_m200c_hmf_p50",
    "point": "log10_m200c",
    "dispersion": "log10_m200c_dispersion",
    "galweight": "log10_m200_galweight",
}
_OF_MASSES = (
    "z", "log10_m200c", "log10_m200c_p16", "log10_m200c_p50", "log10_m200c_p84",
    "log10_m200c_hmf_p50", "log10_m200c_dispersion", "flag",
)  # fmt: skip


def limits_of(params: Params) -> Limits:
    """How far apart a cluster and an X-ray cluster may lie."""
    how = params.infer.xray
    return Limits(
        how.radius_mpc_h, how.velocity_km_s, cosmology.from_params(params.cosmology)
    )  # fmt: skip


def match_table(masses: pa.Table, clusters: pa.Table, xray: pa.Table, params: Params) -> pa.Table:
    """Table `xray_matches`: every pair within the limits, and which of them are matches.

    Parameters
    ----------
    masses, clusters : pyarrow.Table
        Tables `masses` and `clusters`, row by row the same clusters.
    xray : pyarrow.Table
        Table `xray_clusters`.
    params : Params
    """
    pairs = candidate_pairs(Places.of(clusters), Places.of(xray), limits_of(params))
    ours, theirs = masses.take(pa.array(pairs.cluster)), xray.take(pa.array(pairs.other))
    m500, lower, upper, z = to_numpy(
        theirs, "log10_m500c_xray", "log10_m500c_xray_err_lower", "log10_m500c_xray_err_upper", "z"
    )
    how = params.infer.xray

    def converted(shift: float) -> Array:
        return log10_m200c_from_m500c(m500, z, params.cosmology, how.concentration_model, shift)

    spread = how.concentration_scatter_dex
    doubt = 0.5 * np.abs(converted(spread) - converted(-spread))
    galweight = clusters.take(pa.array(pairs.cluster))
    return make_table(
        "xray_matches",
        {
            "cluster_id": ours["cluster_id"], "xray_name": theirs["xray_name"], "xray_z": z,
            "separation_mpc_h": pairs.separation_mpc_h,
            "velocity_offset_km_s": pairs.velocity_km_s,
            "accepted": one_to_one(pairs), "ambiguous": ambiguous(pairs),
            "log10_m500c_xray": m500, "log10_m200c_xray": converted(0.0),
            "log10_m200c_xray_err_lower": np.hypot(lower, doubt),
            "log10_m200c_xray_err_upper": np.hypot(upper, doubt),
            "log10_m200c_xray_conversion_err": doubt,
            "log10_m200_galweight": galweight["log10_m200_galweight"],
            "log10_m200_galweight_err": galweight["log10_m200_galweight_err"],
            **{name: ours[name] for name in _OF_MASSES},
        },
    )  # fmt: skip


def add_matches(
    numbers: Numbers, matches: pa.Table, clusters: pa.Table, xray: pa.Table,
    footprint: Footprint, params: Params,
) -> None:  # fmt: skip
    """Add how many clusters were matched, how many by chance, and how sure the masses are."""
    survey = params.survey
    accepted, unsure = to_numpy(matches, "accepted", "ambiguous")
    numbers.add("xray_n_matched", int(accepted.sum()), bin=survey)
    numbers.add("xray_n_ambiguous", int((accepted & unsure).sum()), bin=survey)
    numbers.add("xray_n_pairs_refused", int((~accepted).sum()), bin=survey)
    limits, ours, theirs = limits_of(params), Places.of(clusters), Places.of(xray)
    # A shifted X-ray cluster can only be matched where there are clusters of ours.
    inside = footprint.contains(theirs.ra, theirs.dec)
    near = limits.cosmology.comoving_distance_mpc_h(np.minimum(theirs.z, 0.9))
    reachable = inside & (near < params.window.distance_max_mpc_h)
    numbers.add("xray_n_in_survey", int(reachable.sum()), bin=survey)
    chance, error = chance_matches(
        ours, theirs, limits, params.infer.xray.sky_shifts_deg, footprint.contains
    )
    numbers.add("xray_n_by_chance", chance, bin=survey, error=error)
    for metric, column in (
        ("xray_conversion_error", "log10_m200c_xray_conversion_err"),
        ("xray_mass_error", "log10_m200c_xray_err_lower"),
    ):
        (values,) = to_numpy(matches.filter(matches["accepted"]), column)
        known = values[np.isfinite(values)]
        numbers.add(metric, float(np.median(known)) if known.size else np.nan, bin=survey,
                    unit="dex")  # fmt: skip


def estimates_of(matches: pa.Table, rivals: pa.Table | None = None) -> dict[str, Array]:
    """log10 masses by estimator, each in the order of `matches`; missing ones are NaN.

    Parameters
    ----------
    matches : pyarrow.Table
        Table `xray_matches`.
    rivals : pyarrow.Table, optional
        Table `rival_masses`: medians of the posteriors. A rival with the name of one of
        `ESTIMATORS` is called ``rival_<name>``.
    """
    found = {name: to_numpy(matches, column)[0] for name, column in ESTIMATORS.items()}
    if rivals is None:
        return found
    ids = matches["cluster_id"].to_pylist()
    for name in dict.fromkeys(rivals["estimator"].to_pylist()):
        own = rivals.filter(pc.equal(rivals["estimator"], name))
        pairs = zip(own["cluster_id"].to_pylist(), to_numpy(own, "log10_m200c_p50")[0], strict=True)
        mass = dict(pairs)
        called = f"rival_{name}" if name in ESTIMATORS else name
        found[called] = np.array([mass.get(one, np.nan) for one in ids], float)
    return found


def comparison_rows(
    matches: pa.Table, clusters: pa.Table, xray: pa.Table, footprint: Footprint,
    rivals: pa.Table | None, params: Params, rng: np.random.Generator,
) -> pa.Table:  # fmt: skip
    """Table `calibration`: matches, and how each estimator agrees with X-ray masses.

    Rows of all matched clusters have the survey's name as `bin`; beside them stand those above
    the X-ray mass to which the X-ray surveys are complete (``<survey>_above_14.3``) and those
    without a second candidate (``<survey>_unambiguous``). Metrics: see `add_agreement`.
    """
    numbers = Numbers()
    add_matches(numbers, matches, clusters, xray, footprint, params)
    kept = matches.filter(matches["accepted"])
    reference, unsure = to_numpy(kept, "log10_m200c_xray", "ambiguous")
    limit = params.infer.xray.complete_log10_m200c
    subsets = {
        params.survey: np.ones(reference.size, bool),
        f"{params.survey}_above_{limit:.1f}": reference >= limit,
        f"{params.survey}_unambiguous": ~unsure,
    }
    estimates = estimates_of(kept, rivals)
    for bin, rows in subsets.items():
        add_agreement(
            numbers, {name: values[rows] for name, values in estimates.items()}, reference[rows],
            tuple(ESTIMATORS), bin, params.infer.xray.bootstrap_rounds, rng,
            params.infer.xray.margin_dex,
        )  # fmt: skip
    return numbers.table()


def compare(
    workspace: Workspace, params: Params, masses: pa.Table, clusters: pa.Table,
    rivals: pa.Table | None, rng: np.random.Generator,
) -> pa.Table | None:  # fmt: skip
    """Compare masses with X-ray masses; writes `masses/xray_matches.parquet`.

    Returns
    -------
    pyarrow.Table or None
        Rows of table `calibration`; None, with a remark for a real survey, where ingest found
        no X-ray clusters.
    """
    source, target = workspace.raw / "xray.parquet", workspace.masses / "xray_matches.parquet"
    if not source.exists():
        target.unlink(missing_ok=True)
        if workspace.survey != "embedded":
            log.warning("infer: no X-ray clusters in %s: no comparison with them", workspace.raw)
        return None
    xray = read_table(source, "xray_clusters")
    footprint = Footprint.from_table(
        read_table(workspace.raw / "footprint.parquet", "raw_footprint")
    )
    matches = match_table(masses, clusters, xray, params)
    rows = comparison_rows(matches, clusters, xray, footprint, rivals, params, rng)
    write_table(target, matches, "xray_matches")
    log.info("infer: %d clusters have X-ray masses", sum(matches["accepted"].to_pylist()))
    return rows
