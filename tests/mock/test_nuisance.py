"""Nuisance parameters: drawn in their ranges, each on its own, never where switched off."""

from __future__ import annotations

import numpy as np
import pytest

from cmass.mock import nuisance
from cmass.params import MockParams

MOCK = MockParams()


def value(mock: MockParams, name: str) -> float:
    section, _, field = name.partition(".")
    return getattr(getattr(mock, section), field)


@pytest.mark.parametrize("name", sorted(MOCK.nuisance))
def test_draws_fill_their_range(name):
    half_width, middle = MOCK.nuisance[name], value(MOCK, name)
    drawn = np.array([nuisance.draw(MOCK, 7, halo)[1][name] for halo in range(400)])
    assert np.abs(drawn - middle).max() <= half_width
    # Uniform: standard deviation is the half width over √3, known to 3 % from 400 draws.
    assert drawn.std() == pytest.approx(half_width / np.sqrt(3), rel=0.12)
    settled, one = nuisance.draw(MOCK, 7, 5)
    assert value(settled, name) == one[name]


def test_what_is_drawn_for_one_does_not_depend_on_the_others():
    name = "environment.field_density"
    alone = MOCK.model_copy(update={"nuisance": {name: MOCK.nuisance[name]}})
    assert nuisance.draw(alone, 7, 5)[1][name] == nuisance.draw(MOCK, 7, 5)[1][name]


def test_an_ingredient_switched_off_stays_off():
    quiet = MOCK.environment.model_copy(update={"neighbour_bias": 0.0})
    mock, drawn = nuisance.draw(MOCK.model_copy(update={"environment": quiet}), 7, 5)
    assert mock.environment.neighbour_bias == 0.0
    assert "environment.neighbour_bias" not in drawn


def test_without_randomisation_nothing_is_drawn():
    fixed = MOCK.model_copy(update={"randomise_nuisance": False})
    assert nuisance.draw(fixed, 7, 5) == (fixed, {})
