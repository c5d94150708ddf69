"""Ask the sources, and start a release where something would change."""

from __future__ import annotations

from prefect import flow

from cmass.pipeline import RUNS
from flows.steps import (
    STEP_HOURS,
    Choices,
    Data,
    Force,
    Hours,
    Mirror,
    ParamsFile,
    Profile,
    Scheduler,
    Survey,
    flow_options,
    run_steps,
    start_release,
)


@flow(**flow_options("ingest"))
def ingest(
    profile: Profile = None,
    survey: Survey = None,
    mirror: Mirror = None,
    data: Data = None,
    params_file: ParamsFile = None,
    scheduler: Scheduler = None,
    step_hours: Hours = STEP_HOURS,
    force: Force = False,
) -> list[str]:
    """Fetch the survey and select its clusters; does nothing while the sources are unchanged.

    Where a step of the release is not up to date afterwards, the deployment of release is started.

    Parameters
    ----------
    profile, survey, mirror, data, params_file, scheduler
        What to work on, and where: `flows.steps.Choices`.
    step_hours
        Longest time of one step.
    force
        Run even what is up to date.

    Returns
    -------
    list of str
        Names of the steps that ran.
    """
    choices = Choices(profile, survey, mirror, data, params_file, scheduler=scheduler)
    done = run_steps(RUNS["ingest"], choices, force=force, ask=True, hours=step_hours)
    start_release(choices)
    return done.names


if __name__ == "__main__":
    ingest()
