"""The server: ranges, types, whom it answers, and how it begins and ends."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cmass.cli import app
from cmass.errors import InputError
from cmass.publish.site.serve import is_loopback, listen
from tests.publish.site.conftest import served


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    headers: dict[str, str]
    content: bytes


@dataclass(frozen=True)
class Client:
    """Asks for a path as it is written: no library tidies it up."""

    port: int

    def ask(self, method: str, path: str, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=names)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        content = answer.read()
        connection.close()
        return Answer(answer.status, found, content)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)


@pytest.fixture(scope="module")
def client(hostile: Path) -> Iterator[Client]:
    with served(hostile) as port:
        yield Client(port)


def test_ranges(client: Client, hostile: Path) -> None:
    whole = (hostile / "cmass.duckdb").read_bytes()
    part = client.get("/cmass.duckdb", range="bytes=100-299")
    assert part.status == 206
    assert part.content == whole[100:300]
    assert part.headers["content-range"] == f"bytes 100-299/{len(whole)}"
    end = client.get("/cmass.duckdb", range="bytes=-5")
    assert end.status == 206 and end.content == whole[-5:]
    beyond = client.get("/cmass.duckdb", range=f"bytes={len(whole)}-")
    assert beyond.status == 416
    assert beyond.headers["content-range"] == f"bytes */{len(whole)}"
    head = client.ask("HEAD", "/cmass.duckdb")
    assert head.status == 200 and head.content == b""
    assert head.headers["content-length"] == str(len(whole))
    assert head.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/site/index.html", "text/html; charset=utf-8"),
        ("/site/assets/table.js", "text/javascript; charset=utf-8"),
        ("/site/assets/apache-arrow.mjs", "text/javascript; charset=utf-8"),
        ("/site/assets/site.css", "text/css; charset=utf-8"),
        ("/site/assets/icon.svg", "image/svg+xml"),
        ("/cmass.duckdb", "application/vnd.duckdb"),
        ("/masses.parquet", "application/vnd.apache.parquet"),
        ("/provenance.json", "application/json"),
    ],
)
def test_types(client: Client, path: str, kind: str) -> None:
    answer = client.get(path)
    assert answer.status == 200
    assert answer.headers["content-type"] == kind
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "frame-ancestors 'none'"


def test_types_of_what_a_release_or_its_engine_may_hold_besides(tmp_path: Path) -> None:
    kinds = {"a.wasm": "application/wasm", "a.wasm.gz": "application/gzip",
             "a.fits": "application/fits", "a.vot": "application/x-votable+xml"}  # fmt: skip
    for name in kinds:
        (tmp_path / name).write_bytes(b"\x1f\x8b0")
    with served(tmp_path) as port:
        for name, kind in kinds.items():
            answer = Client(port).get(f"/{name}")
            assert answer.headers["content-type"] == kind
            assert answer.content == b"\x1f\x8b0"  # as it lies there: nobody unpacks it on the way
            assert "content-encoding" not in answer.headers


def test_what_is_known_is_not_sent_again(client: Client) -> None:
    first = client.get("/site/index.html")
    again = client.get("/site/index.html", if_none_match=first.headers["etag"])
    assert again.status == 304 and again.content == b""
    since = first.headers["last-modified"]
    assert client.get("/site/index.html", if_modified_since=since).status == 304


def test_nothing_outside_and_no_lists_of_folders(tmp_path: Path) -> None:
    folder = tmp_path / "served"
    (folder / "site" / "clusters").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "plain").write_text("plain")
    with served(folder) as port:
        assert Client(port).get("/plain").content == b"plain"
        for path in ("/../secret", "/%2e%2e/secret", "/site/..%2f..%2fsecret", "//etc/passwd",
                     "/site/../../secret", "/..%5csecret", "/%00", "/site/clusters/",
                     "/link", "/nothing"):  # fmt: skip
            answer = Client(port).get(path)
            assert answer.status == 404, (path, answer)


def test_the_front_door_leads_to_the_site(client: Client) -> None:
    answer = client.get("/")
    assert answer.status == 307 and answer.headers["location"] == "/site/index.html"


def test_only_reading(client: Client) -> None:
    assert client.ask("POST", "/site/index.html").status == 405
    assert client.ask("DELETE", "/masses.parquet").status == 405


def test_who_calls_by_another_name_learns_nothing(client: Client) -> None:
    assert client.get("/masses.parquet", host="rebound.example").status == 400
    assert client.get("/masses.parquet", host="localhost:8000").status == 200


def test_loopback() -> None:
    assert all(is_loopback(h) for h in ("127.0.0.1", "localhost", "::1", "127.3.2.1"))
    assert not any(is_loopback(h) for h in ("0.0.0.0", "::", "192.168.1.4", "example.org"))


def test_addresses_that_cannot_be_had() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port}: another program.*--port"):
            listen("127.0.0.1", port)
    with pytest.raises(InputError, match=r"203\.0\.113\.7"):  # an address of nobody's
        listen("203.0.113.7", 0)
    with pytest.raises(InputError, match="no address"):
        listen("no such host", 0)


def _start(release: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cmass.cli", "serve", "--data", str(release.parents[1]), *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def test_the_command_serves_many_at_once_and_ends_with_ctrl_c(hostile: Path) -> None:
    with _start(hostile, "--port", "0") as running:
        try:
            assert running.stdout is not None
            said = running.stdout.readline()
            assert said.startswith(hostile.name)
            address = said.split()[-1]
            assert address.startswith("http://127.0.0.1:") and address.endswith("/site/index.html")
            files = ["site/index.html", "masses.parquet", "cmass.duckdb", "site/sky.html"] * 4
            root = address.removesuffix("site/index.html")
            got: list[int] = []

            def get(name: str) -> None:
                with urllib.request.urlopen(root + name, timeout=20) as answer:
                    got.append(len(answer.read()))

            threads = [threading.Thread(target=get, args=(name,)) for name in files]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(got) == sorted((hostile / name).stat().st_size for name in files)
            port = address.split(":")[2].split("/")[0]
            second = CliRunner().invoke(
                app, ["serve", "--data", str(hostile.parents[1]), "--port", port]
            )
            assert second.exit_code == 2
            assert "another program listens there" in second.output and "--port 0" in second.output
        finally:
            running.send_signal(signal.SIGINT)
            _, error = running.communicate(timeout=20)
    assert running.returncode == 130
    assert "Traceback" not in error


def test_without_a_site_the_command_says_what_makes_it(hostile: Path, tmp_path: Path) -> None:
    (tmp_path / "release" / hostile.name).mkdir(parents=True)
    said = CliRunner().invoke(app, ["serve", "--data", str(tmp_path), "--release", hostile.name])
    assert said.exit_code == 5
    assert "cmass site" in said.output
