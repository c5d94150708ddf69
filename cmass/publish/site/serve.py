"""A release and its site over HTTP, on this machine alone unless told otherwise.

Starlette serves the files (ranges, HEAD, ETag, nothing outside the folder, no lists of folders);
here is said which files, under which types, and to whom.
"""

from __future__ import annotations

import errno
import ipaddress
import mimetypes
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmass.errors import InputError
from cmass.publish.site import check_site
from cmass.workspace import SITE

if TYPE_CHECKING:
    from starlette.applications import Starlette

#: Types that not every system knows, by suffix.
TYPES = {
    ".duckdb": "application/vnd.duckdb", ".parquet": "application/vnd.apache.parquet",
    ".wasm": "application/wasm", ".mjs": "text/javascript", ".js": "text/javascript",
    ".json": "application/json", ".fits": "application/fits", ".vot": "application/x-votable+xml",
    ".ecsv": "text/plain", ".csv": "text/csv", ".md": "text/markdown", ".cff": "text/plain",
    ".jinja2": "text/plain",
}  # fmt: skip
#: Said with every answer, besides the policy that each page carries itself.
HEADERS = {
    "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
    "content-security-policy": "frame-ancestors 'none'", "cache-control": "no-cache",
}  # fmt: skip


def application(release: Path, hosts: list[str]) -> Starlette:
    """ASGI application of a release's files.

    Parameters
    ----------
    release : Path
        Folder of the release.
    hosts : list of str
        Names that the server answers to; a page elsewhere that calls this machine by a name of its
        own learns nothing. ``*`` for any.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import RedirectResponse
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    for suffix, kind in TYPES.items():
        mimetypes.add_type(kind, suffix)

    async def front(request: Any) -> RedirectResponse:
        return RedirectResponse(f"/{SITE}/index.html")

    return Starlette(
        routes=[
            Route("/", front),
            Mount("/", app=_with_headers(StaticFiles(directory=release.resolve(), html=True))),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
        ],
    )  # fmt: skip


def _with_headers(app: Any) -> Callable[..., Any]:
    """The same application, saying `HEADERS` with every answer, and what compressed files are."""
    extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        packed = scope.get("path", "").endswith(".gz")

        async def more(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                if packed and message["status"] in (200, 206):
                    # Of `x.wasm.gz` the type is that of the archive: nobody unpacks it on the way.
                    headers = [(k, v) for k, v in headers if k.lower() != b"content-type"]
                    headers.append((b"content-type", b"application/gzip"))
                message = {**message, "headers": headers + extra}
            await send(message)

        await app(scope, receive, more)

    return answer


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises
    ------
    InputError
        The address is not this machine's, or taken.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise InputError(
            f"--host {host} is no address: {error.strerror}",
            remedy="127.0.0.1 is this machine alone",
        ) from error
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(128)
    except (OSError, OverflowError) as error:
        listening.close()
        number = getattr(error, "errno", None)
        why = {
            errno.EADDRINUSE: "another program listens there",
            errno.EACCES: "ports below 1024 are the administrator's",
            errno.EADDRNOTAVAIL: "that address is not this machine's",
        }.get(number or 0, str(error))
        raise InputError(
            f"cannot listen at {host} port {port}: {why}",
            remedy="Name another port (--port 8001), or --port 0 for any that is free",
        ) from error
    return listening


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, that no other reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(release: Path, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve a release until Ctrl-C.

    Parameters
    ----------
    release : Path
        Folder of a release that has a site.
    host, port
        Where to listen; port 0 for any that is free.
    say : callable
        Gets the address.

    Raises
    ------
    WorkspaceError
        There is no site, or it is damaged.
    InputError
        The address cannot be had.
    """
    import uvicorn

    check_site(release / SITE)
    own = is_loopback(host)
    names = ["localhost", "127.0.0.1", "[::1]", "::1", host] if own else ["*"]
    with listen(host, port) as listening:
        name = f"[{host}]" if ":" in host else host
        say(f"http://{name}:{listening.getsockname()[1]}/{SITE}/index.html")
        config = uvicorn.Config(
            application(release, names), log_level="warning", access_log=False, lifespan="off",
            timeout_graceful_shutdown=2, server_header=False,
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listening])
