"""The gates: what fails, by how much chance may help, and who becomes champion."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmass.params import JudgeParams
from cmass.promotion.exam import Exam, Pair
from cmass.promotion.gates import absolute_gates, gates_against
from cmass.promotion.judge import Decision, Standing, decide
from cmass.promotion.scores import Measure, as_metrics, from_tags

HOW = JudgeParams()
GOOD = {
    "scatter_dex": Measure(0.19, 0.003),
    "bias_max_dex": Measure(0.16, 0.01, "log10 M 13.50-13.80"),
    "coverage_error_max": Measure(0.02),
    "crps_dex": Measure(0.094, 0.001),
    "pull_mean_beyond": Measure(-0.1, 0.05, "sdss"),
    "pull_std_beyond": Measure(0.05, 0.04, "sdss"),
    "realism": Measure(1.2),
}
#: For each measure a value that no gate lets through.
BAD = {
    "scatter_dex": 0.4, "bias_max_dex": 0.5, "coverage_error_max": 0.2, "pull_mean_beyond": -0.9,
    "pull_std_beyond": 0.8, "realism": 4.0,
}  # fmt: skip


def worse(**values: float) -> dict[str, Measure]:
    return GOOD | {name: Measure(v, GOOD[name].error) for name, v in values.items()}


def sat(crps: float, scatter: float = 0.19, crps_error: float = 0.001) -> Exam:
    """A challenger with these scores beside a champion with 0.094 and 0.190."""
    return Exam(
        500,
        Pair(crps, 0.094, crps - 0.094, crps_error),
        Pair(scatter, 0.19, scatter - 0.19, 0.003),
    )


def against(exam: Exam | None, scores: dict[str, Measure] = GOOD, **changes) -> Decision:
    """The decision on a challenger with `scores`, where the champion has those of `GOOD`."""
    return decide(scores, HOW, Standing(True, scores=GOOD, exam=exam, **changes))


NOBODY = Standing(exists=False)


def test_a_good_model_passes_every_gate_and_is_the_first():
    decision = decide(GOOD, HOW, NOBODY)
    assert decision.verdict == "promoted"
    assert len(decision.gates) == 6
    assert decision.reasons == ["the first of its name: nothing to compare with"]


@pytest.mark.parametrize("name", BAD)
def test_each_gate_can_refuse_alone_and_says_so(name):
    decision = decide(worse(**{name: BAD[name]}), HOW, NOBODY)
    assert decision.verdict == "refused"
    assert len(decision.reasons) == 1
    assert f"{abs(BAD[name]):.3f}" in decision.reasons[0]
    assert "above" in decision.reasons[0]


@pytest.mark.parametrize("name", BAD)
def test_a_gate_that_is_null_is_not_asked(name):
    limit = {
        "pull_mean_beyond": "pull_mean_max", "pull_std_beyond": "pull_std_max",
        "realism": "realism_max", "coverage_error_max": "coverage_error_max",
        "scatter_dex": "scatter_max_dex", "bias_max_dex": "bias_max_dex",
    }[name]  # fmt: skip
    how = HOW.model_copy(update={limit: None})
    assert decide(worse(**{name: BAD[name]}), how, NOBODY).verdict == "promoted"


def test_a_gate_gives_way_to_the_errors_and_no_further():
    just, beyond = Measure(0.25 + 0.019, 0.01), Measure(0.25 + 0.021, 0.01)
    for measure, passed in ((just, True), (beyond, False)):
        gates = absolute_gates(GOOD | {"scatter_dex": measure}, HOW)
        assert [g.passed for g in gates if g.name == "scatter_dex"] == [passed]


def test_what_every_model_has_must_be_measured_and_pulls_need_not():
    without = {k: v for k, v in GOOD.items() if not k.startswith("pull")}
    assert decide(without, HOW, NOBODY).verdict == "promoted"
    del without["coverage_error_max"]
    decision = decide(without, HOW, NOBODY)
    assert decision.verdict == "refused"
    assert "could not be measured" in decision.reasons[0]


def test_a_challenger_that_scatters_more_is_refused():
    decision = against(sat(crps=0.09, scatter=0.21))
    assert decision.verdict == "refused"
    assert decision.reasons == [
        "scatter on the same 500 windows: 0.2100 against the champion's 0.1900 dex, "
        "+0.0200 ± 0.0030, a loss beyond 2 errors"
    ]


@pytest.mark.parametrize(
    ("crps", "verdict"), [(0.0945, "refused"), (0.0935, "refused"), (0.0925, "promoted")]
)
def test_a_gain_is_more_than_chance(crps, verdict):
    decision = against(sat(crps))
    assert decision.verdict == verdict
    assert f"{crps:.4f} against the champion's 0.0940 dex" in decision.reasons[0]


@pytest.mark.parametrize(("crps", "realism", "verdict"), [
    (0.0945, 1.05, "promoted"), (0.0975, 1.05, "refused"), (0.0945, 1.15, "refused"),
])  # fmt: skip
def test_mocks_nearer_to_the_sky_are_a_gain_where_posteriors_are_as_good(crps, realism, verdict):
    assert against(sat(crps), worse(realism=realism)).verdict == verdict


def test_the_champion_itself_is_confirmed_even_where_it_misses():
    assert against(None, is_challenger=True).verdict == "confirmed"
    decision = against(None, worse(realism=4.0), is_challenger=True)
    assert (decision.verdict, len(decision.reasons)) == ("confirmed", 1)


def test_a_champion_that_cannot_be_compared_is_no_measure_and_the_gates_still_are():
    decision = against(None, words="the champion was made for another window")
    assert (decision.verdict, decision.reasons) == (
        "promoted", ["the champion was made for another window"],
    )  # fmt: skip
    assert against(None, worse(scatter_dex=0.4), words="…").verdict == "refused"


def test_what_was_taken_back_by_hand_stays_back():
    standing = Standing(True, scores=GOOD, exam=sat(0.05))
    decision = decide(GOOD, HOW, standing, taken_back="misses Coma")
    assert decision.verdict == "refused"
    assert decision.reasons == ["it was taken back by hand: misses Coma"]


numbers = st.floats(0.001, 1.0)


@given(value=numbers, error=st.floats(0, 0.05), crps=numbers, scatter=numbers)
def test_a_refusal_has_a_reason_and_a_promotion_passed_every_gate(value, error, crps, scatter):
    scores = GOOD | {"scatter_dex": Measure(value, error)}
    decision = against(sat(crps, scatter), scores)
    assert decision.reasons
    assert (decision.verdict == "promoted") == all(gate.passed for gate in decision.gates)


@given(value=numbers, error=st.floats(0, 0.1))
def test_nobody_displaces_itself(value, error):
    """Two models with the same answers: the one that is there stays, so versions do not alternate."""
    same = Pair(value, value, 0.0, error)
    realism = GOOD["realism"]
    assert not all(g.passed for g in gates_against(Exam(9, same, same), realism, realism, HOW))


def test_scores_come_back_from_the_tags_of_the_registry():
    tags = {name: repr(value) for name, value in as_metrics(GOOD).items()}
    back = from_tags(tags)
    assert {k: (m.value, m.error) for k, m in back.items()} == {
        k: (m.value, m.error) for k, m in GOOD.items()
    }
    assert from_tags({"profile": "smoke"}) == {}
