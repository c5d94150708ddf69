"""Estimates: `CompiledCNN3D.outputs` against Keras, and `cmass estimate` from start to end.

python -m benchmarks.bench_inference            # 100 clusters; 1000 from galaxies to posteriors
python -m benchmarks.bench_inference --small    # 10 and 100
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks import networks, paired
from benchmarks.clouds import cloud, grids
from benchmarks.paired import Agreement, Comparison, Measurement, Result
from cmass.cosmology import SPEED_OF_LIGHT_KM_S, q0_angular_distance_mpc_h
from cmass.networks.compiled import CompiledCNN3D

#: Of grids from disk. New ones are rounded to half floats by numpy, which takes longer than the
#: network does: for them there is no floor.
TARGET, FLOOR, AGREEMENT = 2.0, 1.3, 1e-5
#: Seconds of `cmass estimate`, for the full number of clusters and for the small one.
ESTIMATE_TARGET, ESTIMATE_LIMIT = 15.0, 120.0


def results(small: bool) -> list[Result]:
    """Estimates of one batch by both networks, and seconds of the command."""
    clusters, runs = (100, 1) if small else (1000, 3)
    return [
        *(estimates(10 if small else 100, kind, 5 if small else 9) for kind in ("f4", "f2")),
        Measurement(
            "cmass estimate", f"{clusters} clusters from galaxies to posteriors, with the start",
            command_seconds(clusters, runs), "s", ESTIMATE_TARGET, ESTIMATE_LIMIT,
        ),
    ]  # fmt: skip


def estimates(count: int, kind: Literal["f4", "f2"], pairs: int) -> Comparison:
    """Both networks on a batch: floats as `density_grid` makes them, or half floats as on disk."""
    weights, activation = networks.shipped_weights()
    model = networks.keras_model(weights, activation)
    network = CompiledCNN3D(weights, networks.N, rectified=activation == "relu")
    batch = grids(count).astype(kind)

    def reference() -> NDArray[np.float32]:
        return model.predict_on_batch(batch[..., None].astype("f4", copy=False))[:, 0]

    def own() -> NDArray[np.float32]:
        return network.outputs(batch)[0]

    close = Agreement("estimates", networks.apart(own(), reference()), AGREEMENT)
    name, target, floor = {
        "f4": ("estimates, new grids", None, None),
        "f2": ("estimates, grids from disk", TARGET, FLOOR),
    }[kind]
    return paired.paired(reference, own, pairs=pairs, clock="wall").comparison(
        name, "Keras with TensorFlow", f"{count} clusters of 50³ voxels, {paired.cores()}",
        agreements=[close], target=target, floor=floor,
    )  # fmt: skip


def command_seconds(n_clusters: int, runs: int) -> float:
    """Wall time of ``cmass estimate`` with the model that ships, in a process of its own.

    A run before the first that counts leaves compiled code and files in memory as any later one
    finds them.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_survey(folder, n_clusters)
        files = [str(folder / f"{table}.parquet") for table in ("clusters", "galaxies", "masses")]
        command = [sys.executable, "-m", "cmass.cli", "estimate", *files[:2], "--out", files[2]]

        def run() -> None:
            subprocess.run(command, check=True, capture_output=True)

        run()
        times = [paired.seconds(run, "wall") for _ in range(runs)]
        masses = pq.read_table(files[2])
        known = n_clusters - masses["log10_m200c"].null_count
        if masses.num_rows != n_clusters or known < n_clusters:
            raise RuntimeError(f"{known} of {n_clusters} clusters have a mass: time says nothing")
    return statistics.median(times)


def write_survey(folder: Path, n_clusters: int, n_places: int | None = None) -> None:
    """Clusters evenly over the sky, and 40 to 250 galaxies around each.

    Of more clusters than `n_places` several stand at each place and share its galaxies.
    """
    random = np.random.default_rng(0)
    n_places = min(n_places or n_clusters, n_clusters)
    number = np.arange(n_places)
    ra = number * 180 * (3 - 5**0.5) % 360
    dec = np.degrees(np.arcsin(np.clip(2 * (number + 0.5) / n_places - 1, -0.97, 0.97)))
    z = random.uniform(0.04, 0.08, n_places)
    parts = []
    for i in range(n_places):
        points = 0.98 * cloud(random, int(random.integers(40, 250)))
        angle = np.degrees(points[:, :2] / q0_angular_distance_mpc_h(z[i], -0.55))
        east = (ra[i] + angle[:, 0] / np.cos(np.radians(dec[i]))) % 360
        speed = points[:, 2] / SPEED_OF_LIGHT_KM_S
        parts.append(np.column_stack([east, dec[i] + angle[:, 1], z[i] + (1 + z[i]) * speed]))
    at = np.arange(n_clusters) % n_places
    names = [f"c{i}" for i in range(n_clusters)]
    clusters = {"cluster_id": names, "ra": ra[at], "dec": dec[at], "z": z[at]}
    pq.write_table(pa.table(clusters), folder / "clusters.parquet")
    galaxies = np.concatenate(parts)
    galaxies = galaxies[random.permutation(len(galaxies))]
    columns = dict(zip(("ra", "dec", "z"), galaxies.T, strict=True))
    pq.write_table(pa.table(columns), folder / "galaxies.parquet")


if __name__ == "__main__":
    sys.exit(paired.main(results, n_cores=2))
