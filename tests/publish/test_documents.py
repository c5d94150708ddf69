"""README.md and model_card.md of a release."""

from __future__ import annotations

import contextlib
import json
import re

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cmass.columns import FLAGS, TABLES
from cmass.publish import summary
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
    assert len(blocks) == 4
    spaces: list[dict] = []
    for block in blocks:
        spaces.append({})
        exec(block, spaces[-1])  # noqa: S102 - the release's own README, made by this package
    for name in ("masses", "masses_fits", "masses_votable", "masses_cds", "masses_mrt"):
        assert len(spaces[0][name]) == 40, name
        assert spaces[0][name]["ra"].unit == "deg"
    assert spaces[1]["masses"].num_rows == 40
    assert spaces[3]["area_deg2"] == pytest.approx(5156.6, rel=0.002)  # an octant
    catalogue = spaces[2]["catalogue"]
    assert isinstance(catalogue, duckdb.DuckDBPyConnection)
    statements = re.findall(r'\.sql\("(.*)"\)', blocks[2])
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
    assert "| Scatter of ε |  | 0.158 | 0.003 | 0.160 | dex |" in card
    assert "580 mock observations, 20 more to stop by, 300 to calibrate" in card
    assert "| Mean pull against GalWeight | embedded | 0.110 | 0.030 | −0.020 |  |" in card
    assert "Not for science" in card  # the fixture is of the smoke profile
    assert "40 clusters of the survey `embedded`: 38 with a mass" in card
    assert "| n_weights | 123189 |" in card


def _numbers(text: str) -> set[str]:
    """Numbers in a text; names, versions, code, citations and exponents of ten are none."""
    version = r"\d{4}\.\d{2}\.\d{2}-[0-9a-f]{8}"  # also one without a letter
    for name in (
        version,
        r"`[^`]*`",
        r"arXiv:\S+",
        r"et al\. \d+",
        r"M200c?",
        r"10\^",
        r"\S*[a-z_]\d\S*",
    ):
        text = re.sub(name, " ", text)
    return set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w])", text))


#: Tables behind figures that the card tells numbers of.
_RESULTS = ("residual_bins", "contamination_bins", "rival_costs", "calibration_bins")


def _typed(card: str, workspace: Workspace) -> set[str]:
    """Numbers of a card that are in no table, parameter or statement of provenance."""
    told = card.split("## Where it comes from")[0]
    latest = workspace.releases / "latest"
    facts = json.loads((latest / "provenance.json").read_text(encoding="utf-8"))
    values: list[float] = []
    # only tables of results: among thousands of positions any three digits would be found
    files = [latest / "calibration.parquet"]
    files += [workspace.figures / f"{name}.parquet" for name in _RESULTS]
    for file in files:
        table = pq.read_table(file)
        for column in table.columns:
            if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
                values += [v for v in pc.unique(column).to_pylist() if v is not None]
        if "metric" in table.column_names:  # bins have their edges for names
            values += [
                float(x) for b in table["bin"].to_pylist() for x in _numbers(b.replace("-", " "))
            ]
    split = pq.read_table(workspace.split / "split.parquet")["set"].value_counts()
    values += [row["counts"].as_py() for row in split]
    table = pq.read_table(workspace.figures / "contamination.parquet")
    values.append(table.num_rows)
    values.append(table.num_rows - table["contaminant_mass_ratio"].null_count)
    masses = pq.read_table(latest / "masses.parquet")
    values += [masses[c].null_count for c in masses.column_names]
    values += [masses.num_rows - masses[c].null_count for c in masses.column_names]
    values += [f.count for f in summary.flag_counts(masses)] + [f.value for f in FLAGS.values()]
    values.append(summary.mass_counts(masses)["flagged"])
    scores = pq.read_table(workspace.figures / "rival_scores.parquet").to_pandas()
    for _, of_seeds in scores.groupby(["estimator", "metric"]):
        mean, seeds = of_seeds["value"].mean(), of_seeds["value"].std() / len(of_seeds) ** 0.5
        values += [mean, float(np.hypot(of_seeds["error"].mean(), seeds))]
    known: set[str] = set()
    for v in values:
        known |= {summary.number_text(abs(v)), f"{abs(v):g}", f"{v:.0f}", f"{v:.2f}", f"{v:.1f}"}
        known |= {f"{abs(v):.{decimals}f}" for decimals in (3, 4)}  # as many as an error asks for
    known |= _numbers(" ".join(text for _, text in summary.leaves(facts["parameters"])))
    for _, text in summary.leaves(facts["parameters"]):
        with contextlib.suppress(ValueError):
            known |= {f"{float(text):g}", f"{float(text):.1f}"}
    # what names of numbers and flags are made of: 1σ, 68 %, eq. 7
    for words in (*summary.METRIC_WORDS.values(), *(f.words for f in FLAGS.values())):
        known |= _numbers(words)
    return _numbers(told) - known - {"1000"}  # seconds are given per 1000 clusters


def test_no_number_of_the_card_is_typed(card: str, released: Workspace) -> None:
    assert len(_numbers(card)) > 60
    assert _typed(card, released) == set()


def test_a_typed_number_would_be_found(card: str, released: Workspace) -> None:
    assert "0.158" in card
    assert _typed(card.replace("0.158", "0.571"), released) == {"0.571"}


def test_the_card_says_where_the_masses_fail_and_what_is_not_there(card: str, released) -> None:
    table = pq.read_table(released.figures / "contamination.parquet")
    near = table.num_rows - table["contaminant_mass_ratio"].null_count
    assert f"**Blends.** {near} of {table.num_rows} evaluation windows" in card
    assert "mean ε is −0.110 ± 0.010 dex at log₁₀ M 13.50–13.80" not in card  # one bin is no trend
    assert "which `cmass study leak` makes" in card
    assert "By comoving distance, h⁻¹ Mpc:" in card
    names = re.findall(
        r"^\| (CNN 3D|CNN 2D|CNN 1D|richness|σ–M[^|]*) \| −?\d", card, flags=re.MULTILINE
    )
    assert [n.split(",")[0] for n in names] == ["CNN 3D", "richness", "CNN 2D", "CNN 1D", "σ–M"]
    for section in ("What it is for", "What it was trained on", "How good it is", "Limits",
                    "How far its posteriors hold", "Where it is known to fail",
                    "How to make it again", "Where it comes from"):  # fmt: skip
        assert f"\n## {section}\n" in card


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
