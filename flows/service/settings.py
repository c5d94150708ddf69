"""Where the service keeps its things, on which ports it listens, and its secrets."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from cmass.errors import WorkspaceError

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
#: SeaweedFS and its own parts talk at the port so much above the one that is given.
_GRPC = 10_000
#: What is generated once, and kept in ``secrets.env``.
SECRETS = ("PGPASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


class ServiceSettings(BaseSettings):
    """Ports and folders, each from ``CMASS_SERVICE_<NAME>`` where that is set.

    Attributes
    ----------
    home : Path
        Everything the service writes, its databases and objects included.
    data : Path
        Data folder of the flows (``CMASS_DATA`` of the worker).
    name : str
        Prefix of the work pool, so that two services can share a Prefect server.
    """

    model_config = SettingsConfigDict(env_prefix="CMASS_SERVICE_", extra="forbid")

    home: Path = Field(ROOT / "data" / "service", description="what the service writes")
    data: Path = Field(ROOT / "data", description="data folder of the flows")
    pool: str = Field("cmass", description="work pool of Prefect")
    postgres_port: int = Field(5442, ge=1024, le=65535, description="PostgreSQL")
    postgres_user: str | None = Field(
        None,
        description="user that runs PostgreSQL where we are root; by default postgres or nobody",
    )
    s3_port: int = Field(8333, ge=1024, le=55535, description="S3 (SeaweedFS)")
    s3_master_port: int = Field(9333, ge=1024, le=55535, description="SeaweedFS, its master")
    s3_volume_port: int = Field(9334, ge=1024, le=55535, description="SeaweedFS, its volumes")
    s3_filer_port: int = Field(9335, ge=1024, le=55535, description="SeaweedFS, its filer")
    prefect_port: int = Field(4200, ge=1024, le=65535, description="Prefect")
    mlflow_port: int = Field(5000, ge=1024, le=65535, description="MLflow")
    dask_port: int = Field(8786, ge=1024, le=65535, description="Dask scheduler")
    worker_port: int = Field(4210, ge=1024, le=65535, description="health of the Prefect worker")
    dask_workers: int = Field(2, ge=1, description="processes that make shards")
    mlflow_workers: int = Field(1, ge=1, description="processes of MLflow")
    bucket: str = Field("cmass", description="bucket for models and releases")
    start_timeout_s: float = Field(300, gt=0, description="time for everything to be healthy")

    @model_validator(mode="after")
    def _all_ports_differ(self) -> Self:
        ports = list(self.ports().values())
        twice = sorted({p for p in ports if ports.count(p) > 1})
        if twice:
            raise ValueError(f"two servers would listen on port {twice[0]}")
        return self

    def ports(self) -> dict[str, int]:
        """Every port that is listened on, by the setting it comes from."""
        names = [name for name in type(self).model_fields if name.endswith("_port")]
        given = {name: int(getattr(self, name)) for name in names}
        inner = {f"{n} + {_GRPC}": p + _GRPC for n, p in given.items() if n.startswith("s3_")}
        return given | inner

    @property
    def prefect_api(self) -> str:
        """Address of Prefect's API."""
        return f"http://{HOST}:{self.prefect_port}/api"

    @property
    def mlflow_url(self) -> str:
        """Address of MLflow."""
        return f"http://{HOST}:{self.mlflow_port}"

    @property
    def s3_url(self) -> str:
        """Address of the S3 store."""
        return f"http://{HOST}:{self.s3_port}"

    @property
    def scheduler(self) -> str:
        """Address of the Dask scheduler."""
        return f"tcp://{HOST}:{self.dask_port}"

    @property
    def logs(self) -> Path:
        """Logs, one file a server."""
        return self.home / "logs"

    @property
    def postgres(self) -> Path:
        """Database files."""
        return self.home / "postgres"

    @property
    def secrets_file(self) -> Path:
        """Passwords and keys, for nobody but the owner."""
        return self.home / "secrets.env"

    @property
    def kept(self) -> Path:
        """The settings that the running service was started with."""
        return self.home / "settings.json"

    def keep(self) -> None:
        """Write the settings, so that status and stop speak of the service that runs."""
        self.kept.write_text(self.model_dump_json(indent=1) + "\n")

    @classmethod
    def of_running(cls, home: Path | None = None) -> ServiceSettings:
        """Settings of the service that was started in `home`; those of now where there is none."""
        now = cls() if home is None else cls(home=home)
        try:
            text = now.kept.read_text()
        except FileNotFoundError:
            return now
        return cls.model_validate_json(text)


def own_secrets(settings: ServiceSettings) -> dict[str, str]:
    """Passwords and keys of the service; made when first asked for, with mode 0600."""
    path = settings.secrets_file
    if not path.exists():
        settings.home.mkdir(parents=True, exist_ok=True)
        values = {
            "PGPASSWORD": secrets.token_urlsafe(24),
            "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
            "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30),
        }
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(opened, "w") as stream:
            stream.writelines(f"{name}={value}\n" for name, value in values.items())
    if (mode := path.stat().st_mode & 0o077) != 0:
        raise WorkspaceError(
            f"{path} can be read by others (mode {mode:03o} beyond the owner): chmod 600 {path}"
        )
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    found = {name: value for name, _, value in pairs}
    lacking = [n for n in SECRETS if not found.get(n)]
    if lacking:
        raise WorkspaceError(
            f"{path} lacks {', '.join(lacking)}. The databases were made with it: restore it from a "
            f"backup, or remove {settings.home} and lose what the service kept"
        )
    return found


def worker_environment(settings: ServiceSettings) -> dict[str, str]:
    """What a process needs to work with the service; without the password of the database."""
    found = own_secrets(settings)
    return {
        "PREFECT_API_URL": settings.prefect_api,
        "MLFLOW_TRACKING_URI": settings.mlflow_url,
        "AWS_ENDPOINT_URL": settings.s3_url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": found["AWS_ACCESS_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": found["AWS_SECRET_ACCESS_KEY"],
        "CMASS_REMOTE": f"s3://{settings.bucket}/dvc",
        "CMASS_SCHEDULER": settings.scheduler,
        "CMASS_DATA": str(settings.data.resolve()),
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "cmass",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }


def taken_ports(settings: ServiceSettings) -> dict[str, int]:
    """Those of the service's ports that somebody else listens on."""
    taken = {}
    for name, port in settings.ports().items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                taken[name] = port
    return taken
