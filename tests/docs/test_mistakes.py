"""What docs/mistakes.md says that cmass says is what cmass says."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cmass import cli
from tests.docs import mistakes

MISTAKES = mistakes.listed(mistakes.PAGE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The files that the commands speak of."""
    made = tmp_path_factory.mktemp("mistakes")
    mistakes.write_files(made)
    return made


pytestmark = pytest.mark.usefixtures("command_line_undone")


@pytest.mark.parametrize("one", MISTAKES, ids=lambda m: m.what)
def test_a_mistake_gets_the_message_of_the_page(one, folder, released, monkeypatch):
    monkeypatch.chdir(folder)
    if not (folder / "released").exists():
        (folder / "released").symlink_to(released.root)
    name, *arguments = shlex.split(one.command)
    assert name == "cmass"
    done = CliRunner().invoke(cli.app, arguments, terminal_width=200)
    assert done.exit_code == one.code, done.output
    assert one.is_told(done.output), mistakes.plain(done.output)


def test_who_asks_for_models_makes_no_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    CliRunner().invoke(cli.app, ["models", "--data", "untouched"])
    assert not (folder / "untouched").exists()


def test_there_are_mistakes_enough():
    assert len(MISTAKES) > 30
    assert len({one.command for one in MISTAKES}) == len(MISTAKES)


def test_another_message_would_be_noticed():
    one = mistakes.Mistake("", "cmass x", 2, "error: no such file (file …). Look at 'cmass -h'")
    assert one.is_told(
        "12:00:00 INFO     read\nerror: no such file (file a.csv). Look at\n`cmass -h`\n"
    )
    assert not one.is_told("error: no such file. Look at `cmass -h`")
    assert not one.is_told("error: no such file (file a.csv). Look at `cmass -h`. And more.")
    warning = mistakes.Mistake("", "cmass x", 0, "row 1 is bad: z is …")
    assert warning.is_told(
        "12:00:00 WARNING  row 1 is bad:    \n                  z is 3\nwrote m.csv"
    )
    assert not warning.is_told("row 2 is bad: z is 3")
