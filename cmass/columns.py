"""The one dictionary of columns: what every column of every table is.

Parquet metadata, DuckDB comments, the Great Expectations suites, VOTable
attributes and the column tables of the documentation are all made from here.
The same quantity has the same name everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """A column: its type, meaning and allowed range.

    Attributes
    ----------
    name : str
        Name in every file; the unit is its suffix, save for the names the
        contract fixes.
    type : str
        Arrow type by name: ``string``, ``bool``, ``int8`` to ``int64``,
        ``float32``, ``float64``, ``list<float32>`` or ``map<string,float64>``.
    unit : str
        Unit in VOUnit notation, empty for none. ``Mpc/h`` and ``Msun/h`` carry h⁻¹.
    ucd : str
        IVOA UCD1+ word.
    description : str
        What it is, in one sentence.
    minimum, maximum : float, optional
        Closed range of allowed values.
    open_minimum : bool
        The minimum itself is not allowed.
    open_maximum : bool
        The maximum itself is not allowed.
    nullable : bool
        Missing values are allowed.
    """

    name: str
    type: str
    unit: str
    ucd: str
    description: str
    minimum: float | None = None
    maximum: float | None = None
    open_minimum: bool = False
    open_maximum: bool = False
    nullable: bool = False

    def arrow_field(self) -> pa.Field:
        """Arrow field with unit, UCD and description in its metadata."""
        import pyarrow as pa

        types = {
            "bool": pa.bool_(),
            "list<float32>": pa.list_(pa.float32()),
            "map<string,float64>": pa.map_(pa.string(), pa.float64()),
        }
        kind = types.get(self.type) or getattr(pa, self.type)()
        metadata = {"unit": self.unit, "ucd": self.ucd, "description": self.description}
        return pa.field(self.name, kind, nullable=self.nullable, metadata=metadata)


@dataclass(frozen=True)
class TableSchema:
    """A table: its columns in order and the key that is unique.

    Attributes
    ----------
    name : str
        Name in the documentation and in errors.
    description : str
        What one row is.
    columns : tuple of Column
    key : tuple of str
        Columns whose values together are unique; empty for none.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"table {self.name} has no column {name}")

    @property
    def names(self) -> list[str]:
        """Column names in order."""
        return [c.name for c in self.columns]

    def arrow_schema(self) -> pa.Schema:
        """Arrow schema, with the table's name and description in the metadata."""
        import pyarrow as pa

        metadata = {"table": self.name, "description": self.description}
        return pa.schema([c.arrow_field() for c in self.columns], metadata=metadata)


@dataclass(frozen=True)
class Flag:
    """One bit of the `flag` column."""

    bit: int
    name: str
    words: str

    @property
    def value(self) -> int:
        """The bit's value, 2**bit."""
        return 1 << self.bit


#: Bits of the `flag` column, by name.
FLAGS: dict[str, Flag] = {
    f.name: f
    for f in (
        Flag(0, "too_few_galaxies", "fewer than 4 galaxies in the window: no mass"),
        Flag(1, "degenerate", "galaxies all in one plane, line or point: no mass"),
        Flag(
            2, "below_calibrated_range", "point estimate below every calibrated mock: no posterior"
        ),
        Flag(
            3, "above_calibrated_range", "point estimate above every calibrated mock: no posterior"
        ),
        Flag(
            4,
            "posterior_at_edge",
            "over 16 % of the posterior lies within one kernel width of an edge of the prior",
        ),
        Flag(5, "redshift_outside_training", "distance outside the range of the mocks"),
        Flag(6, "window_incomplete", "the window reaches outside the survey"),
        Flag(7, "bad_input", "a value of the input row is missing or impossible: no mass"),
        Flag(
            8, "unlike_training", "fewer or more galaxies in the window than in 99.9 % of the mocks"
        ),
        Flag(9, "blended", "mock centred on a more massive halo, which a finder lists instead"),
        Flag(
            10,
            "unlike_mocks",
            "galaxies and network features farther from the mocks than theirs from each other, but for "
            "a part oddity.false_alarm of them (0.01)",
        ),
        Flag(
            11,
            "two_clusters",
            "a second structure in the window, taller beside the cluster "
            "than in the mocks without a second cluster, but for a part oddity.false_alarm (0.01)",
        ),
        Flag(
            12,
            "depth_outside_training",
            "the survey is deeper, shallower or sparser than the mocks, as its magnitudes or the numbers "
            "of galaxies around all of its clusters show",
        ),
    )
}

#: Mock windows with one of these bits are in no set and no comparison: no catalogue has them.
NOT_CATALOGUED = FLAGS["too_few_galaxies"].value | FLAGS["blended"].value


def _c(*args, **kwargs) -> Column:
    return Column(*args, **kwargs)


_COLUMNS = [
    # --- identity and sky
    _c("cluster_id", "string", "", "meta.id;meta.main", "Identifier of the cluster (text)"),
    _c("galaxy_id", "int64", "", "meta.id", "Identifier of the galaxy"),
    _c("halo_id", "int64", "", "meta.id", "Identifier of the simulated halo", 0),
    _c("sight_line", "int16", "", "meta.number", "Number of the sight line on the halo, from 0", 0),
    _c(
        "ra",
        "float64",
        "deg",
        "pos.eq.ra;meta.main",
        "Right ascension, J2000",
        0,
        360,
        open_maximum=True,
    ),
    _c("dec", "float64", "deg", "pos.eq.dec;meta.main", "Declination, J2000", -90, 90),
    _c("z", "float64", "", "src.redshift", "Heliocentric redshift", 0, 2, open_minimum=True),
    _c(
        "z_err",
        "float32",
        "",
        "stat.error;src.redshift",
        "Error of the redshift",
        0,
        1,
        nullable=True,
    ),
    _c(
        "distance_mpc_h",
        "float64",
        "Mpc/h",
        "pos.distance",
        "Comoving distance in the cosmology of the run",
        0,
        open_minimum=True,
    ),
    _c("cz_km_s", "float64", "km/s", "spect.dopplerVeloc.opt", "Speed of light times redshift", 0),
    _c(
        "catalogue_distance_mpc_h",
        "float64",
        "Mpc/h",
        "pos.distance",
        "Comoving distance as the source catalogue gives it",
        0,
    ),
    _c(
        "r_mag",
        "float32",
        "mag",
        "phot.mag;em.opt.R",
        "Apparent r magnitude, extinction-corrected",
        -5,
        40,
        nullable=True,
    ),
    _c(
        "in_legacy",
        "bool",
        "",
        "meta.code",
        "Inside the survey's footprint",
        nullable=True,
    ),
    _c("s82", "bool", "", "meta.code", "From the deeper Stripe 82 programme", nullable=True),
    # --- footprint (mangle caps)
    _c("polygon_id", "int32", "", "meta.id", "Number of the mangle polygon", 0),
    _c("cap_x", "float64", "", "pos.cartesian.x", "Unit vector of the cap, x", -1.0001, 1.0001),
    _c("cap_y", "float64", "", "pos.cartesian.y", "Unit vector of the cap, y", -1.0001, 1.0001),
    _c("cap_z", "float64", "", "pos.cartesian.z", "Unit vector of the cap, z", -1.0001, 1.0001),
    _c(
        "cap_cm",
        "float64",
        "",
        "pos.angDistance",
        "1 - cos(radius) of the cap; negative: the outside of the cap",
        -2,
        2,
    ),
    # --- phase space
    _c("x_proj", "float64", "Mpc/h", "pos.cartesian.x", "Proper offset from the centre, west-east"),
    _c(
        "y_proj",
        "float64",
        "Mpc/h",
        "pos.cartesian.y",
        "Proper offset from the centre, south-north",
    ),
    _c(
        "v_los",
        "float64",
        "km/s",
        "spect.dopplerVeloc",
        "Line-of-sight velocity relative to the centre, c (z_gal - z_cl)/(1 + z_cl)",
    ),
    # --- counts and masses
    _c("n_galaxies", "int32", "", "meta.number", "Galaxies in the phase-space window", 0),
    _c(
        "n_members",
        "int32",
        "",
        "meta.number",
        "True members above the flux limit inside the sphere of R200c; missing where a "
        "simulation file does not say",
        0,
        nullable=True,
    ),
    _c(
        "log10_m200c",
        "float64",
        "log10(Msun/h)",
        "phys.mass",
        "Point estimate of log10 M200c: by the network, where no estimator is named",
        5,
        20,
        nullable=True,
    ),
    _c("log10_m200c_true", "float64", "log10(Msun/h)", "phys.mass", "True log10 M200c", 5, 20),
    _c(
        "log10_m200_galweight",
        "float64",
        "log10(Msun/h)",
        "phys.mass",
        "log10 of the GalWeight M200",
        5,
        20,
        nullable=True,
    ),
    _c(
        "log10_m200_galweight_err",
        "float64",
        "dex",
        "stat.error;phys.mass",
        "Error of log10_m200_galweight, e_M200/(M200 ln 10)",
        0,
        nullable=True,
    ),
    _c(
        "log10_m200c_dispersion",
        "float64",
        "log10(Msun/h)",
        "phys.mass",
        "log10 M200c from the clipped velocity dispersion (sigma-M relation)",
        5,
        20,
        nullable=True,
    ),
    _c("r200c_mpc_h", "float64", "Mpc/h", "phys.size.radius", "True R200c, proper", 0),
    _c("v200c_km_s", "float64", "km/s", "phys.veloc", "True circular velocity at R200c", 0),
    _c(
        "sigma_minus",
        "float64",
        "dex",
        "stat.error;phys.mass",
        "Lower 1-sigma error: log10_m200c_p50 - log10_m200c_p16",
        0,
        nullable=True,
    ),
    _c(
        "sigma_plus",
        "float64",
        "dex",
        "stat.error;phys.mass",
        "Upper 1-sigma error: log10_m200c_p84 - log10_m200c_p50",
        0,
        nullable=True,
    ),
    _c(
        "flag",
        "int32",
        "",
        "meta.code.qual",
        "Bit mask of warnings: " + "; ".join(f"{f.value} {f.name}" for f in FLAGS.values()),
        0,
    ),
    _c(
        "posterior",
        "list<float32>",
        "",
        "stat.probability",
        "Posterior probability (flat prior) per bin of posterior_grid; sums to one; "
        "empty where the cluster has no posterior",
    ),
    _c("reason", "string", "", "meta.note", "Why the row was set aside"),
    # --- truth of mock galaxies and clusters
    _c(
        "galaxy_class",
        "int8",
        "",
        "meta.code.class",
        "0 member (inside R200c), 1 infalling or splashback (bound region outside R200c), "
        "2 interloper; missing where a simulation file does not say",
        0,
        2,
        nullable=True,
    ),
    _c(
        "host_log10_m200c",
        "float32",
        "log10(Msun/h)",
        "phys.mass",
        "log10 M200c of the halo that hosts the galaxy; missing for field galaxies",
        5,
        20,
        nullable=True,
    ),
    _c(
        "contaminant_mass_ratio",
        "float64",
        "",
        "phys.mass;arith.ratio",
        "Mass of the most massive neighbour in the window over the cluster's own; "
        "missing where no neighbour is more massive",
        1,
        nullable=True,
    ),
    _c(
        "contaminant_distance",
        "float64",
        "",
        "stat.param",
        "Phase-space distance to that neighbour (paper, eq. 6)",
        0,
        nullable=True,
    ),
    # --- nuisance parameters drawn per mock halo
    _c(
        "nuisance",
        "map<string,float64>",
        "",
        "stat.param",
        "Parameters of the simulator drawn for this halo, by dotted name below mock",
        nullable=True,
    ),
    # --- sets and voxels
    _c("set", "string", "", "meta.code.class", "train, validation, test or evaluation"),
    # --- posterior
    _c("bin_index", "int32", "", "meta.number", "Number of the bin, from 0", 0),
    _c(
        "log10_m200c_low", "float64", "log10(Msun/h)", "phys.mass;stat.min", "Lower edge of the bin"
    ),
    _c("log10_m200c_centre", "float64", "log10(Msun/h)", "phys.mass", "Centre of the bin"),
    _c(
        "log10_m200c_high",
        "float64",
        "log10(Msun/h)",
        "phys.mass;stat.max",
        "Upper edge of the bin",
    ),
    _c(
        "prior_flat",
        "float64",
        "",
        "stat.probability",
        "Prior probability in the bin: the mass distribution of the test set",
        0,
    ),
    _c(
        "prior_hmf",
        "float64",
        "",
        "stat.probability",
        "Prior probability in the bin: the halo mass function in the calibrated range",
        0,
    ),
    # --- numbers of a report
    _c("metric", "string", "", "meta.id", "Name of the number"),
    _c("bin", "string", "", "meta.id", "Bin or subset it refers to; 'all' for none"),
    _c("value", "float64", "", "stat.value", "The number", nullable=True),
    _c("error", "float64", "", "stat.error", "Its standard error", 0, nullable=True),
    _c("paper_value", "float64", "", "stat.value", "The paper's number, if any", nullable=True),
    _c("unit", "string", "", "meta.unit", "Unit of the number"),
    # --- mocks beside the sky
    _c("statistic", "string", "", "meta.id", "Name of the statistic"),
    _c(
        "coordinate_low",
        "float64",
        "",
        "stat.value;stat.min",
        "Lower edge of the bin, in the statistic's own coordinate",
    ),
    _c(
        "coordinate_high",
        "float64",
        "",
        "stat.value;stat.max",
        "Upper edge of the bin; missing where it is open",
        nullable=True,
    ),
    _c("real", "float64", "", "stat.value", "The survey's value", nullable=True),
    _c("real_error", "float64", "", "stat.error", "Its standard error", 0, nullable=True),
    _c("mock", "float64", "", "stat.value", "Value of the matched mocks", nullable=True),
    _c("mock_error", "float64", "", "stat.error", "Its standard error", 0, nullable=True),
    _c("ratio", "float64", "", "stat.value;arith.ratio", "Mock over real", nullable=True),
    _c(
        "agrees",
        "bool",
        "",
        "meta.code",
        "The ratio is one within its error or 10 %, whichever is larger",
        nullable=True,
    ),
    _c("half", "string", "", "meta.id", "Half of the clusters by number: even, odd or all"),
    # --- calibration of the simulator
    _c("parameter", "string", "", "meta.id", "Dotted name of the parameter"),
    _c("prior_low", "float64", "", "stat.param;stat.min", "Lower end of its prior range"),
    _c("prior_high", "float64", "", "stat.param;stat.max", "Upper end of its prior range"),
    _c("start", "float64", "", "stat.param", "Value before the calibration"),
    _c("best", "float64", "", "stat.param;stat.fit", "Value found"),
    _c("best_error", "float64", "", "stat.error", "Its 1-sigma error", 0),
    _c(
        "sensitivity",
        "float64",
        "",
        "stat.value",
        "Change of mock over real for half the prior range, over what is allowed of the ratio",
    ),
    # --- recalibration
    _c("stage", "string", "", "meta.id", "Stage of the choice that a candidate belongs to"),
    _c("candidate", "string", "", "meta.id", "A way to make posteriors of point estimates"),
    _c(
        "log_score_gain",
        "float64",
        "",
        "stat.likelihood",
        "Gain of the cross-validated log score over what was chosen before it",
    ),
    _c(
        "log_score_gain_error",
        "float64",
        "",
        "stat.error",
        "Standard error of the gain, haloes being independent but not their windows",
        0,
    ),
    _c("chosen", "bool", "", "meta.code", "The candidate that was chosen"),
    # --- calibration of posteriors
    _c(
        "posterior_kind",
        "string",
        "",
        "meta.id",
        "plain: the paper's density; bandwidth: with the chosen bandwidth; recalibrated: published",
    ),
    _c("diagnostic", "string", "", "meta.id", "Diagnostic: coverage, tarp, pit or sbc"),
    _c("quantity", "string", "", "meta.id", "What bins are made of; 'all' for none"),
    _c(
        "coverage_perfect",
        "float64",
        "",
        "stat.value;arith.ratio",
        "Mean coverage of a perfect posterior: the level, unless the truth chose the clusters",
        0,
        1,
    ),
    _c(
        "coverage_error",
        "float64",
        "",
        "stat.value",
        "Coverage less level where it is largest in size; negative: too narrow",
        -1,
        1,
    ),
    _c(
        "perfect_error",
        "float64",
        "",
        "stat.value;stat.median",
        "Median size of the same for perfect posteriors of these clusters",
        0,
        1,
    ),
    _c(
        "perfect_error_high",
        "float64",
        "",
        "stat.value;stat.max",
        "95 % quantile of the same for perfect posteriors of these clusters",
        0,
        1,
    ),
    _c(
        "perfect_offset",
        "float64",
        "",
        "stat.value",
        "Mean coverage of perfect posteriors less level where it is largest in size",
        -1,
        1,
    ),
    _c(
        "perfect_band",
        "float64",
        "",
        "stat.value;stat.max",
        "95 % quantile of a perfect curve's largest distance from its mean",
        0,
        1,
    ),
    _c(
        "chance",
        "float64",
        "",
        "stat.probability",
        "Part of perfect posteriors whose coverage strays as far from theirs",
        0,
        1,
    ),
    _c(
        "mean_transform",
        "float64",
        "",
        "stat.value;stat.mean",
        "Mean posterior probability below the truth; calibrated: 0.5",
        0,
        1,
    ),
    _c(
        "bin_low",
        "float64",
        "",
        "stat.value;stat.min",
        "Lower edge of the bin; missing for no bin",
        nullable=True,
    ),
    _c(
        "bin_high",
        "float64",
        "",
        "stat.value;stat.max",
        "Upper edge of the bin; missing for no bin",
        nullable=True,
    ),
    _c(
        "transform_low",
        "float64",
        "",
        "stat.probability;stat.min",
        "Lower edge of a bin of the transform, or of the rank over the number of draws",
        0,
        1,
    ),
    _c(
        "transform_high",
        "float64",
        "",
        "stat.probability;stat.max",
        "Upper edge of that bin",
        0,
        1,
    ),
    _c(
        "n_low",
        "float64",
        "",
        "meta.number;stat.min",
        "Lower end (2.5 %) of the number that perfect posteriors have in the bin",
        0,
    ),
    _c(
        "n_high",
        "float64",
        "",
        "meta.number;stat.max",
        "Upper end (97.5 %) of the number that perfect posteriors have in the bin",
        0,
    ),
    _c("crps_error", "float64", "dex", "stat.error", "Its standard error", 0, nullable=True),
    _c("log_score_error", "float64", "", "stat.error", "Its standard error", 0, nullable=True),
    _c("entropy", "float64", "", "stat.value", "Mean differential entropy, nats (of dex)"),
    _c(
        "tarp_error",
        "float64",
        "",
        "stat.value",
        "Largest deviation of the TARP curve from the diagonal",
        -1,
        1,
        nullable=True,
    ),
    _c("tarp_chance", "float64", "", "stat.probability", "Its chance", 0, 1, nullable=True),
    _c(
        "pit_chance",
        "float64",
        "",
        "stat.probability",
        "Chance of the transforms' histogram (sum of squares over expectation)",
        0,
        1,
        nullable=True,
    ),
    _c(
        "pit_distance",
        "float64",
        "",
        "stat.value",
        "Kolmogorov-Smirnov distance of the transforms from uniform",
        0,
        1,
        nullable=True,
    ),
    _c(
        "pit_distance_chance",
        "float64",
        "",
        "stat.probability",
        "Chance of that distance",
        0,
        1,
        nullable=True,
    ),
    _c(
        "sbc_chance",
        "float64",
        "",
        "stat.probability",
        "Chance of the histogram of simulation-based ranks",
        0,
        1,
        nullable=True,
    ),
    # --- data behind figures
    _c(
        "level",
        "float64",
        "",
        "stat.confidenceLevel",
        "Posterior probability inside the central interval",
        0,
        1,
    ),
    _c(
        "coverage",
        "float64",
        "",
        "stat.value;arith.ratio",
        "Part of the clusters whose true mass lies inside that interval",
        0,
        1,
    ),
    _c(
        "coverage_low",
        "float64",
        "",
        "stat.value;stat.min",
        "Lower end (2.5 %) of what a perfect posterior gives with this number of clusters",
        0,
        1,
    ),
    _c(
        "coverage_high",
        "float64",
        "",
        "stat.value;stat.max",
        "Upper end (97.5 %) of what a perfect posterior gives with this number of clusters",
        0,
        1,
    ),
    _c("n", "int32", "", "meta.number", "Number of clusters or other rows", 0),
    _c(
        "mean",
        "float64",
        "dex",
        "stat.value;stat.mean",
        "Mean of log10(M_true/M_pred)",
        nullable=True,
    ),
    _c(
        "scatter",
        "float64",
        "dex",
        "stat.stdev",
        "Standard deviation of log10(M_true/M_pred)",
        0,
        nullable=True,
    ),
    _c(
        "scatter_error",
        "float64",
        "dex",
        "stat.error",
        "Standard error of the standard deviation of log10(M_true/M_pred)",
        0,
        nullable=True,
    ),
    _c(
        "density",
        "float64",
        "1/dex2",
        "stat.probability",
        "Joint probability density of the point estimate and the true mass",
        0,
    ),
    _c(
        "estimator",
        "string",
        "",
        "meta.id",
        "What made the number: cnn3d, galweight, tinker08 and so on",
    ),
    _c(
        "density_h3_mpc3_dex",
        "float64",
        "h3/Mpc3/dex",
        "phys.density",
        "Comoving number density per dex of mass",
        0,
    ),
    _c(
        "density_low",
        "float64",
        "h3/Mpc3/dex",
        "phys.density;stat.min",
        "Lower 1-sigma Poisson limit of the number density",
        0,
        nullable=True,
    ),
    _c(
        "density_high",
        "float64",
        "h3/Mpc3/dex",
        "phys.density;stat.max",
        "Upper 1-sigma Poisson limit of the number density",
        0,
        nullable=True,
    ),
    _c(
        "number_density_h3_mpc3",
        "float64",
        "h3/Mpc3",
        "phys.density",
        "Comoving number density of haloes that the window stands for",
        0,
    ),
    _c(
        "richness",
        "int32",
        "",
        "meta.number",
        "Galaxies within 1 Mpc/h and 1000 km/s of the centre",
        0,
    ),
    _c(
        "log10_m200c_virial",
        "float64",
        "log10(Msun/h)",
        "phys.mass",
        "log10 of the virial M200c, measured on the window as GalWeight does",
        5,
        20,
        nullable=True,
    ),
    _c("offset_low", "float64", "dex", "stat.value", "Lower edge of the bin of the offset"),
    _c("offset_high", "float64", "dex", "stat.value", "Upper edge of the bin of the offset"),
    _c("n_observed", "int64", "", "meta.number", "Clusters observed in the bin", 0),
    _c("n_predicted", "float64", "", "meta.number", "Clusters predicted in the bin", 0),
    _c(
        "probability",
        "float32",
        "",
        "stat.probability",
        "Probability in the voxel; all voxels of a window sum to one",
        0,
    ),
    # --- training
    _c("epoch", "int32", "", "meta.number", "Epoch, from 1", 1),
    _c("loss", "float64", "", "stat.value", "Training loss: mean squared error, dex squared", 0),
    _c("val_loss", "float64", "", "stat.value", "Validation loss, dex squared", 0),
    _c("learning_rate", "float64", "", "stat.param", "Learning rate of the epoch", 0),
    # --- studies of the simulator
    _c(
        "ingredient",
        "string",
        "",
        "meta.id",
        "What is switched off; 'everything' for nothing, 'another_seed' for two networks of the "
        "full simulator",
    ),
    _c(
        "seed",
        "int64",
        "",
        "meta.number",
        "Seed of mocks and network; of rivals, of the fit alone and counted from the run's own, 1",
        0,
    ),
    _c("n_evaluation", "int32", "", "meta.number", "Mock windows that judge", 0),
    _c(
        "n_survey",
        "int32",
        "",
        "meta.number",
        "Clusters of the survey with a mass",
        0,
        nullable=True,
    ),
    _c(
        "epsilon_mean",
        "float64",
        "dex",
        "stat.value;stat.mean",
        "Mean of log10(M_true/M_pred) on the windows judged",
        nullable=True,
    ),
    _c(
        "epsilon_scatter",
        "float64",
        "dex",
        "stat.stdev",
        "Standard deviation of log10(M_true/M_pred) on the windows judged",
        0,
        nullable=True,
    ),
    _c(
        "reference_epsilon_mean",
        "float64",
        "dex",
        "stat.value;stat.mean",
        "Mean of log10(M_true/M_pred) on windows of the full simulator",
        nullable=True,
    ),
    _c(
        "reference_epsilon_scatter",
        "float64",
        "dex",
        "stat.stdev",
        "Standard deviation of log10(M_true/M_pred) on windows of the full simulator",
        0,
        nullable=True,
    ),
    _c(
        "fixed_network_shift_mean",
        "float64",
        "dex",
        "stat.value;stat.mean",
        "The full simulator's network: mean log10 mass of windows without the ingredient, or with "
        "the variation, less that of the same haloes with the usual ones",
        nullable=True,
    ),
    _c(
        "fixed_network_shift_scatter",
        "float64",
        "dex",
        "stat.stdev",
        "Standard deviation of that difference",
        0,
        nullable=True,
    ),
    _c(
        "survey_shift_median",
        "float64",
        "dex",
        "stat.value;stat.median",
        "Clusters of the survey: median log10 mass by this network less that by the full "
        "simulator's of the same seed; for 'another_seed', by that of the next seed less this one's",
        nullable=True,
    ),
    _c(
        "survey_shift_scatter",
        "float64",
        "dex",
        "stat.stdev",
        "Standard deviation of that difference",
        0,
        nullable=True,
    ),
    _c(
        "variation",
        "string",
        "",
        "meta.id",
        "Variation of the parameters; 'everything' for the usual choice",
    ),
    _c(
        "n_train",
        "int32",
        "",
        "meta.number",
        "Windows that are asked for, for training and validation",
        0,
    ),
    _c(
        "n_learned",
        "int32",
        "",
        "meta.number",
        "Windows that the network learned from, those for validation among them; windows without "
        "a cluster of their own or without a density are left out after sets are dealt",
        0,
    ),
    _c(
        "epochs",
        "int32",
        "",
        "meta.number",
        "Most passes through the training set",
        1,
    ),
    _c(
        "n_haloes",
        "int32",
        "",
        "meta.number",
        "Haloes of the windows judged",
        0,
    ),
    _c(
        "epsilon_mean_error",
        "float64",
        "dex",
        "stat.error",
        "Standard error of epsilon_mean, haloes resampled",
        0,
        nullable=True,
    ),
    _c(
        "epsilon_scatter_error",
        "float64",
        "dex",
        "stat.error",
        "Standard error of epsilon_scatter, haloes resampled",
        0,
        nullable=True,
    ),
    _c(
        "coverage_68_error",
        "float64",
        "",
        "stat.error",
        "Standard error of coverage_68, haloes resampled",
        0,
        nullable=True,
    ),
    _c(
        "coverage_95_error",
        "float64",
        "",
        "stat.error",
        "Standard error of coverage_95, haloes resampled",
        0,
        nullable=True,
    ),
    _c(
        "scatter_change",
        "float64",
        "dex",
        "stat.value",
        "Scatter of log10(M_true/M_pred), own network on own windows, less that of the usual "
        "choice on the windows that both have",
        nullable=True,
    ),
    _c(
        "scatter_change_error",
        "float64",
        "dex",
        "stat.error",
        "Standard error of scatter_change, haloes resampled",
        0,
        nullable=True,
    ),
    _c(
        "fixed_network_epsilon_mean",
        "float64",
        "dex",
        "stat.value;stat.mean",
        "Mean of log10(M_true/M_pred) of the usual network on windows of the variation",
        nullable=True,
    ),
    _c(
        "fixed_network_epsilon_scatter",
        "float64",
        "dex",
        "stat.stdev",
        "Standard deviation of log10(M_true/M_pred) of the usual network on windows of the "
        "variation",
        0,
        nullable=True,
    ),
    _c(
        "sight_lines",
        "string",
        "",
        "meta.id",
        "Sight lines on a halo, fewest to most",
    ),
    _c(
        "split_by",
        "string",
        "",
        "meta.code.class",
        "What was dealt to the sets: halo or window",
    ),
    _c(
        "judged_on",
        "string",
        "",
        "meta.code.class",
        "Windows judged: own evaluation set, or fresh haloes",
    ),
    _c(
        "source",
        "string",
        "",
        "meta.id",
        "Networks: of the study's size or of the run's",
    ),
    _c(
        "n_networks",
        "int32",
        "",
        "meta.number",
        "Networks whose masses are averaged",
        1,
    ),
    _c(
        "network_scatter",
        "float64",
        "dex",
        "stat.stdev",
        "Scatter of the errors that a network has to itself",
        0,
        nullable=True,
    ),
    _c(
        "network_scatter_error",
        "float64",
        "dex",
        "stat.error",
        "Standard error of network_scatter, haloes resampled",
        0,
        nullable=True,
    ),
    _c(
        "common_scatter",
        "float64",
        "dex",
        "stat.stdev",
        "Scatter of the errors that networks share",
        0,
        nullable=True,
    ),
    _c(
        "common_scatter_error",
        "float64",
        "dex",
        "stat.error",
        "Standard error of common_scatter, haloes resampled",
        0,
        nullable=True,
    ),
    _c(
        "spread_error_correlation",
        "float64",
        "",
        "stat.correlation",
        "Rank correlation of the networks' standard deviation and the absolute error of their mean",
        -1,
        1,
        nullable=True,
    ),
    _c(
        "spread_error_correlation_error",
        "float64",
        "",
        "stat.error",
        "Standard error of spread_error_correlation, haloes resampled",
        0,
        nullable=True,
    ),
    _c(
        "spread_median",
        "float64",
        "dex",
        "stat.value;stat.median",
        "Median of the networks' standard deviation in the bin",
        0,
    ),
    _c(
        "within_scatter",
        "float64",
        "dex",
        "stat.stdev",
        "Scatter of windows about the mean of their halo: by the sight line",
        0,
        nullable=True,
    ),
    _c(
        "within_scatter_error",
        "float64",
        "dex",
        "stat.error",
        "Standard error of within_scatter, haloes resampled",
        0,
        nullable=True,
    ),
    _c(
        "between_scatter",
        "float64",
        "dex",
        "stat.stdev",
        "Scatter of the means of haloes with infinitely many sight lines: by the halo",
        0,
        nullable=True,
    ),
    _c(
        "between_scatter_error",
        "float64",
        "dex",
        "stat.error",
        "Standard error of between_scatter, haloes resampled",
        0,
        nullable=True,
    ),
    _c(
        "within_fraction",
        "float64",
        "",
        "stat.value;arith.ratio",
        "Part of the variance that the sight line makes",
        0,
        1,
        nullable=True,
    ),
    _c(
        "within_fraction_error",
        "float64",
        "",
        "stat.error",
        "Standard error of within_fraction, haloes resampled",
        0,
        nullable=True,
    ),
    _c(
        "sample",
        "string",
        "",
        "meta.id",
        "Windows: evaluation mocks, or the name of the survey",
    ),
    _c(
        "observed",
        "string",
        "",
        "meta.code.class",
        "How they were observed: with or without fibre collisions",
    ),
    _c(
        "dropped",
        "string",
        "",
        "meta.code.class",
        "Galaxies that lost their velocity: nothing, core (all inside 55 arcsec of the "
        "centre) or pairs (one of each pair within 55 arcsec)",
    ),
    _c(
        "galaxies_lost",
        "float64",
        "",
        "stat.value;arith.ratio",
        "Part of the galaxies lost",
    ),
    _c(
        "change_mean",
        "float64",
        "dex",
        "stat.value;stat.mean",
        "Mean log10 mass after the change less before it, same network",
    ),
    _c(
        "change_mean_error",
        "float64",
        "dex",
        "stat.error",
        "Standard error of change_mean, haloes resampled",
        0,
        nullable=True,
    ),
    _c(
        "change_median",
        "float64",
        "dex",
        "stat.value;stat.median",
        "Median of that change",
    ),
    _c(
        "change_scatter",
        "float64",
        "dex",
        "stat.stdev",
        "Standard deviation of that change",
        0,
        nullable=True,
    ),
    _c(
        "prior",
        "string",
        "",
        "meta.code.class",
        "Prior of the posteriors: flat or mass function",
    ),
    _c(
        "population",
        "string",
        "",
        "meta.code.class",
        "Masses of the windows judged: flat or by the mass function",
    ),
    _c(
        "n_effective",
        "float64",
        "",
        "meta.number",
        "Equally weighted windows that are worth as much",
        0,
    ),
    _c(
        "bias",
        "float64",
        "dex",
        "stat.value;stat.mean",
        "Mean of the true log10 mass less the posterior's mean",
        nullable=True,
    ),
    _c(
        "bias_error",
        "float64",
        "dex",
        "stat.error",
        "Standard error of bias, haloes resampled",
        0,
        nullable=True,
    ),
    _c(
        "trained_on",
        "string",
        "",
        "meta.code.class",
        "Nuisance parameters of the training mocks: drawn per halo, or fixed",
    ),
    _c(
        "evaluated_on",
        "string",
        "",
        "meta.code.class",
        "Windows judged: nuisance parameters of the mocks, or the name of the survey",
    ),
    _c(
        "coverage_68",
        "float64",
        "",
        "stat.value;arith.ratio",
        "Part of the windows with the true mass inside the central 68.3 %",
        0,
        1,
        nullable=True,
    ),
    _c(
        "coverage_95",
        "float64",
        "",
        "stat.value;arith.ratio",
        "Part of the windows with the true mass inside the central 95.4 %",
        0,
        1,
        nullable=True,
    ),
    _c(
        "half_width_median",
        "float64",
        "dex",
        "stat.value;stat.median",
        "Median of half the distance between the 15.866 % and 84.134 % quantiles of the posteriors",
        0,
        nullable=True,
    ),
    _c(
        "half_width_scatter",
        "float64",
        "dex",
        "stat.stdev",
        "Standard deviation of that half width",
        0,
        nullable=True,
    ),
    _c(
        "shift_median",
        "float64",
        "dex",
        "stat.value;stat.median",
        "Median log10 mass by this network less that by the network of the full simulator, same "
        "windows",
        nullable=True,
    ),
    _c(
        "shift_scatter",
        "float64",
        "dex",
        "stat.stdev",
        "Standard deviation of that difference",
        0,
        nullable=True,
    ),
    _c(
        "galweight_offset_median",
        "float64",
        "dex",
        "stat.value;stat.median",
        "Median of log10(M_pred/M_GalWeight); missing where it was not looked at",
        nullable=True,
    ),
    _c(
        "galweight_scatter",
        "float64",
        "dex",
        "stat.stdev",
        "Standard deviation of log10(M_pred/M_GalWeight)",
        0,
        nullable=True,
    ),
    _c(
        "galweight_pull_mean",
        "float64",
        "",
        "stat.value;stat.mean",
        "Mean pull against GalWeight",
        nullable=True,
    ),
    _c(
        "galweight_pull_std",
        "float64",
        "",
        "stat.stdev",
        "Standard deviation of the pull against GalWeight",
        0,
        nullable=True,
    ),
    _c(
        "probability_below_true",
        "float64",
        "",
        "stat.probability",
        "Posterior probability below the true mass; missing where there is no posterior",
        0,
        1,
        nullable=True,
    ),
    # --- rivals
    _c(
        "crps",
        "float64",
        "dex",
        "stat.value",
        "Continuous ranked probability score of the posterior; missing where there is none",
        0,
        nullable=True,
    ),
    _c(
        "log_score",
        "float64",
        "",
        "stat.value",
        "Natural logarithm of the posterior density (1/dex) at the true mass; missing where there "
        "is no posterior",
        nullable=True,
    ),
    _c(
        "width_68",
        "float64",
        "dex",
        "stat.value",
        "Width of the central 68.3 % of the posterior; missing where there is none",
        0,
        nullable=True,
    ),
    _c("fitted", "bool", "", "meta.code", "Whether the estimator could be fitted"),
    _c("note", "string", "", "meta.note", "Why it could not be, or what cut its training short"),
    _c(
        "n_parameters",
        "int64",
        "",
        "meta.number",
        "Numbers fitted to the training set",
        0,
        nullable=True,
    ),
    _c(
        "training_seconds",
        "float64",
        "s",
        "time.duration",
        "Wall time of the fit, after a break that of the last part; missing where the run's own "
        "network was taken over",
        0,
        nullable=True,
    ),
    _c(
        "seconds_per_1000",
        "float64",
        "s",
        "time.duration",
        "Wall time from the galaxies of 1000 clusters to their posteriors",
        0,
        nullable=True,
    ),
    _c(
        "seed_error",
        "float64",
        "",
        "stat.error",
        "Standard error of the mean over the seeds; missing for one seed",
        0,
        nullable=True,
    ),
    _c("n_seeds", "int32", "", "meta.number", "Seeds that the number is the mean of", 0),
    # --- provenance
    _c("item", "string", "", "meta.id", "File or product"),
    _c("property", "string", "", "meta.id", "What is stated"),
    _c("text", "string", "", "meta.note", "The statement"),
    # --- rows of a source that are set aside
    _c("row_number", "int64", "", "meta.number", "Row of the source table, from 0", 0),
    _c("column_name", "string", "", "meta.id", "Column with the first bad value"),
    _c("value_text", "string", "", "meta.note", "That value as text; empty where it is missing"),
    _c("record", "string", "", "meta.note", "The whole row as JSON"),
    _c("key_text", "string", "", "meta.id", "Key of the row as text; empty where it has none"),
    _c("source_file", "string", "", "meta.id", "File or address that the row came from"),
]
for _prior, _words in (("", "flat prior"), ("hmf_", "mass-function prior")):
    for _q, _percent in (("p16", "15.866"), ("p50", "50"), ("p84", "84.134")):
        _COLUMNS.append(
            _c(
                f"log10_m200c_{_prior}{_q}",
                "float64",
                "log10(Msun/h)",
                "phys.mass;stat.value",
                f"{_percent} % quantile of the posterior, {_words}",
                5,
                20,
                nullable=True,
            )
        )
for _q, _percent in (("p2_5", "2.275"), ("p97_5", "97.725")):
    _COLUMNS.append(
        _c(
            f"log10_m200c_{_q}",
            "float64",
            "log10(Msun/h)",
            "phys.mass;stat.value",
            f"{_percent} % quantile of the posterior, flat prior",
            5,
            20,
            nullable=True,
        )
    )
for _q, _percent in (
    ("p2_5", "2.275"), ("p16", "15.866"), ("p50", "50"), ("p84", "84.134"), ("p97_5", "97.725")
):  # fmt: skip
    _COLUMNS.append(
        _c(
            _q,
            "float64",
            "dex",
            "stat.value",
            f"{_percent} % quantile of log10(M_true/M_pred)",
            nullable=True,
        )
    )
#: Overdensities of GalWCat19, by the suffix in column names.
GALWEIGHT_OVERDENSITIES = ("500", "200", "100", "5p5")
for _d in GALWEIGHT_OVERDENSITIES:
    _at = f"at overdensity {_d.replace('p', '.')} (GalWeight)"
    _COLUMNS += [
        _c(f"r{_d}_mpc_h", "float64", "Mpc/h", "phys.size.radius", f"Radius {_at}", 0, nullable=True),
        _c(f"n{_d}", "int32", "", "meta.number", f"Members {_at}", 0, nullable=True),
        _c(f"sigma{_d}_km_s", "float64", "km/s", "phys.veloc.dispersion",
           f"Velocity dispersion {_at}", 0, nullable=True),
        _c(f"sigma{_d}_err_lower_km_s", "float64", "km/s", "stat.error;phys.veloc.dispersion",
           f"Lower error of the dispersion {_at}", 0, nullable=True),
        _c(f"sigma{_d}_err_upper_km_s", "float64", "km/s", "stat.error;phys.veloc.dispersion",
           f"Upper error of the dispersion {_at}", 0, nullable=True),
        _c(f"m{_d}_msun_h", "float64", "Msun/h", "phys.mass", f"Mass {_at}", 0, nullable=True),
        _c(f"m{_d}_err_msun_h", "float64", "Msun/h", "stat.error;phys.mass",
           f"Error of the mass {_at}", 0, nullable=True),
    ]  # fmt: skip
_COLUMNS += [
    _c("nfw_rs_mpc_h", "float64", "Mpc/h", "phys.size.radius", "NFW scale radius (GalWeight)", 0,
       nullable=True),
    _c("nfw_rs_err_mpc_h", "float64", "Mpc/h", "stat.error;phys.size.radius",
       "Error of the NFW scale radius", 0, nullable=True),
    _c("nfw_ms_msun_h", "float64", "Msun/h", "phys.mass", "NFW scale mass (GalWeight)", 0,
       nullable=True),
    _c("nfw_ms_err_msun_h", "float64", "Msun/h", "stat.error;phys.mass",
       "Error of the NFW scale mass", 0, nullable=True),
    _c("nfw_concentration", "float64", "", "stat.param", "NFW concentration (GalWeight)", 0,
       nullable=True),
]  # fmt: skip

_COLUMNS += [
    # --- clusters of others
    _c("centre_shift_mpc_h", "float64", "Mpc/h", "pos.angDistance;pos.distance",
       "How far the centre was moved on the sky, proper; missing where none was looked for", 0,
       nullable=True),
    _c("centre_shift_km_s", "float64", "km/s", "spect.dopplerVeloc;arith.diff",
       "How far the centre was moved in velocity", nullable=True),
    _c("remark", "string", "", "meta.note",
       "What the flags mean for this cluster, or why it has no mass; empty where all is well"),
    # --- windows unlike mocks
    _c("outlier_distance", "float64", "", "stat.value",
       "Mean distance to the nearest training mocks, in their standard deviations", 0,
       nullable=True),
    _c("outlier_p", "float64", "", "stat.probability",
       "Part of the mocks that lie at least as far out", 0, 1, nullable=True),
    _c("second_peak", "float64", "", "stat.value;arith.ratio",
       "Height of the second peak of the smoothed phase space over the cluster's own", 0,
       nullable=True),
    _c("second_peak_p", "float64", "", "stat.probability",
       "Part of the mocks without a second cluster whose second peak is at least as tall", 0, 1,
       nullable=True),
    _c("part", "string", "", "meta.code.class",
       "train: place of a mock; test: distance of a mock; peaks: second peak of a mock"),
    _c("place", "list<float32>", "", "stat.value",
       "Coordinates of a training mock in the space of windows; empty for others"),
    _c("case", "string", "", "meta.id", "Windows that the flags are tried on"),
    _c("unlike_mocks", "float64", "", "stat.value;arith.ratio",
       "Part of them flagged unlike_mocks", 0, 1, nullable=True),
    _c("unlike_mocks_error", "float64", "", "stat.error", "Its standard error", 0, nullable=True),
    _c("two_clusters", "float64", "", "stat.value;arith.ratio",
       "Part of them flagged two_clusters", 0, 1, nullable=True),
    _c("two_clusters_error", "float64", "", "stat.error", "Its standard error", 0, nullable=True),
    # --- X-ray clusters (MCXC-II) and their matches
    _c("xray_name", "string", "", "meta.id", "Name of the X-ray cluster (MCXC-II)"),
    _c("xray_other_name", "string", "", "meta.id", "Another name of the X-ray cluster",
       nullable=True),
    _c("xray_catalogue", "string", "", "meta.id", "X-ray survey that the cluster comes from",
       nullable=True),
    _c("m500_h70_msun", "float64", "Msun", "phys.mass",
       "X-ray M500c as published, for H0 = 70 km/s/Mpc", 0, open_minimum=True),
    _c("m500_h70_err_lower_msun", "float64", "Msun", "stat.error;phys.mass",
       "Lower error of m500_h70_msun, of the X-ray flux alone", 0, nullable=True),
    _c("m500_h70_err_upper_msun", "float64", "Msun", "stat.error;phys.mass",
       "Upper error of m500_h70_msun, of the X-ray flux alone", 0, nullable=True),
    _c("l500_h70_erg_s", "float64", "erg/s", "phys.luminosity;em.X-ray",
       "X-ray luminosity inside R500, 0.1-2.4 keV, as published, for H0 = 70 km/s/Mpc", 0,
       open_minimum=True),
    _c("r500_h70_mpc", "float64", "Mpc", "phys.size.radius",
       "X-ray R500c as published, proper, for H0 = 70 km/s/Mpc", 0, open_minimum=True),
    _c("log10_m500c_xray", "float64", "log10(Msun/h)", "phys.mass",
       "log10 of the X-ray M500c, with h⁻¹", 5, 20),
    _c("log10_m500c_xray_err_lower", "float64", "dex", "stat.error;phys.mass",
       "Lower error of log10_m500c_xray", 0, nullable=True),
    _c("log10_m500c_xray_err_upper", "float64", "dex", "stat.error;phys.mass",
       "Upper error of log10_m500c_xray", 0, nullable=True),
    _c("xray_z", "float64", "", "src.redshift", "Redshift of the X-ray cluster", 0, 2,
       open_minimum=True),
    _c("separation_mpc_h", "float64", "Mpc/h", "pos.angDistance",
       "Projected distance of the two centres, proper, at the cluster's redshift", 0),
    _c("velocity_offset_km_s", "float64", "km/s", "spect.dopplerVeloc",
       "c (z_xray - z)/(1 + z)"),
    _c("accepted", "bool", "", "meta.code",
       "A match: no closer pair has either of the two clusters"),
    _c("ambiguous", "bool", "", "meta.code",
       "Another pair within the limits has one of the two clusters"),
    _c("log10_m200c_xray", "float64", "log10(Msun/h)", "phys.mass",
       "log10 of the X-ray M200c: M500c by an NFW profile", 5, 20),
    _c("log10_m200c_xray_err_lower", "float64", "dex", "stat.error;phys.mass",
       "Lower error of log10_m200c_xray: X-ray flux and concentration", 0, nullable=True),
    _c("log10_m200c_xray_err_upper", "float64", "dex", "stat.error;phys.mass",
       "Upper error of log10_m200c_xray: X-ray flux and concentration", 0, nullable=True),
    _c("log10_m200c_xray_conversion_err", "float64", "dex", "stat.error;phys.mass",
       "Error of log10_m200c_xray from the scatter of concentrations", 0),
    # --- one release against another
    _c("change", "string", "", "meta.code",
       "added, lost, moved (same name, another place), mass_gained, mass_lost or changed (by over 1 sigma)"),
    _c("log10_m200c_last", "float64", "log10(Msun/h)", "phys.mass",
       "Mass in the earlier release: median of its posterior, else the point estimate", 5, 20,
       nullable=True),
    _c("log10_m200c_now", "float64", "log10(Msun/h)", "phys.mass",
       "Mass in the later release: median of its posterior, else the point estimate", 5, 20,
       nullable=True),
    _c("mass_change_dex", "float64", "dex", "phys.mass;arith.diff",
       "log10_m200c_now less log10_m200c_last", nullable=True),
    _c("mass_change_sigma", "float64", "", "phys.mass;arith.ratio",
       "mass_change_dex over the earlier release's error on that side", nullable=True),
    _c("flag_last", "int32", "", "meta.code.qual", "Flag in the earlier release", nullable=True),
    _c("flag_now", "int32", "", "meta.code.qual", "Flag in the later release", nullable=True),
]  # fmt: skip

#: Every column by name.
COLUMNS: dict[str, Column] = {c.name: c for c in _COLUMNS}
if len(COLUMNS) != len(_COLUMNS):
    raise RuntimeError("a column name appears twice in cmass/columns.py")

_GALWEIGHT_BLOCKS = [
    name
    for d in GALWEIGHT_OVERDENSITIES
    for name in (
        f"r{d}_mpc_h", f"n{d}", f"sigma{d}_km_s", f"sigma{d}_err_lower_km_s",
        f"sigma{d}_err_upper_km_s", f"m{d}_msun_h", f"m{d}_err_msun_h",
    )
]  # fmt: skip


def _table(name: str, description: str, columns: str, key: str = "") -> TableSchema:
    return TableSchema(
        name, description, tuple(COLUMNS[c] for c in columns.split()), tuple(key.split())
    )


#: What is said of a cluster's mass, but for its posterior.
_MASS = (
    "cluster_id ra dec z n_galaxies log10_m200c log10_m200c_p16 log10_m200c_p50 "
    "log10_m200c_p84 log10_m200c_hmf_p16 log10_m200c_hmf_p50 log10_m200c_hmf_p84 sigma_minus "
    "sigma_plus log10_m200c_dispersion outlier_distance outlier_p second_peak second_peak_p flag"
)

_TABLES = [
    _table(
        "raw_clusters",
        "One cluster of GalWCat19, as published",
        "cluster_id ra dec z cz_km_s catalogue_distance_mpc_h "
        + " ".join(_GALWEIGHT_BLOCKS)
        + " nfw_rs_mpc_h nfw_rs_err_mpc_h nfw_ms_msun_h nfw_ms_err_msun_h nfw_concentration",
        "cluster_id",
    ),
    _table(
        "raw_galaxies",
        "One galaxy with a spectroscopic redshift",
        "galaxy_id ra dec z z_err r_mag in_legacy s82",
        "galaxy_id",
    ),
    _table(
        "raw_footprint",
        "One cap of a mangle polygon of the survey's window",
        "polygon_id cap_x cap_y cap_z cap_cm",
    ),
    _table(
        "xray_clusters",
        "One X-ray cluster of MCXC-II, as published, and its mass with h⁻¹",
        "xray_name xray_other_name xray_catalogue ra dec z m500_h70_msun m500_h70_err_lower_msun "
        "m500_h70_err_upper_msun l500_h70_erg_s r500_h70_mpc log10_m500c_xray "
        "log10_m500c_xray_err_lower log10_m500c_xray_err_upper",
        "xray_name",
    ),
    _table(
        "quarantine",
        "One row of a source that breaks the column dictionary, and why",
        "item row_number key_text column_name value_text reason source_file record",
        "item row_number",
    ),
    _table(
        "survey_truth",
        "The truth of one cluster of the embedded survey",
        "cluster_id halo_id log10_m200c_true r200c_mpc_h v200c_km_s",
        "cluster_id",
    ),
    _table(
        "clusters",
        "One cluster selected for mass estimation",
        "cluster_id ra dec z distance_mpc_h n_galaxies log10_m200_galweight "
        "log10_m200_galweight_err flag",
        "cluster_id",
    ),
    _table(
        "rejected_clusters",
        "One cluster that was not selected, and why",
        "cluster_id ra dec z distance_mpc_h reason",
        "cluster_id",
    ),
    _table(
        "galaxies",
        "One galaxy in the phase-space window of one cluster",
        "cluster_id galaxy_id x_proj y_proj v_los",
        "cluster_id galaxy_id",
    ),
    _table(
        "mock_clusters",
        "One mock observation of a simulated halo along one sight line",
        "cluster_id halo_id sight_line z distance_mpc_h log10_m200c_true r200c_mpc_h v200c_km_s "
        "n_galaxies n_members contaminant_mass_ratio contaminant_distance nuisance flag",
        "cluster_id",
    ),
    _table(
        "mock_galaxies",
        "One galaxy in the window of one mock cluster, with its truth",
        "cluster_id x_proj y_proj v_los r_mag galaxy_class host_log10_m200c",
    ),
    _table(
        "mock_remarks",
        "Rows of simulation files that were set aside or are doubtful, counted by reason",
        "item reason n text",
    ),
    _table(
        "split", "The set that a mock cluster belongs to", "cluster_id halo_id set", "cluster_id"
    ),
    _table(
        "predictions",
        "The network's point estimate for one mock cluster",
        "cluster_id halo_id set z log10_m200c_true log10_m200c log10_m200c_dispersion n_galaxies "
        "n_members",
        "cluster_id",
    ),
    _table(
        "test_pairs",
        "One mock cluster of those that posteriors are made of, in the precision of float32",
        "log10_m200c_true log10_m200c n_galaxies z",
    ),
    _table(
        "training_history", "One epoch of training", "epoch loss val_loss learning_rate", "epoch"
    ),
    _table(
        "posterior_grid",
        "One bin of log10 M200c on which posteriors are given",
        "bin_index log10_m200c_low log10_m200c_centre log10_m200c_high prior_flat prior_hmf",
        "bin_index",
    ),
    _table(
        "recalibration",
        "One way to make posteriors of point estimates, by its score on the test set",
        "stage candidate n_parameters log_score log_score_gain log_score_gain_error chosen",
        "stage candidate",
    ),
    _table(
        "calibration",
        "One number that says how good the masses are",
        "metric bin value error paper_value unit",
        "metric bin",
    ),
    _table(
        "masses",
        "The mass of one cluster, with its posterior",
        f"{_MASS} posterior",
        "cluster_id",
    ),
    _table(
        "estimates",
        "The mass of one of anyone's clusters, with its posterior and remarks in words",
        f"{_MASS} remark centre_shift_mpc_h centre_shift_km_s posterior",
    ),
    _table(
        "oddity_reference",
        "One mock window that a cluster is compared with",
        "part place outlier_distance second_peak",
    ),
    _table(
        "oddity_rates",
        "How often windows of one kind are flagged",
        "case n unlike_mocks unlike_mocks_error two_clusters two_clusters_error",
        "case",
    ),
    _table(
        "coverage",
        "One level of the coverage curve of the posteriors on mocks",
        "level coverage coverage_low coverage_high",
        "level",
    ),
    _table(
        "calibration_curves",
        "One level of the coverage or TARP curve of one posterior in one bin",
        "posterior_kind diagnostic quantity bin level coverage coverage_perfect coverage_low "
        "coverage_high",
        "posterior_kind diagnostic quantity bin level",
    ),
    _table(
        "calibration_bins",
        "Calibration of one posterior in one bin, beside a perfect posterior's",
        "posterior_kind quantity bin bin_low bin_high unit n n_haloes coverage_error perfect_error "
        "perfect_error_high perfect_offset perfect_band chance mean_transform crps log_score "
        "width_68",
        "posterior_kind quantity bin",
    ),
    _table(
        "calibration_histograms",
        "One bin of the transforms or of the simulation-based ranks of one posterior",
        "posterior_kind diagnostic transform_low transform_high n n_low n_high",
        "posterior_kind diagnostic transform_low",
    ),
    _table(
        "calibration_scores",
        "Scores and diagnostics of one posterior under one prior, on windows of one population",
        "posterior_kind prior population n n_effective crps crps_error log_score log_score_error "
        "width_68 entropy coverage_error perfect_error perfect_error_high chance tarp_error "
        "tarp_chance pit_distance pit_distance_chance pit_chance sbc_chance",
        "posterior_kind prior population",
    ),
    _table(
        "residuals",
        "Residuals log10(M_true/M_pred) of the mocks in one bin of true mass",
        "log10_m200c_low log10_m200c_centre log10_m200c_high n mean scatter p2_5 p16 p50 p84 p97_5",
        "log10_m200c_low",
    ),
    _table(
        "joint",
        "Joint density of point estimate and true mass at one point of a grid",
        "log10_m200c log10_m200c_true density",
    ),
    _table(
        "mass_function",
        "Number density of clusters at one mass, by one estimator",
        "log10_m200c estimator density_h3_mpc3_dex density_low density_high",
    ),
    _table(
        "xray_matches",
        "One cluster and one X-ray cluster within the limits of the cross-match",
        "cluster_id xray_name z xray_z separation_mpc_h velocity_offset_km_s accepted ambiguous "
        "log10_m500c_xray log10_m200c_xray log10_m200c_xray_err_lower log10_m200c_xray_err_upper "
        "log10_m200c_xray_conversion_err log10_m200c log10_m200c_p16 log10_m200c_p50 "
        "log10_m200c_p84 log10_m200c_hmf_p50 log10_m200c_dispersion log10_m200_galweight "
        "log10_m200_galweight_err flag",
        "cluster_id xray_name",
    ),
    _table(
        "population_masses",
        "One window of the population, with what network and GalWeight would say of it",
        "cluster_id z distance_mpc_h log10_m200c_true n_galaxies number_density_h3_mpc3 "
        "log10_m200c_virial richness log10_m200c log10_m200c_p16 log10_m200c_p50 log10_m200c_p84 flag "
        "posterior",
        "cluster_id",
    ),
    _table(
        "offsets",
        "Observed and predicted log10(M_pred/M_GalWeight) of one half in one bin",
        "half offset_low offset_high n_observed n_predicted",
        "half offset_low",
    ),
    _table(
        "realism",
        "One bin of one statistic of the survey's windows beside matched mocks",
        "statistic bin coordinate_low coordinate_high unit real real_error mock mock_error ratio "
        "agrees half",
        "half statistic bin",
    ),
    _table(
        "mass_distributions",
        "Number of mock windows of one set in one bin of true mass",
        "set log10_m200c_low log10_m200c_high n",
        "set log10_m200c_low",
    ),
    _table(
        "window_voxels",
        "Density of the galaxies of one mock window at one voxel",
        "x_proj y_proj v_los probability",
    ),
    _table(
        "prediction_bands",
        "Means over the mocks in one bin of true mass: point estimate and quantiles of posteriors",
        "log10_m200c_low log10_m200c_centre log10_m200c_high n log10_m200c log10_m200c_p2_5 "
        "log10_m200c_p16 log10_m200c_p50 log10_m200c_p84 log10_m200c_p97_5",
        "log10_m200c_low",
    ),
    _table(
        "contamination",
        "The network's point estimate for one mock, and the most massive neighbour in its window",
        "cluster_id halo_id log10_m200c_true log10_m200c contaminant_mass_ratio "
        "contaminant_distance",
        "cluster_id",
    ),
    _table(
        "residual_bins",
        "Residuals log10(M_true/M_pred) of the mocks in one bin of distance, richness or prediction",
        "statistic coordinate_low coordinate_high n mean error scatter scatter_error",
        "statistic coordinate_low",
    ),
    _table(
        "contamination_bins",
        "Residual less that of clean mocks of the same mass, by a neighbour's distance or mass ratio",
        "statistic coordinate_low coordinate_high n mean error scatter",
        "statistic coordinate_low",
    ),
    _table(
        "study_predictions",
        "What a network of a study says of one mock window",
        "cluster_id log10_m200c_true log10_m200c log10_m200c_p16 log10_m200c_p50 log10_m200c_p84 "
        "probability_below_true",
        "cluster_id",
    ),
    _table(
        "ingredients",
        "What one ingredient of the simulator is worth, by one seed",
        "ingredient seed n_evaluation epsilon_mean epsilon_scatter reference_epsilon_mean "
        "reference_epsilon_scatter fixed_network_shift_mean fixed_network_shift_scatter n_survey "
        "survey_shift_median survey_shift_scatter galweight_offset_median galweight_scatter "
        "galweight_pull_mean galweight_pull_std",
        "ingredient seed",
    ),
    _table(
        "nuisance",
        "A network with or without drawn nuisance parameters on one kind of windows",
        "trained_on evaluated_on seed n epsilon_mean epsilon_scatter coverage_68 coverage_95 "
        "half_width_median half_width_scatter shift_median shift_scatter galweight_offset_median "
        "galweight_scatter galweight_pull_mean galweight_pull_std",
        "trained_on evaluated_on seed",
    ),
    _table(
        "sensitivity",
        "One variation of the parameters, by one seed",
        "variation seed n_evaluation n_haloes epsilon_mean epsilon_mean_error epsilon_scatter "
        "epsilon_scatter_error coverage_68 coverage_68_error scatter_change "
        "scatter_change_error fixed_network_epsilon_mean fixed_network_epsilon_scatter "
        "fixed_network_shift_mean fixed_network_shift_scatter reference_epsilon_mean "
        "reference_epsilon_scatter n_survey survey_shift_median survey_shift_scatter",
        "variation seed",
    ),
    _table(
        "learning",
        "A network that learned from so many windows",
        "n_train seed n_learned epochs n_evaluation n_haloes epsilon_mean epsilon_mean_error "
        "epsilon_scatter epsilon_scatter_error coverage_68 coverage_68_error",
        "n_train seed",
    ),
    _table(
        "learning_fit",
        "One number of the power law and floor through the scatter by training windows",
        "metric value error unit",
        "metric",
    ),
    _table(
        "leak",
        "A network whose sets were dealt by window or by halo, on one kind of windows",
        "sight_lines split_by judged_on seed n_learned n_evaluation n_haloes epsilon_mean "
        "epsilon_mean_error epsilon_scatter epsilon_scatter_error coverage_68 "
        "coverage_68_error",
        "sight_lines split_by judged_on seed",
    ),
    _table(
        "ensemble",
        "The mean of so many networks on the same windows",
        "source seed n_networks n_evaluation epsilon_mean epsilon_scatter "
        "epsilon_scatter_error network_scatter network_scatter_error common_scatter "
        "common_scatter_error spread_error_correlation spread_error_correlation_error",
        "source seed n_networks",
    ),
    _table(
        "ensemble_spread",
        "Windows by the spread of the networks",
        "source seed bin_index n_evaluation spread_median epsilon_scatter epsilon_scatter_error",
        "source seed bin_index",
    ),
    _table(
        "sightlines",
        "Scatter by the sight line and by the halo in one bin of mass",
        "bin log10_m200c_low log10_m200c_centre log10_m200c_high n_haloes n_evaluation "
        "epsilon_mean epsilon_scatter within_scatter within_scatter_error between_scatter "
        "between_scatter_error within_fraction within_fraction_error",
        "bin",
    ),
    _table(
        "fibres",
        "What missing fibres do to the masses of one sample",
        "sample observed dropped n_evaluation galaxies_lost change_mean change_mean_error "
        "change_median change_scatter epsilon_mean epsilon_scatter",
        "sample observed dropped",
    ),
    _table(
        "priors",
        "Posteriors of one prior on one population, in one bin of predicted mass",
        "prior population bin n_evaluation n_effective coverage_68 coverage_68_error "
        "coverage_95 coverage_95_error bias bias_error",
        "prior population bin",
    ),
    _table(
        "rival_predictions",
        "What one estimator, fitted with one seed, says of one mock window of the evaluation set",
        "estimator seed cluster_id halo_id log10_m200c_true log10_m200c log10_m200c_p16 "
        "log10_m200c_p50 log10_m200c_p84 probability_below_true crps log_score width_68",
        "estimator seed cluster_id",
    ),
    _table(
        "rival_residuals",
        "Residuals log10(M_true/M_pred) of one estimator, all seeds together, in one bin of true mass",
        "estimator log10_m200c_low log10_m200c_centre log10_m200c_high n mean scatter p2_5 p16 p50 "
        "p84 p97_5",
        "estimator log10_m200c_low",
    ),
    _table(
        "rival_scores",
        "One number that says how good one estimator, fitted with one seed, is",
        "estimator seed metric value error unit",
        "estimator seed metric",
    ),
    _table(
        "rival_costs",
        "What one estimator, fitted with one seed, needed",
        "estimator seed fitted note n_parameters training_seconds seconds_per_1000",
        "estimator seed",
    ),
    _table(
        "rival_study",
        "One number of one estimator: mean over seeds, their standard error, and the error that the "
        "choice of evaluation haloes leaves",
        "estimator metric n_seeds value seed_error error unit",
        "estimator metric",
    ),
    _table(
        "rival_masses",
        "The mass of one cluster of the survey by one estimator",
        "cluster_id estimator log10_m200c log10_m200c_p16 log10_m200c_p50 log10_m200c_p84",
        "cluster_id estimator",
    ),
    _table(
        "calibrated_parameters",
        "One free parameter of the simulator, as the survey's even clusters have it",
        "parameter prior_low prior_high start best best_error",
        "parameter",
    ),
    _table(
        "sensitivities",
        "How far one parameter moves one bin of one statistic",
        "statistic bin parameter sensitivity",
        "statistic bin parameter",
    ),
    _table(
        "changes",
        "One cluster that differs between two releases",
        "cluster_id change ra dec z log10_m200c_last log10_m200c_now mass_change_dex "
        "mass_change_sigma flag_last flag_now",
        "cluster_id",
    ),
    _table("provenance", "One statement on where a product comes from", "item property text"),
]

#: Every table by name.
TABLES: dict[str, TableSchema] = {t.name: t for t in _TABLES}


#: Units that files of the VO say otherwise: their readers take a plain h for an hour.
VO_UNITS = {
    "Mpc/h": "Mpc/'littleh'", "Msun/h": "solMass/'littleh'",
    "log10(Msun/h)": "log(solMass/'littleh')",
}  # fmt: skip


def flag_words(value: int) -> str:
    """Return the flags set in `value`, in words, separated by semicolons."""
    return "; ".join(f.words for f in FLAGS.values() if value & f.value)
