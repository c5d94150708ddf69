"""Ingest by each route, to the files it writes; the network is a server on this machine."""

import json
import shutil
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cmass import ingest, pipeline
from cmass.contracts import handovers
from cmass.errors import InputError, SourceError
from cmass.ingest.http import Downloader
from cmass.ingest.sources import EmbeddedSource, MirrorSource, NetworkSource, choose_source
from cmass.params import load_params
from cmass.tables import file_digest, read_json, read_table
from cmass.workspace import Workspace
from tests.surveys import (
    REPOSITORY,
    catalogue,
    csv_text,
    dat_text,
    galaxy_rows,
    tsv_text,
    window_text,
    xray_catalogue,
)

NAMES = {
    "clusters": "raw_clusters",
    "galaxies": "raw_galaxies",
    "footprint": "raw_footprint",
    "xray": "xray_clusters",
}


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "data", "standard", "sdss")


def make_mirror(folder, rows=None, xray=True):
    """A mirror with the same content as the local archive."""
    if xray:
        (folder / "reference").mkdir(parents=True)
        (folder / "reference" / "mcxc2_of_somebody.csv").write_text(csv_text(xray_catalogue()))
    (folder / "galwcat19").mkdir(parents=True, exist_ok=True)
    (folder / "sdss").mkdir()
    (folder / "galwcat19" / "galwcls.dat").write_text(dat_text(rows or catalogue()))
    (folder / "sdss" / "window.ply").write_text(window_text())
    galaxies = galaxy_rows()
    table = {name: [row[name] for row in galaxies] for name in ("ra", "dec", "z")}
    pq.write_table(pa.table(table), folder / "sdss" / "galaxies.parquet")
    return folder


def mirror_params(folder):
    return load_params(REPOSITORY / "params.yaml", survey="sdss", mirror=str(folder))


def raw(workspace):
    return {
        name: read_table(workspace.raw / f"{name}.parquet", table) for name, table in NAMES.items()
    }


def source(workspace, params):
    return NetworkSource(
        workspace.downloads,
        params,
        Downloader(workspace.downloads, params.ingest.network, sleep=lambda _: None),
    )


def test_the_route_follows_the_parameters(workspace, tmp_path):
    make_mirror(tmp_path / "mirror")
    embedded = load_params(REPOSITORY / "params.yaml")
    assert isinstance(choose_source(workspace, embedded), EmbeddedSource)
    assert isinstance(choose_source(workspace, mirror_params(tmp_path / "mirror")), MirrorSource)
    network = load_params(REPOSITORY / "params.yaml", survey="sdss")
    assert isinstance(choose_source(workspace, network), NetworkSource)


def test_network(workspace, network_params, archive):
    """Everything arrives, typed, in spite of a fault on every path."""
    archive.fail("/window.ply", "500", "truncate")
    archive.fail("/viz", "html", "cut", "", "truncate", "500", "cut")
    archive.fail("/sql", "drop", "500", "", "cut-at-line", "", "html")
    ingest.run(workspace, network_params)
    tables = raw(workspace)
    assert tables["clusters"].num_rows == 30
    assert tables["clusters"]["ra"].to_pylist() == [r["RAJ2000"] for r in catalogue()]
    expected = sorted(galaxy_rows(), key=lambda g: g["galaxy_id"])
    got = sorted(tables["galaxies"].to_pylist(), key=lambda g: g["galaxy_id"])
    assert [(g["galaxy_id"], g["ra"], g["dec"], g["z"]) for g in got] == [
        (g["galaxy_id"], g["ra"], g["dec"], g["z"]) for g in expected
    ]
    for one, other in zip(got, expected, strict=True):
        assert one["in_legacy"] == (other["ra"] < 60 and other["dec"] > -10)
    assert read_table(workspace.raw / "quarantine.parquet", "quarantine").num_rows == 0
    products = read_json(workspace.raw / "provenance.json")["products"]
    for name in NAMES:
        facts = products[name]
        assert facts["route"] == "network" and facts["url"].startswith(archive.url)
        assert len(facts["source_sha256"]) == 64 and facts["retrieved"][:2] == "20"
        assert facts["sha256"] == file_digest(workspace.raw / f"{name}.parquet")
        assert facts["producer"] and facts["citation"] and facts["licence"]
        assert facts["rows_in_source"] == facts["rows"] == tables[name].num_rows
    contract = handovers.examine("ingest", workspace, network_params)
    assert contract["success"]
    assert [(a["rows_in"], a["rows_out"]) for a in contract["accounts"][:2]] == [
        (30, 30),
        (400, 400),
    ]


def test_network_resumes_after_a_broken_chunk(workspace, network_params, archive):
    """A server that dies for good ends the run; the next run asks only for the rest."""
    archive.fail("/sql", "", "", "", *["500"] * 4)
    with pytest.raises(SourceError, match="run the same command again"):
        source(workspace, network_params).galaxies()
    before = len(archive.asked)
    assert not (workspace.raw / "galaxies.parquet").exists()
    archive.faults.clear()
    table = source(workspace, network_params).galaxies()
    assert table.n_rows == 400
    commands = [parse_qs(urlparse(q).query).get("cmd") for q in archive.asked]
    # Two chunks hold galaxies (ra 0 to 80), eight are counted; three answers were kept.
    assert len(archive.asked) - before == 8 + 2 - 3
    kept = archive.asked[: before - 4]
    assert not set(kept) & set(archive.asked[before:]), commands
    # and a third run asks for nothing
    assert source(workspace, network_params).galaxies().n_rows == 400
    assert len(archive.asked) - before == 8 + 2 - 3


def test_a_damaged_chunk_is_fetched_again(workspace, network_params, archive):
    source(workspace, network_params).galaxies()
    before = len(archive.asked)
    largest = max(workspace.downloads.glob("*.body"), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:1000])
    assert source(workspace, network_params).galaxies().n_rows == 400
    assert len(archive.asked) - before == 1


@pytest.mark.parametrize("known", [True, False])
def test_row_limit(workspace, network_params, archive, known):
    """A chunk beyond the limit is split, whether the limit is in params or only at the server."""
    archive.limit = 60
    if known:
        network = network_params.ingest.network.model_copy(update={"row_limit": 60})
        network_params = network_params.model_copy(
            update={"ingest": network_params.ingest.model_copy(update={"network": network})}
        )
    table = source(workspace, network_params).galaxies()
    assert sorted(table.columns["galaxy_id"].to_pylist()) == [g["galaxy_id"] for g in galaxy_rows()]


def test_a_limit_that_cannot_be_met(workspace, network_params, archive):
    """All galaxies in one place: halving the chunk never ends, so it is an error."""
    for galaxy in archive.galaxies:
        galaxy["ra"] = 10.0
    archive.limit = 60
    with pytest.raises(SourceError, match="60 rows of 400"):
        source(workspace, network_params).galaxies()


def test_a_server_without_the_columns(workspace, network_params, archive):
    """No accident of the transfer: one try, and the column is named."""
    archive.tsv = archive.tsv.replace("M200", "Q200")
    with pytest.raises(InputError, match="lacks columns") as raised:
        source(workspace, network_params).clusters()
    assert raised.value.column == "M200, e_M200"
    assert len(archive.asked) == 1


def test_a_server_without_x_ray_masses(workspace, network_params, archive):
    archive.xray = archive.xray.replace("M500", "Q500")
    with pytest.raises(InputError, match="lacks columns") as raised:
        source(workspace, network_params).xray()
    assert raised.value.column == "M500, e_M500, E_M500"
    archive.xray = ""
    with pytest.raises(SourceError, match="no usable answer in 4 tries.*no table"):
        source(workspace, network_params).xray()


def test_a_mirror_without_x_ray_clusters(tmp_path, workspace, caplog):
    """Older mirrors: a remark, and nothing else changes; what another mirror left is removed."""
    ingest.run(workspace, mirror_params(make_mirror(tmp_path / "with")))
    clusters = (workspace.raw / "clusters.parquet").read_bytes()
    assert (workspace.raw / "xray.parquet").exists() and "no MCXC-II" not in caplog.text
    ingest.run(workspace, mirror_params(make_mirror(tmp_path / "without", xray=False)))
    assert "no MCXC-II (reference/mcxc2*.csv): masses will not be compared" in caplog.text
    assert not (workspace.raw / "xray.parquet").exists()
    assert (workspace.raw / "clusters.parquet").read_bytes() == clusters
    assert "xray" not in read_json(workspace.raw / "provenance.json")["products"]


def test_a_server_with_no_galaxies(workspace, network_params, archive):
    archive.galaxies = [dict(g, z=0.9) for g in archive.galaxies]
    with pytest.raises(SourceError, match="no galaxy at all"):
        source(workspace, network_params).galaxies()


def test_mirror_equals_network(tmp_path, workspace, network_params):
    """Two routes, one table."""
    ingest.run(workspace, network_params)
    other = Workspace(tmp_path / "other", "standard", "sdss")
    ingest.run(other, mirror_params(make_mirror(tmp_path / "mirror")))
    assert raw(workspace)["clusters"].equals(raw(other)["clusters"])
    assert raw(workspace)["footprint"].equals(raw(other)["footprint"])
    assert raw(workspace)["xray"].equals(raw(other)["xray"])
    for column in ("ra", "dec", "z"):
        assert (
            sorted(raw(workspace)["galaxies"][column].to_pylist())
            == sorted(raw(other)["galaxies"][column].to_pylist())
        )  # fmt: skip


def test_mirror_twice_gives_the_same_bytes(tmp_path):
    """Whatever the folder is called, and whenever it was copied."""
    digests = []
    for name in ("one", "two"):
        workspace = Workspace(tmp_path / f"data-{name}", "standard", "sdss")
        ingest.run(workspace, mirror_params(make_mirror(tmp_path / name)))
        digests.append(file_digest(workspace.raw))
    assert digests[0] == digests[1]


def test_bad_rows_are_set_aside_and_counted(tmp_path, workspace, caplog):
    rows = catalogue()
    rows[3]["RAJ2000"], rows[9]["z"] = 361.0, -0.05
    caplog.set_level("INFO")
    ingest.run(workspace, mirror_params(make_mirror(tmp_path / "mirror", rows)))
    bad = read_table(workspace.raw / "quarantine.parquet", "quarantine").to_pylist()
    assert [(b["item"], b["row_number"], b["column_name"]) for b in bad] == [
        ("raw_clusters", 3, "ra"),
        ("raw_clusters", 9, "z"),
    ]
    assert json.loads(bad[0]["record"])["cluster_id"] == "GalWCat19-0004"
    facts = read_json(workspace.raw / "provenance.json")["products"]["clusters"]
    assert (facts["rows_in_source"], facts["rows"], facts["rows_set_aside"]) == (30, 28, 2)
    assert "row 3 set aside: ra must be < 360" in caplog.text
    assert "GalWCat19 as published has 1800" in caplog.text


def test_masses_without_h_stop_the_run(tmp_path, workspace):
    rows = catalogue(h_mass=1 / 0.6777)
    with pytest.raises(InputError, match=r"lack the factor h.*multiply them by h") as raised:
        ingest.run(workspace, mirror_params(make_mirror(tmp_path / "mirror", rows)))
    assert raised.value.file is not None and "galwcls.dat" in str(raised.value.file)
    assert not workspace.raw.exists()


def test_a_mirror_that_lacks_a_file(tmp_path, workspace):
    folder = make_mirror(tmp_path / "mirror")
    with pytest.raises(InputError, match="no such mirror folder"):
        MirrorSource(tmp_path / "absent")
    (folder / "sdss" / "window.ply").rename(folder / "window.ply")
    with pytest.raises(InputError, match="no file with the survey's window"):
        ingest.run(workspace, mirror_params(folder))
    (folder / "window.ply").rename(folder / "sdss" / "window.ply")
    (folder / "galwcat19" / "galwcls.tsv").write_text(tsv_text(catalogue()))
    with pytest.raises(InputError, match=r"several files.*galwcls\.dat, .*galwcls\.tsv"):
        ingest.run(workspace, mirror_params(folder))


def test_the_embedded_survey(tmp_path):
    """The truth comes along, for every cluster and nobody else; two runs give the same bytes."""
    params = load_params(REPOSITORY / "params.yaml", profile="smoke")
    digests = []
    for name in ("one", "two"):
        workspace = Workspace(tmp_path / name, "smoke", "embedded")
        ingest.run(workspace, params)
        digests.append(file_digest(workspace.raw))
    clusters = read_table(workspace.raw / "clusters.parquet", "raw_clusters")
    truth = read_table(workspace.raw / "truth.parquet", "survey_truth")
    assert clusters["cluster_id"].to_pylist() == truth["cluster_id"].to_pylist()
    assert clusters.num_rows > 10
    assert digests[0] == digests[1]


def test_refresh_finds_what_changed_at_the_source(workspace, network_params, archive):
    ingest.run(workspace, network_params)
    kept = {p.name: p.read_bytes() for p in workspace.downloads.iterdir()}
    assert ingest.refresh(workspace, network_params) == []
    assert {p.name: p.read_bytes() for p in workspace.downloads.iterdir()} == kept
    archive.tsv = tsv_text(catalogue(29))
    (changed,) = ingest.refresh(workspace, network_params)
    assert changed.startswith(archive.url + "/viz")
    assert ingest.refresh(workspace, network_params) == []
    ingest.run(workspace, network_params)
    assert raw(workspace)["clusters"].num_rows == 29


def test_refresh_keeps_what_it_has_when_the_source_is_away(workspace, network_params, archive):
    ingest.run(workspace, network_params)
    kept = {p.name: p.read_bytes() for p in workspace.downloads.iterdir()}
    archive.fail("/viz", *["500"] * 8)
    with pytest.raises(SourceError, match="unhappy"):
        ingest.refresh(workspace, network_params)
    assert {p.name: p.read_bytes() for p in workspace.downloads.iterdir()} == kept


def test_refresh_replaces_all_or_nothing(workspace, network_params, archive):
    """One service has changed, and another goes away: nobody may read half of each day."""
    ingest.run(workspace, network_params)
    kept = {p.name: p.read_bytes() for p in workspace.downloads.iterdir()}
    archive.tsv = tsv_text(catalogue(29))
    archive.galaxies = archive.galaxies[:-1]
    for away in ("/viz", "/sql", "/window.ply"):
        archive.fail(away, *["500"] * 8)
        with pytest.raises(SourceError, match="unhappy"):
            ingest.refresh(workspace, network_params)
        assert {p.name: p.read_bytes() for p in workspace.downloads.iterdir()} == kept
        archive.faults.clear()
        shutil.rmtree(workspace.downloads.with_name("downloads.newer"), ignore_errors=True)
    assert len(ingest.refresh(workspace, network_params)) >= 2


def test_what_has_arrived_is_not_asked_for_again_on_the_same_day(
    workspace, network_params, archive
):
    ingest.run(workspace, network_params)
    archive.asked.clear()
    assert ingest.refresh(workspace, network_params) == []
    *before, last = archive.asked
    assert len(before) > 2
    archive.tsv = tsv_text(catalogue(29))
    path = urlparse(last).path
    others = sum(urlparse(one).path == path for one in before)
    archive.fail(path, *[""] * others, *["500"] * 8)
    with pytest.raises(SourceError, match="unhappy"):
        ingest.refresh(workspace, network_params)
    archive.faults.clear()
    archive.asked.clear()
    assert len(ingest.refresh(workspace, network_params)) == 1
    assert archive.asked == [last]
    assert not workspace.downloads.with_name("downloads.newer").exists()


def test_a_refresh_that_was_killed_while_replacing_is_made_good(
    workspace, network_params, archive, monkeypatch
):
    ingest.run(workspace, network_params)
    archive.tsv = tsv_text(catalogue(29))
    archive.galaxies = archive.galaxies[:-1]
    replaced = []

    def replace(source, target):
        if "downloads.newer" in str(source) and Path(target).parent == workspace.downloads:
            if replaced:
                raise KeyboardInterrupt
            replaced.append(target)
        Path(source).rename(target)

    monkeypatch.setattr("cmass.ingest.http.os.replace", replace)
    with pytest.raises(KeyboardInterrupt):
        ingest.refresh(workspace, network_params)
    monkeypatch.undo()
    assert len(replaced) == 1
    archive.asked.clear()
    ingest.run(workspace, network_params)
    assert archive.asked == []  # everything is here, of one day
    assert raw(workspace)["clusters"].num_rows == 29


def test_refresh_does_not_believe_half_a_body(workspace, network_params, archive):
    """A body that arrives broken is noticed by the next reader, which fetches it again."""
    ingest.run(workspace, network_params)
    archive.fail("/viz", "cut-at-line")
    assert len(ingest.refresh(workspace, network_params)) == 1
    ingest.run(workspace, network_params)
    assert raw(workspace)["clusters"].num_rows == 30


def test_only_the_network_has_anything_to_ask(workspace, tmp_path):
    make_mirror(tmp_path / "mirror")
    assert ingest.refresh(workspace, mirror_params(tmp_path / "mirror")) == []
    assert ingest.refresh(workspace, load_params(REPOSITORY / "params.yaml")) == []


def test_the_step_runs_again_when_a_download_changed(workspace, network_params, archive):
    names = ("ingest",)
    assert pipeline.run_step("ingest", workspace, network_params)
    assert pipeline.first_stale(names, workspace, network_params) is None
    archive.tsv = tsv_text(catalogue(29))
    ingest.refresh(workspace, network_params)
    name, reason = pipeline.first_stale(names, workspace, network_params)
    assert name == "ingest" and reason.startswith("inputs changed: downloads/")
    assert pipeline.run_step("ingest", workspace, network_params)
    # what is no longer kept has not changed
    shutil.rmtree(workspace.downloads)
    assert pipeline.first_stale(names, workspace, network_params) is None
