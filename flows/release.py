"""Run every step, to a released catalogue."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from cmass.pipeline import STEPS
from flows.steps import Profile, Survey, publish_headline, run_steps

_STEPS = tuple(s.name for s in STEPS)


@flow(name="cmass-release", flow_run_name="release-{profile}")
def release(
    profile: Profile = "standard",
    survey: Survey = "embedded",
    mirror: Path | None = None,
    data: Path = Path("data"),
    params_file: Path | None = None,
    force: bool = False,
) -> list[str]:
    """Run every step, to a released catalogue.

    The headline numbers become an artifact on the run's page.

    Parameters
    ----------
    profile
        Size of the run.
    survey, mirror
        Survey that gets masses; folder that stands in for the network.
    data
        Data folder.
    params_file
        Parameters; by default ``params.yaml`` of the working folder.
    force
        Run even what is up to date.

    Returns
    -------
    list of str
        Names of the steps that ran.
    """
    workspace, ran = run_steps(
        _STEPS, profile=profile, survey=survey, mirror=mirror, data=data, params_file=params_file,
        force=force,
    )  # fmt: skip
    publish_headline(workspace)
    return ran


if __name__ == "__main__":
    release()
