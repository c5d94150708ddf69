"""The DuckDB file: the rows of the Parquet files, comments from the dictionary, macros."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord

from cmass.columns import TABLES
from cmass.publish.database import MACROS, STORAGE_VERSION, column_comment, write_database
from cmass.publish.release import RELEASE_TABLES
from cmass.publish.sql import connect
from cmass.tables import read_table, to_numpy
from cmass.workspace import Workspace


@pytest.fixture(scope="module")
def database(released: Workspace):
    with connect(released.releases / "latest" / "cmass.duckdb") as connection:
        yield connection


@pytest.fixture(scope="module")
def masses(released: Workspace):
    return read_table(released.masses / "masses.parquet", "masses")


@pytest.fixture(scope="module")
def edges(released: Workspace) -> np.ndarray:
    grid = read_table(released.posterior / "posterior_grid.parquet", "posterior_grid")
    low, high = to_numpy(grid, "log10_m200c_low", "log10_m200c_high")
    return np.append(low, high[-1])


def test_rows_are_those_of_the_parquet_files(database, released: Workspace) -> None:
    for name in RELEASE_TABLES:
        expected = pq.read_table(released.releases / "latest" / f"{name}.parquet").to_pylist()
        found = database.sql(f'SELECT * FROM "{name}"').to_arrow_table().to_pylist()
        if name == "masses":  # no posterior is NULL in the database, an empty list in Parquet
            expected = [{**row, "posterior": row["posterior"] or None} for row in expected]
        assert found == expected, name


def test_every_table_column_and_macro_has_its_comment(database) -> None:
    tables = dict(database.sql("SELECT table_name, comment FROM duckdb_tables()").fetchall())
    assert tables == {name: TABLES[name].description for name in RELEASE_TABLES}
    rows = database.sql(
        "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal"
    ).fetchall()
    expected = [
        (name, c.name, column_comment(c)) for name in RELEASE_TABLES for c in TABLES[name].columns
    ]
    assert sorted(rows) == sorted(expected)
    assert all(c.unit in comment for name, column, comment in rows for c in [TABLES[name][column]])
    macros = database.sql(
        "SELECT function_name, comment FROM duckdb_functions() WHERE NOT internal"
    ).fetchall()
    assert dict(macros) == {name: macro[2] for name, macro in MACROS.items()}


def test_older_readers_can_open_it(released: Workspace) -> None:
    # The layout's number follows the magic word DUCK; 67 and below is what DuckDB 1.4 writes.
    head = (released.releases / "latest" / "cmass.duckdb").read_bytes()[:20]
    assert head[8:12] == b"DUCK"
    assert STORAGE_VERSION == "v1.4.0"
    assert int.from_bytes(head[12:20], "little") <= 67


@pytest.mark.parametrize("position", [(0.0, 0.0), (359.9, 10.0), (20.0, 39.0), (120.0, 89.9)])
@pytest.mark.parametrize("radius", [0.0, 3.0, 25.0, 180.0])
def test_cone_agrees_with_astropy(database, masses, position, radius) -> None:
    ra, dec, ids = (masses[c].to_numpy(zero_copy_only=False) for c in ("ra", "dec", "cluster_id"))
    separation = SkyCoord(*position, unit="deg").separation(SkyCoord(ra, dec, unit="deg")).deg
    inside = separation <= radius
    rows = database.sql(
        f"SELECT cluster_id, separation_deg FROM cone({position[0]}, {position[1]}, {radius})"
    ).fetchall()
    assert {r[0] for r in rows} == set(ids[inside])
    # haversine loses digits near the antipode: 1e-7 deg there, far below any position error
    np.testing.assert_allclose([r[1] for r in rows], np.sort(separation[inside]), atol=1e-7)


def test_cone_includes_a_pole_and_its_centre(database, masses) -> None:
    ra, dec = masses["ra"][0].as_py(), masses["dec"][0].as_py()
    near = database.execute("SELECT cluster_id, separation_deg FROM cone(?, ?, 1e-9)", [ra, dec])
    assert near.fetchall() == [(masses["cluster_id"][0].as_py(), 0.0)]
    distances = database.sql("SELECT dec, separation_deg FROM cone(77, 90, 180)").fetchall()
    np.testing.assert_allclose([d + s for d, s in distances], 90.0, atol=1e-9)


@pytest.mark.parametrize("q", [0.0, 0.023, 0.16, 0.5, 0.84, 0.977, 1.0])
def test_mass_quantile_is_the_inverse_of_the_cumulative(database, masses, edges, q) -> None:
    rows = dict(
        database.execute(
            "SELECT cluster_id, mass_quantile(cluster_id, ?) FROM masses", [q]
        ).fetchall()
    )
    for row in masses.to_pylist():
        if not row["posterior"]:
            assert rows[row["cluster_id"]] is None
            continue
        p = np.asarray(row["posterior"], float)
        cumulative = np.concatenate([[0], np.cumsum(p)]) / p.sum()
        rising = np.concatenate([[True], np.diff(cumulative) > 0])
        found = rows[row["cluster_id"]]
        # both sum 52 doubles, in another order
        assert np.interp(found, edges, cumulative) == pytest.approx(q, abs=1e-9)
        if 0 < q < 1:  # the ends lie anywhere in tails without probability
            expected = np.interp(q, cumulative[rising], edges[rising])
            assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("threshold", [12.0, 13.0, 13.97, 14.3, 15.6, 17.0])
def test_prob_above_is_one_minus_the_cumulative(database, masses, edges, threshold) -> None:
    rows = dict(
        database.execute(
            "SELECT cluster_id, prob_above(cluster_id, ?) FROM masses", [threshold]
        ).fetchall()
    )
    for row in masses.to_pylist():
        if not row["posterior"]:
            assert rows[row["cluster_id"]] is None
            continue
        p = np.asarray(row["posterior"], float)
        cumulative = np.concatenate([[0], np.cumsum(p)]) / p.sum()
        expected = 1 - np.interp(threshold, edges, cumulative)
        assert rows[row["cluster_id"]] == pytest.approx(expected, abs=1e-9)


def test_macros_answer_for_one_cluster_and_inside_any_query(database, masses) -> None:
    row = masses.to_pylist()[5]
    name = row["cluster_id"]
    one = database.execute("SELECT mass_quantile(?, 0.5)", [name]).fetchone()[0]
    # the fixture's posteriors are Gaussians on bins of 0.05 dex
    assert one == pytest.approx(row["log10_m200c_p50"], abs=0.005)
    joined = database.execute(
        "SELECT mass_quantile(m.cluster_id, 0.5) FROM masses AS m JOIN clusters AS c "
        "USING (cluster_id) WHERE m.cluster_id = ?", [name],
    ).fetchone()[0]  # fmt: skip
    assert joined == one
    named = database.execute(
        "SELECT mass_quantile(q := 0.5, cluster_id := ?), prob_above(cluster_id := ?, log10_m := 10)",
        [name, name],
    ).fetchone()
    assert named == (one, pytest.approx(1.0))
    nobody = "SELECT mass_quantile('nobody', 0.5), prob_above('nobody', 14)"
    assert database.execute(nobody).fetchone() == (None, None)
    assert database.execute("SELECT mass_quantile(?, 1.5)", [name]).fetchone() == (None,)
    many = database.execute("SELECT count(*) FROM masses WHERE prob_above(cluster_id, 14) > 0.5")
    p50 = [p for p in masses["log10_m200c_p50"].to_pylist() if p is not None]
    assert many.fetchone()[0] == pytest.approx(sum(p > 14 for p in p50), abs=1)


def test_a_catalogue_without_posteriors_is_written(tmp_path: Path, make_workspace) -> None:
    workspace = make_workspace(n_clusters=5, with_masses=False)
    files = {
        "masses": workspace.masses / "masses.parquet",
        "posterior_grid": workspace.posterior / "posterior_grid.parquet",
    }
    write_database(tmp_path / "x.duckdb", files)
    with duckdb.connect(str(tmp_path / "x.duckdb"), read_only=True) as connection:
        counts = connection.execute("SELECT count(*), count(posterior) FROM masses").fetchone()
        assert counts == (5, 0)
        quantile = connection.cursor().execute("SELECT mass_quantile(cluster_id, 0.5) FROM masses")
        rows = quantile.fetchall()
        assert rows == [(None,)] * 5
    assert [p.name for p in tmp_path.glob("*duckdb*")] == ["x.duckdb"]
