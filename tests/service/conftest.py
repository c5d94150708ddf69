"""The service that `make serve` started; without it these tests are skipped."""

from __future__ import annotations

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
