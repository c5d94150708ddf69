"""Sources of haloes: the embedded simulator, or a box of simulation files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cmass.mock.fields import HaloField
from cmass.mock.haloes import HaloPlan, plan_haloes
from cmass.mock.simulator import simulate_halo
from cmass.params import Params
from cmass.workspace import Workspace


@dataclass(frozen=True)
class Remark:
    """Rows of a source that are set aside or doubtful, counted.

    Attributes
    ----------
    item : str
        What they are: ``halo``, ``galaxy``, ``window``.
    reason : str
        Why they are named.
    n : int
        How many.
    text : str
        The first of them, so that it can be found.
    """

    item: str
    reason: str
    n: int
    text: str


class Source(Protocol):
    """What the observer needs: which haloes, and what is around each. Must pickle."""

    @property
    def identity(self) -> str:
        """Digest of what the source holds, beside the parameters."""

    @property
    def uses(self) -> tuple[str, ...]:
        """Beginnings of the names, under ``mock``, of the parameters that act on its windows."""

    def plan(self, params: Params) -> list[HaloPlan]:
        """The haloes to observe, in an order that is good to work in."""

    def field(self, plan: HaloPlan, distance_min_mpc_h: float, params: Params) -> HaloField:
        """One halo with all around it that is seen from a comoving distance or farther.

        ``params.mock`` holds the values of this halo, see `nuisance.draw`.
        """

    def remarks(self) -> list[Remark]:
        """What was set aside, with reasons and counts; after `plan`."""


@dataclass(frozen=True)
class EmbeddedSource:
    """The embedded simulator: each halo a pure function of seed and number."""

    identity: str = ""
    uses: tuple[str, ...] = ("environment.", "members.", "galaxies.", "observer.")

    def plan(self, params: Params) -> list[HaloPlan]:
        """Haloes flat in log mass (see `plan_haloes`)."""
        return plan_haloes(params)

    def field(self, plan: HaloPlan, distance_min_mpc_h: float, params: Params) -> HaloField:
        """The simulated field of one halo (see `simulate_halo`)."""
        return simulate_halo(plan.halo_id, plan.log10_m200c, distance_min_mpc_h, params)

    def remarks(self) -> list[Remark]:
        """Nothing is set aside."""
        return []


def open_source(workspace: Workspace, params: Params) -> Source:
    """The source that ``mock.source`` names; simulation files are sorted first."""
    if params.mock.source == "embedded":
        return EmbeddedSource()
    from cmass.mock.boxes import open_box

    return open_box(workspace, params)
