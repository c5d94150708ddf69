"""What a file from elsewhere may ask of this machine, checked before a reader believes it.

A small file can announce, or unpack to, far more than the memory holds, and can name other files or
servers. What is here looks at the file alone and raises `InputError`.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa

from cmass.errors import InputError

if TYPE_CHECKING:
    import h5py
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

#: Most that a file may hold when it is unpacked, bytes: a million galaxies are some 50 MB of text.
UNPACKED_MAX_BYTES = 1_000_000_000
#: Most bytes of a chunk of HDF5, which is unpacked as a whole, and of an array that is read at once.
CHUNK_MAX_BYTES = 1 << 28
_BLOCK = 1 << 20
#: First bytes of what astropy unpacks whatever the suffix says.
_PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_REFUSED = {b"PK\x03\x04": "ZIP", b"\x1f\x9d": "compress (.Z)", b"\x1f\xa0": "compress (.Z)"}


def open_unpacked(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked by what its first bytes say."""
    with open(path, "rb") as stream:
        head = stream.read(6)
    opener = next((one for magic, one in _PACKED.items() if head.startswith(magic)), None)
    return opener(path) if opener else open(path, "rb")  # type: ignore[no-any-return]


def check_unpacked_size(path: Path, largest: int = UNPACKED_MAX_BYTES) -> None:
    """Raise `InputError` where a small file would fill the memory when it is unpacked.

    Files that are not packed may be as large as they are. ZIP and compress are refused.
    """
    with open(path, "rb") as stream:
        head = stream.read(6)
    kind = next((words for magic, words in _REFUSED.items() if head.startswith(magic)), None)
    if kind is not None:
        raise InputError(
            f"the file is packed by {kind}, which is not read", file=path,
            remedy="Unpack it, or pack it by gzip",
        )  # fmt: skip
    if not any(head.startswith(magic) for magic in _PACKED):
        return
    size = 0
    with open_unpacked(path) as stream:
        try:
            while block := stream.read(_BLOCK):
                size += len(block)
                if size > largest:
                    break
        except (EOFError, OSError, zlib.error, lzma.LZMAError):
            return  # a reader's to say
    if size > largest:
        raise InputError(
            f"the file is larger than {largest / 1e9:g} GB when it is unpacked", file=path,
            remedy="If you trust it, unpack it yourself (gunzip)",
        )  # fmt: skip


# ----------------------------------------------------------------------------------------- VOTable


def check_votable(path: Path) -> None:
    """Raise `InputError` where a VOTable names other files, servers, or entities of its own.

    astropy fetches what a STREAM's ``href`` names, local files among it.
    """
    from xml.parsers import expat

    parser = expat.ParserCreate()

    def element(name: str, attributes: dict[str, str]) -> None:
        if name.rpartition(":")[2].upper() != "STREAM":
            return
        for key, value in attributes.items():
            if key.rpartition(":")[2].lower() == "href":
                raise InputError(
                    "the VOTable's data lie elsewhere, and are not fetched", file=path,
                    value=value[:80], remedy="Put the data into the file (TABLEDATA)",
                )  # fmt: skip

    def entity(name: str, *_: object) -> None:
        raise InputError(
            "the file defines XML entities, which no VOTable needs", file=path, value=name[:80],
            remedy="Write it anew with TOPCAT or astropy",
        )  # fmt: skip

    parser.StartElementHandler = element
    parser.EntityDeclHandler = entity
    try:
        with open_unpacked(path) as stream:
            parser.ParseFile(stream)
    except (expat.ExpatError, LookupError, ValueError, EOFError, OSError, zlib.error) as error:
        raise InputError(
            f"not readable as votable: {error}", file=path,
            remedy="Is it complete, and does its suffix say what it is?",
        ) from error  # fmt: skip


# ----------------------------------------------------------------------------------------- Parquet

#: Rows with lists that are read at once.
_ROWS = 1024


def check_parquet(parquet: pq.ParquetFile, path: Path, largest: int = UNPACKED_MAX_BYTES) -> None:
    """Raise `InputError` where a Parquet file says that it holds more than the memory should.

    Values are counted as they will be in memory: a page that repeats one number a billion times is
    some bytes on disk. What is said of single chunks is not asked for: where it is damaged, Arrow 25
    ends the process.
    """
    metadata = parquet.metadata
    width = 1
    for field in parquet.schema_arrow:
        try:
            width += field.type.bit_width // 8
        except ValueError:  # texts and lists, which are counted when they are read
            width += 1
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    size = max(metadata.num_rows * width, sum(group.total_byte_size for group in groups))
    if size > largest:
        raise _too_large(size, path, largest)


def read_parquet(
    parquet: pq.ParquetFile, path: Path, largest: int = UNPACKED_MAX_BYTES
) -> pa.Table:
    """All rows; lists are counted while they are read."""
    if not any(pa.types.is_nested(field.type) for field in parquet.schema_arrow):
        return parquet.read()
    batches, size = [], 0
    for batch in parquet.iter_batches(batch_size=_ROWS):
        batches.append(batch)
        size += batch.nbytes
        if size > largest:
            raise _too_large(size, path, largest)
    return pa.Table.from_batches(batches) if batches else parquet.read()


def _too_large(size: int, path: Path, largest: int) -> InputError:
    return InputError(
        f"the table takes {size / 1e9:.3g} GB when it is unpacked; {largest / 1e9:g} are allowed",
        file=path, remedy="Cut it into slices of rows, or leave out columns",
    )  # fmt: skip


def check_parquet_file(path: Path, largest: int = UNPACKED_MAX_BYTES) -> None:
    """`check_parquet` for a file that nobody has opened yet; a damaged one is left to its reader."""
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return
    with parquet:
        check_parquet(parquet, path, largest)


def text_columns(schema: pa.Schema) -> list[str]:
    """Columns of text: read as dictionaries, they stay as small as they are on disk."""
    return [
        field.name
        for field in schema
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    ]


def spelled_out(table: pa.Table, path: Path, largest: int = UNPACKED_MAX_BYTES) -> pa.Table:
    """The table with dictionaries of texts as texts; `InputError` where they would be too large."""
    import pyarrow.compute as pc

    size = 0
    for name in table.column_names:
        if not pa.types.is_dictionary(table[name].type):
            continue
        for chunk in table[name].chunks:
            lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
            size += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    if size > largest:
        raise InputError(
            f"the texts take {size / 1e9:.3g} GB when they are spelled out", file=path,
            remedy="Leave out columns of text",
        )  # fmt: skip
    for number, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            plain = table.column(number).cast(field.type.value_type)
            table = table.set_column(number, field.with_type(field.type.value_type), plain)
    return table


# -------------------------------------------------------------------------------------------- HDF5


def hdf5_dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """A dataset of numbers that lies in the file itself.

    HDF5 can point at other files in three ways: by links, by external storage and by virtual
    datasets. None of these is followed.

    Parameters
    ----------
    file : h5py.File
    name : str
        Groups and dataset, with slashes between.
    path : Path
        For the error.

    Raises
    ------
    InputError
        There is no such dataset, it is no plain array of numbers, or it leads out of the file.
    """
    import h5py

    group: Any = file
    for part in name.split("/"):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if not isinstance(link, h5py.HardLink):
            words = "no such dataset" if link is None else "a link, which is not followed"
            raise InputError(words, file=path, column=name, remedy=_HDF5)
        group = group[part]
    if not isinstance(group, h5py.Dataset) or group.dtype.kind not in "iuf":
        raise InputError("no array of numbers", file=path, column=name, remedy=_HDF5)
    if group.external or group.is_virtual:
        raise InputError("its data lie in another file", file=path, column=name, remedy=_HDF5)
    row = group.chunks or (1,)
    size = group.dtype.itemsize
    for length in row:
        size *= length
    if size > CHUNK_MAX_BYTES:
        raise InputError(
            f"its chunks take {size / 1e9:.3g} GB", file=path, column=name,
            remedy="Write it anew in chunks of some MB",
        )  # fmt: skip
    return group


def hdf5_array(file: h5py.File, name: str, shape: tuple[int, ...], path: Path) -> NDArray[Any]:
    """The numbers of a dataset whose shape is known; `InputError` where it has another."""
    dataset = hdf5_dataset(file, name, path)
    if dataset.shape != shape:
        raise InputError(f"shape {dataset.shape}, not {shape}", file=path, column=name)
    return dataset[()]  # type: ignore[no-any-return]


def hdf5_attribute(owner: Any, name: str, path: Path) -> Any:
    """An attribute that is a text or some numbers.

    HDF5 reads lists of any length where a damaged file says so, from wherever it says, and ends the
    process.

    Parameters
    ----------
    owner : h5py.File, Group or Dataset
    name : str
        An attribute that is there.
    path : Path
        For the error.

    Raises
    ------
    InputError
        It is of another kind, or longer than 1024.
    """
    import h5py

    attribute = owner.attrs.get_id(name)
    plain = attribute.dtype.kind in "biufS" or (
        h5py.check_string_dtype(attribute.dtype) is not None
        and isinstance(attribute.get_type(), h5py.h5t.TypeStringID)
    )
    size = 1
    for length in attribute.shape:
        size *= length
    if not plain or size > _ATTRIBUTE_MAX:
        raise InputError("no text and no numbers", file=path, column=f"attribute {name}")
    return owner.attrs[name]


_ATTRIBUTE_MAX = 1024
_HDF5 = "Write it anew with h5py, all in one file"
