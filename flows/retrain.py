"""Make mocks, train a challenger and judge it."""

from __future__ import annotations

from prefect import flow

from cmass.pipeline import RUNS
from flows.steps import (
    STEP_HOURS,
    Choices,
    Data,
    Force,
    Hours,
    ParamsFile,
    Profile,
    Scheduler,
    Seed,
    Survey,
    flow_options,
    run_steps,
    start_release,
)


@flow(**flow_options("retrain"))
def retrain(
    profile: Profile = None,
    survey: Survey = None,
    data: Data = None,
    params_file: ParamsFile = None,
    seed: Seed = None,
    scheduler: Scheduler = None,
    step_hours: Hours = STEP_HOURS,
    force: Force = False,
) -> list[str]:
    """Make mocks, train a challenger and judge it.

    Nothing is trained where parameters, code and `seed` are those of the last training. A challenger that
    passes its gates becomes the champion, and the deployment of release is started; the masses of a
    refused one are nobody's.

    Parameters
    ----------
    profile, survey, data, params_file, seed, scheduler
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
    choices = Choices(profile, survey, None, data, params_file, seed, scheduler)
    done = run_steps(RUNS["retrain"], choices, force=force, hours=step_hours)
    start_release(choices)
    return done.names


if __name__ == "__main__":
    retrain()
