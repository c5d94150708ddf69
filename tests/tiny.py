"""A finished run in small: synthetic windows, a real network of 26³ voxels, all products.

The network's last layer is fitted by least squares on random convolutional features:
no training, yet its estimates follow the mass.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from cmass.cosmology import from_params
from cmass.params import Params, load_params
from cmass.tables import make_table, write_json, write_table
from cmass.workspace import Workspace

N_TRAIN, N_TEST, N_EVALUATION = 240, 200, 100


def tiny_params(**changes) -> Params:
    """Parameters with 26³ voxels and 24 mass bins."""
    params = load_params(Path(__file__).parents[1] / "params.yaml", "smoke")
    voxels = params.voxels.model_copy(update={"n": 26})
    posterior = params.posterior.model_copy(update={"n_bins": 24})
    # Those that train nothing; the others have tests of their own.
    rivals = params.rivals.model_copy(update={"estimators": ("cnn3d", "dispersion", "richness")})
    sections = {"voxels": voxels, "posterior": posterior, "rivals": rivals}
    return params.model_copy(update={**sections, "workers": 1, **changes})


def window(log10_m: float, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Galaxies (n, 3) in the window of a mock cluster, and how many are members."""
    r200 = 1.1 * 10 ** ((log10_m - 14.3) / 3)
    sigma = 550 * 10 ** ((log10_m - 14.3) / 3)
    n = int(rng.poisson(60 * 10 ** (0.8 * (log10_m - 14.3)))) + 6
    n_field = int(rng.poisson(50))
    r = r200 * rng.uniform(0, 1, n)
    phi = rng.uniform(0, 2 * np.pi, n)
    v = np.clip(sigma * rng.standard_normal(n), -2200, 2200)
    members = np.column_stack([r * np.cos(phi), r * np.sin(phi), v])
    field = rng.uniform(-1, 1, (n_field, 3)) * [4, 4, 2200]
    return np.vstack([members, field]), n


def mock_windows(folder: Path, params: Params, true: np.ndarray, rng: np.random.Generator):
    """Write tables of mocks of given masses to `folder`; two sight lines a halo."""
    total = len(true)
    z = rng.uniform(0.02, 0.08, total)
    cosmology = from_params(params.cosmology)
    clouds, members = zip(*(window(m, rng) for m in true), strict=True)
    halo = np.arange(total) // 2
    ids = [f"mock-{h:06d}-{i % 2:02d}" for i, h in enumerate(halo)]
    counts = [len(c) for c in clouds]
    distance = cosmology.comoving_distance_mpc_h(z)
    clusters = {
        "cluster_id": ids, "halo_id": halo, "sight_line": np.arange(total) % 2, "z": z,
        "distance_mpc_h": distance, "log10_m200c_true": true,
        "r200c_mpc_h": cosmology.r200c_mpc_h(10**true, z),
        "v200c_km_s": cosmology.v200c_km_s(10**true, z), "n_galaxies": counts,
        "n_members": members,
    }  # fmt: skip
    from cmass.columns import TABLES

    for column in TABLES["mock_clusters"].columns:
        if column.name not in clusters:
            clusters[column.name] = [None if column.nullable else 0] * total
    points = np.vstack(clouds)
    n = len(points)
    galaxies = {
        "cluster_id": [name for name, k in zip(ids, counts, strict=True) for _ in range(k)],
        "x_proj": points[:, 0], "y_proj": points[:, 1], "v_los": points[:, 2],
        "r_mag": np.full(n, 17.0), "galaxy_class": np.zeros(n, int),
        "host_log10_m200c": np.full(n, np.nan),
    }  # fmt: skip
    for name, columns in (("clusters", clusters), ("galaxies", galaxies)):
        table = make_table(f"mock_{name}", columns)
        write_table(folder / name / "shard-00000.parquet", table, f"mock_{name}")
    return ids, halo


def mock_catalogue(workspace: Workspace, params: Params) -> None:
    """Write mock/, population/ and split/ with synthetic windows; two sight lines a halo."""
    rng = np.random.default_rng(11)
    total = N_TRAIN + N_TEST + N_EVALUATION
    true = np.repeat(rng.uniform(13.6, 15.0, total // 2), 2)
    ids, halo = mock_windows(workspace.mock, params, true, rng)
    mock_windows(workspace.population, params, rng.uniform(13.6, 15.0, 300), rng)
    sets = ["train"] * N_TRAIN + ["test"] * N_TEST + ["evaluation"] * N_EVALUATION
    sets[:20] = ["validation"] * 20
    split = make_table("split", {"cluster_id": ids, "halo_id": halo, "set": sets})
    write_table(workspace.split / "split.parquet", split, "split")


def fitted_network(workspace: Workspace, params: Params) -> None:
    """Write model/ with random features and a last layer that fits the training set."""
    import keras

    from cmass.networks import cnn3d
    from cmass.networks.streaming import read_voxels, shard_files

    keras.utils.set_random_seed(5)
    model = cnn3d.build(params.voxels.n)
    features = keras.Model(model.inputs, model.layers[-2].output)
    inputs, masses = [], []
    for file in shard_files(workspace.voxels / "train"):
        for _, true, grids in read_voxels(file):
            inputs.append(np.asarray(grids, np.float32)[..., None])
            masses.append(true)
    x = np.asarray(features.predict(np.concatenate(inputs), verbose=0), float)
    y = np.concatenate(masses)
    centred = x - x.mean(axis=0)
    ridge = 1e-6 * np.trace(centred.T @ centred) / x.shape[1]
    weights = np.linalg.solve(
        centred.T @ centred + ridge * np.eye(x.shape[1]), centred.T @ (y - y.mean())
    )
    bias = y.mean() - x.mean(axis=0) @ weights
    model.layers[-1].set_weights(
        [weights[:, None].astype(np.float32), np.array([bias], np.float32)]
    )
    workspace.model.mkdir(parents=True, exist_ok=True)
    model.save_weights(workspace.model / "cnn3d.weights.h5")
    write_json(workspace.model / "model.json", {"note": "least squares on random features"})


def survey(workspace: Workspace, params: Params, n: int = 30) -> pa.Table:
    """Write raw/ and selected/ of an embedded survey with known truth; return the truth."""
    from cmass.columns import FLAGS

    rng = np.random.default_rng(12)
    true = rng.uniform(14.0, 14.8, n)
    clouds = [window(m, rng)[0] for m in true]
    clouds[0] = clouds[0][:3]  # too few
    clouds[1] = np.tile([[0.1, 0.2, 30.0]], (12, 1))  # all in one place
    counts = np.array([len(c) for c in clouds])
    z = rng.uniform(0.03, 0.07, n)
    z[2] = 0.3  # farther than any mock
    ids = [f"cl-{i:03d}" for i in range(n)]
    ra, dec = rng.uniform(0, 30, n), rng.uniform(0, 30, n)
    distance = from_params(params.cosmology).comoving_distance_mpc_h(z)
    flag = np.zeros(n, int)
    flag[3] = FLAGS["window_incomplete"].value
    galweight = true + 0.2 * rng.standard_normal(n)
    galweight[4] = np.nan
    columns = {
        "cluster_id": ids, "ra": ra, "dec": dec, "z": z, "distance_mpc_h": distance,
        "n_galaxies": counts, "log10_m200_galweight": galweight,
        "log10_m200_galweight_err": np.full(n, 0.1), "flag": flag,
    }  # fmt: skip
    write_table(
        workspace.selected / "clusters.parquet", make_table("clusters", columns), "clusters"
    )
    points = np.vstack(clouds)
    galaxies = make_table("galaxies", {
        "cluster_id": [i for i, k in zip(ids, counts, strict=True) for _ in range(k)],
        "galaxy_id": np.arange(len(points)),
        "x_proj": points[:, 0], "y_proj": points[:, 1], "v_los": points[:, 2],
    })  # fmt: skip
    write_table(workspace.selected / "galaxies.parquet", galaxies, "galaxies")
    rejected = make_table("rejected_clusters", {
        "cluster_id": ["edge", "far"], "ra": [5.0, 5.0], "dec": [5.0, 5.0], "z": [0.05, 0.2],
        "distance_mpc_h": [150.0, 580.0], "reason": ["near the footprint's rim", "too far"],
    })  # fmt: skip
    write_table(workspace.selected / "rejected.parquet", rejected, "rejected_clusters")
    from tests.products import octant

    write_table(workspace.raw / "footprint.parquet", octant(), "raw_footprint")
    order = rng.permutation(n)  # truth is matched by identifier, not by row
    truth = make_table("survey_truth", {
        "cluster_id": [ids[i] for i in order], "halo_id": order,
        "log10_m200c_true": true[order], "r200c_mpc_h": np.ones(n), "v200c_km_s": np.ones(n),
    })  # fmt: skip
    write_table(workspace.raw / "truth.parquet", truth, "survey_truth")
    near = slice(4, 24)  # X-ray clusters in the very places of twenty of them
    x = true[near] - 0.15
    xray = make_table("xray_clusters", {
        "xray_name": ids[near], "xray_other_name": [None] * 20, "xray_catalogue": ["tiny"] * 20,
        "ra": ra[near], "dec": dec[near], "z": z[near], "m500_h70_msun": 10**x / 0.7,
        "m500_h70_err_lower_msun": [None] * 20, "m500_h70_err_upper_msun": [None] * 20,
        "l500_h70_erg_s": np.full(20, 1e44), "r500_h70_mpc": np.ones(20), "log10_m500c_xray": x,
        "log10_m500c_xray_err_lower": [None] * 20, "log10_m500c_xray_err_upper": [None] * 20,
    })  # fmt: skip
    write_table(workspace.raw / "xray.parquet", xray, "xray_clusters")
    return truth


def finished_run(root: Path) -> tuple[Workspace, Params]:
    """A workspace with every product up to infer."""
    from cmass import evaluate, infer, oddity, posterior, rivals, voxels
    from cmass.evaluate import realism

    params = tiny_params()
    workspace = Workspace(root, "smoke", "embedded")
    mock_catalogue(workspace, params)
    voxels.run(workspace, params)
    fitted_network(workspace, params)
    posterior.run(workspace, params)
    oddity.run(workspace, params)
    evaluate.run(workspace, params)
    rivals.run(workspace, params)
    survey(workspace, params)
    infer.run(workspace, params)
    realism.run(workspace, params)
    return workspace, params
