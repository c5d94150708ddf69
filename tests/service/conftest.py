"""The service that `make serve` started; without it these tests are skipped."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def service():
    """Settings of the running service."""
    pytest.importorskip("supervisor")
    from flows.service.service import look
    from flows.service.settings import ServiceSettings

    settings = ServiceSettings.of_running()
    found = look(settings)
    if not found:
        pytest.skip(f"no service runs in {settings.home}: make serve")
    assert not {one.name: one.trouble for one in found if not one.well}
    return settings


@pytest.fixture
def folder(service) -> Iterator[Path]:
    """A folder that every process of the service can reach, gone afterwards."""
    (service.home / "test").mkdir(exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=service.home.resolve() / "test", prefix="run-"))
    yield path
    shutil.rmtree(path)
