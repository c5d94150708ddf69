"""fibres: what galaxies without a fibre do to the masses.

Two spectra on one plate are 55 arcsec apart at least. Windows of the run's evaluation set are observed
with collisions, as all mocks are, and without any; then velocities are dropped, from mocks and from
the survey's windows: those inside 55 arcsec of the centre (the paper's extreme case, section 2.2), or
one of each pair nearer than that.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cmass import cosmology, mock, pretrained
from cmass.estimators.windows import Windows, mock_windows, survey_windows
from cmass.evaluate import metrics
from cmass.mock.haloes import plan_haloes
from cmass.mock.observer import fibre_collisions
from cmass.params import Params
from cmass.pretrained import Bundle
from cmass.seeds import generator
from cmass.shards import digest_of
from cmass.study import Study, documents
from cmass.study.scores import table_of
from cmass.study.sightlines import weigh_points
from cmass.study.units import Unit
from cmass.tables import points_by_cluster, read_table
from cmass.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

#: What is dropped of a window.
NOTHING, CORE, PAIRS = "nothing", "core", "pairs"
_DROPPED = {
    NOTHING: "nothing", CORE: "all inside 55″ of the centre", PAIRS: "one of each pair within 55″",
}  # fmt: skip
#: How the windows were observed.
WITH, WITHOUT = "with collisions", "without collisions"


def on_sky_arcsec(windows: Windows, q0: float) -> Array:
    """Offsets (n_points, 2) of galaxies from the centre of their window, arcsec."""
    distance = cosmology.q0_angular_distance_mpc_h(windows.z, q0)
    per_mpc = np.degrees(1 / distance) * 3600
    return windows.points[:, :2] * np.repeat(per_mpc, windows.n_galaxies)[:, None]


def keep_core_out(windows: Windows, radius_arcsec: float, q0: float) -> NDArray[np.bool_]:
    """Galaxies (n_points,) farther than `radius_arcsec` from the centre of their window."""
    return np.hypot(*on_sky_arcsec(windows, q0).T) > radius_arcsec


def keep_one_of_pairs(
    windows: Windows, least_arcsec: float, q0: float, seed: int
) -> NDArray[np.bool_]:
    """Galaxies (n_points,) that get a fibre where no other plate recovers the losers.

    As the simulator's observer decides (see `fibre_collisions`), window by window.
    """
    sky = on_sky_arcsec(windows, q0)
    kept = np.ones(len(sky), bool)
    for i, (a, b) in enumerate(zip(windows.offsets[:-1], windows.offsets[1:], strict=True)):
        random = generator(seed, "study-fibres", i)
        kept[a:b] = fibre_collisions(sky[a:b, 0], sky[a:b, 1], least_arcsec, 0.0, random)
    return kept


def only(windows: Windows, kept: NDArray[np.bool_]) -> Windows:
    """The windows with some of their galaxies, `kept` (n_points,)."""
    before = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    return replace(windows, points=windows.points[kept], offsets=before[windows.offsets])


def drop(windows: Windows, what: str, params: Params) -> Windows:
    """Windows without the galaxies that `NOTHING`, `CORE` or `PAIRS` names."""
    least, q0 = params.mock.observer.fibre_collision_arcsec, params.cosmology.q0
    if what == CORE:
        return only(windows, keep_core_out(windows, least, q0))
    if what == PAIRS:
        return only(windows, keep_one_of_pairs(windows, least, q0, params.seed))
    return windows


def observed_without(workspace: Workspace, params: Params, windows: Windows) -> Windows:
    """The same sight lines on the same haloes, had every galaxy a fibre.

    A cluster whose window then has too few galaxies, which collisions cannot undo, or another
    number of sight lines is an error of this code, not a case.
    """
    observer = params.mock.observer.model_copy(update={"fibre_collision_arcsec": 0.0})
    changed = params.mock.model_copy(update={"observer": observer, "haloes_per_shard": 50})
    complete = params.model_copy(update={"mock": changed})
    wanted = set(windows.halo_id.tolist())
    plans = [p for p in plan_haloes(params) if p.halo_id in wanted]
    # Which haloes are observed is no parameter: it is in the name.
    name = f"mock-{digest_of(sorted(wanted))[:16]}"
    folder = workspace.study / "profile" / "fibres" / name
    for old in folder.parent.glob("mock-*"):
        if not old.name.startswith(name):
            shutil.rmtree(old)
    mock.observe_plans(plans, folder, complete, mock.SECTIONS, "without collisions")
    clusters = read_table(folder / "clusters", "mock_clusters", ["cluster_id", "z"])
    galaxies = read_table(
        folder / "galaxies", "mock_galaxies", ["cluster_id", "x_proj", "y_proj", "v_los"]
    )
    points, offsets = points_by_cluster(galaxies, windows.cluster_id)
    z = dict(zip(*(clusters[c].to_pylist() for c in ("cluster_id", "z")), strict=True))
    return replace(
        windows, points=points, offsets=offsets.astype(np.int64),
        z=np.array([z[name] for name in windows.cluster_id]),
    )  # fmt: skip


def work(workspace: Workspace, params: Params) -> str:
    """What the study does."""
    n = params.study.fibre_windows
    return (
        f"{n} evaluation windows to observe again without collisions; these, and the windows of "
        f"{workspace.survey}, to weigh with {workspace.model}"
    )


def tables(units: Sequence[Unit], workspace: Workspace, params: Params) -> dict[str, pa.Table]:
    """Table `fibres`."""
    bundle = pretrained.from_workspace(workspace, params)
    (windows,) = mock_windows(workspace, "evaluation")
    windows = windows.take(np.arange(min(params.study.fibre_windows, len(windows))))
    samples = {
        ("evaluation mocks", WITH): windows,
        ("evaluation mocks", WITHOUT): observed_without(workspace, params, windows),
    }
    survey = workspace.selected / "clusters.parquet"
    if survey.exists():
        galaxies = read_table(workspace.selected / "galaxies.parquet", "galaxies")
        clusters = read_table(survey, "clusters")
        samples[workspace.survey, WITH] = survey_windows(clusters, galaxies)
    rows: list[dict[str, Any]] = []
    masses: dict[tuple[str, str, str], Array] = {}
    for (sample, observed), own in samples.items():
        for what in _DROPPED:
            left = drop(own, what, params)
            log.info("study: %s %s, %s dropped", sample, observed, what)
            mass = _weigh(left, bundle)
            masses[sample, observed, what] = mass
            rows.append(
                {"sample": sample, "observed": observed, "dropped": what}
                | _change(masses[sample, observed, NOTHING], mass, own, left, params.seed)
            )
    before = masses["evaluation mocks", WITHOUT, NOTHING]
    complete = samples["evaluation mocks", WITHOUT]
    rows.append(
        {"sample": "evaluation mocks", "observed": "without, then with", "dropped": NOTHING}
        | _change(before, masses["evaluation mocks", WITH, NOTHING], complete, windows, params.seed)
    )
    return {"fibres": table_of("fibres", rows)}


def _weigh(windows: Windows, bundle: Bundle) -> Array:
    """Point estimates (n,); NaN for windows with too few galaxies or no density."""
    rows = np.flatnonzero(windows.n_galaxies >= bundle.window.n_galaxies_min)
    out = np.full(len(windows), np.nan)
    enough = windows.take(rows)
    out[rows] = weigh_points(enough.points, enough.offsets, bundle)
    return out


def _change(before: Array, after: Array, own: Windows, left: Windows, seed: int) -> dict[str, Any]:
    """How masses and galaxies of windows changed; residuals after the change, where known."""
    known = np.isfinite(before) & np.isfinite(after)
    change = (after - before)[known]
    # Real clusters have no halo: each is a group of its own.
    halo = np.where(own.halo_id < 0, np.arange(len(own)), own.halo_id)[known]
    bootstrap = metrics.Bootstrap(halo, generator(seed, "study-fibres-errors"))
    e = (own.log10_m200c_true - after)[known]
    true = bool(np.isfinite(e).all())
    return {
        "n_evaluation": int(known.sum()),
        "galaxies_lost": float(1 - left.n_galaxies.sum() / own.n_galaxies.sum()),
        "change_mean": float(change.mean()),
        "change_mean_error": bootstrap.error(lambda rows: float(change[rows].mean())),
        "change_median": float(np.median(change)), "change_scatter": metrics.scatter(change),
        "epsilon_mean": float(e.mean()) if true else None,
        "epsilon_scatter": metrics.scatter(e) if true else None,
    }  # fmt: skip


def markdown(tables: Mapping[str, pa.Table]) -> str:
    """One line a sample and what is dropped of it."""
    cells = []
    for r in tables["fibres"].to_pylist():
        if r["dropped"] == NOTHING and r["change_scatter"] == 0 and r["epsilon_mean"] is None:
            continue  # the survey's windows as they are
        cells.append([
            r["sample"], r["observed"], _DROPPED[r["dropped"]], str(r["n_evaluation"]),
            f"{100 * r['galaxies_lost']:.1f} %",
            documents.value_cell(r["change_mean"], r["change_mean_error"], sign=True, digits=4),
            documents.value_cell(r["change_median"], sign=True, digits=4),
            documents.value_cell(r["change_scatter"]),
            documents.value_cell(r["epsilon_mean"], sign=True),
            documents.value_cell(r["epsilon_scatter"]),
        ])  # fmt: skip
    head = ["windows", "observed", "dropped", "windows", "galaxies lost", "change of log mass: mean",
            "median", "scatter", "ε mean", "ε scatter"]  # fmt: skip
    return documents.grid(head, cells)


def draw(tables: Mapping[str, pa.Table]) -> Figure:
    """Mean change of log mass by what is dropped."""
    from cmass.study.figures import BLUE, INK, MUTED, RED, one_panel

    rows = [r for r in tables["fibres"].to_pylist()
            if r["dropped"] != NOTHING or r["observed"] not in (WITH, WITHOUT)]  # fmt: skip
    figure, axes = one_panel(7.6, 1.4 + 0.42 * len(rows))
    place = np.arange(len(rows))[::-1]
    for y, r in zip(place, rows, strict=True):
        colour = BLUE if r["sample"] == "evaluation mocks" else RED
        axes.errorbar(r["change_mean"], y, xerr=r["change_mean_error"], fmt="o", capsize=3,
                      color=colour)  # fmt: skip
    axes.axvline(0, color=INK, lw=1, ls="--")
    axes.axvline(-0.017, color=MUTED, lw=1, ls=":")
    axes.annotate("paper, core", (-0.017, place[0] + 0.4), (3, 0), textcoords="offset points",
                  color=MUTED, fontsize=9, va="center")  # fmt: skip
    words = [
        f"{r['sample']}, {r['observed']}"
        + ("" if r["dropped"] == NOTHING else f":\n{_DROPPED[r['dropped']]}")
        for r in rows
    ]
    axes.set_yticks(place, words)
    axes.set(xlabel="Mean change of log mass [dex]", ylim=(-0.6, len(rows) - 0.3))
    axes.grid(False, axis="y")
    return figure


STUDY = Study(
    "fibres", ("fibres",), tables, markdown, draw,
    "Mean change of the mass where galaxies have no fibre", work=work,
)  # fmt: skip
