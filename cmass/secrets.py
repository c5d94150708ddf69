"""Passwords and keys stay out of logs, errors and files.

They come in by the environment (``MLFLOW_TRACKING_URI``, ``AWS_SECRET_ACCESS_KEY``, …), as part of
addresses, or in what a server says. `redact` takes them out of any text on its way out.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

HIDDEN = "***"
#: Names of what is secret, in addresses and in the environment.
_NAMES = r"(?:[\w.-]*(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|credential|signature)[\w.-]*|sig|auth)"
_NAME = re.compile(_NAMES, re.IGNORECASE)
#: Up to the last @, as passwords hold slashes and @, too; an address ends at a blank. After a colon it may
#: have been host and port, and a path with an @: then that is hidden, which does less harm.
_USER = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)(?:[^\s/?#\"'<>]*|[^\s/?#:\"'<>]*:[^\s\"'<>]*)@",
    re.IGNORECASE,
)
_PAIR = re.compile(rf"(?P<name>(?<![\w.-]){_NAMES}[\"']?\s*[=:]\s*)(?P<value>[\"'][^\"']*[\"']|[^\s&,;\"'<>)\]}}]+)", re.IGNORECASE)  # fmt: skip
_BEARER = re.compile(r"\b(?P<kind>bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
#: Shorter values of the environment are words that stand elsewhere as well.
_SHORTEST = 8
#: Folders that the shell is in and was in, whose names only look like a password's.
_FOLDERS = {"PWD", "OLDPWD"}


def redact(text: str) -> str:
    """The text without passwords in addresses, values of secret names, and secrets of the environment."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and name not in _FOLDERS and _NAME.fullmatch(name):
            text = text.replace(value, HIDDEN)
    text = _USER.sub(rf"\g<scheme>{HIDDEN}@", text)
    text = _BEARER.sub(rf"\g<kind> {HIDDEN}", text)
    return _PAIR.sub(rf"\g<name>{HIDDEN}", text)


def redacted(value: Any) -> Any:
    """`redact` for every text in dictionaries and lists; the rest as it is."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: redacted(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(one) for one in value]
    return value


def address(url: str) -> str:
    """An address for a file: without user, password, query and fragment."""
    if "://" not in url:
        return redact(url)  # a path
    parts = urlsplit(_USER.sub(r"\g<scheme>", url))
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def has_password(text: str) -> bool:
    """Whether an address in a text carries a user or a password."""
    return _USER.search(text) is not None


@contextmanager
def told_without_secrets() -> Iterator[None]:
    """What is raised within, and what it was raised from, is redacted on its way to whoever keeps it."""
    try:
        yield
    except BaseException as error:
        waiting, seen = [error], set()
        while waiting:
            one = waiting.pop()
            seen.add(id(one))
            one.args = tuple(redacted(one.args))
            if isinstance(one, OSError):  # it speaks by these, not by its arguments
                for name in ("strerror", "filename", "filename2"):
                    if isinstance(value := getattr(one, name), str):
                        setattr(one, name, redact(value))
            causes = (one.__cause__, one.__context__)
            waiting += [c for c in causes if c is not None and id(c) not in seen]
        raise


class Redacting(logging.Filter):
    """For a handler: what it writes is redacted, and has no control characters of a terminal."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; it passes."""
        record.msg, record.args = printable(redact(record.getMessage())), None
        return True


def printable(text: str) -> str:
    """The text without control characters, by which a file's words could speak to the terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)
