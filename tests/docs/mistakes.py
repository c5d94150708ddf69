"""Mistakes that users make, as docs/mistakes.md tells them: what was typed, and what cmass says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from cmass import formats
from cmass.params import Params

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "mistakes.md"


@dataclass(frozen=True)
class Mistake:
    """A row of the table: what it is, the command, the exit code, the message (``…`` stands for anything)."""

    what: str
    command: str
    code: int
    message: str

    def is_told(self, output: str) -> bool:
        """Whether this is what the program wrote: an error whole, a warning as part of it."""
        parts = [re.escape(" ".join(part.split())) for part in self.message.split("…")]
        pattern = r"\s*.*?\s*".join(parts)
        if self.message.startswith("error: "):
            pattern += r"\s*$"
        return re.search(pattern, plain(output), re.DOTALL) is not None


def plain(output: str) -> str:
    """Output in one line, without colours, times, levels and the frames around usage errors."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", output)
    text = re.sub(r"^(\d\d:\d\d:\d\d| {8}) (INFO|WARNING|ERROR) +", "", text, flags=re.MULTILINE)
    # A cell of the page cannot hold code within code: quotes stand for backticks there.
    return " ".join(re.sub(r"[╭╮╰╯│─]", " ", text).replace("`", "'").split())


def listed(text: str) -> list[Mistake]:
    """Rows of the tables of docs/mistakes.md."""
    found = []
    for line in text.splitlines():
        cells = [c.strip() for c in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if len(cells) != 5 or not cells[1].startswith("`cmass"):
            continue
        what, command, code, message, _ = (c.replace("\\|", "|") for c in cells)
        found.append(Mistake(what, command.strip("`"), int(code), message.strip("`")))
    return found


def write_files(folder: Path) -> None:
    """The files that the commands of docs/mistakes.md speak of: a small survey, and slips in it."""
    from cmass.mock.survey import make_survey

    base = Params()
    patch = base.ingest.embedded.model_copy(
        update={"ra_min_deg": 10.0, "ra_max_deg": 30.0, "dec_min_deg": 0.0, "dec_max_deg": 15.0,
                "log10_m200c_min": 13.9}
    )  # fmt: skip
    ingest = base.ingest.model_copy(update={"embedded": patch})
    survey = make_survey(base.model_copy(update={"ingest": ingest}))
    clusters = survey["raw_clusters"].select(["cluster_id", "ra", "dec", "z"])
    galaxies = survey["raw_galaxies"].select(["ra", "dec", "z", "r_mag"])
    ra, dec, z = (clusters[name].to_numpy() for name in ("ra", "dec", "z"))
    slips = {
        "swapped": _with(clusters, ra=dec, dec=ra),
        "kms": _with(clusters, z=np.round(299792.458 * z, 1)),
        "hours": _with(clusters, ra=ra / 15),
        "radians": _with(clusters, ra=np.radians(ra), dec=np.radians(dec)),
        "south": _with(clusters, dec=dec - 70),
        "distances": _with(clusters, z=np.round(2997.92458 * z, 1)),
        "unnamed": clusters.rename_columns(["cluster_id", "ra", "dec", "photoz"]),
        "twice": _with(clusters, cluster_id=["A1", "A1", *clusters["cluster_id"].to_pylist()[2:]]),
        "no-galaxies": galaxies.slice(0, 0),
        "fast-galaxies": _with(galaxies, z=299792.458 * galaxies["z"].to_numpy()),
        "members": _members(clusters, galaxies),
    }
    for name, table in {"clusters": clusters, "galaxies": galaxies, **slips}.items():
        formats.write(folder / f"{name}.csv", table)
    text = (folder / "galaxies.csv").read_bytes()
    (folder / "galaxies.parquet").write_bytes(text)
    (folder / "galaxies.txt").write_bytes(text)
    (folder / "slip.yaml").write_text("voxels:\n  kapa: 0.2\n")
    (folder / "tab.yaml").write_text("voxels:\n\tkappa: 0.2\n")
    (folder / "sets.yaml").write_text("split:\n  train: 20000\n")
    (folder / "notes.txt").write_text("not a folder")
    (folder / "mirror").mkdir()
    (folder / "smoke-data" / "smoke" / "mock").mkdir(parents=True)


def _with(table: pa.Table, **columns: object) -> pa.Table:
    """A table with other values in some columns."""
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    return table


def _members(clusters: pa.Table, galaxies: pa.Table) -> pa.Table:
    """Galaxies within 0.25 deg and 900 km/s of a cluster: members, and nothing around them."""
    ra, dec, z = (galaxies[name].to_numpy() for name in ("ra", "dec", "z"))
    near = np.zeros(ra.size, bool)
    for row in clusters.to_pylist():
        far = np.hypot((ra - row["ra"]) * np.cos(np.radians(row["dec"])), dec - row["dec"])
        near |= (far < 0.25) & (np.abs(z - row["z"]) < 0.003 * (1 + row["z"]))
    return galaxies.filter(pa.array(near))
