"""Simulation files through the mock step, against distances and projections worked out by hand."""

from __future__ import annotations

import gzip
import shutil

import numpy as np
import pytest

from cmass import cosmology as background
from cmass import mock
from cmass.errors import InputError, ParameterError
from cmass.mock.haloes import draw_distances
from cmass.mock.sightlines import plane_of_sky, sight_lines
from cmass.params import MockParams
from cmass.seeds import generator
from cmass.tables import read_table
from cmass.workspace import Workspace
from tests.mock.boxes.simulation import (
    BOX,
    SCALE,
    box_params,
    galaxy_columns,
    simulate,
    write_csv,
    write_hdf5,
    write_hlist,
)  # fmt: skip

C = 299_792.458
SIMULATION = simulate()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """hlist, CSV and HDF5 of one simulation."""
    folder = tmp_path_factory.mktemp("simulation")
    columns = galaxy_columns(SIMULATION)
    return (
        write_hlist(folder / "hlist_0.95670.list", SIMULATION),
        write_csv(folder / "sag.csv", columns),
        write_hdf5(folder / "MDPL2_SAG_z_0.05.hdf5", columns),
    )


def run(tmp_path, params):
    """The mock step; its clusters and galaxies as lists of rows."""
    workspace = Workspace(tmp_path, "standard", "embedded")
    mock.run(workspace, params)
    return workspace, tables(workspace)


def tables(workspace):
    clusters = read_table(workspace.mock / "clusters", "mock_clusters").to_pylist()
    galaxies = read_table(workspace.mock / "galaxies", "mock_galaxies").to_pydict()
    return clusters, {name: np.array(values) for name, values in galaxies.items()}


@pytest.fixture(scope="module")
def from_csv(files, tmp_path_factory):
    params = box_params(files[:1], files[1:2])
    return params, *run(tmp_path_factory.mktemp("csv"), params)


def by_hand(s, cluster, windows, params):
    """x, y, v, r of the galaxies in one window: every galaxy of the box, nearest image."""
    cosmology = background.from_params(params.cosmology)
    own = int(np.flatnonzero(s.halo_id == cluster["halo_id"])[0])
    turn = generator(params.seed, "sight-lines", cluster["halo_id"])
    line = sight_lines(windows, turn)[cluster["sight_line"]]
    d = draw_distances(cluster["halo_id"], windows, params)[cluster["sight_line"]]
    found = []
    for position, velocity, magnitude in zip(s.position, s.velocity, s.magnitude, strict=True):
        offset = position - s.halo_position[own]
        offset = offset - BOX * np.round(offset / BOX)
        if np.linalg.norm(offset) >= params.mock.environment.radius_mpc_h:
            continue
        sight = d * line + offset
        r = np.linalg.norm(sight)
        z_own, z_hubble = cosmology.redshift(np.array([d, r]))
        speed = (velocity - s.halo_velocity[own]) @ sight / r
        z = (1 + z_hubble) * (1 + speed / C) - 1
        v = C * (z - z_own) / (1 + z_own)
        scale = background.q0_angular_distance_mpc_h(z_own, params.cosmology.q0)
        along = sight @ line
        x, y = (scale * (sight @ e) / along for e in plane_of_sky(line))
        k = params.mock.galaxies
        shift = k.k_constant + (k.k_slope - k.evolution) * (z_hubble - 0.1)
        apparent = magnitude + 5 * np.log10(r * (1 + z_hubble)) + 25 + shift
        if max(abs(x), abs(y)) < 4 and abs(v) < 2200 and apparent < 18.0:
            found.append((apparent, x, y, v))
    return np.array(sorted(found)).reshape(-1, 4)


def test_windows_are_those_worked_out_by_hand(from_csv):
    params, _, (clusters, galaxies) = from_csv
    lines = {}
    for c in clusters:
        lines[c["halo_id"]] = lines.get(c["halo_id"], 0) + 1
    many = [c for c in clusters if lines[c["halo_id"]] > 1]
    single = [c for c in clusters if lines[c["halo_id"]] == 1]
    seen = whole = 0
    for cluster in (*single[:8], *many[:8]):
        expected = by_hand(SIMULATION, cluster, lines[cluster["halo_id"]], params)
        mine = galaxies["cluster_id"] == cluster["cluster_id"]
        found = np.stack([galaxies[n][mine] for n in ("r_mag", "x_proj", "y_proj", "v_los")], 1)
        found = found[np.argsort(found[:, 0])]
        assert len(found) == cluster["n_galaxies"]
        complete = min(dict(cluster["nuisance"]).get("galaxies.completeness", 1.0), 1.0)
        if complete == 1:
            whole += 1
            assert len(found) == len(expected)
        else:  # an incomplete survey misses a few: those it has are compared
            assert len(expected) - len(found) <= 3 + 3 * (1 - complete) * len(expected)
            expected = expected[[np.abs(expected[:, 0] - r).argmin() for r in found[:, 0]]]
        seen += len(found)
        # float32: positions 1e-5 Mpc/h in the store; v and magnitudes follow from them
        np.testing.assert_allclose(found[:, 0], expected[:, 0], atol=2e-4)
        np.testing.assert_allclose(found[:, 1:3], expected[:, 1:3], atol=2e-4)
        np.testing.assert_allclose(found[:, 3], expected[:, 3], atol=0.1)
    assert seen > 100
    assert whole >= 4


def test_hosts_masses_and_truth(from_csv):
    _, _, (clusters, galaxies) = from_csv
    mass = dict(zip(SIMULATION.halo_id.tolist(), SIMULATION.log10_m200c, strict=True))
    for cluster in clusters:
        assert cluster["log10_m200c_true"] == pytest.approx(mass[cluster["halo_id"]], abs=1e-5)
    # What is drawn and acts on a box: its galaxies and its surroundings are the simulation's.
    drawn = {name for c in clusters for name, _ in c["nuisance"]}
    assert drawn <= {
        n for n in MockParams().nuisance if n.startswith(("observer.", "galaxies.comp"))
    }
    members = galaxies["galaxy_class"] == 0
    assert members.sum() > 50
    named = {round(m, 4) for m in mass.values()}
    hosts = galaxies["host_log10_m200c"][np.isfinite(galaxies["host_log10_m200c"].astype(float))]
    assert {round(float(h), 4) for h in hosts} <= named


def test_sight_lines_follow_mass(from_csv):
    """Flat: five windows in each tenth of a dex; what is missing is said."""
    _, workspace, (clusters, _) = from_csv
    masses = np.array([c["log10_m200c_true"] for c in clusters])
    counts, _ = np.histogram(masses, np.linspace(13.7, 14.9, 13))
    assert (counts <= 5).all()
    assert (counts == 5).sum() >= 10
    remarks = read_table(workspace.mock / "remarks.parquet", "mock_remarks").to_pylist()
    assert sum(r["n"] for r in remarks if "too few haloes" in r["reason"]) == 60 - len(clusters)
    light = [c["halo_id"] for c in clusters if c["log10_m200c_true"] < 14.3]
    assert len(set(light)) == len(light)


def test_csv_and_hdf5_give_the_same(from_csv, files, tmp_path):
    _, _, (clusters, galaxies) = from_csv
    _, (others, other) = run(tmp_path, box_params(files[:1], files[2:]))
    assert clusters == others
    np.testing.assert_array_equal(galaxies["x_proj"], other["x_proj"])


def test_two_workers_packed_and_parted_files_give_the_same(from_csv, files, tmp_path):
    _, _, (clusters, galaxies) = from_csv
    packed = tmp_path / "hlist.list.gz"
    with open(files[0], "rb") as plain, gzip.open(packed, "wb") as out:
        shutil.copyfileobj(plain, out)
    lines = files[1].read_text().splitlines(keepends=True)
    (tmp_path / "a.csv").write_text("".join(lines[:2500]))
    (tmp_path / "b.csv").write_text("".join([lines[0], *lines[2500:]]))
    params = box_params([packed], [tmp_path / "a.csv", tmp_path / "b.csv"])
    params = params.model_copy(update={"workers": 2})
    _, (others, other) = run(tmp_path / "out", params)
    assert clusters == others
    np.testing.assert_array_equal(galaxies["v_los"], other["v_los"])


def test_contamination_agrees_with_that_of_the_whole_box(from_csv):
    from cmass.mock.contamination import box_contaminants

    params, _, (clusters, _) = from_csv
    s = SIMULATION
    distinct = s.pid == -1
    rows = {h: i for i, h in enumerate(s.halo_id[distinct].tolist())}
    lines = {}
    for c in clusters:
        lines[c["halo_id"]] = lines.get(c["halo_id"], 0) + 1
    sight = [
        sight_lines(lines[c["halo_id"]], generator(params.seed, "sight-lines", c["halo_id"]))[
            c["sight_line"]
        ]
        for c in clusters
    ]
    found = box_contaminants(
        s.halo_position[distinct], s.halo_velocity[distinct], s.log10_m200c[distinct],
        np.array([rows[c["halo_id"]] for c in clusters]), np.array(sight),
        np.array([c["distance_mpc_h"] for c in clusters]), 1 / SCALE - 1, BOX,
        params.mock.environment.radius_mpc_h, 4.0, 2200.0, background.from_params(params.cosmology),
    )  # fmt: skip
    ratio = np.array([c["contaminant_mass_ratio"] or np.nan for c in clusters])
    distance = np.array([c["contaminant_distance"] or np.nan for c in clusters])
    assert np.isfinite(ratio).sum() > 3
    np.testing.assert_allclose(
        found.mass_ratio, ratio, rtol=1e-4
    )  # masses are float32 in the store
    np.testing.assert_allclose(found.distance, distance, rtol=1e-3)


def test_a_broken_run_goes_on(files, tmp_path, monkeypatch):
    """Reading stops in the middle of the galaxies; the second run reads only what is left."""
    from cmass.mock.boxes import sag, text

    monkeypatch.setattr(text, "BLOCK_BYTES", 1 << 15)
    params = box_params(files[:1], files[1:2])
    whole = run(tmp_path / "whole", params)[1]
    read = []
    original = sag._galaxies

    def counted(block, path, given, tally):
        read.append(block.first_row)
        if len(read) == stop:
            raise KeyboardInterrupt
        return original(block, path, given, tally)

    stop = 12
    monkeypatch.setattr(sag, "_galaxies", counted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", params)
    before, stop = list(read), 0
    read.clear()
    again = run(tmp_path / "broken", params)[1]
    assert read[0] > before[3]  # not from the start
    assert again[0] == whole[0]
    np.testing.assert_array_equal(again[1]["v_los"], whole[1]["v_los"])


def test_the_step_runs_again_when_a_file_changes(tmp_path):
    from cmass import pipeline

    hlist = write_hlist(tmp_path / "h.list", SIMULATION)
    table = write_csv(tmp_path / "g.csv", galaxy_columns(SIMULATION))
    params = box_params([hlist], [table])
    workspace = Workspace(tmp_path / "data", "standard", "embedded")
    assert pipeline.run_step("mock", workspace, params)
    assert not pipeline.run_step("mock", workspace, params)
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    assert "inputs changed" in pipeline.why_stale("mock", workspace, params)
    assert pipeline.run_step("mock", workspace, params)


# ------------------------------------------------------------------------------------- mistakes


def changed(s, **columns):
    return type(s)(**(vars(s) | columns))


def expect(tmp_path, words, *, s=SIMULATION, header=None, columns=None, error=InputError, **files):
    extra = {} if header is None else {"header": header}
    hlist = write_hlist(tmp_path / "h.list", s, **extra)
    table = write_csv(tmp_path / "g.csv", galaxy_columns(s) | (columns or {}))
    with pytest.raises(error, match=words) as caught:
        run(tmp_path / "out", box_params([hlist], [table], **files))
    return str(caught.value)


def test_missing_column_is_named(tmp_path):
    from tests.mock.boxes.simulation import HLIST_HEADER

    header = HLIST_HEADER.replace("M200c(30)", "M500c(30)")
    message = expect(tmp_path, "no column M200c", header=header)
    assert "h.list" in message
    assert "M500c" in message


def test_missing_galaxy_column_says_how_to_name_it(tmp_path):
    s = SIMULATION
    columns = galaxy_columns(s)
    columns["MyMagnitude"] = columns.pop("MagStarSDSSr")
    hlist = write_hlist(tmp_path / "h.list", s)
    table = write_csv(tmp_path / "g.csv", columns)
    with pytest.raises(InputError, match="no column MagStarSDSSr.*mock.files.columns"):
        run(tmp_path / "out", box_params([hlist], [table]))
    params = box_params([hlist], [table], columns=("r=MyMagnitude",))
    assert run(tmp_path / "out", params)[1][0]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Halo position (Mpc/h comoving)", "Halo position (kpc/h comoving)", "must be in Mpc/h"),
        ("overdensities (Msun/h)", "overdensities (Msun)", "must be in Msun/h"),
        ("velocity (km/s physical)", "velocity (m/s physical)", "must be in km/s"),
        ("size = 100.0", "size = 250.0", "box_size_mpc_h is 100.*Set mock.files.box_size_mpc_h"),
        ("Omega_M = 0.307115", "Omega_M = 0.25", "cosmology.omega_m is 0.307"),
        ("Omega_M = 0.307115", "Omega_M = 0.307.115", "cosmology.omega_m is 0.307"),
        ("x(17)", "x(18)", "numbers column x 18, but it is column 17"),
        ("#scale(0) id(1)", "#id mass", "not an hlist table"),
    ],
)
def test_what_the_header_says_is_heeded(tmp_path, old, new, words):
    from tests.mock.boxes.simulation import HLIST_HEADER

    assert old in HLIST_HEADER
    expect(tmp_path, words, header=HLIST_HEADER.replace(old, new))


def test_units_are_told_from_values(tmp_path):
    s = SIMULATION
    kpc = changed(s, position=s.position * 1000)
    message = expect(tmp_path, r"position outside the box of 100 Mpc/h", s=kpc)
    assert "column x" in message
    assert "row 0" in message
    small = changed(s, position=s.position / BOX)
    expect(tmp_path, "galaxies fill .* of a box of 100", s=small)
    slow = changed(s, velocity=s.velocity / 1000)
    expect(tmp_path, "velocities of galaxies have an rms of 0", s=slow)
    fast = changed(s, halo_velocity=s.halo_velocity * 1000)
    expect(tmp_path, "impossible velocity", s=fast)
    logs = changed(s, log10_m200c=np.log10(s.log10_m200c))
    expect(tmp_path, "the most massive distinct halo has M200c = 15", s=logs)


@pytest.mark.parametrize("factor", [SCALE, 0.61])
def test_galaxies_that_do_not_lie_at_their_haloes(tmp_path, factor):
    """Physical instead of comoving lengths, or lengths without h: no value is impossible."""
    s = SIMULATION
    message = expect(
        tmp_path, "central galaxies do not lie at", s=changed(s, position=s.position * factor)
    )
    assert "that of halo" in message
    assert "comoving Mpc/h" in message


def test_apparent_magnitudes_are_told(tmp_path):
    s = SIMULATION
    message = expect(
        tmp_path, "no absolute r magnitude", columns={"MagStarSDSSr": s.magnitude + 36}
    )
    assert "column MagStarSDSSr" in message


def test_other_snapshots_are_told(tmp_path):
    message = expect(tmp_path, "a halo of another snapshot", scale_factor=0.9781)
    assert "value 0.9567" in message


def test_a_broken_value_and_a_short_line_are_found(tmp_path):
    s = SIMULATION
    hlist = write_hlist(tmp_path / "h.list", s)
    table = write_csv(tmp_path / "g.csv", galaxy_columns(s))
    text = table.read_text().splitlines()
    whole = list(text)
    text[4001] = text[4001].replace(text[4001].split(",")[9], "oops", 1)
    table.write_text("\n".join(text))
    with pytest.raises(InputError, match=r"not a number .*row 4000, value 'oops'"):
        run(tmp_path / "out", box_params([hlist], [table]))
    whole[301] = whole[301].rsplit(",", 3)[0]
    table.write_text("\n".join(whole))
    with pytest.raises(InputError, match=r"position is missing.*column x, row 300"):
        run(tmp_path / "out", box_params([hlist], [table]))


def test_hdf5_units(tmp_path):
    s = SIMULATION
    hlist = write_hlist(tmp_path / "h.list", s)
    for unit, words in (("h-1kpc", "unit 'h-1kpc'"), ("Mpc", "unit 'Mpc'")):
        table = write_hdf5(tmp_path / "g.hdf5", galaxy_columns(s), X=unit)
        with pytest.raises(InputError, match=words):
            run(tmp_path / "out", box_params([hlist], [table]))


def test_haloes_and_galaxies_that_do_not_belong_together(tmp_path):
    s = SIMULATION
    expect(tmp_path, "no galaxy has its host", columns={"MainHaloID": s.host + 10**6})
    half = np.where(np.isin(s.host, s.halo_id[: len(s.halo_id) // 6]), -1, s.host)
    expect(tmp_path, "haloes have no galaxy", columns={"MainHaloID": half})


def test_a_halo_twice(tmp_path):
    hlist = write_hlist(tmp_path / "h.list", SIMULATION)
    table = write_csv(tmp_path / "g.csv", galaxy_columns(SIMULATION))
    with pytest.raises(InputError, match="a halo appears twice.*column id"):
        run(tmp_path / "out", box_params([hlist, hlist], [table]))


def test_what_is_set_aside_is_counted(tmp_path):
    """One cluster without galaxies, 40 galaxies of unknown host, 7 without magnitude."""
    s = SIMULATION
    heavy = np.flatnonzero((s.log10_m200c > 14.0) & (s.log10_m200c < 14.2) & (s.pid == -1))
    lonely = s.halo_id[heavy[0]]
    other = s.halo_id[heavy[1]]
    host = np.where(s.host == lonely, other, s.host)
    host[-40:] = 5
    magnitude = s.magnitude.copy()
    magnitude[1000:1007] = 99.0
    hlist = write_hlist(tmp_path / "h.list", s)
    columns = galaxy_columns(s) | {"MainHaloID": host, "MagStarSDSSr": magnitude}
    table = write_csv(tmp_path / "g.csv", columns)
    workspace, (clusters, _) = run(tmp_path / "out", box_params([hlist], [table]))
    assert lonely not in {c["halo_id"] for c in clusters}
    remarks = read_table(workspace.mock / "remarks.parquet", "mock_remarks").to_pylist()
    counts = {r["reason"]: (r["item"], r["n"], r["text"]) for r in remarks}
    assert counts["has no galaxy of its own: not observed"] == ("halo", 1, f"id {lonely}")
    unknown = counts["host halo is not in the files; kept without host"]
    assert unknown == ("galaxy", 40, "MainHaloID 5")
    dark = counts["no absolute r magnitude between -30 and 0"]
    assert dark == ("galaxy", 7, f"{table} row 1000")


def test_paths_that_are_missing_or_not_given(tmp_path):
    hlist = write_hlist(tmp_path / "h.list", SIMULATION)
    with pytest.raises(ParameterError, match=r"mock\.files\.galaxies: .*give their paths"):
        run(tmp_path / "out", box_params([hlist], []))
    with pytest.raises(ParameterError, match=r"mock\.files\.galaxies: no file .*nowhere"):
        run(tmp_path / "out", box_params([hlist], [tmp_path / "nowhere.csv"]))


def test_a_box_smaller_than_the_surroundings(tmp_path):
    hlist = write_hlist(tmp_path / "h.list", SIMULATION)
    table = write_csv(tmp_path / "g.csv", galaxy_columns(SIMULATION))
    with pytest.raises(ParameterError, match="would see itself again"):
        run(tmp_path / "out", box_params([hlist], [table], box_size_mpc_h=60.0))
