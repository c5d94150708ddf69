"""``python -m flows.service start|stop|status|backup|restore``: what ``make serve`` calls."""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from cmass.errors import CmassError, ParameterError
from flows.service.settings import ServiceSettings

app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True,
                  pretty_exceptions_enable=False)  # fmt: skip


def _urls(settings: ServiceSettings) -> None:
    rows = {
        "Prefect": settings.prefect_api.removesuffix("/api"),
        "MLflow": settings.mlflow_url,
        "S3": f"{settings.s3_url}  (bucket {settings.bucket})",
        "Dask": settings.scheduler,
        "PostgreSQL": f"127.0.0.1:{settings.postgres_port}",
        "environment": f"set -a; . {settings.home / 'worker.env'}; set +a",
        "logs": str(settings.logs),
    }
    for name, value in rows.items():
        typer.echo(f"  {name:<12} {value}")


@app.command("start")
def start_command() -> None:
    """Start what does not run, and wait until all is well."""
    from flows.service.service import start

    begin = time.monotonic()
    settings = ServiceSettings()
    if start(settings):
        typer.echo(f"The service runs, after {time.monotonic() - begin:.0f} s:")
    else:
        typer.echo("The service runs already:")
    _urls(ServiceSettings.of_running(settings.home))


@app.command("stop")
def stop_command() -> None:
    """Stop everything; databases and objects stay."""
    from flows.service.service import stop

    stopped = stop(ServiceSettings.of_running())
    typer.echo("The service is stopped." if stopped else "The service does not run.")


@app.command("backup")
def backup_command(
    folder: Annotated[Path, typer.Argument(help="a folder that is not there yet")],
) -> None:
    """Write databases and objects of the running service into a folder."""
    from flows.service.backup import make

    found = make(ServiceSettings.of_running(), folder)
    size = sum((folder / name).stat().st_size for name in found["sha256"])
    typer.echo(f"{folder}: {len(found['sha256'])} files, {size / 1e6:.1f} MB")


@app.command("restore")
def restore_command(
    folder: Annotated[Path, typer.Argument(help="what backup wrote")],
) -> None:
    """Start a new service with what a backup holds."""
    from flows.service.service import start

    settings = ServiceSettings()
    start(settings, folder)
    typer.echo("The service runs, as it was when the backup was made:")
    _urls(settings)


@app.command("status")
def status_command(
    as_json: Annotated[bool, typer.Option("--json", help="for a monitor")] = False,
) -> None:
    """Say how every program is; exit code 1 if one is not well, 3 if nothing runs."""
    from flows.service.service import look

    settings = ServiceSettings.of_running()
    found = look(settings)
    if as_json:
        typer.echo(json.dumps([asdict(one) | {"well": one.well} for one in found], indent=1))
        raise typer.Exit(0 if found and all(one.well for one in found) else 1 if found else 3)
    if not found:
        typer.echo("The service does not run: make serve")
        raise typer.Exit(3)
    typer.echo(f"{'program':<15}{'state':<10}{'process':>8}{'MB':>7}{'minutes':>9}  health")
    for one in found:
        typer.echo(
            f"{one.name:<15}{one.state:<10}{one.pid:>8}{one.memory_mb:>7.0f}"
            f"{one.seconds / 60:>9.1f}  {one.trouble or 'well'}"
        )
    _urls(settings)
    raise typer.Exit(0 if all(one.well for one in found) else 1)


@app.command("register")
def register_command() -> None:
    """Register the deployments again, after a change of prefect.yaml."""
    from flows.service.service import register

    register(ServiceSettings.of_running())


@app.command("run", hidden=True)
def run_command(name: Annotated[str, typer.Argument()]) -> None:
    """Become one program; the supervisor calls this."""
    from flows.service.processes import become

    become(ServiceSettings.of_running(), name)


def main() -> None:
    """Run the command; errors that a user can act on are one message and an exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # every question and its answer
    try:
        app()
    except CmassError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except ValidationError as error:
        for one in error.errors():
            name = "".join(f"CMASS_SERVICE_{part}".upper() for part in one["loc"]) or "settings"
            typer.echo(f"error: {name}: {one['msg']}, not {one['input']!r}", err=True)
        sys.exit(ParameterError.exit_code)


if __name__ == "__main__":
    main()
