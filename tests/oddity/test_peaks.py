"""The second peak: against analytic clumps and against plain loops."""

import numpy as np
import pytest

from cmass.oddity.peaks import second_peaks

KERNEL = {"radius_mpc_h": 0.5, "velocity_km_s": 1500.0, "separation": 2.0}


def peaks(*clouds, **kernel):
    offsets = np.concatenate([[0], np.cumsum([len(c) for c in clouds])])
    return second_peaks(np.vstack(clouds), offsets, **(KERNEL | kernel))


def clump(rng, n, x=0.0, y=0.0, v=0.0, size=0.1, sigma=300.0):
    return rng.standard_normal((n, 3)) * [size, size, sigma] + [x, y, v]


@pytest.mark.parametrize("rich", [40, 100, 250])
def test_two_clumps_of_one_shape(rich):
    """Kernel sums of alike clumps are as their numbers; the second stands where it was put."""
    rng = np.random.default_rng(rich)
    cloud = np.vstack([clump(rng, 100), clump(rng, rich, 2.0, -1.5, 600.0)])
    height, distance, velocity = peaks(cloud)
    # 2.5 Mpc/h are 5 kernels: 4e-6 of one clump reaches the other; their own noise is 2 %
    assert height[0] == pytest.approx(rich / 100, rel=0.05)
    assert distance[0] == pytest.approx(2.5, abs=0.25)
    assert velocity[0] == pytest.approx(600, abs=600)


def test_height_of_another_shape_is_that_of_the_smoothed_density():
    """A clump of size s under a kernel r peaks at n r²/(r² + s²)."""
    rng = np.random.default_rng(5)
    cloud = np.vstack([clump(rng, 3000, size=0.1), clump(rng, 3000, 3.0, 0, 0, size=0.5)])
    height, _, _ = peaks(cloud)
    expected = (0.25 / (0.25 + 0.25)) / (0.25 / (0.25 + 0.01))
    assert height[0] == pytest.approx(expected, rel=0.05)


def test_one_clump_has_no_second_peak_worth_the_name():
    rng = np.random.default_rng(6)
    alone = clump(rng, 80, size=0.05)
    height, _, _ = peaks(alone, np.vstack([alone, [[3.0, 3.0, 0.0]]]))
    assert height[0] == 0
    assert height[1] == pytest.approx(1 / 80, rel=0.1)


def test_the_shoulder_of_a_rich_cluster_is_no_peak():
    """Beyond two kernels the density is still a third of the peak, but higher further in."""
    rng = np.random.default_rng(11)
    height, _, _ = peaks(clump(rng, 500, size=0.6), np.vstack([clump(rng, 500, size=0.6),
                                                             clump(rng, 100, 3.5, 0.0)]))  # fmt: skip
    assert height[0] < 0.1
    # the clump of 0.1 under a kernel of 0.5 keeps 0.96 of its height, that of 0.6 0.41
    assert height[1] == pytest.approx(100 / 500 * 0.96 / 0.41, rel=0.15)


def test_the_sight_line_is_one_peak():
    """Two clusters behind each other are one under a kernel that is wide in velocity."""
    rng = np.random.default_rng(7)
    cloud = np.vstack([clump(rng, 60), clump(rng, 60, 0.1, 0.0, 1800.0)])
    assert peaks(cloud)[0][0] == 0
    assert peaks(cloud, velocity_km_s=300.0)[0][0] == pytest.approx(1.0, rel=0.25)


def test_nothing_near_the_centre_and_nothing_at_all():
    rng = np.random.default_rng(8)
    height, _, _ = peaks(clump(rng, 50, 2.5, 0.0), np.empty((0, 3)))
    assert height[0] > 100 and np.isfinite(height[0])
    assert np.isnan(height[1])


def test_turning_the_window_changes_nothing():
    rng = np.random.default_rng(9)
    cloud = rng.uniform(-1, 1, (120, 3)) * [4, 4, 2200]
    turned = np.column_stack([-cloud[:, 1], cloud[:, 0], -cloud[:, 2]])
    np.testing.assert_allclose(peaks(cloud)[0], peaks(turned)[0], rtol=1e-12)


def test_against_plain_loops():
    """The definition, galaxy by galaxy in NumPy."""
    rng = np.random.default_rng(10)
    for _ in range(30):
        cloud = rng.uniform(-1, 1, (rng.integers(4, 60), 3)) * [4, 4, 2200]
        scaled = cloud / [0.5, 0.5, 1500.0]
        square = ((scaled[:, None] - scaled[None]) ** 2).sum(axis=2)
        density = np.exp(-0.5 * square).sum(axis=1)
        central = (cloud[:, :2] ** 2).sum(axis=1) + (cloud[:, 2] / 1000) ** 2 < 1
        top, first = np.exp(-0.5 * (scaled**2).sum(axis=1)).sum(), np.zeros(3)
        for i in np.flatnonzero(central):
            if density[i] > top:
                top, first = density[i], scaled[i]
        best = 0.0
        for i in range(len(cloud)):
            apart = ((scaled[i] - first) ** 2).sum() >= 4
            tallest = not (density[square[i] < 4] > density[i]).any()
            if apart and tallest:
                best = max(best, density[i])
        assert peaks(cloud)[0][0] == pytest.approx(best / top, rel=1e-12)
