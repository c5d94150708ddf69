"""Register the deployments of ``prefect.yaml`` and, with ``CMASS_ALARM_URL``, the alarm.

``python -m flows.service.deployments`` takes everything from the environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from cmass.errors import CmassError
from flows.service.settings import ROOT


def register(environment: Mapping[str, str]) -> None:
    """Register with the server that ``PREFECT_API_URL`` names.

    Raises
    ------
    CmassError
        Prefect refuses; with the end of what it says.
    """
    known = os.environ | dict(environment)
    known.setdefault("CMASS_HOME", str(ROOT))
    commands = [["-m", "prefect", "--no-prompt", "deploy", "--all"]]
    if known.get("CMASS_ALARM_URL"):
        commands.append(["-m", "flows.alarm"])
    for words in commands:
        done = subprocess.run(
            [sys.executable, *words],
            env=known,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        if done.returncode:
            raise CmassError(f"{' '.join(words)} failed:\n{(done.stdout + done.stderr)[-1500:]}")


if __name__ == "__main__":
    register({})
