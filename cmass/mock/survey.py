"""The embedded survey: a GalWCat-like and an SDSS-like table with known truth.

Clusters are drawn from the mass function in the comoving volume of a footprint. Around
each of them the simulator and the observer that make the mocks fill the cone of its
window; a galaxy in two cones is kept in that of the nearer cluster only, so that no
place is filled twice. Between the cones the sky is empty: the survey is for the pipeline,
not for clustering.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cmass import cosmology as background
from cmass.columns import GALWEIGHT_OVERDENSITIES
from cmass.cosmology import SPEED_OF_LIGHT_KM_S
from cmass.errors import ParameterError
from cmass.galweight_mass import Dynamics, virial_masses
from cmass.mass_function import mass_function
from cmass.mock.observer import Cone, observe
from cmass.mock.sightlines import sight_lines
from cmass.mock.simulator import simulate_halo
from cmass.params import EmbeddedSurveyParams, Params
from cmass.progress import track
from cmass.seeds import generator
from cmass.sky import unit_vectors
from cmass.tables import make_table

if TYPE_CHECKING:
    import pyarrow as pa

Array = NDArray[np.float64]

#: Halo ids of the survey start here, so that no survey halo is one of the mocks.
FIRST_HALO_ID = 1_000_000_000
#: Cones reach beyond the window by this factor, so that off-centre windows are filled.
MARGIN = 1.15
#: Widest polygon of the footprint, degrees of right ascension.
_POLYGON_DEG = 60.0


@dataclass
class _Clusters:
    log10_m200c: Array
    ra_deg: Array
    dec_deg: Array
    distance_mpc_h: Array

    @property
    def position_mpc_h(self) -> Array:
        return self.distance_mpc_h[:, None] * unit_vectors(self.ra_deg, self.dec_deg)


def ra_width_deg(survey: EmbeddedSurveyParams) -> float:
    """Width of the footprint in right ascension, across RA 0 if need be."""
    return (survey.ra_max_deg - survey.ra_min_deg) % 360 or 360.0


def footprint_caps(survey: EmbeddedSurveyParams) -> dict[str, Array]:
    """Columns of `raw_footprint`: polygons of four caps (mangle convention)."""
    width = ra_width_deg(survey)
    n = int(np.ceil(width / _POLYGON_DEG))
    south, north = np.sin(np.radians([survey.dec_min_deg, survey.dec_max_deg]))
    rows = []
    for i in range(n):
        west = survey.ra_min_deg + width * i / n
        east = survey.ra_min_deg + width * (i + 1) / n
        inner_west = unit_vectors(np.array(west + 90.0), np.array(0.0))
        inner_east = unit_vectors(np.array(east - 90.0), np.array(0.0))
        rows += [
            (i, *inner_west, 1.0),
            (i, *inner_east, 1.0),
            (i, 0.0, 0.0, 1.0, 1 - south),
            (i, 0.0, 0.0, 1.0, -(1 - north)),
        ]
    names = ("polygon_id", "cap_x", "cap_y", "cap_z", "cap_cm")
    return dict(zip(names, np.array(rows).T, strict=True))


def inside_footprint(
    ra_deg: Array, dec_deg: Array, survey: EmbeddedSurveyParams
) -> NDArray[np.bool_]:
    """Whether directions in degrees lie in the footprint."""
    east_of_edge = (np.asarray(ra_deg) - survey.ra_min_deg) % 360
    return (
        (east_of_edge <= ra_width_deg(survey))
        & (dec_deg >= survey.dec_min_deg)
        & (dec_deg <= survey.dec_max_deg)
    )


def _draw_clusters(params: Params) -> _Clusters:
    survey, mock = params.ingest.embedded, params.mock
    south, north = np.sin(np.radians([survey.dec_min_deg, survey.dec_max_deg]))
    area_sr = np.radians(ra_width_deg(survey)) * (north - south)
    if area_sr <= 0:
        raise ParameterError("ingest.embedded: dec_max_deg must be larger than dec_min_deg")
    low, high = mock.haloes.distance_min_mpc_h**3, params.window.distance_max_mpc_h**3
    log10_m = np.linspace(survey.log10_m200c_min, 15.4, 800)
    density = mass_function(log10_m, mock.snapshot_redshift, params.cosmology)
    above = np.concatenate([[0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    above *= log10_m[1] - log10_m[0]
    random = generator(params.seed, "survey-clusters")
    n = int(random.poisson(above[-1] * area_sr * (high - low) / 3))
    positions: list[Array] = []
    chosen: list[tuple[float, float, float, float]] = []
    for _ in range(100 * n):
        if len(chosen) == n:
            break
        distance = np.cbrt(low + random.random() * (high - low))
        ra = (survey.ra_min_deg + random.random() * ra_width_deg(survey)) % 360
        dec = np.degrees(np.arcsin(south + random.random() * (north - south)))
        position = distance * unit_vectors(np.array(ra), np.array(dec))
        if positions and (
            ((np.array(positions) - position) ** 2).sum(axis=1).min() < survey.separation_mpc_h**2
        ):
            continue
        positions.append(position)
        mass = np.interp(random.random() * above[-1], above, log10_m)
        chosen.append((mass, ra, dec, distance))
    if len(chosen) < n or n == 0:
        raise ParameterError(
            f"ingest.embedded: placed {len(chosen)} of {n} clusters; choose a larger footprint "
            "or a higher log10_m200c_min"
        )
    return _Clusters(*np.array(chosen).T)


def _sky(cone: Cone, ra_deg: float, dec_deg: float) -> tuple[Array, Array]:
    """Right ascension and declination, degrees, of gnomonic offsets around a centre."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    centre = unit_vectors(np.array(ra_deg), np.array(dec_deg))
    east = np.array([-np.sin(ra), np.cos(ra), 0.0])
    north = np.array([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)])
    vectors = centre + cone.tan_x[:, None] * east + cone.tan_y[:, None] * north
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return (
        np.degrees(np.arctan2(vectors[:, 1], vectors[:, 0])) % 360,
        np.degrees(np.arcsin(np.clip(vectors[:, 2], -1, 1))),
    )


def _keep_once(
    clusters: _Clusters, owner: NDArray[np.int64], position: Array, half_mpc_h: float, depth: float
) -> NDArray[np.bool_]:
    """Mask of galaxies that are in no other cone, or nearest to their own cluster."""
    centres = clusters.position_mpc_h
    keep = np.ones(len(owner), bool)
    tree = cKDTree(position)
    reach = np.hypot(depth, half_mpc_h * np.sqrt(2))
    own_square = ((position - centres[owner]) ** 2).sum(axis=1)
    for index, centre in enumerate(centres):
        rows = np.array(tree.query_ball_point(centre, reach), dtype=np.int64)
        rows = rows[owner[rows] != index]
        if not len(rows):
            continue
        distance = clusters.distance_mpc_h[index]
        direction = centre / distance
        along = position[rows] @ direction
        east = np.cross([0.0, 0.0, 1.0], direction)
        east /= np.linalg.norm(east)
        across = np.stack([position[rows] @ east, position[rows] @ np.cross(direction, east)])
        in_cone = (np.abs(across) * distance / along < half_mpc_h).all(axis=0)
        square = ((position[rows] - centre) ** 2).sum(axis=1)
        keep[rows[in_cone & (square < own_square[rows])]] = False
    return keep


def make_survey(params: Params) -> dict[str, pa.Table]:
    """Make the tables of the embedded survey.

    Parameters
    ----------
    params : Params
        ``ingest.embedded`` says where and how deep; ``mock`` how haloes look; ``seed``.

    A halo that is seen on top of a more massive one has its galaxies on the sky, but no row in the
    catalogue.

    Returns
    -------
    dict of str to pyarrow.Table
        ``raw_clusters``, ``raw_galaxies``, ``raw_footprint`` and ``survey_truth``.
    """
    survey, window = params.ingest.embedded, params.window
    cosmology = background.from_params(params.cosmology)
    clusters = _draw_clusters(params)
    n = len(clusters.log10_m200c)
    half = MARGIN * window.half_width_mpc_h
    v_reach = MARGIN * window.v_max_km_s
    columns: dict[str, list[Array]] = {k: [] for k in ("ra", "dec", "z", "r", "owner", "xyz")}
    windows: list[Array] = []
    z_cluster, listed = np.zeros(n), np.ones(n, bool)
    for i in track(range(n), "embedded survey", n):
        halo_id = FIRST_HALO_ID + i
        distance = float(clusters.distance_mpc_h[i])
        # Nothing is drawn about the parameters: a sky has one simulator, however unknown.
        field = simulate_halo(halo_id, float(clusters.log10_m200c[i]), distance, params)
        direction = sight_lines(1, generator(params.seed, "sight-lines", halo_id))[0]
        random = generator(params.seed, "observer", halo_id, 0)
        cone = observe(field, direction, distance, params.mock, window, cosmology, random)
        scale = background.q0_angular_distance_mpc_h(cone.z_cluster, params.cosmology.q0)
        v = background.line_of_sight_velocity_km_s(cone.z, cone.z_cluster)
        near = (
            (np.abs(cone.tan_x * scale) < half)
            & (np.abs(cone.tan_y * scale) < half)
            & (np.abs(v) < v_reach)
        )
        ra, dec = _sky(cone, float(clusters.ra_deg[i]), float(clusters.dec_deg[i]))
        columns["ra"].append(ra[near])
        columns["dec"].append(dec[near])
        columns["z"].append(cone.z[near])
        columns["r"].append(cone.r_mag[near])
        columns["owner"].append(np.full(near.sum(), i))
        columns["xyz"].append(cone.distance_mpc_h[near, None] * unit_vectors(ra[near], dec[near]))
        z_cluster[i] = cone.z_cluster
        listed[i] = not cone.heavier.nearest < params.mock.observer.separation
        seen = near & (np.abs(v) <= window.v_max_km_s)
        windows.append(np.stack([cone.tan_x * scale, cone.tan_y * scale, v], axis=1)[seen])
    galaxies = {name: np.concatenate(parts) for name, parts in columns.items()}
    keep = _keep_once(
        clusters,
        galaxies["owner"].astype(np.int64),
        galaxies.pop("xyz"),
        half,
        params.mock.environment.radius_mpc_h,
    )
    galaxies = {name: values[keep] for name, values in galaxies.items()}
    ids = [f"embedded-{i:04d}" for i in range(n)]
    mass = 10**clusters.log10_m200c
    dynamics = virial_masses(
        np.concatenate(windows), np.cumsum([0, *(len(w) for w in windows)]), z_cluster, cosmology,
        params.galweight,
    )  # fmt: skip
    return {
        "raw_clusters": make_table(
            "raw_clusters", _catalogue(params, clusters, ids, z_cluster, dynamics)
        ).filter(listed),
        "raw_galaxies": make_table(
            "raw_galaxies",
            {
                "galaxy_id": np.arange(len(galaxies["ra"])),
                "ra": galaxies["ra"],
                "dec": galaxies["dec"],
                "z": galaxies["z"],
                "z_err": np.full(
                    len(galaxies["ra"]),
                    params.mock.observer.redshift_error_km_s / SPEED_OF_LIGHT_KM_S,
                ),
                "r_mag": galaxies["r"],
                "in_legacy": inside_footprint(galaxies["ra"], galaxies["dec"], survey),
                "s82": np.zeros(len(galaxies["ra"]), bool),
            },
        ),
        "raw_footprint": make_table("raw_footprint", footprint_caps(survey)),
        "survey_truth": make_table(
            "survey_truth",
            {
                "cluster_id": ids,
                "halo_id": FIRST_HALO_ID + np.arange(n),
                "log10_m200c_true": clusters.log10_m200c,
                "r200c_mpc_h": cosmology.r200c_mpc_h(mass, params.mock.snapshot_redshift),
                "v200c_km_s": cosmology.v200c_km_s(mass, params.mock.snapshot_redshift),
            },
        ).filter(listed),
    }


def _catalogue(
    params: Params, clusters: _Clusters, ids: list[str], z: Array, dynamics: Dynamics
) -> dict[str, object]:
    """Columns of `raw_clusters`: masses as GalWeight would measure them, radii to match.

    A mass is the imitation's, measured on the galaxies of the cluster's own cone, times a
    log-normal ratio as wide as that of GalWCat19 to it. Radii follow GalWCat19's convention,
    M200 = 100 H² r200³ / G with h = 1; what the survey does not measure (other
    overdensities, NFW fits, clusters with too few members) is missing.
    """
    survey = params.ingest.embedded
    n = len(ids)
    noise = generator(params.seed, "survey-catalogue").standard_normal(n)
    ratio = 10 ** (survey.galweight_scatter_dex * noise)
    mass = 10**dynamics.log10_m200 * ratio
    measured = dynamics.reason == 0
    missing = np.full(n, np.nan)
    columns: dict[str, object] = {
        "cluster_id": ids,
        "ra": clusters.ra_deg,
        "dec": clusters.dec_deg,
        "z": z,
        "cz_km_s": SPEED_OF_LIGHT_KM_S * z,
        "catalogue_distance_mpc_h": background.from_params(
            params.cosmology
        ).comoving_distance_mpc_h(z),
    }
    for d in GALWEIGHT_OVERDENSITIES:
        for name in (
            f"r{d}_mpc_h", f"sigma{d}_km_s", f"sigma{d}_err_lower_km_s",
            f"sigma{d}_err_upper_km_s", f"m{d}_msun_h", f"m{d}_err_msun_h",
        ):  # fmt: skip
            columns[name] = missing
        columns[f"n{d}"] = [None] * n
    for name in ("rs_mpc_h", "rs_err_mpc_h", "ms_msun_h", "ms_err_msun_h", "concentration"):
        columns[f"nfw_{name}"] = missing
    error = dynamics.sigma_km_s / np.sqrt(2 * np.maximum(dynamics.n_members - 1, 1))
    columns |= {
        "m200_msun_h": mass,
        "m200_err_msun_h": mass * np.log(10) * survey.galweight_err_dex,
        "r200_mpc_h": dynamics.r200_mpc_h * np.cbrt(ratio),
        "n200": [
            int(k) if ok else None for k, ok in zip(dynamics.n_members, measured, strict=True)
        ],
        "sigma200_km_s": dynamics.sigma_km_s,
        "sigma200_err_lower_km_s": error,
        "sigma200_err_upper_km_s": error,
    }
    return columns
