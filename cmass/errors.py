"""Errors that a user can act on.

Every error names what is wrong (file, column, row, value) and what to do.
The command line prints the message without a traceback and leaves with
`exit_code`; ``--debug`` shows the traceback.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class CmassError(Exception):
    """Base of all errors raised on purpose by this package."""

    exit_code = 1


class InputError(CmassError):
    """A table or file that cannot be used as it is.

    Parameters
    ----------
    message : str
        What is wrong, in one sentence.
    file, column, row, value : optional
        Where it is wrong; only what is given is shown.
    remedy : str, optional
        What the user can do about it.
    """

    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        file: str | Path | None = None,
        column: str | None = None,
        row: int | str | None = None,
        value: Any = None,
        remedy: str | None = None,
    ) -> None:
        self.message, self.file, self.column = message, file, column
        self.row, self.value, self.remedy = row, value, remedy
        places = [
            f"{label} {place}"
            for label, place in (("file", file), ("column", column), ("row", row))
            if place is not None
        ]
        if value is not None:
            places.append(f"value {value!r}")
        text = message + (f" ({', '.join(places)})" if places else "")
        super().__init__(text + (f". {remedy}" if remedy else ""))


class TooFewMocksError(InputError):
    """A relation or network that so few mocks cannot set."""


class ParameterError(CmassError):
    """A params.yaml or option that is not understood or out of range."""

    exit_code = 3


class SourceError(CmassError):
    """A remote source that could not be read, after all retries."""

    exit_code = 4


class WorkspaceError(CmassError):
    """The data folder cannot be used: a step is missing, locked, or the disk is full."""

    exit_code = 5


class MachineError(CmassError):
    """Machines that should share the work cannot: no scheduler, no worker, or one of another kind."""

    exit_code = 6


class ContractError(CmassError):
    """A step's tables are not what the next step, or the users of a release, may rely on."""

    exit_code = 7


class VoxelError(InputError):
    """A cloud of galaxies that has no density: too few, not finite, or degenerate."""
