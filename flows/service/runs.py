"""Runs and turns that Prefect takes for living although their processes are gone."""

from __future__ import annotations

import shutil

from flows.service.settings import ServiceSettings

#: What becomes of such a run, in the words of its page.
REASON = "Its process ended with the service; what it had finished stays, start it again."


def forget_leases(settings: ServiceSettings) -> None:
    """Remove what Prefect's server kept of turns; to be called before it starts."""
    shutil.rmtree(settings.home / "prefect" / "concurrency_leases", ignore_errors=True)


def settle(settings: ServiceSettings) -> int:
    """Mark runs of our worker as crashed, and free every turn; for a server that has just started.

    A flow that somebody started by hand and that is still at work goes on: the lock of its data folder
    keeps others out.

    Returns
    -------
    int
        Number of runs.
    """
    from prefect import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Crashed

    at_work = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    with (
        temporary_settings({PREFECT_API_URL: settings.prefect_api}),
        get_client(sync_client=True) as client,
    ):
        runs = client.read_flow_runs(
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[settings.pool])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=at_work))
            ),
        )
        for run in runs:
            client.set_flow_run_state(run.id, Crashed(message=REASON), force=True)
        for limit in client.read_global_concurrency_limits(limit=200, offset=0):
            client.update_global_concurrency_limit(
                limit.name, GlobalConcurrencyLimitUpdate(active_slots=0)
            )
    return len(runs)
