"""Every tutorial runs, from the first cell to the last; the documentation shows these very runs."""

from __future__ import annotations

import pytest

pytest.importorskip("jupytext")
pytest.importorskip("ipykernel")

from tests.docs import tutorials

TUTORIALS = sorted(tutorials.FOLDER.glob("*.py"))
#: Those that simulate and train; `make docs`, which continuous integration runs, runs all of them.
_SLOW = ("2_your_survey", "4_estimator")


@pytest.mark.parametrize(
    "file",
    [pytest.param(f, marks=[pytest.mark.slow] * (f.stem in _SLOW), id=f.stem) for f in TUTORIALS],
)
def test_a_tutorial_runs(file):
    notebook = tutorials.executed(file.read_text(encoding="utf-8"))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 3
    assert any("assert " in cell.source for cell in code), "no number of it is held to anything"
    kinds = {kind for cell in code for one in cell.outputs for kind in one.get("data", {})}
    assert "image/png" in kinds, "it draws nothing"


def test_there_are_tutorials_and_the_documentation_names_them():
    assert len(TUTORIALS) >= 4
    readme = (tutorials.ROOT / "README.md").read_text(encoding="utf-8")
    for file in TUTORIALS:
        assert f"docs/tutorials/{file.name}" in readme


@pytest.mark.parametrize("cell", ["raise ValueError('wrong')", "assert 1 == 2"])
def test_a_cell_that_fails_fails_the_tutorial(cell, tmp_path, monkeypatch):
    from nbclient.exceptions import CellExecutionError

    monkeypatch.setattr(tutorials, "_KEPT", tmp_path)
    with pytest.raises(CellExecutionError, match="wrong|AssertionError"):
        tutorials.executed(f"# %%\nx = 1\n\n# %%\n{cell}\n")
    assert not list(tmp_path.iterdir())  # nothing of it is kept


def test_a_run_is_kept_until_text_or_code_change(tmp_path, monkeypatch):
    monkeypatch.setattr(tutorials, "_KEPT", tmp_path)
    first = tutorials.executed("# %%\nimport time\nprint(time.time_ns())\n")
    assert tutorials.executed("# %%\nimport time\nprint(time.time_ns())\n") == first
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(tutorials, "_digest", lambda text: "other code")
    assert tutorials.executed("# %%\nimport time\nprint(time.time_ns())\n") != first
