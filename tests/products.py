"""Small workspaces with every product that publish reads, made through the column dictionary."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.stats import norm

from cmass.columns import FLAGS
from cmass.evaluate import proof
from cmass.evaluate.realism import FEATURES, realism_table, rows_of
from cmass.evaluate.realism.statistics import STATISTICS
from cmass.params import Params
from cmass.recalibration import Recalibration
from cmass.tables import make_table, write_json, write_table
from cmass.workspace import Workspace
from tests import toys
from tests.toys import toy

EDGES = np.linspace(13.0, 15.6, 53)
Q = (0.15866, 0.5, 0.84134)


def build_workspace(
    root: Path, *, survey: str = "embedded", n_clusters: int = 40, with_masses: bool = True,
    n_mocks: int = 300, galaxies_per_cluster: int = 30, seed: int = 1,
) -> Workspace:  # fmt: skip
    """Write the products of all steps before publish below `root`."""
    rng = np.random.default_rng(seed)
    workspace = Workspace(root, "smoke", survey)
    _raw(workspace)
    _selected_and_masses(workspace, rng, n_clusters, with_masses, galaxies_per_cluster)
    _mocks(workspace, rng, n_mocks)
    write_rivals(workspace, rng)
    _numbers(workspace, n_clusters, with_masses)
    if with_masses:
        write_table(workspace.realism / "realism.parquet", realism_rows(), "realism")
    return workspace


def realism_rows(halves: tuple[str, ...] = ("even", "odd")) -> pa.Table:
    """Table `realism`: mocks 5 % above the survey, the first bin of each statistic 50 %."""
    rows = []
    for half in halves:
        for statistic in STATISTICS.values():
            k = statistic.low.size
            real = np.linspace(10, 20, k)
            mock = 1.05 * real
            mock[0] = 1.5 * real[0]
            rows += rows_of(
                statistic.name, statistic.bin_names(), statistic.low, statistic.high,
                statistic.bin_units(), real, 0.02 * real, mock, 0.01 * real, half, 0.1,
            )  # fmt: skip
        rows += rows_of(
            FEATURES, ["AUC", "distance"], np.arange(2.0), np.arange(2.0) + 1, ["", ""],
            np.array([0.5, 6.0]), np.array([0.02, 0.01]), np.array([0.61, 6.02]), np.zeros(2),
            half, 0.1,
        )  # fmt: skip
    return realism_table(rows)


def _raw(workspace: Workspace) -> None:
    write_table(workspace.raw / "footprint.parquet", octant(), "raw_footprint")
    write_json(
        workspace.raw / "provenance.json",
        {
            "survey": workspace.survey,
            "clusters": {"producer": "cmass", "licence": "CC0", "rows": 40, "sha256": "ab" * 32,
                         "retrieved": "2026-11-22T08:00:00+00:00"},
            "galaxies": {"producer": "cmass", "citation": "Kodi Ramanah+2020"},
        },
    )  # fmt: skip


def octant() -> pa.Table:
    """Table `raw_footprint` of one octant of the sky: the three half-spaces x, y, z > 0."""
    return make_table("raw_footprint", {
        "polygon_id": [0, 0, 0], "cap_x": [1.0, 0.0, 0.0], "cap_y": [0.0, 1.0, 0.0],
        "cap_z": [0.0, 0.0, 1.0], "cap_cm": [1.0, 1.0, 1.0],
    })  # fmt: skip


def _selected_and_masses(
    workspace: Workspace, rng: np.random.Generator, n: int, with_masses: bool, per_cluster: int
) -> None:
    ids = [f"Test-{i:04d}" for i in range(n)]
    ra, dec = rng.uniform(340, 400, n) % 360, rng.uniform(-10, 40, n)
    z = rng.uniform(0.02, 0.08, n)
    if n > 5:  # neighbours
        ra[5], dec[5], z[5] = ra[4] + 0.2, dec[4] + 0.1, z[4] + 0.001
    true = rng.uniform(13.8, 14.9, n)
    galweight = true + rng.normal(0, 0.15, n)
    none = np.zeros(n, bool) if with_masses else np.ones(n, bool)
    none[: min(n, 2)] = True
    n_galaxies = np.where(none, 3, per_cluster)
    point = np.where(none, np.nan, true + rng.normal(0, 0.15, n))
    sigma = np.full(n, 0.15)
    cdf = norm.cdf((EDGES[None, :] - point[:, None]) / sigma[:, None])
    probability = np.diff(cdf, axis=1) / (cdf[:, -1:] - cdf[:, :1])
    p16, p50, p84 = (point + sigma * norm.ppf(q) for q in Q)
    galaxy_cluster = np.repeat(np.arange(n), n_galaxies)
    size = galaxy_cluster.size
    write_table(
        workspace.selected / "clusters.parquet",
        make_table("clusters", {
            "cluster_id": ids, "ra": ra, "dec": dec, "z": z, "distance_mpc_h": 3000 * z,
            "n_galaxies": n_galaxies, "log10_m200_galweight": galweight,
            "log10_m200_galweight_err": np.full(n, 0.1), "flag": np.zeros(n, int),
        }), "clusters",
    )  # fmt: skip
    write_table(
        workspace.selected / "galaxies.parquet",
        make_table("galaxies", {
            "cluster_id": [ids[i] for i in galaxy_cluster], "galaxy_id": np.arange(size),
            "x_proj": rng.uniform(-4, 4, size), "y_proj": rng.uniform(-4, 4, size),
            "v_los": rng.normal(0, 700, size),
        }), "galaxies",
    )  # fmt: skip
    write_table(
        workspace.selected / "rejected.parquet",
        make_table("rejected_clusters", {
            "cluster_id": [f"Far-{i}" for i in range(10)], "ra": rng.uniform(345, 359, 10),
            "dec": rng.uniform(-10, 40, 10), "z": np.full(10, 0.1),
            "distance_mpc_h": np.full(10, 290.0), "reason": ["too far"] * 10,
        }), "rejected_clusters",
    )  # fmt: skip
    write_table(
        workspace.masses / "masses.parquet",
        make_table("masses", {
            "cluster_id": ids, "ra": ra, "dec": dec, "z": z, "n_galaxies": n_galaxies,
            "log10_m200c": point, "log10_m200c_p16": p16, "log10_m200c_p50": p50,
            "log10_m200c_p84": p84, "log10_m200c_hmf_p16": p16 - 0.05,
            "log10_m200c_hmf_p50": p50 - 0.05, "log10_m200c_hmf_p84": p84 - 0.05,
            "sigma_minus": p50 - p16, "sigma_plus": p84 - p50,
            "log10_m200c_dispersion": point + 0.1,
            "outlier_distance": np.where(none, np.nan, 2.0), "outlier_p": np.where(none, np.nan, 0.4),
            "second_peak": np.where(none, np.nan, 0.7), "second_peak_p": np.where(none, np.nan, 0.5),
            "flag": np.where(none, FLAGS["too_few_galaxies"].value, 0),
            "posterior": [[] if gone else list(p) for gone, p in zip(none, probability, strict=True)],
        }), "masses",
    )  # fmt: skip
    grid = np.linspace(13.5, 15.2, 60)
    functions = {"tinker08": 1e-4 * 10 ** (-1.2 * (grid - 13.5))}
    if (~none).any():
        functions["cnn3d"] = functions["tinker08"] * 1.2
        functions["galweight"] = functions["tinker08"] * 0.9
    function = {
        "log10_m200c": np.tile(grid, len(functions)),
        "estimator": np.repeat(list(functions), grid.size),
        "density_h3_mpc3_dex": np.concatenate(list(functions.values())),
        "density_low": np.concatenate([v * 0.7 if k != "tinker08" else v * np.nan
                                       for k, v in functions.items()]),
        "density_high": np.concatenate([v * 1.4 if k != "tinker08" else v * np.nan
                                        for k, v in functions.items()]),
    }  # fmt: skip
    write_table(
        workspace.masses / "mass_function.parquet", make_table("mass_function", function),
        "mass_function",
    )  # fmt: skip

    edges = np.arange(-1.5, 1.5001, 0.05)
    difference = (point - galweight)[~none]
    rows = []
    for half, chosen in (
        ("all", slice(None)),
        ("even", slice(0, None, 2)),
        ("odd", slice(1, None, 2)),
    ):
        counts = np.histogram(difference[chosen], edges)[0]
        expected = counts.sum() * np.diff(norm.cdf(edges / 0.22))
        rows += list(
            zip([half] * counts.size, edges[:-1], edges[1:], counts, expected, strict=True)
        )
    names = ("half", "offset_low", "offset_high", "n_observed", "n_predicted")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    write_table(workspace.masses / "offsets.parquet", make_table("offsets", columns), "offsets")


def _windows(workspace: Workspace, rng: np.random.Generator, true: np.ndarray, set_: str) -> None:
    """Write mock windows of a set: a third with a more massive neighbour."""
    n = true.size
    ids = [f"{set_}-{i}" for i in range(n)]
    near = np.arange(n) % 3 == 0
    columns = {
        "cluster_id": ids, "halo_id": np.arange(n), "sight_line": np.zeros(n, int),
        "z": rng.uniform(0.02, 0.08, n), "distance_mpc_h": rng.uniform(60, 240, n),
        "log10_m200c_true": true, "r200c_mpc_h": np.ones(n), "v200c_km_s": np.full(n, 800.0),
        "n_galaxies": np.full(n, 12), "n_members": np.full(n, 6),
        "contaminant_mass_ratio": np.where(near, rng.uniform(1.1, 9, n), np.nan),
        "contaminant_distance": np.where(near, rng.uniform(1.5, 7, n), np.nan),
        "nuisance": [None] * n, "flag": np.zeros(n, int),
    }  # fmt: skip
    name = f"{set_}.parquet"
    write_table(workspace.mock / "clusters" / name, make_table("mock_clusters", columns),
                "mock_clusters")  # fmt: skip
    galaxies = make_table("mock_galaxies", {
        "cluster_id": np.repeat(ids, 12).tolist(), "x_proj": rng.normal(0, 1, 12 * n),
        "y_proj": rng.normal(0, 1, 12 * n), "v_los": rng.normal(0, 700, 12 * n),
        "r_mag": np.full(12 * n, 17.0), "galaxy_class": np.tile([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2], n),
        "host_log10_m200c": np.full(12 * n, np.nan),
    })  # fmt: skip
    write_table(workspace.mock / "galaxies" / name, galaxies, "mock_galaxies")


def _calibration(workspace: Workspace) -> None:
    """Tables of the calibration: posteriors too narrow before, right after."""
    right, narrow = (toy(n_haloes=450, width=w) for w in (1.0, 0.8))
    n = right.truth.size
    windows = proof.Windows(
        right.truth, right.truth + 0.1 * np.sin(np.arange(n)), np.arange(20.0, 20 + n), 0.02 + 0.05 * right.z, 60 + 150 * right.z,
        np.linspace(0.3, 0.9, n), right.halo, np.ones(n), toys.EDGES,
    )  # fmt: skip
    judged = {
        proof.PLAIN: proof.Judged(windows, narrow.probabilities, Params()),
        proof.RECALIBRATED: proof.Judged(windows, right.probabilities, Params()),
    }
    flat = np.full(toys.EDGES.size - 1, 1 / (toys.EDGES.size - 1))
    for name, table in proof.tables(judged, dict.fromkeys(judged, (flat, flat))).items():
        write_table(workspace.evaluation / f"{name}.parquet", table, name)


def _mocks(workspace: Workspace, rng: np.random.Generator, n: int) -> None:
    true = rng.uniform(13.5, 15.0, n)
    _windows(workspace, rng, true, "evaluation")
    _windows(workspace, rng, rng.uniform(13.5, 15.0, 2 * n), "train")
    other = rng.uniform(13.5, 15.0, n)
    _windows(workspace, rng, other, "test")
    sets = ["evaluation"] * n + ["train"] * 2 * n + ["test"] * n
    sets[n : n + 20] = ["validation"] * 20
    ids = [f"{s}-{i}" for s, k in (("evaluation", n), ("train", 2 * n), ("test", n))
           for i in range(k)]  # fmt: skip
    split = make_table("split", {"cluster_id": ids, "halo_id": np.arange(4 * n), "set": sets})
    write_table(workspace.split / "split.parquet", split, "split")
    write_table(
        workspace.posterior / "predictions.parquet",
        make_table("predictions", {
            "cluster_id": [f"test-{i}" for i in range(n)], "halo_id": np.arange(n),
            "set": ["test"] * n, "z": rng.uniform(0.03, 0.08, n),
            "log10_m200c_true": other, "log10_m200c": other + rng.normal(0, 0.16, n),
            "log10_m200c_dispersion": other, "n_galaxies": np.full(n, 80),
            "n_members": np.full(n, 40),
        }), "predictions",
    )  # fmt: skip
    write_json(workspace.posterior / "recalibration.json", Recalibration(0.2).as_json())
    predicted = true + rng.normal(0, 0.16, n)
    write_table(
        workspace.evaluation / "predictions.parquet",
        make_table("predictions", {
            "cluster_id": [f"evaluation-{i}" for i in range(n)], "halo_id": np.arange(n),
            "set": ["evaluation"] * n, "z": rng.uniform(0.03, 0.08, n),
            "log10_m200c_true": true, "log10_m200c": predicted,
            "log10_m200c_dispersion": true + rng.normal(0, 0.3, n),
            "n_galaxies": np.full(n, 80), "n_members": np.full(n, 40),
        }), "predictions",
    )  # fmt: skip
    level = np.linspace(0, 1, 41)[1:-1]
    depth = 2 * np.abs(norm.cdf((true - predicted) / 0.16) - 0.5)
    write_table(
        workspace.evaluation / "coverage.parquet",
        make_table("coverage", {
            "level": level, "coverage": [(depth <= x).mean() for x in level],
            "coverage_low": np.clip(level - 0.05, 0, 1), "coverage_high": np.clip(level + 0.05, 0, 1),
        }), "coverage",
    )  # fmt: skip
    _calibration(workspace)
    edges = np.arange(13.5, 15.01, 0.3)
    residual = true - predicted
    bins = [residual[(true >= a) & (true < b)] for a, b in pairwise(edges)]
    quantiles = {"p2_5": 0.02275, "p16": Q[0], "p50": 0.5, "p84": Q[2], "p97_5": 0.97725}
    write_table(
        workspace.evaluation / "residuals.parquet",
        make_table("residuals", {
            "log10_m200c_low": edges[:-1], "log10_m200c_centre": edges[:-1] + 0.15,
            "log10_m200c_high": edges[1:], "n": [e.size for e in bins],
            "mean": [e.mean() for e in bins], "scatter": [e.std(ddof=1) for e in bins],
            **{name: [np.quantile(e, q) for e in bins] for name, q in quantiles.items()},
        }), "residuals",
    )  # fmt: skip
    grid = np.linspace(13.2, 15.3, 40)
    x, y = np.meshgrid(grid, grid, indexing="ij")
    write_table(
        workspace.posterior / "joint.parquet",
        make_table("joint", {
            "log10_m200c": x.ravel(), "log10_m200c_true": y.ravel(),
            "density": (norm.pdf((y - x) / 0.16) * np.exp(-((x - 14.2) ** 2))).ravel(),
        }), "joint",
    )  # fmt: skip
    prior = np.full(EDGES.size - 1, 1 / (EDGES.size - 1))
    write_table(
        workspace.posterior / "posterior_grid.parquet",
        make_table("posterior_grid", {
            "bin_index": np.arange(EDGES.size - 1), "log10_m200c_low": EDGES[:-1],
            "log10_m200c_centre": 0.5 * (EDGES[1:] + EDGES[:-1]), "log10_m200c_high": EDGES[1:],
            "prior_flat": prior, "prior_hmf": prior,
        }), "posterior_grid",
    )  # fmt: skip
    epoch = np.arange(1, 13)
    write_table(
        workspace.model / "history.parquet",
        make_table("training_history", {
            "epoch": epoch, "loss": 0.2 * 0.75**epoch + 0.02,
            "val_loss": 0.2 * 0.75**epoch + 0.025 + 1e-4 * epoch**2,
            "learning_rate": np.full(epoch.size, 5e-4),
        }), "training_history",
    )  # fmt: skip
    write_json(workspace.model / "model.json", {"n_weights": 123189, "best_epoch": 10})


#: Scatter of the toy estimators, dex.
RIVALS = {"cnn3d": 0.16, "cnn2d": 0.2, "cnn1d": 0.25, "dispersion": 0.3, "richness": 0.18}


def write_rivals(workspace: Workspace, rng: np.random.Generator) -> None:
    """Write rivals/ of five estimators and two seeds, on the evaluation windows."""
    from cmass.tables import read_table, to_numpy

    evaluation = read_table(workspace.evaluation / "predictions.parquet", "predictions")
    (true,) = to_numpy(evaluation, "log10_m200c_true")
    n = true.size
    parts, scores = [], []
    for name, sigma in RIVALS.items():
        for seed in (1, 2):
            point = true + rng.normal(0, sigma, n)
            if name == "dispersion":
                point[0] = np.nan
            z = (true - point) / sigma
            below = norm.cdf(z)
            parts.append(make_table("rival_predictions", {
                "estimator": [name] * n, "seed": [seed] * n,
                "cluster_id": evaluation["cluster_id"], "halo_id": np.arange(n),
                "log10_m200c_true": true, "log10_m200c": point, "log10_m200c_p16": point - sigma,
                "log10_m200c_p50": point, "log10_m200c_p84": point + sigma,
                "probability_below_true": below,
                "crps": sigma * (z * (2 * below - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi)),
                "log_score": norm.logpdf(z) - np.log(sigma), "width_68": np.full(n, 2 * sigma),
            }))  # fmt: skip
            epsilon = (true - point)[np.isfinite(point)]
            # What step rivals fits and resamples is tested there; here the numbers stand for it.
            for metric, value, error in (
                ("epsilon_mean", epsilon.mean(), 0.01), ("epsilon_scatter", epsilon.std(), 0.005),
                ("epsilon_scatter_massive", 0.9 * sigma, 0.005), ("sigma_n", 0.3 * sigma, 0.011),
                ("sigma_0", 0.8 * sigma + 0.001 * seed, 0.009), ("coverage_error", 0.02, 0.004),
                ("crps", 0.56 * sigma, 0.002),
            ):  # fmt: skip
                unit = "" if metric == "coverage_error" else "dex"
                scores.append({"estimator": name, "seed": seed, "metric": metric, "value": value,
                               "error": error, "unit": unit})  # fmt: skip
    names = ("estimator", "seed", "metric", "value", "error", "unit")
    costs = {
        "estimator": list(RIVALS), "seed": [1] * len(RIVALS), "fitted": [True] * len(RIVALS),
        "note": [""] * len(RIVALS), "n_parameters": [123189, 9000, 5000, 2, 3],
        "training_seconds": [None, 60.0, 30.0, 1.0, 1.0],
        "seconds_per_1000": [40.0, 5.0, 3.0, 0.5, 0.25],
    }  # fmt: skip
    for file, name, table in (
        ("predictions", "rival_predictions", pa.concat_tables(parts)),
        ("scores", "rival_scores",
         make_table("rival_scores", {c: [row[c] for row in scores] for c in names})),
        ("costs", "rival_costs", make_table("rival_costs", costs)),
    ):  # fmt: skip
        write_table(workspace.rivals / f"{file}.parquet", table, name)


def _numbers(workspace: Workspace, n_clusters: int, with_masses: bool) -> None:
    def table(rows):
        names = ("metric", "bin", "value", "error", "paper_value", "unit")
        return make_table("calibration", dict(zip(names, zip(*rows, strict=True), strict=True)))

    mocks = [
        ("epsilon_mean", "all", 0.012, 0.004, 0.04, "dex"),
        ("epsilon_scatter", "all", 0.158, 0.003, 0.16, "dex"),
        ("epsilon_mean", "13.50-13.80", -0.11, 0.01, None, "dex"),
        ("dispersion_epsilon_scatter", "all", 0.29, 0.01, None, "dex"),
        ("coverage_68", "all", 0.671, 0.015, 0.6827, ""),
        ("sigma_n", "cnn3d", 0.05, 0.01, 0.04, "dex"),
    ]
    survey = [
        ("n_clusters", workspace.survey, float(n_clusters), None, None, ""),
        ("effective_area", workspace.survey, 5156.6, None, 6670.0, "deg2"),
    ]
    if with_masses:
        survey += [
            ("pull_mean", workspace.survey, 0.11, 0.03, -0.02, ""),
            ("pull_std", workspace.survey, 1.02, 0.02, 1.05, ""),
            ("n_flag_too_few_galaxies", workspace.survey, 2.0, None, None, ""),
        ]
    write_table(workspace.evaluation / "calibration.parquet", table(mocks), "calibration")
    rates = make_table("oddity_rates", {
        "case": ["mocks", "field alone"], "n": [100, 30],
        "unlike_mocks": [0.01, 0.9], "unlike_mocks_error": [0.01, 0.05],
        "two_clusters": [0.06, 0.4], "two_clusters_error": [0.02, 0.09],
    })  # fmt: skip
    write_table(workspace.oddity / "rates.parquet", rates, "oddity_rates")
    write_table(workspace.masses / "comparison.parquet", table(survey), "calibration")
