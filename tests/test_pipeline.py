"""Stamps, lock, kills and full disks, on small steps that write small files."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cmass import pipeline
from cmass.errors import InputError, WorkspaceError
from cmass.params import Params, load_params
from cmass.pipeline import Step, run_all, run_step, what_changed, why_stale, workspace_lock
from cmass.tables import atomic_path
from cmass.workspace import Workspace

ROOT = Path(__file__).parents[1]
CALLS: list[str] = []


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def make_mock(workspace: Workspace, params: Params) -> None:
    CALLS.append("mock")
    for number in range(3):
        _write(workspace.mock / f"shard-{number}.txt", f"{params.seed} {number}")


def make_voxels(workspace: Workspace, params: Params) -> None:
    CALLS.append("voxelize")
    text = " ".join(p.read_text() for p in sorted(workspace.mock.glob("*.txt")))
    _write(workspace.voxels / "all.txt", f"{text} {params.voxels.kappa}")


def make_model(workspace: Workspace, params: Params) -> None:
    CALLS.append("train")
    _write(workspace.model / "model.txt", (workspace.voxels / "all.txt").read_text()[:1])


def make_masses(workspace: Workspace, params: Params) -> None:
    CALLS.append("infer")
    _write(workspace.masses / "m.txt", (workspace.model / "model.txt").read_text() + params.survey)


def _step(name, function, sections, inputs, outputs, **extra) -> Step:
    target = f"{__name__}:{function.__name__}"
    return Step(name, target, name, sections, inputs, outputs, **extra)


STEPS = (
    _step("mock", make_mock, ("seed",), lambda w: (), lambda w: (w.mock,)),
    _step("voxelize", make_voxels, ("voxels",), lambda w: (w.mock,), lambda w: (w.voxels,)),
    _step("train", make_model, ("train",), lambda w: (w.voxels,), lambda w: (w.model / "model.txt",)),
    _step(
        "infer", make_masses, ("survey",), lambda w: (w.model / "model.txt",), lambda w: (w.masses,),
        per_survey=True,
    ),
)  # fmt: skip


@pytest.fixture
def params() -> Params:
    return load_params(ROOT / "params.yaml", "smoke")


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    monkeypatch.setattr(pipeline, "STEPS", STEPS)
    CALLS.clear()
    return Workspace(tmp_path / "data", "smoke", "embedded")


def _changed(params: Params, **values) -> Params:
    """`params` with one value of a section changed, as in ``voxels={"kappa": 0.2}``."""
    return params.model_copy(
        update={
            name: getattr(params, name).model_copy(update=value)
            if isinstance(value, dict)
            else value
            for name, value in values.items()
        }
    )


def test_each_step_runs_once(workspace, params):
    assert run_all(workspace, params) == ["mock", "voxelize", "train", "infer"]
    assert run_all(workspace, params) == []
    assert CALLS == ["mock", "voxelize", "train", "infer"]


def test_a_parameter_reruns_its_step_and_what_follows_from_a_changed_product(workspace, params):
    run_all(workspace, params)
    CALLS.clear()
    # voxels differ, but the model made of them is the same: infer has nothing new to read
    assert run_all(workspace, _changed(params, voxels={"kappa": 0.2})) == ["voxelize", "train"]


def test_a_parameter_of_no_step_reruns_nothing(workspace, params):
    run_all(workspace, params)
    assert (
        run_all(
            workspace, _changed(params, workers=7, scheduler="tcp://h:1", publish={"title": "x"})
        )
        == []
    )


def test_going_back_to_old_parameters_is_a_change_too(workspace, params):
    run_all(workspace, params)
    run_all(workspace, _changed(params, voxels={"kappa": 0.2}))
    assert run_all(workspace, params) == ["voxelize", "train"]
    assert (workspace.voxels / "all.txt").read_text().endswith(str(params.voxels.kappa))


def test_a_survey_has_its_own_stamps_and_shares_the_model(workspace, params):
    run_all(workspace, params)
    other = Workspace(workspace.root, "smoke", "sdss")
    assert run_all(other, _changed(params, survey="sdss")) == ["infer"]
    assert run_all(workspace, params) == []


def test_force_runs_what_is_up_to_date(workspace, params):
    run_all(workspace, params)
    assert run_step("mock", workspace, params, force=True)
    assert not run_step("voxelize", workspace, params)  # the same product came out


@pytest.mark.parametrize("harm", ["delete file", "delete folder", "edit", "add"])
def test_a_harmed_product_is_made_again(workspace, params, harm):
    run_all(workspace, params)
    before = {p.name: p.read_text() for p in workspace.mock.iterdir()}
    shard = workspace.mock / "shard-1.txt"
    if harm == "delete file":
        shard.unlink()
    elif harm == "delete folder":
        for path in workspace.mock.iterdir():
            path.unlink()
        workspace.mock.rmdir()
    elif harm == "edit":
        state = shard.stat()
        shard.write_text("x" * state.st_size)
        # same size and same modification time: the change time gives it away
        os.utime(shard, ns=(state.st_atime_ns, state.st_mtime_ns))
    else:
        (workspace.mock / "shard-9.txt").write_text("stray")
    assert "outputs" in str(why_stale("mock", workspace, params))
    assert "mock" in run_all(workspace, params)
    after = {p.name: p.read_text() for p in workspace.mock.iterdir()}
    assert {k: after[k] for k in before} == before


def test_files_are_hashed_again_only_when_they_changed(workspace, params, monkeypatch):
    from cmass import tables

    run_all(workspace, params)
    hashed = []
    original = tables.file_digest
    monkeypatch.setattr(tables, "file_digest", lambda p: hashed.append(p.name) or original(p))
    assert run_all(workspace, params) == []
    assert hashed == []
    os.utime(workspace.mock / "shard-2.txt")
    assert run_all(workspace, params) == []  # touched, not changed
    assert hashed == ["shard-2.txt"]


def test_changed_code_reruns_the_step(workspace, params, monkeypatch):
    from dataclasses import replace

    run_all(workspace, params)
    changed = replace(STEPS[0], sources=("mock/haloes.py",))
    monkeypatch.setattr(pipeline, "STEPS", (changed, *STEPS[1:]))
    assert why_stale("mock", workspace, params) == "the step's code changed"


def test_what_changed_since_a_step_whatever_its_code_is_now(workspace, params, monkeypatch):
    from dataclasses import replace

    assert what_changed("mock", workspace, params) == "not made yet"
    run_all(workspace, params)
    changed = replace(STEPS[1], sources=("mock/haloes.py",))
    monkeypatch.setattr(pipeline, "STEPS", (STEPS[0], changed, *STEPS[2:]))
    assert what_changed("voxelize", workspace, params) is None
    other = _changed(params, voxels={"kappa": 0.2})
    assert what_changed("voxelize", workspace, other) == "parameters changed: voxels"
    (workspace.mock / "shard-1.txt").write_text("by somebody else")
    assert "inputs changed" in str(what_changed("voxelize", workspace, params))
    assert "outputs missing or changed" in str(what_changed("mock", workspace, params))


def blas_threads(workspace: Workspace, params: Params) -> None:
    import numpy as np  # noqa: F401
    from threadpoolctl import threadpool_info

    found = {p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"}
    _write(workspace.masses / "m.txt", f"{found} {os.environ['OPENBLAS_NUM_THREADS']}")


def test_a_step_that_a_library_calls_has_blas_in_one_thread(workspace, params, monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    one = _step("infer", blas_threads, (), lambda w: (), lambda w: (w.masses,))
    monkeypatch.setattr(pipeline, "STEPS", (one,))
    run_step("infer", workspace, params)
    assert (workspace.masses / "m.txt").read_text() == "{1} 1"
    assert "OPENBLAS_NUM_THREADS" not in os.environ


def test_a_damaged_stamp_only_costs_a_rerun(workspace, params):
    run_all(workspace, params)
    (workspace.home / ".stamps" / "train.json").write_text('{"step": ')
    assert run_all(workspace, params) == ["train"]


def test_missing_input_names_the_command_that_makes_it(workspace, params):
    with pytest.raises(WorkspaceError, match=r"voxelize needs .*mock.*run `cmass mock`"):
        run_step("voxelize", workspace, params)


def test_an_input_of_other_parameters_is_announced(workspace, params, caplog):
    run_all(workspace, params)
    with caplog.at_level(logging.WARNING, "cmass"):
        run_step("voxelize", workspace, _changed(params, seed=1, voxels={"kappa": 0.2}))
    assert "products of mock made with other parameters" in caplog.text


def test_an_input_of_other_inputs_is_announced(workspace, params, caplog):
    """Masses of an older network are not drawn, or judged, without a word."""
    run_all(workspace, params)
    with caplog.at_level(logging.WARNING, "cmass"):
        run_step("train", workspace, params, force=True)
        assert "made of other inputs" not in caplog.text
        (workspace.mock / "shard-0.txt").write_text("another")
        run_step("train", workspace, params, force=True)
    assert "train uses products of voxelize made of other inputs (" in caplog.text
    assert "shard-0.txt" in caplog.text


def test_a_step_that_writes_nothing_is_an_error(workspace, params, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "make_mock", lambda w, p: None)
    with pytest.raises(WorkspaceError, match="mock ended without writing"):
        run_all(workspace, params)
    assert why_stale("mock", workspace, params) == "not made yet"


def test_unknown_step(workspace, params):
    with pytest.raises(WorkspaceError, match="no step 'voxelise'; the steps are mock, voxelize"):
        run_step("voxelise", workspace, params)


# ------------------------------------------------------------------------------------- trouble


def test_full_disk_is_named_and_leaves_the_old_product(workspace, params, monkeypatch):
    run_all(workspace, params)
    before = (workspace.voxels / "all.txt").read_text()

    def fill(w, p):
        with atomic_path(w.voxels / "all.txt"), open("/dev/full", "w") as stream:
            stream.write("x" * 100_000)  # the kernel answers ENOSPC

    monkeypatch.setattr(sys.modules[__name__], "make_voxels", fill)
    other = _changed(params, voxels={"kappa": 0.2})
    with pytest.raises(WorkspaceError, match="no space left on the disk"):
        run_all(workspace, other)
    assert (workspace.voxels / "all.txt").read_text() == before
    assert sorted(p.name for p in workspace.voxels.iterdir()) == ["all.txt"]
    monkeypatch.undo()
    monkeypatch.setattr(pipeline, "STEPS", STEPS)
    assert run_all(workspace, other) == ["voxelize", "train"]


def test_full_disk_is_known_from_the_words_of_databases(workspace, params, monkeypatch):
    import sqlite3

    def fill(w, p):
        raise RuntimeError("cannot log") from sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sys.modules[__name__], "make_model", fill)
    with pytest.raises(WorkspaceError, match="no space left"):
        run_all(workspace, params)


def test_a_dead_worker_is_explained(workspace, params, monkeypatch):
    from concurrent.futures.process import BrokenProcessPool

    def die(w, p):
        raise BrokenProcessPool("A process in the process pool was terminated abruptly")

    monkeypatch.setattr(sys.modules[__name__], "make_voxels", die)
    with pytest.raises(WorkspaceError, match="lack of memory"):
        run_all(workspace, params)


def test_errors_of_steps_pass_unchanged(workspace, params, monkeypatch):
    def refuse(w, p):
        raise InputError("bad", file="f", column="ra", row=3, value=361)

    monkeypatch.setattr(sys.modules[__name__], "make_mock", refuse)
    with pytest.raises(InputError, match="column ra, row 3, value 361"):
        run_all(workspace, params)


def test_ctrl_c_leaves_nothing_half_written_and_the_next_run_goes_on(
    workspace, params, monkeypatch
):
    def interrupted(w, p):
        with atomic_path(w.voxels / "all.txt") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[__name__], "make_voxels", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_all(workspace, params)
    assert not list(workspace.voxels.iterdir())
    assert run_all(workspace, params) == ["voxelize", "train", "infer"]


# ---------------------------------------------------------------------------------------- lock

_HOLD = """
import sys, time
from pathlib import Path
from cmass.pipeline import workspace_lock
from cmass.workspace import Workspace
with workspace_lock(Workspace(Path(sys.argv[1]), "smoke", "embedded")):
    left = Path(sys.argv[1]) / "smoke" / "mock" / ".shard-0.txt.abc.tmp"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text("half-written")
    begun = left.parent.with_name("mock.scratch") / "00000-host-1-abcd" / "windows"
    begun.mkdir(parents=True)
    (begun / "0.parquet").write_text("half-written")
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(workspace):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_HOLD), str(workspace.root)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_pipeline_is_refused_and_told_who_is_first(workspace, params, holder):
    with pytest.raises(
        WorkspaceError, match=rf"in use by another pipeline \(process {holder.pid}:"
    ):
        run_all(workspace, params)
    with pytest.raises(WorkspaceError, match="in use"):
        run_step("mock", workspace, params)
    assert CALLS == []


def test_other_data_folders_are_free(workspace, params, holder, tmp_path):
    assert run_all(Workspace(tmp_path / "other", "smoke", "embedded"), params)


def test_kill_9_leaves_no_lock_and_what_it_had_begun_is_removed(workspace, params, holder):
    left = workspace.mock / ".shard-0.txt.abc.tmp"
    begun = workspace.mock.with_name("mock.scratch")
    assert left.exists()
    assert begun.exists()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert run_all(workspace, params) == ["mock", "voxelize", "train", "infer"]
    assert not left.exists()
    assert not begun.exists()


def test_the_lock_ends_with_an_error(workspace):
    with pytest.raises(RuntimeError), workspace_lock(workspace):
        raise RuntimeError
    with workspace_lock(workspace):
        assert json.loads((workspace.root / ".lock.holder").read_text())["pid"] == os.getpid()
    assert not (workspace.root / ".lock.holder").exists()


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path, params, monkeypatch):
    monkeypatch.setattr(pipeline, "STEPS", STEPS)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="cannot write to the data folder .*file"):
        run_all(Workspace(tmp_path / "file" / "data", "smoke", "embedded"), params)


OUTSIDE: dict[str, str] = {"alias": "1"}


def look_outside(workspace: Workspace, params: Params) -> dict[str, str]:
    return dict(OUTSIDE)


def make_outcome(workspace: Workspace, params: Params) -> None:
    _write(workspace.masses / "m.txt", "same")


def _asking(monkeypatch, **changes) -> None:
    one = _step("infer", make_outcome, (), lambda w: (), lambda w: (w.masses,))
    monkeypatch.setattr(pipeline, "STEPS", (dataclasses.replace(one, **changes),))


def test_a_step_runs_again_when_what_lies_outside_changes(workspace, params, monkeypatch):
    _asking(monkeypatch, outside=f"{__name__}:look_outside")
    monkeypatch.setattr(sys.modules[__name__], "OUTSIDE", {"alias": "1"})
    assert run_all(workspace, params) == ["infer"]
    assert run_all(workspace, params) == []
    OUTSIDE["alias"] = "2"
    assert "outside the data folder: {'alias': '2'}" in str(
        pipeline.why_stale("infer", workspace, params)
    )
    assert run_all(workspace, params) == ["infer"]
    assert run_all(workspace, params) == []


def test_what_only_sets_the_order_does_not_make_a_step_run_again(workspace, params, monkeypatch):
    _asking(monkeypatch, after=lambda w: (w.decision,))
    assert run_all(workspace, params) == ["infer"]
    workspace.decision.parent.mkdir(parents=True)
    workspace.decision.write_text("{}")
    assert run_all(workspace, params) == []


# ------------------------------------------------------------------------------- the real steps


def test_steps_are_those_of_the_contract_in_order():
    assert [s.name for s in pipeline.STEPS] == [
        "ingest", "select", "mock", "population", "split", "voxelize", "train", "posterior", "oddity",
        "evaluate", "rivals", "trial", "judge", "champion", "infer", "realism", "figures", "publish",
    ]  # fmt: skip


def test_every_input_is_made_by_an_earlier_step():
    workspace = Workspace(Path("data"), "smoke", "embedded")
    made: list[Path] = []
    for one in pipeline.STEPS:
        for path in one.inputs(workspace):
            assert any(path == m or m in path.parents for m in made), (one.name, path)
        made += one.outputs(workspace)


def test_every_target_exists():
    import importlib

    for one in pipeline.STEPS:
        module, _, function = one.target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_every_section_exists():
    params = load_params(ROOT / "params.yaml")
    for one in pipeline.STEPS:
        for survey in ("embedded", "sdss"):
            values = pipeline.parameter_values(one, params.model_copy(update={"survey": survey}))
            assert json.dumps(values)


def test_ingest_from_a_mirror_depends_on_the_mirror(tmp_path, params):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    sdss = params.model_copy(update={"survey": "sdss", "mirror": str(mirror)})
    workspace = Workspace(tmp_path / "data", "smoke", "sdss")
    assert mirror in pipeline._inputs(pipeline.step("ingest"), workspace, sdss)
    assert mirror not in pipeline._inputs(pipeline.step("ingest"), workspace, params)
