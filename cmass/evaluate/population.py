"""What network and GalWeight say of the population: the windows that a survey would find."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cmass import cosmology
from cmass.columns import FLAGS
from cmass.estimators.richness import count_near_centre
from cmass.galweight_mass import virial_masses
from cmass.mock.population import weights
from cmass.params import Params
from cmass.posterior import TAIL, quantiles
from cmass.pretrained import Bundle
from cmass.tables import make_table, points_by_cluster, read_table, to_numpy
from cmass.workspace import Workspace


def population_table(workspace: Workspace, params: Params, bundle: Bundle) -> pa.Table:
    """Table `population_masses`: the network's posterior and GalWeight's mass of each window.

    Windows are treated as those of a survey: one with too few galaxies, or with a point
    estimate that no calibrated mock has, keeps its row, its flag and missing values. One that
    is centred on a more massive halo, which a finder lists instead, stands for no cluster.
    """
    from cmass.infer import Sample, point_estimates

    clusters = read_table(
        workspace.population / "clusters", "mock_clusters",
        ["cluster_id", "z", "distance_mpc_h", "log10_m200c_true", "n_galaxies", "flag"],
    )  # fmt: skip
    galaxies = read_table(
        workspace.population / "galaxies", "mock_galaxies",
        ["cluster_id", "x_proj", "y_proj", "v_los"],
    )  # fmt: skip
    points, offsets = points_by_cluster(galaxies, clusters["cluster_id"])
    z, distance, true, flag = to_numpy(clusters, "z", "distance_mpc_h", "log10_m200c_true", "flag")
    flag = flag.astype(np.int32)
    nowhere = np.full(z.size, np.nan)
    sample = Sample(clusters["cluster_id"].to_pylist(), nowhere, nowhere, z, flag, points, offsets)
    point = point_estimates(sample, bundle, flag)
    known = np.isfinite(point)
    flag[known] |= bundle.density.flags(point[known])
    flat = bundle.posterior(point, np.diff(offsets), z)
    p16, p50, p84 = quantiles(flat, bundle.edges, [TAIL, 0.5, 1 - TAIL]).T
    has = np.isfinite(flat).all(axis=1)
    lengths = np.where(has, flat.shape[1], 0)
    found = (flag & FLAGS["blended"].value) == 0
    dynamics = virial_masses(
        points, offsets, z, cosmology.from_params(params.cosmology), params.galweight
    )
    return make_table(
        "population_masses",
        {
            "cluster_id": clusters["cluster_id"], "z": z, "distance_mpc_h": distance,
            "log10_m200c_true": true, "n_galaxies": clusters["n_galaxies"],
            "number_density_h3_mpc3": np.where(found, weights(true, params), 0.0),
            "log10_m200c_virial": dynamics.log10_m200,
            "richness": count_near_centre(points, offsets), "log10_m200c": point,
            "log10_m200c_p16": p16, "log10_m200c_p50": p50, "log10_m200c_p84": p84,
            "flag": flag & ~FLAGS["window_incomplete"].value,
            "posterior": pa.ListArray.from_arrays(
                pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)),
                pa.array(flat[has].astype(np.float32).ravel()),
            ),
        },
    )  # fmt: skip
