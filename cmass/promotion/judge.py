"""judge: hold the latest training against the gates, and give it the alias or not."""

from __future__ import annotations

import logging
import math
import shutil
from dataclasses import asdict, dataclass, field
from typing import Any

from cmass.errors import WorkspaceError
from cmass.params import JudgeParams, Params
from cmass.promotion import bundle
from cmass.promotion.champion import bring
from cmass.promotion.exam import Exam, examine
from cmass.promotion.gates import Gate, Verdict, absolute_gates, gates_against
from cmass.promotion.scores import Scores, as_metrics, from_tags, scores_of
from cmass.promotion.tags import (
    AGAINST,
    BUNDLE,
    BY_HAND,
    MADE_FOR,
    REASONS,
    SURVEY,
    TAKEN_BACK,
    VERDICT,
    place_of,
)
from cmass.registry import Registry, Version, store_words
from cmass.secrets import address
from cmass.shards import digest_of
from cmass.tables import read_json, write_json
from cmass.workspace import Workspace

log = logging.getLogger(__name__)

# What a tag may hold in every store of MLflow.
_TAG_LENGTH = 4000


@dataclass(frozen=True)
class Decision:
    """What became of a challenger.

    Attributes
    ----------
    verdict : str
        ``promoted``, ``refused``, or ``confirmed``: it was the champion already.
    gates : list of Gate
    reasons : list of str
        Why it was refused, what a champion misses, or what a promotion rests on.
    """

    verdict: Verdict
    gates: list[Gate]
    reasons: list[str]


@dataclass(frozen=True)
class Standing:
    """What a challenger finds: no champion, one that it can be compared with, or not.

    Attributes
    ----------
    exists : bool
        There is a champion.
    is_challenger : bool
        The challenger is the champion itself.
    scores : mapping
        Of the champion, from the registry.
    exam : Exam or None
        Both on the same windows; None where they cannot be compared, which `words` tells.
    words : str
        Why there is no exam.
    """

    exists: bool
    is_challenger: bool = False
    scores: Scores = field(default_factory=dict)
    exam: Exam | None = None
    words: str = ""


def decide(
    scores: Scores, how: JudgeParams, standing: Standing, taken_back: str | None = None
) -> Decision:
    """Judge a challenger.

    Parameters
    ----------
    scores : mapping
        Of the challenger.
    how : JudgeParams
    standing : Standing
    taken_back : str, optional
        Why somebody took the alias from this very version by hand.
    """
    gates = absolute_gates(scores, how)
    if standing.exam is not None and not standing.is_challenger:
        nearness = (scores.get("realism"), standing.scores.get("realism"))
        gates += gates_against(standing.exam, *nearness, how)
    failed = [gate.words for gate in gates if not gate.passed]
    if standing.is_challenger:
        return Decision("confirmed", gates, failed)
    if taken_back is not None:
        failed.insert(0, f"it was taken back by hand: {taken_back}")
    if failed:
        return Decision("refused", gates, failed)
    if not standing.exists:
        reasons = ["the first of its name: nothing to compare with"]
    elif standing.exam is None:
        reasons = [standing.words]
    else:
        reasons = [g.words for g in gates if g.name == "gain"]
    return Decision("promoted", gates, reasons)


def outside(workspace: Workspace, params: Params) -> dict[str, str]:
    """Which registry is asked: each learns of the training, and gives its alias."""
    return {"registry": store_words()}


def run(workspace: Workspace, params: Params) -> None:
    """Judge the latest training; the registry learns of scores, bundle and verdict.

    Writes ``trial/decision.json``.

    Raises
    ------
    WorkspaceError
        The registry does not answer.
    """
    registry = Registry(workspace)
    version = _registered(workspace, params, registry)
    scores = scores_of(workspace.seen_as("trial"))
    registry.log_metrics(version, as_metrics(scores))
    tags = {name: repr(value) for name, value in as_metrics(scores).items()}
    registry.tag(version.number, {**tags, MADE_FOR: made_for_digest(params)})
    _keep(workspace, params, registry, version)
    champion = registry.champion()
    standing = _standing(workspace, params, registry, version, champion)
    decision = decide(scores, params.judge, standing, version.tags.get(TAKEN_BACK))
    registry.tag(
        version.number,
        {
            VERDICT: decision.verdict,
            REASONS: "; ".join(decision.reasons)[:_TAG_LENGTH] or "every gate passed",
            SURVEY: workspace.survey,
            AGAINST: "none" if champion is None else champion.number,
        },
    )
    if decision.verdict == "promoted":
        registry.crown(version.number)
    write_json(workspace.decision, _as_json(decision, registry, version, champion))
    _tell(decision, registry, version, champion)


def _standing(
    workspace: Workspace, params: Params, registry: Registry, version: Version,
    champion: Version | None,
) -> Standing:  # fmt: skip
    if champion is None:
        return Standing(exists=False)
    if champion.number == version.number:
        return Standing(exists=True, is_challenger=True)
    if BUNDLE not in champion.tags:
        return Standing(True, words="the champion was never judged: nothing to compare with")
    if champion.tags.get(MADE_FOR) != made_for_digest(params):
        return Standing(True, words="the champion was made for another window, voxels or cosmology")
    bring(workspace, params, registry, champion)
    exam = examine(workspace, params)
    scores = from_tags(champion.tags)
    if (
        champion.tags.get(SURVEY) != workspace.survey
    ):  # how near mocks are to another sky says nothing
        scores = {name: one for name, one in scores.items() if name != "realism"}
    return Standing(True, scores=scores, exam=exam)


def made_for_digest(params: Params) -> str:
    """Digest of what a model must share with a run to give its masses."""
    return digest_of(bundle.made_for(params.model_dump(mode="json")))


def _registered(workspace: Workspace, params: Params, registry: Registry) -> Version:
    """The version that the latest training became; a registry that it was not trained for learns of it."""
    from cmass.networks.training import register_again

    summary = read_json(workspace.model / "model.json")
    version = registry.like(summary)
    if version is None:
        log.info("judge: %s does not know this training yet", address(registry.uri))
        register_again(workspace, params)
        version = registry.like(summary)
    if version is None:
        raise WorkspaceError(
            f"{registry.name} at {address(registry.uri)} does not keep what it is given: its versions lack "
            "their tags"
        )
    return version


def _keep(workspace: Workspace, params: Params, registry: Registry, version: Version) -> None:
    """Copy the bundle of the latest training to the registry, unless it has it."""
    staging = workspace.home / "bundle.partial"
    try:
        digest = bundle.stage(workspace, params, staging)
        if version.tags.get(BUNDLE) == digest:
            return
        registry.upload(version, staging, place_of(digest))
        # The digest comes last: whoever sees it finds the bundle.
        registry.tag(version.number, {BUNDLE: digest})
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _as_json(
    decision: Decision, registry: Registry, version: Version, champion: Version | None
) -> dict[str, Any]:
    gates = [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in one.items()}
        for one in map(asdict, decision.gates)
    ]
    return {
        "model": registry.name,
        "version": version.number,
        "verdict": decision.verdict,
        "reasons": decision.reasons,
        "champion_before": None if champion is None else champion.number,
        "gates": gates,
    }


def _tell(
    decision: Decision, registry: Registry, version: Version, champion: Version | None
) -> None:
    name = f"{registry.name} version {version.number}"
    reasons = "; ".join(decision.reasons)
    if decision.verdict == "promoted":
        log.info("judge: %s is the champion now: %s", name, reasons)
    elif decision.verdict == "confirmed" and decision.reasons:
        log.warning("judge: %s stays the champion although: %s", name, reasons)
    elif decision.verdict == "confirmed":
        log.info("judge: %s is the champion, and passes every gate", name)
    else:
        stays = "there is no champion" if champion is None else f"version {champion.number} stays"
        log.warning("judge: %s is refused, %s: %s", name, stays, reasons)


def summaries(workspace: Workspace) -> list[dict[str, str]]:
    """One row a version of the workspace's model, oldest first, for people to read."""
    rows = []
    for version in Registry(workspace).versions():
        tags = version.tags
        scores = from_tags(tags)
        numbers = {
            name: f"{scores[name].value:.3f}" if name in scores else ""
            for name in ("scatter_dex", "crps_dex", "coverage_error_max", "realism")
        }
        rows.append(
            {
                "version": version.number,
                "champion": "yes" if version.aliases else "",
                "verdict": tags.get(VERDICT, "not judged"),
                **numbers,
                "commit": tags.get("code.commit", "")[:10],
                "words": tags.get(TAKEN_BACK) or tags.get(BY_HAND) or tags.get(REASONS, ""),
            }
        )
    return rows
