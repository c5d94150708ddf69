"""Pictures of every kind of page for docs/site.md: ``python -m tests.publish.site.screenshots --data data``.

The site of the latest release must be there, with its console (`cmass site`).
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmass.publish.release import version_folder
from cmass.publish.site import check_site
from cmass.publish.site.content import read_release
from cmass.workspace import SITE
from tests.publish.site.chromium import chromium, offline
from tests.publish.site.conftest import served

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[3]
#: Largest picture, bytes; colours are taken away until it fits.
SIZE_MAX = 200_000
_DESKTOP = {"viewport": {"width": 1240, "height": 900}}
_PHONE = {"viewport": {"width": 360, "height": 780}, "device_scale_factor": 2, "is_mobile": True}


def _ask(page: Page) -> None:
    page.select_option("#sample", "galweight")
    page.click("#go")
    page.locator("#plot svg").wait_for(timeout=60_000)
    page.locator("#answered").scroll_into_view_if_needed()


def _point(page: Page) -> None:
    page.locator("#sky a").last.hover(force=True)


#: Name of the picture: page, screen, what is done before, and how tall it is.
SHOTS: dict[str, tuple[str, dict[str, Any], Any, int]] = {
    "overview": ("index", _DESKTOP, None, 1250),
    "sky": ("sky", _DESKTOP, _point, 900),
    "clusters": ("clusters", _DESKTOP, None, 900),
    "cluster": ("clusters/{cluster}", _DESKTOP, None, 1750),
    "cluster-dark": ("clusters/{cluster}", _DESKTOP | {"color_scheme": "dark"}, None, 1250),
    "cluster-phone": ("clusters/{cluster}", _PHONE, None, 1400),
    "query": ("query", _DESKTOP, _ask, 1750),
    "calibration": ("calibration", _DESKTOP, None, 900),
    "realism": ("realism", _DESKTOP, None, 1250),
    "model": ("model", _DESKTOP, None, 900),
    "method": ("method", _DESKTOP, None, 900),
    "columns": ("columns", _DESKTOP, None, 900),
    "flags": ("flags", _DESKTOP, None, 760),
}


def small(png: bytes) -> bytes:
    """The same picture with as many colours as fit into `SIZE_MAX`."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for colours in (256, 128, 64, 32, 16):
        out = io.BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if out.tell() <= SIZE_MAX:
            return out.getvalue()
    raise ValueError(f"a picture of {picture.size} has more than {SIZE_MAX} bytes in 16 colours")


def take(release: Path, to: Path, cluster: str) -> None:
    """Write all pictures of a release's site to a folder."""
    check_site(release / SITE)
    names = {c.id: c.name for c in read_release(release).clusters}
    to.mkdir(parents=True, exist_ok=True)
    complaints: list[str] = []
    with served(release) as port, chromium() as browser:
        for name, (path, screen, act, height) in SHOTS.items():
            context = browser.new_context(**screen)
            offline(context, complaints)
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{port}/{SITE}/{path.format(cluster=names[cluster])}.html")
            page.wait_for_load_state("load")
            if act is not None:
                act(page)
            page.wait_for_timeout(300)
            tall = min(height, page.evaluate("document.documentElement.scrollHeight"))
            width = screen["viewport"]["width"]
            png = page.screenshot(
                full_page=True, clip={"x": 0, "y": 0, "width": width, "height": tall}
            )
            (to / f"{name}.png").write_bytes(small(png))
            context.close()
    if complaints:
        raise RuntimeError("\n".join(complaints))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="data folder")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "site", help="folder")
    parser.add_argument("--cluster", default="GalWCat19-0003", help="whose page is shown")
    given = parser.parse_args()
    take(version_folder(given.data / "release", "latest"), given.to, given.cluster)


if __name__ == "__main__":
    main()
