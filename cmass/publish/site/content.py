"""What a release holds, as the pages of its site show it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cmass.columns import FLAGS, Flag
from cmass.cosmology import line_of_sight_velocity_km_s
from cmass.file_names import file_names
from cmass.posterior import reweight
from cmass.sky import unit_vectors
from cmass.tables import read_json, readable, rows_by_cluster, to_numpy

#: Other clusters nearer than this are neighbours: proper distance in the plane of the sky, and velocity.
NEIGHBOUR_MPC_H, NEIGHBOUR_KM_S = 20.0, 3000.0
#: Neighbours shown, the nearest first.
_NEIGHBOURS_MAX = 12


@dataclass(frozen=True)
class Estimate:
    """A mass of a cluster by one method, log10 h⁻¹ M☉: value and ends of its 68 % interval."""

    name: str
    words: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Neighbour:
    """Another cluster nearby: its place in the release, and how far off it is."""

    place: int
    separation_deg: float
    separation_mpc_h: float
    velocity_km_s: float


@dataclass(frozen=True)
class Cluster:
    """One cluster with all that the release says of it.

    Attributes
    ----------
    place : int
        Its row in table `masses`.
    name : str
        Name of its files, safe everywhere.
    row : dict
        Its row of `masses`, without the posterior, and what `clusters` adds to that.
    flags : tuple of Flag
    galaxy_id : ndarray of int64, shape (n,)
    points : ndarray, shape (n, 3)
        x, y (Mpc/h) and v (km/s) of the galaxies.
    flat, hmf : ndarray or None
        Posterior probability a bin under the flat and the mass-function prior.
    xray : dict or None
        Its row of `xray_matches`.
    """

    place: int
    name: str
    row: dict[str, Any]
    flags: tuple[Flag, ...]
    galaxy_id: np.ndarray
    points: np.ndarray
    flat: np.ndarray | None
    hmf: np.ndarray | None
    xray: dict[str, Any] | None
    neighbours: tuple[Neighbour, ...] = field(default=())

    @property
    def id(self) -> str:
        """Identifier of the cluster."""
        return str(self.row["cluster_id"])

    @cached_property
    def estimates(self) -> list[Estimate]:
        """Masses by every method that the release has for it."""
        r = self.row
        found = [
            self._quantiles("flat", "Posterior, flat prior", "log10_m200c"),
            self._quantiles("hmf", "Posterior, mass-function prior", "log10_m200c_hmf"),
            self._plain("point", "Network’s point estimate", r.get("log10_m200c")),
            self._plain("galweight", "GalWeight", r.get("log10_m200_galweight"),
                        r.get("log10_m200_galweight_err")),
            self._plain("dispersion", "Velocity dispersion (σ–M)", r.get("log10_m200c_dispersion")),
        ]  # fmt: skip
        if self.xray is not None and (value := self.xray["log10_m200c_xray"]) is not None:
            low, high = (self.xray[f"log10_m200c_xray_err_{end}"] for end in ("lower", "upper"))
            words = f"X-ray ({self.xray['xray_name']})"
            found.append(
                Estimate("xray", words, value, None if low is None else value - low,
                         None if high is None else value + high)
            )  # fmt: skip
        return [one for one in found if one is not None]

    def _quantiles(self, name: str, words: str, column: str) -> Estimate | None:
        low, value, high = (self.row.get(f"{column}_{q}") for q in ("p16", "p50", "p84"))
        return None if value is None else Estimate(name, words, value, low, high)

    @staticmethod
    def _plain(
        name: str, words: str, value: float | None, error: float | None = None
    ) -> Estimate | None:
        if value is None:
            return None
        ends = (None, None) if error is None else (value - error, value + error)
        return Estimate(name, words, value, *ends)


@dataclass(frozen=True)
class Release:
    """A release, read for its site.

    Attributes
    ----------
    folder : Path
    facts : dict
        Its ``provenance.json``.
    tables : dict of pyarrow.Table
        Its Parquet files by name.
    clusters : list of Cluster
        In the order of table `masses`.
    edges : ndarray
        Edges of the bins of posteriors, log10 h⁻¹ M☉.
    """

    folder: Path
    facts: dict[str, Any]
    tables: dict[str, pa.Table]
    clusters: list[Cluster]
    edges: np.ndarray

    @property
    def about(self) -> dict[str, Any]:
        """Version, survey, profile and date."""
        release: dict[str, Any] = self.facts["release"]
        return release

    @property
    def simulated(self) -> bool:
        """Whether its sky is the simulator's."""
        return bool(self.about["survey"] == "embedded")


def read_release(folder: Path) -> Release:
    """Read a release that `check_sums` has found whole."""
    tables = {}
    for file in sorted(folder.glob("*.parquet")):
        with readable(file):
            tables[file.stem] = pq.read_table(file)
    grid = tables["posterior_grid"]
    low, high = (grid[f"log10_m200c_{end}"].to_numpy() for end in ("low", "high"))
    edges = np.append(low, high[-1:])
    return Release(
        folder, read_json(folder / "provenance.json"), tables, _clusters(tables), edges
    )  # fmt: skip


def _clusters(tables: dict[str, pa.Table]) -> list[Cluster]:
    masses, galaxies = tables["masses"], tables["galaxies"]
    ids = masses["cluster_id"].to_pylist()
    names = file_names(ids)
    more = {row["cluster_id"]: row for row in tables["clusters"].to_pylist()}
    rows = [more.get(r["cluster_id"], {}) | r for r in masses.drop(["posterior"]).to_pylist()]
    order, offsets = rows_by_cluster(galaxies, masses["cluster_id"])
    galaxy_ids = galaxies["galaxy_id"].to_numpy()[order]
    points = np.column_stack([c[order] for c in to_numpy(galaxies, "x_proj", "y_proj", "v_los")])
    grid = tables["posterior_grid"]
    priors = [grid[f"prior_{name}"].to_numpy() for name in ("flat", "hmf")]
    posteriors = [np.asarray(p or [], float) for p in masses["posterior"].to_pylist()]
    xray = _xray(tables.get("xray_matches"))
    neighbours = _neighbours(rows)
    found = []
    for place, row in enumerate(rows):
        here = slice(offsets[place], offsets[place + 1])
        flat = posteriors[place] if posteriors[place].size else None
        hmf = None if flat is None else reweight(flat[None, :], *priors)[0]
        if hmf is not None and not np.isfinite(hmf).all():
            hmf = None  # nothing of it lies where that prior reaches
        flags = tuple(flag for flag in FLAGS.values() if row["flag"] & flag.value)
        found.append(
            Cluster(place, names[ids[place]], row, flags, galaxy_ids[here], points[here], flat, hmf,
                    xray.get(ids[place]), neighbours[place])
        )  # fmt: skip
    return found


def _xray(matches: pa.Table | None) -> dict[str, dict[str, Any]]:
    """The X-ray cluster that each cluster was matched with."""
    if matches is None:
        return {}
    return {row["cluster_id"]: row for row in matches.to_pylist() if row["accepted"]}


def _neighbours(rows: list[dict[str, Any]]) -> list[tuple[Neighbour, ...]]:
    """Other clusters near each one, the nearest in the plane of the sky first."""
    from scipy.spatial import cKDTree

    if not rows:
        return []
    ra, dec, z = (np.array([row[name] for row in rows], float) for name in ("ra", "dec", "z"))
    distance = np.array([row.get("distance_mpc_h") or np.nan for row in rows], float)
    proper = distance / (1 + z)
    vectors = unit_vectors(ra, dec)
    known = np.isfinite(proper) & np.isfinite(vectors).all(axis=1)
    places = np.flatnonzero(known)
    if not places.size:
        return [()] * len(rows)
    tree = cKDTree(vectors[places])
    angle = np.minimum(NEIGHBOUR_MPC_H / proper[places], np.pi)
    near = tree.query_ball_point(vectors[places], 2 * np.sin(angle / 2) * (1 + 1e-12))
    found: list[tuple[Neighbour, ...]] = [()] * len(rows)
    for place, others in zip(places, near, strict=True):
        other = places[[o for o in others if places[o] != place]]
        chord = np.linalg.norm(vectors[other] - vectors[place], axis=1)
        separation = 2 * np.arcsin(np.minimum(chord / 2, 1))
        velocity = line_of_sight_velocity_km_s(z[other], z[place])
        rank = sorted(
            zip(separation, velocity, other, strict=True), key=lambda one: (one[0], int(one[2]))
        )
        found[place] = tuple(
            Neighbour(int(o), float(np.degrees(s)), float(s * proper[place]), float(v))
            for s, v, o in rank if abs(v) <= NEIGHBOUR_KM_S
        )[:_NEIGHBOURS_MAX]  # fmt: skip
    return found
