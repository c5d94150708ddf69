"""The mistakes that people make with positions are recognised, each by what undoes it."""

from __future__ import annotations

import numpy as np
import pytest

from cmass.estimation.hints import how_far, mistake
from cmass.params import Params
from tests.estimation.test_estimate import sky

PARAMS = Params()
NAMES = (("RA", "DE"), ("alpha", "delta"))


def tables():
    clusters, galaxies = sky()
    return [[np.asarray(t[c], float) for c in ("ra", "dec", "z")] for t in (clusters, galaxies)]


def swap(ra, dec):
    return dec, ra


#: What was done to a table, and what undoes it.
MISTAKES = {
    "swapped": (swap, "--column {t}.ra={dec} --column {t}.dec={ra}"),
    "hours": (lambda ra, dec: (ra / 15, dec), "'{t}.ra={ra}[hourangle]'"),
    "radians": (
        lambda ra, dec: (np.radians(ra), np.radians(dec)),
        "'{t}.ra={ra}[rad]' --column '{t}.dec={dec}[rad]'",
    ),
    "sign": (lambda ra, dec: (ra, -dec), "dec of the {t} has lost its sign"),
}


# A lost sign is the same mistake on either table.
@pytest.mark.parametrize(
    ("name", "which"), [(n, w) for n in MISTAKES for w in (0, 1) if (n, w) != ("sign", 1)]
)
def test_a_mistake_is_named_with_its_remedy(name, which):
    both = tables()
    spoil, remedy = MISTAKES[name]
    ra, dec, z = both[which]
    both[which] = [*spoil(ra, dec), z]
    told = mistake(tuple(both[0]), tuple(both[1]), NAMES, PARAMS.window, PARAMS.cosmology)
    table = ("clusters", "galaxies")[which]
    if name == "sign":
        assert "has lost its sign" in told
    else:
        assert remedy.format(t=table, ra=NAMES[which][0], dec=NAMES[which][1]) in told


def test_good_tables_have_no_mistake():
    clusters, galaxies = tables()
    assert not mistake(tuple(clusters), tuple(galaxies), NAMES, PARAMS.window, PARAMS.cosmology)


def test_how_far_the_galaxies_are_is_told():
    clusters, galaxies = (tuple(t) for t in tables())
    away = (galaxies[0], np.full_like(galaxies[1], 85.0), galaxies[2])
    assert "deg away (median)" in how_far(clusters, away)
    far = (galaxies[0], galaxies[1], galaxies[2] + 0.5)
    assert "redshifts lie between 0.5" in how_far(clusters, far)
    assert "clusters come first" in how_far(galaxies, clusters)
    assert "few galaxies" in how_far(clusters, galaxies)
