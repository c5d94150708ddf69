"""The ingredients of the simulator, and how to do without each of them.

Every ingredient has a name, a sentence of physics, a source, and the parameters that
switch it off. ``cmass study ingredients`` makes mocks without one after the other and
says what it was worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from cmass.errors import ParameterError
from cmass.params import MockParams, Params

#: Name of the simulator with nothing switched off.
EVERYTHING = "everything"


@dataclass(frozen=True)
class Ingredient:
    """One part of the simulator that can be left out.

    Attributes
    ----------
    name : str
        Words joined by underscores: a folder of the study has this name.
    words : str
        What it is, in one line of physics.
    source : str
        Where its form or its numbers come from.
    off : mapping of str to value
        Parameters that switch it off, by dotted name under ``mock``.
    parameters : tuple of str
        Other parameters under ``mock`` that shape it and do nothing once it is off.
    """

    name: str
    words: str
    source: str
    off: Mapping[str, Any]
    parameters: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The name in words."""
        return self.name.replace("_", " ")


def _ingredient(
    name: str, words: str, source: str, off: dict[str, Any], parameters: str = ""
) -> Ingredient:
    return Ingredient(name, words, source, MappingProxyType(off), tuple(parameters.split()))


_INGREDIENTS = (
    _ingredient(
        "correlated_neighbours",
        "haloes and field galaxies clustered around the halo with b_c b_h ξ(r), beyond exclusion",
        "Tinker+2010",
        {"environment.neighbour_bias": 0.0},
        "environment.field_bias environment.correlation_length_mpc_h "
        "environment.correlation_slope environment.correlation_max_mpc_h",
    ),
    _ingredient(
        "filaments",
        "neighbours in filaments that end in the halo; without them all around it",
        "Colberg+2005",
        {"environment.filaments": 0.0},
        "environment.filament_fraction environment.filament_width_mpc_h",
    ),
    _ingredient(
        "uniform_field",
        "galaxies outside resolved haloes: the Schechter function less what haloes hold",
        "Blanton+2003",
        {"environment.field_density": 0.0},
    ),
    _ingredient(
        "structure",
        "background that follows the linear overdensity, and streams with it; without it uniform",
        "Coles & Jones 1991",
        {"environment.structure_amplitude": 0.0},
        "environment.structure_smoothing_mpc_h environment.structure_cells",
    ),
    _ingredient(
        "coherent_flow",
        "bulk motions that neighbours share, by linear theory",
        "linear theory",
        {"environment.flow": 0.0},
    ),
    _ingredient(
        "mean_infall",
        "mean motion towards the halo, from its edge to far beyond turnaround",
        "SPEC section 3",
        {"environment.infall_v200": 0.0},
        "environment.infall_slope environment.infall_scale_r200 environment.infall_amplitude",
    ),
    _ingredient(
        "infall_dispersion",
        "random motions of neighbours and field galaxies, larger near the halo",
        "SPEC section 3",
        {"environment.dispersion_km_s": 0.0, "environment.dispersion_v200": 0.0},
    ),
    _ingredient(
        "splashback",
        "members beyond R200c, falling in or on their way out; without it radii end there",
        "More+2015",
        {"members.extent_r200": 1.0},
        "members.outflow_fraction",
    ),
    _ingredient(
        "substructure",
        "members in subgroups that move together",
        "SPEC section 3",
        {"members.substructure_fraction": 0.0},
        "members.substructure_size members.substructure_radius_r200 "
        "members.substructure_dispersion_v200",
    ),
    _ingredient(
        "triaxial_shape",
        "ellipsoids, randomly turned, instead of spheres",
        "Jing & Suto 2002",
        {"members.axis_ratio_mean": (1.0, 1.0), "members.axis_ratio_scatter": 0.0},
        "members.axis_ratio_min",
    ),
    _ingredient(
        "anisotropy",
        "orbits more radial outside: β(r) = r/(2 (r + r_−2))",
        "Mamon & Łokas 2005",
        {"members.anisotropy": False},
    ),
    _ingredient(
        "sigma_scatter",
        "scatter of the velocity dispersion at fixed mass",
        "SPEC section 3",
        {"members.velocity_scatter": 0.0},
    ),
    _ingredient(
        "richness_scatter",
        "scatter of the number of satellites at fixed mass, beyond Poisson's",
        "SPEC section 3",
        {"galaxies.richness_scatter_dex": 0.0},
    ),
    _ingredient(
        "central_scatter",
        "scatter of the luminosity of centrals at fixed mass; a third of it stays",
        "Yang+2008",
        # The field is what haloes leave over, in mass bins that no narrower centrals would fill.
        {"galaxies.central_scatter_dex": 0.05},
    ),
    _ingredient(
        "concentration_scatter",
        "scatter of the concentration at fixed mass",
        "Bullock+2001",
        {"members.concentration_scatter_dex": 0.0},
    ),
    _ingredient(
        "finder_centre",
        "centre at the density peak that a finder sees; without it at the halo's",
        "GalWeight's finder",
        {"observer.centre_kernel_mpc_h": 0.0},
        "observer.centre_kernel_km_s",
    ),
    _ingredient(
        "unique_centres",
        "haloes seen on top of a more massive one are in no catalogue; without it both are",
        "any finder",
        {"observer.separation": 0.0},
    ),
    _ingredient(
        "off_centring",
        "error of the centre on the sky, beside the finder's",
        "SPEC section 3",
        {"observer.offcentre_mpc_h": 0.0},
    ),
    _ingredient(
        "centre_velocity_error",
        "error of the centre's redshift, beside the finder's",
        "SPEC section 3",
        {"observer.centre_velocity_v200": 0.0},
    ),
    _ingredient(
        "redshift_errors",
        "errors of the galaxies' redshifts",
        "SDSS spectroscopy",
        {"observer.redshift_error_km_s": 0.0},
    ),
    _ingredient(
        "k_correction",
        "K-correction and evolution between absolute and apparent magnitudes",
        "Blanton+2003",
        {"galaxies.k_slope": 0.0, "galaxies.k_constant": 0.0, "galaxies.evolution": 0.0},
    ),
    _ingredient(
        "fibre_collisions",
        "of two galaxies nearer than 55 arcsec only one has a fibre, unless plates overlap",
        "Blanton+2005",
        {"observer.fibre_collision_arcsec": 0.0},
        "observer.fibre_collision_recovered",
    ),
    _ingredient(
        "incompleteness",
        "galaxies without a redshift, at random or because they are bright",
        "SDSS spectroscopy",
        {"galaxies.completeness": 1.0, "galaxies.completeness_slope_per_mag": 0.0},
    ),
    _ingredient(
        "nuisance_randomisation",
        "what the sky does not pin down is drawn per halo; without it, the middle of every range",
        "SPEC section 3",
        {"randomise_nuisance": False},
        "nuisance",
    ),
)

#: Every ingredient by name.
INGREDIENTS: Mapping[str, Ingredient] = MappingProxyType({i.name: i for i in _INGREDIENTS})


def ingredient(name: str) -> Ingredient:
    """Return the ingredient called `name`.

    Raises
    ------
    ParameterError
        There is none of that name; the message lists those there are.
    """
    if name not in INGREDIENTS:
        raise ParameterError(f"no ingredient {name!r}; choose from {', '.join(INGREDIENTS)}")
    return INGREDIENTS[name]


def without(params: Params, one: Ingredient) -> Params:
    """Parameters of the simulator without one ingredient.

    A parameter that has the value of an ingredient switched off is not drawn per halo either.

    Raises
    ------
    ParameterError
        An override names no parameter, or its value is not allowed.
    """
    values = params.mock.model_dump()
    for dotted, value in one.off.items():
        *sections, last = dotted.split(".")
        place = values
        for section in sections:
            place = place.get(section, {})
        place[last] = value
        if dotted in values["nuisance"]:
            values["nuisance"][dotted] = 0.0
    try:
        mock = MockParams.model_validate(values)
    except ValidationError as error:
        raise ParameterError(f"ingredient {one.name}: {error}") from error
    missing = [dotted for dotted in one.off if not _exists(mock, dotted)]
    if missing:
        raise ParameterError(f"ingredient {one.name}: no parameter {', '.join(missing)} under mock")
    return params.model_copy(update={"mock": mock})


def _exists(mock: MockParams, dotted: str) -> bool:
    value: Any = mock
    for part in dotted.split("."):
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True


def list_in_markdown() -> str:
    """Table of the ingredients for the documentation."""
    lines = [
        "| ingredient | what it is | source | switched off by, under `mock` |",
        "|---|---|---|---|",
    ]
    for one in INGREDIENTS.values():
        off = ", ".join(f"`{name}: {_yaml(value)}`" for name, value in one.off.items())
        lines.append(f"| {one.title} | {one.words} | {one.source} | {off} |")
    return "\n".join(lines)


def _yaml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"
