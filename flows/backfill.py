"""Run one step, whatever its stamp says."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from prefect import flow

from cmass.pipeline import STEPS
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
    said,
)

#: A list to choose from on Prefect's page.
StepName = StrEnum("StepName", [(s.name, s.name) for s in STEPS])  # type: ignore[misc]


@flow(**flow_options("backfill"))
def backfill(
    name: Annotated[StepName, said("The step")],
    profile: Profile = None,
    survey: Survey = None,
    mirror: Mirror = None,
    data: Data = None,
    params_file: ParamsFile = None,
    scheduler: Scheduler = None,
    step_hours: Hours = STEP_HOURS,
    force: Force = True,
) -> list[str]:
    """Run one step, whatever its stamp says.

    Parameters
    ----------
    name
        The step.
    profile, survey, mirror, data, params_file, scheduler
        What to work on, and where: `flows.steps.Choices`.
    step_hours
        Longest time of the step.
    force
        Run it even if it is up to date.

    Returns
    -------
    list of str
        Its name if it ran.
    """
    choices = Choices(profile, survey, mirror, data, params_file, scheduler=scheduler)
    return run_steps((name.value,), choices, force=force, hours=step_hours).names


if __name__ == "__main__":
    import sys

    backfill(StepName(sys.argv[1]))
