"""The SQL door answers questions about the release and does nothing else."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from cmass.cli import app
from cmass.errors import CmassError, WorkspaceError
from cmass.publish.sql import SqlError, check, is_smoke, own_tables, query, render
from cmass.workspace import Workspace


@pytest.fixture(scope="module")
def latest(released: Workspace) -> Path:
    return released.releases / "latest"


def test_counts_the_masses(latest: Path) -> None:
    assert query(latest, "SELECT count(*) AS n FROM masses").to_pydict() == {"n": [40]}


@pytest.mark.parametrize(
    "statement",
    [
        "FROM masses LIMIT 1", "WITH a AS (SELECT 1) SELECT * FROM a", "VALUES (1), (2)",
        "DESCRIBE masses", "SHOW TABLES", "SUMMARIZE clusters", "EXPLAIN SELECT * FROM masses",
        "SELECT * FROM cone(0, 0, 5);", "PIVOT masses ON flag USING count(*)",
        "SELECT cluster_id, mass_quantile(cluster_id, 0.9) FROM masses -- a comment",
    ],
)  # fmt: skip
def test_reading_is_allowed(latest: Path, statement: str) -> None:
    assert query(latest, statement).num_columns > 0


@pytest.mark.parametrize(
    "statement",
    [
        "COPY masses TO '{file}'", "COPY (SELECT 1) TO '{file}' (FORMAT parquet)",
        "ATTACH '{file}'", "ATTACH ':memory:' AS m", "DETACH cmass", "EXPORT DATABASE '{file}'",
        "SELECT * FROM read_csv('/etc/passwd')", "FROM '/etc/passwd'",
        "SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM read_blob('/etc/*')",
        "SELECT * FROM read_parquet('{file}')", "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM sniff_csv('/etc/passwd')", "SELECT * FROM duckdb_secrets()",
        "SET threads = 1", "SET enable_external_access = true", "SET lock_configuration = false",
        "SET VARIABLE x = 1", "RESET enable_external_access", "PRAGMA threads = 1",
        "PRAGMA enable_profiling", "PRAGMA database_list", "INSTALL httpfs", "LOAD httpfs",
        "LOAD '{file}'", "CREATE TABLE t AS SELECT 1", "CREATE TEMP TABLE t AS SELECT 1",
        "CREATE SECRET (TYPE s3)", "INSERT INTO masses SELECT * FROM masses", "DELETE FROM masses",
        "UPDATE masses SET flag = 0", "DROP TABLE masses", "ALTER TABLE masses DROP COLUMN flag",
        "COMMENT ON TABLE masses IS 'x'", "CHECKPOINT", "VACUUM", "BEGIN", "CALL pragma_version()",
        "PREPARE a AS SELECT 1", "USE memory", "EXPLAIN ANALYZE COPY masses TO '{file}'",
        "EXPLAIN ANALYZE DELETE FROM masses",
    ],
)  # fmt: skip
def test_everything_else_is_refused(latest: Path, tmp_path: Path, statement: str) -> None:
    file = tmp_path / "out"
    database = (latest / "cmass.duckdb").read_bytes()
    with pytest.raises(SqlError):
        query(latest, statement.format(file=file))
    assert not list(tmp_path.iterdir())
    assert (latest / "cmass.duckdb").read_bytes() == database
    assert {p.name for p in latest.iterdir() if "duckdb" in p.name} == {"cmass.duckdb"}


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("COPY masses TO 'x.csv'", "COPY is refused.*--format csv"),
        ("ATTACH 'x.db'", "ATTACH is refused"),
        ("SELECT * FROM read_csv('/etc/passwd')", 'refused: Cannot access file "/etc/passwd"'),
        ("SELECT 1; SELECT 2", "found 2 statements"),
        ("SELECT 1; DROP TABLE masses", "found 2 statements"),
        ("", "no SQL statement"),
        ("-- nothing", "no SQL statement"),
        ("SELEC 1", "syntax error"),
        ("SELECT log10_m200 FROM masses", "(?s)not found.*log10_m200c"),
        ("SELECT * FROM mases", "(?s)mases does not exist.*masses"),
    ],
)
def test_errors_say_what_to_do(latest: Path, statement: str, words: str) -> None:
    with pytest.raises(SqlError, match=words) as caught:
        query(latest, statement)
    assert isinstance(caught.value, CmassError)
    assert caught.value.exit_code == 2


def test_variables_of_the_calling_program_stay_hidden(latest: Path) -> None:
    secret = pa.table({"word": ["hidden"]})
    with pytest.raises(SqlError, match="secret does not exist"):
        query(latest, "SELECT * FROM secret")
    assert secret.num_rows == 1


def test_no_release_and_a_damaged_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="no release is there"):
        query(tmp_path / "latest", "SELECT 1")
    (tmp_path / "cmass.duckdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(WorkspaceError, match="cannot be opened"):
        query(tmp_path, "SELECT 1")


def test_csv_and_json_hold_what_was_asked(latest: Path) -> None:
    statement = (
        "SELECT cluster_id, log10_m200c, posterior, 'a,\"b\"' AS odd, 1 AS odd "
        "FROM masses ORDER BY cluster_id LIMIT 4"
    )
    table = query(latest, statement)
    assert table.num_columns == 5
    names, *rows = csv.reader(io.StringIO(render(table, "csv")))
    assert names == table.column_names
    assert [r[0] for r in rows] == table["cluster_id"].to_pylist()
    assert rows[0][1] == ""  # no mass: an empty cell
    assert [float(r[1]) for r in rows[2:]] == table["log10_m200c"].to_pylist()[2:]
    assert json.loads(rows[3][2]) == pytest.approx(table["posterior"][3].as_py())
    assert {r[3] for r in rows} == {'a,"b"'}
    objects = json.loads(render(table.select(["cluster_id", "log10_m200c"]), "json"))
    assert objects == table.select(["cluster_id", "log10_m200c"]).to_pylist()


@pytest.mark.parametrize(
    "statement",
    [
        "FROM 'http://127.0.0.1:1/x.csv'", "FROM 's3://bucket/x.parquet'",
        "SELECT * FROM read_json('/etc/passwd')", "SELECT * FROM read_duckdb('/etc/passwd')",
        "SELECT * FROM parquet_metadata('/etc/passwd')", "SELECT * FROM duckdb_extensions()",
        "SELECT * FROM query('COPY masses TO ''/tmp/x''')",
        "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
        "SELECT getenv('HOME')", "SELECT * FROM enable_logging()",
        "SELECT * FROM enable_profiling()", "SELECT * FROM arrow_scan(1, 1, 1)",
        "SELECT * FROM pandas_scan(1)", "CREATE MACRO m() AS TABLE FROM '/etc/passwd'",
        "CREATE TEMP VIEW v AS FROM '/etc/passwd'", "EXECUTE a", "EXPORT DATABASE 'x' (FORMAT csv)",
        "IMPORT DATABASE 'x'", "SET memory_limit = '1TB'", "SET temp_directory = '/tmp'",
        "SELECT " + "(" * 20_000 + "1" + ")" * 20_000,
    ],
)  # fmt: skip
def test_ways_around_are_refused(latest: Path, statement: str) -> None:
    with pytest.raises(SqlError):
        query(latest, statement)


FOREVER = "SELECT count(*) FROM range(100000000000) a, range(1000000) b WHERE a.range * b.range = 7"


def test_a_statement_without_end_is_stopped(latest: Path) -> None:
    start = time.monotonic()
    with pytest.raises(SqlError, match="takes more than 0.5 s"):
        query(latest, FOREVER, seconds=0.5)
    assert time.monotonic() - start < 60  # on a busy machine; by itself it would take years


def test_memory_and_answers_have_limits(
    latest: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from cmass.publish import sql

    monkeypatch.setitem(sql._LOCKED, "memory_limit", "50MB")
    with pytest.raises(SqlError, match="takes more than 50MB of memory"):
        query(latest, "SELECT i, repeat('x', 100) FROM range(3000000) t(i) ORDER BY hash(i)")
    monkeypatch.setattr(sql, "ANSWER_MAX_BYTES", 1_000_000)
    with pytest.raises(SqlError, match="larger than 0.001 GB: add LIMIT"):
        query(latest, "FROM range(1000000)")


def test_ctrl_c_stops_a_statement(latest: Path) -> None:
    command = [sys.executable, "-m", "cmass.cli", "sql", "--release", str(latest), FOREVER]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        # It is at work once DuckDB's own threads are there.
        tasks = Path(f"/proc/{child.pid}/task")
        end = time.monotonic() + 60
        while len(list(tasks.iterdir())) < 3 and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(1)
        child.send_signal(signal.SIGINT)
        try:
            _, said = child.communicate(timeout=30)
        finally:
            child.kill()
    assert child.returncode == 130
    assert "interrupted" in said


def test_provenance_that_is_none_is_named(tmp_path: Path) -> None:
    for text in ("[]", "{}", '{"release": 1}'):
        (tmp_path / "provenance.json").write_text(text)
        with pytest.raises(WorkspaceError, match="no provenance of a release"):
            is_smoke(tmp_path)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.csv"
    file.write_text("cluster_id,RA\nTest-0003,1.5\n0007,2.5\n")
    return file


def test_a_table_of_ones_own_is_joined(latest: Path, mine: Path) -> None:
    tables = own_tables([f"mine={mine}"])
    joined = query(
        latest,
        "SELECT m.ra, mine.RA AS own FROM masses m JOIN mine USING (cluster_id)",
        tables=tables,
    )
    assert joined["own"].to_pylist() == [1.5]
    everything = query(latest, "FROM mine ORDER BY cluster_id", tables=tables)
    assert everything["cluster_id"].to_pylist() == ["0007", "Test-0003"]  # zeros kept
    with pytest.raises(SqlError, match="mine does not exist"):  # of that one statement alone
        query(latest, "FROM mine")


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".ecsv", ".fits", ".vot"])
def test_a_table_of_ones_own_in_any_format(latest: Path, tmp_path: Path, suffix: str) -> None:
    from cmass import formats

    file = tmp_path / f"x{suffix}"
    formats.write(file, pa.table({"name": ["a", "b"], "value": [1.0, 2.5]}))
    found = query(latest, "SELECT sum(value) AS s FROM x", tables=own_tables([f"x={file}"]))
    assert found["s"].to_pylist() == [3.5]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("mine", "give a name and a file, as in --with mine=clusters.csv"),
        ("mine=", "give a name and a file"),
        ("={file}", "is no name for a table"),
        ("Mine={file}", "'Mine' is no name for a table; use small letters"),
        ('x"; DROP TABLE y; --={file}', "is no name for a table"),
        ("mine={file}.not", "the suffix names no format"),
        ("mine=nothing.csv", "there is no such file"),
    ],
)
def test_names_and_files_that_are_none_are_told(mine: Path, option: str, words: str) -> None:
    with pytest.raises(CmassError, match=words):
        own_tables([option.format(file=mine)])


def test_own_tables_keep_their_place(latest: Path, mine: Path, monkeypatch) -> None:
    from cmass.publish import sql

    with pytest.raises(SqlError, match="mine is named twice"):
        own_tables([f"mine={mine}", f"mine={mine}"])
    with pytest.raises(SqlError, match="masses is a table of the release"):
        query(latest, "SELECT 1", tables=own_tables([f"masses={mine}"]))
    same = pa.table({"ra": [1.0], "RA": [2.0]})
    with pytest.raises(SqlError, match="the columns 'ra' and 'RA', which are one in SQL"):
        query(latest, "SELECT 1", tables={"mine": same})
    monkeypatch.setattr(sql, "OWN_MAX_BYTES", 10)
    with pytest.raises(SqlError, match="more than 1e-08 GB"):
        query(latest, "SELECT 1", tables=own_tables([f"mine={mine}"]))


@pytest.mark.parametrize(
    "statement",
    [
        "FROM '{file}'", "SELECT * FROM read_csv('{file}')", "SELECT * FROM read_text('{file}')",
        "SELECT * FROM arrow_scan(0, 0, 0)", "FROM _own", "DROP TABLE mine", "INSERT INTO mine FROM mine",
        "COPY mine TO '{file}2'", "CREATE TABLE other AS FROM mine", "ATTACH '{file}'",
        "SET enable_external_access = true",
    ],
)  # fmt: skip
def test_the_statement_reads_no_more_with_own_tables(latest, mine, statement) -> None:
    database = (latest / "cmass.duckdb").read_bytes()
    with pytest.raises(SqlError):
        query(latest, statement.format(file=mine), tables=own_tables([f"mine={mine}"]))
    assert [p.name for p in mine.parent.iterdir()] == ["mine.csv"]
    assert (latest / "cmass.duckdb").read_bytes() == database


def test_damage_is_told_before_an_answer(latest: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(latest, folder)
    assert check(folder) is None
    parquet = folder / "galaxies.parquet"
    parquet.write_bytes(parquet.read_bytes()[:-1] + b"x")
    words = check(folder)
    assert words is not None
    assert "galaxies.parquet does not match its checksum" in words
    assert "the answer comes from it" in words
    done = CliRunner().invoke(
        app, ["sql", "SELECT 41 + 1 AS n", "--release", str(folder), "--format", "csv"]
    )
    assert done.exit_code == 0
    assert done.stdout.replace('"', "").split() == ["n", "42"]
    assert "warning: " in done.stderr
    (folder / "SHA256SUMS").unlink()
    assert "nobody can tell" in (check(folder) or "")


def test_a_database_that_is_not_the_released_one_is_refused(latest: Path, tmp_path: Path) -> None:
    import duckdb

    folder = tmp_path / "copy"
    shutil.copytree(latest, folder)
    with duckdb.connect(str(folder / "cmass.duckdb")) as connection:
        connection.execute("UPDATE masses SET log10_m200c = 15")
    with pytest.raises(WorkspaceError, match="cmass.duckdb does not match its checksum"):
        check(folder)
    done = CliRunner().invoke(app, ["sql", "SELECT 1", "--release", str(folder)])
    assert done.exit_code == 5


def test_examples_of_the_help_give_rows(latest: Path, mine: Path) -> None:
    command = next(c for c in app.registered_commands if c.callback.__name__ == "sql")
    examples = re.findall(r'"((?:SELECT|FROM) .*?)"', command.epilog.replace("\n", " "))
    assert len(examples) == 3
    for statement in examples:
        assert query(latest, statement, tables=own_tables([f"mine={mine}"])).num_rows > 0, statement
