"""Words that the report uses, explained for those who open it first."""

from __future__ import annotations

from cmass.params import Params


def glossary(params: Params) -> list[tuple[str, str]]:
    """Terms of the report and what they mean in it."""
    half, v_max = params.window.half_width_mpc_h, params.window.v_max_km_s
    haloes = params.mock.haloes
    return [
        ("M200c", "Mass inside the sphere whose mean density is 200 times the critical density at "
         "the cluster’s redshift; R200 is the sphere’s radius, V200 the speed of a circular orbit "
         "there. Masses are log₁₀ of h⁻¹ M☉; a dex is a factor of ten."),
        ("Window", f"The galaxies within {half:g} h⁻¹ Mpc of a cluster’s centre on the sky (along "
         f"each of two axes) and {v_max:g} km/s in velocity: all that the network reads. Their "
         "number is the richness of the window."),
        ("Mock", "A window that the simulator makes around a halo of known mass, seen as the survey "
         "would see it. The training and validation sets fit the network, the test set calibrates "
         "its posteriors, and the evaluation set, which neither has seen, judges both."),
        ("Interloper", "A galaxy in the window that does not belong to the cluster."),
        ("Point estimate", "The network’s answer, one number."),
        ("Posterior", "How probable each mass is, given the point estimate. Its prior is flat in log "
         f"mass from {haloes.log10_m200c_min:g} to {haloes.log10_m200c_max:g}; a second prior is "
         "the mass function of haloes. Plain posteriors are made as in the paper, recalibrated ones "
         "are corrected with the test set. Where the catalogue is compared with others, its masses "
         "are medians of recalibrated posteriors."),
        ("ε", "log₁₀(M_true/M_pred) of a mock: positive where the mass is underestimated. Its "
         "scatter is the standard deviation, its robust scatter half the width of the central 68 %."),
        ("Coverage", "How often the true mass lies inside an interval of given probability. Perfect "
         "posteriors cover as often as they say, up to the chance that finite sets leave; such sets "
         "are simulated, and what 95 % of them show is drawn in grey."),
        ("CRPS", "Continuous ranked probability score: the mean distance between posterior and truth, "
         "in dex; smaller is better. The log posterior density at the truth is larger for better "
         "posteriors."),
        ("GalWeight", "The catalogue of SDSS clusters of Abdullah et al. (2020), whose masses follow "
         "from the virial theorem. A virial or proxy mass is our imitation of it, which is measured "
         "on mocks and on the survey alike."),
        ("Pull", "Our log mass less GalWeight’s, over their combined error."),
        ("Forward model", "What a comparison would give if the mocks were exactly right: the "
         "population of haloes, selected as the catalogue is and measured with the same errors. "
         "Priors and selection move means away from zero there as well."),
        ("Even and odd clusters", "Halves of the survey by the cluster’s number: the even ones "
         "calibrated the simulator, the odd ones are held out."),
        ("σ–M", "The plain rival: mass by a power of the velocity dispersion, fitted to the same "
         "mocks."),
        ("eq. 6, eq. 7", "Equations of the paper: the distance of two clusters in phase space (in "
         "units of R200 and V200), and scatter as a part that falls with the number of members "
         "(σ_N) and one that does not (σ₀)."),
    ]  # fmt: skip
