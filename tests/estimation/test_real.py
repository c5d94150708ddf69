"""The real GalWCat19 and SDSS tables: estimate and the pipeline weigh the same clusters alike."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import pytest

from cmass import estimation, formats, ingest, select
from cmass.columns import FLAGS
from cmass.infer import Sample, masses_from_points
from cmass.params import load_params
from cmass.pretrained import load_bundle
from cmass.tables import points_by_cluster, read_table, to_numpy
from cmass.workspace import Workspace
from tests.surveys import shared_data

pytestmark = [pytest.mark.xdist_group("tensorflow"), pytest.mark.slow]


def test_estimate_gives_the_masses_of_the_pipeline(tmp_path):
    """Files of a survey through `cmass estimate`; and ingest, select and infer's core, by the shipped model."""
    params = load_params(profile="smoke", survey="sdss", mirror=str(shared_data()))
    workspace = Workspace(tmp_path / "data", "smoke", "sdss")
    workspace.raw.mkdir(parents=True)
    workspace.selected.mkdir(parents=True)
    ingest.run(workspace, params)
    select.run(workspace, params)
    bundle = load_bundle()
    clusters = read_table(workspace.selected / "clusters.parquet", "clusters")
    galaxies = read_table(workspace.selected / "galaxies.parquet", "galaxies")
    points, offsets = points_by_cluster(galaxies, clusters["cluster_id"])
    columns = to_numpy(clusters, "ra", "dec", "z", "flag")
    sample = Sample(clusters["cluster_id"].to_pylist(), *columns, points, offsets)
    pipeline = masses_from_points(sample, bundle, progress=False)

    raw = read_table(workspace.raw / "galaxies.parquet", "raw_galaxies")
    usable, _ = select.usable_galaxies(raw, params.select.drop_stripe82)
    files = [tmp_path / name for name in ("galwcat19.csv", "sdss.fits", "masses.ecsv")]
    formats.write(files[0], clusters.select(["cluster_id", "ra", "dec", "z"]))
    formats.write(files[1], raw.take(usable).select(["ra", "dec", "z"]))
    made = estimation.estimate_files(*files, model=bundle)
    assert made["cluster_id"].to_pylist() == pipeline["cluster_id"].to_pylist()
    assert made.num_rows > 750
    for name in ("log10_m200c", "log10_m200c_p16", "log10_m200c_p50", "log10_m200c_hmf_p50"):
        here, there = (t[name].to_numpy() for t in (made, pipeline))
        # 1e-3 dex is asked for; CSV and FITS keep every digit, so that nothing should be lost.
        np.testing.assert_allclose(here, there, atol=1e-9)
    # What estimate cannot know is the footprint: it tells windows that leave it by themselves.
    others = ~FLAGS["window_incomplete"].value
    assert pc.bit_wise_and(made["flag"], others).equals(pc.bit_wise_and(pipeline["flag"], others))
    assert not (made["flag"].to_numpy() & FLAGS["depth_outside_training"].value).any()
