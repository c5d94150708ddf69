"""Parts of a release's own documents for the pages of its site: report, model card, README."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

_SECTION = re.compile(r'<section id="([a-z]+)">\s*<h2>(.*?)</h2>(.*?)</section>', re.DOTALL)
_WORDS = re.compile(r'<details class="words".*?<dl>(.*?)</dl>', re.DOTALL)
#: Links of the report to files beside it, which lie above the site.
_BESIDE = re.compile(r'(<a [^>]*?href=")(?!#|[a-z]+:|\.\./)')
#: A row of the README's table of files: names between backticks, and words.
_FILE_ROW = re.compile(r"^\| (`[^|]+`) \| (.+?) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """A section of the report: anchor, title, HTML."""

    name: str
    title: str
    body: str


def report_parts(release: Path) -> dict[str, Part]:
    """Sections of a release's report by name; none where it has no report of this kind."""
    file = release / "report.html"
    if not file.is_file():
        return {}
    text = file.read_text(encoding="utf-8")
    found = {}
    for name, title, body in _SECTION.findall(text):
        body = _BESIDE.sub(r"\1../", body)
        # One level up: the section's own title heads the page.
        found[name] = Part(name, title, body.replace("<h3", "<h2").replace("</h3>", "</h2>"))
    return found


def glossary(release: Path) -> str:
    """The report's list of words, as HTML of a definition list; empty where it has none."""
    file = release / "report.html"
    found = _WORDS.search(file.read_text(encoding="utf-8")) if file.is_file() else None
    return found[1] if found else ""


def as_html(markdown: str) -> str:
    """Markdown as HTML; HTML in it is shown, not obeyed, and tables can be scrolled."""
    from markdown_it import MarkdownIt

    text: str = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    text = re.sub(r"<h1>.*?</h1>", "", text, count=1, flags=re.DOTALL)  # the page has its own
    number = itertools.count(1)
    text = re.sub(
        "<table>",
        lambda _: (
            f'<div class="scroll" tabindex="0" role="region" aria-label="Table {next(number)}">'
            "<table>"
        ),
        text,
    ).replace("</table>", "</table></div>")
    # Alignment as a class: the page's policy permits no style in the markup.
    return text.replace(' style="text-align:right"', ' class="n"')


def file_words(release: Path) -> dict[str, str]:
    """What each file of a release is, as its README says."""
    file = release / "README.md"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    found: dict[str, str] = {}
    for names, words in _FILE_ROW.findall(text):
        for name in re.findall(r"`([^`]+)`", names):
            found.setdefault(name, words.replace("`", ""))
    return found
