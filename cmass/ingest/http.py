"""Downloads that survive bad servers: retries, checks of the body, and resume.

Every response that passes its check is kept under its URL and query, with its SHA-256.
A later run takes what is intact from there and fetches the rest.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cmass.errors import SourceError, WorkspaceError
from cmass.params import NetworkSourceParams
from cmass.tables import atomic_path, file_digest, read_json, write_json

_log = logging.getLogger(__name__)
_BLOCK = 1 << 16
#: Longest answer, bytes: a chunk of SkyServer's 500 000 rows is some 50 MB.
BODY_MAX_BYTES = 2_000_000_000
#: Longest wait between two tries, seconds.
_BACKOFF_MAX_S = 120.0
#: HTTP states that may pass: time-out, too many requests, and the server's own faults.
_PASSING = (408, 425, 429, 500, 502, 503, 504)

#: Names the bodies that newer ones are about to replace.
_REPLACING = "replacing"

Check = Callable[[Path], None]


class DamagedError(Exception):
    """A body that is not what was asked for; another try may bring it whole."""


@dataclass(frozen=True)
class Download:
    """One body on disk.

    Attributes
    ----------
    path : Path
    sha256 : str
        Of the body.
    url : str
        With the query.
    retrieved : str
        Day of the download, ISO 8601, UTC.
    """

    path: Path
    sha256: str
    url: str
    retrieved: str


def _record(url: str, body: Path, day: str) -> dict[str, str]:
    """What the note beside a body says."""
    return {"url": url, "sha256": file_digest(body), "retrieved": day}


class Downloader:
    """Fetch over HTTP into a folder, once for each URL and query.

    Parameters
    ----------
    folder : Path
        Where bodies are kept.
    settings : NetworkSourceParams
        Number of tries, waits and time limit.
    sleep : callable, optional
        Waits for so many seconds.
    """

    def __init__(
        self, folder: Path, settings: NetworkSourceParams,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self.folder, self.settings, self._sleep = folder, settings, sleep

    def fetch(self, url: str, query: Mapping[str, str], check: Check) -> Download:
        """Return the body at `url` with `query`, from the folder where it is intact.

        Parameters
        ----------
        url : str
        query : mapping
            Names and values of the query string.
        check : callable
            Given the body's path; raises `DamagedError` where the body is not whole. Other
            exceptions pass through.

        Raises
        ------
        SourceError
            The server did not give a good body in so many tries, or refused for good.
        """
        import requests

        self._replace()
        full = requests.Request("GET", url, params=dict(query)).prepare().url or url
        name = hashlib.sha256(full.encode()).hexdigest()[:32]
        body, note = self.folder / f"{name}.body", self.folder / f"{name}.json"
        if (kept := self._kept(body, note, full)) is not None:
            try:
                check(kept.path)
            except DamagedError as error:
                _log.warning("%s: what was kept is not usable (%s); fetching again", full, error)
            else:
                return kept
        self._get(full, body, check)
        day = datetime.datetime.now(datetime.UTC).date().isoformat()
        record = Download(body, file_digest(body), full, day)
        write_json(note, _record(full, body, day))
        return record

    def refresh(self, prefixes: Iterable[str]) -> list[str]:
        """Fetch again every body that is kept and whose URL begins with one of `prefixes`.

        A body that is the same stays as it is, with the day of its first download. Whether one that
        has changed is whole is asked by the next `fetch`, which knows how. What has arrived before a
        server went away is not asked for again on the same day, but takes its place with the others only.

        Returns
        -------
        list of str
            URLs of which another body came.

        Raises
        ------
        SourceError
            The server did not give a body in so many tries, or refused for good; what is kept stays.
        """
        self._replace()
        urls = {}
        for note in sorted(self.folder.glob("*.json")):
            with suppress(
                WorkspaceError, KeyError, TypeError
            ):  # fetch() finds it damaged, and says so
                urls[note] = str(read_json(note)["url"])
        asked = {n: url for n, url in urls.items() if url.startswith(tuple(prefixes))}
        day = datetime.datetime.now(datetime.UTC).date().isoformat()
        self._inbox.mkdir(exist_ok=True)
        changed = {}
        for note, url in asked.items():
            newer, body = self._inbox / f"{note.stem}.body", note.with_suffix(".body")
            if not self._arrived(newer, url, day):
                self._get(url, newer, lambda path: None)
                write_json(newer.with_suffix(".json"), _record(url, newer, day))
            if not body.exists() or file_digest(newer) != file_digest(body):
                changed[note.stem] = url
        # All have arrived: until here everything that is kept is of one day, and from here on it will be.
        write_json(self._inbox / _REPLACING, sorted(changed))
        self._replace()
        return list(changed.values())

    @property
    def _inbox(self) -> Path:
        """Bodies that wait for the others of a refresh."""
        return self.folder.with_name(f"{self.folder.name}.newer")

    def _arrived(self, newer: Path, url: str, day: str) -> bool:
        """Whether an interrupted `refresh` of the same day has brought a body."""
        note = newer.with_suffix(".json")
        return newer.exists() and note.exists() and read_json(note) == _record(url, newer, day)

    def _replace(self) -> None:
        """Put newer bodies in their places, once all have arrived; a kill in between is made good."""
        journal = self._inbox / _REPLACING
        if not journal.exists():
            return
        for name in read_json(journal):
            newer = self._inbox / f"{name}.body"
            if newer.exists():  # it goes last: as long as it is there, the note may not fit
                write_json(self.folder / f"{name}.json", read_json(newer.with_suffix(".json")))
                os.replace(newer, self.folder / f"{name}.body")
        shutil.rmtree(self._inbox)

    def _kept(self, body: Path, note: Path, url: str) -> Download | None:
        if not (body.exists() and note.exists()):
            return None
        try:
            known = read_json(note)
        except WorkspaceError:
            known = None
        known = known if isinstance(known, dict) else {}
        if known.get("url") != url or known.get("sha256") != file_digest(body):
            _log.warning("%s: the kept body is damaged; fetching again", url)
            return None
        return Download(body, known["sha256"], url, str(known.get("retrieved", "unknown")))

    def _get(self, url: str, body: Path, check: Check) -> None:
        """Fetch `url` into `body`, trying again after what may pass."""
        import requests
        import tenacity
        import urllib3

        settings = self.settings
        passing = (DamagedError, requests.ConnectionError, requests.Timeout,
                   urllib3.exceptions.HTTPError)  # fmt: skip

        def warn(state: tenacity.RetryCallState) -> None:
            reason = state.outcome.exception() if state.outcome else None
            wait = state.next_action.sleep if state.next_action else 0.0
            _log.warning(
                "%s: try %d of %d failed (%s); next in %.1f s",
                _short(url), state.attempt_number, settings.attempts, reason, wait,
            )  # fmt: skip

        retry = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(settings.attempts),
            wait=tenacity.wait_exponential(multiplier=settings.backoff_s, max=_BACKOFF_MAX_S),
            retry=tenacity.retry_if_exception_type(passing),
            before_sleep=warn, sleep=self._sleep, reraise=True,
        )  # fmt: skip
        try:
            retry(self._get_once, url, body, check)
        except passing as error:
            raise SourceError(
                f"{_short(url)} gave no usable answer in {settings.attempts} tries; the last: "
                f"{error}. What arrived whole is kept: run the same command again later, or use "
                "a mirror folder (--mirror DIR)"
            ) from error
        except requests.RequestException as error:
            raise SourceError(f"{_short(url)} cannot be asked: {error}") from error

    def _get_once(self, url: str, body: Path, check: Check) -> None:
        import requests

        settings = self.settings
        deadline = time.monotonic() + settings.timeout_s
        headers = {"Accept-Encoding": "identity", "User-Agent": "cmass"}
        with requests.get(
            url, stream=True, timeout=settings.timeout_s, headers=headers
        ) as response:
            if response.status_code != 200:
                said = f"HTTP {response.status_code} {response.reason}: {_said(response)}"
                if response.status_code in _PASSING:
                    raise DamagedError(said)
                raise SourceError(
                    f"{_short(url)} refused: {said}. Check ingest.network in params.yaml"
                )
            encoded = "Content-Encoding" in response.headers
            expected = None if encoded else response.headers.get("Content-Length")
            with atomic_path(body) as temporary:
                size = 0
                with open(temporary, "wb") as stream:
                    # read1 gives what has arrived, so that a server that trickles cannot
                    # hold the time limit off.
                    while block := response.raw.read1(_BLOCK, decode_content=True):
                        size += stream.write(block)
                        if size > BODY_MAX_BYTES:
                            raise SourceError(
                                f"{_short(url)} sends more than {BODY_MAX_BYTES / 1e9:g} GB, and "
                                "no answer is that long. Check ingest.network in params.yaml"
                            )
                        if time.monotonic() > deadline:
                            raise DamagedError(f"not done after {settings.timeout_s:g} s")
                if expected is not None and expected != str(size):
                    raise DamagedError(f"{size} bytes of {expected} arrived")
                refuse_html(temporary)
                check(temporary)


def refuse_html(path: Path) -> None:
    """Raise `DamagedError` where `path` is empty or holds a web page."""
    with open(path, "rb") as stream:
        head = stream.read(_BLOCK)
    if not head.strip():
        raise DamagedError("the body is empty")
    if re.match(rb"\s*(<!doctype\s+html|<html|<head|<body)", head, re.IGNORECASE):
        raise DamagedError(f"a web page instead of data: {_words(head)}")


def _said(response: object) -> str:
    blocks = response.iter_content(2048)  # type: ignore[attr-defined]
    return _words(next(blocks, b""))


def _words(page: bytes) -> str:
    """The readable start of a page, on one line."""
    text = re.sub(r"<(style|script)\b.*?</\1\s*>|<[^>]*>", " ", page.decode("utf-8", "replace"),
                  flags=re.DOTALL | re.IGNORECASE)  # fmt: skip
    return " ".join(text.split())[:160] or "(no words)"


def _short(url: str) -> str:
    return url if len(url) <= 100 else url[:97] + "..."
