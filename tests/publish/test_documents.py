"""README.md and model_card.md of a release."""

from __future__ import annotations

import re

import duckdb
import pyarrow.parquet as pq
import pytest

from cmass.columns import FLAGS, TABLES
from cmass.publish.release import RELEASE_TABLES
from cmass.workspace import Workspace


@pytest.fixture(scope="module")
def readme(released: Workspace) -> str:
    return (released.releases / "latest" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def card(released: Workspace) -> str:
    return (released.releases / "latest" / "model_card.md").read_text(encoding="utf-8")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_every_column_is_described_with_what_is_in_it(readme: str, released: Workspace) -> None:
    for name in RELEASE_TABLES:
        section = readme.split(f"\n### {name}\n")[1].split("\n#")[0]
        rows = {_cells(x)[0]: _cells(x) for x in section.splitlines() if x.startswith("| `")}
        table = pq.read_table(released.releases / "latest" / f"{name}.parquet")
        assert list(rows) == [f"`{c}`" for c in TABLES[name].names]
        for column in TABLES[name].columns:
            _, kind, unit, ucd, missing, low, high, words = rows[f"`{column.name}`"]
            assert (kind, unit, ucd, words) == (
                column.type, column.unit, column.ucd, column.description,
            )  # fmt: skip
            values = [v for v in table[column.name].to_pylist() if v is not None]
            assert int(missing) == table.num_rows - len(values)
            if low:
                assert float(low) == pytest.approx(min(values), rel=1e-5)
                assert float(high) == pytest.approx(max(values), rel=1e-5)


def test_the_examples_run(readme: str, released: Workspace, monkeypatch) -> None:
    monkeypatch.chdir(released.releases / "latest")
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert len(blocks) == 2
    spaces: list[dict] = []
    for block in blocks:
        spaces.append({})
        exec(block, spaces[-1])  # noqa: S102 - the release's own README, made by this package
    assert spaces[0]["masses"].num_rows == 40
    catalogue = spaces[1]["catalogue"]
    assert isinstance(catalogue, duckdb.DuckDBPyConnection)
    statements = re.findall(r'\.sql\("(.*)"\)', blocks[1])
    assert len(statements) == 3
    for statement in statements:
        catalogue.execute(statement).fetchall()
    command = re.search(r'`cmass sql "(.*)"`', readme)
    assert command is not None
    assert catalogue.execute(command[1]).fetchall() == [(40,)]


def test_all_flags_are_explained(readme: str, card: str) -> None:
    for flag in FLAGS.values():
        line = f"| {flag.value} | `{flag.name}` | {flag.words} |"
        assert line in readme
        assert line in card


def test_model_card_gives_the_numbers_and_the_warning(card: str) -> None:
    assert "| Scatter of ε | all | 0.158 | 0.003 | 0.160 | dex |" in card
    assert "| Mean pull against GalWeight | embedded | 0.110 | 0.030 | −0.020 |  |" in card
    assert "Not for science" in card  # the fixture is of the smoke profile
    assert "40 clusters of the survey `embedded`: 38 with a mass" in card
    assert "| n_weights | 123189 |" in card


def test_tables_of_both_documents_have_whole_rows(readme: str, card: str) -> None:
    for text in (readme, card):
        width = 0
        for line in text.splitlines():
            if not line.startswith("|"):
                width = 0
                continue
            cells = line.count("|") - line.count("\\|")
            width = width or cells
            assert cells == width, line
