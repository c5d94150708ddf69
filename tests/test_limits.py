"""Files that announce, unpack to, or point at more than they hold are refused in words."""

from __future__ import annotations

import bz2
import gzip
import json
import logging
import lzma
import shutil
import zipfile

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cmass import formats, limits
from cmass.errors import InputError, WorkspaceError
from cmass.ingest import vizier
from cmass.mock.boxes import rockstar, sag, text
from cmass.mock.boxes.tally import Tally
from cmass.networks import cnn3d
from cmass.pretrained import SHIPPED, WEIGHTS, load_bundle
from cmass.publish import release
from cmass.tables import file_digest
from tests.mock.boxes import simulation

VOTABLE = """<?xml version="1.0"?>{dtd}
<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>
<FIELD name="ra" datatype="double"/>
<DATA>{data}</DATA></TABLE></RESOURCE></VOTABLE>
"""
ROW = "<TABLEDATA><TR><TD>1.5</TD></TR></TABLEDATA>"


@pytest.mark.parametrize("read", [formats.read, lambda p: vizier.astropy_columns(p, "")])
@pytest.mark.parametrize("kind", ["BINARY", "BINARY2", "FITS", "PARQUET"])
def test_a_votable_fetches_nothing(tmp_path, read, kind):
    secret = tmp_path / "secret"
    secret.write_bytes(np.array([7.0], ">f8").tobytes())
    data = f'<{kind}><v:STREAM xmlns:v="x" href="file://{secret}"/></{kind}>'
    file = tmp_path / "t.vot"
    file.write_text(VOTABLE.format(dtd="", data=data))
    with pytest.raises(InputError, match="data lie elsewhere"):
        read(file)
    packed = tmp_path / "packed.vot"  # astropy unpacks it whatever it is called
    packed.write_bytes(gzip.compress(file.read_bytes()))
    with pytest.raises(InputError, match="data lie elsewhere"):
        read(packed)


def test_entities_are_refused(tmp_path):
    file = tmp_path / "t.vot"
    for dtd in (
        '<!DOCTYPE a [<!ENTITY x "y">]>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
    ):
        file.write_text(VOTABLE.format(dtd=dtd, data=ROW.replace("1.5", "&x;")))
        with pytest.raises(InputError, match="entities"):
            formats.read(file)
    file.write_text(VOTABLE.format(dtd="", data=ROW))
    assert formats.read(file)["ra"].to_pylist() == [1.5]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_bombs_are_told_by_their_bytes_not_by_their_names(tmp_path, pack, monkeypatch):
    monkeypatch.setattr(limits.check_unpacked_size, "__defaults__", (1_000_000,))
    for suffix in (".fits", ".vot", ".ecsv", ".csv.gz"):
        file = tmp_path / f"bomb{suffix}"
        file.write_bytes(pack(b"\0" * 2_000_000))
        with pytest.raises(InputError, match="larger than 0.001 GB when it is unpacked"):
            formats.read(file)


def test_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.fits", "w") as archive:
        archive.writestr("../../t.fits", b"x")
    with pytest.raises(InputError, match="packed by ZIP"):
        formats.read(tmp_path / "t.fits")


def test_parquet_that_repeats_a_value(tmp_path):
    """A hundred million rows of one value are some kilobytes on disk."""
    file = tmp_path / "t.parquet"
    with pq.ParquetWriter(file, pa.schema([("ra", pa.float64())])) as writer:
        for _ in range(20):
            writer.write_table(pa.table({"ra": np.zeros(7_000_000)}), row_group_size=7_000_000)
    assert file.stat().st_size < 1_000_000
    with pytest.raises(InputError, match="when it is unpacked"):
        formats.read(file)


def test_parquet_that_repeats_a_value_in_lists(tmp_path, monkeypatch):
    file = tmp_path / "t.parquet"
    pq.write_table(pa.table({"posterior": [[0.0] * 1000] * 10_000}), file)
    assert len(formats.read(file)["posterior"]) == 10_000
    monkeypatch.setattr(limits.read_parquet, "__defaults__", (10_000_000,))
    with pytest.raises(InputError, match="when it is unpacked; 0.01 are allowed"):
        formats.read(file)


def test_parquet_whose_statistics_are_damaged(tmp_path):
    """Arrow ends the process when it is asked for what such a file says of its chunks."""
    from tests.fuzz.readers import READERS
    from tests.fuzz.worker import content

    reader = READERS["table: Parquet"]
    whole, damaged = tmp_path / "whole.parquet", tmp_path / "damaged.parquet"
    reader.whole(whole)
    damaged.write_bytes(content(reader, whole.read_bytes(), 3992))
    with pytest.raises(InputError, match="histogram"):
        formats.read(damaged)


def test_parquet_that_repeats_a_text(tmp_path):
    file = tmp_path / "t.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(20_000, np.int32)), ["x" * 100_000])
    pq.write_table(pa.table({"note": column}), file, store_schema=False)
    assert file.stat().st_size < 1_000_000
    with pytest.raises(InputError, match="spelled out"):
        formats.read(file)


def test_parquet_texts_stay_as_they_are(tmp_path):
    file = tmp_path / "t.parquet"
    table = pa.table({"cluster_id": ["a", None, "a"], "ra": [1.0, 2.0, None]})
    pq.write_table(table, file)
    assert formats.read(file).to_pydict() == table.to_pydict()
    assert formats.read(file).schema.field("cluster_id").type == pa.string()


def test_a_line_without_end_is_refused(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("ra,dec\n1,2\n" + "1" * 40_000_000 + ",2\n")
    with pytest.raises(InputError):
        formats.read(file)


def test_csv_that_is_not_utf8(tmp_path, caplog, capfd, monkeypatch):
    """Read as Latin-1, comments between rows among it, and told once."""
    # commands that were tested before leave a handler that writes
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])
    file = tmp_path / "t.csv"
    file.write_bytes("ra,note\n1,Abell\n# für später\n2,é\n".encode("latin-1"))
    assert formats.read(file).to_pydict() == {"ra": [1, 2], "note": ["Abell", "é"]}
    assert "not UTF-8" in caplog.text
    assert capfd.readouterr().err == ""


# -------------------------------------------------------------------------------------------- HDF5


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / WEIGHTS
    path.write_bytes((SHIPPED / WEIGHTS).read_bytes())
    return path


def test_weights_that_are_whole(weights):
    assert cnn3d.load(weights, 50).n == 50


@pytest.mark.parametrize(
    "how", ["soft", "external", "group", "storage", "virtual", "object", "huge", "chunk"]
)
def test_weights_that_lead_elsewhere(weights, tmp_path, how):
    name, shape = "layers/dense/vars/1", (128,)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = np.zeros(shape, np.float32)
        file["dense/vars/1"] = np.zeros(shape, np.float32)
    with h5py.File(weights, "r+") as file:
        kept = file[name][()]
        del file[name]
        if how == "soft":
            file["elsewhere"] = kept
            file[name] = h5py.SoftLink("/elsewhere")
        elif how == "external":
            file[name] = h5py.ExternalLink(str(other), "x")
        elif how == "group":
            del file["layers/dense"]
            file["layers/dense"] = h5py.ExternalLink(str(other), "dense")
        elif how == "storage":
            file.create_dataset(name, shape, "f4", external=[(str(tmp_path / "raw"), 0, 512)])
        elif how == "virtual":
            layout = h5py.VirtualLayout(shape, "f4")
            layout[:] = h5py.VirtualSource(str(other), "x", shape)
            file.create_virtual_dataset(name, layout)
        elif how == "object":
            file.create_dataset(name, shape, h5py.string_dtype())
        elif how == "huge":  # nothing of it is stored
            file.create_dataset(name, (1 << 40,), "f4", chunks=(1 << 20,), compression="gzip")
        else:
            file.create_dataset(name, shape, "f4", chunks=(1 << 27,), maxshape=(None,))
    with pytest.raises(WorkspaceError, match="layers/dense/vars|chunks"):
        cnn3d.load(weights, 50)


def test_sag_files_lead_nowhere_and_hold_what_they_announce(tmp_path):
    s = simulation.simulate(60, 400)
    params = simulation.box_params((), ()).mock.files
    path = simulation.write_hdf5(tmp_path / "sag.h5", simulation.galaxy_columns(s))

    def rows():
        return sum(len(part) for part, _ in sag.read_galaxies(path, None, params, Tally()))

    assert rows() > 300
    with h5py.File(path, "r+") as file:
        x = file["X"][()]
        del file["X"]
        file["X"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "X")
    with pytest.raises(InputError, match="a link, which is not followed"):
        rows()
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = x
        for name in list(file):
            del file[name]
            file.create_dataset(name, (10**11,), "f8", chunks=(1 << 16,))
    with pytest.raises(InputError, match="announces 100000000000 rows, and 0 bytes are there"):
        rows()
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="not readable as HDF5"):
        rows()


def test_attributes_of_another_kind(tmp_path):
    """A text whose type is damaged reads as a list of any length, at an address that is none."""
    s = simulation.simulate(60, 400)
    params = simulation.box_params((), ()).mock.files
    path = simulation.write_hdf5(tmp_path / "sag.h5", simulation.galaxy_columns(s))
    with h5py.File(path, "r+") as file:
        del file["X"].attrs["unit"]
        lists = np.empty(1, object)
        lists[0] = np.array([1, 2])
        file["X"].attrs.create("unit", lists, dtype=h5py.vlen_dtype(np.int64))
    with pytest.raises(InputError, match="no text and no numbers.*attribute unit"):
        list(sag.read_galaxies(path, None, params, Tally()))


def test_a_file_that_made_hdf5_end_the_process(tmp_path):
    from tests.fuzz.readers import READERS
    from tests.fuzz.worker import content

    reader = READERS["simulation: SAG, HDF5"]
    whole, damaged = tmp_path / "whole.h5", tmp_path / "damaged.h5"
    reader.whole(whole)
    damaged.write_bytes(content(reader, whole.read_bytes(), 4267))
    with pytest.raises(InputError):
        reader.read(damaged)


# ------------------------------------------------------------------------------- simulation's texts


@pytest.mark.parametrize("pack", [None, gzip, bz2])
def test_hlist_without_line_ends(tmp_path, pack):
    params = simulation.box_params((), ())
    suffix = {None: "", gzip: ".gz", bz2: ".bz2"}[pack]
    path = tmp_path / f"hlist{suffix}"
    for start in (b"#", simulation.HLIST_HEADER.encode() + b"1 "):
        data = start + b"7" * (18 << 20)
        path.write_bytes(pack.compress(data) if pack else data)
        with pytest.raises(InputError, match="a line is longer than"):
            list(rockstar.read_haloes(path, None, params.mock.files, 0.307115, Tally()))


@pytest.mark.parametrize("pack", [gzip, bz2])
def test_packed_texts_that_are_cut_short(tmp_path, pack):
    params = simulation.box_params((), ())
    path = tmp_path / f"hlist.{'gz' if pack is gzip else 'bz2'}"
    plain = simulation.write_hlist(tmp_path / "hlist", simulation.simulate(60, 400)).read_bytes()
    whole = pack.compress(plain)
    for data in (
        whole[: len(whole) // 2],
        whole[:40] + b"garbage" * 9 + whole[100:],
        b"no archive",
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match="not readable"):
            list(rockstar.read_haloes(path, None, params.mock.files, 0.307115, Tally()))


def test_header_lines_are_all_read(tmp_path):
    (tmp_path / "f").write_text("# a\n# b\n\n1 2\n")
    assert text.header_lines(tmp_path / "f") == (["# a", "# b"], 9)


# -------------------------------------------------------------------------------- names from outside


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "..",
        "",
        ".",
        "/etc",
        "latest",
        "2026.11.23-0123abcd/..",
        "2026.11.23-0123abcd\n",
        "2026.11.23",
    ],
)
def test_names_of_versions_lead_nowhere_else(tmp_path, name):
    with pytest.raises(WorkspaceError, match="versions look like|`cmass run` makes one"):
        release.version_folder(tmp_path, name)
    (tmp_path / "2026.11.23-0123abcd").mkdir()
    assert (
        release.version_folder(tmp_path, "2026.11.23-0123abcd") == tmp_path / "2026.11.23-0123abcd"
    )


def test_a_model_of_a_forger_is_refused_in_words(tmp_path):
    """Its checksums are right, its values are not."""
    shutil.copytree(SHIPPED, tmp_path / "m")
    description = json.loads((SHIPPED / "model.json").read_text())
    for change in (
        {"settings": []}, {"settings": {**description["settings"], "range": {"z_min": "a"}}},
        {"settings": {**description["settings"], "recalibration": {"bandwidth": "x"}}}, {"checksums": 5},
    ):  # fmt: skip
        (tmp_path / "m" / "model.json").write_text(json.dumps(description | change))
        with pytest.raises(InputError, match="not a description of a model"):
            load_bundle(tmp_path / "m")
    relation = tmp_path / "m" / "dispersion.json"
    for words in ("[]", '{"intercept": "x"}', '{"a": 1}'):
        relation.write_text(words)
        sums = description["checksums"] | {"dispersion.json": file_digest(relation)}
        (tmp_path / "m" / "model.json").write_text(json.dumps(description | {"checksums": sums}))
        with pytest.raises(InputError, match="not a sigma-M relation"):
            load_bundle(tmp_path / "m")
