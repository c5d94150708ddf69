"""Make the model that ships from a finished run: ``python -m cmass.pretrained [DATA]``."""

from __future__ import annotations

import sys
from pathlib import Path

from cmass.params import load_params
from cmass.pretrained import SHIPPED, make_bundle
from cmass.software import git_state
from cmass.workspace import Workspace


def main(data: str = "data") -> None:
    """Copy the standard network of the data folder, with its provenance, into the package."""
    params = load_params()
    state = git_state()
    commit = f"{state.get('git_commit', 'unknown')} ({state.get('git_state', 'no clone')})"
    make_bundle(
        Workspace(Path(data), params.profile, params.survey), params, SHIPPED, commit=commit
    )
    for file in sorted(SHIPPED.glob("[!_]*.*")):
        sys.stdout.write(f"{file}  {file.stat().st_size / 1e3:.0f} KB\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
