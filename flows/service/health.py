"""Whether a server does its work: each function returns, or raises with the reason."""

from __future__ import annotations

import socket
import urllib.request
from contextlib import closing
from typing import TYPE_CHECKING

from flows.service.settings import HOST, own_secrets

if TYPE_CHECKING:
    from flows.service.settings import ServiceSettings

#: Time for one answer, seconds.
ANSWER_S = 10.0


class NotWellError(Exception):
    """A server answers, but not as it should."""


def answers(url: str) -> None:
    """A GET of `url` gives 200."""
    with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
        if answer.status != 200:
            raise NotWellError(f"{url} answers {answer.status}")


def listens(port: int) -> None:
    """Somebody takes connections on `port`."""
    socket.create_connection((HOST, port), timeout=ANSWER_S).close()


def postgres(settings: ServiceSettings, database: str) -> None:
    """PostgreSQL answers a query with our password."""
    import psycopg2

    connection = psycopg2.connect(
        host=HOST, port=settings.postgres_port, user="cmass", dbname=database,
        password=own_secrets(settings)["PGPASSWORD"], connect_timeout=int(ANSWER_S),
    )  # fmt: skip
    with closing(connection), connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def s3(settings: ServiceSettings) -> None:
    """The store answers a request with our keys."""
    store(settings).list_buckets()


def store(settings: ServiceSettings):  # type: ignore[no-untyped-def]  # boto3 has no types
    """A client of the S3 store."""
    import boto3
    from botocore.config import Config

    found = own_secrets(settings)
    return boto3.client(
        "s3", endpoint_url=settings.s3_url, region_name="us-east-1",
        aws_access_key_id=found["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=found["AWS_SECRET_ACCESS_KEY"],
        config=Config(connect_timeout=ANSWER_S, read_timeout=ANSWER_S, retries={"max_attempts": 1}),
    )  # fmt: skip


def dask(settings: ServiceSettings) -> None:
    """As many workers as asked for are with the scheduler."""
    from distributed import Client

    with Client(settings.scheduler, timeout=ANSWER_S, set_as_default=False) as client:
        found = len(client.scheduler_info(n_workers=-1)["workers"])
    if found < settings.dask_workers:
        raise NotWellError(f"{found} of {settings.dask_workers} Dask workers are there")
