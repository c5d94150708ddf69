"""trial: the latest training weighs the survey, before anyone relies on it."""

from __future__ import annotations

from cmass import infer
from cmass.evaluate import realism
from cmass.params import Params
from cmass.workspace import Workspace


def run(workspace: Workspace, params: Params) -> None:
    """Masses of the survey and realism of the mocks, by the latest training, below ``trial/``."""
    trial = workspace.seen_as("trial")
    infer.run(trial, params)
    realism.run(trial, params)
