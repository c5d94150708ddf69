"""The gates that a challenger passes, or does not: plain functions of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cmass.params import JudgeParams
from cmass.promotion.exam import Exam, Pair
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


def gates_against(
    exam: Exam, realism: Measure | None, realism_before: Measure | None, how: JudgeParams
) -> list[Gate]:
    """Gates that compare with the champion on the same windows: no loss of scatter, and a gain.

    A gain is a CRPS that is smaller by more than `gain_errors` of the difference's errors, or mocks
    that look more like the sky (`realism_gain`) while the CRPS is as good.

    Parameters
    ----------
    exam : Exam
    realism, realism_before : Measure or None
        Of the challenger's mocks and of the champion's.
    how : JudgeParams
    """
    pair = exam.scatter_dex
    passed = pair.difference <= how.errors * pair.error
    words = (
        f"scatter {_words(pair, exam)}, {'no' if passed else 'a'} loss beyond {how.errors:g} errors"
    )
    loss = Gate(
        "scatter_against_champion", passed, pair.challenger, pair.error, pair.champion, words
    )
    return [loss, _gain(exam, realism, realism_before, how)]


def _gain(exam: Exam, realism: Measure | None, before: Measure | None, how: JudgeParams) -> Gate:
    pair = exam.crps_dex
    words = f"CRPS of the posteriors {_words(pair, exam)}"
    passed = pair.difference < -how.gain_errors * pair.error
    if passed:
        words += ", a gain"
    elif (
        realism and before and pair.difference <= how.errors * pair.error
        and realism.value <= before.value - how.realism_gain
    ):  # fmt: skip
        passed = True
        words += f", as good; mocks nearer to the sky ({before.value:.2f} before, {realism.value:.2f} now)"
    else:
        words += ", no gain"
    return Gate("gain", passed, pair.challenger, pair.error, pair.champion, words)


def _words(pair: Pair, exam: Exam) -> str:
    return (
        f"on the same {exam.n} windows: {pair.challenger:.4f} against the champion's "
        f"{pair.champion:.4f} dex, {pair.difference:+.4f} ± {pair.error:.4f}"
    )


def _number(measure: Measure) -> str:
    return f"{measure.value:.3f}" + (f" ± {measure.error:.3f}" if measure.error else "")
