"""A small simulation with known contents, written in each format that users have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from cmass.params import FilesParams, Params, SplitParams

BOX = 100.0
SCALE = 0.9567
#: Identifiers beyond 2^32, as in MDPL2.
FIRST_ID = 12_663_874_000

HLIST_HEADER = """\
#scale(0) id(1) desc_scale(2) desc_id(3) num_prog(4) pid(5) upid(6) desc_pid(7) phantom(8) \
sam_mvir(9) mvir(10) rvir(11) rs(12) vrms(13) mmp?(14) scale_of_last_MM(15) vmax(16) x(17) y(18) \
z(19) vx(20) vy(21) vz(22) Jx(23) Jy(24) Jz(25) Spin(26) Rs_Klypin(27) Mmvir_all(28) M200b(29) \
M200c(30) b_to_a(500c)(31) T/|U|
#Omega_M = 0.307115; Omega_L = 0.692885; h0 = 0.677700
#Full box size = 100.000000 Mpc/h
#Scale: Scale factor of halo.
#Pid: ID of least massive host halo (-1 if distinct halo).
#Mvir: Halo mass (Msun/h).
#X/Y/Z: Halo position (Mpc/h comoving).
#VX/VY/VZ: Halo velocity (km/s physical).
#M200b--M2500c: Mass enclosed within specified overdensities (Msun/h)
#A[x],A[y],A[z]: Largest shape ellipsoid axis (kpc/h comoving)
#Consistent Trees Version 1.01
"""


@dataclass
class Simulation:
    """Haloes (the last ones are subhaloes) and galaxies of a periodic box."""

    halo_id: np.ndarray
    pid: np.ndarray
    log10_m200c: np.ndarray
    halo_position: np.ndarray
    halo_velocity: np.ndarray
    host: np.ndarray
    kind: np.ndarray
    position: np.ndarray
    velocity: np.ndarray
    magnitude: np.ndarray


def simulate(n_haloes: int = 300, n_galaxies: int = 6000, seed: int = 5) -> Simulation:
    """Haloes at random places, galaxies around them, in a box of 100 Mpc/h."""
    random = np.random.default_rng(seed)
    n_sub = n_haloes // 10
    ids = FIRST_ID + random.permutation(n_haloes)
    mass = np.concatenate(
        [random.uniform(13.5, 15.1, n_haloes // 3), random.uniform(11.6, 13.5, n_haloes)]
    )[:n_haloes]
    pid = np.full(n_haloes, -1)
    pid[-n_sub:] = ids[:n_sub]
    position = np.round(BOX * random.random((n_haloes, 3)), 5) % BOX
    velocity = np.round(300 * random.standard_normal((n_haloes, 3)), 2)
    distinct = np.arange(n_haloes - n_sub)
    host = np.concatenate([distinct, random.choice(distinct, n_galaxies - len(distinct))])
    kind = np.where(np.arange(n_galaxies) < len(distinct), 0, random.integers(1, 3, n_galaxies))
    offset = random.standard_normal((n_galaxies, 3)) * np.where(kind == 0, 0, 1.0)[:, None]
    v = random.standard_normal((n_galaxies, 3)) * np.where(kind == 0, 0, 500.0)[:, None]
    return Simulation(
        ids, pid, mass, position, velocity, ids[host], kind,
        np.round((position[host] + offset) % BOX, 4) % BOX, np.round(velocity[host] + v, 2),
        np.round(np.maximum(-19.0 - random.exponential(1.2, n_galaxies), -26.0), 5),
    )  # fmt: skip


def write_hlist(path: Path, s: Simulation, header: str = HLIST_HEADER) -> Path:
    """ROCKSTAR haloes as consistent-trees writes them, padded with blanks."""
    lines = []
    for i, own in enumerate(s.halo_id):
        m = 10 ** s.log10_m200c[i]
        x, v = s.halo_position[i], s.halo_velocity[i]
        lines.append(
            f" {SCALE:.4f} {own:8d} 0.00000 {-1:8d} 1 {s.pid[i]:8d} {s.pid[i]:8d} -1 0 "
            f"{m:.5e} {m:.5e} 900.0 100.0 300.0 1 0.5000 500.0 "
            f"{x[0]:.5f} {x[1]:.5f} {x[2]:.5f} {v[0]:.2f} {v[1]:.2f} {v[2]:.2f} "
            f"1e10 1e10 1e10 0.03 90.0 {m:.4e} {1.2 * m:.4e} {m:.6e} 0.7 0.55\n"
        )
    path.write_text(header + "".join(lines))
    return path


def galaxy_columns(s: Simulation) -> dict[str, np.ndarray]:
    """SAG columns by their names in the HDF5 files."""
    return {
        "GalaxyType": s.kind, "HaloMass": np.zeros(len(s.kind)), "HostHaloID": s.host,
        "MainHaloID": s.host, "MagStarSDSSg": s.magnitude + 0.7, "MagStarSDSSr": s.magnitude,
        "Vx": s.velocity[:, 0], "Vy": s.velocity[:, 1], "Vz": s.velocity[:, 2],
        "X": s.position[:, 0], "Y": s.position[:, 1], "Z": s.position[:, 2],
    }  # fmt: skip


def write_csv(path: Path, columns: dict[str, np.ndarray]) -> Path:
    """A table as CosmoSim serves it: names in small letters."""
    rows = zip(*(c.tolist() for c in columns.values()), strict=True)
    lines = [",".join(map(repr, row)) for row in rows]
    head = ",".join(name.lower() for name in columns)
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


def write_hdf5(path: Path, columns: dict[str, np.ndarray], **units: str) -> Path:
    """A table as skiesanduniverses serves it: one dataset a column, units as attributes."""
    usual = {"X": "h-1Mpc", "Y": "h-1Mpc", "Z": "h-1Mpc", "Vx": "kms-1", "Vy": "kms-1"} | units
    with h5py.File(path, "w") as file:
        file.attrs["boxSize"] = BOX
        file.attrs["redshift"] = 1 / SCALE - 1
        for name, values in columns.items():
            file[name] = values
            file[name].attrs["unit"] = usual.get(name, "-")
    return path


def box_params(haloes, galaxies, n_windows: int = 60, **files) -> Params:
    """Parameters for the small box, with an observer that adds no errors of its own."""
    base = Params()
    given = {
        "haloes": tuple(map(str, haloes)), "galaxies": tuple(map(str, galaxies)),
        "box_size_mpc_h": BOX, "scale_factor": SCALE, "rows_in_memory": 1000,
    } | files  # fmt: skip
    observer = base.mock.observer.model_copy(
        update={
            "centre_kernel_mpc_h": 0.0, "offcentre_mpc_h": 0.0, "centre_velocity_v200": 0.0,
            "redshift_error_km_s": 0.0, "fibre_collision_arcsec": 0.0,
        }
    )  # fmt: skip
    galaxy = base.mock.galaxies.model_copy(
        update={"completeness": 1.0, "completeness_slope_per_mag": 0.0, "flux_limit_mag": 18.0}
    )
    wanted = base.mock.haloes.model_copy(
        update={
            "n_windows": n_windows, "log10_m200c_min": 13.7, "log10_m200c_max": 14.9,
            "sight_lines_max": 2,
        }
    )  # fmt: skip
    mock = base.mock.model_copy(
        update={
            "source": "rockstar-sag", "files": FilesParams(**given), "observer": observer,
            "galaxies": galaxy, "haloes": wanted, "haloes_per_shard": 10,
        }
    )  # fmt: skip
    split = SplitParams(train=20, test=10, evaluation=10)
    return base.model_copy(update={"mock": mock, "workers": 1, "split": split})
