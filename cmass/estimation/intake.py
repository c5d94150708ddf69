"""What people hand in: which column is which, in which unit, and which rows cannot be used."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from cmass.columns import COLUMNS
from cmass.errors import InputError
from cmass.formats import plain

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

CLUSTER_COLUMNS = ("cluster_id", "ra", "dec", "z")
GALAXY_COLUMNS = ("ra", "dec", "z", "r_mag")
#: Columns that a table may lack: rows are numbered then, depth is told by numbers of galaxies.
OPTIONAL = ("cluster_id", "r_mag")
#: Names that others give to our columns, best first: lower case, letters and digits alone.
ALIASES: dict[str, tuple[str, ...]] = {
    "cluster_id": (
        "clusterid", "clid", "clustername", "cluster", "name", "id", "objid", "objectid", "designation",
        "memmatchid", "sourceid", "source", "mcxc", "abell", "groupid", "haloid", "objname",
    ),
    "ra": (
        "ra", "radeg", "raj2000", "rajdeg", "raj2000deg", "raicrs", "ra2000", "raclu", "racl", "racen",
        "racenter", "racentre", "racluster", "rabcg", "ragal", "radegrees", "rightascension", "alpha",
        "alphaj2000", "raj", "rad",
    ),
    "dec": (
        "dec", "de", "decdeg", "dedeg", "dej2000", "decj2000", "decjdeg", "dej2000deg", "decj2000deg",
        "deicrs", "decicrs", "dec2000", "decclu", "deccl", "deccen", "deccenter", "deccentre",
        "deccluster", "decbcg", "decgal", "decdegrees", "declination", "delta", "deltaj2000", "decj",
        "decd",
    ),
    "z": (
        "z", "redshift", "zspec", "specz", "spectroscopicredshift", "zhelio", "zhel", "zobs", "zclu",
        "zcl", "zcluster", "zgal", "zbest", "zmean", "zmed", "zcmb", "zspecbcg",
    ),
    "r_mag": (
        "rmag", "magr", "petromagr", "petror", "petromagrdered", "modelmagr", "cmodelmagr", "deredr",
        "rpetro", "rpmag", "rpsmag", "rmodel", "mr", "appmagr", "r",
    ),
}  # fmt: skip
#: Apparent magnitudes that a column called r may hold; a radius in any unit rarely does.
_MAGNITUDES = (5.0, 30.0)
#: Names of columns that hold a velocity, c z, where no unit says otherwise.
VELOCITIES = (
    "cz",
    "vhelio",
    "vhel",
    "velocity",
    "vel",
    "vr",
    "vrad",
    "czhelio",
    "hvel",
    "czkms",
    "vlos",
)
#: UCDs that say what a column is, whatever it is called.
_UCDS = {
    "cluster_id": "meta.id;meta.main", "ra": "pos.eq.ra;meta.main", "dec": "pos.eq.dec;meta.main",
    "z": "src.redshift", "r_mag": "phot.mag;em.opt.r",
}  # fmt: skip
_C_KM_S = speed_of_light / 1e3
_SEXAGESIMAL = re.compile(
    r"^\s*[+-]?\d{1,3}\s*[:hd°\s]\s*\d{1,2}\s*[:m'′\s]\s*\d{1,2}(\.\d*)?\s*[s\"″]?\s*$"
)
#: Units in words that astropy has under another name.
_UNIT_WORDS = {"degree": "deg", "degrees": "deg", "hours": "hourangle", "h": "hourangle", "hour": "hourangle",
               "radian": "rad", "radians": "rad", "hms": "hourangle", '"h:m:s"': "hourangle",
               '"d:m:s"': "deg", "dms": "deg", "kms": "km/s"}  # fmt: skip
_GIVEN = re.compile(r"^(?P<name>.+)\[(?P<unit>[^\[\]]+)\]$")


@dataclass(frozen=True)
class Choice:
    """The column of a file that holds one of ours.

    Attributes
    ----------
    ours, theirs : str
    unit : str
        As the file, the name or the user has it; empty: that of the column dictionary.
    how : str
        Why it was taken: ``as named``, ``its name``, ``its UCD``.
    """

    ours: str
    theirs: str
    unit: str
    how: str


@dataclass
class Rows:
    """Columns as numbers, and what is wrong with each row.

    Attributes
    ----------
    cluster_id : list of str
        Empty for galaxies.
    ra, dec, z : ndarray, shape (n,)
        Degrees, degrees, redshift; NaN where there is none.
    reasons : list of str
        Why a row cannot be used; empty for one that can.
    names : dict of str to str
        Our column names to the table's.
    r_mag : ndarray, shape (n,), or None
        Apparent r of galaxies, NaN where there is none; None without such a column.
    """

    ra: Array
    dec: Array
    z: Array
    cluster_id: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    r_mag: Array | None = None

    @property
    def good(self) -> NDArray[np.bool_]:
        """Rows that can be used."""
        return np.array([not reason for reason in self.reasons], bool)


def given_for(what: str, given: Mapping[str, str]) -> dict[str, str]:
    """What was said of the columns of one table: ``clusters.ra`` before ``ra``."""
    both = {name: theirs for name, theirs in given.items() if "." not in name}
    own = {
        name.removeprefix(f"{what}."): theirs
        for name, theirs in given.items()
        if name.startswith(f"{what}.")
    }
    return both | own


def choose(
    table: pa.Table, needed: Sequence[str], given: Mapping[str, str], what: str,
    file: Path | None = None,
) -> list[Choice]:  # fmt: skip
    """Find the columns that are needed: as the user names them, by our name, UCD, or a usual name.

    Parameters
    ----------
    table : pyarrow.Table
        Fields may carry unit and UCD in their metadata.
    needed : sequence of str
        Our names.
    given : mapping of str to str
        Our name to the table's, or to ``name[unit]``; names that the table lacks are for another.
    what : str
        What the rows are, for messages.
    file : Path, optional
        Where the table comes from, for messages.

    Raises
    ------
    InputError
        No column can be what is needed. Those of `OPTIONAL` are not missed.
    """
    choices, lacking = [], []
    for ours in needed:
        choice = _given(table, ours, given) or _guess(table, ours)
        if choice is not None:
            choices.append(choice)
        elif ours not in OPTIONAL:
            lacking.append(ours)
    if lacking:
        meanings = "; ".join(f"{n}: {COLUMNS[n].description}" for n in lacking)
        raise InputError(
            f"the table of {what} has no column that can be {' or '.join(lacking)}", file=file,
            column=", ".join(lacking),
            remedy=f"It has {', '.join(table.column_names) or 'no columns'}. Name yours with "
            f"--column {lacking[0]}=YOURS, or {lacking[0]}=YOURS[unit] ({meanings})",
        )  # fmt: skip
    return choices


def _given(table: pa.Table, ours: str, given: Mapping[str, str]) -> Choice | None:
    asked = given.get(ours)
    if asked is None:
        return None
    if asked in table.column_names:
        return Choice(ours, asked, _unit_of(table, asked, ours), "as named")
    split = _GIVEN.match(asked)
    if split and split["name"] in table.column_names:
        return Choice(ours, split["name"], split["unit"].strip(), "as named")
    return None


def _guess(table: pa.Table, ours: str) -> Choice | None:
    """Our own name, then the UCD, then the usual names; a column of numbers before one of text."""
    names = table.column_names
    if ours in names:
        return Choice(ours, ours, _unit_of(table, ours, ours), "its name")
    ucds = {
        n: (table.schema.field(n).metadata or {}).get(b"ucd", b"").decode().lower() for n in names
    }
    by_ucd = [n for n in names if ucds[n].replace(" ", "") == _UCDS[ours]]
    if len(by_ucd) == 1:
        return Choice(ours, by_ucd[0], _unit_of(table, by_ucd[0], ours), "its UCD")
    usual = (*ALIASES[ours], *(VELOCITIES if ours == "z" else ()))
    found = sorted((n for n in names if plain(n) in usual), key=lambda n: usual.index(plain(n)))
    if ours == "r_mag":
        found = [n for n in found if _are_magnitudes(table[n])]
    if ours != "cluster_id":
        found.sort(key=lambda n: _is_text(table[n]))
    return Choice(ours, found[0], _unit_of(table, found[0], ours), "its name") if found else None


def _are_magnitudes(values: pa.ChunkedArray) -> bool:
    """Whether a column holds numbers that apparent magnitudes would be."""
    if not pa.types.is_floating(values.type) or values.null_count == len(values):
        return False
    low, high = _MAGNITUDES
    numbers = values.drop_null().to_numpy()
    return bool(low < np.nanmedian(numbers) < high)


def _unit_of(table: pa.Table, name: str, ours: str) -> str:
    unit = (table.schema.field(name).metadata or {}).get(b"unit", b"").decode().strip()
    if not unit and ours == "z" and plain(name) in VELOCITIES:
        return "km/s"
    return unit


def _is_text(values: pa.ChunkedArray) -> bool:
    return pa.types.is_string(values.type) or pa.types.is_large_string(values.type)


def told(choices: Sequence[Choice]) -> str:
    """Which column is what, in words."""
    return ", ".join(
        c.ours if c.ours == c.theirs and c.unit in ("", COLUMNS[c.ours].unit)
        else f"{c.ours} is {c.theirs}" + (f" [{c.unit}]" if c.unit else "")
        for c in choices
    )  # fmt: skip


# ------------------------------------------------------------------------------------- numbers


def rows_of(
    table: pa.Table, choices: Sequence[Choice], what: str, file: Path | None = None
) -> Rows:
    """Columns as numbers in our units, and what is wrong with each row.

    Parameters
    ----------
    table : pyarrow.Table
    choices : sequence of Choice
        Of `choose`.
    what : str
    file : Path, optional

    Raises
    ------
    InputError
        A column holds no number at all, or its unit is none of an angle or a velocity.
    """
    values, texts = {}, {}
    for choice in choices:
        if choice.ours not in OPTIONAL:
            values[choice.ours], texts[choice.ours] = _numbers(table, choice, what, file)
    # Some count right ascension from -180 deg.
    values["ra"] = np.where(
        (values["ra"] < 0) & (values["ra"] >= -180), values["ra"] + 360, values["ra"]
    )
    reasons = [""] * table.num_rows
    for name, numbers in values.items():
        for row in np.flatnonzero(~allowed(name, numbers, what)):
            if not reasons[row]:
                reasons[row] = _why(name, float(numbers[row]), texts[name].get(int(row)))
    magnitudes = next(
        (_magnitudes(table, c, what, file) for c in choices if c.ours == "r_mag"), None
    )
    return Rows(
        values["ra"],
        values["dec"],
        values["z"],
        reasons=reasons,
        r_mag=magnitudes,
        names={c.ours: c.theirs for c in choices},
    )


def cluster_rows(table: pa.Table, choices: Sequence[Choice], file: Path | None = None) -> Rows:
    """`rows_of` a table of clusters, with identifiers; an identifier that is not unique is no good."""
    rows = rows_of(table, choices, "clusters", file)
    named = next((c.theirs for c in choices if c.ours == "cluster_id"), None)
    if named is None:
        rows.cluster_id = [f"row {number}" for number in range(1, table.num_rows + 1)]
        return rows
    rows.cluster_id = ["" if x is None else str(x).strip() for x in table[named].to_pylist()]
    _, number, times = np.unique(
        np.array(rows.cluster_id, str), return_inverse=True, return_counts=True
    )
    for row, cluster_id in enumerate(rows.cluster_id):
        if not cluster_id:
            rows.reasons[row] = f"{named} is missing"
        elif times[number[row]] > 1:
            rows.reasons[row] = f"{named} {cluster_id} stands in {times[number[row]]} rows"
    return rows


def _magnitudes(table: pa.Table, choice: Choice, what: str, file: Path | None) -> Array | None:
    """Apparent magnitudes, codes for missing ones (99, -9999) as NaN; None where there are none."""
    try:
        values, _ = _numbers(table, choice, what, file)
    except InputError as error:
        log.warning("%s: magnitudes are not used", error)
        return None
    low, high = _MAGNITUDES
    with np.errstate(invalid="ignore"):
        odd = np.isfinite(values) & ~((values > low) & (values < high))
    if odd.any():
        log.warning(
            "%d of %d values of %s are no apparent magnitudes, the first in row %d (%g): taken as missing",
            odd.sum(), odd.size, choice.theirs, np.argmax(odd) + 1, values[np.argmax(odd)],
        )  # fmt: skip
    return np.where(odd, np.nan, values)


def _numbers(
    table: pa.Table, choice: Choice, what: str, file: Path | None
) -> tuple[Array, dict[int, str]]:
    """A column as float64 in our unit, missing as NaN; and texts that are no number, by row."""
    values = table[choice.theirs]
    here: dict[str, Any] = {"file": file, "column": choice.theirs}
    texts: dict[int, str] = {}
    if pa.types.is_null(values.type):
        return np.full(table.num_rows, np.nan), texts
    if _is_text(values):
        numbers, texts, sexagesimal = _parsed(values.to_pylist(), choice.ours)
        if texts and not np.isfinite(numbers).any():
            row = min(texts)
            raise InputError(
                f"{choice.ours} of the {what} holds text that is no number", **here, row=row + 1,
                value=texts[row], remedy=_number_remedy(choice.ours, texts[row]),
            )  # fmt: skip
        if sexagesimal:
            return numbers, texts
    elif (
        pa.types.is_floating(values.type)
        or pa.types.is_integer(values.type)
        or pa.types.is_decimal(values.type)
    ):
        known = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        numbers = known.copy()  # Arrow's memory is not ours to write to
    else:
        raise InputError(f"{choice.ours} of the {what} holds no numbers but {values.type}", **here)
    return _in_our_unit(numbers, choice, what, here), texts


def _number_remedy(ours: str, text: str) -> str:
    if re.fullmatch(r"[+-]?\d+,\d+", text):
        return "Write decimal points, not commas; leave missing cells empty"
    if ours in ("ra", "dec"):
        return "Give decimal degrees or h:m:s and d:m:s; leave missing cells empty"
    return "Give numbers; leave missing cells empty"


def _parsed(values: Sequence[Any], ours: str) -> tuple[Array, dict[int, str], bool]:
    """Texts as numbers, those that are none by row, and whether they were sexagesimal (degrees then)."""
    written = [
        (row, str(v).strip()) for row, v in enumerate(values) if v is not None and str(v).strip()
    ]
    sexagesimal = ours in ("ra", "dec") and 2 * sum(
        bool(_SEXAGESIMAL.match(t)) for _, t in written
    ) > len(written)
    numbers = np.full(len(values), np.nan)
    texts = {}
    for row, text in written:
        try:
            numbers[row] = _angle(text, ours) if sexagesimal else float(text)
        except ValueError:
            texts[row] = text
    return numbers, texts, sexagesimal


def _angle(text: str, ours: str) -> float:
    """Degrees of h:m:s for a right ascension, of d:m:s otherwise."""
    from astropy import units
    from astropy.coordinates import Angle

    if not _SEXAGESIMAL.match(text):
        raise ValueError(text)
    hours = ours == "ra" and not re.search(r"[d°]", text)
    return float(Angle(text, unit=units.hourangle if hours else units.deg).deg)


def _in_our_unit(numbers: Array, choice: Choice, what: str, here: dict[str, Any]) -> Array:
    from astropy import units

    if not choice.unit or choice.ours == "r_mag":
        return numbers
    words = _UNIT_WORDS.get(choice.unit.lower(), choice.unit)
    try:
        unit = units.Unit(words)
        if choice.ours == "z":
            if unit == units.dimensionless_unscaled:
                return numbers
            return numbers * unit.to("km/s") / _C_KM_S
        return numbers * unit.to("deg")
    except (ValueError, units.UnitConversionError) as error:
        raise InputError(
            f"{choice.ours} of the {what} is in {choice.unit!r}, which is no "
            f"{'redshift or velocity' if choice.ours == 'z' else 'angle'}", **here,
            remedy=f"Say what it is with --column {choice.ours}={choice.theirs}[unit], as "
            f"{'[km/s]' if choice.ours == 'z' else '[deg] or [hourangle]'}",
        ) from error  # fmt: skip


def allowed(name: str, values: Array, what: str = "clusters") -> NDArray[np.bool_]:
    """Where values are finite and in the range of the column dictionary; a galaxy may have a blueshift."""
    if what == "galaxies" and name == "z":
        return np.isfinite(values) & (np.abs(values) < 2)
    column = COLUMNS[name]
    with np.errstate(invalid="ignore"):
        good = np.isfinite(values)
        if column.minimum is not None:
            good &= values > column.minimum if column.open_minimum else values >= column.minimum
        if column.maximum is not None:
            good &= values < column.maximum if column.open_maximum else values <= column.maximum
    return good


def rows_hint(rows: Rows, table: str) -> str:
    """What to try where no row of a table (``clusters``, ``galaxies``) can be used."""
    z, ra, dec = (values[np.isfinite(values)] for values in (rows.z, rows.ra, rows.dec))
    if ra.size and dec.size and np.abs(dec).max() > 90 and np.abs(ra).max() <= 90:
        return (
            f"ra and dec look swapped: give --column {table}.ra={rows.names['dec']} --column "
            f"{table}.dec={rows.names['ra']}"
        )
    if z.size and np.median(z) >= 2:
        return (
            f"If {rows.names['z']} is a velocity c z, say so: --column '{table}.z={rows.names['z']}[km/s]'; a distance "
            "is no redshift"
        )
    return (
        "ra and dec are angles, z is a redshift or, with [km/s], a velocity; --column names others"
    )


def _why(name: str, value: float, text: str | None) -> str:
    if text is not None:
        return f"{name} is {text!r}, which is no number"
    if np.isnan(value):
        return f"{name} is missing"
    hint = ": a velocity in km/s?" if name == "z" and value >= 2 else ""
    return f"{name} is {value:g}, which is impossible{hint}"
