"""Where a release comes from: sources, model, parameters, software, commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from cmass.params import Params
from cmass.pretrained import SETTINGS_FILE
from cmass.promotion.champion import CARD
from cmass.publish.summary import leaves
from cmass.secrets import redacted
from cmass.software import git_state, package_versions
from cmass.tables import make_table, read_json
from cmass.workspace import Workspace

#: Words in names of statements that differ between two clones that made the same thing: they
#: stay in provenance.json and out of the Parquet file, which has to be the same in both.
VOLATILE = {"date", "time", "retrieved", "path", "mirror", "workers", "scheduler"}


def gather(workspace: Workspace, params: Params) -> dict[str, Any]:
    """All that is known of where the products of a workspace come from.

    Returns
    -------
    dict
        ``release`` (survey, profile), ``sources`` (raw/provenance.json), ``model``
        (model/model.json), ``registry`` (champion.json: version of the model and why it has the
        alias; empty for a model that no registry knows), ``parameters`` (of the run),
        ``model_parameters`` (sections that the model was made with, where they differ), ``software``
        (versions by package, Python, git commit and state).
    """
    card = workspace.champion / CARD
    parameters = params.model_dump(mode="json")
    facts = {
        "release": {"survey": workspace.survey, "profile": workspace.profile},
        "sources": read_json(workspace.raw / "provenance.json"),
        "model": read_json(workspace.model / "model.json"),
        "registry": read_json(card) if card.exists() else {},
        "parameters": parameters,
        "model_parameters": _other_parameters(workspace, parameters),
        "software": {**package_versions(), **git_state()},
    }
    return {name: redacted(value) for name, value in facts.items()}


def _other_parameters(workspace: Workspace, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Sections that the model was made with and that read otherwise in `parameters`."""
    settings = workspace.champion / SETTINGS_FILE
    if not settings.exists():
        return {}
    made_with = read_json(settings)["made_with"]
    return {name: value for name, value in made_with.items() if value != parameters[name]}


def as_table(facts: Mapping[str, Any]) -> pa.Table:
    """Table `provenance` of nested facts: one row a statement, the same in every clone.

    Version numbers of the model registry and statements named in `VOLATILE` are left out: the
    checksum of the weights says the same everywhere.
    """
    rows = [
        (item, name, text)
        for item, value in facts.items()
        if item != "registry"
        for name, text in sorted(leaves(value))  # whatever order a file of parameters had
        if not _volatile(name)
    ]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    return make_table("provenance", dict(zip(("item", "property", "text"), columns, strict=True)))


def _volatile(name: str) -> bool:
    return not VOLATILE.isdisjoint(name.rsplit(".", 1)[-1].lower().split("_"))
