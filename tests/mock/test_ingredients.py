"""The ingredients: all of them are there, and what is switched off is gone."""

from __future__ import annotations

from pathlib import Path

import annotated_types
import numpy as np
import pytest
from pydantic import BaseModel

from cmass import cosmology as background
from cmass.columns import NOT_CATALOGUED
from cmass.errors import ParameterError
from cmass.mock import nuisance, observe_halo
from cmass.mock.haloes import HaloPlan
from cmass.mock.ingredients import (
    EVERYTHING,
    INGREDIENTS,
    Ingredient,
    ingredient,
    list_in_markdown,
    without,
)
from cmass.mock.simulator import simulate_halo
from cmass.params import MockParams, Params

PARAMS = Params()
#: Sections of the simulator under ``mock``; `haloes` says which haloes, not how they look.
SECTIONS = ("galaxies", "members", "environment", "observer")
#: Amplitudes that are no ingredients, and why.
NO_INGREDIENT = {
    "galaxies.satellite_amplitude": "a halo without satellites is no cluster",
}


def leaves(model: type[BaseModel], prefix: str = "") -> dict[str, object]:
    """Every parameter by dotted name."""
    found: dict[str, object] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= leaves(kind, f"{prefix}{name}.")
        else:
            found[prefix + name] = field
    return found


LEAVES = leaves(MockParams)


def switches() -> list[str]:
    """Parameters with an off: booleans, and amplitudes that may be 0."""
    found = []
    for name, field in LEAVES.items():
        zero = any(isinstance(m, annotated_types.Ge) and m.ge == 0 for m in field.metadata)
        amplitude = zero and isinstance(field.default, float) and name.partition(".")[0] in SECTIONS
        if field.annotation is bool or amplitude:
            found.append(name)
    return found


@pytest.mark.parametrize("one", INGREDIENTS.values(), ids=lambda i: i.name)
def test_an_ingredient_names_parameters_that_exist(one: Ingredient):
    assert one.words
    assert one.source
    assert one.name.isidentifier()
    assert one.name != EVERYTHING
    for name in (*one.off, *one.parameters):
        assert name in LEAVES, name
    assert without(PARAMS, one) != PARAMS


@pytest.mark.parametrize("name", switches())
def test_every_switch_belongs_to_an_ingredient(name):
    known = {n for i in INGREDIENTS.values() for n in (*i.off, *i.parameters)}
    assert name in known or name in NO_INGREDIENT


def test_some_parameter_is_a_switch():
    assert {"members.anisotropy", "galaxies.richness_scatter_dex"} <= set(switches())
    assert set(NO_INGREDIENT) <= set(switches())


@pytest.mark.parametrize("one", INGREDIENTS.values(), ids=lambda i: i.name)
def test_switching_off_changes_what_is_observed(one: Ingredient):
    # One rich cluster; only next to many groups is there a heavier halo on the same spot.
    plans = [HaloPlan(17, 14.6, 3)]
    if one.name == "unique_centres":
        plans = [HaloPlan(i, 13.0, 1) for i in range(40)]

    def catalogued(params: Params) -> list[list[float]]:
        seen = [pair for plan in plans for pair in zip(*observe_halo(plan, params), strict=True)]
        return [g["v_los"].tolist() for row, g in seen if row["flag"] & NOT_CATALOGUED == 0]

    assert catalogued(PARAMS) != catalogued(without(PARAMS, one))


def field(*names: str):
    """A halo without some ingredients, and with nothing drawn."""
    params = PARAMS
    for name in (*names, "nuisance_randomisation"):
        params = without(params, ingredient(name))
    return simulate_halo(3, 14.6, 100.0, params)


def own(halo) -> np.ndarray:
    return halo.galaxies.host_log10_m200c == halo.log10_m200c


def r200_mpc_h() -> float:
    """Comoving R200c of the halo of `field`."""
    cosmology = background.from_params(PARAMS.cosmology)
    z = PARAMS.mock.snapshot_redshift
    return float(cosmology.r200c_mpc_h(10**14.6, z)) * (1 + z)


def test_without_the_field_every_galaxy_has_a_halo():
    assert np.isnan(simulate_halo(3, 14.6, 100.0, PARAMS).galaxies.host_log10_m200c).any()
    assert not np.isnan(field("uniform_field").galaxies.host_log10_m200c).any()


def test_without_splashback_leaders_lie_inside_r200():
    """Subgroups reach out by their own size; without them too, nothing lies outside."""
    halo = field("splashback", "substructure", "triaxial_shape")
    r = np.linalg.norm(halo.galaxies.position_mpc_h[own(halo)], axis=1)
    assert len(r) > 50
    assert r.max() <= r200_mpc_h() * (1 + 1e-9)


def test_without_infall_dispersion_and_flow_neighbours_rest():
    halo = field("mean_infall", "infall_dispersion", "coherent_flow")
    assert len(halo.neighbours) > 100
    np.testing.assert_array_equal(halo.neighbours.velocity_km_s, 0.0)
    # structure is what streams
    halo = field("mean_infall", "infall_dispersion", "structure")
    np.testing.assert_allclose(halo.neighbours.velocity_km_s, 0.0, atol=1e-6)


def test_without_clustering_and_structure_neighbours_are_uniform():
    """As many inside half the radius as an eighth of the volume holds, less exclusion."""
    halo = field("correlated_neighbours", "structure")
    r = np.linalg.norm(halo.neighbours.position_mpc_h, axis=1)
    radius = PARAMS.mock.environment.radius_mpc_h
    expected = (r > radius / 2).sum() / 7
    # four Poisson deviations; exclusion takes 0.1 % of the inner volume
    assert (r < radius / 2).sum() == pytest.approx(expected, abs=4 * np.sqrt(expected))


@pytest.mark.parametrize("one", INGREDIENTS.values(), ids=lambda i: i.name)
def test_what_is_off_is_not_drawn(one: Ingredient):
    mock = without(PARAMS, one).mock
    changed, drawn = nuisance.draw(mock, 1, 2)
    assert not drawn.keys() & one.off.keys()
    for dotted, value in one.off.items():
        place: object = changed
        for part in dotted.split("."):
            place = getattr(place, part)
        assert place == value
    if one.name == "nuisance_randomisation":
        assert not drawn
    else:
        assert len(drawn) >= len(PARAMS.mock.nuisance) - len(one.off)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ParameterError, match="no ingredient 'salt'; choose from correlated"):
        ingredient("salt")


@pytest.mark.parametrize(
    ("off", "words"),
    [
        ({"members.anisotropi": False}, "anisotropi"),
        ({"member.anisotropy": False}, "member"),
        ({"members.velocity_scatter": -1.0}, "velocity_scatter"),
    ],
)
def test_an_override_that_is_no_parameter_is_an_error(off, words):
    with pytest.raises(ParameterError, match=words):
        without(PARAMS, Ingredient("slip", "a slip", "nowhere", off))


def test_the_documentation_lists_the_ingredients():
    text = (Path(__file__).parents[2] / "docs" / "mocks.md").read_text(encoding="utf-8")
    _, _, rest = text.partition("<!-- begin ingredients -->\n")
    assert rest.partition("\n<!-- end ingredients -->")[0] == list_in_markdown()
