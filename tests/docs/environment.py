"""Variables of the environment: what each is for, and what holds where it is not set."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: By name: who reads it, what holds where it is not set, and what it is for. Those of the service's
#: own settings (``CMASS_SERVICE_…``) are described where they are defined.
VARIABLES = {
    "CMASS_DATA": ("commands, flows", "`data`", "Data folder that holds every product"),
    "CMASS_REMOTE": ("commands, flows", "", "Where archived releases are pushed: any address that "
                     "`dvc remote add` takes, or a folder"),
    "MLFLOW_TRACKING_URI": ("commands, flows", "SQLite in the data folder",
                            "MLflow server that keeps runs and models"),
    "AWS_ENDPOINT_URL": ("commands, flows", "Amazon's", "S3 store behind `s3://` addresses"),
    "KERAS_BACKEND": ("commands, flows", "`tensorflow`", "`jax` trains on an NVIDIA GPU"),
    "CMASS_SCHEDULER": ("flows", "", "Dask scheduler of the flows, as the parameter `scheduler`"),
    "CMASS_ALARM_URL": ("flows, containers", "", "Webhook that hears of flows that fail"),
    "CMASS_POOL": ("flows, containers", "", "Work pool of Prefect that the deployments use"),
    "CMASS_HOME": ("flows, containers", "", "Folder with `flows/` and `params.yaml` that the worker runs in"),
    "CMASS_BUCKET": ("containers", "`cmass`", "Bucket of the S3 store for models and releases"),
    "CMASS_VERSION": ("containers", "`latest`", "Tag of the image"),
    "CMASS_POSTGRES_PASSWORD": ("containers", "must be set", "Password of the databases"),
    "CMASS_S3_KEY": ("containers", "must be set", "Access key of the S3 store"),
    "CMASS_S3_SECRET": ("containers", "must be set", "Secret key of the S3 store"),
    "CMASS_S3_PORT": ("containers", "8333", "Port of the S3 store on 127.0.0.1"),
    "CMASS_PREFECT_PORT": ("containers", "4200", "Port of Prefect on 127.0.0.1"),
    "CMASS_MLFLOW_PORT": ("containers", "5000", "Port of MLflow on 127.0.0.1"),
    "CMASS_VENV": ("SLURM scripts", "must be set", "Virtual environment with cmass, on every node"),
    "CMASS_RUN": ("SLURM scripts", "must be set", "Folder of the run, on a file system that every node mounts"),
    "CMASS_SLICES": ("SLURM scripts", "must be set", "Folder with `clusters-NNNN.parquet` and "
                     "`galaxies-NNNN.parquet`"),
}  # fmt: skip
#: Set by the service for its own programs, by nobody else.
_INTERNAL = {"CMASS_SERVICE_PROGRAM_OF"}
_PREFIX = "CMASS_SERVICE_"
_READ_BY = ("cmass", "flows", "deploy", "docker", "prefect.yaml", "Makefile", "dvc.yaml")


def used(root: Path = ROOT) -> set[str]:
    """Names of our variables that stand in code, scripts and containers, without the service's own."""
    names: set[str] = set()
    for place in _READ_BY:
        path = root / place
        files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
        for file in files:
            if file.suffix not in (".pyc", ".h5", ".npz", ".parquet", ".png"):
                names |= set(
                    re.findall(r"CMASS_[A-Z0-9_]*[A-Z0-9]", file.read_text("utf-8", "replace"))
                )
    service = {_PREFIX + name.upper() for name in service_settings()}
    return names - service - _INTERNAL - {_PREFIX.rstrip("_")}


def service_settings() -> dict[str, tuple[str, str]]:
    """Default and description of each setting of the service, by name."""
    from flows.service.settings import ServiceSettings

    found = {}
    for name, field in ServiceSettings.model_fields.items():
        default = field.default
        if isinstance(default, Path):
            default = default.relative_to(ROOT)
        found[name] = ("" if default is None else f"`{default}`", field.description or "")
    return found


def page() -> str:
    """docs/reference/environment.md."""
    ours = [
        f"| `{name}` | {readers} | {default} | {words} |"
        for name, (readers, default, words) in VARIABLES.items()
    ]
    service = [
        f"| `{_PREFIX}{name.upper()}` | {default} | {words} |"
        for name, (default, words) in service_settings().items()
    ]
    return "\n".join([
        "# Environment variables", "",
        "Nothing needs to be set. Options of a command win over the environment.", "",
        "| variable | read by | where it is not set | |", "|---|---|---|---|", *ours, "",
        "Passwords and keys (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, …) are read by the libraries that need "
        "them, and kept out of logs and files ([security](../security.md)).", "",
        "## The service", "",
        "Ports, folders and numbers of `make serve` ([operations](../operations.md#the-service)).", "",
        "| variable | default | |", "|---|---|---|", *service, "",
    ])  # fmt: skip
