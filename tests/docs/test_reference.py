"""The references say what the code says, and nothing in the code lacks words."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pytest
import typer
from pydantic import BaseModel, Field

from cmass.columns import TABLES
from cmass.params import Params
from tests.docs import environment, reference


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_reference_is_that_of_the_code(name: str):
    """`python -m tests.docs` (`make references`) writes it."""
    committed = (reference.FOLDER / name).read_text(encoding="utf-8")
    assert committed == reference.PAGES[name](), "make references, and commit what changed"
    assert str(reference.ROOT) not in committed  # of one clone, and wrong in every other


def test_nothing_lacks_words():
    assert not reference.mute(), "\n".join(reference.mute())


# ------------------------------------------------------------------------- what would be found


def _app(help_text: str, option_help: str | None) -> typer.Typer:
    app = typer.Typer(help="A program of the tests.", epilog="Example: [bold]cmass weigh[/bold]")

    @app.command(help=help_text, epilog="Example: [bold]cmass weigh --pounds[/bold]")
    def weigh(pounds: Annotated[bool, typer.Option("--pounds", help=option_help)] = False) -> None:
        pass

    @app.command(help="Stand beside the other.", epilog="Example: [bold]cmass stand[/bold]")
    def stand() -> None:
        pass

    return app


def test_commands_and_options_without_words_are_found():
    assert reference.mute_commands(_app("Weigh what is there.", "In pounds, not in kg.")) == []
    (fault,) = reference.mute_commands(_app("Weigh what is there.", None))
    assert "`cmass weigh --pounds` has no help" in fault
    (fault,) = reference.mute_commands(_app("", "In pounds, not in kg."))
    assert "command `cmass weigh` has no help" in fault


def test_commands_of_a_group_are_seen():
    assert {"cmass", "cmass study leak", "cmass estimate"} <= set(reference.commands())


def test_parameters_without_words_are_found():
    class Section(BaseModel):
        kappa: float = 0.1
        n: int = Field(3, description="voxels per axis")

    class Whole(BaseModel):
        """Parameters of the tests."""

        voxels: Section = Section()

    faults = reference.mute_parameters(Whole)
    assert len(faults) == 2
    assert "section `voxels` has no docstring" in faults[0]
    assert "parameter `voxels.kappa` has no description" in faults[1]


def test_columns_without_words_are_found():
    masses = TABLES["masses"]
    mute = replace(masses.columns[1], description="", ucd="")
    table = replace(masses, columns=(masses.columns[0], mute), description="")
    faults = reference.mute_columns({"masses": table})
    assert faults == [
        "table `masses` has no description",
        f"column `masses.{mute.name}` has no description",
        f"column `masses.{mute.name}` has no UCD",
    ]


def test_public_names_without_words_are_found(tmp_path: Path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "told.py").write_text(
        '"""A module."""\n'
        "def _hidden(): pass\n"
        'def told():\n    """Say so."""\n'
        "def mute(): pass\n"
        'class Told:\n    """Has words."""\n    def mute(self): pass\n    def _hidden(self): pass\n'
        'class Kin:\n    """Has words."""\n    def shared(self):\n        """What it does."""\n'
        'class Other:\n    """Has words."""\n    def shared(self): pass\n'
    )
    (tmp_path / "p" / "mute.py").write_text("x = 1\n")
    assert reference.mute_names(tmp_path, ("p",)) == [
        "p.mute has no docstring (line 1)",
        "p.told.mute has no docstring (line 5)",
        "p.told.Told.mute has no docstring (line 8)",
    ]


def test_variables_of_the_environment_without_words_are_found(tmp_path: Path):
    assert environment.used() == {n for n in environment.VARIABLES if n.startswith("CMASS_")}
    (tmp_path / "cmass").mkdir()
    (tmp_path / "cmass" / "new.py").write_text('os.environ["CMASS_SECRET_WISH"]')
    assert environment.used(tmp_path) == {"CMASS_SECRET_WISH"}
    assert all(words for _, words in environment.service_settings().values())


# -------------------------------------------------------------------------------- what is told


def test_the_command_reference_tells_defaults_variables_and_choices():
    page = reference.commands_page()
    data = next(line for line in page.splitlines() if line.startswith("| `--data`"))
    assert "`data`, or `CMASS_DATA` of the environment" in data
    assert "`smoke`, `standard`, `paper`" in page
    assert "| 130 | interrupted |" in page
    assert "`--recentre`, `--no-recentre`" in page
    for name in reference.commands():
        assert f"\n## {name}\n" in page


def test_every_parameter_has_a_row_with_its_value():
    page = reference.parameters_page()
    keys = [
        one.key for key, model in reference.sections().items()
        for one in reference.parameters(model, key)
    ]  # fmt: skip
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| `")]
    assert rows == [f"`{key}`" for key in keys]
    kappa = next(line for line in page.splitlines() if line.startswith("| `voxels.kappa`"))
    assert [c.strip() for c in kappa.split("|")][2:6] == [
        "0.175", "", "0.15, 0.175, 0.20", "number, above 0",
    ]  # fmt: skip
    width = next(
        line for line in page.splitlines() if line.startswith("| `window.half_width_mpc_h`")
    )
    assert [c.strip() for c in width.split("|")][2:5] == ["4.0", "Mpc/h", "1.6, 4, 6"]
    assert "4600<br>smoke: 360<br>paper: 17000" in page
    assert reference.sections()["voxels"] is type(Params().voxels)


def test_every_column_has_a_row():
    page = reference.columns_page()
    for table in TABLES.values():
        section = page.split(f"\n## {table.name}\n")[1].split("\n## ")[0]
        rows = [
            line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| `")
        ]
        assert rows == [f"`{name}`" for name in table.names]


@pytest.mark.parametrize("name", reference.PAGES)
def test_tables_have_whole_rows(name: str):
    width = 0
    for line in (reference.FOLDER / name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("| ") and not line.startswith("|-"):
            width = 0
            continue
        cells = line.count("|") - line.count("\\|")
        width = width or cells
        assert cells == width, line
