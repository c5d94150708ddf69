"""A flow that fails tells a webhook; a real server takes the message."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from cmass import pipeline
from cmass.errors import WorkspaceError
from flows.alarm import BLOCK, set_alarm
from tests.flows.test_flows import PARAMS, one, refused, small  # noqa: F401  (a fixture)

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.timeout(400)]


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Address of a server, and what was posted to it."""
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Stay silent."""

        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(404 if self.path.endswith("/gone") else 200)
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/secret-path", posted
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def block(prefect_api, webhook) -> Iterator[None]:
    """The block with the webhook's address, gone afterwards."""
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    set_alarm(webhook[0])
    yield
    CustomWebhookNotificationBlock.delete(BLOCK)


def test_a_failure_is_told(prefect_api, small, tmp_path, monkeypatch, webhook, block):  # noqa: F811
    monkeypatch.setattr(pipeline, "STEPS", one(refused))
    with pytest.raises(WorkspaceError, match="no"):
        small.release(profile="smoke", data=tmp_path, params_file=PARAMS)
    (message,) = webhook[1]
    assert message["subject"].startswith("cmass: cmass-release failed in step ingest (run release-")
    assert "WorkspaceError: no" in message["body"]
    assert message["text"] == f"{message['subject']}\n{message['body']}"


def test_a_flow_that_was_killed_is_told_by_the_worker(prefect_api, small, webhook, block):  # noqa: F811
    """The worker calls the hook in place of the process that is gone, with names."""
    state = SimpleNamespace(name="Crashed", message="Process exited due to a SIGKILL signal.")
    run = SimpleNamespace(id=uuid4(), name="release-smoke")
    for hook in small.release.on_crashed_hooks:
        hook(flow=small.release, flow_run=run, state=state)
    (message,) = webhook[1]
    assert message["subject"] == "cmass: cmass-release crashed (run release-smoke)"
    assert "SIGKILL" in message["body"]


def test_success_is_silent(prefect_api, small, tmp_path, webhook, block):  # noqa: F811
    assert small.release(profile="smoke", data=tmp_path, params_file=PARAMS) == ["ingest"]
    assert webhook[1] == []


def test_no_block_no_alarm(prefect_api, small, tmp_path, monkeypatch, webhook):  # noqa: F811
    monkeypatch.setattr(pipeline, "STEPS", one(refused))
    with pytest.raises(WorkspaceError, match="no"):
        small.release(profile="smoke", data=tmp_path, params_file=PARAMS)
    assert webhook[1] == []


def test_a_webhook_that_is_away_does_not_hide_the_error(
    prefect_api,
    small,  # noqa: F811
    tmp_path,
    monkeypatch,
    block,
    webhook,
    caplog,
):
    set_alarm("http://127.0.0.1:9/nobody")
    monkeypatch.setattr(pipeline, "STEPS", one(refused))
    with pytest.raises(WorkspaceError, match="no"):
        small.release(profile="smoke", data=tmp_path, params_file=PARAMS)
    assert "the alarm could not be sent" in caplog.text


def test_a_webhook_that_refuses_leaves_its_address_in_no_log(
    prefect_api,
    small,  # noqa: F811
    tmp_path,
    monkeypatch,
    block,
    webhook,
    caplog,
):
    set_alarm(f"{webhook[0]}/gone")
    monkeypatch.setattr(pipeline, "STEPS", one(refused))
    with pytest.raises(WorkspaceError, match="no"):
        small.release(profile="smoke", data=tmp_path, params_file=PARAMS)
    assert "the alarm could not be sent: 404" in caplog.text
    assert "secret-path" not in caplog.text


def test_the_address_is_kept_as_a_secret(prefect_api, block, webhook):
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    saved = CustomWebhookNotificationBlock.load(BLOCK)
    assert "secret-path" not in repr(saved)
    assert saved.secrets.get_secret_value()["url"] == webhook[0]
