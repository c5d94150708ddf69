"""A server on this machine that speaks like VizieR and SkyServer, with the embedded survey on it."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from cmass.ingest.galweight import _VIZIER
from cmass.mock.survey import make_survey, ra_width_deg
from cmass.params import load_params
from tests.surveys import REPOSITORY, Archive, ArchiveHandler, tsv_text, xray_catalogue


def embedded_archive() -> Archive:
    """What the archives would serve, had they observed the embedded survey of the smoke profile."""
    params = load_params(REPOSITORY / "params.yaml", "smoke")
    tables, survey = make_survey(params), params.ingest.embedded
    clusters = []
    for number, row in enumerate(tables["raw_clusters"].to_pylist(), start=1):
        row["cluster_id"] = number
        clusters.append(
            {_VIZIER[name][0]: "" if value is None else value for name, value in row.items()}
        )
    galaxies = [
        {
            "galaxy_id": 299489677444933632 + row["galaxy_id"], "ra": row["ra"], "dec": row["dec"],
            "z": row["z"], "z_err": row["z_err"],
            "r_mag": "null" if row["r_mag"] is None else row["r_mag"], "programname": "legacy",
        }
        for row in tables["raw_galaxies"].to_pylist()
    ]  # fmt: skip
    caps: dict[int, list[dict[str, Any]]] = {}
    for row in tables["raw_footprint"].to_pylist():
        caps.setdefault(row["polygon_id"], []).append(row)
    lines = [f"{len(caps)} polygons", "snapped"]
    south, north = (math.sin(math.radians(dec)) for dec in (survey.dec_min_deg, survey.dec_max_deg))
    area_sr = math.radians(ra_width_deg(survey)) * (north - south) / len(caps)
    for number, polygon in caps.items():
        head = f"polygon {number} ( {len(polygon)} caps, 1 weight, 0 pixel, {area_sr:.12f} str):"
        lines.append(head)
        lines += [f"{c['cap_x']:.16f} {c['cap_y']:.16f} {c['cap_z']:.16f} {c['cap_cm']:.16f}"
                  for c in polygon]  # fmt: skip
    near = [{n: c[n] for n in ("RAJ2000", "DEJ2000", "z")} for c in clusters[:10]]
    return Archive(
        tsv_text(clusters), "\n".join(lines) + "\n", galaxies,
        xray=tsv_text(xray_catalogue(near=near)),
    )  # fmt: skip


def lose_a_cluster(archive: Archive) -> None:
    """Another version of the catalogue: without the cluster next to the middle of the footprint."""
    lines = archive.tsv.split("\n")
    head = next(i for i, line in enumerate(lines) if line.startswith("ClID\t"))
    names = lines[head].split("\t")
    ra, dec = names.index("RAJ2000"), names.index("DEJ2000")

    def distance(number: int) -> float:
        cells = lines[number].split("\t")
        return math.hypot((float(cells[ra]) + 180) % 360 - 180, float(cells[dec]) - 7.5)

    rows = range(head + 3, lines.index("#END#") - 1)
    del lines[min(rows, key=distance)]
    archive.tsv = "\n".join(lines)


@contextmanager
def served(archive: Archive) -> Iterator[Archive]:
    """Serve `archive` on a free port of this machine; its `url` says where."""
    handler = type("Handler", (ArchiveHandler,), {"archive": archive})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    archive.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_params(archive: Archive, file: Path) -> Path:
    """A params.yaml whose survey is that archive's, with the few rivals that cost nothing."""
    values = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    values["survey"] = "sdss"
    values["ingest"]["network"] |= {
        "vizier_url": f"{archive.url}/viz", "skyserver_url": f"{archive.url}/sql",
        "footprint_url": f"{archive.url}/window.ply", "ra_chunk_deg": 45.0, "backoff_s": 0.1,
        "timeout_s": 60.0,
    }  # fmt: skip
    values["profiles"]["smoke"]["rivals"]["estimators"] = ["cnn3d", "dispersion", "richness"]
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file
