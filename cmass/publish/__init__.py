"""publish: what people touch: the released catalogue, its database, report and model card."""

from __future__ import annotations

from cmass.publish.release import run

__all__ = ["run"]
