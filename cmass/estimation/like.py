"""A model for another survey: mocks as deep and as far as it, and a network trained on them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cmass import cosmology
from cmass.columns import FLAGS
from cmass.errors import InputError, ParameterError
from cmass.estimation import depth_by_magnitudes, read_rows, sample_of, usable_galaxies
from cmass.estimation.edges import find_edges
from cmass.infer import depth_by_counts
from cmass.oddity.depth import Depth
from cmass.params import Params
from cmass.pretrained import Bundle, make_bundle
from cmass.select import phase_space
from cmass.software import git_state
from cmass.tables import read_json, write_json
from cmass.workspace import Workspace

log = logging.getLogger(__name__)

#: Steps that a model needs, from its mocks to its calibration.
STEPS = (
    "mock", "population", "split", "voxelize", "train", "posterior", "oddity", "evaluate",
)  # fmt: skip
#: What was measured of the survey, and the parameters made of it, in the folder of the model.
SURVEY_FILE, PARAMS_FILE, WORK = "survey.json", "params.yaml", "work"
#: Mocks lie this much nearer and farther than the survey's clusters, and never nearer than this.
_MARGIN, _NEAREST_MPC_H = 0.1, 30.0
#: Nearest and farthest mock differ by this factor at least.
_LEAST_RATIO = 1.5
#: Depths that the simulator's luminosity functions and K-corrections are made for, mag.
_DEPTHS_MAG = (14.0, 20.5)
#: Redshifts beyond which they are not.
_FARTHEST_Z = 0.25


@dataclass(frozen=True)
class Survey:
    """What mocks should be like.

    Attributes
    ----------
    depth : Depth
        Limit in apparent r.
    z : tuple of float
        Smallest and largest redshift that mocks should have: all of the clusters but the nearest and the
        farthest hundredth.
    z_median : float
    n_clusters, n_galaxies : int
        That could be used.
    """

    depth: Depth
    z: tuple[float, float]
    z_median: float
    n_clusters: int
    n_galaxies: int


def measure(
    tables: tuple[pa.Table, ...], bundle: Bundle, *, columns: Mapping[str, str] | None = None,
    limit_mag: float | None = None, files: tuple[Path | None, Path | None] = (None, None),
) -> Survey:  # fmt: skip
    """Depth and distances of a survey.

    Parameters
    ----------
    tables : tuple of pyarrow.Table
        Clusters and galaxies, as `cmass.estimate` takes them.
    bundle : Bundle
        A model whose mocks say how many galaxies a depth shows, where magnitudes are missing.
    columns : mapping of str to str, optional
        As for `cmass.estimate`.
    limit_mag : float, optional
        The depth in apparent r, if it is known.
    files : tuple of Path, optional
        Where the tables come from, for messages.

    Raises
    ------
    InputError
        No cluster or galaxy can be used, the depth cannot be measured, or depth or distances are beyond
        what the simulator is made for.
    """
    clusters, galaxies = read_rows(tables, columns or {}, files)
    good = clusters.good
    if not good.any():
        why = clusters.reasons[0] if clusters.reasons else "the table has no rows"
        raise InputError(f"no cluster can be used: {why}", file=files[0])
    places = usable_galaxies(galaxies, files[1])
    z = clusters.z[good]
    if limit_mag is not None:
        depth: Depth | None = Depth(limit_mag, 0.0, "as said", 0)
    else:
        depth = depth_by_magnitudes(galaxies)
    if depth is None:
        about = (clusters.ra[good], clusters.dec[good], z)
        space = phase_space(*about, *places, bundle.window, bundle.cosmology)
        sample = sample_of(clusters, good, space)
        cut = find_edges(*about, places, bundle.window, bundle.cosmology) > 0
        sample.flag[np.flatnonzero(good)[cut]] |= FLAGS["window_incomplete"].value
        depth = depth_by_counts(sample, bundle)
    if depth is None:
        low, high = bundle.range.z
        raise InputError(
            f"the depth of the survey cannot be told: no magnitudes, and no cluster at z {low:.3f} to "
            f"{high:.3f} with galaxies around it", file=files[1],
            remedy="Say it: --depth 18.5, the limit in apparent r",
        )  # fmt: skip
    low, high = (float(q) for q in np.quantile(z, [0.01, 0.99], method="nearest"))
    survey = Survey(depth, (low, high), float(np.median(z)), int(good.sum()), int(places[0].size))
    _check(survey, files)
    return survey


def _check(survey: Survey, files: tuple[Path | None, Path | None]) -> None:
    low, high = _DEPTHS_MAG
    if survey.depth.how == "as said" and not low <= survey.depth.limit_mag <= high:
        raise ParameterError(
            f"--depth {survey.depth.limit_mag:g}: the simulator is made for limits of r = {low:g} to {high:g}"
        )
    if not low <= survey.depth.limit_mag <= high:
        raise InputError(
            f"a limit of r = {survey.depth.limit_mag:.2f} (from {survey.depth.how}): the simulator is made for "
            f"{low:g} to {high:g}", file=files[1], column="r_mag", value=survey.depth.limit_mag,
            remedy="Say the limit with --depth, or name the column of r with --column r_mag=NAME",
        )  # fmt: skip
    if survey.z[1] > _FARTHEST_Z:
        raise InputError(
            f"clusters reach a redshift of {survey.z[1]:.3f}: the simulator's luminosity functions and "
            f"K-corrections end at {_FARTHEST_Z:g}", file=files[0], column="z", value=survey.z[1],
            remedy="Hand in the nearer clusters",
        )  # fmt: skip


def parameters(survey: Survey, params: Params) -> Params:
    """Parameters of a run whose mocks are like a survey: its depth, distances and redshift.

    All else, the size of the run included, is as in `params`.
    """
    background = cosmology.from_params(params.cosmology)
    low, high = background.comoving_distance_mpc_h(np.array(survey.z))
    if high < _NEAREST_MPC_H:
        raise InputError(
            f"the clusters lie within {high:.0f} Mpc/h: mocks begin at {_NEAREST_MPC_H:g}", column="z",
            value=survey.z[1], remedy="Hand in clusters farther away; of nearer ones peculiar velocities "
            "make the distances",
        )  # fmt: skip
    low, high = max(low * (1 - _MARGIN), _NEAREST_MPC_H), high * (1 + _MARGIN)
    if high < _LEAST_RATIO * low:
        middle, width = np.sqrt(low * high), np.sqrt(_LEAST_RATIO)
        low = max(middle / width, _NEAREST_MPC_H)
        high = _LEAST_RATIO * low
    values = params.model_dump()
    values["mock"]["galaxies"]["flux_limit_mag"] = round(survey.depth.limit_mag, 2)
    values["mock"]["haloes"]["distance_min_mpc_h"] = round(float(low), 1)
    values["mock"]["snapshot_redshift"] = round(survey.z_median, 4)
    values["window"]["distance_max_mpc_h"] = round(float(high), 1)
    return Params.model_validate(values)


def train(
    survey: Survey, params: Params, out: Path, *, force: bool = False
) -> dict[str, Any]:  # fmt: skip
    """Make mocks like a survey, train and calibrate a model, and write it to a folder.

    Parameters
    ----------
    survey : Survey
    params : Params
        Of `parameters`.
    out : Path
        Gets the model, `SURVEY_FILE` and `PARAMS_FILE`, and `WORK` with mocks and voxels: what is
        there is not made again, and may be removed afterwards.
    force : bool
        Make all of it again.

    Returns
    -------
    dict
        Figures of the model on mocks of the evaluation set.
    """
    import yaml

    from cmass.pipeline import run_step, workspace_lock
    from cmass.tables import atomic_path

    if out.exists() and not out.is_dir():
        raise InputError("a file is where the model should go", file=out)
    workspace = Workspace(out / WORK, params.profile, params.survey)
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / PARAMS_FILE) as temporary:
        values = params.model_dump(mode="json") | {"profiles": {params.profile: {}}}
        text = yaml.safe_dump(values, sort_keys=False)
        temporary.write_text(text, encoding="utf-8")
    write_json(out / SURVEY_FILE, asdict(survey))
    with workspace_lock(workspace):
        for number, name in enumerate(STEPS, start=1):
            log.info("step %d of %d: %s", number, len(STEPS), name)
            run_step(name, workspace, params, force=force, lock=False)
        figures: dict[str, Any] = read_json(workspace.evaluation / "metrics.json")["all"]
        state = git_state()
        make_bundle(
            workspace, params, out, figures={"mocks": figures}, like=asdict(survey),
            commit=f"{state['git_commit']} ({state['git_state']})" if state else None,
        )  # fmt: skip
    return figures


def default_folder(galaxies: Path) -> Path:
    """Where the model for a file of galaxies goes unless somebody says."""
    return Path("models") / f"like-{galaxies.name.split('.')[0]}"
