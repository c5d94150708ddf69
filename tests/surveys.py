"""A small survey with known truth, and a local archive that serves it and can misbehave."""

from __future__ import annotations

import math
import re
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[1]
BLOCKS = ("500", "200", "100", "5.5")


def shared_data() -> Path:
    """Folder with the real catalogues; skips the test where there is none."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real catalogues are not at {folder}")
    return folder


def catalogue(n: int = 30, h_mass: float = 1.0, h_radius: float = 1.0) -> list[dict[str, Any]]:
    """`n` clusters under VizieR's column names; masses from radii by astropy.

    `h_mass` and `h_radius` are factors that a careless writer left in.
    """
    from astropy.cosmology import FlatLambdaCDM

    background = FlatLambdaCDM(H0=100, Om0=0.307115)
    rng = np.random.default_rng(5)
    rows = []
    for number in range(1, n + 1):
        z = rng.uniform(0.03, 0.08)
        row: dict[str, Any] = {
            "ClID": number,
            "RAJ2000": round(rng.uniform(0, 40), 6),
            "DEJ2000": round(rng.uniform(0, 30), 6),
            "z": round(z, 6),
            "cz": round(299792.458 * z, 1),
            "Dist": round(background.comoving_distance(z).value, 4),
        }
        density = background.critical_density(z).to_value("solMass / Mpc3")
        for block in BLOCKS:
            r = rng.uniform(0.8, 1.6)
            m = 4 / 3 * math.pi * r**3 * float(block) * density
            row |= {
                f"r{block}": r * h_radius,
                f"N{block}": int(rng.integers(10, 90)),
                f"sig{block}": rng.uniform(300, 900),
                f"e_sig{block}": 50.25,
                f"E_sig{block}": 60.5,
                f"M{block}": m * h_mass,
                f"e_M{block}": 0.3 * m,
            }
        rows.append(row | {"rs": 0.3, "e_rs": 0.1, "Ms": 1e14, "e_Ms": 3e13, "c": 4.5})
    return rows


def xray_catalogue(n: int = 20, near: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """`n` X-ray clusters under VizieR's column names; masses from radii by astropy.

    The first ones lie 1' north of the clusters `near`, at their redshifts.
    """
    from astropy.cosmology import FlatLambdaCDM

    background = FlatLambdaCDM(H0=70, Om0=0.3)
    rng = np.random.default_rng(6)
    rows: list[dict[str, Any]] = []
    for number in range(n):
        z = rng.uniform(0.03, 0.3)
        ra, dec = rng.uniform(0, 40), rng.uniform(0, 30)
        if near is not None and number < len(near):
            ra, dec, z = (
                near[number]["RAJ2000"],
                near[number]["DEJ2000"] + 1 / 60,
                near[number]["z"],
            )
        r = rng.uniform(0.5, 1.3)
        m = 4 / 3 * math.pi * r**3 * 500 * background.critical_density(z).to_value("solMass/Mpc3")
        rows.append(
            {
                "recno": number + 1,
                "MCXC": f"MCXC J{number:04d}.0+0000",
                "OName": f"A{number}",
                "AName": f"Abell, {number}" if number % 3 else "",
                "RAJ2000": round(ra, 4),
                "DEJ2000": round(dec, 4),
                "Cat": "NORAS/REFLEX",
                "z": round(z, 4),
                "L500": round(rng.uniform(0.1, 9), 3),
                "R500": round(r, 4),
                "M500": round(m / 1e14, 4),
                "e_M500": round(0.1 * m / 1e14, 4),
                "E_M500": round(0.12 * m / 1e14, 4),
            }
        )
    return rows


def csv_text(rows: list[dict[str, Any]]) -> str:
    """The rows as comma-separated text, quoted as the VizieR's TAP service does."""
    lines = [",".join(rows[0])]
    for row in rows:
        lines.append(
            ",".join(f'"{v}"' if isinstance(v, str) and v else str(v) for v in row.values())
        )
    return "\n".join(lines) + "\n"


def dat_text(rows: list[dict[str, Any]]) -> str:
    """The rows as ``galwcls.dat``."""
    return "".join("|".join(f"{value:>12}" for value in row.values()) + "\n" for row in rows)


def tsv_text(rows: list[dict[str, Any]]) -> str:
    """The rows as VizieR's asu-tsv answers."""
    names = list(rows[0])
    head = [
        "#",
        "#   VizieR Astronomical Server vizier.cds.unistra.fr",
        "#INFO\t-out.max=unlimited\t",
        "#RESOURCE=yCat_22460002",
        "#Table\tJ_ApJS_246_2_galwcls:",
        *(f"#Column\t{name}\t(F9.5)\twords about it" for name in names),
        "\t".join(names),
        "\t".join("deg" if "J2000" in name else "" for name in names),
        "\t".join("-" * 8 for _ in names),
    ]
    body = ["\t".join(str(value) for value in row.values()) for row in rows]
    return "\n".join([*head, *body, "", "#END#", ""])


def window_text() -> str:
    """A mangle file: right ascension 0 to 60 and declination -10 to 50 deg, as two polygons."""
    polygons = []
    for a, b in ((0, 30), (30, 60)):
        first, last = math.radians(a), math.radians(b)
        south, north = math.sin(math.radians(-10)), math.sin(math.radians(50))
        # Great circles through the poles bound in ra, caps around the north pole in dec.
        caps = [
            (-math.sin(first), math.cos(first), 0.0, 1.0),
            (math.sin(last), -math.cos(last), 0.0, 1.0),
            (0.0, 0.0, 1.0, 1 - south),
            (0.0, 0.0, 1.0, -(1 - north)),
        ]
        area = (last - first) * (north - south)
        polygons.append((caps, area))
    lines = [f"{len(polygons)} polygons", "snapped"]
    for number, (caps, area) in enumerate(polygons):
        lines.append(f"polygon {number} ( {len(caps)} caps, 1 weight, 0 pixel, {area:.15f} str):")
        lines += [" ".join(f"{value:.16f}" for value in cap) for cap in caps]
    return "\n".join(lines) + "\n"


def galaxy_rows(n: int = 400) -> list[dict[str, Any]]:
    """`n` galaxies as SkyServer has them, sorted by specObjID."""
    rng = np.random.default_rng(7)
    rows = []
    for number in range(n):
        rows.append(
            {
                "galaxy_id": 299489677444933632 + 1024 * number + 1,
                "ra": round(rng.uniform(0, 80), 6),
                "dec": round(rng.uniform(-20, 40), 6),
                "z": round(rng.uniform(0.01, 0.14), 6),
                "z_err": 1e-5,
                "r_mag": "null" if number % 50 == 0 else round(rng.uniform(14, 17.7), 3),
                "programname": "southern" if number % 97 == 0 else "legacy",
            }
        )
    return rows


@dataclass
class Archive:
    """What the local server holds, how it misbehaves, and what it was asked.

    Attributes
    ----------
    faults : dict
        For a path, the faults of its next answers, in order; then it behaves.
    limit : int
        SkyServer's silent row limit.
    asked : list
        Paths with queries, in order.
    """

    tsv: str
    window: str
    galaxies: list[dict[str, Any]]
    faults: dict[str, deque[str]] = field(default_factory=dict)
    limit: int = 10**9
    asked: list[str] = field(default_factory=list)
    url: str = ""
    xray: str = ""

    def fail(self, path: str, *faults: str) -> None:
        """Queue `faults` for the next answers at `path`."""
        self.faults.setdefault(path, deque()).extend(faults)

    def answer(self, path: str, query: dict[str, list[str]]) -> str:
        if path == "/viz":
            tables = {"J/ApJS/246/2/galwcls": self.tsv, "J/A+A/688/A187/mcxcii": self.xray}
            return tables.get(query["-source"][0]) or "#*** no table\n"
        if path == "/window.ply":
            return self.window
        command = query["cmd"][0]
        found = re.search(r"s\.z <= (\S+) AND s\.ra >= (\S+) AND s\.ra < (\S+)", command)
        if found is None or query["format"] != ["csv"]:
            return "<html><head><title>Skyserver Error</title></head><body>bad SQL</body></html>"
        z_max, low, high = map(float, found.groups())
        rows = [g for g in self.galaxies if low <= g["ra"] < high and g["z"] <= z_max]
        if "COUNT(*)" in command:
            return f"#Table1\nn\n{len(rows)}\n"
        lines = [",".join(str(value) for value in row.values()) for row in rows[: self.limit]]
        return "\n".join(["#Table1", ",".join(self.galaxies[0]), *lines, ""])


class ArchiveHandler(BaseHTTPRequestHandler):
    archive: Archive
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        asked = urlparse(self.path)
        archive = self.archive
        archive.asked.append(self.path)
        faults = archive.faults.get(asked.path)
        fault = faults.popleft() if faults else ""
        body = archive.answer(asked.path, parse_qs(asked.query)).encode()
        state, length, pause = 200, len(body), 0.0
        self.close_connection = True
        if fault == "drop":
            return
        if fault in ("500", "429", "404"):
            state, body = int(fault), b"<html><body>Service <b>unhappy</b></body></html>"
            length = len(body)
        elif fault == "html":
            body = (
                b"<!DOCTYPE html><html><head><style>p{}</style></head><body>Come back later</body>"
            )
            length = len(body)
        elif fault == "truncate":
            body = body[: len(body) // 2]
        elif fault == "cut":  # in the middle of a line, without a length to tell
            body, length = body[: int(0.6 * len(body)) | 1], -1
        elif fault == "cut-at-line":
            body, length = body[: body.rindex(b"\n", 0, len(body) // 2) + 1], -1
        elif fault == "empty":
            body, length = b"", 0
        elif fault == "long":  # less than it says
            length = len(body) + 1000
        elif fault == "twice":  # two bodies, one after the other, and the length of one
            body = body + body
        elif fault == "other":  # whole, and the answer to another question
            body = (archive.window if asked.path != "/window.ply" else archive.tsv).encode()
            length = len(body)
        elif fault == "noise":
            body = bytes(byte ^ 0x55 for byte in body)
        elif fault == "stall":
            time.sleep(4)
            return
        elif fault == "trickle":
            pause = 0.5
        elif fault == "slow":
            pause = 0.15
        self.send_response(state)
        self.send_header("Content-Type", "text/plain")
        if length >= 0:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for start in range(0, len(body), 512 if pause else 1 << 20):
                self.wfile.write(body[start : start + (512 if pause else 1 << 20)])
                self.wfile.flush()
                time.sleep(pause)
        except OSError:
            return  # the client went away, as a client may
