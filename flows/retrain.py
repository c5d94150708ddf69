"""Make mocks, train and judge a model, without touching the survey."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.steps import Profile, run_steps

_STEPS = ("mock", "population", "split", "voxelize", "train", "posterior", "oddity", "evaluate",
          "rivals")  # fmt: skip


@flow(name="cmass-retrain", flow_run_name="retrain-{profile}")
def retrain(
    profile: Profile = "standard",
    data: Path = Path("data"),
    params_file: Path | None = None,
    force: bool = False,
) -> list[str]:
    """Make mocks, train and judge a model, without touching the survey.

    Parameters
    ----------
    profile
        Size of the run.
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
        _STEPS, profile=profile, survey="embedded", mirror=None, data=data, params_file=params_file,
        force=force,
    )  # fmt: skip
    return ran


if __name__ == "__main__":
    retrain()
