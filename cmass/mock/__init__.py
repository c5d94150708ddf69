"""mock: windows of simulated clusters as a survey would see them (SPEC section 3)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from cmass import cosmology as background
from cmass.columns import FLAGS
from cmass.mock import nuisance
from cmass.mock.haloes import HaloPlan, draw_distances
from cmass.mock.observer import observe
from cmass.mock.sightlines import sight_lines
from cmass.mock.sources import EmbeddedSource, Remark, Source, open_source
from cmass.params import Params
from cmass.seeds import generator
from cmass.shards import SIMULATOR_SOURCES, Shard, digest_of, run_shards, source_digest
from cmass.tables import make_table, write_table
from cmass.workspace import Workspace

log = logging.getLogger(__name__)

#: Parameter sections that the mocks depend on.
SECTIONS = ("seed", "cosmology", "window", "mock")


def observe_halo(
    plan: HaloPlan, params: Params, source: Source | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All windows of one halo.

    Parameters
    ----------
    plan : HaloPlan
    params : Params
    source : Source, optional
        Where the halo and its surroundings come from; the embedded simulator by default.

    Returns
    -------
    clusters : list of dict
        One row of `mock_clusters` a sight line.
    galaxies : list of dict of arrays
        The window's rows of `mock_galaxies`, one dict a sight line.
    """
    source = EmbeddedSource() if source is None else source
    cosmology = background.from_params(params.cosmology)
    window = params.window
    mock, drawn = nuisance.draw(params.mock, params.seed, plan.halo_id)
    params = params.model_copy(update={"mock": mock})
    distances = draw_distances(plan.halo_id, plan.n_sight_lines, params)
    field = source.field(plan, float(distances.min()), params)
    turn = generator(params.seed, "sight-lines", plan.halo_id)
    clusters, galaxies = [], []
    for number, direction in enumerate(sight_lines(plan.n_sight_lines, turn)):
        random = generator(params.seed, "observer", plan.halo_id, number)
        distance = float(distances[number])
        cone = observe(field, direction, distance, mock, window, cosmology, random)
        angular_distance = background.q0_angular_distance_mpc_h(cone.z_cluster, params.cosmology.q0)
        x, y = cone.tan_x * angular_distance, cone.tan_y * angular_distance
        v = background.line_of_sight_velocity_km_s(cone.z, cone.z_cluster)
        width = window.half_width_mpc_h
        inside = (np.abs(x) <= width) & (np.abs(y) <= width) & (np.abs(v) <= window.v_max_km_s)
        cluster_id = f"mock-{plan.halo_id:06d}-{number:02d}"
        n = int(inside.sum())
        flag = FLAGS["too_few_galaxies"].value if n < window.n_galaxies_min else 0
        if cone.heavier.nearest < mock.observer.separation:
            flag |= FLAGS["blended"].value
        mass = 10**plan.log10_m200c
        clusters.append(
            {
                "cluster_id": cluster_id,
                "halo_id": plan.halo_id,
                "sight_line": number,
                "z": cone.z_cluster,
                "distance_mpc_h": distance,
                "log10_m200c_true": plan.log10_m200c,
                "r200c_mpc_h": float(cosmology.r200c_mpc_h(mass, field.redshift)),
                "v200c_km_s": float(cosmology.v200c_km_s(mass, field.redshift)),
                "n_galaxies": n,
                "n_members": cone.inside_r200,
                "contaminant_mass_ratio": cone.heavier.mass_ratio,
                "contaminant_distance": cone.heavier.distance,
                "nuisance": [(k, v) for k, v in drawn.items() if k.startswith(source.uses)],
                "flag": flag,
            }
        )
        galaxies.append(
            {
                "cluster_id": np.repeat(cluster_id, n),
                "x_proj": x[inside],
                "y_proj": y[inside],
                "v_los": v[inside],
                "r_mag": cone.r_mag[inside],
                "galaxy_class": cone.galaxy_class[inside],
                "host_log10_m200c": cone.host_log10_m200c[inside],
            }
        )
    return clusters, galaxies


def make_shard(folder: Path, shard: Shard) -> None:
    """Simulate and observe the haloes of one shard; write its two tables."""
    plans, params, source = shard.arguments
    clusters: list[dict[str, Any]] = []
    galaxies: list[dict[str, Any]] = []
    for plan in plans:
        rows, members = observe_halo(plan, params, source)
        clusters += rows
        galaxies += members
    columns = {name: [row[name] for row in clusters] for name in clusters[0]}
    galaxy_columns = {name: np.concatenate([g[name] for g in galaxies]) for name in galaxies[0]}
    clusters_file, galaxies_file = (folder / name for name in shard.outputs)
    write_table(clusters_file, make_table("mock_clusters", columns), "mock_clusters")
    write_table(galaxies_file, make_table("mock_galaxies", galaxy_columns), "mock_galaxies")


def observe_plans(
    plans: list[HaloPlan], folder: Path, params: Params, sections: tuple[str, ...],
    description: str, source: Source | None = None,
) -> None:  # fmt: skip
    """Observe all haloes of `plans` in shards: ``clusters`` and ``galaxies`` below `folder`.

    Parameters
    ----------
    plans : list of HaloPlan
    folder : Path
        The product's final folder.
    params : Params
    sections : tuple of str
        Parameters that the product depends on: what is half made is kept only if they are the same.
    description : str
        Label of the progress bar.
    source : Source, optional
        The embedded simulator by default.
    """
    source = EmbeddedSource() if source is None else source
    size = params.mock.haloes_per_shard
    shards = [
        Shard(
            number,
            (f"clusters/shard-{number:05d}.parquet", f"galaxies/shard-{number:05d}.parquet"),
            (plans[start : start + size], params, source),
        )
        for number, start in enumerate(range(0, len(plans), size))
    ]
    values = params.model_dump(mode="json")
    kept = {name: values[name] for name in sections}
    digest = digest_of(kept, source_digest(*SIMULATOR_SOURCES), source.identity)
    run_shards(make_shard, shards, folder, digest=digest, params=params, description=description)


def run(workspace: Workspace, params: Params) -> None:
    """Make the mock catalogue: ``mock/clusters`` and ``mock/galaxies``, in shards."""
    if params.mock.source == "authors":
        from cmass.mock.boxes.authors import run as run_authors

        run_authors(workspace, params)
        return
    source = open_source(workspace, params)
    plans = source.plan(params)
    observe_plans(plans, workspace.mock, params, SECTIONS, "mock", source)
    write_remarks(workspace, source.remarks())
    log.info("mock: %d windows of %d haloes", sum(p.n_sight_lines for p in plans), len(plans))


def write_remarks(workspace: Workspace, remarks: list[Remark]) -> None:
    """Say what was set aside in the log and in ``mock/remarks.parquet``, if there is any."""
    for remark in remarks:
        log.warning(
            "mock: %s %s: %d of them, the first: %s",
            remark.item, remark.reason, remark.n, remark.text,
        )  # fmt: skip
    if remarks:
        columns = {name: [getattr(r, name) for r in remarks] for name in Remark.__annotations__}
        table = make_table("mock_remarks", columns)
        write_table(workspace.mock / "remarks.parquet", table, "mock_remarks")
