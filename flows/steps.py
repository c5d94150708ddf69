"""What the flows share: one task per step, one flow at a time per data folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from prefect import get_client, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.concurrency.sync import concurrency

from cmass.errors import SourceError
from cmass.headline import markdown
from cmass.params import Params, load_params
from cmass.pipeline import run_step, step, workspace_lock
from cmass.workspace import Workspace

Profile = Literal["smoke", "standard", "paper"]
Survey = Literal["embedded", "sdss"]

#: Key of the artifact that holds the headline numbers.
HEADLINE_KEY = "cmass-headline"
# Only the network route of ingest can fail for reasons that pass.
_RETRY_DELAYS_S: list[float] = [60, 300, 1800]


def _passes(task: Any, run: Any, state: Any) -> bool:
    """Whether a failed task is worth another try: the remote source was the trouble."""
    try:
        state.result()
    except SourceError:
        return True
    except Exception:
        return False
    return False


@task(
    task_run_name="{name}", retries=len(_RETRY_DELAYS_S), retry_delay_seconds=_RETRY_DELAYS_S,
    retry_condition_fn=_passes, persist_result=False, cache_policy=NO_CACHE,
)  # fmt: skip
def run_one(name: str, workspace: Workspace, params: Params, force: bool) -> bool:
    """Run one step unless it is up to date; True if it ran."""
    ran = run_step(name, workspace, params, force=force, lock=False)
    get_run_logger().info("%s: %s", name, "done" if ran else "up to date")
    return ran


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Let one flow at a time work on a data folder: others wait for their turn.

    The server's limit makes flows wait; the file lock below it also keeps out commands
    that know nothing of the server.
    """
    name = "cmass-" + hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, limit=1)
    with concurrency(name, strict=True, raise_on_lease_renewal_failure=False):
        yield


def run_steps(
    names: Sequence[str],
    *,
    profile: Profile,
    survey: Survey,
    mirror: Path | None,
    data: Path,
    params_file: Path | None,
    force: bool,
) -> tuple[Workspace, list[str]]:
    """Run the steps `names` in order as tasks; returns the workspace and the steps that ran."""
    params = load_params(
        params_file, profile, survey=survey, mirror=None if mirror is None else str(mirror)
    )
    workspace = Workspace(data, profile, survey)
    with _alone(data), workspace_lock(workspace):
        ran = [n for n in names if run_one(step(n).name, workspace, params, force)]
    return workspace, ran


def publish_headline(workspace: Workspace) -> None:
    """Put the headline numbers on the run's page."""
    create_markdown_artifact(
        key=HEADLINE_KEY,
        markdown=markdown(workspace.seen_as("champion")),
        description="Headline numbers of the run",
    )
