"""Every fault, by name, in the order of the table."""

from __future__ import annotations

from tests.faults import damage, disk, kills, readers, registry
from tests.faults.stage import Fault

FAULTS: dict[str, Fault] = {
    one.name: one
    for one in (*kills.FAULTS, *disk.FAULTS, *damage.FAULTS, *registry.FAULTS, *readers.FAULTS)
}
