"""infer: masses and posteriors of a survey's clusters, beside GalWeight's and X-ray masses."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import chi2

from cmass import cosmology, pretrained, seeds
from cmass.columns import FLAGS
from cmass.estimators.richness import count_near_centre
from cmass.estimators.windows import survey_windows
from cmass.evaluate import Numbers, external
from cmass.evaluate.comparison import (
    Comparison,
    add_comparison,
    add_counts,
    add_imitation,
    add_sample,
    add_truth,
    offsets_table,
)
from cmass.evaluate.forward import Weighed
from cmass.evaluate.realism.windows import cluster_numbers
from cmass.evaluate.volume import comoving_volume, effective_area_deg2
from cmass.galweight_mass import virial_masses
from cmass.headline import write_metrics
from cmass.oddity import Found
from cmass.oddity.depth import Depth
from cmass.params import Params
from cmass.posterior import TAIL, at_edge, quantiles, reweight
from cmass.pretrained import Bundle
from cmass.progress import track
from cmass.rivals import survey_masses
from cmass.tables import make_table, points_by_cluster, read_table, to_numpy, write_table
from cmass.workspace import Workspace

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

_NO_MASS = ("too_few_galaxies", "degenerate", "bad_input")
#: Points per dex of the mass function.
_POINTS_PER_DEX = 50


@dataclass(frozen=True)
class Sample:
    """Clusters and the galaxies in their windows.

    Attributes
    ----------
    cluster_id : list of str
    ra, dec, z : ndarray, shape (n,)
        deg, deg, redshift.
    flag : ndarray of int32, shape (n,)
        Flags known before the mass; `bad_input` stops the estimate.
    points : ndarray, shape (n_points, 3)
        x, y (proper Mpc/h), v (km/s), one cluster after the other.
    offsets : ndarray, shape (n + 1,)
        Where each cluster begins in `points`.
    """

    cluster_id: list[str]
    ra: Array
    dec: Array
    z: Array
    flag: NDArray[np.int32]
    points: Array
    offsets: NDArray[np.int64]


def network_outputs(
    sample: Sample, bundle: Bundle, flag: NDArray[np.int32], *, features: bool = False,
    progress: bool = True,
) -> Array:  # fmt: skip
    """The network's outputs for each cluster; `flag` is updated in place.

    Clusters with too few galaxies or without a density are flagged and get NaN.

    Parameters
    ----------
    sample : Sample
    bundle : Bundle
    flag : ndarray of int32, shape (n,)
    features : bool
        Outputs of the first dense layer as well.
    progress : bool

    Returns
    -------
    ndarray, shape (n, 1) or (n, 1 + n_features)
        log10 M200c, and the features.
    """
    from cmass.networks import prediction

    counts = np.diff(sample.offsets)
    bad = (flag & FLAGS["bad_input"].value) != 0
    flag[(counts < bundle.window.n_galaxies_min) & ~bad] |= FLAGS["too_few_galaxies"].value
    stop = sum(FLAGS[name].value for name in _NO_MASS)
    rows = np.flatnonzero((flag & stop) == 0)
    clouds = (sample.points[sample.offsets[row] : sample.offsets[row + 1]] for row in rows)
    shown = track(clouds, "masses", total=rows.size) if progress else clouds
    network = bundle.network
    out = np.full((len(counts), 1 + network.n_features * features), np.nan)
    out[rows] = prediction.predict_clouds(
        network, shown, bundle.window, bundle.voxels, features=features
    )
    flag[rows[np.isnan(out[rows, 0])]] |= FLAGS["degenerate"].value
    return out


def point_estimates(
    sample: Sample, bundle: Bundle, flag: NDArray[np.int32], *, progress: bool = True
) -> Array:
    """The network's log10 M200c of each cluster, shape (n,); see `network_outputs`."""
    return network_outputs(sample, bundle, flag, progress=progress)[:, 0]


def odd_ones(sample: Sample, bundle: Bundle, features: Array) -> Found:
    """How unlike mocks the windows are; all is missing where the model knows no mocks."""
    if bundle.oddity is not None:
        return bundle.oddity.judge(features, sample.points, sample.offsets, sample.z)
    log.info("the model says nothing of its mocks: flags unlike_mocks and two_clusters are not set")
    nothing = np.full(len(sample.cluster_id), np.nan)
    return Found(nothing, nothing, nothing, nothing, np.zeros(nothing.size, np.int32))


def depth_by_counts(sample: Sample, bundle: Bundle) -> Depth | None:
    """Depth of a survey from the numbers of galaxies around its clusters; None where nothing tells."""
    scale = bundle.count_scale
    if scale is None or bundle.oddity is None:
        return None
    # Windows that are cut hold fewer galaxies, however deep the survey is.
    useless = FLAGS["bad_input"].value | FLAGS["window_incomplete"].value
    good = np.flatnonzero((sample.flag & useless) == 0)
    full = good[np.diff(sample.offsets)[good] >= bundle.window.n_galaxies_min]
    if not full.size:
        return None
    return scale.depth(bundle.oddity.summaries(sample.points, sample.offsets, sample.z)[full])


def _depth_flags(sample: Sample, bundle: Bundle, depth: Depth | None) -> NDArray[np.int32]:
    """Flag of a survey of another depth than the mocks', for each of its clusters; says so once."""
    limit = bundle.range.flux_limit_mag
    flag = np.zeros(len(sample.cluster_id), np.int32)
    if depth is None or limit is None or bundle.oddity is None:
        return flag
    if depth.differs(limit, bundle.oddity.how.depth_tolerance_mag):
        log.warning(
            "the survey looks as if it reached r = %.2f (from its %s, +- %.2f), the model's mocks reach "
            "%.2f: every cluster is flagged. `cmass train --like CLUSTERS GALAXIES` makes a model for it",
            depth.limit_mag, depth.how, depth.error_mag, limit,
        )  # fmt: skip
        flag[(sample.flag & FLAGS["bad_input"].value) == 0] = FLAGS["depth_outside_training"].value
    return flag


def masses_from_points(
    sample: Sample, bundle: Bundle, *, depth: Depth | None = None, progress: bool = True
) -> pa.Table:
    """Masses of clusters from the galaxies in their windows: the core of run and `estimate`.

    Parameters
    ----------
    sample : Sample
    bundle : Bundle
    depth : Depth, optional
        Of the survey, where magnitudes tell; measured from numbers of galaxies otherwise.
    progress : bool
        Show how far the work is.

    Returns
    -------
    pyarrow.Table
        Table `masses`, one row a cluster in the order of `sample`. A cluster without a
        mass keeps its row: missing values, an empty posterior and a flag that says why.
    """
    flag = sample.flag.astype(np.int32).copy()
    told = bundle.oddity is not None
    outputs = network_outputs(sample, bundle, flag, features=told, progress=progress)
    point, odd = outputs[:, 0], odd_ones(sample, bundle, outputs[:, 1:])
    counts = np.diff(sample.offsets)
    known = np.isfinite(point)
    low, high = bundle.range.n_galaxies
    unlike = known & ((counts < low) | (counts > high))
    flag[unlike] |= FLAGS["unlike_training"].value
    low, high = bundle.range.z
    good_z = (flag & FLAGS["bad_input"].value) == 0
    flag[good_z & ((sample.z < low) | (sample.z > high))] |= FLAGS[
        "redshift_outside_training"
    ].value
    flag[known] |= bundle.density.flags(point[known])
    flag |= odd.flag
    flag |= _depth_flags(sample, bundle, depth or depth_by_counts(sample, bundle))
    flat = bundle.posterior(point, counts, sample.z)
    flag[at_edge(flat, bundle.edges, bundle.posteriors.kernel_width_dex)] |= FLAGS[
        "posterior_at_edge"
    ].value
    levels = [TAIL, 0.5, 1 - TAIL]
    p16, p50, p84 = quantiles(flat, bundle.edges, levels).T
    by_hmf = reweight(flat, *bundle.priors)
    hmf16, hmf50, hmf84 = quantiles(by_hmf, bundle.edges, levels).T
    usable = (flag & FLAGS["bad_input"].value) == 0
    sigma = bundle.relation.sigma_km_s(sample.points, sample.offsets)
    by_dispersion = bundle.relation.log10_m200c(sigma, np.where(usable, sample.z, np.nan))
    has = np.isfinite(flat).all(axis=1)
    lengths = np.where(has, flat.shape[1], 0)
    posterior = pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)),
        pa.array(flat[has].astype(np.float32).ravel()),
    )
    return make_table(
        "masses",
        {
            "cluster_id": sample.cluster_id, "ra": sample.ra, "dec": sample.dec, "z": sample.z,
            "n_galaxies": counts, "log10_m200c": point,
            "log10_m200c_p16": p16, "log10_m200c_p50": p50, "log10_m200c_p84": p84,
            "log10_m200c_hmf_p16": hmf16, "log10_m200c_hmf_p50": hmf50,
            "log10_m200c_hmf_p84": hmf84,
            "sigma_minus": p50 - p16, "sigma_plus": p84 - p50,
            "log10_m200c_dispersion": by_dispersion,
            "outlier_distance": odd.distance, "outlier_p": odd.distance_p,
            "second_peak": odd.second_peak, "second_peak_p": odd.second_peak_p,
            "flag": flag, "posterior": posterior,
        },
    )  # fmt: skip


def survey_comparison(
    masses: pa.Table, clusters: pa.Table, virial: Array, richness: NDArray[np.int64],
    population: pa.Table, volume_mpc3_h3: float, params: Params, log10_m200c_min: float = -np.inf,
) -> Comparison:  # fmt: skip
    """The survey's clusters and the population, ready to be compared with GalWeight.

    Parameters
    ----------
    masses, clusters : pyarrow.Table
        Tables `masses` and `clusters`, row by row the same clusters.
    virial, richness : ndarray, shape (n,)
        log10 M200 of the survey's windows by the imitation of GalWeight, and their richness.
    population : pyarrow.Table
        Table `population_masses`.
    volume_mpc3_h3 : float
        Comoving volume of the survey, h⁻³ Mpc³.
    params : Params
    log10_m200c_min : float
        True mass below which the survey holds no halo: the embedded survey's own limit.
    """
    posterior = ("log10_m200c_p16", "log10_m200c_p50", "log10_m200c_p84")
    reference, error, distance = to_numpy(
        clusters, "log10_m200_galweight", "log10_m200_galweight_err", "distance_mpc_h"
    )
    p16, p50, p84 = to_numpy(masses, *posterior)
    own = Weighed(virial, richness.astype(float), distance, p16, p50, p84, np.ones(virial.size))
    true, density, mock_virial, mock_richness, mock_distance = to_numpy(
        population, "log10_m200c_true", "number_density_h3_mpc3", "log10_m200c_virial",
        "richness", "distance_mpc_h",
    )  # fmt: skip
    number = np.where(true >= log10_m200c_min, density * volume_mpc3_h3, 0.0)
    p16, p50, p84 = to_numpy(population, *posterior)
    mocks = Weighed(mock_virial, mock_richness, mock_distance, p16, p50, p84, number)
    return Comparison(
        own, reference, error, cluster_numbers(clusters["cluster_id"]), mocks, params.infer
    )


def comparison_table(
    comparison: Comparison, masses: pa.Table, population: pa.Table, truth: pa.Table | None,
    bundle: Bundle, theory: dict[float, float], survey: str, rng: np.random.Generator,
) -> pa.Table:  # fmt: skip
    """Table `calibration` of a survey: our masses against GalWeight's and, if known, the truth.

    Only clusters with a posterior and a GalWeight mass enter the comparison; their number
    is `n_compared`. Rows that start with ``expected_`` are the forward model's (see
    `cmass.evaluate.forward`).

    Parameters
    ----------
    comparison : Comparison
    masses, population : pyarrow.Table
        Tables `masses` and `population_masses`.
    truth : pyarrow.Table, optional
        Table `survey_truth` in the order of `masses`.
    bundle : Bundle
    theory : dict of float to float
        Haloes in the survey's volume above each mass that is counted.
    survey : str
        Goes to the column `bin`.
    rng : numpy.random.Generator
    """
    numbers, how = Numbers(), comparison.how
    add_sample(numbers, masses, survey)
    add_imitation(numbers, comparison, survey)
    add_comparison(numbers, comparison, survey, rng)
    point, p50 = to_numpy(masses, "log10_m200c", "log10_m200c_p50")
    measured = {"point": point, "cnn3d": p50, "galweight": comparison.reference}
    has, posterior = _posteriors(masses)
    mocks = comparison.population
    mock_has, mock_posterior = _posteriors(population)
    expected = {
        "point": (to_numpy(population, "log10_m200c")[0], mocks.count),
        "cnn3d": (mocks.p50, mocks.count),
        "galweight": comparison.expected_reference(),
    }
    priors = {"posterior": lambda p: p, "posterior_hmf": lambda p: reweight(p, *bundle.priors)}
    mock_count = mocks.count[mock_has]
    add_counts(
        numbers, how, bundle.edges, measured,
        {name: under(posterior) for name, under in priors.items()}, expected,
        {name: (under(mock_posterior), mock_count) for name, under in priors.items()}, theory,
    )  # fmt: skip
    if truth is not None:
        (true,) = to_numpy(truth, "log10_m200c_true")
        known = has & np.isfinite(true)
        add_truth(numbers, survey, true[known], comparison.survey.rows(known),
                  posterior[known[has]], bundle.edges, how.bootstrap_rounds, rng)  # fmt: skip
    return numbers.table()


def _posteriors(table: pa.Table) -> tuple[NDArray[np.bool_], Array]:
    """Which rows have a posterior, and these posteriors, shape (k, n_bins)."""
    lists = table["posterior"].to_pylist()
    has = np.array([bool(p) for p in lists], bool)
    rows = [p for p in lists if p]
    return has, np.array(rows, float) if rows else np.empty((0, 0))


def number_density(
    log10_m: Array, at: Array, volume_mpc3_h3: float, width_dex: float,
    number: Array | None = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Number density per dex by a Gaussian kernel, with a 1-sigma Poisson band.

    Parameters
    ----------
    log10_m : ndarray, shape (n,)
        log10 masses.
    at : ndarray, shape (k,)
        Where the density is wanted.
    volume_mpc3_h3 : float
        Comoving volume, h⁻³ Mpc³.
    width_dex : float
        Standard deviation of the kernel.
    number : ndarray, shape (n,), optional
        Clusters that each mass stands for; one by default.

    Returns
    -------
    density, low, high : ndarray, shape (k,)
        h³ Mpc⁻³ dex⁻¹. The band is the exact Poisson interval (Garwood 1936) of the
        effective number of clusters under the kernel, 2 sqrt(pi) h times the kernel sum.
    """
    offset = (at[:, None] - log10_m[None, :]) / width_dex
    weight = np.ones(log10_m.size) if number is None else number
    kernel = np.exp(-0.5 * offset**2) @ weight / (np.sqrt(2 * np.pi) * width_dex)
    # A kernel sum has the relative error of this many counts: (sum K)² / sum K².
    effective = kernel * 2 * np.sqrt(np.pi) * width_dex
    low, high = 0.5 * chi2.ppf(TAIL, 2 * effective), 0.5 * chi2.ppf(1 - TAIL, 2 * effective + 2)
    per_count = 1 / (2 * np.sqrt(np.pi) * width_dex * volume_mpc3_h3)
    return kernel / volume_mpc3_h3, np.nan_to_num(low) * per_count, high * per_count


def mass_function_table(
    by_estimator: dict[str, Array], area_deg2: float, z: float, params: Params,
    expected: dict[str, tuple[Array, Array]] | None = None,
) -> pa.Table:  # fmt: skip
    """Table `mass_function`: measured by each estimator, and Tinker+2008 (paper, Fig. A1).

    Every cluster counts once, in the volume of `area_deg2` out to the largest distance;
    one kernel (Scott's rule on all masses together) serves all estimators.

    Parameters
    ----------
    by_estimator : dict of str to ndarray
        log10 masses of the survey's clusters.
    area_deg2, z : float
    params : Params
    expected : dict of str to (log10 masses, numbers), optional
        What the forward model expects of an estimator: rows ``expected_<estimator>``,
        without a band.
    """
    from cmass.mass_function import mass_function

    known = {name: m[np.isfinite(m)] for name, m in by_estimator.items()}
    known = {name: m for name, m in known.items() if m.size > 1}
    columns: dict[str, list] = {
        name: [] for name in
        ("log10_m200c", "estimator", "density_h3_mpc3_dex", "density_low", "density_high")
    }  # fmt: skip

    def add(estimator: str, at: Array, density: Array, low, high) -> None:
        rows = (at, [estimator] * at.size, density, low, high)
        for name, values in zip(columns, rows, strict=True):
            columns[name].extend(values)

    if known:
        together = np.concatenate(list(known.values()))
        widths = [m.std(ddof=1) * m.size ** (-1 / 5) for m in known.values()]
        width = float(np.median(widths))
        low, high = np.floor(together.min() * 10) / 10, np.ceil(together.max() * 10) / 10
        at = np.linspace(low, high, round(float(high - low) * _POINTS_PER_DEX) + 1)
        volume = comoving_volume(area_deg2, params.window.distance_max_mpc_h)
        for name, m in known.items():
            add(name, at, *number_density(m, at, volume, width))
        for name, (m, number) in (expected or {}).items():
            has = np.isfinite(m)
            density, _, _ = number_density(m[has], at, volume, width, number[has])
            add(f"expected_{name}", at, density, [None] * at.size, [None] * at.size)
        theory = mass_function(at, z, params.cosmology)
        add("tinker08", at, theory, [None] * at.size, [None] * at.size)
    return make_table("mass_function", columns)


def haloes_above(
    thresholds: tuple[float, ...], z: float, volume_mpc3_h3: float, params: Params
) -> dict[float, float]:
    """Haloes of Tinker+2008 in a volume (h⁻³ Mpc³) above each log10 M200c."""
    from cmass.mass_function import mass_function

    found = {}
    for threshold in thresholds:
        at = np.linspace(threshold, 16.0, 1001)
        density = mass_function(at, z, params.cosmology)
        found[threshold] = float(np.trapezoid(density, at)) * volume_mpc3_h3
    return found


def run(workspace: Workspace, params: Params) -> None:
    """Estimate the masses of the selected clusters and compare them with GalWeight's.

    Writes `masses/masses.parquet`, `comparison.parquet`, `mass_function.parquet`,
    `offsets.parquet`, `rivals.parquet` (the same clusters by the rivals) and, where ingest found
    X-ray clusters, `xray_matches.parquet`.
    """
    bundle = pretrained.from_workspace(workspace, params)
    clusters = read_table(workspace.selected / "clusters.parquet", "clusters")
    galaxies = read_table(
        workspace.selected / "galaxies.parquet", "galaxies",
        ["cluster_id", "x_proj", "y_proj", "v_los"],
    )  # fmt: skip
    points, offsets = points_by_cluster(galaxies, clusters["cluster_id"])
    ra, dec, z, flag = to_numpy(clusters, "ra", "dec", "z", "flag")
    ids = clusters["cluster_id"].to_pylist()
    masses = masses_from_points(Sample(ids, ra, dec, z, flag, points, offsets), bundle)
    truth = _truth(workspace, clusters)
    population = read_table(workspace.evaluation / "population.parquet", "population_masses")
    area = effective_area_deg2(workspace, params, clusters.num_rows)
    volume = comoving_volume(area, params.window.distance_max_mpc_h)
    virial = virial_masses(
        points, offsets, z, cosmology.from_params(params.cosmology), params.galweight
    )
    lowest = params.ingest.embedded.log10_m200c_min if truth is not None else -np.inf
    against = survey_comparison(
        masses,
        clusters,
        virial.log10_m200,
        count_near_centre(points, offsets),
        population,
        volume,
        params,
        lowest,
    )
    median_z = float(np.median(z))
    rng = seeds.generator(params.seed, "infer-expected")
    comparison = comparison_table(
        against, masses, population, truth, bundle,
        haloes_above(params.infer.count_above_log10_m200c, median_z, volume, params),
        workspace.survey, rng,
    )  # fmt: skip
    sky = Numbers()
    sky.add("effective_area", area, bin=workspace.survey, paper=6670.0, unit="deg2")
    comparison = pa.concat_tables([comparison, sky.table()])
    by_estimator = {
        "cnn3d": to_numpy(masses, "log10_m200c_p50")[0],
        "point": to_numpy(masses, "log10_m200c")[0],
        "galweight": against.reference,
    }
    if truth is not None:
        by_estimator["truth"] = to_numpy(truth, "log10_m200c_true")[0]
    mocks = against.population
    expected = {
        "cnn3d": (mocks.p50, mocks.count),
        "point": (to_numpy(population, "log10_m200c")[0], mocks.count),
        "galweight": against.expected_reference(),
    }
    rivals = survey_masses(workspace, params, survey_windows(clusters, galaxies))
    by_xray = external.compare(
        workspace, params, masses, clusters, rivals, seeds.generator(params.seed, "infer-xray")
    )
    if by_xray is not None:
        comparison = pa.concat_tables([comparison, by_xray])
    function = mass_function_table(by_estimator, area, median_z, params, expected)
    folder = workspace.masses
    write_table(folder / "rivals.parquet", rivals, "rival_masses")
    write_table(folder / "masses.parquet", masses, "masses")
    write_table(folder / "comparison.parquet", comparison, "calibration")
    write_metrics(folder / "metrics.json", comparison)
    write_table(folder / "mass_function.parquet", function, "mass_function")
    write_table(folder / "offsets.parquet", offsets_table(against), "offsets")
    values = {
        row["metric"]: row["value"]
        for row in comparison.to_pylist() if row["bin"] == workspace.survey
    }  # fmt: skip
    log.info(
        "infer: %d clusters, %d without a posterior; against GalWeight: %s", masses.num_rows,
        int(values["n_without_posterior"]),
        ", ".join(f"{k} {v:.3f}" for k, v in values.items() if "pull" in k or "galweight" in k),
    )  # fmt: skip


def _truth(workspace: Workspace, clusters: pa.Table) -> pa.Table | None:
    """Table `survey_truth` in the order of `clusters`; None for a real survey."""
    import pyarrow.compute as pc

    path = workspace.raw / "truth.parquet"
    if not path.exists():
        return None
    truth = read_table(path, "survey_truth")
    rows = pc.index_in(clusters["cluster_id"], value_set=truth["cluster_id"].combine_chunks())
    return truth.take(rows.combine_chunks() if isinstance(rows, pa.ChunkedArray) else rows)
