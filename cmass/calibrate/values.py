"""Parameters by dotted name: read, changed, and written back to params.yaml with its comments."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cmass.errors import ParameterError
from cmass.params import Params
from cmass.tables import atomic_path


def value_of(params: Params, name: str) -> float:
    """The number at a dotted name, as in ``mock.galaxies.flux_limit_mag``."""
    value: Any = params
    for part in name.split("."):
        value = getattr(value, part)
    return float(value)


def with_values(params: Params, values: Mapping[str, Any]) -> Params:
    """`params` with other values at dotted names.

    Raises
    ------
    ParameterError
        A value is not allowed.
    """
    tree = params.model_dump()
    for name, value in values.items():
        *sections, last = name.split(".")
        branch = tree
        for section in sections:
            branch = branch[section]
        branch[last] = value
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ParameterError(f"{where}: {first['msg']}") from error


def write_values(file: Path, values: Mapping[str, Any]) -> None:
    """Write values at dotted names into a parameter file; all else, comments too, stays.

    Names of a mapping that are there keep their place and comment, new ones follow. Values that a profile
    overrides are not touched.

    Raises
    ------
    ParameterError
        The file has no such name.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.representer import RoundTripRepresenter

    class Representer(RoundTripRepresenter):
        """`null` is written out, as this file has it."""

    Representer.add_representer(
        type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    yaml = YAML()
    yaml.Representer = Representer
    yaml.preserve_quotes = True
    yaml.width = 10_000
    tree = yaml.load(file.read_text(encoding="utf-8"))
    for name, value in values.items():
        *sections, last = name.split(".")
        branch = tree
        for section in sections:
            if not isinstance(branch.get(section), CommentedMap):
                raise ParameterError(f"{file}: no section {section!r} for {name}")
            branch = branch[section]
        if last not in branch:
            raise ParameterError(f"{file}: no parameter {name}")
        if isinstance(value, Mapping):
            _update(branch[last], value)
        else:
            _keep_distance(branch, last, str(value))
            branch[last] = value
    text = io.StringIO()
    yaml.dump(tree, text)
    with atomic_path(file) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _update(branch: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name in branch:
            _keep_distance(branch, name, str(value))
        branch[name] = value


def _keep_distance(branch: Any, name: str, new: str) -> None:
    """Move the comment behind a value so that it stays two spaces away."""
    tokens = branch.ca.items.get(name)
    comment = tokens[2] if tokens and len(tokens) > 2 else None
    if comment is not None:
        column = branch.lc.value(name)[1]
        comment.start_mark.column = column + len(new) + 2
