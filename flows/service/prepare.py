"""The bucket and MLflow's tables, made once before two servers make them together.

``python -m flows.service.prepare`` takes addresses and keys from the environment, for the containers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from cmass.errors import CmassError


def create_bucket(store: Any, name: str) -> None:
    """Make a bucket where it is missing."""
    if name not in {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}:
        store.create_bucket(Bucket=name)


def upgrade_mlflow(address: str, environment: Mapping[str, str]) -> None:
    """Bring MLflow's tables to this version.

    Raises
    ------
    CmassError
        MLflow cannot; with the end of what it says.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "mlflow", "db", "upgrade", address],
            env=os.environ | dict(environment) | {"MLFLOW_DISABLE_TELEMETRY": "true"},
            capture_output=True, text=True, check=False, cwd=folder,
        )  # fmt: skip
    if done.returncode:
        raise CmassError(f"mlflow db upgrade failed: {done.stderr.strip()[-800:]}")


if __name__ == "__main__":
    import boto3

    create_bucket(boto3.client("s3"), os.environ.get("CMASS_BUCKET", "cmass"))
    upgrade_mlflow(os.environ["MLFLOW_BACKEND_STORE_URI"], {})
