"""dvc.yaml: the same steps as the pipeline, and DVC reruns what it must and no more."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cmass.pipeline import STEPS, Step
from cmass.tables import file_digest
from cmass.workspace import Workspace
from tests.clones import fresh_clone, run

ROOT = Path(__file__).parents[1]
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
WORKSPACE = Workspace(Path("data"), "${profile}", "${survey}")
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def test_stages_are_the_steps_in_order():
    assert list(DVC["stages"]) == [s.name for s in STEPS]


@pytest.mark.parametrize("one", STEPS, ids=lambda s: s.name)
def test_stage_agrees_with_its_step(one: Step):
    stage: dict[str, Any] = DVC["stages"][one.name]
    assert stage["cmd"] == f"cmass {one.name}"
    read = [p.as_posix() for p in (*one.inputs(WORKSPACE), *one.after(WORKSPACE))]
    assert stage["deps"] == read + [f"cmass/{name}" for name in one.sources]
    assert all((ROOT / "cmass" / name).exists() for name in one.sources)
    # `latest` is a link that moves from release to release, no product that DVC could keep
    made = [p.as_posix() for p in one.outputs(WORKSPACE) if p.name != "latest"]
    assert [name for out in stage["outs"] for name in out] == made
    # without persist DVC deletes what a step would resume or find up to date
    assert all(out[name] == {"persist": True} for out in stage["outs"] for name in out)
    read = list(one.sections)
    for _, more in one.sections_by_survey:
        read += [s for s in more if s not in read]
    sections = dict.fromkeys(s.partition(".")[0] for s in read)
    of_profile = [f"profiles.${{profile}}.{s}" for s in sections if isinstance(PARAMS[s], dict)]
    assert stage["params"] == read + of_profile


def test_metrics_and_plots_are_products():
    made = [p.as_posix() for one in STEPS for p in one.outputs(WORKSPACE)]
    files = list(DVC["metrics"])
    for plot in DVC["plots"]:
        for definition in plot.values():
            files += list(definition["y"])
    for file in files:
        assert any(file == m or file.startswith(f"{m}/") for m in made), file


@pytest.fixture
def clone(tmp_path) -> Path:
    """A fresh clone of this working tree, with the smoke profile in force."""
    folder = fresh_clone(tmp_path / "clone")
    change(folder, "profile", "standard", "smoke")
    return folder


def change(folder: Path, name: str, old: str, new: str) -> None:
    """Edit one value of params.yaml, as a person would."""
    file = folder / "params.yaml"
    text, times = re.subn(rf"^( *{name}): {re.escape(old)}\b", rf"\1: {new}", file.read_text(),
                          count=1, flags=re.MULTILINE)  # fmt: skip
    assert times == 1
    file.write_text(text)


def ran(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


_READ = """
from dvc.repo import Repo
with Repo() as repo:
    for stage in repo.index.stages:
        print(stage.addressing, *(out.def_path for out in stage.outs))
        for dep in stage.deps:
            if hasattr(dep, "read_params"):
                for name in set(dep.params) - set(dep.read_params()):
                    print("MISSING", name)
"""


@pytest.mark.parametrize("profile", ["smoke", "standard", "paper"])
def test_dvc_reads_the_file_as_we_mean_it(clone, profile):
    """Parsing, templating and parameters, by DVC itself."""
    if profile != "smoke":
        change(clone, "profile", "smoke", profile)
    lines = run(clone, sys.executable, "-c", _READ).splitlines()
    assert not [line for line in lines if line.startswith("MISSING")]
    stages = {line.split()[0]: line.split()[1:] for line in lines}
    assert set(stages) >= {s.name for s in STEPS}
    assert stages["voxelize"] == [f"data/{profile}/voxels"]
    assert stages["publish"] == [f"data/{profile}/embedded/release.json"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_repro_makes_everything_once_and_only_what_changed(clone):
    def repro() -> str:
        return run(clone, sys.executable, "-m", "dvc", "repro")

    assert ran(repro()) == [s.name for s in STEPS]
    first = parquet(clone)
    assert ran(repro()) == ["judge", "champion"]  # which ask the registry, and leave all as it is
    assert parquet(clone) == first

    # `cmass run` on what DVC made has nothing to do either
    output = run(clone, "cmass", "run")
    assert output.count("up to date") == len(STEPS)

    change(clone, "kappa", "0.175", "0.2")
    assert ran(repro()) == [
        s.name for s in STEPS if s.name not in ("ingest", "select", "mock", "population", "split")
    ]
    assert parquet(clone) != first
    change(clone, "kappa", "0.2", "0.175")
    repro()
    assert parquet(clone) == first


def parquet(folder: Path) -> dict[str, str]:
    """Checksums of every Parquet product of the profile, by name; a release has its date in its name.

    Wall times, ``costs.parquet``, are another's every time.
    """
    base = folder / "data" / "smoke"
    products = sorted(p for p in base.rglob("*.parquet") if p.name != "costs.parquet")
    return {str(p.relative_to(base)): file_digest(p) for p in products}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_clones_agree_and_run_then_repro_recomputes_nothing(clone, tmp_path):
    run(clone, "cmass", "run")
    first = parquet(clone)
    output = run(clone, sys.executable, "-m", "dvc", "repro")
    assert output.count(": up to date") == len(STEPS)
    other = tmp_path / "other"
    shutil.copytree(clone, other, ignore=shutil.ignore_patterns("data", ".dvc"))
    command = other / ".bin" / "cmass"
    assert command.exists()
    run(other, "cmass", "run")
    assert parquet(other) == first
