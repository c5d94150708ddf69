"""The gates that a challenger passes, or does not: plain functions of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cmass.params import JudgeParams
from cmass.promotion.scores import MEASURES, Measure, Scores

Verdict = Literal["promoted", "refused", "confirmed"]


@dataclass(frozen=True)
class Gate:
    """One condition.

    Attributes
    ----------
    name : str
        ``<measure>``, or ``<measure>_against_champion``.
    passed : bool
    value, error, limit : float
        The challenger's measure, its standard error, and what it was held against.
    words : str
        What was asked and found.
    """

    name: str
    passed: bool
    value: float
    error: float
    limit: float
    words: str


def absolute_gates(scores: Scores, how: JudgeParams) -> list[Gate]:
    """Gates that ask nothing of the champion; those whose limit is null are left out.

    A measure that could not be taken has no gate: a survey without masses of its own has no
    pulls. What every model has (scatter, bias, coverage) fails where it is missing.
    """
    limits = {
        "scatter_dex": how.scatter_max_dex,
        "bias_max_dex": how.bias_max_dex,
        "coverage_error_max": how.coverage_error_max,
        "pull_mean_beyond": how.pull_mean_max,
        "pull_std_beyond": how.pull_std_max,
        "realism": how.realism_max,
    }
    always = ("scatter_dex", "bias_max_dex", "coverage_error_max")
    gates = []
    for name, limit in limits.items():
        if limit is None:
            continue
        measure = scores.get(name)
        if measure is not None:
            gates.append(_at_most(name, measure, limit, how.errors))
        elif name in always:
            words = f"{MEASURES[name]}: could not be measured"
            gates.append(Gate(name, False, float("nan"), 0.0, limit, words))
    return gates


def _at_most(name: str, measure: Measure, limit: float, errors: float) -> Gate:
    size = abs(measure.value)
    passed = size - errors * measure.error <= limit
    where = f" ({measure.where})" if measure.where else ""
    words = (
        f"{MEASURES[name]}{where}: {_number(measure)}, {'within' if passed else 'above'} {limit:g}"
    )
    return Gate(name, passed, measure.value, measure.error, limit, words)


def gates_against(scores: Scores, champion: Scores, how: JudgeParams) -> list[Gate]:
    """Gates that compare with the champion: no loss of scatter, and a gain.

    The gain is a smaller CRPS, or mocks that look more like the sky (`realism_gain`) while the
    CRPS is as good within the errors.
    """
    gates = []
    mine, theirs = scores.get("scatter_dex"), champion.get("scatter_dex")
    if mine is not None and theirs is not None:
        error = (mine.error**2 + theirs.error**2) ** 0.5
        passed = mine.value <= theirs.value + how.errors * error
        words = (
            f"{MEASURES['scatter_dex']}: {_number(mine)} against the champion's {_number(theirs)}, "
            f"{'no' if passed else 'a'} loss beyond {how.errors:g} errors"
        )
        gates.append(
            Gate("scatter_against_champion", passed, mine.value, error, theirs.value, words)
        )
    gain = _gain(scores, champion, how)
    if gain is not None:
        gates.append(gain)
    return gates


def _gain(scores: Scores, champion: Scores, how: JudgeParams) -> Gate | None:
    mine, theirs = scores.get("crps_dex"), champion.get("crps_dex")
    if mine is None or theirs is None:
        return None
    error = (mine.error**2 + theirs.error**2) ** 0.5
    words = f"{MEASURES['crps_dex']}: {_number(mine)} against the champion's {_number(theirs)}"
    if mine.value < theirs.value:
        return Gate("gain", True, mine.value, error, theirs.value, f"{words}, a gain")
    before, now = champion.get("realism"), scores.get("realism")
    as_good = mine.value <= theirs.value + how.errors * error
    if before and now and as_good and now.value <= before.value - how.realism_gain:
        words += (
            f", as good; mocks nearer to the sky ({before.value:.2f} before, {now.value:.2f} now)"
        )
        return Gate("gain", True, mine.value, error, theirs.value, words)
    return Gate("gain", False, mine.value, error, theirs.value, f"{words}, no gain")


def _number(measure: Measure) -> str:
    return f"{measure.value:.3f}" + (f" ± {measure.error:.3f}" if measure.error else "")
