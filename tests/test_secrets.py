"""Passwords and keys reach no log, error or file."""

from __future__ import annotations

import logging

import pytest

from cmass import cli, secrets
from cmass.errors import ParameterError
from cmass.params import load_params


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("postgresql://cmass:sesame@db.org:5432/mlflow", "postgresql://***@db.org:5432/mlflow"),
        ("at https://me:p%40ss@h/api?x=1 now", "at https://***@h/api?x=1 now"),
        ("postgresql://cmass:ses/am#e?@db.org:5432/x", "postgresql://***@db.org:5432/x"),
        ("s3://key:a/b+c@d@h/bucket then me@h.org", "s3://***@h/bucket then me@h.org"),
        ("https://h/a?token=sesame&z=1", "https://h/a?token=***&z=1"),
        ("https://h/a?X-Amz-Signature=5e5a&X-Amz-Credential=AK/1", "https://h/a?X-Amz-Signature=***&X-Amz-Credential=***"),
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer ***"),
        ('{"password": "open sesame", "z": 1}', '{"password": ***, "z": 1}'),
        ("AWS_SECRET_ACCESS_KEY=abc/def+g rest", "AWS_SECRET_ACCESS_KEY=*** rest"),
        ("tls://10.0.0.1:8786 and mail me@h.org", "tls://10.0.0.1:8786 and mail me@h.org"),
        ("z_max = 0.2, keys: cluster_id, author: x", "z_max = 0.2, keys: cluster_id, author: x"),
    ],
)  # fmt: skip
def test_redact(text, words):
    assert secrets.redact(text) == words
    assert secrets.redact(words) == words


def test_secrets_of_the_environment(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "open-sesame-1")
    monkeypatch.setenv("PREFECT_API_KEY", "short")
    assert secrets.redact("the server says open-sesame-1 is wrong; short") == (
        "the server says *** is wrong; short"
    )


def test_address():
    assert secrets.address("https://a:b@h:5000/x?token=c#d") == "https://h:5000/x"
    assert secrets.address("postgresql://me:pa/ss@h:5432/db") == "postgresql://h:5432/db"
    assert secrets.address("sqlite:////data/mlflow.db") == "sqlite:////data/mlflow.db"


def test_redacted_goes_into_everything():
    value = {"a": ["https://u:p@h/x", 1, None], "b": ("token=abc",)}
    assert secrets.redacted(value) == {"a": ["https://***@h/x", 1, None], "b": ["token=***"]}


def test_errors_are_told_without_secrets():
    """With all that they were raised from, by whichever way, and what an OSError speaks by."""
    with pytest.raises(RuntimeError) as caught, secrets.told_without_secrets():
        try:
            try:
                raise OSError(5, "no answer of https://u:sesame@h", "https://u:sesame@h/x")
            except OSError as error:
                raise ValueError("token=sesame") from error
        except ValueError:
            raise RuntimeError("https://u:sesame@h is away", 3)  # noqa: B904
    error = caught.value
    assert error.args == ("https://***@h is away", 3)
    first = error.__context__.__cause__
    said = " ".join(map(str, (error, error.__context__, first)))
    assert "sesame" not in said and "https://***@h/x" in str(first)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("no answer of https://u:sesame@h"), "no answer of https://***@h"),
        (TimeoutError("Task run exceeded timeout of 3600.0 second(s)"), "Task run exceeded timeout of 3600.0 second(s)"),
        (ConnectionRefusedError(111, "refused"), "[Errno 111] refused"),
        (FileNotFoundError(2, "gone", "/a", None, "/b"), "[Errno 2] gone: '/a' -> '/b'"),
    ],
)  # fmt: skip
def test_an_error_says_what_it_said_before(error, words):
    with pytest.raises(type(error)) as caught, secrets.told_without_secrets():
        raise error
    assert str(caught.value) == words


@pytest.fixture
def fresh_logging():
    root, ours = logging.getLogger(), logging.getLogger("cmass")
    kept = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], root.level, ours.level = kept


def test_the_log_of_the_command_line(capfd, fresh_logging):
    cli._set_up_logging(debug=False)
    logging.getLogger("cmass.x").warning("asked %s: \x1b]0;evil\x07", "https://u:sesame@h/x")
    said = capfd.readouterr().err
    assert "https://***@h/x" in said.replace("\n", "")
    assert "sesame" not in said and "\x1b]0" not in said


@pytest.mark.parametrize("debug", [False, True])
def test_errors_of_the_command_line(capfd, debug):
    try:
        raise RuntimeError("no answer of https://u:sesame@h/x?token=abc")
    except RuntimeError as error:
        cli._leave(str(error), 1, debug)
    said = capfd.readouterr().err
    assert "***" in said and "sesame" not in said


def test_parameters_hold_no_password(tmp_path):
    file = tmp_path / "params.yaml"
    for text in (
        "ingest: {network: {vizier_url: 'https://me:sesame@h/x'}}", "scheduler: tls://me:ses/ame@h:1",
    ):  # fmt: skip
        file.write_text(text)
        with pytest.raises(ParameterError, match="netrc") as caught:
            load_params(file)
        assert "sesame" not in str(caught.value) and "ses/ame" not in str(caught.value)


def test_the_shells_folders_are_no_passwords(monkeypatch):
    """Messages name files of the current folder."""
    for name in ("PWD", "OLDPWD"):
        monkeypatch.setenv(name, "/home/reader/clusters")
    monkeypatch.setenv("MYSQL_PWD", "hunter2hunter2")
    text = "/home/reader/clusters/data/release is gone; hunter2hunter2"
    assert secrets.redact(text) == "/home/reader/clusters/data/release is gone; ***"
