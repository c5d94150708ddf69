"""A page that would fetch something from elsewhere is found; a link that a reader may follow is none."""

from __future__ import annotations

import pytest

from tests.docs.offline import from_elsewhere


@pytest.mark.parametrize(
    "html",
    [
        '<script async src="https://cdn.example.org/x.js"></script>',
        "<img src='//pictures.example.org/a.png'>",
        '<link href="https://fonts.example.org/css" rel="stylesheet">',
        '<link rel="preconnect" href="https://fonts.example.org">',
        '<style>@import "https://fonts.example.org/css";</style>',
        "<style>a { background: url(https://example.org/a.png) }</style>",
    ],
)
def test_what_a_browser_would_fetch_is_found(tmp_path, html):
    (tmp_path / "page.html").write_text(html)
    (fault,) = from_elsewhere(tmp_path)
    assert "page.html fetches" in fault and "example.org" in fault


@pytest.mark.parametrize(
    "html",
    [
        '<a href="https://example.org">a paper</a>', '<script src="_static/x.js"></script>',
        '<link rel="stylesheet" href="../_static/x.css">', '<img src="data:image/png;base64,AAAA">',
        '<link rel="canonical" href="https://example.org/page.html">',
        '<svg xmlns="http://www.w3.org/2000/svg"></svg>',
    ],
)  # fmt: skip
def test_what_it_would_not_is_none(tmp_path, html):
    (tmp_path / "page.html").write_text(html)
    assert from_elsewhere(tmp_path) == []
