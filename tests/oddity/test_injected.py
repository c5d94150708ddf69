"""Windows with something wrong, and neighbours of mocks."""

import numpy as np
import pyarrow as pa
import pytest

from cmass.cosmology import Cosmology
from cmass.estimators.windows import Windows
from cmass.oddity.injected import FIELD, INJECTED, hosts, injected, neighbours
from cmass.params import WindowParams

COSMOLOGY = Cosmology(0.307115)


def windows(*clouds, z=0.05, mass=14.3):
    offsets = np.concatenate([[0], np.cumsum([len(c) for c in clouds])]).astype(np.int64)
    n = len(clouds)
    return Windows([f"w{i}" for i in range(n)], np.vstack(clouds), offsets, np.full(n, z),
                   np.full(n, mass), np.arange(n))  # fmt: skip


def clouds(n=6, k=80, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, (k, 3)) * [4, 4, 1400] for _ in range(n)]


def test_the_heaviest_neighbour_with_enough_galaxies():
    """Own galaxies, three of a halo half as heavy, two of a heavier one, one without a host."""
    own, half, heavy = np.float32(14.3), np.float32(14.0), np.float32(14.9)
    cloud = np.array([[0.0, 0, 0]] * 4 + [[2.0, 0.0, 300.0], [2.0, 0.3, 300.0], [2.0, -0.3, 300.0]]
                     + [[-3.0, 0, 0]] * 2 + [[1.0, 1.0, 0.0]])  # fmt: skip
    host = np.array([own] * 4 + [half] * 3 + [heavy] * 2 + [np.nan], np.float32)
    found = neighbours(windows(cloud), host, COSMOLOGY, 3)
    assert found.mass_ratio[0] == pytest.approx(10**-0.3, rel=1e-6)
    # eq. 6 by hand: the mean R200c and V200c of the two
    r = 0.5 * (COSMOLOGY.r200c_mpc_h(10**14.0, 0.05) + COSMOLOGY.r200c_mpc_h(10**14.3, 0.05))
    v = 0.5 * (COSMOLOGY.v200c_km_s(10**14.0, 0.05) + COSMOLOGY.v200c_km_s(10**14.3, 0.05))
    assert found.distance[0] == pytest.approx(np.hypot(2.0 / r, 300 / v), rel=1e-6)
    assert neighbours(windows(cloud), host, COSMOLOGY, 2).mass_ratio[0] == pytest.approx(10**0.6)
    alone = neighbours(windows(cloud), np.full(10, np.nan, np.float32), COSMOLOGY, 3)
    assert np.isnan(alone.mass_ratio[0]) and np.isnan(alone.distance[0])


def test_hosts_follow_the_galaxies():
    """Another order of clusters, and clusters that are not asked for."""
    table = pa.table({
        "cluster_id": ["w1", "x", "w0", "w1", "w0"],
        "host_log10_m200c": pa.array([14.1, 15.0, 13.5, None, 13.6], pa.float32()),
    })  # fmt: skip
    found = hosts(table, windows(*[np.zeros((2, 3))] * 2))
    np.testing.assert_array_equal(found, np.array([13.5, 13.6, 14.1, np.nan], np.float32))


@pytest.mark.parametrize("case", [*INJECTED, FIELD])
def test_the_same_again_and_inside_the_window(case):
    base = windows(*clouds())
    made = injected(case, base, WindowParams(), 4, 7)
    again = injected(case, base, WindowParams(), 4, 7)
    np.testing.assert_array_equal(made.points, again.points)
    assert (np.abs(made.points) <= [4, 4, 2200]).all()
    assert len(made) == 6 and made.offsets[-1] == len(made.points)
    other = injected(case, base, WindowParams(), 4, 8)
    drawn = case not in ("velocities x 1.5", "velocities / 1.5")
    assert drawn != np.array_equal(made.points, other.points)


def test_what_is_done_is_what_is_said():
    base = windows(*clouds())
    window = WindowParams()

    def counts(case):
        return injected(case, base, window, 4, 7).n_galaxies

    faster = injected("velocities x 1.5", base, window, 4, 7)
    assert np.abs(faster.points[:, 2]).max() > 1400 and (faster.n_galaxies == 80).all()
    assert (counts("half of the galaxies") == 40).all()
    assert counts("half of the window").mean() == pytest.approx(40, abs=8)
    two = injected("another window on top", base, window, 4, 7)
    assert (two.n_galaxies > 100).all()
    np.testing.assert_array_equal(two.cloud(2)[:80], base.cloud(2))
    assert (counts(FIELD) == 80).all()


def test_windows_that_are_left_too_poor_drop_out():
    base = windows(*clouds(2), np.array([[1.0, 0, 0], [2.0, 0, 0], [0, 1, 0], [0, 2, 5.0]]))
    made = injected("half of the galaxies", base, WindowParams(), 4, 7)
    assert made.cluster_id == ["w0", "w1"]
