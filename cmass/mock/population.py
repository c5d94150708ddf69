"""population: the windows that a survey would find, to be compared with those it found.

The training mocks are flat in log mass and show many sight lines of a rare halo: right for a
network, wrong for a comparison with the sky. Here every halo is seen once, from a place that is
uniform in the survey's volume. The sample is still flat in log mass, so that rare haloes are there;
`weights` say how many such haloes the universe holds.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmass.mass_function import mass_function
from cmass.mock import observe_plans
from cmass.mock.haloes import HaloPlan
from cmass.params import Params
from cmass.seeds import generator
from cmass.workspace import Workspace

log = logging.getLogger(__name__)

#: Halo ids of the population start here, so that no halo is one of the mocks or the survey.
FIRST_HALO_ID = 2_000_000_000

#: Parameter sections that the population depends on.
SECTIONS = ("seed", "cosmology", "window", "mock", "population")


def plan_population(params: Params) -> list[HaloPlan]:
    """Haloes flat in log mass, one sight line each, in random order."""
    population = params.population
    n = population.n_windows
    random = generator(params.seed, "population-masses")
    # One halo in each of n equal parts of the distribution: flat without Poisson noise.
    u = (random.permutation(n) + random.random(n)) / n
    low, high = population.log10_m200c_min, population.log10_m200c_max
    return [HaloPlan(FIRST_HALO_ID + i, float(low + (high - low) * v), 1) for i, v in enumerate(u)]


def one_universe(params: Params) -> Params:
    """`params` without nuisance parameters drawn per halo, unless the population asks for them.

    Whatever the simulator's unknown parameters are, they are the same for all clusters of a sky:
    drawn anew for each halo they would add a scatter that no sky has.
    """
    drawn = params.mock.randomise_nuisance and params.population.randomise_nuisance
    mock = params.mock.model_copy(update={"randomise_nuisance": drawn})
    return params.model_copy(update={"mock": mock})


def weights(log10_m200c_true: ArrayLike, params: Params) -> NDArray[np.float64]:
    """How many haloes of the universe a window of the population stands for.

    Parameters
    ----------
    log10_m200c_true : (n,)
        log10 M200c of the windows' haloes, h⁻¹ M☉.
    params : Params

    Returns
    -------
    ndarray, (n,)
        Comoving number density, h³ Mpc⁻³, of haloes that one window represents: the mass
        function (Tinker+2008) over the density of the sampling. Times a comoving volume it is a
        number of haloes.
    """
    population = params.population
    per_dex = population.n_windows / (population.log10_m200c_max - population.log10_m200c_min)
    masses = np.asarray(log10_m200c_true, float)
    return mass_function(masses, params.mock.snapshot_redshift, params.cosmology) / per_dex


def run(workspace: Workspace, params: Params) -> None:
    """Make the population: ``population/clusters`` and ``population/galaxies``, in shards.

    It is always the embedded simulator's: a box has one halo of a rare mass where the comparison
    needs many.
    """
    if params.mock.source != "embedded":
        log.warning(
            "population: mocks come from %s, but the realism report and the expected comparison "
            "are made with the embedded simulator, not with those files", params.mock.source,
        )  # fmt: skip
    plans = plan_population(params)
    observe_plans(plans, workspace.population, one_universe(params), SECTIONS, "population")
    log.info("population: %d windows", len(plans))
