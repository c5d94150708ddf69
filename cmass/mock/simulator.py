"""The embedded simulator: one halo and its surroundings, from nothing but a seed."""

from __future__ import annotations

from cmass import cosmology as background
from cmass.cosmology import Cosmology
from cmass.mock import environment, luminosity, members
from cmass.mock.fields import Galaxies, HaloField
from cmass.params import Params
from cmass.seeds import generator


def describe_halo(log10_m200c: float, z: float, cosmology: Cosmology) -> members.Halo:
    """The halo's radius (comoving) and velocity at redshift `z`."""
    mass = 10**log10_m200c
    return members.Halo(
        log10_m200c,
        float(cosmology.r200c_mpc_h(mass, z)) * (1 + z),
        float(cosmology.v200c_km_s(mass, z)),
    )


def simulate_halo(
    halo_id: int, log10_m200c: float, distance_min_mpc_h: float, params: Params
) -> HaloField:
    """Simulate one halo with members, neighbours and field.

    A pure function of its arguments: the same halo comes out bit for bit in any
    order and in any number of workers.

    Parameters
    ----------
    halo_id : int
        Identity of the halo, which with ``params.seed`` seeds all that is drawn.
    log10_m200c : float
        log10 of M200c, h⁻¹ M☉.
    distance_min_mpc_h : float
        The nearest comoving distance from which it will be observed, h⁻¹ Mpc: sets
        the faintest galaxies that are drawn.
    params : Params
        ``params.mock`` holds the values of this halo, see `nuisance.draw`.

    Returns
    -------
    HaloField
    """
    mock = params.mock
    cosmology = background.from_params(params.cosmology)
    z = mock.snapshot_redshift
    halo = describe_halo(log10_m200c, z, cosmology)
    # Galaxies in front of the halo are nearer than the halo itself.
    nearest = max(distance_min_mpc_h - mock.environment.radius_mpc_h, 5.0)
    magnitude_max = luminosity.faintest_magnitude(nearest, cosmology, mock.galaxies)

    def stream(purpose: str):
        return generator(params.seed, purpose, halo_id)

    own = members.draw_members(
        halo, magnitude_max, mock.galaxies, mock.members, mock.environment, stream("members")
    )
    around = environment.draw_surroundings(
        halo, mock.environment, params.cosmology, cosmology, z, stream("structure")
    )
    neighbours = environment.draw_neighbours(around, stream("neighbours"))
    near = environment.draw_neighbour_galaxies(
        neighbours, magnitude_max, z, mock.galaxies, mock.members, cosmology,
        stream("neighbour-galaxies"),
    )  # fmt: skip
    field = environment.draw_field(
        around, magnitude_max, mock.galaxies, mock.members.extent_r200, stream("field")
    )
    return HaloField(halo_id, log10_m200c, z, Galaxies.join([own, near, field]), neighbours)
