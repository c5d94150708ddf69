"""Fetch the survey and select its clusters; does nothing while the sources are unchanged."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.steps import Profile, Survey, run_steps

_STEPS = ("ingest", "select")


@flow(name="cmass-ingest", flow_run_name="ingest-{profile}")
def ingest(
    profile: Profile = "standard",
    survey: Survey = "sdss",
    mirror: Path | None = None,
    data: Path = Path("data"),
    params_file: Path | None = None,
    force: bool = False,
) -> list[str]:
    """Fetch the survey and select its clusters; does nothing while the sources are unchanged.

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
    _, ran = run_steps(
        _STEPS, profile=profile, survey=survey, mirror=mirror, data=data, params_file=params_file,
        force=force,
    )  # fmt: skip
    return ran


if __name__ == "__main__":
    ingest()
