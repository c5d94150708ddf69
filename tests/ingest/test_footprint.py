"""Mangle polygons against analytic areas, brute force, and the area that the real file states."""

import gzip
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmass.errors import InputError
from cmass.ingest.footprint import Footprint, read_mangle
from cmass.sky import SKY_DEG2, unit_vectors
from tests.surveys import shared_data, window_text


def footprint(*polygons):
    """Footprint from lists of caps (x, y, z, cm)."""
    ids = [i for i, caps in enumerate(polygons) for _ in caps]
    return Footprint(np.array(ids, np.int32), np.array([c for caps in polygons for c in caps]))


@pytest.mark.parametrize("cm", [0.05, 0.4, 1.0, 1.7, -0.3, -1.0, -1.9])
def test_area_of_a_cap_is_analytic(cm):
    """A cap has 2 pi cm steradian; a negative one is what the cap leaves of the sphere."""
    steradian = 2 * math.pi * (cm if cm >= 0 else 2 + cm)
    area = footprint([(0.6, 0.0, 0.8, cm)]).area_deg2(200_000)
    # The boundary crosses of order sqrt(N) of N cells: 0.3 % of the smallest cap here.
    assert area == pytest.approx(steradian * np.degrees(1) ** 2, rel=3e-3)


@pytest.mark.parametrize("width_deg", [10.0, 75.0, 180.0])
def test_area_of_a_lune_is_analytic(width_deg):
    """Two great circles at an angle w enclose w/360 of the sphere."""
    w = math.radians(width_deg)
    lune = [(0.0, 1.0, 0.0, 1.0), (math.sin(w), -math.cos(w), 0.0, 1.0)]
    assert footprint(lune).area_deg2(200_000) == pytest.approx(width_deg / 360 * SKY_DEG2, rel=3e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_contains_equals_brute_force(seed):
    """The bounds that skip polygons and cells never change the answer."""
    rng = np.random.default_rng(seed)
    polygons = []
    for _ in range(12):
        axes = rng.normal(size=(rng.integers(1, 5), 3))
        axes /= np.linalg.norm(axes, axis=1)[:, None]
        cm = rng.uniform(1e-4, 1.2, len(axes)) * rng.choice([1, 1, -1], len(axes))
        polygons.append(np.column_stack([axes, cm]))
    points = rng.normal(size=(2000, 3))
    points[:4] = [[0, 0, 1], [0, 0, -1], [-1, 0, 0], [1, 0, 0]]
    points /= np.linalg.norm(points, axis=1)[:, None]
    expected = np.zeros(len(points), bool)
    for caps in polygons:
        inside = np.ones(len(points), bool)
        for *axis, cm in caps:
            distance = 1 - points @ axis
            inside &= distance < cm if cm >= 0 else distance > -cm
        expected |= inside
    assert np.array_equal(footprint(*polygons).contains_vectors(points), expected)


@pytest.mark.parametrize("ra, dec", [(0.0, 90.0), (0.0, 0.0), (359.9, -60.0), (120.0, -90.0)])
def test_disc_fraction_of_a_cap(ra, dec):
    """A disc around the centre of a cap lies inside, or has the ratio of areas inside."""
    axis = unit_vectors([ra], [dec])[0]
    cap = footprint([(*axis, 1 - math.cos(0.1))])
    inside, same, larger = cap.disc_fraction([ra] * 3, [dec] * 3, [0.05, 0.0999, 0.2], 4000)
    assert inside == 1 and same == 1
    assert larger == pytest.approx((1 - math.cos(0.1)) / (1 - math.cos(0.2)), abs=2e-3)


def test_disc_on_the_edge_is_half_inside():
    north = footprint([(0.0, 0.0, 1.0, 1.0)])
    half = north.disc_fraction([0.0, 211.0], [0.0, 0.0], [0.02, 0.3], 4000)
    assert half == pytest.approx([0.5, 0.5], abs=0.01)  # boundary cells: 1/sqrt(4000)


def test_reads_plain_and_compressed(tmp_path):
    plain, packed = tmp_path / "w.ply", tmp_path / "w.ply.gz"
    plain.write_text(window_text())
    packed.write_bytes(gzip.compress(window_text().encode()))
    mangle, same = read_mangle(plain), read_mangle(packed)
    assert np.array_equal(mangle.caps, same.caps)
    assert mangle.polygon_id.tolist() == [0] * 4 + [1] * 4
    window = Footprint(mangle.polygon_id, mangle.caps)
    exact = math.radians(60) * (math.sin(math.radians(50)) + math.sin(math.radians(10)))
    assert mangle.area_deg2 == pytest.approx(exact * np.degrees(1) ** 2, rel=1e-9)
    assert window.area_deg2(200_000) == pytest.approx(mangle.area_deg2, rel=3e-3)
    assert window.contains([1, 59, 61, 30, 30], [0, 49, 0, 51, -11]).tolist() == [1, 1, 0, 0, 0]


@pytest.mark.parametrize("lines", range(1, 12))
def test_a_file_cut_after_any_line_is_an_error(tmp_path, lines):
    path = tmp_path / "cut.ply"
    path.write_text("".join(window_text().splitlines(keepends=True)[:lines]))
    with pytest.raises(InputError, match="fetch it again"):
        read_mangle(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no polygons here\n",
        window_text().replace("( 4 caps", "( 0 caps"),
        window_text().replace("1.0000000000000000", "abc"),
        window_text().replace("1.0000000000000000", "1.5"),
        window_text().replace("1.0000000000000000", "nan"),
        window_text().replace("( 4 caps", "( 2147483648 caps"),
        window_text().replace("( 4 caps", "( " + "9" * 5000 + " caps"),
        window_text().replace("polygon 1", "polygon 9999999999"),
    ],
)
def test_a_file_that_is_no_mangle_file_is_an_error(tmp_path, text):
    path = tmp_path / "bad.ply"
    path.write_text(text)
    with pytest.raises(InputError) as raised:
        read_mangle(path)
    assert str(path) in str(raised.value)


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tmp_path):
    path = tmp_path / "w.ply.gz"
    path.write_bytes(gzip.compress(window_text().encode() + b" " * 201_000_000, 9))
    with pytest.raises(InputError, match="more than 200 MB when it is unpacked"):
        read_mangle(path)


def test_an_area_that_is_no_number_is_not_stated(tmp_path):
    path = tmp_path / "odd.ply"
    path.write_text(re.sub(r"(0\.\d+) str", r"0.4\1 str", window_text()))
    assert read_mangle(path).area_deg2 is None


def test_a_cut_gzip_file_is_an_error(tmp_path):
    path = tmp_path / "cut.ply.gz"
    path.write_bytes(gzip.compress(window_text().encode())[:-40])
    with pytest.raises(InputError, match="not readable"):
        read_mangle(path)
    with pytest.raises(InputError, match="no such file"):
        read_mangle(tmp_path / "absent.ply")


def test_legacy_window_has_8078_deg2():
    """By the file's own steradians and by counting points: two routes, one area."""
    mangle = read_mangle(shared_data() / "sdss" / "legacy_window_dr8.ply.gz")
    window = Footprint(mangle.polygon_id, mangle.caps)
    assert window.n_polygons == 15_422
    assert mangle.area_deg2 == pytest.approx(8078, abs=1)
    assert window.area_deg2(300_000) == pytest.approx(mangle.area_deg2, rel=2e-3)
    # plain Monte Carlo: 100 000 draws, 0.4 % standard error
    rng = np.random.default_rng(1)
    points = rng.normal(size=(100_000, 3))
    points /= np.linalg.norm(points, axis=1)[:, None]
    drawn = window.contains_vectors(points).mean() * SKY_DEG2
    assert drawn == pytest.approx(8078, rel=0.02)
