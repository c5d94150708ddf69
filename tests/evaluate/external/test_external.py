"""The whole comparison with X-ray masses, on a sky with planted offsets."""

import numpy as np
import pyarrow as pa
import pytest

from cmass.columns import TABLES
from cmass.evaluate import external
from cmass.evaluate.external import comparison_rows, match_table
from cmass.ingest.footprint import Footprint
from cmass.params import load_params
from cmass.tables import make_table, read_table, write_table
from cmass.workspace import Workspace
from tests.evaluate.external.test_matching import beside
from tests.surveys import REPOSITORY

N = 240
OFFSET = {"log10_m200c_p50": 0.10, "log10_m200c": -0.04, "log10_m200_galweight": 0.02}
SCATTER = {"log10_m200c_p50": 0.15, "log10_m200c": 0.2, "log10_m200_galweight": 0.25}
OCTANT = {
    "polygon_id": [0, 0, 0], "cap_x": [1.0, 0.0, 0.0], "cap_y": [0.0, 1.0, 0.0],
    "cap_z": [0.0, 0.0, 1.0], "cap_cm": [1.0, 1.0, 1.0],
}  # fmt: skip


@pytest.fixture(scope="module")
def params():
    return load_params(REPOSITORY / "params.yaml", survey="sdss")


@pytest.fixture(scope="module")
def sky():
    """Clusters, masses and X-ray clusters: `N` pairs, 60 of ours and 150 of theirs alone."""
    rng = np.random.default_rng(2)
    n = N + 60
    place = np.column_stack(
        [rng.uniform(2, 88, n), np.degrees(np.arcsin(rng.uniform(0.05, 0.95, n))),
         rng.uniform(0.03, 0.08, n)]
    )  # fmt: skip
    m500 = rng.uniform(13.9, 14.7, n)
    theirs = [
        beside(one, north=a, km_s=v)
        for one, a, v in zip(place[:N], rng.uniform(-0.4, 0.4, N), rng.normal(0, 200, N),
                             strict=True)
    ]  # fmt: skip
    theirs += [
        (ra, np.degrees(np.arcsin(s)), z)
        for ra, s, z in zip(rng.uniform(0, 90, 150), rng.uniform(0, 1, 150),
                            rng.uniform(0.02, 0.09, 150), strict=True)
    ]  # fmt: skip
    theirs += [(200.0, -40.0, 0.05), (45.0, 30.0, 0.7)]  # outside, and too far
    mass = np.concatenate([m500[:N], rng.uniform(13.5, 14.5, len(theirs) - N)])
    h70 = 10**mass / 0.7
    x = np.array(theirs)
    xray = make_table("xray_clusters", {
        "xray_name": [f"X{i:04d}" for i in range(len(x))],
        "xray_other_name": [None] * len(x), "xray_catalogue": ["toy"] * len(x),
        "ra": x[:, 0], "dec": x[:, 1], "z": x[:, 2], "m500_h70_msun": h70,
        "m500_h70_err_lower_msun": 0.1 * h70, "m500_h70_err_upper_msun": 0.1 * h70,
        "l500_h70_erg_s": np.full(len(x), 1e44), "r500_h70_mpc": np.ones(len(x)),
        "log10_m500c_xray": mass, "log10_m500c_xray_err_lower": np.full(len(x), 0.046),
        "log10_m500c_xray_err_upper": np.full(len(x), 0.041),
    })  # fmt: skip
    params = load_params(REPOSITORY / "params.yaml", survey="sdss")
    from cmass.mass_definition import log10_m200c_from_m500c

    true = log10_m200c_from_m500c(m500, place[:, 2], params.cosmology, "diemer19")
    ids = [f"cl-{i:03d}" for i in range(n)]
    own = {"cluster_id": ids, "ra": place[:, 0], "dec": place[:, 1], "z": place[:, 2]}
    drawn = {k: true + OFFSET[k] + SCATTER[k] * rng.standard_normal(n) for k in OFFSET}
    masses = {c.name: [None] * n for c in TABLES["masses"].columns} | own
    masses |= {"n_galaxies": [100] * n, "flag": [0] * n, "posterior": [[]] * n}
    masses |= {k: v for k, v in drawn.items() if k in masses}
    masses |= {"log10_m200c_hmf_p50": drawn["log10_m200c_p50"] - 0.13,
               "log10_m200c_dispersion": drawn["log10_m200c"]}  # fmt: skip
    clusters = own | {
        "distance_mpc_h": [150.0] * n, "n_galaxies": [100] * n, "flag": [0] * n,
        "log10_m200_galweight": drawn["log10_m200_galweight"],
        "log10_m200_galweight_err": [0.1] * n,
    }  # fmt: skip
    return make_table("masses", masses), make_table("clusters", clusters), xray


def rows_of(table, bin="sdss"):
    return {row["metric"]: row for row in table.to_pylist() if row["bin"] == bin}


def compared(sky, params, rivals=None):
    masses, clusters, xray = sky
    matches = match_table(masses, clusters, xray, params)
    footprint = Footprint.from_table(make_table("raw_footprint", OCTANT))
    rng = np.random.default_rng(9)
    return matches, comparison_rows(
        matches, clusters, xray, footprint, rivals, params, rng
    )  # fmt: skip


def test_planted_offset_and_scatter_come_back(sky, params):
    matches, table = compared(sky, params)
    kept = matches.filter(matches["accepted"])
    partner = [(f"cl-{i:03d}", f"X{i:04d}") for i in range(N)]
    found = set(zip(kept["cluster_id"].to_pylist(), kept["xray_name"].to_pylist(), strict=True))
    assert set(partner) <= found
    rows = rows_of(table)
    assert rows["xray_n_matched"]["value"] == len(found)
    names = {
        "cnn3d": "log10_m200c_p50",
        "point": "log10_m200c",
        "galweight": "log10_m200_galweight",
    }
    for name, column in names.items():
        offset, scatter = rows[f"xray_offset_{name}"], rows[f"xray_scatter_robust_{name}"]
        assert offset["value"] == pytest.approx(OFFSET[column], abs=4 * offset["error"])
        assert scatter["value"] == pytest.approx(SCATTER[column], abs=4 * scatter["error"])
    assert rows["xray_offset_cnn3d_hmf"]["value"] == pytest.approx(
        rows["xray_offset_cnn3d"]["value"] - 0.13, abs=1e-9
    )
    assert rows["xray_not_worse_cnn3d"]["value"] == 1
    # 10 % of flux error and 0.16 dex of concentration: 0.046 and 0.03 dex
    assert 0.025 < rows["xray_conversion_error"]["value"] < 0.04
    assert rows["xray_mass_error"]["value"] == pytest.approx(
        np.hypot(0.046, rows["xray_conversion_error"]["value"]), abs=0.002
    )


def test_chance_matches_and_unmatched_ones_are_counted(sky, params):
    """Those far away or outside are not of the survey; lone ones give the chance matches."""
    matches, table = compared(sky, params)
    rows = rows_of(table)
    by_chance = int(sum(matches["accepted"].to_pylist())) - N
    # 300 of ours, 390 of theirs in an octant (5157 deg2), 1 Mpc/h at z ~ 0.05 (0.43 deg), and
    # +-0.005 of a range of 0.05 in redshift: 300 x 390 x 0.58/5157 x 0.2 = 2.6
    chance = rows["xray_n_by_chance"]
    assert chance["value"] == pytest.approx(2.6, abs=1.5) and by_chance <= 8
    _, _, xray = sky
    z = np.array(xray["z"].to_pylist())
    assert N < rows["xray_n_in_survey"]["value"] <= (z < 0.0855).sum() - 1


def test_refused_and_unsure_pairs_are_counted_and_not_compared(sky, params):
    """Each of six clusters has a second X-ray cluster beside it, 0.8 Mpc/h further away."""
    masses, clusters, xray = sky
    rows = xray.slice(0, 6).to_pandas()
    place = [(r, d, z) for r, d, z in zip(clusters["ra"].to_pylist(), clusters["dec"].to_pylist(),
                                         clusters["z"].to_pylist(), strict=True)][:6]  # fmt: skip
    second = [beside(one, east=0.85, km_s=900) for one in place]
    rows["ra"], rows["dec"], rows["z"] = map(list, zip(*second, strict=True))
    rows["xray_name"] = [f"Y{i}" for i in range(6)]
    more = pa.concat_tables(
        [xray, pa.Table.from_pandas(rows, schema=xray.schema, preserve_index=False)]
    )
    matches, table = compared((masses, clusters, more), params)
    frame, found = matches.to_pandas(), rows_of(table)
    n = {name: found[f"xray_n_{name}"]["value"] for name in (
        "matched", "pairs_refused", "ambiguous", "compared")}  # fmt: skip
    assert n["pairs_refused"] == (~frame.accepted).sum() >= 6
    assert n["matched"] == n["compared"] == frame.accepted.sum() == len(frame) - n["pairs_refused"]
    assert n["ambiguous"] == (frame.accepted & frame.ambiguous).sum() >= 6
    assert n["ambiguous"] < frame.ambiguous.sum()


def test_errors_of_xray_masses_are_those_of_the_flux_and_of_the_conversion(sky, params):
    """Lower and upper ones as published, each with the conversion's in quadrature."""
    frame = match_table(*sky, params).to_pandas()
    doubt = frame.log10_m200c_xray_conversion_err
    for side, published in (("lower", 0.046), ("upper", 0.041)):
        found = frame[f"log10_m200c_xray_err_{side}"]
        np.testing.assert_allclose(found**2 - doubt**2, published**2, rtol=1e-9)


def test_subsets(sky, params):
    matches, table = compared(sky, params)
    kept = matches.filter(matches["accepted"]).to_pandas()
    assert rows_of(table, "sdss_above_14.3")["xray_n_compared"]["value"] == (
        (kept.log10_m200c_xray >= 14.3).sum()
    )
    assert rows_of(table, "sdss_unambiguous")["xray_n_compared"]["value"] == (
        (~kept.ambiguous).sum()
    )


def test_rivals_are_compared_by_cluster(sky, params):
    """In another order, with one missing; one that is called like ours gets another name."""
    masses, _, _ = sky
    ids, point = masses["cluster_id"].to_pylist(), np.array(masses["log10_m200c"])
    rows = [i for i in reversed(range(len(ids))) if ids[i] != "cl-007"]
    mass = np.concatenate([point[rows] + 0.3, point[rows]])
    rivals = make_table("rival_masses", {
        "cluster_id": [ids[i] for i in rows] * 2,
        "estimator": ["flow"] * len(rows) + ["dispersion"] * len(rows),
        "log10_m200c": mass - 9, "log10_m200c_p16": mass, "log10_m200c_p50": mass,
        "log10_m200c_p84": mass,
    })  # fmt: skip
    rows = rows_of(compared(sky, params, rivals)[1])
    assert rows["xray_n_compared_flow"]["value"] == rows["xray_n_compared"]["value"] - 1
    assert rows["xray_offset_flow"]["value"] == pytest.approx(
        rows["xray_offset_point"]["value"] + 0.3, abs=0.01
    )
    assert rows["xray_offset_rival_dispersion"]["value"] == pytest.approx(
        rows["xray_offset_dispersion"]["value"], abs=0.01
    )


def test_files_and_the_remark(sky, params, tmp_path, caplog):
    """Without X-ray clusters: a remark, no rows, and what an earlier run wrote is gone."""
    masses, clusters, xray = sky
    workspace = Workspace(tmp_path, "standard", "sdss")
    write_table(workspace.raw / "xray.parquet", xray, "xray_clusters")
    write_table(workspace.raw / "footprint.parquet", make_table("raw_footprint", OCTANT),
                "raw_footprint")  # fmt: skip
    rng = np.random.default_rng
    table = external.compare(workspace, params, masses, clusters, None, rng(1))
    again = external.compare(workspace, params, masses, clusters, None, rng(1))
    assert table.equals(again)
    written = read_table(workspace.masses / "xray_matches.parquet", "xray_matches")
    assert rows_of(table)["xray_n_matched"]["value"] == sum(written["accepted"].to_pylist())
    (workspace.raw / "xray.parquet").unlink()
    assert external.compare(workspace, params, masses, clusters, None, rng(1)) is None
    assert "no comparison with them" in caplog.text
    assert not (workspace.masses / "xray_matches.parquet").exists()


def test_no_match_at_all(sky, params):
    masses, clusters, xray = sky
    alone = (masses, clusters, xray.slice(xray.num_rows - 2))
    matches, table = compared(alone, params)
    assert matches.num_rows == 0
    assert rows_of(table)["xray_n_compared"]["value"] == 0
