"""The authors' text files become the mock tables as they are."""

from __future__ import annotations

import numpy as np
import pytest

from cmass import cosmology as background
from cmass import mock
from cmass.columns import FLAGS
from cmass.errors import InputError, ParameterError
from cmass.mock.contamination import box_contaminants
from cmass.params import FilesParams, Params
from cmass.tables import read_table
from cmass.workspace import Workspace
from tests.mock.boxes.simulation import BOX, SCALE, simulate, write_hlist

N = 60


def write_authors(folder, seed=1, empty=()):
    """Files with the columns of SPEC section 3: two sight lines on each of 30 haloes."""
    random = np.random.default_rng(seed)
    s = simulate()
    heavy = np.flatnonzero((s.log10_m200c > 13.7) & (s.pid == -1))[: N // 2].repeat(2)
    line = random.standard_normal((N, 3))
    line /= np.linalg.norm(line, axis=1, keepdims=True)
    table = np.column_stack([
        np.arange(1, N + 1), np.round(s.log10_m200c[heavy], 3), random.uniform(50, 250, N),
        np.round(s.halo_position[heavy], 3), line, np.full(N, SCALE),
    ])  # fmt: skip
    counts = random.integers(2, 60, N)
    counts[list(empty)] = 0
    galaxies = np.column_stack([
        np.repeat(np.arange(1, N + 1), counts), random.uniform(-4, 4, (counts.sum(), 2)),
        random.uniform(-2200, 2200, counts.sum()),
    ])[random.permutation(counts.sum())]  # fmt: skip
    folder.mkdir(exist_ok=True)
    files = (folder / "clusters_M200c_SAG_v3.0_4Mpch", folder / "galaxies_XYvZ_SAG_v3.0_4Mpch")
    np.savetxt(files[0], table, fmt=["%d", *["%.6f"] * 9])
    np.savetxt(files[1], galaxies, fmt=["%d", "%.5f", "%.5f", "%.3f"])
    return s, table, galaxies, files


def params_for(clusters, galaxies, haloes=()) -> Params:
    base = Params()
    files = FilesParams(
        clusters=str(clusters), galaxies=(str(galaxies),), haloes=tuple(map(str, haloes)),
        box_size_mpc_h=BOX, rows_in_memory=1000,
    )  # fmt: skip
    update = {"source": "authors", "files": files}
    return base.model_copy(update={"mock": base.mock.model_copy(update=update)})


def run(folder, params):
    workspace = Workspace(folder, "standard", "embedded")
    mock.run(workspace, params)
    clusters = read_table(workspace.mock / "clusters", "mock_clusters").to_pylist()
    galaxies = read_table(workspace.mock / "galaxies", "mock_galaxies")
    return workspace, clusters, galaxies


def test_windows_are_those_of_the_files(tmp_path):
    _, table, points, files = write_authors(tmp_path / "in", empty=(3, 59))
    workspace, clusters, galaxies = run(tmp_path, params_for(*files))
    assert len(clusters) == N
    cosmology = background.from_params(Params().cosmology)
    for row, cluster in zip(table, clusters, strict=True):
        assert cluster["log10_m200c_true"] == row[1]
        assert cluster["distance_mpc_h"] == pytest.approx(row[2], abs=1e-6)
        assert cluster["z"] == pytest.approx(float(cosmology.redshift(row[2])), abs=1e-8)
        mine = points[points[:, 0] == row[0]]
        assert cluster["n_galaxies"] == len(mine)
        assert bool(cluster["flag"] & FLAGS["too_few_galaxies"].value) == (len(mine) < 4)
        assert cluster["n_members"] is None
    # two sight lines of one halo share it, so that a split by halo keeps them together
    assert [c["halo_id"] for c in clusters[::2]] == [c["halo_id"] for c in clusters[1::2]]
    assert [c["sight_line"] for c in clusters[:4]] == [0, 1, 0, 1]
    ids = galaxies["cluster_id"].to_pylist()
    assert ids == sorted(ids)  # windows together
    third = [i for i, name in enumerate(ids) if name == "authors-000003"]
    found = np.column_stack([galaxies[c].to_numpy()[third] for c in ("x_proj", "y_proj", "v_los")])
    expected = points[points[:, 0] == 3][:, 1:]
    # the file has five digits of x and y, three of v
    np.testing.assert_allclose(np.sort(found, 0), np.sort(expected, 0), atol=6e-4)
    remarks = read_table(workspace.mock / "remarks.parquet", "mock_remarks").to_pylist()
    counts = {r["reason"]: (r["n"], r["text"]) for r in remarks}
    assert counts["has no galaxy: flagged"] == (2, "line 4 of the clusters file")
    assert counts["no hlist table given: contamination unknown"][0] == N


def test_contamination_comes_from_the_hlist_table(tmp_path):
    s, table, _, files = write_authors(tmp_path / "in")
    hlist = write_hlist(tmp_path / "hlist_0.95670.list", s)
    _, clusters, _ = run(tmp_path, params_for(*files, [hlist]))
    distinct = np.flatnonzero(s.pid == -1)
    own = [
        int(np.argmin(np.abs(s.halo_position[distinct] - row[3:6]).sum(axis=1))) for row in table
    ]
    params = Params()
    found = box_contaminants(
        s.halo_position[distinct], s.halo_velocity[distinct], s.log10_m200c[distinct],
        np.array(own), table[:, 6:9], table[:, 2], 1 / SCALE - 1, BOX,
        params.mock.environment.radius_mpc_h, 4.0, 2200.0, background.from_params(params.cosmology),
    )  # fmt: skip
    ratio = np.array([c["contaminant_mass_ratio"] or np.nan for c in clusters])
    assert np.isfinite(ratio).sum() >= 2
    # the store holds float32, the clusters file six digits of direction
    np.testing.assert_allclose(found.mass_ratio, ratio, rtol=1e-4)
    distance = np.array([c["contaminant_distance"] or np.nan for c in clusters])
    np.testing.assert_allclose(found.distance, distance, rtol=1e-3)


@pytest.mark.parametrize(
    ("column", "change", "words"),
    [
        (1, lambda m: 10**m, r"must be from 10 to 16.5 .*column log10_m200c, row 0"),
        (2, lambda d: d * 1000, r"comoving Mpc/h, at most window.distance_max_mpc_h"),
        (3, lambda x: x * 1000, r"column x, row 0.*mock.files.box_size_mpc_h"),
        (9, lambda a: 1 / a - 1, r"column scale.*scale factor of the snapshot"),
    ],
)
def test_units_of_clusters(tmp_path, column, change, words):
    _, table, _, files = write_authors(tmp_path / "in")
    table[:, column] = change(table[:, column])
    np.savetxt(files[0], table)
    with pytest.raises(InputError, match=words):
        run(tmp_path, params_for(*files))


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        (0, 0, "line of the clusters file, from 1 to 60"),
        (0, 61, "line of the clusters file, from 1 to 60"),
        (1, 400.0, "column x, row 7, value 400.*window.half_width_mpc_h"),
        (3, 9e3, "column v, row 7.*window.v_max_km_s"),
    ],
)
def test_units_of_galaxies(tmp_path, column, value, words):
    _, _, galaxies, files = write_authors(tmp_path / "in")
    galaxies[7, column] = value
    np.savetxt(files[1], galaxies)
    with pytest.raises(InputError, match=words):
        run(tmp_path, params_for(*files))


def test_missing_columns_and_files(tmp_path):
    _, table, _, files = write_authors(tmp_path / "in")
    np.savetxt(files[0], table[:, :8])
    with pytest.raises(InputError, match=r"a line does not have 10 values"):
        run(tmp_path, params_for(*files))
    with pytest.raises(ParameterError, match=r"mock\.files\.clusters: no file"):
        run(tmp_path, params_for(tmp_path / "nowhere", files[1]))
    base = Params()
    empty = base.mock.model_copy(update={"source": "authors"})
    with pytest.raises(ParameterError, match=r"mock\.files\.clusters: mock.source authors needs"):
        run(tmp_path, base.model_copy(update={"mock": empty}))


def test_later_steps_take_windows_without_members(tmp_path):
    """Split and voxelize by the real steps; members, magnitudes and hosts are unknown."""
    from cmass import split, voxels
    from cmass.params import SplitParams, VoxelParams

    *_, files = write_authors(tmp_path / "in", empty=(3,))
    params = params_for(*files).model_copy(
        update={
            "split": SplitParams(train=20, test=10, evaluation=10), "workers": 1,
            "voxels": VoxelParams(n=12, clusters_per_shard=30),
        }
    )  # fmt: skip
    workspace, clusters, _ = run(tmp_path, params)
    split.run(workspace, params)
    voxels.run(workspace, params)
    sets = read_table(workspace.split / "split.parquet", "split").to_pylist()
    assert len(sets) == 40
    assert "authors-000004" not in {row["cluster_id"] for row in sets}
    halo = {c["cluster_id"]: c["halo_id"] for c in clusters}
    where = {}
    for row in sets:
        where.setdefault(halo[row["cluster_id"]], set()).add(row["set"])
    assert all(len(of_halo) == 1 for of_halo in where.values())
    assert len(list((workspace.voxels / "test").glob("*.parquet"))) == 1


def test_a_run_that_broke_in_the_galaxies_loses_none(tmp_path):
    """A bad line in the second file, when the first is read: what is left must not pass for all."""
    _, _, points, files = write_authors(tmp_path / "in")
    lines = files[1].read_text().splitlines()
    second = tmp_path / "in" / "more"
    files[1].write_text("\n".join(lines[:900]) + "\n")

    params = params_for(*files)
    both = params.mock.files.model_copy(update={"galaxies": (str(files[1]), str(second))})
    params = params.model_copy(update={"mock": params.mock.model_copy(update={"files": both})})
    second.write_text("\n".join(["7 0.5 0.5 99999", *lines[901:]]) + "\n")
    for _ in range(2):
        with pytest.raises(InputError, match="v"):
            run(tmp_path, params)
    second.write_text("\n".join(lines[900:]) + "\n")
    _, _, galaxies = run(tmp_path, params)
    assert galaxies.num_rows == len(points)
