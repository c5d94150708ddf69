"""Tags by which the registry remembers what became of a version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Digest of a version's bundle.
BUNDLE = "bundle.sha256"
#: Digest of window, voxels and cosmology: a model for others cannot give masses here.
MADE_FOR = "made_for.sha256"
#: The last judgement.
VERDICT, REASONS = "judge.verdict", "judge.reasons"
SURVEY, AGAINST = "judge.survey", "judge.against"
#: The reason for which somebody took a version's alias away, or gave it, by hand.
TAKEN_BACK, BY_HAND = "taken_back", "promoted_by_hand"


def place_of(digest: str) -> str:
    """Where the artifacts of a run have the bundle of that digest: each bundle has a place of its own."""
    return f"bundle-{digest[:12]}"


def reasons_of(decision: Mapping[str, Any]) -> str:
    """Verdict and reasons of a decision.json in one line."""
    return f"version {decision['version']} was {decision['verdict']}: " + "; ".join(
        decision["reasons"]
    )
