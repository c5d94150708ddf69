"""How a release differs from the last one of the same survey and profile.

Effect sizes, not p-values, which call any difference significant once clusters are many: the largest
distance of two distribution functions (Kolmogorov-Smirnov), changes of parts, and the change of mass
of the clusters that are in both. To each limit is added what chance makes of so few clusters.

Figures of the *sample* (how many clusters, their redshifts, richness, GalWeight masses) follow from
the survey's data and from the parameters that choose clusters: if one of those parameters changed,
the drift is explained, and only said. Figures of the *masses* are what users hold on to: beyond a limit
they need a reason (`contracts.drift.accept_since`), whatever changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from cmass.contracts.suites import CHANCE_SIGMA
from cmass.cosmology import SPEED_OF_LIGHT_KM_S
from cmass.params import DriftParams
from cmass.tables import to_numpy

Array = NDArray[np.float64]

#: Parameters that say which clusters there are, and what their windows hold, by survey.
SAMPLE_SECTIONS: dict[str, tuple[str, ...]] = {
    "sdss": ("window", "select", "cosmology", "ingest.z_max"),
    "embedded": (
        "window", "select", "cosmology", "seed", "ingest.embedded", "mock", "galweight",
    ),
}  # fmt: skip
#: The same for the distance of two distributions, in units of sqrt(1/n + 1/m).
_CHANCE_KS = 1.95
#: Clusters of one name nearer than this on the sky, deg, and in velocity, km/s, are the same.
_SAME_DEG, _SAME_KM_S = 0.05, 300.0

#: Verdicts on a figure.
WITHIN, EXPLAINED, ACCEPTED, BEYOND = "within", "explained", "accepted", "beyond"


@dataclass(frozen=True)
class Figure:
    """One figure of the comparison.

    Attributes
    ----------
    name : str
    words : str
        What it is.
    of : str
        ``sample``, ``masses`` or ``both``.
    unit : str
    value : float
        How far the releases differ.
    limit : float
        Largest value that is no drift: the parameter, or chance where that is more.
    parameter : str
        Name of the limit below `contracts.drift`.
    verdict : str
        ``within``, ``explained``, ``accepted`` or ``beyond``.
    """

    name: str
    words: str
    of: str
    unit: str
    value: float
    limit: float
    parameter: str
    verdict: str = WITHIN


def distance(one: ArrayLike, other: ArrayLike) -> float:
    """Largest distance of the distribution functions of two samples; NaN where one is empty."""
    a, b = (np.sort(x[np.isfinite(x)]) for x in (np.asarray(one, float), np.asarray(other, float)))
    if not a.size or not b.size:
        return float("nan")
    both = np.concatenate([a, b])
    below = [np.searchsorted(x, both, side="right") / x.size for x in (a, b)]
    return float(np.abs(below[0] - below[1]).max())


def figures(
    now: Mapping[str, pa.Table], last: Mapping[str, pa.Table], limits: DriftParams
) -> list[Figure]:
    """Compare the tables `masses` and `clusters` of two releases.

    Parameters
    ----------
    now, last : mapping
        Tables by name, of the release that is made and of the last one.
    limits : DriftParams

    Returns
    -------
    list of Figure
        Figures that cannot be had, as for two releases without a common cluster, are left out.
    """
    found = [*_sample(now, last, limits), *_masses(now["masses"], last["masses"], limits)]
    return [
        one if one.value <= one.limit else _judged(one, BEYOND)
        for one in found if np.isfinite(one.value)
    ]  # fmt: skip


def _judged(figure: Figure, verdict: str) -> Figure:
    return Figure(**(asdict(figure) | {"verdict": verdict}))


def _sample(
    now: Mapping[str, pa.Table], last: Mapping[str, pa.Table], limits: DriftParams
) -> list[Figure]:
    n, m = now["masses"].num_rows, last["masses"].num_rows
    found = [
        Figure(
            "n_clusters", f"number of clusters, {m} then and {n} now: relative change", "sample", "",
            abs(n / m - 1) if m else float("nan"), limits.clusters_max_fraction,
            "clusters_max_fraction",
        )
    ]  # fmt: skip
    for table, column, words in (
        ("masses", "z", "redshifts"),
        ("masses", "n_galaxies", "richness (galaxies in the window)"),
        ("clusters", "log10_m200_galweight", "catalogue's masses"),
    ):
        found.append(_distance(column, words, "sample", now[table], last[table], column, limits))
    return found


def _distance(
    name: str, words: str, of: str, now: pa.Table, last: pa.Table, column: str, limits: DriftParams
) -> Figure:
    (a,), (b,) = to_numpy(now, column), to_numpy(last, column)
    n, m = (max(1, int(np.isfinite(x.astype(float)).sum())) for x in (a, b))
    chance = _CHANCE_KS * np.sqrt(1 / n + 1 / m)
    return Figure(
        f"ks_{name}", f"distribution of {words}: KS distance", of, "", distance(a, b),
        float(max(limits.ks_max, chance)), "ks_max",
    )  # fmt: skip


def _masses(now: pa.Table, last: pa.Table, limits: DriftParams) -> list[Figure]:
    found = [
        _distance(
            "log10_m200c", "masses (point estimates)", "both", now, last, "log10_m200c", limits
        )
    ]
    for name, words in (
        ("no_mass", "part of the clusters without a mass"),
        ("flagged", "part of the clusters with a flag"),
    ):
        parts = [_part(name, table) for table in (now, last)]
        together = sum(p * t.num_rows for p, t in zip(parts, (now, last), strict=True))
        total = now.num_rows + last.num_rows
        p = together / total if total else 0.0
        each = 1 / max(1, now.num_rows) + 1 / max(1, last.num_rows)
        chance = CHANCE_SIGMA * np.sqrt(p * (1 - p) * each)
        found.append(
            Figure(
                name, f"{words}, {parts[1]:.3f} then and {parts[0]:.3f} now: change", "both", "",
                abs(parts[0] - parts[1]), float(max(limits.fraction_max, chance)), "fraction_max",
            )
        )  # fmt: skip
    change = changes(now, last)
    if change.size:
        middle = float(np.median(change))
        spread = float(1.4826 * np.median(np.abs(change - middle)))
        # standard error of a median: 1.25 sigma / sqrt(n)
        chance = CHANCE_SIGMA * 1.25 * spread / np.sqrt(change.size)
        found += [
            Figure(
                "mass_shift", f"masses of the {change.size} clusters in both: median change "
                f"{middle:+.3f} dex, its size", "masses", "dex", abs(middle),
                max(limits.mass_shift_max_dex, chance), "mass_shift_max_dex",
            ),
            Figure(
                "mass_scatter", f"masses of the {change.size} clusters in both: scatter of the change",
                "masses", "dex", spread, limits.mass_scatter_max_dex, "mass_scatter_max_dex",
            ),
        ]  # fmt: skip
    return found


def _part(name: str, table: pa.Table) -> float:
    if not table.num_rows:
        return float("nan")
    if name == "no_mass":
        return table["log10_m200c"].null_count / table.num_rows
    return float((to_numpy(table, "flag")[0] != 0).mean())


def changes(now: pa.Table, last: pa.Table) -> Array:
    """log10 M200c now less then, of the clusters of one name and place in both; dex."""
    mine, theirs, same = matched(now, last)
    change = to_numpy(now, "log10_m200c")[0][mine] - to_numpy(last, "log10_m200c")[0][theirs]
    return change[same & np.isfinite(change)]


def matched(
    now: pa.Table, last: pa.Table
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Clusters of one name in two releases.

    Returns
    -------
    mine, theirs : ndarray of int64
        Their rows in `now` and in `last`.
    same : ndarray of bool
        Whether they are at one place, on the sky and in redshift.
    """
    ids = {name: row for row, name in enumerate(last["cluster_id"].to_pylist())}
    there = np.array([ids.get(name, -1) for name in now["cluster_id"].to_pylist()], np.int64)
    mine = np.flatnonzero(there >= 0)
    theirs = there[mine]
    new = [x[mine] for x in to_numpy(now, "ra", "dec", "z")]
    old = [x[theirs] for x in to_numpy(last, "ra", "dec", "z")]
    east = (new[0] - old[0] + 180) % 360 - 180
    apart = np.hypot(east * np.cos(np.radians(new[1])), new[1] - old[1])
    v = SPEED_OF_LIGHT_KM_S * np.abs(new[2] - old[2]) / (1 + old[2])
    return mine, theirs, (apart < _SAME_DEG) & (v < _SAME_KM_S)


# ----------------------------------------------------------------------------------------- causes


def differences(now: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, list[str]]:
    """What differs behind two releases, from their provenance.

    Returns
    -------
    dict
        ``parameters`` by dotted name, ``sources`` (products whose checksum is another), and
        ``model`` (names of model.json that are others), each a sorted list.
    """
    from cmass.publish.summary import leaves

    def other(section: str) -> list[str]:
        mine, theirs = (dict(leaves(facts.get(section) or {})) for facts in (now, last))
        return sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k))

    return {
        "parameters": [n for n in other("parameters") if not n.startswith(_OWN_PARAMETERS)],
        "sources": sorted(
            {n.split(".")[-2] for n in other("sources") if n.endswith((".sha256", "source_sha256"))}
        ),
        "model": [n for n in other("model") if n.split(".")[-1] in _MODEL_FACTS],
    }


#: Parameters that shape no product.
_OWN_PARAMETERS = (
    "contracts.",
    "judge.",
    "mirror",
    "workers",
    "scheduler",
    "publish.",
    "figures.",
    "study.",
)
#: What tells one model from another in model.json.
_MODEL_FACTS = ("sha256", "weights_sha256", "best_epoch", "seed")


def judge(
    found: list[Figure], survey: str, last_version: str, causes: Mapping[str, list[str]],
    limits: DriftParams,
) -> list[Figure]:  # fmt: skip
    """Verdicts on figures beyond their limit: explained by parameters, accepted, or beyond.

    Parameters
    ----------
    found : list of Figure
    survey : str
    last_version : str
        The release that was compared with.
    causes : mapping
        As `differences` gives them.
    limits : DriftParams
        Says which release's drift is accepted.
    """
    explained = bool(sample_causes(survey, causes))
    accepted = limits.accept_since == last_version
    verdicts = []
    for one in found:
        verdict = one.verdict
        if verdict == BEYOND and one.of != "masses" and explained:
            verdict = EXPLAINED
        elif verdict == BEYOND and accepted:
            verdict = ACCEPTED
        verdicts.append(_judged(one, verdict))
    return verdicts


def sample_causes(survey: str, causes: Mapping[str, list[str]]) -> list[str]:
    """The parameters, of those that changed, that choose clusters and fill their windows."""
    sections = SAMPLE_SECTIONS[survey]
    return [
        name for name in causes["parameters"]
        if any(name == s or name.startswith(f"{s}.") for s in sections)
    ]  # fmt: skip


def message(figures: list[Figure], last_version: str, causes: Mapping[str, list[str]]) -> str:
    """What stops a release, for the operator: figures, limits, causes and the remedy."""
    lines = [f"the release drifts from the last one, {last_version}, which stays in force:"]
    for one in figures:
        if one.verdict == BEYOND:
            lines.append(
                f"  {one.words} {one.value:.3g} {one.unit}".rstrip()
                + f"; the limit is {one.limit:.3g} (contracts.drift.{one.parameter})"
            )
    words = "; ".join(
        f"{name}: {', '.join(names[:6])}" + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        for name, names in causes.items() if names
    )  # fmt: skip
    lines.append(
        f"  Changed since then: {words or 'no parameter, source or model; the code, perhaps'}"
    )
    lines.append(
        "If that is right, say so in params.yaml and publish again; it holds for the next release alone:\n"
        f"  contracts: {{drift: {{accept_since: {last_version}, accept_reason: why}}}}\n"
        "Otherwise look for the fault in what changed: sources first, then parameters"
    )
    return "\n".join(lines)
