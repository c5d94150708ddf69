"""Pages of clusters: one each, whatever the identifiers hold, and nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from cmass import formats
from cmass.estimation import estimate_files
from tests.estimation.test_estimate import sky

pytestmark = pytest.mark.xdist_group("tiny_run")


class Links(HTMLParser):
    """Links, addresses and the text that a reader meets."""

    def __init__(self, text):
        super().__init__()
        self.links, self.tags, self.words = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links += [
            v for k, v in attributes if k in ("href", "src") and tag in ("a", "img", "script")
        ]

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def pages(tmp_path_factory, tiny_bundle):
    folder = tmp_path_factory.mktemp("pages")
    clusters, galaxies = sky(4)
    clusters["cluster_id"] = ["A 2142/1", "<script>x</script>", "index", "plain"]
    clusters.add_row(["lonely", 100.0, 80.0, 0.05])
    clusters.add_row(["broken", 400.0, 80.0, 0.05])
    for name, table in (("c", clusters), ("g", galaxies)):
        formats.write(folder / f"{name}.parquet", formats.from_astropy(table))
    files = [folder / f"{name}.parquet" for name in "cgm"]
    table = estimate_files(*files, model=tiny_bundle, plot=folder / "plot")
    return folder / "plot", table


def test_every_cluster_has_its_page_and_the_index_leads_there(pages):
    folder, table = pages
    index = Links((folder / "index.html").read_text())
    assert len(index.links) == table.num_rows == 6
    for link, row in zip(index.links, table.to_pylist(), strict=True):
        page = Links((folder / unquote(link)).read_text())
        text = " ".join(page.words)
        assert row["cluster_id"] in text
        assert "script" not in page.tags
        assert (row["remark"] or "None.") in text
        assert all((folder / unquote(one)).exists() for one in page.links)
        if row["log10_m200c_p50"] is not None:
            assert f"{row['log10_m200c_p50']:.2f} +" in text


def test_pages_need_nothing_from_elsewhere_and_say_what_they_show(pages):
    folder, _ = pages
    for page in folder.glob("*.html"):
        text = page.read_text()
        assert not re.search(r'(src|href)="(https?:)?//', text)
        assert text.count("<svg") == len(
            re.findall(r'<svg role="img" aria-label="[^"]{20,}"', text)
        )


def test_pages_of_the_same_clusters_are_the_same_bytes(pages, tiny_bundle):
    folder, _ = pages
    before = {p.name: p.read_bytes() for p in folder.glob("*.html")}
    inputs = [folder.parent / f"{name}.parquet" for name in "cgm"]
    estimate_files(*inputs, model=tiny_bundle, plot=folder)
    assert {p.name: p.read_bytes() for p in folder.glob("*.html")} == before
