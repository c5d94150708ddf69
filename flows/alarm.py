"""Tell somebody when a flow fails: the webhook block ``cmass-alarm``; nothing where there is none.

``CMASS_ALARM_URL=https://… python -m flows.alarm`` sets the block; Prefect's page can change it.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any
from urllib.parse import urlsplit

from prefect import get_client
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.exceptions import ObjectNotFound
from prefect.logging.loggers import flow_run_logger
from prefect.settings import PREFECT_UI_URL

from cmass.errors import ParameterError
from cmass.secrets import redact

log = logging.getLogger(__name__)

BLOCK = "cmass-alarm"
#: What is sent: Slack and its kin show ``text``, others pick what they want.
_PAYLOAD = {"text": "{{subject}}\n{{body}}", "subject": "{{subject}}", "body": "{{body}}"}


def message(
    flow_name: str, run_name: str, step: str | None, state: Any, url: str
) -> tuple[str, str]:
    """Subject and body of an alarm."""
    where = f" in step {step}" if step else ""
    subject = f"cmass: {flow_name} {state.name.lower()}{where} (run {run_name})"
    reason = (state.message or "no reason given").removeprefix(
        "Flow run encountered an exception: "
    )
    return redact(subject), redact(f"{reason}\n{url}".strip())


def tell(subject: str, body: str) -> None:
    """Send a message to the webhook of the block."""
    block: Any = CustomWebhookNotificationBlock.load(BLOCK)
    block.notify(body=body, subject=subject)


def _outcome(error: Exception) -> str:
    """What became of a message, without the address that httpx names: it is the webhook's secret."""
    status = getattr(getattr(error, "response", None), "status_code", "no answer")
    return f"{status} ({type(error).__name__})"


def failed_step(run_id: Any) -> str | None:
    """Name of the last task of a flow run that did not complete."""
    with get_client(sync_client=True) as client:
        tasks = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
        )
    open_ones = [t for t in tasks if t.state is None or not t.state.is_completed()]
    open_ones.sort(key=lambda t: str(t.start_time or t.created))
    return open_ones[-1].name if open_ones else None


def alarm(flow: Any, flow_run: Any, state: Any) -> None:
    """Hook of a flow that failed or crashed; a worker gives its arguments by name.

    Trouble with the webhook is logged and goes no further: the run has failed already.
    """
    url = f"{PREFECT_UI_URL.value()}/runs/flow-run/{flow_run.id}" if PREFECT_UI_URL.value() else ""
    subject, body = message(flow.name, flow_run.name, failed_step(flow_run.id), state, url)
    try:
        tell(subject, body)
    except (ValueError, ObjectNotFound):
        log.info("no block %s: nobody is told", BLOCK)
    except Exception as error:  # any answer, or none
        words = f"the alarm could not be sent: {_outcome(error)}"
        log.error(words)
        flow_run_logger(flow_run, flow).error(words)  # for the run's page


def set_alarm(url: str) -> None:
    """Save the block with the address `url`, which is kept as a secret.

    Raises
    ------
    ParameterError
        It is no address of a webhook.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ParameterError(
            "CMASS_ALARM_URL is no address of a webhook: it begins with https:// and a host"
        )
    block = CustomWebhookNotificationBlock(
        name=BLOCK, url="{{url}}", json_data=_PAYLOAD, secrets={"url": url}, timeout=10.0
    )
    block.save(BLOCK, overwrite=True)


if __name__ == "__main__":
    given = os.environ.get("CMASS_ALARM_URL")
    if not given:
        sys.exit("set CMASS_ALARM_URL to the webhook's address")
    try:
        set_alarm(given)
    except ParameterError as error:
        sys.exit(str(error))
    sys.stderr.write(f"alarms go to {urlsplit(given).hostname}; it gets a message now\n")
    try:
        tell("cmass: alarms come here", "Nothing has failed: somebody has set the alarm.")
    except Exception as error:  # the address is the webhook's secret, and httpx says it
        sys.exit(f"it could not be sent: {_outcome(error)}. The address is saved all the same")
