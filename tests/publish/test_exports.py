"""FITS, VOTable, CDS tables and the footprint of a release: what other programs read in them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from astropy import units
from astropy.io import fits, votable
from astropy.table import Table

from cmass.columns import COLUMNS, FLAGS, TABLES, VO_UNITS
from cmass.errors import WorkspaceError
from cmass.publish import exports
from cmass.publish.database import MACROS
from cmass.publish.exports import cds, footprint
from cmass.publish.exports.votable import with_votable
from cmass.publish.release import RELEASE_TABLES, SUMS, check_sums, files_of, verify
from cmass.tables import file_digest, make_table, read_json, read_table, write_table
from cmass.workspace import Workspace
from tests.products import octant


@pytest.fixture(scope="module")
def latest(released: Workspace) -> Path:
    return (released.releases / "latest").resolve()


@pytest.fixture(scope="module")
def masses(latest: Path) -> pa.Table:
    return read_table(latest / "masses.parquet", "masses")


def _vo_unit(name: str) -> str:
    return VO_UNITS.get(COLUMNS[name].unit, COLUMNS[name].unit)


def _same_unit(found: object, name: str) -> bool:
    """Whether a unit from a file is that of a column, however it is written."""
    written, ours = (re.sub(r"[ ']", "", t) for t in (str(found or ""), _vo_unit(name)))
    return written == ours.replace("km/s", "kms-1") or written == ours


def _floats(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy()


# ------------------------------------------------------------------------------------- Parquet


@pytest.mark.parametrize("name", [*RELEASE_TABLES, "changes"])
def test_astropy_reads_parquet_with_units_and_ucds(latest: Path, name: str) -> None:
    file = latest / f"{name}.parquet"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a reader without doubts
        table = Table.read(file, format="parquet.votable")
    plain = pq.read_table(file)
    assert table.colnames == TABLES[name].names
    assert len(table) == plain.num_rows
    for column in TABLES[name].columns:
        found = table[column.name]
        assert _same_unit(found.unit, column.name), column.name
        assert found.description == column.description
        assert found.meta["ucd"] == column.ucd
        if column.type == "float64":
            np.testing.assert_array_equal(
                np.ma.filled(found, np.nan), _floats(plain, column.name), column.name
            )
        elif column.type == "string":
            assert found.tolist() == plain[column.name].to_pylist()


def test_units_of_the_vo_are_not_read_as_hours() -> None:
    hour = units.Unit("Mpc/h", format="vounit")
    assert hour.is_equivalent("m/s")  # the trap that VO_UNITS is for
    length = units.Unit(VO_UNITS["Mpc/h"], format="vounit")
    assert not length.is_equivalent("m/s")
    assert str(length) == "Mpc / littleh"
    used = {c.unit for name in RELEASE_TABLES for c in TABLES[name].columns} - {"", "dex"}
    for unit in used:
        text = VO_UNITS.get(unit, unit).removeprefix("log(").removesuffix(")")
        units.Unit(text, format="vounit", parse_strict="raise")


def test_the_bytes_of_parquet_are_those_of_the_content(tmp_path: Path, masses: pa.Table) -> None:
    for name in ("one", "two"):
        write_table(tmp_path / name, with_votable("masses", masses), "masses")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    schema = pq.read_schema(tmp_path / "one")
    assert b"astropy" not in schema.metadata[b"IVOA.VOTable-Parquet.content"]
    empty = with_votable("masses", masses.slice(0, 0))
    write_table(tmp_path / "empty", empty, "masses")
    assert len(Table.read(tmp_path / "empty", format="parquet.votable")) == 0


# ------------------------------------------------------------------------------------- FITS


def _native(values: np.ndarray) -> np.ndarray:
    return np.asarray(values).astype(values.dtype.newbyteorder("="))


def test_fits_holds_the_tables_with_units_and_the_posterior_with_its_grid(
    latest: Path, masses: pa.Table
) -> None:
    for name in ("masses", "clusters", "galaxies"):
        table = read_table(latest / f"{name}.parquet", name)
        with fits.open(latest / f"{name}.fits", checksum=True) as hdus:
            hdus.verify("exception")
            hdu = hdus[name.upper()]
            assert hdu.header["TTYPE1"] == "cluster_id"
            assert hdu.columns.names == TABLES[name].names
            for number, column in enumerate(TABLES[name].columns, 1):
                assert hdu.header.get(f"TUCD{number}", "") == column.ucd
                assert hdu.header[f"TCOMM{number}"] == column.description
                assert _same_unit(hdu.header.get(f"TUNIT{number}"), column.name)
                if column.type == "float64":
                    np.testing.assert_array_equal(
                        _native(hdu.data[column.name]), _floats(table, column.name)
                    )
            assert hdu.data["cluster_id"].tolist() == table["cluster_id"].to_pylist()
    with fits.open(latest / "masses.fits") as hdus:
        posterior = _native(hdus["MASSES"].data["posterior"])
        grid = hdus["POSTERIOR_GRID"].data
        assert posterior.shape == (masses.num_rows, len(grid))
        assert hdus[0].header["RELEASE"] == latest.name
        low = read_table(latest / "posterior_grid.parquet", "posterior_grid")["log10_m200c_low"]
        np.testing.assert_array_equal(_native(grid["log10_m200c_low"]), low.to_numpy())
    for row, expected in zip(posterior, masses["posterior"].to_pylist(), strict=True):
        if expected:
            np.testing.assert_array_equal(row, np.float32(expected))
        else:
            assert np.isnan(row).all()
    back = Table.read(latest / "masses.fits", hdu="MASSES")
    assert back["log10_m200c"].mask.sum() == masses["log10_m200c"].null_count == 2


# ------------------------------------------------------------------------------------- VOTable


def test_votable_is_valid_and_says_system_units_and_sources(latest: Path, masses: pa.Table) -> None:
    for name in ("masses", "clusters"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            document = votable.parse(str(latest / f"{name}.vot"), verify="warn")
        # Neither VOUnits nor astropy's reader of them knows dex and logarithms: nothing else is odd.
        odd = [str(w.message) for w in caught]
        assert all("W50: Invalid unit string 'dex'" in x or "W50: Invalid unit string 'log(" in x
                   for x in odd), odd  # fmt: skip
        table = document.get_table_by_id(name)
        (system,) = document.resources[0].coordinate_systems
        assert (system.ID, system.system, system.epoch) == ("icrs", "ICRS", "J2000")
        for field in table.fields:
            assert field.ucd == COLUMNS[field.name].ucd
            assert " ".join(field.description.split()) == COLUMNS[field.name].description
            assert (field.ref == "icrs") == (field.name in ("ra", "dec"))
            assert _same_unit(field.unit, field.name)
        infos = {info.name for info in document.resources[0].infos}
        assert {
            "resource_version",
            "publication_date",
            "rights",
            "cites",
            "is_derived_from",
        } <= infos
        array = table.array
        assert array["cluster_id"].tolist() == read_table(
            latest / f"{name}.parquet", name
        )["cluster_id"].to_pylist()  # fmt: skip
    document = votable.parse(str(latest / "masses.vot"))
    assert len(document.get_table_by_id("posterior_grid").array) == 52
    found = document.get_table_by_id("masses").array["log10_m200c"]
    np.testing.assert_array_equal(np.ma.filled(found, np.nan), _floats(masses, "log10_m200c"))


# ------------------------------------------------------------------------------------- CDS


def test_cds_tables_are_described_byte_by_byte(latest: Path, masses: pa.Table) -> None:
    readme = (latest / "cds" / "ReadMe").read_text(encoding="utf-8")
    assert "masses.parquet, masses.fits and" in readme  # where the posteriors are
    assert "posterior  " not in readme
    tables = [
        Table.read(
            latest / "cds" / "masses.dat", format="ascii.cds", readme=str(latest / "cds" / "ReadMe")
        ),
        Table.read(latest / "masses.mrt", format="ascii.mrt"),
    ]
    for table in tables:
        assert table.colnames == [n for n in TABLES["masses"].names if n != "posterior"]
        assert table["cluster_id"].tolist() == masses["cluster_id"].to_pylist()
        assert table["log10_m200c"].mask.tolist() == pc.is_null(masses["log10_m200c"]).to_pylist()
        for column in table.colnames:
            if COLUMNS[column].type == "float64":
                allowed = cds.TOLERANCE[COLUMNS[column].unit]
                assert allowed <= 1e-5 or COLUMNS[column].unit == "km/s"
                np.testing.assert_allclose(
                    np.ma.filled(table[column], np.nan),
                    _floats(masses, column),
                    rtol=0,
                    atol=allowed,
                )
    # Byte by byte by hand: the columns of the file are where its ReadMe says.
    rows = (latest / "cds" / "masses.dat").read_text().splitlines()
    line = next(x for x in readme.splitlines() if x.split()[-5:-4] == ["dec"] or " dec " in x)
    first, last = (int(x) for x in line[:8].split("-"))
    written = [float(row[first - 1 : last]) for row in rows]
    np.testing.assert_allclose(written, _floats(masses, "dec"), atol=5e-7)
    assert len({len(row) for row in rows}) == 1


# ------------------------------------------------------------------------------------- other programs

STILTS = shutil.which("stilts")


@pytest.mark.skipif(
    STILTS is None, reason="STILTS is not installed (Debian: apt-get install stilts)"
)
def test_stilts_finds_no_fault_and_reads_the_same(latest: Path, masses: pa.Table, tmp_path) -> None:
    def stilts(*arguments: str) -> str:
        done = subprocess.run(
            [str(STILTS), *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    for name in ("masses", "clusters"):
        assert "ERROR" not in (said := stilts("votlint", str(latest / f"{name}.vot"))), said
        assert "WARNING" not in said, said
    files = (("votable", "masses.vot"), ("fits", "masses.fits"), ("mrt", "masses.mrt"))
    for kind, file in files:
        source = f"{latest / file}#0" if kind == "votable" else str(latest / file)
        stilts("tpipe", f"ifmt={kind}", f"in={source}", "cmd=keepcols 'cluster_id log10_m200c flag'",
               "ofmt=csv", f"out={kind}.csv")  # fmt: skip
        back = Table.read(tmp_path / f"{kind}.csv", format="ascii.csv")
        assert back["cluster_id"].tolist() == masses["cluster_id"].to_pylist()
        assert back["flag"].tolist() == masses["flag"].to_pylist()
        np.testing.assert_allclose(
            np.ma.filled(back["log10_m200c"].astype(float), np.nan), _floats(masses, "log10_m200c"),
            atol=cds.TOLERANCE["log10(Msun/h)"] if kind == "mrt" else 1e-12,
        )  # fmt: skip


@pytest.mark.skipif(
    shutil.which("fitsverify") is None,
    reason="fitsverify is not installed (Debian: apt-get install fitsverify)",
)
def test_fitsverify_has_nothing_to_say(latest: Path) -> None:
    files = [str(latest / f"{n}.fits") for n in ("masses", "clusters", "galaxies", "footprint_moc")]
    done = subprocess.run(["fitsverify", "-q", *files], capture_output=True, text=True, check=False)
    assert done.stdout.count("verification OK") == len(files), done.stdout


# ------------------------------------------------------------------------------------- footprint


def test_the_footprint_is_a_moc_of_its_area_with_the_clusters_inside(
    latest: Path, tmp_path: Path
) -> None:
    from mocpy import MOC

    said = read_json(latest / "provenance.json")["release"]["footprint"]
    moc = MOC.from_fits(str(latest / said["file"]))
    assert moc.max_order == footprint.ORDER == said["order"]
    octant_deg2 = 4 * np.pi * np.degrees(1) ** 2 / 8
    # The rim of an octant is three quarters of great circles: 270 deg in cells of 0.23 deg.
    assert said["tolerance_deg2"] < 0.003 * octant_deg2
    assert moc.sky_fraction * 8 * octant_deg2 == pytest.approx(
        octant_deg2, abs=said["tolerance_deg2"]
    )
    clusters = read_table(latest / "clusters.parquet", "clusters")
    ra, dec = clusters["ra"].to_numpy(), clusters["dec"].to_numpy()
    inside = (ra < 90) & (dec > 0)
    assert 5 < inside.sum() < 35
    cell = 0.23
    safe = (np.minimum(ra, 90 - ra) > cell) & (dec > cell)
    found = moc.contains_lonlat(ra * units.deg, dec * units.deg)
    assert found[safe & inside].all()
    assert not found[~inside & ~((ra > 359.7) | (abs(dec) < cell))].any()
    assert said["clusters_inside"] == found.sum()


def _clusters() -> pa.Table:
    n = 3
    return make_table("clusters", {
        "cluster_id": ["a", "b", "c"], "ra": [10.0, 45.0, 80.0], "dec": [10.0, 45.0, 80.0],
        "z": [0.05] * n, "distance_mpc_h": [150.0] * n, "n_galaxies": [50] * n,
        "log10_m200_galweight": [14.0] * n, "log10_m200_galweight_err": [0.1] * n, "flag": [0] * n,
    })  # fmt: skip


def test_a_map_that_is_not_the_footprint_is_refused(tmp_path: Path, monkeypatch) -> None:
    facts = {"sources": {"products": {"footprint": {"area_deg2_measured": 5156.6}}}}
    said = footprint.write(tmp_path, octant(), _clusters(), facts)
    assert said["clusters_inside"] == 3
    said["footprint_deg2"] = 5156.6
    footprint.verify(tmp_path, _clusters(), {"release": {"footprint": said}})
    with pytest.raises(WorkspaceError, match="deg2, and the footprint has 5000.0"):
        footprint.verify(
            tmp_path, _clusters(), {"release": {"footprint": {**said, "footprint_deg2": 5000.0}}}
        )
    with pytest.raises(WorkspaceError, match="3 clusters inside, and provenance.json says 2"):
        footprint.verify(
            tmp_path, _clusters(), {"release": {"footprint": {**said, "clusters_inside": 2}}}
        )
    facts["sources"]["products"]["footprint"]["area_deg2_measured"] = 5200.0
    with pytest.raises(WorkspaceError, match="the footprint has 5200.0"):
        footprint.write(tmp_path, octant(), _clusters(), facts)
    facts["sources"]["products"]["footprint"]["area_deg2_measured"] = 5156.6
    # cells of elsewhere: the cluster's own is not among them
    centres = footprint.centres
    monkeypatch.setattr(footprint, "centres", lambda c: ((centres(c)[0] + 90) % 360, centres(c)[1]))
    with pytest.raises(WorkspaceError, match="cluster a is in the footprint, and not in its map"):
        footprint.write(tmp_path, octant(), _clusters(), facts)


# ------------------------------------------------------------------------------------- documents


def test_the_dictionary_has_everything_for_people_and_machines(latest: Path) -> None:
    text = (latest / "data_dictionary.md").read_text(encoding="utf-8")
    value = json.loads((latest / "data_dictionary.json").read_text(encoding="utf-8"))
    assert list(value["tables"]) == sorted(RELEASE_TABLES)
    for name in RELEASE_TABLES:
        columns = {c["name"]: c for c in value["tables"][name]["columns"]}
        assert list(columns) == TABLES[name].names
        for column in TABLES[name].columns:
            assert columns[column.name]["unit"] == column.unit
            assert columns[column.name]["ucd"] == column.ucd
            assert columns[column.name]["description"] == column.description
            assert f"| `{column.name}` | {column.type} | {column.unit} |" in text
    assert [f["value"] for f in value["flags"]] == [f.value for f in FLAGS.values()]
    for flag in FLAGS.values():
        assert f"| {flag.value} | `{flag.name}` | {flag.words} |" in text
    assert {m["name"] for m in value["macros"]} == set(MACROS)
    assert all(f"`{name}(" in text for name in MACROS)


def test_the_citation_is_valid_and_names_release_method_and_sources(latest: Path) -> None:
    value = yaml.safe_load((latest / "CITATION.cff").read_text(encoding="utf-8"))
    assert value["version"] == latest.name
    assert value["type"] == "dataset"
    assert value["date-released"] == latest.name[:10].replace(".", "-")
    notes = [r.get("notes") for r in value["references"]]
    assert "Kodi Ramanah+2020" in notes
    checker = pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    assert checker.main is not None
    done = subprocess.run(
        [Path(sys.executable).parent / "check-jsonschema", "--builtin-schema", "vendor.citation-file-format",
         str(latest / "CITATION.cff")], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_licence_names_the_terms_of_every_source(latest: Path) -> None:
    text = (latest / "LICENSE.md").read_text(encoding="utf-8")
    assert "**BSD-3-Clause**" in text
    assert "| clusters | cmass | CC0 |" in text
    assert "not told: ask its producer" in text  # the fixture's galaxies come without terms


# ------------------------------------------------------------------------------------- verification


def _copy(latest: Path, folder: Path) -> Path:
    copy = folder / latest.name
    shutil.copytree(latest, copy)
    return copy


def _sign(folder: Path) -> None:
    files = [p for p in files_of(folder) if p.name != SUMS]
    lines = [f"{file_digest(p)}  {p.relative_to(folder)}\n" for p in files]
    (folder / SUMS).write_text("".join(lines))


def _other_fits(folder: Path) -> None:
    with fits.open(folder / "masses.fits", mode="update") as hdus:
        hdus["MASSES"].data["log10_m200c"][5] += 1e-6


def _shorter_fits(folder: Path) -> None:
    with fits.open(folder / "clusters.fits", mode="update") as hdus:
        hdus["CLUSTERS"].data = hdus["CLUSTERS"].data[:-1]


def _cut_fits(folder: Path) -> None:
    path = folder / "galaxies.fits"
    path.write_bytes(path.read_bytes()[:6000])


def _other_votable(folder: Path) -> None:
    document = votable.parse(str(folder / "clusters.vot"))
    document.get_first_table().array["flag"][0] = 3
    document.to_xml(str(folder / "clusters.vot"))


def _other_posterior(folder: Path) -> None:
    document = votable.parse(str(folder / "masses.vot"))
    document.get_table_by_id("masses").array["posterior"][5, 3] += 1e-4
    document.to_xml(str(folder / "masses.vot"))


def _other_cds(folder: Path) -> None:
    path = folder / "cds" / "clusters.dat"
    path.write_text(path.read_text().replace("Test-0003", "Test-9003"))


def _no_mrt(folder: Path) -> None:
    (folder / "masses.mrt").unlink()


def _other_database(folder: Path) -> None:
    import duckdb

    with duckdb.connect(str(folder / "cmass.duckdb")) as connection:
        connection.execute("UPDATE galaxies SET v_los = v_los + 1 WHERE galaxy_id = 7")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_other_fits, r"masses\.fits: column log10_m200c does not read as in table masses"),
        (_shorter_fits, r"clusters\.fits: 39 rows, and table clusters has 40"),
        (_cut_fits, r"galaxies\.fits"),
        (_other_votable, r"clusters\.vot: column flag"),
        (_other_posterior, r"masses\.vot: column posterior"),
        (_other_cds, r"clusters\.dat: column cluster_id"),
        (_no_mrt, r"masses\.mrt does not read back"),
        (_other_database, r"cmass\.duckdb: column v_los of table galaxies"),
    ],
)
def test_verification_reads_every_format_back(latest, tmp_path, spoil, words) -> None:
    folder = _copy(latest, tmp_path)
    spoil(folder)
    _sign(folder)
    with pytest.raises(WorkspaceError, match=words):
        verify(folder)


def test_releases_of_before_the_formats_are_whole(latest: Path, tmp_path: Path) -> None:
    folder = _copy(latest, tmp_path)
    facts = read_json(folder / "provenance.json")
    for name in ("layout", "footprint"):
        del facts["release"][name]
    (folder / "provenance.json").write_text(json.dumps(facts))
    for inner in ("cds", "site"):
        shutil.rmtree(folder / inner)
    kept = {f"{n}.parquet" for n in RELEASE_TABLES} | {"cmass.duckdb", "provenance.json"}
    for file in folder.iterdir():
        if file.name not in kept:
            file.unlink()
    _sign(folder)
    check_sums(folder)
    verify(folder)


def test_what_is_too_large_for_a_format_is_left_out(masses, latest, monkeypatch, tmp_path) -> None:
    from cmass.publish.readme import readme

    tables = {name: read_table(latest / f"{name}.parquet", name) for name in RELEASE_TABLES}
    facts = read_json(latest / "provenance.json")
    monkeypatch.setitem(exports.ROWS_MAX, "cds", 10)
    monkeypatch.setitem(exports.ROWS_MAX, "fits", 100)
    exports.write(tmp_path, tables, facts)
    assert {p.name for p in tmp_path.iterdir()} == {
        "masses.fits", "clusters.fits", "masses.vot", "clusters.vot"
    }  # fmt: skip
    text = readme(tables, facts)
    assert "Too large for FITS, and in Parquet and DuckDB alone: galaxies." in text
    assert "`cds/" not in text
