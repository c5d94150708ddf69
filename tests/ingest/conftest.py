"""A local archive for the network route of ingest."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest

from cmass.params import Params, load_params
from tests.surveys import (
    REPOSITORY,
    Archive,
    ArchiveHandler,
    catalogue,
    galaxy_rows,
    tsv_text,
    window_text,
    xray_catalogue,
)


@pytest.fixture
def archive() -> Iterator[Archive]:
    """A server on this machine that speaks like VizieR, SkyServer and the SDSS archive."""
    held = Archive(
        tsv_text(catalogue()), window_text(), galaxy_rows(), xray=tsv_text(xray_catalogue())
    )
    handler = type("Handler", (ArchiveHandler,), {"archive": held})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    held.url = f"http://127.0.0.1:{server.server_port}"
    yield held
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def network_params(archive: Archive) -> Params:
    """Parameters that point ingest at the local archive and do not wait between tries."""
    params = load_params(REPOSITORY / "params.yaml", survey="sdss")
    network = params.ingest.network.model_copy(
        update={
            "vizier_url": archive.url + "/viz",
            "skyserver_url": archive.url + "/sql",
            "footprint_url": archive.url + "/window.ply",
            "ra_chunk_deg": 45.0,
            "attempts": 4,
            "backoff_s": 0.0,
            "timeout_s": 5.0,
        }
    )
    ingest = params.ingest.model_copy(update={"network": network})
    return params.model_copy(update={"ingest": ingest})
