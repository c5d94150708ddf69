"""What the sky does not pin down: drawn anew for each halo, so that a network learns what it cannot
know and its posteriors include the simulator's own uncertainty."""

from __future__ import annotations

from cmass.params import MockParams
from cmass.seeds import generator


def draw(mock: MockParams, seed: int, halo_id: int) -> tuple[MockParams, dict[str, float]]:
    """The parameters of one halo.

    Each name in ``mock.nuisance`` is drawn uniformly within its half width of the value it has. A
    parameter that is 0 is an ingredient switched off, and stays so.

    Parameters
    ----------
    mock : MockParams
    seed : int
        The run's seed. Every parameter has a stream of its own: what is drawn for one does not
        depend on which others are drawn.
    halo_id : int

    Returns
    -------
    mock : MockParams
        With the drawn values in their places.
    drawn : dict of str to float
        The same by dotted name below ``mock``.
    """
    drawn: dict[str, float] = {}
    sections: dict[str, dict[str, float]] = {}
    for name, half_width in mock.nuisance.items() if mock.randomise_nuisance else ():
        section, _, field = name.partition(".")
        value = getattr(getattr(mock, section), field)
        if value and half_width:
            u = generator(seed, f"nuisance {name}", halo_id).uniform(-1.0, 1.0)
            drawn[name] = value + half_width * float(u)
            sections.setdefault(section, {})[field] = drawn[name]
    changed = {
        name: getattr(mock, name).model_copy(update=fields) for name, fields in sections.items()
    }
    return mock.model_copy(update=changed), drawn
