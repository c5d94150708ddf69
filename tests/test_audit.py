"""No pinned version is known to be faulty; every licence is known, and allowed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests import audit

ROOT = Path(__file__).parents[1]


def test_no_pinned_version_is_known_to_be_faulty():
    faults, _ = audit.known_faults(audit.pinned())
    assert not faults, "\n".join(faults)


def test_a_faulty_version_is_found():
    faults, accepted = audit.known_faults(
        {"keras": "3.8.0", "diskcache": "5.6.3", "pyarrow": "25.0.1"}
    )
    assert len(faults) == 3 and all("keras 3.8.0" in words for words in faults)
    assert len(accepted) == 1


def test_the_table_of_licences_is_that_of_what_is_installed():
    """`python -m tests.audit --licences` writes it."""
    lines = audit.LICENCES.read_text(encoding="utf-8").splitlines()
    told = {
        row[1].strip(): row[3].strip()
        for row in (line.split("|") for line in lines)
        if len(row) > 4
    }
    told = {name: words for name, words in told.items() if name not in ("package", "---")}
    here = {name: audit.licence(name) for name in audit.runtime_packages()}
    assert set(here) <= set(told)  # where an extra is not installed, fewer
    assert {name: told[name] for name in here} == here
    assert not audit.outside(told)


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        ("MIT", True), ("BSD-3-Clause AND MIT", True), ("GPL-3.0-only", False), ("not told", False),
        ("EPL-2.0 OR GPL-2.0-or-later", True), ("GNU Lesser General Public License v3 (LGPLv3)", True),
        ("MIT AND GPL-3.0-only", False), ("GNU Affero General Public License v3", False),
        ("Unlimited use, permitted", False),
    ],
)  # fmt: skip
def test_licences_that_are_allowed(words, allowed):
    assert audit.outside({"x": words}) == ([] if allowed else ["x"])


_FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def test_nothing_in_the_package_unpickles_or_evaluates():
    """Files are data: no pickle, no eval, no YAML but the safe one, no shell."""
    found = []
    for file in sorted((ROOT / "cmass").rglob("*.py")) + sorted((ROOT / "flows").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if words := _unsafe(node):
                found.append(f"{file.relative_to(ROOT)}:{node.lineno}: {words}")
    assert not found, "\n".join(found)


def _unsafe(node: ast.AST) -> str:
    if isinstance(node, ast.Import):
        names = {one.name.partition(".")[0] for one in node.names}
        return ", ".join(names & _FORBIDDEN)
    if isinstance(node, ast.ImportFrom):
        return node.module if (node.module or "").partition(".")[0] in _FORBIDDEN else ""
    if not isinstance(node, ast.Call):
        return ""
    called = ast.unparse(node.func)
    keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
    if called in ("eval", "exec", "os.system", "yaml.unsafe_load", "yaml.full_load", "os.popen"):
        return called
    if called == "yaml.load" and len(node.args) > 1 and "SafeLoader" not in ast.unparse(node):
        return called  # with one argument it is ruamel's, which is safe by its kind
    if called.endswith(".load_model") and keywords.get("safe_mode") == "False":
        return "load_model(safe_mode=False)"
    if keywords.get("shell") == "True":
        return f"{called}(shell=True)"
    return "allow_pickle" if keywords.get("allow_pickle", "False") != "False" else ""


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from joblib import load", "np.load(f, allow_pickle=True)", "eval('1')",
     "yaml.load(t, FullThing)", "subprocess.run('x', shell=True)", "keras.saving.load_model(f, safe_mode=False)"],
)  # fmt: skip
def test_what_is_unsafe_is_found(code):
    assert any(_unsafe(node) for node in ast.walk(ast.parse(code)))
