"""Does a built site ask the network for anything? ``python -m tests.docs.offline FOLDER``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

#: What a browser fetches by itself: sources, styles, fonts; not links that a reader may follow.
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|audio|video|embed|input)\b[^>]*?\bsrc\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b(?=[^>]*\brel\s*=\s*["']?(?:stylesheet|preload|preconnect|dns-prefetch|icon))[^>]*?\bhref\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|@import\s+(?:url\()?["']?((?:https?:)?//[^"'\s)]+)|url\(\s*["']?((?:https?:)?//[^"'\s)]+)""",
    re.IGNORECASE,
)


def from_elsewhere(folder: Path) -> list[str]:
    """Addresses outside the site that its pages and styles would fetch, each with its file."""
    found = []
    for file in sorted(p for kind in ("*.html", "*.css") for p in folder.rglob(kind)):
        for match in _FETCHED.finditer(file.read_text(encoding="utf-8", errors="replace")):
            address = next(group for group in match.groups() if group)
            found.append(f"{file.relative_to(folder)} fetches {address}")
    return found


def main() -> int:
    """Look; 1 where something is fetched, or where there is no site."""
    folder = Path(sys.argv[1])
    pages = list(folder.rglob("*.html"))
    faults = from_elsewhere(folder)
    sys.stdout.write("".join(f"{line}\n" for line in faults))
    sys.stdout.write(f"{len(pages)} pages in {folder}, {len(faults)} fetch from elsewhere\n")
    return int(bool(faults) or not pages)


if __name__ == "__main__":
    sys.exit(main())
