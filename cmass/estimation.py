"""Masses of anyone's clusters with a trained model: `cmass.estimate` and its command."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cmass import formats
from cmass.columns import COLUMNS, FLAGS, flag_words
from cmass.errors import InputError
from cmass.infer import Sample, masses_from_points
from cmass.pretrained import Bundle, load_bundle
from cmass.select import phase_space

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

_CLUSTER_COLUMNS = ["cluster_id", "ra", "dec", "z"]
_GALAXY_COLUMNS = ["ra", "dec", "z"]


def estimate(
    clusters: Any, galaxies: Any, *, model: Bundle | Path | str | None = None, progress: bool = True
) -> Any:
    """Dynamical masses M200c of clusters from the redshifts of galaxies around them.

    Parameters
    ----------
    clusters : astropy.table.Table or pyarrow.Table
        Columns cluster_id, ra, dec (deg, J2000), z; one row a cluster.
    galaxies : astropy.table.Table or pyarrow.Table
        Columns ra, dec (deg, J2000), z; one row a galaxy, in any order. It should hold
        every galaxy of the survey within 4 h⁻¹ Mpc and 2200 km/s of each cluster, not
        members alone, and be as deep as the mocks (SDSS: r < 17.77): of a thinned or cut
        window masses come out too low, and not every such cluster is flagged.
    model : Bundle or path, optional
        A bundle, or the folder of one; by default the model that ships.
    progress : bool
        Show how far the work is, on standard error.

    Returns
    -------
    astropy.table.Table or pyarrow.Table
        Table `masses` of the column dictionary, of the kind of `clusters` and with its
        rows in order. Rows that cannot be used (missing or impossible values, an
        identifier that appears twice, fewer than 4 galaxies) have no mass and a `flag`
        that says why.

    Raises
    ------
    InputError
        A table lacks a column, or a column holds no numbers.

    Examples
    --------
    >>> from astropy.table import Table
    >>> masses = cmass.estimate(Table.read("clusters.fits"), Table.read("galaxies.fits"))
    """
    bundle = model if isinstance(model, Bundle) else load_bundle(*([model] if model else []))
    result = _estimate(formats.as_arrow(clusters), formats.as_arrow(galaxies), bundle, progress)
    return result if isinstance(clusters, pa.Table) else formats.to_astropy(result)


def estimate_files(
    clusters: Path, galaxies: Path, out: Path, *, columns: Mapping[str, str] | None = None,
    model: Bundle | Path | str | None = None,
) -> pa.Table:  # fmt: skip
    """Read two files, estimate masses and write them; formats by suffix.

    Parameters
    ----------
    clusters, galaxies, out : Path
    columns : mapping, optional
        Our column name to the name in the files; a name that only one of the files has
        is used for that file.
    model : Bundle or path, optional

    Returns
    -------
    pyarrow.Table
        What was written: table `masses`.
    """
    formats.format_of(out)
    for path in (clusters, galaxies):
        if path.exists() and out.exists() and path.samefile(out):
            raise InputError(
                "the masses would overwrite their own input", file=out,
                remedy="Choose another file for --out",
            )  # fmt: skip
    names = dict(columns or {})
    tables = []
    for path, needed in ((clusters, _CLUSTER_COLUMNS), (galaxies, _GALAXY_COLUMNS)):
        text = [names.get("cluster_id", "cluster_id")]
        table = formats.read(path, text=text)
        tables.append((path, needed, table))
    for ours, theirs in names.items():
        if not any(theirs in table.column_names for _, _, table in tables):
            raise InputError(
                f"neither file has a column {theirs!r} to be used as {ours}", column=theirs,
                remedy=f"{clusters} has {', '.join(tables[0][2].column_names)}",
            )  # fmt: skip
    renamed = []
    for path, needed, table in tables:
        here = {o: t for o, t in names.items() if o in needed and t in table.column_names}
        table = formats.rename(table, here, path)
        formats.require(table, needed, "clusters" if path == clusters else "galaxies", path)
        renamed.append(table)
    for (path, _, _), table in zip(tables, renamed, strict=True):
        if not table.num_rows:
            raise InputError("the table has no rows", file=path)
    bundle = model if isinstance(model, Bundle) else load_bundle(*([model] if model else []))
    masses = _estimate(renamed[0], renamed[1], bundle, files=(clusters, galaxies))
    formats.write(out, masses)
    log.info("wrote %s", out)
    return masses


def _numbers(table: pa.Table, name: str, what: str, file: Path | None) -> Array:
    """A column as float64, missing as NaN; its unit must be the dictionary's."""
    field = table.schema.field(name)
    unit = (field.metadata or {}).get(b"unit", b"").decode()
    if name in ("ra", "dec") and unit not in ("", "deg", "degree", "degrees"):
        raise InputError(
            f"{name} of the {what} is in {unit!r}, deg is needed", file=file, column=name,
            remedy="Convert it to decimal degrees",
        )  # fmt: skip
    values = table[name]
    if pa.types.is_null(values.type):
        return np.full(table.num_rows, np.nan)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        try:
            values = pc.cast(values, pa.float64())
        except pa.ArrowInvalid as error:
            row, value = _first_without_number(values)
            raise InputError(
                f"{name} of the {what} holds text that is no number", file=file, column=name,
                row=row, value=value,
                remedy="Positions are decimal degrees, not sexagesimal; leave missing cells empty",
            ) from error  # fmt: skip
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise InputError(
            f"{name} of the {what} holds no numbers but {values.type}", file=file, column=name
        )
    return pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _first_without_number(values: pa.ChunkedArray) -> tuple[int, str]:
    """Row, counted from zero, and text of the first value that Arrow reads no number from."""
    for row, value in enumerate(values):
        try:
            pc.cast(value, pa.float64())
        except pa.ArrowInvalid:
            return row, value.as_py()
    raise ValueError("every value is a number")


def _allowed(name: str, values: Array) -> NDArray[np.bool_]:
    """Where values are finite and in the range of the column dictionary."""
    column = COLUMNS[name]
    with np.errstate(invalid="ignore"):
        good = np.isfinite(values)
        if column.minimum is not None:
            good &= values > column.minimum if column.open_minimum else values >= column.minimum
        if column.maximum is not None:
            good &= values < column.maximum if column.open_maximum else values <= column.maximum
    return good


def _estimate(
    clusters: pa.Table, galaxies: pa.Table, bundle: Bundle, progress: bool = True,
    files: tuple[Path | None, Path | None] = (None, None),
) -> pa.Table:  # fmt: skip
    formats.require(clusters, _CLUSTER_COLUMNS, "clusters")
    formats.require(galaxies, _GALAXY_COLUMNS, "galaxies")
    raw = clusters["cluster_id"].to_pylist()
    ids = ["" if x is None else str(x) for x in raw]
    ra, dec, z = (_numbers(clusters, n, "clusters", files[0]) for n in ("ra", "dec", "z"))
    good = _allowed("ra", ra) & _allowed("dec", dec) & _allowed("z", z)
    _, number, times = np.unique(np.array(ids), return_inverse=True, return_counts=True)
    good &= (times[number] == 1) & np.array([x != "" for x in ids], bool)
    for row in np.flatnonzero(~good)[:20]:
        log.warning(
            "cluster row %d (%s) has no mass: %s", row, ids[row] or "no cluster_id",
            _why_bad(ids[row], int(times[number[row]]), float(ra[row]), float(dec[row]), float(z[row])),
        )  # fmt: skip
    ra_g, dec_g, z_g = (_numbers(galaxies, n, "galaxies", files[1]) for n in ("ra", "dec", "z"))
    # A galaxy nearer than the Hubble flow may have a small blueshift.
    usable = _allowed("ra", ra_g) & _allowed("dec", dec_g) & np.isfinite(z_g) & (np.abs(z_g) < 2)
    if usable.size and not usable.any():
        raise InputError(
            "no galaxy has a usable ra, dec and z", file=files[1], column="ra, dec, z", row=0, value=float(z_g[0]),
            remedy="ra and dec are in degrees, z is a redshift (not km/s); --column names others",
        )  # fmt: skip
    if not usable.all():
        log.warning(
            "%d of %d galaxies left out: ra, dec or z is missing or impossible (first: row %d)",
            int((~usable).sum()), usable.size, int(np.flatnonzero(~usable)[0]),
        )  # fmt: skip
    places = np.column_stack([ra_g, dec_g, z_g])[usable]
    ordered = places[np.lexsort(places.T)]
    if repeated := int((ordered[1:] == ordered[:-1]).all(axis=1).sum()):
        log.warning(
            "%d galaxies have the ra, dec and z of another: if rows are repeated, remove them, for "
            "every one counts", repeated,
        )  # fmt: skip
    space = phase_space(
        ra[good], dec[good], z[good], ra_g[usable], dec_g[usable], z_g[usable],
        bundle.window, bundle.cosmology,
    )  # fmt: skip
    counts = np.zeros(len(ids), np.int64)
    counts[good] = np.bincount(space.cluster_index, minlength=int(good.sum()))
    sample = Sample(
        cluster_id=ids, ra=ra, dec=dec, z=z,
        flag=np.where(good, 0, FLAGS["bad_input"].value).astype(np.int32),
        points=np.column_stack([space.x_proj, space.y_proj, space.v_los]),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
    )  # fmt: skip
    masses = masses_from_points(sample, bundle, progress=progress)
    flags = masses["flag"].to_numpy()
    log.info(
        "%d clusters, %d with a mass, %d with a posterior", len(ids),
        len(ids) - masses["log10_m200c"].null_count,
        len(ids) - masses["log10_m200c_p50"].null_count,
    )  # fmt: skip
    for one in FLAGS.values():
        if count := int((flags & one.value > 0).sum()):
            log.info("%d flagged %s: %s", count, one.name, flag_words(one.value))
    if ids and masses["log10_m200c"].null_count == len(ids):
        log.warning(
            "no cluster has a mass: are ra and dec of both tables in degrees, and z redshifts (not "
            "km/s)?"
        )
    odd = int((flags & FLAGS["unlike_mocks"].value > 0).sum())
    if 2 * odd > len(ids):
        log.warning(
            "%d of %d clusters are unlike any mock, and so are their masses: the galaxies should be "
            "all of the survey in each window, members or not, to the depth of the mocks", odd,
            len(ids),
        )  # fmt: skip
    return masses


def _why_bad(cluster_id: str, times: int, ra: float, dec: float, z: float) -> str:
    if not cluster_id:
        return "cluster_id is missing"
    if times > 1:
        return f"cluster_id appears {times} times"
    for name, value in (("ra", ra), ("dec", dec), ("z", z)):
        if not _allowed(name, np.array([value]))[0]:
            return (
                f"{name} is {'missing' if np.isnan(value) else f'{value:g}, which is impossible'}"
            )
    return "unknown"
