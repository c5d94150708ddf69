"""Debian's Chromium, driven by Playwright, with no network but this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if program is None:
        pytest.skip("no chromium here (apt-get install chromium)")
    # Names lead nowhere: what a page would load from elsewhere cannot come from a cache either.
    nowhere = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu", nowhere]
        )
        try:
            yield browser
        finally:
            browser.close()


def offline(context: BrowserContext, complaints: list[str]) -> None:
    """Refuse whatever is not on this machine, and note it with all that pages complain about."""

    def guard(route) -> None:
        url = route.request.url
        if urlsplit(url).hostname == "127.0.0.1" or url.startswith(("blob:", "data:")):
            route.continue_()
        else:
            complaints.append(f"asked for {url}")
            route.abort()

    context.route("**/*", guard)
    context.on("weberror", lambda error: complaints.append(f"error: {error.error}"))
    context.on(
        "console",
        lambda said: complaints.append(f"{said.page.url}: {said.text}")
        if said.type in ("error", "warning") else None,
    )  # fmt: skip
