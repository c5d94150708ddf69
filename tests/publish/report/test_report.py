"""report.html: one file, no network, readable by people and screen readers."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cmass import figures
from cmass.columns import FLAGS
from cmass.figures import SECTIONS, entries
from cmass.figures.overview import save_overview
from cmass.params import Params
from cmass.publish import run
from cmass.publish.report import SIZE_MAX, Panel, alone
from cmass.publish.summary import metric_words
from cmass.workspace import Workspace

FIGURES = [e.name for e in entries("embedded") if not e.name.startswith("study_")]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Page(HTMLParser):
    """Tags with their attributes, and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))

    handle_startendtag = handle_starttag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def file(released: Workspace) -> Path:
    return released.releases / "latest" / "report.html"


@pytest.fixture(scope="module")
def page(file: Path) -> Page:
    return Page(file.read_text(encoding="utf-8"))


def test_nothing_is_loaded_from_elsewhere(file: Path, page: Page) -> None:
    assert file.stat().st_size < SIZE_MAX
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed"), tag
        for name in ("src", "href", "xlink:href", "data", "srcset", "action"):
            value = attributes.get(name, "#")
            if (tag, value) == ("a", "contracts.html"):  # beside it in the release
                continue
            assert value.startswith(("#", "data:")), (tag, name, value[:80])
    policy = next(a for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'")
    styles = re.findall(r"url\(([^)]*)\)", file.read_text(encoding="utf-8"))
    assert all(target.startswith(("#", "data:")) for target in styles)
    assert "@import" not in file.read_text(encoding="utf-8")


def test_every_figure_is_there_and_says_what_it_shows(page: Page) -> None:
    assert [a["id"] for tag, a in page.tags if tag == "figure"] == FIGURES
    drawings = [a for tag, a in page.tags if tag == "svg"]
    assert len(drawings) == len(FIGURES)
    for attributes in drawings:
        assert attributes["role"] == "img"
        assert len(attributes["aria-label"]) > 40
        assert "viewbox" in attributes
        assert "width" not in attributes


def test_ids_are_unique_and_links_lead_somewhere(page: Page) -> None:
    ids = Counter(a["id"] for _, a in page.tags if "id" in a)
    assert [i for i, count in ids.items() if count > 1] == []
    for _, attributes in page.tags:
        for name in ("href", "xlink:href"):
            target = attributes.get(name, "")
            if target.startswith("#"):
                assert target[1:] in ids, target


def test_numbers_flags_checks_and_provenance_are_told(page: Page) -> None:
    for words in (
        "Scatter of ε evaluation mocks 0.158 0.003 0.160 dex", "Clusters with a mass 38 of 40 selected",
        "Mean pull against GalWeight 0.110 paper: −0.020", "expectations held at 1 hand-overs", "There is no earlier release of this survey",
        "clusters.licence CC0", "voxels.kappa 0.175", "Not for science", "Simulated sky",
    ):  # fmt: skip
        assert words in page.text, words
    assert f"too_few_galaxies {FLAGS['too_few_galaxies'].words} 2" in page.text


def test_words_are_explained_and_commands_are_code(page: Page) -> None:
    assert "Words used on this page" in page.text
    terms = [tag for tag, _ in page.tags if tag == "dt"]
    assert len(terms) > 20  # of the glossary, and of the tiles
    for words in ("Window The galaxies within 4 h⁻¹ Mpc", "flat in log mass from 13.5"):
        assert words in page.text, words
    assert "`" not in page.text


def test_drawings_follow_the_page_colours(file: Path) -> None:
    body = file.read_text(encoding="utf-8").split("</style>", 1)[1]
    assert "var(--ink)" in body
    assert "#1b2431" not in body  # the light page's ink, which would vanish on a dark one


def test_text_from_data_is_escaped(make_workspace) -> None:
    workspace = make_workspace(n_clusters=8)
    title = "<script>alert(1)</script>"
    run(workspace, Params.model_validate({"profile": "smoke", "publish": {"title": title}}))
    text = (workspace.releases / "latest" / "report.html").read_text(encoding="utf-8")
    assert title not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize("survey", ["embedded", "sdss"])
def test_a_survey_without_any_mass_has_a_report(make_workspace, monkeypatch, survey: str) -> None:
    workspace = make_workspace(n_clusters=3, survey=survey, with_masses=False)
    wanted = ("sky", "fig10_galweight", "figA1_mass_function", "realism_clumpiness")
    some = tuple(entry for entry in entries() if entry.name in wanted)
    monkeypatch.setattr(figures, "entries", lambda survey=None: some)
    contracts = {"no_mass_max_fraction": 1}  # which would not be released otherwise
    params = Params.model_validate(
        {"profile": "standard", "survey": survey, "contracts": contracts}
    )
    figures.run(workspace, params)
    run(workspace, params)
    page = Page((workspace.releases / "latest" / "report.html").read_text(encoding="utf-8"))
    assert [a["id"] for tag, a in page.tags if tag == "figure"] == [e.name for e in some[:-1]]
    for words in ("nothing to compare.", "there are no pulls.", "no mass function to draw.",
                  "Not here: “Clumpiness” lacks"):  # fmt: skip
        assert words in page.text
    assert "cmass realism makes" in page.text
    assert ("Simulated sky" in page.text) == (survey == "embedded")


def test_sections_stand_in_order_and_the_paper_beside_ours(page: Page) -> None:
    sections = [a["id"] for tag, a in page.tags if tag == "section"]
    named = [name for name in SECTIONS if name in sections]
    assert sections[: len(named)] == named
    assert {"catalogue", "proof", "calibration", "rivals", "realism", "beyond", "quality"} <= set(
        named
    )
    for words in (
        "Prediction and residual by true mass · Fig. 5 of the paper",
        "s per 1000 clusters CNN 3D", "Scatter of ε 0.158 ± 0.003 dex 0.160 dex", "Windows of the test set 300 20000",
    ):  # fmt: skip
        assert words in page.text, words


def test_overview_is_a_picture(released: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "docs" / "overview.png"
    save_overview(released, path)
    first = path.read_bytes()
    assert first.startswith(b"\x89PNG")
    save_overview(released, path)
    assert path.read_bytes() == first
    pixels = _pixels(path)
    assert pixels.shape[1] > 1000
    assert (pixels.min(axis=2) == 255).mean() > 0.5  # white paper, whatever the page behind


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_opens_in_a_browser_without_the_network(
    file: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    # A frame of a phone's width: headless windows are never narrower than 500 pixels.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<style>body{{margin:0}}</style><iframe src="{file.resolve().as_uri()}" '
        f'style="width:{width}px;height:1600px;border:0"></iframe>'
    )
    picture = tmp_path / "page.png"
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={tmp_path / 'profile'}", "--disable-component-update",
            "--proxy-server=127.0.0.1:9", "--disable-background-networking",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--window-size={width},1600", f"--screenshot={picture}", frame.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pixels = _pixels(picture)[:, :width].astype(float)
    brightness = pixels.mean()
    assert brightness < 90 if dark else brightness > 200
    # Something is drawn all the way down, and nothing sticks out to the right of the page.
    rows = pixels.std(axis=(1, 2))
    assert (rows.reshape(16, -1).max(axis=1) > 2).all()
    assert pixels[:, -4:].std(axis=0).max() < 1


def _pixels(path: Path) -> np.ndarray:
    """RGB pixels of a PNG with 8 bits a channel, shape (height, width, 3)."""
    from matplotlib.image import imread

    image = imread(path)
    return np.round(image[..., :3] * 255).astype(int)


def test_a_figure_without_neighbour_gets_the_whole_row() -> None:
    def panel(name: str, wide: bool) -> Panel:
        return Panel(name, name, "", "", "", wide, [])

    panels = [panel(n, n.isupper()) for n in ("a", "B", "c", "d", "e", "F", "g", "h", "i")]
    single = [p.name for p in alone(panels) if p.single]
    assert single == ["a", "e", "i"]


def test_xray_rows_stand_with_their_figure() -> None:
    assert metric_words("xray_scatter_beyond_galweight_cnn3d", "sdss") == (
        "CNN₃D against X-ray: scatter less GalWeight’s"
    )
    assert metric_words("xray_offset_cnn3d_hmf", "sdss") == (
        "CNN₃D (mass-function prior) against X-ray: median offset"
    )
    assert metric_words("xray_n_matched", "sdss") == "Clusters with an X-ray mass"
