"""Parameters of every step, read from ``params.yaml``.

One pydantic model per step. The defaults are the `standard` profile; a profile
in ``params.yaml`` overrides single values. Each field says its unit and, where
the paper (Kodi Ramanah+2020) gives one, the paper's value.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cmass.errors import ParameterError

PROFILES = ("smoke", "standard", "paper")
Survey = Literal["embedded", "sdss"]
MockSource = Literal["embedded", "rockstar-sag", "authors"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _f(default: Any, description: str, **limits: Any) -> Any:
    return Field(default, description=description, **limits)


class CosmologyParams(_Section):
    """Flat ΛCDM of MDPL2 (SPEC section 1; Planck 2013)."""

    omega_m: float = _f(0.307115, "matter density parameter", gt=0, lt=1)
    omega_b: float = _f(0.048206, "baryon density parameter", gt=0, lt=1)
    h: float = _f(0.6777, "H0 / (100 km/s/Mpc)", gt=0, lt=2)
    sigma8: float = _f(0.8228, "rms of the matter field in 8 Mpc/h spheres", gt=0, lt=2)
    ns: float = _f(0.96, "slope of the primordial spectrum", gt=0, lt=2)
    q0: float = _f(-0.55, "deceleration parameter for angles to lengths (paper: -0.55)")


class WindowParams(_Section):
    """The phase-space window of one cluster."""

    half_width_mpc_h: float = _f(
        4.0, "half width in x and y, proper Mpc/h (paper: 1.6, 4, 6)", gt=0
    )
    v_max_km_s: float = _f(2200.0, "largest |v_los|, km/s (paper: 2200)", gt=0)
    distance_max_mpc_h: float = _f(250.0, "largest comoving distance, Mpc/h (paper: 250)", gt=0)
    n_galaxies_min: int = _f(4, "fewest galaxies that have a density", ge=4)


class NetworkSourceParams(_Section):
    """The network route of ingest."""

    vizier_url: str = _f(
        "https://vizier.cds.unistra.fr/viz-bin/asu-tsv", "VizieR query service (TSV)"
    )
    skyserver_url: str = _f(
        "https://skyserver.sdss.org/dr17/SkyServerWS/SearchTools/SqlSearch",
        "SDSS SkyServer SQL service",
    )
    footprint_url: str = _f(
        "https://data.sdss.org/sas/dr8/sdss/tiling/final/tmp_window_unif.ply",
        "mangle polygons of the Legacy tiling window",
    )
    row_limit: int = _f(500_000, "rows that SkyServer returns at most", ge=1)
    ra_chunk_deg: float = _f(5.0, "width of one SkyServer query in right ascension, deg", gt=0)
    attempts: int = _f(6, "tries per request", ge=1)
    backoff_s: float = _f(2.0, "first wait between tries, seconds; doubles each time", ge=0)
    timeout_s: float = _f(120.0, "time limit of one request, seconds", gt=0)


class EmbeddedSurveyParams(_Section):
    """The embedded survey: a light cone of the simulator on a footprint."""

    ra_min_deg: float = _f(330.0, "western edge, deg", ge=0, lt=360)
    ra_max_deg: float = _f(60.0, "eastern edge, deg; smaller than the western one across RA 0",
                           ge=0, lt=360)  # fmt: skip
    dec_min_deg: float = _f(-5.0, "southern edge, deg", ge=-90, le=90)
    dec_max_deg: float = _f(40.0, "northern edge, deg", ge=-90, le=90)
    log10_m200c_min: float = _f(13.7, "least massive halo that the finder reports, log10 Msun/h")
    galweight_scatter_dex: float = _f(
        0.11, "scatter of the catalogue's masses about the virial ones, dex (GalWCat19)", ge=0
    )
    galweight_err_dex: float = _f(
        0.14, "quoted error of the catalogue's masses, dex (GalWCat19 median)", ge=0
    )
    separation_mpc_h: float = _f(8.0, "least distance of two clusters, comoving Mpc/h", ge=0)


class IngestParams(_Section):
    """Ingest: three routes to the same two tables."""

    z_max: float = _f(0.15, "largest redshift that is asked for", gt=0)
    network: NetworkSourceParams = NetworkSourceParams()
    embedded: EmbeddedSurveyParams = EmbeddedSurveyParams()


class SelectParams(_Section):
    """Select: clusters whose window the survey covers."""

    footprint_fraction_min: float = _f(
        0.95, "least part of the window's disc inside the footprint", ge=0, le=1
    )
    footprint_points: int = _f(2000, "points on the disc that measure that part", ge=100)
    drop_stripe82: bool = _f(True, "leave out the deeper Stripe 82 programme")


class HaloParams(_Section):
    """Which haloes are observed."""

    log10_m200c_min: float = _f(13.5, "lowest mass, log10 Msun/h (paper: 13.7)")
    log10_m200c_max: float = _f(15.1, "highest mass of the flat part, log10 Msun/h (paper: 14.9)")
    tail_dex: float = _f(
        0.0, "beyond the flat part the number of windows falls to zero in so many dex", ge=0
    )
    n_windows: int = _f(
        13200, "mock windows to make, of which 5 % are in no set (paper: 43000)", ge=50
    )
    sight_lines_max: int = _f(1, "most sight lines per halo (paper: 25)", ge=1)
    log10_m200c_many_sight_lines: float = _f(
        14.3, "haloes above have many sight lines, log10 Msun/h (paper: 14.3)"
    )
    distance_min_mpc_h: float = _f(30.0, "smallest comoving distance, Mpc/h", gt=0)

    @model_validator(mode="after")
    def _masses_ascend(self) -> HaloParams:
        if self.log10_m200c_min >= self.log10_m200c_max:
            raise ValueError("log10_m200c_min must be smaller than log10_m200c_max")
        return self


class GalaxyParams(_Section):
    """Galaxies in haloes by a conditional luminosity function."""

    flux_limit_mag: float = _f(17.77, "limit in apparent r (SDSS main: 17.77; paper, SAG: 18.0)")
    completeness: float = _f(0.98, "random part of galaxies with a redshift", gt=0, le=1)
    completeness_slope_per_mag: float = _f(
        0.0, "loss of completeness per magnitude brighter than 15 (blends, saturation)", ge=0, le=1
    )
    magnitude_max: float = _f(-15.0, "faintest absolute r, M - 5 log10 h")
    schechter_phi: float = _f(0.0149, "all galaxies, h^3 Mpc^-3 (Blanton+2003)", gt=0)
    schechter_m_star: float = _f(-20.44, "M*_r - 5 log10 h at z = 0.1 (Blanton+2003)")
    schechter_alpha: float = _f(-1.05, "faint slope (Blanton+2003)", gt=-2)
    k_slope: float = _f(0.9, "K-correction: slope in (z - 0.1), mag")
    k_constant: float = _f(-0.1, "K-correction at z = 0.1, mag (-2.5 log10 1.1)")
    evolution: float = _f(1.62, "brightening with redshift, mag per unit z (Blanton+2003)")
    mass_shift_dex: float = _f(0.12, "log10 M180m - log10 M200c, for Yang+2008 relations")
    central_log10_l0: float = _f(
        9.968, "central luminosity, log10 Lsun/h^2, fitted to Blanton+2003 (Yang+2008: 9.935)"
    )
    central_log10_m1: float = _f(
        11.335, "central luminosity: knee, log10 Msun/h, fitted (Yang+2008: 11.07)"
    )
    central_slope_low: float = _f(
        3.276, "central luminosity: slope below the knee, fitted (Yang+2008: 3.27)"
    )
    central_slope_high: float = _f(
        0.23, "central luminosity: slope above the knee, fitted (Yang+2008: 0.255)"
    )
    central_log10_m2: float = _f(13.3, "central luminosity: clusters begin, log10 Msun/h")
    central_slope_cluster: float = _f(
        0.39, "central luminosity: slope in clusters (SPEC section 3)"
    )
    central_scatter_dex: float = _f(0.15, "scatter of log10 L of centrals (Yang+2008: 0.15)", ge=0)
    satellite_log10_norm: float = _f(
        0.949, "satellites: log10 phi* at 10^14 Msun/h (Cacciato+2009)"
    )
    satellite_norm_slope: float = _f(
        0.711, "satellites: slope of log10 phi* there, calibrated (Cacciato+2009: 0.609)"
    )
    satellite_norm_curvature: float = _f(
        -0.07, "satellites: curvature of log10 phi* (Cacciato+2009: -0.094)"
    )
    satellite_alpha: float = _f(-1.1, "satellites: faint slope (Yang+2008, massive haloes)", gt=-2)
    satellite_log10_l_star: float = _f(
        10.46, "satellites: log10 L* at 10^14 Msun/h, Lsun/h^2 (Yang+2008: 0.562 of the central's)"
    )
    satellite_l_slope: float = _f(0.255, "satellites: slope of log10 L* with log mass (Yang+2008)")
    satellite_amplitude: float = _f(1.05, "factor on the number of satellites, calibrated", ge=0)
    richness_scatter_dex: float = _f(0.15, "scatter of the number of satellites, dex", ge=0)


class MemberParams(_Section):
    """Members: positions and velocities inside the halo."""

    concentration_14: float = _f(6.0, "dark-matter concentration at 10^14 Msun/h (Duffy+2008-like)")
    concentration_slope: float = _f(-0.09, "its slope with log mass")
    concentration_scatter_dex: float = _f(0.13, "its scatter, dex (Bullock+2001)", ge=0)
    concentration_ratio: float = _f(
        1.0, "concentration of galaxies over that of dark matter (Budzynski+2012: about half)", gt=0
    )
    extent_r200: float = _f(1.4, "outer edge of members, R200c (splashback: More+2015)", ge=1)
    outflow_fraction: float = _f(
        0.3, "part of the galaxies beyond R200c on their way out", ge=0, le=1
    )
    axis_ratio_mean: tuple[float, float] = _f((0.80, 0.65), "mean b/a and c/a (Jing & Suto 2002)")
    axis_ratio_scatter: float = _f(0.08, "scatter of the axis ratios", ge=0)
    axis_ratio_min: float = _f(0.3, "smallest axis ratio", gt=0, le=1)
    anisotropy: bool = _f(True, "Mamon-Lokas anisotropy with r_a = r_-2; otherwise isotropic")
    velocity_bias: float = _f(
        0.985,
        "galaxies over the Jeans solution in velocity (sigma(10^14.5) = 740-765 km/s: GCMRP)",
        gt=0,
    )
    velocity_slope: float = _f(0.035, "its slope with log mass: sigma of galaxies ~ M^0.36 (GCMRP)")
    velocity_scatter: float = _f(0.05, "scatter of ln sigma at fixed mass", ge=0)
    substructure_fraction: float = _f(0.35, "part of the members in subgroups", ge=0, le=1)
    substructure_size: float = _f(8.0, "mean number of galaxies in a subgroup", gt=1)
    substructure_radius_r200: float = _f(0.15, "rms radius of a subgroup, R200c", gt=0)
    substructure_dispersion_v200: float = _f(0.2, "velocity dispersion in a subgroup, V200c", gt=0)


class EnvironmentParams(_Section):
    """What surrounds the halo: neighbours, infall, large-scale structure, field."""

    radius_mpc_h: float = _f(40.0, "radius of the simulated surroundings, comoving Mpc/h", gt=10)
    log10_m200c_min: float = _f(11.5, "least massive neighbour, log10 Msun/h")
    correlation_length_mpc_h: float = _f(5.0, "matter correlation length, comoving Mpc/h", gt=0)
    correlation_slope: float = _f(1.8, "slope of the correlation function", gt=0, lt=3)
    correlation_max_mpc_h: float = _f(25.0, "end of the correlation, comoving Mpc/h", gt=0)
    neighbour_bias: float = _f(1.0, "factor on the clustering of neighbours b_c b_h xi", ge=0)
    exclusion_r200: float = _f(0.3, "exclusion: R200c of the halo + this x R200c of the neighbour")
    structure_amplitude: float = _f(
        1.0, "factor on the linear overdensity in which background and flows are drawn", ge=0
    )
    structure_smoothing_mpc_h: float = _f(
        1.5, "Gaussian smoothing of that overdensity, comoving Mpc/h", gt=0
    )
    structure_cells: int = _f(48, "cells per side of its grid, even", ge=8, multiple_of=2)
    flow: float = _f(1.0, "factor on the coherent bulk motions of linear theory", ge=0)
    filaments: float = _f(3.0, "mean number of filaments that end in a halo (Colberg+2005)", ge=0)
    filament_fraction: float = _f(
        0.8, "part of the clustered neighbours in filaments (Colberg+2005)", ge=0, le=1
    )
    filament_width_mpc_h: float = _f(
        1.0, "rms distance from the filament's axis per direction, comoving Mpc/h (Colberg+2005)",
        gt=0,
    )  # fmt: skip
    infall_amplitude: float = _f(1.0, "factor on infall and on its dispersion", ge=0)
    turnaround_r200: float = _f(
        4.5, "turnaround, R200c (3.5 virial radii): galaxies inside count as infalling", gt=1
    )
    infall_v200: float = _f(0.8, "mean infall at R200c, V200c", ge=0)
    infall_slope: float = _f(-0.42, "slope of the mean infall with radius")
    infall_scale_r200: float = _f(
        60.0, "exponential end of the infall, R200c (linear theory far away)", gt=0
    )
    dispersion_km_s: float = _f(200.0, "1D random motion of haloes far away, km/s", ge=0)
    dispersion_v200: float = _f(0.25, "1D dispersion near the halo at R200c, V200c", ge=0)
    field_density: float = _f(1.0, "factor on galaxies outside resolved haloes", ge=0)
    field_bias: float = _f(0.8, "bias of field galaxies outside resolved haloes", ge=0)


class ObserverParams(_Section):
    """What the observer does to the truth."""

    centre_kernel_mpc_h: float = _f(
        0.3,
        "kernel on the sky of the finder's density peak, proper Mpc/h; 0: the true centre",
        ge=0,
    )
    centre_kernel_km_s: float = _f(700.0, "kernel in velocity of the finder's density peak", gt=0)
    offcentre_mpc_h: float = _f(
        0.07, "error of the centre beside the finder's, per axis, proper Mpc/h", ge=0
    )
    centre_velocity_v200: float = _f(0.2, "error of its velocity beside the finder's, V200c", ge=0)
    separation: float = _f(
        1.5, "finders list one of two haloes nearer than this (eq. 6), the heavier; 0: both", ge=0
    )
    redshift_error_km_s: float = _f(30.0, "error of a galaxy's redshift, km/s", ge=0)
    fibre_collision_arcsec: float = _f(
        55.0, "least distance of two fibres (SDSS: 55); 0: none", ge=0
    )
    fibre_collision_recovered: float = _f(
        0.35, "part of collided galaxies that other plates observe (Blanton+2005: about a third)",
        ge=0, le=1,
    )  # fmt: skip


class FilesParams(_Section):
    """Simulation files, for mock.source other than embedded."""

    haloes: tuple[str, ...] = _f((), "ROCKSTAR hlist tables of one snapshot")
    galaxies: tuple[str, ...] = _f(
        (), "SAG tables of the same snapshot, CSV or HDF5; or the authors' galaxies_XYvZ file"
    )
    clusters: str | None = _f(None, "the authors' clusters_M200c file (source: authors)")
    columns: tuple[str, ...] = _f(
        (), "names of SAG columns that are not the usual ones, as r=MyMagnitude"
    )
    box_size_mpc_h: float = _f(1000.0, "side of the periodic box, comoving Mpc/h", gt=0)
    scale_factor: float = _f(
        0.9567, "scale factor of the snapshot (paper: 0.9357, 0.9567, 0.9781)", gt=0.5, le=1
    )
    magnitude_offset_mag: float = _f(
        0.0, "added to the file's r magnitude to give M - 5 log10 h in r shifted to z = 0.1"
    )
    rows_in_memory: int = _f(500_000, "rows held at once while sorting", ge=1000)

    @model_validator(mode="after")
    def _columns_are_pairs(self) -> FilesParams:
        for pair in self.columns:
            name, _, column = pair.partition("=")
            if not (name and column):
                raise ValueError(f"columns: expected name=column, found {pair!r}")
        return self


def _numbers_in(section: BaseModel, prefix: str = "") -> list[str]:
    """Dotted names of the numbers in a section and those below."""
    names: list[str] = []
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            names += _numbers_in(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            names.append(prefix + name)
    return names


class MockParams(_Section):
    """The embedded simulator, simulation files, and their observer (SPEC section 3)."""

    source: MockSource = _f("embedded", "where haloes come from: embedded, rockstar-sag or authors")
    files: FilesParams = FilesParams()
    haloes: HaloParams = HaloParams()
    galaxies: GalaxyParams = GalaxyParams()
    members: MemberParams = MemberParams()
    environment: EnvironmentParams = EnvironmentParams()
    observer: ObserverParams = ObserverParams()
    randomise_nuisance: bool = _f(True, "draw the parameters of `nuisance` anew for each halo")
    nuisance: dict[str, float] = _f(
        {
            "environment.neighbour_bias": 0.1,
            "environment.field_density": 0.19,
            "members.substructure_fraction": 0.13,
            "members.concentration_ratio": 0.24,
            "members.velocity_bias": 0.03,
            "observer.offcentre_mpc_h": 0.015,
            "galaxies.completeness": 0.02,
            "galaxies.satellite_amplitude": 0.095,
            "galaxies.satellite_norm_slope": 0.075,
            "galaxies.satellite_alpha": 0.053,
            "galaxies.richness_scatter_dex": 0.054,
            "environment.infall_v200": 0.2,
            "environment.dispersion_v200": 0.15,
            "environment.dispersion_km_s": 56.0,
            "observer.centre_velocity_v200": 0.052,
        },
        "half width of the range, about its value, that a parameter is drawn from per halo",
    )
    snapshot_redshift: float = _f(0.06, "redshift of the simulated haloes", ge=0, lt=1)
    haloes_per_shard: int = _f(250, "haloes in one shard file", ge=1)

    @model_validator(mode="after")
    def _nuisance_is_possible(self) -> MockParams:
        """Both ends of every range are allowed values of the parameter."""
        for name, half_width in self.nuisance.items():
            section_name, _, field = name.partition(".")
            section = getattr(self, section_name, None)
            value = getattr(section, field, None)
            if not isinstance(section, _Section) or not isinstance(value, float):
                close = difflib.get_close_matches(name, _numbers_in(self), 1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise ValueError(f"nuisance.{name}: no such parameter, or not a number{hint}")
            if half_width < 0:
                raise ValueError(f"nuisance.{name}: the half width is negative ({half_width})")
            for end in (value - half_width, value + half_width) if value else ():
                try:
                    type(section).model_validate(section.model_dump() | {field: end})
                except ValidationError as error:
                    raise ValueError(
                        f"nuisance.{name}: {value} ± {half_width} reaches {end:g}, which is not "
                        f"allowed ({error.errors()[0]['msg']})"
                    ) from None
        return self


class PopulationParams(_Section):
    """Windows as a survey would find them, to compare the mocks with the sky."""

    log10_m200c_min: float = _f(13.0, "lowest mass, log10 Msun/h: well below what is catalogued")
    log10_m200c_max: float = _f(15.3, "highest mass, log10 Msun/h")
    n_windows: int = _f(5000, "windows, one halo each, flat in log mass", ge=20)
    randomise_nuisance: bool = _f(
        False, "draw mock.nuisance per halo; false: one universe, as the sky is"
    )

    @model_validator(mode="after")
    def _masses_ascend(self) -> PopulationParams:
        if self.log10_m200c_min >= self.log10_m200c_max:
            raise ValueError("log10_m200c_min must be smaller than log10_m200c_max")
        return self


class SplitParams(_Section):
    """Sets of mock clusters, split by halo."""

    train: int = _f(4600, "windows for training and validation (paper: 17000)", ge=20)
    validation_fraction: float = _f(0.1, "part of train for validation (paper: 0.1)", gt=0, lt=1)
    test: int = _f(4500, "windows for the density estimator (paper: 20000)", ge=10)
    evaluation: int = _f(3400, "windows that judge (paper: 5000)", ge=10)


class VoxelParams(_Section):
    """Kernel density on a grid (SPEC section 4)."""

    kappa: float = _f(0.175, "bandwidth factor, H = kappa^2 Sigma (paper: 0.15, 0.175, 0.20)", gt=0)
    n: int = _f(50, "voxels per axis (paper: 50)", ge=8)
    scale: float = _f(1000.0, "factor at the network's door", gt=0)
    clusters_per_shard: int = _f(500, "clusters in one shard file", ge=1)


class StepParams(_Section):
    """Steps of Adam over batches, and when they end."""

    learning_rate: float = _f(1e-3, "Adam's first rate (paper: 1e-4, code: 5e-5)", gt=0)
    learning_rate_final: float = _f(2e-5, "rate at the last epoch, cosine decay", ge=0)
    beta_1: float = _f(0.9, "Adam (paper: 0.9)", ge=0, lt=1)
    beta_2: float = _f(0.999, "Adam (paper: 0.999)", ge=0, lt=1)
    batch_size: int = _f(50, "clusters per step (paper: 100)", ge=1)
    epochs: int = _f(18, "most epochs (paper: about 50)", ge=1)
    patience: int = _f(5, "epochs without gain before stopping (paper: 5, code: 10)", ge=1)
    augment: bool = _f(True, "rotations and reflections of (x, y), v to -v")


#: Why parameters of training are refused.
NO_DEVICE = (
    "train.grids: device needs Keras, and train.engine is compiled; set train.engine to auto or "
    "keras, or train.grids to files"
)


class TrainParams(StepParams):
    """Training of CNN_3D (SPEC section 5)."""

    dense_activation: Literal["relu", "linear"] = _f(
        "relu", "of the two hidden dense layers (paper: linear)"
    )
    inversion_averaged: bool = _f(
        True,
        "estimates are means of a window and its point reflection (paper: of the window alone)",
    )
    tries: int = _f(
        1, "networks of different first weights and batches; the best on the validation set stays",
        ge=1,
    )  # fmt: skip
    engine: Literal["auto", "compiled", "keras"] = _f(
        "auto", "compiled loops, or Keras; auto: Keras where there is a GPU, or grids: device"
    )
    grids: Literal["files", "device"] = _f(
        "files",
        "of train and validation: voxels on disk; device: made of galaxies by Keras, for a GPU",
    )

    @model_validator(mode="after")
    def _engine_makes_grids(self) -> TrainParams:
        if self.grids == "device" and self.engine == "compiled":
            raise ValueError(NO_DEVICE)
        return self


class PosteriorParams(_Section):
    """Density estimate of (prediction, truth)."""

    bandwidth: float | Literal["auto"] = _f(
        "auto",
        "factor of the bivariate Gaussian KDE; auto: best log score, folds by halo (paper: 0.20)",
    )
    plain_bandwidth: float = _f(
        0.20, "the same of the plain posterior that the chosen one is shown beside (paper: 0.20)",
        gt=0,
    )  # fmt: skip
    recalibration: Literal["auto", "none"] = _f(
        "auto", "correct by richness and redshift where the test set's log score gains; none: never"
    )
    gain_sigma: float = _f(
        2.0, "standard errors that a correction must gain: one lets chance in among six tries", ge=0
    )
    folds: int = _f(5, "folds of the cross-validation, made of haloes", ge=2)
    n_bins: int = _f(128, "bins of log mass", ge=16)

    @field_validator("bandwidth")
    @classmethod
    def _bandwidth_is_positive(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and not value > 0:
            raise ValueError("bandwidth must be positive, or auto")
        return value


class OddityParams(_Section):
    """Flags for windows unlike the mocks, and for two clusters in one window."""

    false_alarm: float = _f(0.01, "part of the mocks that each flag may name", gt=0, lt=1)
    n_components: int = _f(4, "principal components of the network's features", ge=1)
    n_neighbours: int = _f(10, "nearest training mocks whose mean distance counts", ge=1)
    n_reference: int = _f(2000, "training mocks that windows are compared with, at most", ge=10)
    peak_radius_mpc_h: float = _f(0.5, "phase-space kernel on the sky, proper Mpc/h", gt=0)
    peak_velocity_km_s: float = _f(1500.0, "phase-space kernel in velocity, km/s", gt=0)
    peak_separation: float = _f(2.0, "peaks nearer than so many kernel widths are one", gt=0)
    neighbour_mass_ratio: float = _f(
        0.2, "a neighbour up to this part of the cluster's mass is no second cluster", gt=0
    )
    neighbour_galaxies: int = _f(3, "fewest galaxies in the window that make a neighbour", ge=1)
    depth_tolerance_mag: float = _f(
        0.3, "flux limits that differ by no more are one (0.35 mag moves masses by 0.04 dex)", gt=0
    )
    n_injected: int = _f(
        300, "windows of the evaluation set in which something is put wrong", ge=10
    )


class EvaluateParams(_Section):
    """Evaluation on mocks."""

    mass_bin_dex: float = _f(0.3, "width of mass bins, dex", gt=0)
    coverage_levels: int = _f(39, "levels of the coverage curve", ge=3)
    calibration_bins: int = _f(4, "most bins in which calibration is judged, per quantity", ge=1)
    calibration_min: int = _f(200, "fewest clusters of such a bin", ge=20)
    clip_sigma: float = _f(2.7, "interloper clip of the sigma-M estimate (Mamon+2010: 2.7)", gt=0)
    aperture_mpc_h: float = _f(1.0, "projected radius of the sigma-M estimate, proper Mpc/h", gt=0)


class RealismParams(_Section):
    """Mocks beside the survey, statistic by statistic."""

    richness_bin_dex: float = _f(0.12, "bins of log richness in which mocks match the survey", gt=0)
    distance_bins: int = _f(5, "bins of distance in which they match", ge=1)
    agreement: float = _f(0.10, "relative difference that agrees whatever the error", ge=0)
    bootstrap_rounds: int = _f(200, "resamples behind the errors", ge=10)
    permutations: int = _f(300, "shuffles behind the tests of the network's features", ge=20)


class FiguresParams(_Section):
    """Figures of the paper, from our data."""

    mass_bin_dex: float = _f(0.1, "width of mass bins in figures, dex", gt=0)
    window_log10_m200c: float = _f(14.5, "mass of the window that is shown, log10 Msun/h")


class GalweightParams(_Section):
    """GalWeight's way to weigh a cluster, imitated; set by GalWCat19's own masses (even ids)."""

    aperture_mpc_h: float = _f(0.8, "radius in which velocities are clipped, proper Mpc/h", gt=0)
    outer_mpc_h: float = _f(1.6, "radius of the outermost members, proper Mpc/h", gt=0)
    inner_mpc_h: float = _f(0.16, "the mass profile is fitted beyond, proper Mpc/h", ge=0)
    cut_centre_sigma: float = _f(3.45, "velocity cut at the centre, in dispersions", gt=0)
    cut_slope_sigma: float = _f(1.7, "its fall with radius, dispersions per Mpc/h", ge=0)
    cut_min_sigma: float = _f(1.5, "smallest velocity cut, in dispersions", gt=0)
    start_km_s: float = _f(450.0, "dispersion that the clip starts from, km/s", gt=0)
    floor_km_s: float = _f(400.0, "the cut is never narrower than for this one, km/s", ge=0)
    softening_mpc_h: float = _f(0.02, "softening of pair distances, Mpc/h", ge=0)
    concentration: float = _f(12.0, "NFW profile through the virial masses", gt=1)
    zero_point_dex: float = _f(-0.115, "added to log10 M200", ge=-1, le=1)
    n_members_min: int = _f(
        5, "fewest members inside the aperture (GalWCat19 lists no fewer)", ge=3
    )


class CalibrateParams(_Section):
    """The simulator's free parameters, fitted to the realism statistics of even clusters."""

    priors: dict[str, tuple[float, float]] = _f(
        {
            "mock.galaxies.completeness": (0.92, 1.0),
            "mock.galaxies.satellite_amplitude": (0.85, 1.3),
            "mock.galaxies.satellite_norm_slope": (0.56, 0.92),
            "mock.galaxies.satellite_alpha": (-1.25, -0.95),
            "mock.galaxies.richness_scatter_dex": (0.08, 0.22),
            "mock.members.concentration_ratio": (0.7, 1.3),
            "mock.members.substructure_fraction": (0.15, 0.55),
            "mock.environment.neighbour_bias": (0.7, 1.3),
            "mock.environment.field_density": (0.75, 1.25),
            "mock.environment.infall_v200": (0.5, 1.1),
            "mock.environment.dispersion_v200": (0.1, 0.4),
            "mock.environment.dispersion_km_s": (120.0, 280.0),
            "mock.observer.offcentre_mpc_h": (0.04, 0.1),
            "mock.observer.centre_velocity_v200": (0.1, 0.3),
        },
        "range of each free parameter, by dotted name",
    )
    n_points: int = _f(64, "simulator runs of the design", ge=4)
    n_windows: int = _f(1000, "windows of a design point", ge=20)
    check_windows: int = _f(6000, "windows of the run that checks the result", ge=20)
    model_error: float = _f(0.05, "relative error of any simulator, beside all others", ge=0)


class XrayParams(_Section):
    """Cross-match with X-ray clusters, and their masses."""

    radius_mpc_h: float = _f(1.0, "largest distance of the centres, projected, proper Mpc/h", gt=0)
    velocity_km_s: float = _f(1500.0, "largest difference of the redshifts, km/s", gt=0)
    sky_shifts_deg: tuple[float, ...] = _f(
        (-60, -50, -40, -30, -20, -10, 10, 20, 30, 40, 50, 60),
        "turns of the X-ray catalogue in right ascension that count chance matches, deg",
    )
    concentration_model: str = _f(
        "diemer19", "concentration-mass relation from M500c to M200c, by its name in colossus"
    )
    concentration_scatter_dex: float = _f(0.16, "its scatter, dex (Diemer & Joyce 2019)", ge=0)
    complete_log10_m200c: float = _f(
        14.3,
        "X-ray surveys hold all clusters above, log10 Msun/h: their flux limit at 250 Mpc/h "
        "(14.1) and 2 sigma of the luminosity-mass relation",
    )
    margin_dex: float = _f(
        0.02, "difference to GalWeight's offset and scatter that does not count, dex", ge=0
    )
    bootstrap_rounds: int = _f(1000, "resamples of clusters behind the errors", ge=10)


class InferParams(_Section):
    """Masses of a survey's clusters."""

    area_deg2: float | None = _f(
        None, "area for the mass function, deg^2; none: of the footprint (paper: 6670)"
    )
    completeness_log10_m200c: float = _f(14.0, "complete above, log10 Msun/h (paper: 14.0)")
    match_bin_dex: float = _f(
        0.15, "forward model: bins of virial mass in which the selection is measured, dex", gt=0
    )
    match_richness_bin_dex: float = _f(
        0.15, "forward model: bins of log richness in which it is measured as well", gt=0
    )
    match_distance_bins: int = _f(4, "forward model: its bins of distance", ge=1)
    match_neighbours: int = _f(
        40, "forward model: clusters of like virial mass that lend M_GalWeight/M_virial", ge=1
    )
    bootstrap_rounds: int = _f(100, "forward model: resamples behind the errors", ge=10)
    count_above_log10_m200c: tuple[float, ...] = _f(
        (14.0, 14.2, 14.4, 14.6), "clusters are counted above, log10 Msun/h"
    )
    xray: XrayParams = XrayParams()


class RivalTrainingParams(StepParams):
    """Training of the rivals' networks; CNN_3D is trained as `train` says."""

    learning_rate: float = _f(1e-3, "Adam's first rate (Ho+2019: 1e-3)", gt=0)
    learning_rate_final: float = _f(1e-5, "rate at the last epoch, cosine decay", ge=0)
    batch_size: int = _f(50, "clusters per step (Ho+2019: 100)", ge=1)
    epochs: int = _f(60, "most epochs", ge=1)
    patience: int = _f(15, "epochs without gain before stopping", ge=1)
    augment: bool = _f(True, "reflect what the mass does not depend on: v to -v, rotations")
    seconds_max: float = _f(
        3600.0, "longest training of any estimator, seconds: no other epoch begins", gt=0
    )


class FlowParams(RivalTrainingParams):
    """The normalising flow on counts in (R, |v|)."""

    batch_size: int = _f(128, "clusters per step", ge=1)
    epochs: int = _f(40, "most epochs", ge=1)
    patience: int = _f(8, "epochs without gain before stopping", ge=1)
    augment: bool = _f(False, "its counts know no orientation")
    components: int = _f(24, "principal components of the counts that it reads", ge=1)
    layers: int = _f(2, "layers of the flow", ge=1)
    knots: int = _f(8, "knots of its rational-quadratic splines", ge=2)
    width: int = _f(48, "units of the two hidden layers that set the splines", ge=1)


class DeepSetsParams(RivalTrainingParams):
    """The permutation-invariant network with a mixture posterior."""

    batch_size: int = _f(64, "clusters per step", ge=1)
    epochs: int = _f(20, "most epochs", ge=1)
    patience: int = _f(20, "epochs without gain before stopping", ge=1)
    augment: bool = _f(False, "its features know no orientation")
    width: int = _f(64, "units of the layers that read one galaxy", ge=1)
    components: int = _f(4, "Gaussians of the mixture", ge=1)
    dropout: float = _f(0.1, "part of the pooled units that a step leaves out", ge=0, lt=1)
    members: int = _f(1, "networks whose mixtures are averaged", ge=1)


class CausticParams(_Section):
    """The caustic method (Diaferio 1999; Serra+2011)."""

    q: float = _f(25.0, "unit of velocity over unit of H0 R in the density (Serra+2011: 25)", gt=0)
    smoothing: float = _f(
        3.0,
        "factor on the kernel's width by cross-validation (1 is too narrow for 100 galaxies)",
        gt=0,
    )
    filling: float = _f(0.7, "filling factor F_beta (Serra+2011: 0.7)", gt=0)
    slope_max: float = _f(2.0, "largest d ln A / d ln R of the amplitude (Serra+2011: 2)", gt=0)
    cells: int = _f(50, "cells in radius and in velocity", ge=10)


class RivalsParams(_Section):
    """Other estimators of the mass, on the same mocks and the same clusters."""

    estimators: tuple[str, ...] = _f((), "those that are fitted; none: every one there is")
    seeds: tuple[int, ...] = _f(
        (1,), "first weights and batches; 1 is the run's own seed, 2 the one after, and so on"
    )
    massive_log10_m200c: float = _f(
        14.3, "scatter is given for clusters above as well, log10 Msun/h"
    )
    training: RivalTrainingParams = RivalTrainingParams()
    flow: FlowParams = FlowParams()
    deepsets: DeepSetsParams = DeepSetsParams()
    density_bandwidth: float = _f(
        0.25, "CNN_1D, CNN_2D: bandwidth factor of the kernel density", gt=0
    )
    velocity_aperture_mpc_h: float = _f(
        1.6, "CNN_1D: galaxies inside count, proper Mpc/h (Ho+2019: 1.6)", gt=0
    )

    caustic: CausticParams = CausticParams()

    @model_validator(mode="after")
    def _seeds_count(self) -> RivalsParams:
        if not self.seeds or min(self.seeds) < 1:
            raise ValueError("seeds: at least one, counted from 1")
        return self


class StudyParams(_Section):
    """Studies of the simulator, at a size that many networks can be trained at."""

    seeds: tuple[int, ...] = _f((1, 2), "seeds of mocks and networks; two at least show the noise")
    train: int = _f(2000, "windows for training and validation", ge=20)
    test: int = _f(700, "windows for the density estimator", ge=10)
    evaluation: int = _f(800, "windows that judge", ge=10)
    voxels_n: int = _f(20, "voxels per axis: a sixteenth of the work of 50", ge=9)
    epochs: int = _f(15, "most epochs", ge=1)
    batch_size: int = _f(25, "clusters per step: half the product's, for as many steps", ge=1)
    learning_rate: float = _f(1e-3, "Adam's first rate: fewer windows, larger steps", gt=0)
    learning_sizes: tuple[int, ...] = _f(
        (250, 500, 1000, 2000, 4000, 8000), "learning: training windows of each network"
    )
    evaluation_large: int = _f(
        2000, "learning, leak, ensemble: windows that judge, where few networks are compared", ge=10
    )
    ensemble_size: int = _f(5, "ensemble: networks on the same windows", ge=2)
    sight_line_haloes: int = _f(200, "sightlines: haloes", ge=8)
    sight_lines: int = _f(25, "sightlines: sight lines on each (paper: 25)", ge=2)
    fibre_windows: int = _f(1000, "fibres: evaluation windows that are observed again", ge=10)


class JudgeParams(_Section):
    """Gates that a trained model passes to become the champion; null: not asked."""

    scatter_max_dex: float | None = _f(
        0.25, "largest scatter on the mocks, dex (paper: 0.16)", gt=0
    )
    bias_max_dex: float | None = _f(0.25, "largest mean residual of a bin of true mass, dex", gt=0)
    coverage_error_max: float | None = _f(
        0.05, "largest error of a credible interval's coverage on the mocks", gt=0, le=1
    )
    pull_mean_max: float | None = _f(
        0.4, "largest difference of the survey's mean pull from what mocks predict", gt=0
    )
    pull_std_max: float | None = _f(0.3, "the same of the pull's standard deviation", gt=0)
    realism_max: float | None = _f(
        2.0, "largest rms deviation of the mocks from the survey, in allowed differences", gt=0
    )
    errors: float = _f(2.0, "standard errors that a gate gives way", ge=0)
    gain_errors: float = _f(
        1.0, "standard errors by which the CRPS must be smaller than the champion's", ge=0
    )
    realism_gain: float = _f(
        0.1, "mocks nearer to the survey by this are a gain, where the CRPS is as good", gt=0
    )


class QuarantineParams(_Section):
    """Foreign rows that break the column dictionary are set aside, as long as they are few."""

    max_fraction: float = _f(0.01, "largest part of a table that is set aside", ge=0, lt=1)
    max_rows: int = _f(5, "rows that may be set aside of a table however small", ge=0)


class DriftParams(_Section):
    """What may differ from the last release of the same survey and profile."""

    action: Literal["stop", "warn"] = _f("stop", "beyond a limit: stop publish, or only warn")
    clusters_max_fraction: float = _f(
        0.05, "largest relative change of the number of clusters", ge=0
    )
    ks_max: float = _f(
        0.1,
        "largest distance of two distributions (Kolmogorov-Smirnov); 0.1 dex in mass are 0.12",
        ge=0,
    )
    fraction_max: float = _f(
        0.05, "largest change of the part of clusters without mass, or flagged", ge=0
    )
    mass_shift_max_dex: float = _f(
        0.05, "largest median change of the mass of clusters in both releases, dex", ge=0
    )
    mass_scatter_max_dex: float = _f(
        0.15, "largest scatter of that change, dex (two trainings differ by 0.1)", ge=0
    )
    accept_since: str | None = _f(
        None,
        "last release that the next one may drift from: beyond a limit its masses are published",
    )
    accept_reason: str | None = _f(None, "why that drift is right; goes into the release")

    @model_validator(mode="after")
    def _accepted_for_a_reason(self) -> DriftParams:
        if self.accept_since and len((self.accept_reason or "").strip()) < 10:
            raise ValueError("accept_since needs an accept_reason, in words that users can read")
        return self


class ContractsParams(_Section):
    """What tables must be like where one step hands them to the next."""

    quarantine: QuarantineParams = QuarantineParams()
    no_mass_max_fraction: float = _f(
        0.05, "largest part of the windows that has too few galaxies for a mass", ge=0, le=1
    )
    blended_max_fraction: float = _f(
        0.2, "largest part of the mocks that is centred on a more massive halo", ge=0, le=1
    )
    prediction_scatter_min_dex: float = _f(
        0.02, "least scatter of point estimates: a network that answers one number is broken", ge=0
    )
    drift: DriftParams = DriftParams()


class PublishParams(_Section):
    """The release."""

    title: str = _f("cmass galaxy cluster masses", "title on the report")
    keep: int = _f(5, "releases kept beside the latest", ge=1)
    licence: str = _f(
        "BSD-3-Clause", "licence (SPDX) of what cmass made in the release", min_length=1
    )
    site: bool = _f(True, "make the release's site as well; `cmass site` makes it at any time")


class Params(_Section):
    """All parameters of a run."""

    profile: str = _f("standard", "name of the profile in force: smoke, standard or paper")
    survey: Survey = _f("embedded", "survey that gets masses")
    mirror: str | None = _f(None, "folder that stands in for the network in ingest (sdss)")
    seed: int = _f(20200907, "seed of the run", ge=0)
    workers: int = _f(2, "processes for mock and voxelize", ge=1)
    scheduler: str | None = _f(
        None,
        "Dask scheduler whose workers do that on many machines: tcp://host:8786, or its scheduler file",
    )
    cosmology: CosmologyParams = CosmologyParams()
    window: WindowParams = WindowParams()
    ingest: IngestParams = IngestParams()
    select: SelectParams = SelectParams()
    mock: MockParams = MockParams()
    population: PopulationParams = PopulationParams()
    split: SplitParams = SplitParams()
    voxels: VoxelParams = VoxelParams()
    train: TrainParams = TrainParams()
    posterior: PosteriorParams = PosteriorParams()
    oddity: OddityParams = OddityParams()
    evaluate: EvaluateParams = EvaluateParams()
    galweight: GalweightParams = GalweightParams()
    infer: InferParams = InferParams()
    realism: RealismParams = RealismParams()
    calibrate: CalibrateParams = CalibrateParams()
    figures: FiguresParams = FiguresParams()
    judge: JudgeParams = JudgeParams()
    contracts: ContractsParams = ContractsParams()
    publish: PublishParams = PublishParams()
    rivals: RivalsParams = RivalsParams()
    study: StudyParams = StudyParams()

    @field_validator("scheduler")
    @classmethod
    def _scheduler_is_an_address(cls, value: str | None) -> str | None:
        if value is None or re.fullmatch(r"(tcp|tls|ws|wss)://[^/]+:\d+", value):
            return value
        if value.endswith(".json") and "://" not in value:
            return value
        raise ValueError("expected tcp://host:port, tls://host:port or a scheduler file *.json")

    @model_validator(mode="after")
    def _priors_are_possible(self) -> Params:
        for name, (low, high) in self.calibrate.priors.items():
            value: Any = self
            for part in name.split("."):
                value = getattr(value, part, None)
            if not isinstance(value, float):
                raise ValueError(f"calibrate.priors.{name}: no such parameter, or not a number")
            if low >= high:
                raise ValueError(f"calibrate.priors.{name}: the lowest value comes first")
        return self

    @model_validator(mode="after")
    def _sets_fit(self) -> Params:
        asked = self.split.train + self.split.test + self.split.evaluation
        if asked > self.mock.haloes.n_windows:
            raise ValueError(
                f"split asks for {asked} windows, mock.haloes.n_windows makes "
                f"{self.mock.haloes.n_windows}"
            )
        return self


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _default_file() -> Path:
    """``params.yaml`` here, else in the installed package, else in the clone around it."""
    here = Path(__file__).parent
    for path in (Path("params.yaml"), here / "params.yaml"):
        if path.exists():
            return path
    return here.parent / "params.yaml"


def _known_names(location: tuple[int | str, ...]) -> list[str]:
    model: Any = Params
    for part in location:
        field = model.model_fields.get(part) if isinstance(part, str) else None
        annotation = getattr(field, "annotation", None)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return list(model.model_fields)


def _explain(error: ValidationError, source: str) -> ParameterError:
    lines = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            close = difflib.get_close_matches(
                str(item["loc"][-1]), _known_names(item["loc"][:-1]), 1
            )
            hint = f"; did you mean {close[0]!r}?" if close else ""
            lines.append(f"{name}: no such parameter{hint}")
            continue
        value = "" if isinstance(item["input"], dict) else f" (value {item['input']!r})"
        words = item["msg"].removeprefix("Value error, ")
        if item["type"] == "model_type":
            words = "expected names and values below it, indented"
        lines.append(f"{name}: {words}{value}" if name else f"{words}{value}")
    return ParameterError(f"{source}: " + "\n  ".join(lines))


#: Most values of a params.yaml, those of aliases counted each time: the one that ships has some 400.
_YAML_VALUES_MAX = 100_000


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a name stands once: of two, the later would win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=deep)
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"{name!r} stands twice; put its values in one place",
                    key.start_mark,
                )
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


def _read_yaml(source: Path) -> Any:
    """What a YAML file holds.

    Aliases may double what they stand for again and again: it is counted before it is spelled out.
    """
    loader = _UniqueKeys(source.read_text(encoding="utf-8"))
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        if _values_in(root, {}) > _YAML_VALUES_MAX:
            raise ParameterError(f"{source}: more than {_YAML_VALUES_MAX} values")
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _values_in(node: yaml.Node, known: dict[int, int]) -> int:
    """Values of a node with those of every alias; one that holds itself counts once in itself."""
    if id(node) not in known:
        known[id(node)] = 1
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        else:
            inner = node.value if isinstance(node, yaml.SequenceNode) else []
        known[id(node)] = 1 + sum(_values_in(part, known) for part in inner)
    return known[id(node)]


def load_params(
    path: str | Path | None = None, profile: str | None = None, **overrides: Any
) -> Params:
    """Read the parameters of a run.

    Parameters
    ----------
    path : path, optional
        A ``params.yaml``; by default the one in the current folder, and the one that
        comes with the package where there is none.
    profile : str, optional
        ``smoke``, ``standard`` or ``paper``; by default the file's ``profile``.
    **overrides
        Top-level values (``survey``, ``mirror``, ``seed``, …) that win over the
        file; ``None`` means not given.

    Returns
    -------
    Params

    Raises
    ------
    ParameterError
        The file is not YAML, or a name or value is not allowed; the message
        names the dotted key and the closest name.
    """
    from cmass.secrets import has_password

    source = Path(path) if path is not None else _default_file()
    try:
        values = _read_yaml(source) or {}
    except FileNotFoundError:
        raise ParameterError(f"{source}: no such file") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        words = str(error).replace('in "<unicode string>", ', "")
        if "'\\t'" in words:
            words += "\nIndent with blanks: YAML takes no tabs"
        raise ParameterError(f"{source}: not readable as YAML: {words}") from error
    if not isinstance(values, dict):
        raise ParameterError(f"{source}: expected names and values at the top level")
    profiles = values.pop("profiles", None) or {}
    if not isinstance(profiles, dict) or not all(
        block is None or isinstance(block, dict) for block in profiles.values()
    ):
        raise ParameterError(f"{source}: expected blocks of names and values below profiles")
    if has_password(source.read_text(encoding="utf-8")):
        raise ParameterError(
            f"{source}: an address in it has a user or a password, and parameters are published with "
            "every release. Put them into ~/.netrc, which is asked for the host"
        )
    unknown = [name for name in profiles if name not in PROFILES]
    chosen = profile or values.get("profile", "standard")
    if unknown or chosen not in PROFILES:
        name = unknown[0] if unknown else chosen
        raise ParameterError(f"{source}: no profile {name!r}; choose from {', '.join(PROFILES)}")
    if profile not in (None, "standard") and profile not in profiles:
        raise ParameterError(
            f"{source}: no values for the profile {profile!r}: it needs a block profiles.{profile}, as "
            "the params.yaml that comes with cmass has"
        )
    # Every profile is checked, so that a slip in one is found before that one is run.
    checked = {}
    for name in (chosen, *(p for p in profiles if p != chosen)):
        merged = _merge(values, profiles.get(name) or {}) | {"profile": name}
        merged |= {key: value for key, value in overrides.items() if value is not None}
        try:
            checked[name] = Params.model_validate(merged)
        except ValidationError as error:
            where = str(source) if name == chosen else f"{source}, profile {name}"
            raise _explain(error, where) from error
    return checked[chosen]
