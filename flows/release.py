"""Masses by the champion, to a released catalogue; the first run makes a champion."""

from __future__ import annotations

from prefect import flow

from cmass.pipeline import release_steps
from flows.steps import (
    STEP_HOURS,
    Archive,
    Choices,
    Data,
    Force,
    Hours,
    Mirror,
    ParamsFile,
    Profile,
    Ran,
    Scheduler,
    Survey,
    archive_release,
    flow_options,
    publish_results,
    run_steps,
)


@flow(**flow_options("release"))
def release(
    profile: Profile = None,
    survey: Survey = None,
    mirror: Mirror = None,
    data: Data = None,
    params_file: ParamsFile = None,
    scheduler: Scheduler = None,
    step_hours: Hours = STEP_HOURS,
    force: Force = False,
    archive: Archive = None,
) -> list[str]:
    """Masses by the champion, to a released catalogue; the first run makes a champion.

    The headline numbers become an artifact on the run's page.

    Parameters
    ----------
    profile, survey, mirror, data, params_file, scheduler
        What to work on, and where: `flows.steps.Choices`.
    step_hours
        Longest time of one step.
    force
        Run even what is up to date.
    archive
        Keep the latest release with all that it was made of (`cmass archive`). By default where its
        code is committed in a clone; a release that was made with False is not kept by a later run.

    Returns
    -------
    list of str
        Names of the steps that ran.
    """
    choices = Choices(profile, survey, mirror, data, params_file, scheduler=scheduler)

    def then(done: Ran) -> None:
        publish_results(done.workspace)
        archive_release(done, archive)

    return run_steps(release_steps, choices, force=force, hours=step_hours, then=then).names


if __name__ == "__main__":
    release()
