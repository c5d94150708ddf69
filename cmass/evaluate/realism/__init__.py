"""realism: do the mocks look like the sky? (`cmass evaluate realism`)

Clusters of a survey are compared with mocks of the same richness and distance, one
statistic after the other. Clusters with even numbers calibrate the simulator, those with
odd numbers say how well it does.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cmass.evaluate.realism import features
from cmass.evaluate.realism.matching import Matched, distance_edges, match
from cmass.evaluate.realism.statistics import (
    ABSOLUTE,
    RELATIVE,
    STATISTICS,
    bootstrap_error,
    measure,
)
from cmass.evaluate.realism.windows import HALVES, Windows, mock_windows, survey_windows
from cmass.mock import population
from cmass.params import Params, RealismParams
from cmass.seeds import generator
from cmass.tables import make_table, to_numpy, write_json, write_table
from cmass.workspace import Workspace

if TYPE_CHECKING:
    from cmass.networks.compiled import CompiledCNN3D

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

#: Name of the statistic of the network's features.
FEATURES = "features"
#: Fewest windows of each kind for a test of the features.
_FEATURES_MIN = 20


@dataclass(frozen=True)
class Score:
    """How well mocks and sky agree in one statistic, or in all.

    Attributes
    ----------
    statistic : str
        Its name; ``total`` for all.
    deviation : float
        Root mean square over the bins of (mock/real - 1) over what is allowed, the error
        or 10 %, whichever is larger; of the total, over the statistics. At most 1: agrees.
    agree : float
        Part of the bins, or mean of the parts, that agree.
    n_bins : int
        Bins that count.
    """

    statistic: str
    deviation: float
    agree: float
    n_bins: int


def rows_of(
    statistic: str, bins: list[str], low: Array, high: Array, units: list[str], real: Array,
    real_error: Array, mock: Array, mock_error: Array, half: str, agreement: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of table `realism` for one statistic; `agrees` is missing where nothing compares."""
    out = []
    for i, name in enumerate(bins):
        comparable = bool(np.isfinite([real[i], mock[i], real_error[i]]).all() and real[i] > 0)
        ratio = mock[i] / real[i] if comparable else np.nan
        error = np.hypot(real_error[i], np.nan_to_num(mock_error[i]))
        agrees = bool(abs(ratio - 1) <= max(error / real[i], agreement)) if comparable else None
        out.append(
            {
                "statistic": statistic, "bin": name, "coordinate_low": low[i],
                "coordinate_high": high[i] if np.isfinite(high[i]) else np.nan, "unit": units[i],
                "real": real[i], "real_error": real_error[i], "mock": mock[i],
                "mock_error": mock_error[i], "ratio": ratio, "agrees": agrees, "half": half,
            }
        )  # fmt: skip
    return out


def compare(
    matched: Matched, half: str, how: RealismParams, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Rows of table `realism` of every statistic of the windows."""
    real, mock = (
        measure(w.select(w.weight > 0), how.bootstrap_rounds, rng, RELATIVE)
        | measure(w, how.bootstrap_rounds, rng, ABSOLUTE)
        for w in (matched.real, matched.mock)
    )
    rows = []
    for name, statistic in STATISTICS.items():
        (a, a_rounds), (b, b_rounds) = real[name], mock[name]
        rows += rows_of(
            name, statistic.bin_names(), statistic.low, statistic.high, statistic.bin_units(),
            a, bootstrap_error(a_rounds), b, bootstrap_error(b_rounds), half, how.agreement,
        )  # fmt: skip
    return rows


def compare_features(
    matched: Matched, network: CompiledCNN3D, half: str, params: Params, rng: np.random.Generator
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Rows of the statistic of the network's features, and its p values."""
    from cmass.networks import prediction

    how = params.realism
    ours, theirs = features.matched_rows(matched, rng)
    real, mock = (
        prediction.predict_clouds(
            network, windows.clouds(), params.window, params.voxels, features=True
        )[:, 1:]
        for windows in (matched.real.select(ours), matched.mock.select(theirs))
    )
    both = np.isfinite(real).all(axis=1) & np.isfinite(mock).all(axis=1)
    if both.sum() < _FEATURES_MIN:
        return [], {"features_n": float(both.sum())}
    test = features.two_sample(real[both], mock[both], how.permutations, rng)
    # The distance's ratio lies near one even for samples that a plane divides: only its p value says
    # something, and that is among the metrics.
    rows = rows_of(
        FEATURES, ["AUC"], np.zeros(1), np.ones(1), [""], np.array([0.5]),
        np.array([test.auc_error]), np.array([test.auc]), np.zeros(1), half, how.agreement,
    )  # fmt: skip
    return rows, {
        "features_n": float(test.n), "features_auc_p": test.auc_p,
        "features_energy_p": test.energy_p,
    }  # fmt: skip


def realism_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Table `realism` from rows of `compare`; what is not finite becomes missing."""
    names = (
        "statistic", "bin", "coordinate_low", "coordinate_high", "unit", "real", "real_error",
        "mock", "mock_error", "ratio", "agrees", "half",
    )  # fmt: skip

    def known(value: Any) -> Any:
        return None if isinstance(value, float) and not np.isfinite(value) else value

    return make_table("realism", {n: [known(row[n]) for row in rows] for n in names})


def scores(table: pa.Table, half: str, agreement: float) -> list[Score]:
    """One score a statistic, in the order of the table, and the total at the end."""
    here = pc.and_(pc.equal(table["half"], half), pc.is_valid(table["ratio"]))
    rows = table.filter(here)
    names = rows["statistic"].to_pylist()
    real, real_error, mock_error, ratio = to_numpy(
        rows, "real", "real_error", "mock_error", "ratio"
    )
    allowed = np.maximum(np.hypot(real_error, np.nan_to_num(mock_error)) / real, agreement)
    deviation, agrees = (ratio - 1) / allowed, rows["agrees"].to_numpy(zero_copy_only=False)
    out = []
    for name in dict.fromkeys(names):
        mine = np.array([n == name for n in names])
        rms = float(np.sqrt(np.mean(deviation[mine] ** 2)))
        out.append(Score(name, rms, float(agrees[mine].astype(float).mean()), int(mine.sum())))
    if out:
        total = float(np.sqrt(np.mean([s.deviation**2 for s in out])))
        agree = float(np.mean([s.agree for s in out]))
        out.append(Score("total", total, agree, sum(s.n_bins for s in out)))
    return out


def match_half(real: Windows, mock: Windows, half: str, how: RealismParams) -> Matched:
    """One half of a survey and the mocks that match it.

    The bins of distance are those of the whole survey, so that both halves are cut alike.
    """
    edges = distance_edges(real.distance_mpc_h, how.distance_bins)
    return match(real.half(half), mock, how.richness_bin_dex, edges)


def run(workspace: Workspace, params: Params) -> None:
    """Compare the survey's clusters with the population of mocks.

    Writes `realism/realism.parquet` and `metrics.json`. A half of the survey without
    mocks like it has no rows, and `n_compared` 0.
    """
    from cmass.networks import cnn3d

    how = params.realism
    real = survey_windows(workspace, params)
    mock = mock_windows(workspace.population, params, population.weights)
    network = cnn3d.load(workspace.model / "cnn3d.weights.h5", params.voxels.n)
    rows: list[dict[str, Any]] = []
    metrics: dict[str, dict[str, float]] = {}
    for half in HALVES:
        matched = match_half(real, mock, half, how)
        n = int((matched.real.weight > 0).sum())
        metrics[half] = {
            "n_compared": n, "n_without_mocks": matched.n_without_mocks,
            "n_mocks_effective": matched.n_effective,
        }  # fmt: skip
        if n == 0:
            log.warning("realism: no %s cluster has mocks of its richness and distance", half)
            continue
        rows += compare(matched, half, how, generator(params.seed, f"realism-{half}"))
        more, p_values = compare_features(
            matched, network, half, params, generator(params.seed, f"realism-features-{half}")
        )
        rows += more
        metrics[half] |= p_values
    table = realism_table(rows)
    for half in HALVES:
        mine = table.filter(pc.equal(table["half"], half))
        metrics[half]["n_bins_not_compared"] = mine["ratio"].null_count
        if mine["ratio"].null_count:
            log.warning(
                "realism: %d bins of the %s half hold nothing to compare and do not count",
                mine["ratio"].null_count, half,
            )  # fmt: skip
        for score in scores(table, half, how.agreement):
            metrics[half][f"{score.statistic}_deviation"] = score.deviation
            metrics[half][f"{score.statistic}_agree"] = score.agree
            if score.statistic == "total":
                log.info(
                    "realism: %d %s clusters, deviation %.2f, %.0f %% of the bins agree",
                    metrics[half]["n_compared"], half, score.deviation, 100 * score.agree,
                )  # fmt: skip
    write_table(workspace.realism / "realism.parquet", table, "realism")
    write_json(workspace.realism / "metrics.json", metrics)
