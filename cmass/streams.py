"""Standard error that may go away while work goes on."""

from __future__ import annotations

import os
from typing import TextIO


class Undisturbed:
    """A text stream whose reader may leave: what is written then goes nowhere.

    ``cmass estimate … 2>&1 | head`` closes the log after some lines. That must not end the work, nor
    lose what it has made.

    Parameters
    ----------
    stream : file
        With a file descriptor, as ``sys.stderr`` has.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, as a file does."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._to_nowhere()
            return len(text)

    def flush(self) -> None:
        """Flush, as a file does."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._to_nowhere()

    def _to_nowhere(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
