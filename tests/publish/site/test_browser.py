"""The site in a real browser, with no network but this machine: every page, every control."""

from __future__ import annotations

import csv
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord

from cmass.publish.site import build
from cmass.publish.site.content import read_release
from tests.publish.site.chromium import chromium, offline
from tests.publish.site.conftest import HOSTILE, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

PAGES = ("index", "sky", "clusters", "query", "calibration", "realism", "model", "method",
         "columns", "flags", "proof")  # fmt: skip
#: Seconds from the click to a first page that answers.
INTERACTIVE_MAX_S = 2.0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def release(hostile: Path, console: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release with its site and the console."""
    copy = tmp_path_factory.mktemp("browsed") / "release" / hostile.name
    shutil.copytree(hostile, copy, ignore=shutil.ignore_patterns("site"))
    build(copy, console=console)
    return copy


@pytest.fixture(scope="module")
def base(release: Path) -> Iterator[str]:
    """Address of the site."""
    with served(release) as port:
        yield f"http://127.0.0.1:{port}/site/"


@pytest.fixture
def opened(browser: Browser, base: str) -> Iterator[Callable[..., Page]]:
    """Function that opens a page; whatever it complains about fails the test in the end."""
    contexts, complaints = [], []

    def opens(path: str = "", *, width: int = 1280, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        context.set_default_timeout(20_000)
        offline(context, complaints)
        page = context.new_page()
        page.goto(base + path)
        return page

    yield opens
    for context in contexts:
        context.close()
    assert complaints == []


def _names(release: Path) -> dict[str, str]:
    return {c.id: c.name for c in read_release(release).clusters}


def _cluster_pages(release: Path) -> list[str]:
    names = _names(release)
    hostile = [names[HOSTILE[row]] for row in (3, 4, 6)]
    first = next(iter(names.values()))  # no mass: too few galaxies
    return [f"clusters/{name}" for name in (first, names["Test-0010"], *hostile)]


def _wait_for_answer(page: Page) -> str:
    expect(page.locator("#go")).to_be_enabled(timeout=60_000)
    assert page.locator("#failed").is_hidden(), page.inner_text("#failed")
    return page.inner_text("#said")


def test_first_page_answers_within_two_seconds(opened: Callable[..., Page]) -> None:
    page = opened("index.html")
    page.wait_for_load_state("load")
    timing = page.evaluate("performance.getEntriesByType('navigation')[0].toJSON()")
    sys.stdout.write(
        f"first page interactive after {timing['domInteractive']:.0f} ms, loaded after "
        f"{timing['loadEventEnd']:.0f} ms\n"
    )
    assert timing["domInteractive"] < 1000 * INTERACTIVE_MAX_S
    page.fill("#q", "test-0012")
    page.press("#q", "Enter")
    page.wait_for_url("**/clusters.html?q=test-0012")
    assert page.locator("#table tbody tr").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_silent_and_accessible(
    opened: Callable[..., Page], base: str, release: Path, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe()
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if scheme == "dark":  # the rest is the same in any colours
        options |= {"runOnly": ["color-contrast"]}
    page = opened(color_scheme=scheme)
    found = {}
    figures = ("realism", "proof")  # as calibration, only longer
    paths = [*(p for p in PAGES if p not in figures), *_cluster_pages(release)[:3]]
    for path in paths:
        page.goto(f"{base}{path}.html")
        results = axe.run(page, options=options)
        violations = results.response["violations"]
        if violations:
            found[path] = [(v["id"], v["nodes"][0]["html"][:200]) for v in violations]
        assert page.evaluate("window.broken") is None
    assert found == {}


def test_no_page_is_wider_than_a_phone(
    opened: Callable[..., Page], base: str, release: Path
) -> None:
    page = opened(width=360, has_touch=True, is_mobile=True)
    for path in (*PAGES, *_cluster_pages(release)):
        page.goto(f"{base}{path}.html")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360, (path, wide)


def test_keyboard_begins_at_the_skip_link_and_shows_where_it_is(
    opened: Callable[..., Page],
) -> None:
    page = opened("index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    page.wait_for_url("**#main")
    for _ in range(4):
        page.keyboard.press("Tab")
        style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style == "solid"


def test_table_searches_sorts_filters_and_exports(
    opened: Callable[..., Page], release: Path, tmp_path: Path
) -> None:
    masses = pq.read_table(release / "masses.parquet").to_pandas()
    page = opened("clusters.html")
    rows = page.locator("#table tbody tr")
    ids = page.locator("#table tbody th")
    expect(rows).to_have_count(40)

    # order: by a button, told to screen readers, missing masses last both ways
    ordered = masses.sort_values("log10_m200c_p50", ascending=False, na_position="last")
    head = page.locator('th[data-column="log10_m200c_p50"]')
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert ids.all_inner_texts()[:5] == ordered["cluster_id"].tolist()[:5]
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    lowest = masses.sort_values("log10_m200c_p50")["cluster_id"].tolist()
    assert ids.all_inner_texts()[:5] == lowest[:5]
    assert set(ids.all_inner_texts()[-2:]) == set(lowest[-2:])
    assert page.locator('th[data-column="z"]').get_attribute("aria-sort") == "none"

    # filters, which the address keeps
    page.fill("#mmin", "14.2")
    page.fill("#zmax", "0.06")
    kept = masses[(masses["log10_m200c_p50"] >= 14.2) & (masses["z"] <= 0.06)]
    assert 0 < len(kept) < 40
    expect(rows).to_have_count(len(kept))
    expect(page.locator("#said")).to_contain_text(f"{len(kept)} of 40 clusters")
    page.reload()
    expect(rows).to_have_count(len(kept))

    # what is shown goes into the file, with all digits, and no formula for a spreadsheet
    page.get_by_role("button", name="Clear").click()
    expect(rows).to_have_count(40)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export CSV").click()
    download.value.save_as(tmp_path / "clusters.csv")
    with open(tmp_path / "clusters.csv", newline="", encoding="utf-8") as stream:
        exported = list(csv.DictReader(stream))
    assert [one["cluster_id"].removeprefix("'") for one in exported] == masses[
        "cluster_id"
    ].tolist()
    assert exported[9]["cluster_id"] == "'" + HOSTILE[9]
    assert float(exported[20]["log10_m200c_p50"]) == masses["log10_m200c_p50"][20]

    # flags
    page.select_option("#flag", "0")
    expect(rows).to_have_count(int((masses["flag"] == 0).sum()))


def test_table_finds_by_position_and_by_hostile_names(
    opened: Callable[..., Page], release: Path
) -> None:
    masses = pq.read_table(release / "masses.parquet").to_pandas()
    page = opened("clusters.html")
    centre = SkyCoord(masses["ra"][15], masses["dec"][15], unit="deg")
    separation = centre.separation(SkyCoord(masses["ra"], masses["dec"], unit="deg")).deg
    expected = [int(i) for i in np.argsort(separation) if separation[i] <= 12]
    page.fill("#q", f"{masses['ra'][15]:.6f} {masses['dec'][15]:.6f}")
    page.fill("#r", "12")
    assert len(expected) > 1
    shown = page.locator("#table tbody th").all_inner_texts()
    assert shown == masses["cluster_id"][expected].tolist()  # nearest first
    page.fill("#q", "<script")
    page.get_by_role("link", name=HOSTILE[3]).click()
    page.wait_for_url("**/clusters/*.html")
    assert page.inner_text("h1") == HOSTILE[3]


def test_sky_map_by_mouse_and_keyboard(opened: Callable[..., Page]) -> None:
    page = opened("sky.html")
    links = page.locator("#sky a")
    assert links.count() == 40
    links.nth(39).hover(force=True)
    expect(page.locator("#tip")).to_contain_text("z 0.0")
    page.get_by_label("Redshift").check()
    assert page.locator("#sky").get_attribute("data-colour") == "redshift"
    assert page.locator('.legend[data-for="mass"]').is_hidden()
    page.get_by_role("button", name="Nearer").click()
    assert page.locator("#sky").get_attribute("viewBox") != "0 0 1000 500"
    page.locator('#sky a[tabindex="0"]').focus()
    here = page.evaluate("document.activeElement.getAttribute('href')")
    for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
        there = page.evaluate("document.activeElement.getAttribute('href')")
        if there != here:
            break
    assert there != here
    assert page.locator('#sky a[tabindex="0"]').count() == 1
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/{there}")


def test_phase_space_turns_by_keys_mouse_and_buttons(
    opened: Callable[..., Page], release: Path
) -> None:
    page = opened(f"{_cluster_pages(release)[1]}.html")
    canvas = page.locator("#canvas")
    canvas.scroll_into_view_if_needed()
    expect(canvas).to_have_attribute("data-yaw", re.compile("[0-9]"))

    def state() -> tuple[str, str]:
        return canvas.get_attribute("data-yaw") or "", canvas.get_attribute("data-pitch") or ""

    first, picture = state(), canvas.screenshot()
    canvas.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    expect(canvas).not_to_have_attribute("data-yaw", first[0])
    turned = state()
    assert turned[0] != first[0] and turned[1] != first[1]
    assert canvas.screenshot() != picture
    page.keyboard.press("0")
    expect(canvas).to_have_attribute("data-yaw", first[0])
    assert state() == first
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 180, box["y"] + 130)
    page.mouse.up()
    expect(canvas).not_to_have_attribute("data-yaw", first[0])
    page.get_by_role("button", name="Sky", exact=True).click()
    expect(canvas).to_have_attribute("data-yaw", "0.000")
    assert (
        page.get_by_role("button", name="Sky", exact=True).get_attribute("aria-pressed") == "true"
    )
    page.select_option("#colour", "radius")
    expect(page.locator("#key")).to_contain_text("h⁻¹ Mpc")


def test_without_scripts_the_catalogue_is_there(
    opened: Callable[..., Page], base: str, release: Path
) -> None:
    page = opened("clusters.html", java_script_enabled=False)
    assert page.locator("#table tbody tr").count() == 40
    page.locator("#table tbody a").nth(10).click()
    assert page.locator("svg.posterior").is_visible()
    assert page.locator("svg.panel").count() == 2
    assert page.locator("canvas").is_hidden()
    page.goto(base + "sky.html")
    assert page.locator("#sky a").count() == 40


def test_dark_mode_follows_the_system_and_the_switch(
    opened: Callable[..., Page], base: str
) -> None:
    def background(page: Page) -> int:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return int(colour.removeprefix("rgb(").split(",")[0])

    page = opened("index.html", color_scheme="dark")
    assert background(page) < 50
    page.get_by_role("button", name="Light colours").click()
    assert background(page) > 200
    page.goto(base + "flags.html")  # kept from page to page
    assert background(page) > 200
    assert background(opened("index.html", color_scheme="light")) > 200


def test_sql_console_answers_plots_exports_and_says_what_is_wrong(
    opened: Callable[..., Page], release: Path, tmp_path: Path
) -> None:
    masses = pq.read_table(release / "masses.parquet").to_pandas()
    loaded: list[str] = []
    page = opened("query.html")
    page.on("request", lambda request: loaded.append(request.url))
    page.reload()
    page.wait_for_load_state("load")
    assert not [url for url in loaded if "duckdb" in url]  # the engine waits for the first query

    page.fill(
        "#sql", "SELECT cluster_id, z, log10_m200c_p50, posterior FROM masses ORDER BY z DESC"
    )
    page.press("#sql", "Control+Enter")
    assert _wait_for_answer(page).startswith("40 rows")
    first = page.locator("#result tbody tr").nth(0).locator("td").all_inner_texts()
    farthest = masses.sort_values("z", ascending=False).iloc[0]
    assert first[0] == farthest["cluster_id"]
    assert float(first[1]) == pytest.approx(farthest["z"], rel=1e-6)

    page.select_option("#px", "z")
    page.select_option("#py", "log10_m200c_p50")
    known = int(masses["log10_m200c_p50"].notna().sum())
    assert page.locator("#plot svg circle").count() == known
    assert (
        page.locator("#plot svg").get_attribute("aria-label")
        == f"{known} rows: log10_m200c_p50 by z"
    )

    with page.expect_download() as download:
        page.get_by_role("button", name="Export CSV").click()
    download.value.save_as(tmp_path / "query.csv")
    with open(tmp_path / "query.csv", newline="", encoding="utf-8") as stream:
        exported = list(csv.DictReader(stream))
    assert len(exported) == 40
    assert float(exported[0]["z"]) == farthest["z"]
    hostile = [one["cluster_id"] for one in exported if "script" in one["cluster_id"]]
    assert hostile == [HOSTILE[3]]

    page.fill("#sql", "SELECT no_such_column FROM masses")
    page.get_by_role("button", name="Run").click()
    page.wait_for_selector("#failed:not([hidden])")
    expect(page.locator("#failed")).to_contain_text("no_such_column")
    # it reads: the release cannot be changed, and goes on answering
    page.fill("#sql", "DELETE FROM masses")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#failed")).to_contain_text("read-only")
    page.fill("#sql", "SELECT count(*) FROM galaxies")
    page.get_by_role("button", name="Run").click()
    _wait_for_answer(page)
    galaxies = pq.read_metadata(release / "galaxies.parquet").num_rows
    assert page.locator("#result tbody td").inner_text() == str(galaxies)


def test_every_sample_query_runs_in_the_browser(opened: Callable[..., Page]) -> None:
    page = opened("query.html?sql=SELECT%2042")
    assert page.input_value("#sql") == "SELECT 42"
    assert page.inner_text("#said") == "Nothing asked yet."  # a link runs nothing by itself
    for name in page.locator("#sample option").evaluate_all("all => all.map((o) => o.value)"):
        page.select_option("#sample", name)
        page.get_by_role("button", name="Run").click()
        assert "row" in _wait_for_answer(page), name
