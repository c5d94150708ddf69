"""calibrate: the simulator's free parameters from the survey's even clusters.

A design of simulator runs spans the prior ranges; each gives the statistics of the realism
report, with mocks matched to the survey anew. A quadratic emulator of their ratios to the
survey's stands in for the simulator: the design gives its slopes, and a larger run where the
parameters stand its level. Least squares finds the parameters at which all ratios are one, and
larger runs with haloes of their own check how far on the way to them the survey is nearest, and
yet others whether it is nearer than before. No mass of the network enters. The catalogue's enter
once removed: the proxy that sets R200 on both sides was set by those of the even clusters.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cmass.calibrate import emulator, fit
from cmass.calibrate.design import (
    HALF,
    design_points,
    measure_point,
    prior_ranges,
    values_at,
)
from cmass.calibrate.values import value_of, with_values, write_values
from cmass.errors import InputError, ParameterError, WorkspaceError
from cmass.evaluate.realism import scores
from cmass.evaluate.realism.statistics import STATISTICS, measure
from cmass.evaluate.realism.windows import survey_windows
from cmass.params import Params
from cmass.seeds import generator
from cmass.shards import SIMULATOR_SOURCES, Shard, digest_of, run_shards, source_digest
from cmass.tables import (
    file_digest,
    make_table,
    read_json,
    read_table,
    to_numpy,
    write_json,
    write_table,
)
from cmass.workspace import Workspace

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

#: Code that a design point depends on: the fit and the figures may change without a new run.
_SOURCES = (
    *SIMULATOR_SOURCES, "calibrate/design.py", "calibrate/values.py", "evaluate/realism",
    "evaluate/volume.py", "estimators/richness.py", "galweight_mass.py",
)  # fmt: skip
#: Parts of the way from where the parameters stand to the fit's optimum that are checked.
_STEPS = (1 / 3, 2 / 3, 1.0)
#: Digits of a value in params.yaml: errors are of the order of per cents.
_DIGITS = 4


@dataclass(frozen=True)
class Result:
    """What a calibration found.

    Attributes
    ----------
    names : tuple of str
        Dotted names of the parameters.
    low, high, start, best, error : ndarray, shape (d,)
        Prior range, value before, value found and its 1-sigma error.
    step : float
        How far `best` lies on the way from `start` to the emulator's optimum, which is at 1.
    error_alone : ndarray, shape (d,)
        The error if the other parameters were known.
    deviation_start, deviation_best : float
        Total of the realism scores of the even clusters, before and after.
    """

    names: tuple[str, ...]
    low: Array
    high: Array
    start: Array
    best: Array
    error: Array
    error_alone: Array
    step: float
    deviation_start: float
    deviation_best: float

    @property
    def better(self) -> bool:
        """Whether the larger runs confirm what the emulator found."""
        return self.deviation_best < self.deviation_start

    def rows(self) -> list[tuple[str, float, float, float, float, float]]:
        """Name, start, best, error and the prior's ends, one row a parameter."""
        columns = (self.start, self.best, self.error, self.low, self.high)
        return list(zip(self.names, *(c.tolist() for c in columns), strict=True))


# ------------------------------------------------------------------------------- the command


def run(workspace: Workspace, params: Params, file: Path | None) -> Result:
    """Calibrate the parameters that `calibrate.priors` names.

    Parameters
    ----------
    workspace : Workspace
        With the survey's selected clusters.
    params : Params
    file : Path, optional
        The parameter file that the result is written into; none: it is only reported.
    """
    names, low, high = prior_ranges(params)
    if not workspace.selected.exists():
        raise WorkspaceError(
            f"{workspace.selected} does not exist: run `cmass select --survey {workspace.survey}` first"
        )
    u = design_points(params)
    _run_points(workspace, params, u)
    ratios, errors, noise, usable = _ratios(workspace, len(u))
    anchor = _large_runs(workspace, params, "anchor", {"start": values_at(params, u[0])})["start"]
    level, real, level_noise = to_numpy(anchor, "ratio", "real", "mock_error")
    usable &= np.isfinite(level) & np.isfinite(level_noise)
    stand_in = emulator.fit(u, ratios[:, usable], noise[usable]).anchored(u[0], level[usable])
    allowed = np.maximum(errors[usable], params.realism.agreement)
    covariance = _covariance(workspace, params, usable)
    covariance += np.diag((level_noise[usable] / real[usable]) ** 2)
    found = fit.posterior(stand_in, covariance, generator(params.seed, "calibrate-fit"))
    half_range = (high - low) / 2
    start = np.array([value_of(params, n) for n in names])
    here = dict(zip(names, start.tolist(), strict=True))
    places = {
        step: _rounded(values_at(params, u[0] + step * (found.best - u[0]))) for step in _STEPS
    }
    tables = _large_runs(
        workspace, params, "check",
        {"before": here}
        | {f"after-{100 * step:.0f}": values for step, values in places.items()},
    )  # fmt: skip
    agreement = params.realism.agreement
    deviation = {
        name: scores(table, HALF, agreement)[-1].deviation for name, table in tables.items()
    }
    step = min(_STEPS, key=lambda s: deviation[f"after-{100 * s:.0f}"])
    best = np.array(list(places[step].values()))
    # The best of a few is better on the haloes that chose it: others say whether it is.
    chosen = _large_runs(
        workspace, params, "confirm",
        {"before": here, "after": places[step]},
    )  # fmt: skip
    at_best = 2 * (best - low) / (high - low) - 1
    result = Result(
        names,
        low,
        high,
        start,
        best,
        found.error * half_range,
        found.error_alone * half_range,
        step,
        *(scores(chosen[name], HALF, agreement)[-1].deviation for name in ("before", "after")),
    )
    _write(workspace, result, stand_in, chosen, usable,
           fit.sensitivities(stand_in, at_best, allowed), at_best)  # fmt: skip
    for name, value in deviation.items():
        log.info("calibrate: deviation %.3f %s", value, name)
    log.info(
        "calibrate: chi² %.0f of %d statistics; deviation %.2f before, %.2f after",
        found.chi2, found.n_statistics, result.deviation_start, result.deviation_best,
    )  # fmt: skip
    if not result.better:
        log.warning(
            "calibrate: the run that checks the fit lies no nearer to the survey than the values "
            "that were there: those are kept, with the fit's errors"
        )
    if file is not None:
        write_values(file, written_values(params, result))
    return result


def written_values(params: Params, result: Result) -> dict[str, Any]:
    """What goes into the parameter file: the values, and half widths under mock.nuisance.

    The values are those found, or the old ones where the check did not find them better. The half
    width of a uniform range with standard deviation s is sqrt(3) s. Parameters are drawn one by one,
    so s is the error at known others: draws of correlated parameters by their whole errors would
    make simulators that the sky excludes, though along a degenerate direction these draws are narrower
    than what the sky leaves open. Widths are cut to what the parameter may be: an error that
    reaches below zero makes no negative number.
    """
    chosen = result.best if result.better else result.start
    values: dict[str, Any] = dict(zip(result.names, chosen.tolist(), strict=True))
    nuisance = {k: v for k, v in params.mock.nuisance.items() if f"mock.{k}" not in values}
    for name, error in zip(result.names, result.error_alone.tolist(), strict=True):
        section, _, short = name.partition(".")
        if section == "mock":
            width = _possible_width(params, values, short, np.sqrt(3) * error)
            nuisance[short] = float(f"{width:.2g}")
    return values | {"mock.nuisance": nuisance}


def _possible_width(params: Params, values: dict[str, Any], name: str, width: float) -> float:
    """The largest half width, at most `width`, at which both ends are allowed."""
    for part in np.linspace(1, 0, 51):
        # Two digits are written: they must not round up to what is not allowed.
        tried = float(f"{part * width:.2g}")
        try:
            with_values(params, values | {"mock.nuisance": {name: tried}})
        except ParameterError:
            continue
        return tried
    return 0.0


# ------------------------------------------------------------------------------------- parts


def _point_file(workspace: Workspace, number: int) -> Path:
    return workspace.calibration / "points" / f"point-{number:03d}.parquet"


def _digest(workspace: Workspace, params: Params, *more: Any) -> str:
    sections = params.model_dump(mode="json")
    used = ("seed", "cosmology", "window", "mock", "population", "galweight", "realism", "infer")
    return digest_of(
        {name: sections[name] for name in used}, source_digest(*_SOURCES),
        file_digest(workspace.selected), _footprint_digest(workspace), *more,
    )  # fmt: skip


def _footprint_digest(workspace: Workspace) -> str:
    """Of the footprint, whose area says what volume the clusters stand for."""
    path = workspace.raw / "footprint.parquet"
    return file_digest(path) if path.exists() else ""


def _run_points(workspace: Workspace, params: Params, u: Array) -> None:
    """Simulate the design, unless the same one is there already."""
    how = params.calibrate
    everywhere = workspace.resolved()
    shards = [
        Shard(
            i, (f"point-{i:03d}.parquet",),
            ("points", i, values_at(params, point), how.n_windows, everywhere, params),
        )
        for i, point in enumerate(u)
    ]  # fmt: skip
    _run_once(
        workspace, params, "points", shards,
        _digest(workspace, params, how.priors, how.n_windows, u.tolist()), "design",
    )  # fmt: skip


def _large_runs(
    workspace: Workspace, params: Params, kind: str, places: dict[str, dict[str, float]]
) -> dict[str, pa.Table]:
    """Simulate at some places, larger than a design point; tables `realism` by place.

    Runs of one kind have the same haloes: what differs between them is the parameters. Those of
    another kind have others: what the anchor has by chance does not speak in the check.
    """
    n = params.calibrate.check_windows
    everywhere = workspace.resolved()
    shards = [
        Shard(0, (f"{name}.parquet",), (kind, name, values, n, everywhere, params))
        for name, values in places.items()
    ]
    _run_once(
        workspace, params, kind, shards, _digest(workspace, params, places, n), kind
    )  # fmt: skip
    folder = workspace.calibration / kind
    return {name: read_table(folder / f"{name}.parquet", "realism") for name in places}


def _rounded(values: dict[str, float]) -> dict[str, float]:
    """Values as they are written."""
    return {name: float(f"{value:.{_DIGITS}g}") for name, value in values.items()}


def _run_once(
    workspace: Workspace, params: Params, name: str, shards: list[Shard], digest: str, words: str
) -> None:
    mark = workspace.calibration / f"{name}.json"
    folder = workspace.calibration / name
    if mark.exists() and folder.exists() and read_json(mark)["digest"] == digest:
        log.info("calibrate: %s are there", name)
        return
    run_shards(measure_point, shards, folder, digest=digest, params=params, description=words)
    write_json(mark, {"digest": digest})


def _ratios(workspace: Workspace, n_points: int) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """Ratios mock/real (n_points, k), errors (k,) of the survey and of one point, which to use.

    A bin is used where every design point has a ratio.
    """
    columns = []
    for number in range(n_points):
        table = read_table(_point_file(workspace, number), "realism")
        columns.append(to_numpy(table, "ratio", "real", "real_error", "mock_error"))
    ratio, real, error, noise = np.array(columns).transpose(1, 0, 2)
    usable = np.asarray(np.isfinite([ratio, error, noise]).all(axis=(0, 1)), bool)
    if not usable.any():
        raise InputError("no statistic has a value at every design point")
    with np.errstate(divide="ignore", invalid="ignore"):
        return (
            ratio, np.median(error / real, axis=0), np.sqrt(((noise / real) ** 2).mean(axis=0)),
            usable,
        )  # fmt: skip


def _covariance(workspace: Workspace, params: Params, usable: NDArray[np.bool_]) -> Array:
    """Covariance of the ratios: the survey's bootstrap and the model's own error."""
    even = survey_windows(workspace, params).half(HALF)
    random = generator(params.seed, "calibrate-covariance")
    found = measure(even, max(params.realism.bootstrap_rounds, 4 * int(usable.sum())), random)
    values = np.concatenate([found[n][0] for n in STATISTICS])[usable]
    rounds = np.hstack([found[n][1] for n in STATISTICS])[:, usable] / values
    whole = np.isfinite(rounds).all(axis=1)
    covariance = emulator.shrunk_covariance(rounds[whole], len(even))
    return covariance + params.calibrate.model_error**2 * np.eye(len(values))


def _write(
    workspace: Workspace, result: Result, stand_in: emulator.Emulator, tables: dict[str, pa.Table],
    usable: NDArray[np.bool_], moved: Array, at_best: Array,
) -> None:  # fmt: skip
    """Tables and figures of a calibration."""
    from cmass.calibrate import figures

    folder = workspace.calibration
    parameters = make_table(
        "calibrated_parameters",
        {
            "parameter": list(result.names), "prior_low": result.low, "prior_high": result.high,
            "start": result.start, "best": result.best, "best_error": result.error,
        },
    )  # fmt: skip
    after = tables["after"]
    statistic = np.array(after["statistic"].to_pylist())[usable]
    bins = np.array(after["bin"].to_pylist())[usable]
    k, d = moved.shape
    sensitivity = make_table(
        "sensitivities",
        {
            "statistic": np.repeat(statistic, d).tolist(), "bin": np.repeat(bins, d).tolist(),
            "parameter": list(result.names) * k, "sensitivity": moved.ravel(),
        },
    )  # fmt: skip
    write_table(folder / "parameters.parquet", parameters, "calibrated_parameters")
    write_table(folder / "sensitivities.parquet", sensitivity, "sensitivities")
    write_table(folder / "before.parquet", tables["before"], "realism")
    write_table(folder / "after.parquet", after, "realism")
    figures.save(folder, parameters, sensitivity, tables["before"], after)
