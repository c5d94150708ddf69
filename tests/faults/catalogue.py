"""Every fault, by name, in the order of the table."""

from __future__ import annotations

from tests.faults import (
    clock,
    damage,
    disk,
    kills,
    network,
    readers,
    registry,
    service,
    sources,
)
from tests.faults.stage import Fault

_MODULES = (kills, disk, sources, damage, registry, network, clock, readers, service)
FAULTS: dict[str, Fault] = {one.name: one for module in _MODULES for one in module.FAULTS}
