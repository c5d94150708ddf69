"""Masses must fit radii, by the definition of both: a lost factor of h shows at once."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa

from cmass.columns import GALWEIGHT_OVERDENSITIES
from cmass.cosmology import GRAVITY_MPC_KM2_S2_MSUN, Cosmology
from cmass.errors import InputError
from cmass.tables import to_numpy

log = logging.getLogger(__name__)
#: Largest deviation of the median mass from that of its radius.
MASS_RATIO_TOLERANCE = 0.10


def mass_radius_ratio(table: pa.Table, cosmology: Cosmology) -> dict[str, float]:
    """Median of M / (Δ/2 H(z)² r³ / G) with h = 1, by overdensity Δ as in column names.

    Parameters
    ----------
    table : pa.Table
        Table raw_clusters.
    cosmology : Cosmology
        For H(z)/H0.

    Returns
    -------
    dict
        One ratio for each overdensity that has masses and radii; 1 where the units fit.
    """
    ratios = {}
    for name in GALWEIGHT_OVERDENSITIES:
        mass, radius, z = to_numpy(table, f"m{name}_msun_h", f"r{name}_mpc_h", "z")
        known = (mass > 0) & (radius > 0)
        if not known.any():
            continue
        hubble = 100.0 * cosmology.e(z[known])
        delta = float(name.replace("p", "."))
        expected = 0.5 * delta * hubble**2 * radius[known] ** 3 / GRAVITY_MPC_KM2_S2_MSUN
        ratios[name] = float(np.median(mass[known] / expected))
    return ratios


def check_units(table: pa.Table, cosmology: Cosmology, h: float, file: str | None = None) -> None:
    """Raise `InputError` where the masses of table raw_clusters do not fit its radii.

    Parameters
    ----------
    table : pa.Table
    cosmology : Cosmology
    h : float
        H0/(100 km/s/Mpc), to say which factor is missing.
    file : str, optional
        For the error.
    """
    for name, ratio in mass_radius_ratio(table, cosmology).items():
        if abs(ratio - 1) <= MASS_RATIO_TOLERANCE:
            continue
        # A quantity without its h⁻¹ is larger or smaller by 1/h.
        causes = {
            "the masses are in Msun, not Msun/h: multiply them by h": 1 / h,
            "the masses were multiplied by h twice: divide them by h": h,
            "the radii are in Mpc, not Mpc/h: multiply them by h": h**3,
            "the radii were multiplied by h twice: divide them by h": h**-3,
            "masses and radii are in Msun and Mpc: multiply both by h": h**2,
            "masses and radii were multiplied by h twice: divide both by h": h**-2,
        }
        cause, expected = min(causes.items(), key=lambda item: abs(np.log(ratio / item[1])))
        guess = f"It looks as if {cause}" if abs(np.log(ratio / expected)) < 0.1 else (
            "No power of h explains the ratio: check the units and the columns"
        )  # fmt: skip
        raise InputError(
            f"masses or radii lack the factor h: the median M{name} is {ratio:.3f} times the mass "
            f"that r{name} gives ({name.replace('p', '.')}/2 H(z)² r³/G with h = 1)",
            file=file, column=f"m{name}_msun_h, r{name}_mpc_h", value=round(ratio, 3),
            remedy=guess,
        )  # fmt: skip


def check_xray_units(table: pa.Table, file: str | None = None) -> None:
    """Raise `InputError` where the masses of table xray_clusters do not fit its radii.

    M500 = 250 H(z)² R500³ / G in the catalogue's own cosmology, by definition; a factor of h
    lost from either shows as 0.7 or 0.7³.

    Parameters
    ----------
    table : pa.Table
    file : str, optional
        For the error.
    """
    from cmass.ingest.xray import H70, OMEGA_M

    mass, radius, z = to_numpy(table, "m500_h70_msun", "r500_h70_mpc", "z")
    hubble = 100 * H70 * np.sqrt(OMEGA_M * (1 + z) ** 3 + 1 - OMEGA_M)
    ratio = mass / (250 * hubble**2 * radius**3 / GRAVITY_MPC_KM2_S2_MSUN)
    median = float(np.median(ratio))
    if abs(median - 1) > MASS_RATIO_TOLERANCE:
        raise InputError(
            f"X-ray masses do not fit their radii: the median M500 is {median:.3g} times 250 H(z)² "
            "R500³/G with H0 = 70 km/s/Mpc",
            file=file, column="m500_h70_msun, r500_h70_mpc", value=round(median, 3),
            remedy="M500 is in 10^14 Msun and R500 in Mpc, both without h; check the units",
        )  # fmt: skip
    for row in np.flatnonzero(np.abs(ratio - 1) > MASS_RATIO_TOLERANCE):
        log.warning(
            "%s: M500 of %s is %.2f times what its R500 gives; both are kept as they stand",
            file or "X-ray clusters", table["xray_name"][int(row)].as_py(), ratio[row],
        )  # fmt: skip
