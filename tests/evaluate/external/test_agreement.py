"""Offset, scatter and slope beside X-ray masses: planted values come back, within their errors."""

import numpy as np
import pytest

from cmass.evaluate import Numbers
from cmass.evaluate.external.agreement import add_agreement, agreement

CORE = ("cnn3d", "galweight")


def rows_of(estimates, reference, rounds=300, seed=1, core=CORE):
    numbers = Numbers()
    rng = np.random.default_rng(seed)
    add_agreement(numbers, estimates, reference, core, "toy", rounds, rng, margin_dex=0.02)
    return {row["metric"]: row for row in numbers.table().to_pylist()}


def toy(n=600, seed=0, offset=0.12, scatter=0.2, other=0.25):
    rng = np.random.default_rng(seed)
    reference = rng.normal(14.3, 0.3, n)
    return {
        "cnn3d": reference + offset + scatter * rng.standard_normal(n),
        "galweight": reference - 0.05 + other * rng.standard_normal(n),
    }, reference


def test_planted_values_come_back_within_their_errors():
    estimates, reference = toy()
    found = rows_of(estimates, reference)
    n = reference.size
    for metric, planted, error in (
        # median: sqrt(pi/2) sigma/sqrt(n); deviation: sigma/sqrt(2 n)
        ("xray_offset_cnn3d", 0.12, 1.2533 * 0.2 / np.sqrt(n)),
        ("xray_offset_galweight", -0.05, 1.2533 * 0.25 / np.sqrt(n)),
        ("xray_scatter_cnn3d", 0.2, 0.2 / np.sqrt(2 * n)),
        ("xray_scatter_galweight", 0.25, 0.25 / np.sqrt(2 * n)),
        ("xray_slope_cnn3d", 1.0, 0.2 / 0.3 / np.sqrt(n)),
    ):
        row = found[metric]
        assert row["value"] == pytest.approx(planted, abs=4 * row["error"]), metric
        # 300 resamples give an error to 4 %; the sample's own spread adds as much
        assert row["error"] == pytest.approx(error, rel=0.25), metric
    assert found["xray_scatter_robust_cnn3d"]["value"] == pytest.approx(
        0.2, abs=4 * found["xray_scatter_robust_cnn3d"]["error"]
    )
    assert found["xray_n_compared"]["value"] == n
    assert found["xray_scatter_beyond_galweight_cnn3d"]["value"] == pytest.approx(-0.05, abs=0.03)
    assert found["xray_abs_offset_beyond_galweight_cnn3d"]["value"] == pytest.approx(0.07, abs=0.05)
    assert found["xray_not_worse_cnn3d"]["value"] == 1


def test_errors_hold_what_they_promise():
    """The planted offset lies inside 1 sigma in 68 % of 150 toys: binomial 3 sigma is 11 %."""
    inside = {"xray_offset_cnn3d": [], "xray_scatter_cnn3d": []}
    for seed in range(150):
        found = rows_of(*toy(80, seed), rounds=80, seed=seed)
        for metric, planted in (("xray_offset_cnn3d", 0.12), ("xray_scatter_cnn3d", 0.2)):
            row = found[metric]
            inside[metric].append(abs(row["value"] - planted) < row["error"])
    for metric, hits in inside.items():
        assert np.mean(hits) == pytest.approx(0.68, abs=0.12), metric


def test_paired_errors_know_of_what_the_two_share():
    """Noise of the X-ray mass moves both: the error of the difference leaves it out."""
    rng = np.random.default_rng(5)
    n = 400
    true, noise = rng.normal(14.3, 0.3, n), 0.3 * rng.standard_normal(n)
    own = 0.05 * rng.standard_normal((2, n))
    estimates = {"cnn3d": true + own[0], "galweight": true + own[1]}
    found = rows_of(estimates, true + noise)
    paired = found["xray_scatter_beyond_galweight_cnn3d"]["error"]
    alone = [found[f"xray_scatter_{e}"]["error"] for e in CORE]
    assert paired < 0.4 * np.hypot(*alone)


@pytest.mark.parametrize("scatter, verdict", [(0.15, 1), (0.33, 0)])
def test_not_worse_is_a_verdict_that_can_be_no(scatter, verdict):
    found = rows_of(*toy(scatter=scatter, other=0.25))
    assert found["xray_not_worse_cnn3d"]["value"] == verdict
    assert "xray_not_worse_galweight" not in found


def test_a_few_outliers_make_it_worse():
    """The robust scatter alone would not see them."""
    estimates, reference = toy(scatter=0.25, other=0.25, seed=3)
    estimates["cnn3d"][:18] += 1.5
    found = rows_of(estimates, reference)
    assert found["xray_not_worse_cnn3d"]["value"] == 0


def test_slopes():
    """Errors of the reference flatten the least-squares line by the ratio of variances."""
    rng = np.random.default_rng(7)
    true = rng.normal(14.3, 0.3, 200_000)
    estimate = 14.3 + 0.7 * (true - 14.3)
    reference = true + 0.2 * rng.standard_normal(true.size)
    _, _, _, least, major, about_line = agreement(estimate, reference)
    flattened = 0.3**2 / (0.3**2 + 0.2**2)
    # 200 000 points: 1 sigma is 0.0015
    assert least == pytest.approx(0.7 * flattened, abs=0.006)
    assert major == pytest.approx(0.7 * np.sqrt(flattened), abs=0.006)
    # What is left of the reference once the truth is known: its own error.
    assert about_line == pytest.approx(0.2, abs=0.002)
    assert agreement(-true, true)[4] == pytest.approx(-1.0)


def test_knowing_nothing_and_shrinking_are_not_shown_to_be_good():
    """A constant and a shrunk copy lower the plain scatter where the reference spreads little."""
    rng = np.random.default_rng(11)
    n = 300
    true = 14.3 + np.abs(rng.normal(0, 0.12, n))
    reference = true + 0.1 * rng.standard_normal(n)
    galweight = true + 0.25 * rng.standard_normal(n)
    shrunk = galweight.mean() + 0.3 * (galweight - galweight.mean())
    constant = np.full(n, np.median(reference)) + 1e-9 * rng.standard_normal(n)
    for estimate in (shrunk, constant):
        found = rows_of({"cnn3d": estimate, "galweight": galweight}, reference)
        assert found["xray_not_worse_cnn3d"]["value"] == 1  # the plain scatter is taken in
    plain = agreement(galweight, reference)[5]
    assert agreement(shrunk, reference)[5] == pytest.approx(plain, rel=1e-9)
    assert agreement(constant, reference)[5] == pytest.approx(reference.std(ddof=2), rel=0.01)
    far = rows_of({"cnn3d": constant + 0.2, "galweight": galweight}, reference)
    assert far["xray_shown_not_worse_cnn3d"]["value"] == 0


@pytest.mark.parametrize("n, scatter, verdict", [(4000, 0.2, 1), (40, 0.245, 0), (4000, 0.3, 0)])
def test_shown_not_worse_needs_enough_clusters(n, scatter, verdict):
    found = rows_of(*toy(n, scatter=scatter, other=0.25, offset=0.05))
    assert found["xray_shown_not_worse_cnn3d"]["value"] == verdict


@pytest.mark.parametrize("what, offset, scatter", [("offset", 0.2, 0.15), ("nothing", 0.0, 0.3)])
def test_shown_not_worse_asks_for_the_offset_and_for_knowledge(what, offset, scatter):
    """An offset is not made good by a small scatter, nor is a constant by a small spread."""
    rng = np.random.default_rng(13)
    reference = rng.normal(14.3, 0.2, 4000)
    galweight = reference + scatter * rng.standard_normal(4000)
    own = reference + offset + 0.1 * rng.standard_normal(4000)
    if what == "nothing":
        own = 14.3 + 1e-6 * rng.standard_normal(4000)
        # Plain scatters of 0.2 and 0.3; about the line 0.2 and 0.2 sqrt(1 - 0.04/0.13) = 0.166.
        assert np.std(own - reference) < np.std(galweight - reference)
    found = rows_of({"cnn3d": own, "galweight": galweight}, reference)
    assert found["xray_not_worse_cnn3d"]["value"] == 1
    assert found["xray_shown_not_worse_cnn3d"]["value"] == 0


def test_verdicts_are_one_sigma_and_one_sided_95():
    """Read off the rows they stand beside, for estimators nearly as good as each other."""
    sigmas, verdicts = [], []
    for seed in range(24):
        found = rows_of(*toy(150, seed, offset=0.05, scatter=0.265), rounds=60, seed=seed)

        def row(name, found=found):
            one = found[f"xray_{name}_beyond_galweight_cnn3d"]
            return one["value"], one["error"]

        pulls = [v / e for v, e in (row("scatter"), row("scatter_robust"))]
        sigmas.append(max(pulls))
        verdicts.append(found["xray_not_worse_cnn3d"]["value"])
        assert verdicts[-1] == (max(pulls) <= 1)
        limits = [v + 1.645 * e for v, e in (row("abs_offset"), row("scatter_about_line"))]
        assert found["xray_shown_not_worse_cnn3d"]["value"] == (max(limits) < 0.02)
    # Thresholds of 0 or of 3 sigma would have said otherwise of some.
    sigmas = np.array(sigmas)
    assert ((sigmas > 0) & (sigmas < 1)).any() and ((sigmas > 1) & (sigmas < 3)).any()


def test_scatter_about_the_line_counts_both_of_its_parameters():
    """Three points: one degree of freedom is left, as numpy's own fit has it."""
    reference, estimate = np.array([14.0, 14.5, 14.6]), np.array([14.1, 14.3, 14.9])
    rest = reference - np.polyval(np.polyfit(estimate, reference, 1), estimate)
    assert agreement(estimate, reference)[5] == pytest.approx(np.sqrt((rest**2).sum()))


def test_all_on_the_same_clusters():
    """A mass missing in one takes the cluster from all; a rival's gaps touch only its own rows."""
    estimates, reference = toy(200)
    whole = rows_of(estimates, reference)
    estimates["galweight"][:30] = np.nan
    rng = np.random.default_rng(8)
    estimates["flow"] = reference + 0.3 * rng.standard_normal(200)
    estimates["flow"][100:150] = np.nan
    found = rows_of(estimates, reference)
    assert found["xray_n_compared"]["value"] == 170 and whole["xray_n_compared"]["value"] == 200
    assert found["xray_n_compared_flow"]["value"] == 120
    cut = estimates["cnn3d"][30:] - reference[30:]
    assert found["xray_offset_cnn3d"]["value"] == pytest.approx(np.median(cut), abs=1e-12)
    rows = np.r_[30:100, 150:200]
    both = [np.std(estimates[e][rows] - reference[rows], ddof=1) for e in ("flow", "galweight")]
    assert found["xray_scatter_beyond_galweight_flow"]["value"] == pytest.approx(
        both[0] - both[1], abs=1e-12
    )


def test_too_few_clusters_give_a_number_and_no_statistics():
    estimates, reference = toy(9)
    assert list(rows_of(estimates, reference)) == ["xray_n_compared"]
