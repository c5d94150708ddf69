"""The documentation site: `make docs` makes it from the Markdown that a git forge shows, and from docstrings."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

import cmass  # noqa: E402

project, author, copyright = "cmass", "the cmass developers", "the cmass developers"
version = release = cmass.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]

# Pages lie where they lie in the repository, so that their links hold here as there.
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "data/README.md", "docs/**"]
exclude_patterns = [
    *(p.name for p in ROOT.iterdir() if p.is_dir() and p.name not in ("docs", "data")),
    "data/[!R]*",
    "docs/sphinx",
    "docs/reference/api/modules.rst",
]

#: Where pages stand in the navigation; a page of docs/ that is not named stands at its end.
NAVIGATION = {
    "Getting started": ["docs/start"],
    "Your own clusters": ["docs/your-clusters", "docs/mistakes"],
    "Tutorials": [],
    "The catalogue": ["docs/site", "docs/queries", "docs/reference/columns"],
    "Science": ["docs/science", "docs/mocks", "docs/realism", "docs/performance"],
    "Operations": [
        "docs/operations", "data/README", "docs/reliability", "docs/security", "docs/architecture",
    ],
    "Reference": [
        "docs/reference/commands", "docs/reference/parameters", "docs/reference/environment",
        "docs/reference/python", "docs/reference/api/cmass",
    ],
    "About": ["CHANGELOG", "docs/licences"],
}  # fmt: skip

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
# Tutorials are Python with words in comments; the same function runs them for the tests.
nb_execution_mode = "off"
nb_custom_formats = {".py": "tests.docs.tutorials.executed"}
nb_merge_streams = True
nb_output_stderr = "remove"

apidoc_modules = [
    {
        "path": "../../cmass",
        "destination": "docs/reference/api",
        "separate_modules": False,
        "module_first": True,
    }
]
toc_object_entries = False  # thousands, in the navigation of every page
autodoc_member_order = "bysource"
autodoc_typehints = "none"
default_role = "code"
# Words of a docstring's types, as "shape (n,)", are taken for names of Python.
suppress_warnings = ["ref.python", "misc.highlighting_failure"]
napoleon_google_docstring = False
napoleon_use_ivar = True

html_math_renderer = "mathml"  # browsers draw it by themselves; MathJax comes from a server
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["cmass.css"]
html_additional_pages = {"index": "index.html"}
templates_path = ["templates"]
html_title = "cmass"
html_copy_source = False
html_show_sourcelink = False
pygments_style, pygments_dark_style = "friendly", "monokai"


def _navigation() -> str:
    """Hidden tables of contents, one a caption, of the pages that there are."""
    pages = [p for kind in ("*.md", "*.py") for p in (ROOT / "docs").rglob(kind)]
    here = {str(p.relative_to(ROOT).with_suffix("")) for p in pages if "sphinx" not in p.parts}
    here |= {"CHANGELOG", "data/README", "docs/reference/api/cmass"}
    lists = {
        caption: [page for page in named if page in here] for caption, named in NAVIGATION.items()
    }
    lists["Tutorials"] = sorted(page for page in here if page.startswith("docs/tutorials/"))
    lists["More"] = sorted(here.difference(*lists.values()))
    return "".join(
        "\n".join(["", "", "```{toctree}", ":hidden:", f":caption: {caption}", "", *named, "```"])
        for caption, named in lists.items() if named
    )  # fmt: skip


def _drawn(diagram: re.Match[str]) -> str:
    """A Mermaid diagram, which a git forge draws by itself, as SVG."""
    import mermaidx

    svg = mermaidx.render(diagram[1], theme="neutral").svg().replace("\n", " ")
    return f'```{{raw}} html\n<div role="img" aria-label="Diagram" class="diagram">{svg}</div>\n```'


def _read(app, docname, source):
    source[0] = re.sub(r"```mermaid\n(.*?)```", _drawn, source[0], flags=re.DOTALL)
    if docname == root_doc:
        source[0] += _navigation()


def _plain(app, what, name, obj, options, lines):
    """|v| is a modulus in docstrings, and no substitution."""
    lines[:] = [line.replace("|", "\\|") for line in lines]


def _math(visited, node):
    """A formula as MathML."""
    from docutils.nodes import SkipNode
    from latex2mathml.converter import convert

    display = "inline" if node.tagname == "math" else "block"
    visited.body.append(convert(node.astext(), display=display))
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (_math, None), (_math, None))
    app.connect("autodoc-process-docstring", _plain)
    app.connect("source-read", _read)
