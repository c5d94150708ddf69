"""What the flows share: one task per step, one flow at a time per data folder, artifacts."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

from prefect import get_client, get_run_logger, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.concurrency.sync import concurrency
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectAlreadyExists
from prefect.runtime import deployment, flow_run
from pydantic import Field

from cmass.errors import SourceError
from cmass.headline import markdown
from cmass.params import Params, load_params
from cmass.pipeline import first_stale, release_steps, run_if_stale, step, workspace_lock
from cmass.secrets import Redacting, told_without_secrets
from cmass.workspace import Workspace
from flows.alarm import alarm


def said(words: str, **limits: Any) -> Any:
    """What Prefect's page says of a parameter (it reads no NumPy docstrings, nor `description`)."""
    return Field(json_schema_extra={"description": words}, **limits)


Profile = Annotated[
    Literal["smoke", "standard", "paper"] | None,
    said("Size of the run; by default that of params.yaml"),
]
Survey = Annotated[
    Literal["embedded", "sdss"] | None,
    said("Survey that gets masses; by default that of params.yaml"),
]
Mirror = Annotated[
    Path | None,
    said("Folder that stands in for the network; by default that of params.yaml"),
]
Data = Annotated[
    Path | None, said("Data folder; by default CMASS_DATA of the worker, or data of its folder")
]
ParamsFile = Annotated[
    Path | None, said("Parameters; by default params.yaml of the worker's folder")
]
Seed = Annotated[
    int | None, said("Seed of mocks and training; by default that of params.yaml", ge=0)
]
Scheduler = Annotated[
    str | None, said("Dask scheduler; by default CMASS_SCHEDULER, or that of params.yaml")
]
Hours = Annotated[float, said("Longest time of one step, hours", gt=0)]
Archive = Annotated[
    bool | None,
    said("Archive the latest release; by default where its code is committed in a clone"),
]
Force = Annotated[bool, said("Run even what is up to date")]

#: Keys of the artifacts: numbers, steps, how far, and where the report is.
HEADLINE_KEY, STEPS_KEY, PROGRESS_KEY, REPORT_KEY = (
    "cmass-headline", "cmass-steps", "cmass-progress", "cmass-report",
)  # fmt: skip
#: Deployment that ingest and retrain start.
RELEASE = "cmass-release/on-change"
#: Longest time of one step, hours, where the run does not say.
STEP_HOURS = 24.0
# Seconds after which the turn of a flow that was killed is the next one's.
_LEASE_S = 120.0
# Only the network route of ingest can fail for reasons that pass.
_RETRY_DELAYS_S: list[float] = [60, 300, 1800]
_BY_NAME: dict[str, Any] = {"on_failure": [alarm], "on_crashed": [alarm]}


def flow_options(name: str) -> dict[str, Any]:
    """What the flow called `name` has in common with the others."""

    def run_name() -> str:
        given = flow_run.parameters
        chosen = [given.get("profile"), given.get("survey"), given.get("name")]
        words = [str(getattr(word, "value", word)) for word in chosen if word]
        return "-".join([name, *words])

    return {"name": f"cmass-{name}", "flow_run_name": run_name, **_BY_NAME}


def _passes(task: Any, run: Any, state: Any) -> bool:
    """Whether a failed task is worth another try: the remote source was the trouble."""
    try:
        state.result()
    except SourceError:
        return True
    except Exception:
        return False
    return False


# What is up to date is told by the steps' own stamps, digests of what they read: Prefect's cache would
# be a second opinion.
_TASK: dict[str, Any] = {
    "retries": len(_RETRY_DELAYS_S), "retry_delay_seconds": _RETRY_DELAYS_S,
    "retry_jitter_factor": 0.2, "retry_condition_fn": _passes, "persist_result": False,
    "cache_policy": NO_CACHE,
}  # fmt: skip


@task(task_run_name="{name}", **_TASK)
@told_without_secrets()
def run_one(name: str, workspace: Workspace, params: Params, force: bool) -> str | None:
    """Run one step unless it is up to date; why it ran, or None."""
    why = run_if_stale(name, workspace, params, force=force)
    get_run_logger().info("%s: %s", name, "up to date" if why is None else f"done ({why})")
    return why


@task(task_run_name="refresh", **_TASK)
@told_without_secrets()
def ask_sources(workspace: Workspace, params: Params) -> list[str]:
    """Ask the network again for what is kept; what has changed there."""
    from cmass.ingest import refresh

    changed = refresh(workspace, params)
    get_run_logger().info("sources: %s", f"{len(changed)} changed" if changed else "unchanged")
    return changed


def redact_logs() -> None:
    """Whatever Prefect's handlers write, or send to the server, is redacted first."""
    names = [n for n in logging.root.manager.loggerDict if n.split(".")[0] in ("prefect", "cmass")]
    for handler in {h for n in names for h in logging.getLogger(n).handlers}:
        if not any(isinstance(one, Redacting) for one in handler.filters):
            handler.addFilter(Redacting())


def make_limit(name: str) -> None:
    """Make the server's limit `name` of one, unless it is there.

    Prefect asks and then makes it: of two flows that begin together, one comes second.
    """
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.upsert_global_concurrency_limit_by_name(name, limit=1)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Let one flow at a time work on a data folder: others wait for their turn.

    The server's limit makes flows wait; the file lock below it also keeps out commands
    that know nothing of the server.
    """
    name = "cmass-" + hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]
    make_limit(name)
    with concurrency(
        name, strict=True, raise_on_lease_renewal_failure=False, lease_duration=_LEASE_S
    ):
        yield


@dataclass
class Choices:
    """What a run was asked for; what is None is as params.yaml and the environment have it.

    Attributes
    ----------
    profile : str
        Size of the run.
    survey : str
        Survey that gets masses; of a training, the one that judges it.
    mirror : Path
        Folder that stands in for the network; implies survey sdss.
    data : Path
        Data folder; by default ``CMASS_DATA``, or ``data`` of the working folder.
    params_file : Path
        Parameters; by default ``params.yaml`` of the working folder.
    seed : int
        Seed of mocks and training.
    scheduler : str
        Dask scheduler; by default ``CMASS_SCHEDULER``, or that of params.yaml.
    """

    profile: Profile = None
    survey: Survey = None
    mirror: Path | None = None
    data: Path | None = None
    params_file: Path | None = None
    seed: int | None = None
    scheduler: str | None = None

    def resolve(self) -> tuple[Workspace, Params]:
        """Folder and parameters of the run."""
        params = load_params(
            self.params_file, self.profile,
            survey=self.survey or ("sdss" if self.mirror else None),
            mirror=None if self.mirror is None else str(self.mirror), seed=self.seed,
            scheduler=self.scheduler or os.environ.get("CMASS_SCHEDULER") or None,
        )  # fmt: skip
        data = self.data or Path(os.environ.get("CMASS_DATA") or "data")
        return Workspace(data, params.profile, params.survey), params


@dataclass
class Ran:
    """What a run did.

    Attributes
    ----------
    rows : list of dict
        One a step: ``step``, ``ran``, ``why``, ``seconds``.
    """

    workspace: Workspace
    params: Params
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Names of the steps that ran."""
        return [row["step"] for row in self.rows if row["ran"] == "yes"]


@told_without_secrets()
def run_steps(
    names: Sequence[str] | Callable[[Workspace, Params], Sequence[str]], choices: Choices, *,
    force: bool = False, ask: bool = False, hours: float = STEP_HOURS,
    then: Callable[[Ran], None] | None = None,
) -> Ran:  # fmt: skip
    """Run the steps `names` in order as tasks.

    Parameters
    ----------
    names : sequence of str, or callable
        A callable is asked when this flow has its turn: what it finds may be another's work.
    choices : Choices
    force : bool
        Run even what is up to date.
    ask : bool
        Ask the network first whether its files are still the same.
    hours : float
        Longest time of one step.
    then : callable, optional
        What else belongs to this flow's turn.
    """
    redact_logs()
    workspace, params = choices.resolve()
    one = run_one.with_options(timeout_seconds=3600 * hours)
    done = Ran(workspace, params)
    bar = create_progress_artifact(0.0, key=PROGRESS_KEY, description="Steps that are done")
    with _alone(workspace.root):
        with workspace_lock(workspace):
            try:
                if ask:
                    ask_sources(workspace, params)
                chosen = names(workspace, params) if callable(names) else names
                for number, name in enumerate(chosen, start=1):
                    done.rows.append(
                        {"step": step(name).name, "ran": "failed", "seconds": "", "why": ""}
                    )
                    start = time.monotonic()
                    why = one(name, workspace, params, force)
                    done.rows[-1] |= {
                        "ran": "no" if why is None else "yes",
                        "seconds": round(time.monotonic() - start, 1),
                        "why": why or "up to date",
                    }
                    update_progress_artifact(_id(bar), progress=100 * number / len(chosen))
            finally:
                create_table_artifact(
                    done.rows, key=STEPS_KEY, description="What ran, why, and how long it took"
                )
        if then is not None:
            then(done)
    return done


def _id(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(str(value))


@task(task_run_name="archive", **_TASK)
@told_without_secrets()
def keep_version(workspace: Workspace) -> None:
    """Archive the latest release, and push it where a remote is named."""
    from cmass.versions.archive import archive

    archive(workspace.root)


def _waits_for_archive(workspace: Workspace) -> bool:
    """Whether the latest release can be archived and is not, or is not at the remote."""
    from cmass.versions.archive import is_declined, is_kept, obstacle

    latest, root = workspace.releases / "latest", workspace.root
    return (
        latest.exists() and not is_declined(root) and not is_kept(root) and obstacle(root) is None
    )


def archive_release(done: Ran, wanted: bool | None) -> None:
    """Archive the latest release, unless it is archived already.

    Also one that an earlier run published and could not archive, as its store was away.

    Parameters
    ----------
    done : Ran
    wanted : bool or None
        None: where it can be done, which is in a clone whose code is committed, and nobody said
        False of this release.
    """
    from cmass.versions.archive import decline, obstacle

    if wanted is False:
        decline(done.workspace.root)
        return
    if wanted is None and "publish" in done.names:
        why_not = obstacle(done.workspace.root)
        if why_not is not None:
            get_run_logger().warning("the release is not archived: %s", why_not)
            return
    if wanted or (wanted is None and _waits_for_archive(done.workspace)):
        keep_version(done.workspace)


def publish_results(workspace: Workspace) -> None:
    """Put the headline numbers and the way to the report on the run's page."""
    create_markdown_artifact(
        key=HEADLINE_KEY,
        markdown=markdown(workspace.seen_as("champion")),
        description="Headline numbers of the run",
    )
    report = (workspace.releases / "latest" / "report.html").resolve()
    if report.exists():
        create_link_artifact(
            link=report.as_uri(), link_text=f"Report of release {report.parent.name}",
            key=REPORT_KEY, description=str(report),
        )  # fmt: skip


@told_without_secrets()
def start_release(choices: Choices) -> str | None:
    """Start the deployment `RELEASE` if one of its steps would run, or its archive waits; why, or None.

    A release that failed is started again by the next call, as its steps are still not up to date. A
    flow that no deployment started only says what it found.
    """
    choices = replace(choices, seed=None)  # of a training; a release has that of params.yaml
    workspace, params = choices.resolve()
    found = first_stale(release_steps(workspace, params), workspace, params)
    if found is None and _waits_for_archive(workspace):
        found = ("archive", "the latest release is not kept")
    if found is None:
        get_run_logger().info("release: up to date")
        return None
    words = f"{found[0]}: {found[1]}"
    if deployment.id is None:
        get_run_logger().info("release would run (%s): python -m flows.release", words)
        return words
    parameters = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(choices).items()
        if value is not None
    }
    with get_client(sync_client=True) as client:
        if _waits(client, parameters):
            get_run_logger().info("release waits already (%s)", words)
            return words
    run: Any = run_deployment(RELEASE, parameters=parameters, timeout=0)
    get_run_logger().info("started %s (%s)", run.name, words)
    return words


def _waits(client: Any, parameters: dict[str, Any]) -> bool:
    """Whether a release with these parameters is about to begin: it will find what we found."""
    waiting = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[RELEASE.partition("/")[0]])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(
                type=FlowRunFilterStateType(any_=[StateType.SCHEDULED, StateType.PENDING])
            )
        ),
    )
    return any(run.parameters == parameters for run in waiting)
