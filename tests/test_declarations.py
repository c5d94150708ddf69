"""What each step declares in the pipeline is what it touches: parameters and products."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from cmass import pipeline
from cmass.params import Params, load_params
from cmass.pipeline import STEPS, Step
from cmass.workspace import Workspace

ROOT = Path(__file__).parents[1]
#: Products and folders of the workspace, as its properties call them.
AREAS = {n for n, v in vars(Workspace).items() if isinstance(v, property)} - {"home"}
#: Not part of a product's content: who works, where downloads and runs are kept.
FREE_PARAMETERS = {"workers", "scheduler", "profile"}
#: Noted where all parameters were written down.
RECORDED = "(recorded)"
FREE_AREAS = {"downloads", "mlflow", "boxes"}


class Watched:
    """Stands in for a parameter model and notes the dotted names that are read."""

    def __init__(self, model: BaseModel, prefix: str, seen: set[str]) -> None:
        self.__dict__.update(_model=model, _prefix=prefix, _seen=seen)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._model, name)
        if name in type(self._model).model_fields:
            dotted = f"{self._prefix}{name}"
            if isinstance(value, BaseModel):
                return Watched(value, f"{dotted}.", self._seen)
            self._seen.add(dotted)
        return value

    def _all(self) -> None:
        """Note every value below: the model as a whole has been used."""
        for name in type(self._model).model_fields:
            value = getattr(self, name)
            if isinstance(value, Watched):
                value._all()

    def model_dump(self, **how: Any) -> Any:
        whole = self._model.model_dump(**how)
        if self._prefix:
            self._all()
            return whole
        return WatchedDict(whole, self)

    def model_dump_json(self, **how: Any) -> str:
        self._all()
        return self._model.model_dump_json(**how)

    def __reduce__(self) -> Any:  # to a worker process, where nobody watches
        self._all()
        return (type(self._model).model_validate, (self._model.model_dump(),))

    def __hash__(self) -> int:
        self._all()
        return hash(self._model)

    def __eq__(self, other: object) -> bool:
        return self._model == (other._model if isinstance(other, Watched) else other)


class WatchedDict(dict):
    """All parameters as a dictionary; what is taken from it counts as read."""

    def __init__(self, values: dict[str, Any], source: Watched) -> None:
        super().__init__(values)
        self._source = source

    def __getitem__(self, name: str) -> Any:
        value = getattr(self._source, name)
        if isinstance(value, Watched):
            value._all()
        return super().__getitem__(name)

    def items(self) -> Any:
        # Written down as a whole, into MLflow or the release: a record, on which no result hangs.
        self._source._seen.add(RECORDED)
        return super().items()


class WatchedWorkspace(Workspace):
    """Notes which products are asked for."""

    def __getattribute__(self, name: str) -> Any:
        if name in AREAS:
            seen = object.__getattribute__(self, "__dict__").get("seen")
            if seen is not None:
                seen.add(name)
        return super().__getattribute__(name)


def areas(one: Step, workspace: Workspace) -> set[str]:
    """Properties of the workspace that hold the declared inputs and outputs of `one`."""
    paths = one.inputs(workspace) + one.outputs(workspace)
    return {
        name
        for name in AREAS
        for path in paths
        if getattr(workspace, name) == path or getattr(workspace, name) in path.parents
    }


def covered(name: str, sections: tuple[str, ...]) -> bool:
    return any(name == s or name.startswith(f"{s}.") for s in sections)


def test_the_watch_sees_what_is_read():
    seen: set[str] = set()
    params = Watched(Params(), "", seen)
    assert params.voxels.kappa == 0.175
    assert seen == {"voxels.kappa"}
    assert params.model_dump(mode="json")["split"]["train"] == Params().split.train
    assert {n.partition(".")[0] for n in seen} == {"voxels", "split"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_steps_touch_what_they_declare_and_nothing_else(tmp_path, monkeypatch):
    params = load_params(ROOT / "params.yaml", "smoke", workers=1)
    plain = Workspace(tmp_path, "smoke", "embedded")
    faults: list[str] = []
    for one in STEPS:
        seen_parameters: set[str] = set()
        workspace = WatchedWorkspace(tmp_path, "smoke", "embedded")
        seen_areas: set[str] = set()
        object.__setattr__(workspace, "seen", seen_areas)
        one.run(workspace, Watched(params, "", seen_parameters))  # type: ignore[arg-type]
        sections = one.sections_for("embedded")
        faults += [
            f"{one.name} reads parameter {n}, which it does not declare"
            for n in sorted(seen_parameters)
            if not covered(n, sections) and n not in FREE_PARAMETERS | {RECORDED}
        ]
        faults += [
            f"{one.name} declares parameter {s}, which it does not read"
            for s in sections
            if not any(covered(n, (s,)) for n in seen_parameters)
            and not (one.name == "publish" and RECORDED in seen_parameters)
        ]
        declared = areas(one, plain)
        faults += [
            f"{one.name} touches {n}, which it does not declare"
            for n in sorted(seen_areas - declared - FREE_AREAS)
        ]
        faults += [
            f"{one.name} declares {n}, which it does not touch"
            for n in sorted(declared - seen_areas)
        ]
        assert pipeline._Digests(plain).of(one.outputs(plain)) is not None
    assert not faults, "\n".join(faults)
