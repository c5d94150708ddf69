"""The references in docs/reference/, made from the code, and a list of what in the code lacks words."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from cmass.columns import FLAGS, TABLES, Column, TableSchema
from cmass.params import PROFILES, Params, load_params
from tests.docs import environment

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "reference"
#: Fewest letters that count as words.
_WORDS = 6


def _cell(text: str) -> str:
    """Text that may stand in a cell of a table: no bar, no line break, no formula."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("$", "\\$")


# ------------------------------------------------------------------------------------ commands


def _commands(command: Any, path: tuple[str, ...] = ("cmass",)) -> Iterator[tuple[str, Any]]:
    """Every command below `command`, with the words that call it."""
    yield " ".join(path), command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*path, name))


def commands(app: Any = None) -> dict[str, Any]:
    """Typer's commands by what calls them, ``cmass study leak``; those of cmass."""
    import typer

    from cmass.cli import app as ours

    found = dict(_commands(typer.main.get_command(app or ours)))
    return {name: one for name, one in found.items() if not one.hidden}


def _is_argument(parameter: Any) -> bool:
    return not str(parameter.opts[0]).startswith("-")


def _plain(markup: str) -> str:
    """Rich's markup as Markdown."""
    return re.sub(r"\[/?bold\]", "`", markup).replace("\\[", "[")


def _kind(annotation: Any) -> str:
    """Type of a value in words."""
    if get_origin(annotation) in (Union, UnionType):
        kinds = [_kind(a) for a in get_args(annotation) if a is not NoneType]
        return " or ".join(kinds)
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{one}`" for one in get_args(annotation))
    if get_origin(annotation) in (list, tuple):
        inner = [a for a in get_args(annotation) if a is not Ellipsis]
        if get_origin(annotation) is tuple and len(inner) > 1:
            return ", ".join(_kind(a) for a in inner)
        return f"list of {_kind(inner[0])}"
    if get_origin(annotation) is dict:
        key, value = get_args(annotation)
        return f"{_kind(value)} by {_kind(key)}"
    names = {Path: "path", str: "text", int: "integer", float: "number", bool: "true or false"}
    return names.get(annotation) or getattr(annotation, "__name__", str(annotation))


def _option_row(parameter: Any) -> str:
    kind = parameter.type_descriptor.annotation
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    told = (
        "" if kind is bool else _kind(kind) if not parameter.multiple else _kind(get_args(kind)[0])
    )
    if parameter.multiple:
        told += ", may be given several times"
    if parameter.metavar:
        told = f"`{parameter.metavar}`, {told}"
    default = parameter.default
    if parameter.required:
        shown = "must be given"
    elif default is None or default is False or parameter.name == "show_version":
        shown = ""
    elif default is True:
        shown = f"`{parameter.opts[0]}`"
    else:
        shown = f"`{default}`"
    variables = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar or []
    shown += "".join(f", or `{name}` of the environment" for name in variables)
    return f"| {names} | {told} | {shown} | {_cell(_plain(parameter.help or ''))} |"


def _examples(epilog: str) -> tuple[list[str], list[str]]:
    """Command lines of an epilog, and what else it says; not the exit codes."""
    from cmass.cli import EXIT_CODES

    lines: list[str] = []
    words: list[str] = []
    for part in epilog.replace(EXIT_CODES, "").split("\n\n"):
        text = part.strip()
        if re.match(r"Examples?:", text) and _only_commands(text):
            lines += re.findall(r"\[bold\](.*?)\[/bold\]", text)
        elif text:
            words.append(_plain(text))
    return [line.replace("\\[", "[") for line in lines], words


def _only_commands(text: str) -> bool:
    rest = re.sub(r"\[bold\].*?\[/bold\]", "", text)
    return not re.sub(r"Examples?:|[;.,\s]", "", rest)


def commands_page() -> str:
    """docs/reference/commands.md."""
    from cmass.cli import EXIT_CODES

    every = commands()
    parts = ["# Commands", "", "`cmass COMMAND --help` says the same.", ""]
    rows = [
        f"| [`{name}`](#{name.replace(' ', '-')}) | {_cell(_first_line(one.help or ''))} |"
        for name, one in every.items() if name != "cmass"
    ]  # fmt: skip
    parts += [
        "| command | |",
        "|---|---|",
        *rows,
        "",
        "## Exit codes",
        "",
        "| code | |",
        "|---|---|",
    ]
    told = EXIT_CODES.removeprefix("Exit codes: ").rstrip(".")
    parts += ["| {} | {} |".format(*one.strip().split(" ", 1)) for one in told.split(";")]
    for name, one in every.items():
        arguments = [p for p in one.params if _is_argument(p)]
        options = [p for p in one.params if not _is_argument(p) and not p.hidden]
        inner = getattr(one, "commands", {})
        usage = " ".join([
            name, "[OPTIONS]" if options else "", "COMMAND" if inner else "",
            *(p.name.upper() if p.required else f"[{p.name.upper()}]" for p in arguments),
        ])  # fmt: skip
        parts += ["", f"## {name}", "", _plain(one.help or ""), "", "```sh"]
        lines, words = _examples(one.epilog or "")
        parts += [f"{' '.join(usage.split())}", "```", ""]
        if arguments or options:
            parts += ["| | value | default | |", "|---|---|---|---|"]
            for p in arguments:
                default = "must be given" if p.required else f"`{p.default}`"
                kind = _kind(p.type_descriptor.annotation)
                parts.append(
                    f"| `{p.name.upper()}` | {kind} | {default} | {_cell(_plain(p.help or ''))} |"
                )
            parts += [_option_row(p) for p in options]
            parts.append("")
        if lines:
            parts += ["```sh", *lines, "```", ""]
        parts += [f"{w}\n" for w in words]
    return "\n".join(parts).rstrip() + "\n"


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0].strip()


def mute_commands(app: Any = None) -> list[str]:
    """Commands, arguments and options without words, and commands without an example."""
    faults = []
    for name, one in commands(app).items():
        if len(one.help or "") < _WORDS:
            faults.append(f"command `{name}` has no help: give its function a docstring")
        if name != "cmass version" and not re.search(r"Examples?: .*\[bold\]", one.epilog or ""):
            faults.append(f"command `{name}` has no example: put one in [bold] into its epilog")
        faults += [
            f"`{name} {p.opts[0]}` has no help: give it help=\"…\""
            for p in one.params if not p.hidden and len(p.help or "") < _WORDS
        ]  # fmt: skip
    return faults


# ---------------------------------------------------------------------------------- parameters

#: What the end of a name says about the unit.
_UNITS = {
    "_mpc_h": "Mpc/h", "_km_s": "km/s", "_dex": "dex", "_deg": "deg", "_deg2": "deg²", "_mag": "mag",
    "_s": "s", "_arcsec": "arcsec", "_r200": "R200c", "_v200": "V200c", "_per_mag": "1/mag",
    "_sigma": "σ", "magnitude_max": "mag", "m_star": "mag", "_phi": "h³ Mpc⁻³", "k_constant": "mag", "cut_slope_sigma": "σ per Mpc/h",
}  # fmt: skip


@dataclass(frozen=True)
class Parameter:
    """One parameter: its dotted key, what it may be, and what it is."""

    key: str
    kind: str
    default: Any
    allowed: str
    words: str

    @property
    def unit(self) -> str:
        """Unit, as the name or the words tell it."""
        name = self.key.rpartition(".")[2]
        if "log10_m" in name:
            return "log10(Msun/h)"
        if "log10_l" in name:
            return "log10(Lsun/h²)"
        ends = sorted((end for end in _UNITS if name.endswith(end)), key=len)
        return _UNITS[ends[-1]] if ends else ""

    @property
    def paper(self) -> str:
        """The paper's value, as the words tell it."""
        found = re.search(r"\(.*?paper(?:, [A-Za-z]+)?: ([^;)]*)", self.words)
        return found[1].partition(", code")[0].strip() if found else ""


def _limits(field: Any) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "multiple_of": "a multiple of"}
    told = []
    for one in field.metadata:
        told += [f"{sign} {getattr(one, name)}" for name, sign in signs.items()
                 if getattr(one, name, None) is not None]  # fmt: skip
    return ", ".join(told)


def sections(model: type[BaseModel] = Params, prefix: str = "") -> dict[str, type[BaseModel]]:
    """Model of every section by dotted key; that of all of them under an empty key."""
    found = {prefix.rstrip("."): model}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= sections(kind, f"{prefix}{name}.")
    return found


def parameters(model: type[BaseModel], prefix: str) -> list[Parameter]:
    """Parameters of one section, without those of sections in it."""
    start = f"{prefix}." if prefix else ""
    return [
        Parameter(start + name, _kind(field.annotation), field.default, _limits(field), field.description or "")
        for name, field in model.model_fields.items()
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))
    ]  # fmt: skip


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(_value(v) for v in value) or "none"
    if isinstance(value, dict):
        return "<br>".join(f"{k}: {_value(v)}" for k, v in value.items())
    return str(value)


def parameters_page() -> str:
    """docs/reference/parameters.md."""
    profiles = {name: load_params(ROOT / "params.yaml", name) for name in PROFILES}
    parts = [
        "# Parameters", "",
        "What `params.yaml` may say, by dotted key: `voxels.kappa` is `kappa` below `voxels:`. Values are those of "
        "the profile `standard`; `smoke` and `paper` where they differ. Lengths are proper unless said. *paper*: the value of Kodi "
        "Ramanah+2020.", "",
    ]  # fmt: skip
    for key, model in sections().items():
        words = inspect.cleandoc(model.__doc__ or "")
        parts += [f"## {key or 'The run'}", "", _plain(words), ""]
        rows = []
        for one in parameters(model, key):
            values = {name: _dotted(values, one.key) for name, values in profiles.items()}
            shown = _value(values["standard"])
            shown += "".join(
                f"<br>{name}: {_value(v)}" for name, v in values.items()
                if v != values["standard"] and one.key != "profile"
            )  # fmt: skip
            rows.append(
                f"| `{one.key}` | {shown} | {one.unit} | {_cell(one.paper)} | {one.kind}"
                f"{', ' if one.allowed else ''}{_cell(one.allowed.replace('<', 'below').replace('>', 'above'))} | {_cell(one.words)} |"
            )
        if rows:
            parts += [
                "| key | value | unit | paper | type | |",
                "|---|---|---|---|---|---|",
                *rows,
                "",
            ]
    return "\n".join(parts).rstrip() + "\n"


def _dotted(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = getattr(values, part)
    return values


def mute_parameters(model: type[BaseModel] = Params) -> list[str]:
    """Parameters and sections without words."""
    faults = []
    for key, section in sections(model).items():
        if len(section.__dict__.get("__doc__") or "") < _WORDS:
            faults.append(
                f"section `{key}` has no docstring: say in {section.__name__} what it holds"
            )
        faults += [
            f"parameter `{one.key}` has no description" for one in parameters(section, key)
            if len(one.words) < _WORDS - 2
        ]  # fmt: skip
    return faults


# ------------------------------------------------------------------------------------- columns


def _range(column: Column) -> str:
    low, high = column.minimum, column.maximum
    if low is None and high is None:
        return ""
    left = "" if low is None else f"{'above' if column.open_minimum else 'from'} {low:g}"
    right = "" if high is None else f"{'below' if column.open_maximum else 'to'} {high:g}"
    return f"{left} {right}".strip()


def columns_page() -> str:
    """docs/reference/columns.md."""
    parts = [
        "# Tables and columns", "",
        "Every table that cmass writes, from the one dictionary of columns (`cmass/columns.py`). Files carry type, unit, UCD "
        "and description of each column. `Mpc/h` and `Msun/h` carry h⁻¹; lengths on the sky are proper. A release holds "
        "[masses](#masses), [clusters](#clusters), [galaxies](#galaxies), [calibration](#calibration), "
        "[posterior_grid](#posterior_grid); `cmass estimate` writes [estimates](#estimates).", "",
        "## Flags", "", "Bits of `flag`: `flag & 4 > 0` asks for the third.", "",
        "| bit | value | name | |", "|---|---|---|---|",
    ]  # fmt: skip
    parts += [f"| {f.bit} | {f.value} | `{f.name}` | {_cell(f.words)} |" for f in FLAGS.values()]
    for table in TABLES.values():
        key = f" Unique: {', '.join(f'`{name}`' for name in table.key)}." if table.key else ""
        parts += ["", f"## {table.name}", "", f"{table.description.rstrip('.')}.{key}", ""]
        parts += [
            "| column | type | unit | UCD | range | missing | |",
            "|---|---|---|---|---|---|---|",
        ]
        parts += [
            f"| `{c.name}` | {_cell(c.type)} | {_cell(c.unit)} | {c.ucd} | {_range(c)} | "
            f"{'yes' if c.nullable else ''} | {_cell(c.description)} |"
            for c in table.columns
        ]
    return "\n".join(parts) + "\n"


def mute_columns(tables: dict[str, TableSchema] = TABLES) -> list[str]:
    """Tables, columns and flags without words, or a column without UCD."""
    faults = [
        f"table `{t.name}` has no description"
        for t in tables.values()
        if len(t.description) < _WORDS
    ]
    for table in tables.values():
        for column in table.columns:
            if len(column.description) < _WORDS:
                faults.append(f"column `{table.name}.{column.name}` has no description")
            if not column.ucd:
                faults.append(f"column `{table.name}.{column.name}` has no UCD")
    return faults + [
        f"flag `{f.name}` has no words" for f in FLAGS.values() if len(f.words) < _WORDS
    ]


# -------------------------------------------------------------------------------------- Python


@dataclass(frozen=True)
class Name:
    """A public name of a module: function, class or method, where it is, and its first line of words."""

    module: str
    name: str
    kind: str
    line: int
    words: str


def _modules(root: Path, packages: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for package in packages:
        for file in sorted((root / package).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            if not any(p.startswith("_") and p != "__init__" for p in parts):
                yield ".".join(p for p in parts if p != "__init__"), file


def public_names(root: Path = ROOT, packages: tuple[str, ...] = ("cmass",)) -> list[Name]:
    """Modules, and functions, classes and methods without a leading underscore, from the source alone."""
    found = []
    for module, file in _modules(root, packages):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found.append(Name(module, "", "module", 1, _first_line(ast.get_docstring(tree) or "")))
        found += _names_in(tree, module, "")
    return found


def _names_in(node: ast.AST, module: str, prefix: str) -> Iterator[Name]:
    for one in ast.iter_child_nodes(node):
        if not isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if one.name.startswith("_") or any(
            ast.unparse(d) == "overload" for d in one.decorator_list
        ):
            continue
        kind = "class" if isinstance(one, ast.ClassDef) else "method" if prefix else "function"
        words = _first_line(ast.get_docstring(one) or "")
        yield Name(module, prefix + one.name, kind, one.lineno, words)
        if isinstance(one, ast.ClassDef):
            yield from _names_in(one, module, f"{one.name}.")


def mute_names(root: Path = ROOT, packages: tuple[str, ...] = ("cmass", "flows")) -> list[str]:
    """Public modules, functions, classes and methods without a docstring.

    Of methods that several classes of a module have, as those of a protocol, one says what they do.
    """
    names = public_names(root, packages)
    told = {(n.module, n.name.rpartition(".")[2]) for n in names if n.kind == "method" and n.words}
    return [
        f"{one.module}{'.' if one.name else ''}{one.name} has no docstring (line {one.line})"
        for one in names if len(one.words) < _WORDS
        and not (one.kind == "method" and (one.module, one.name.rpartition(".")[2]) in told)
    ]  # fmt: skip


def _whole(name: str, thing: Callable[..., Any]) -> list[str]:
    """Signature and docstring of a function of the contract."""
    return [f"## {name}", "", "```text", f"{name}{inspect.signature(thing)}", "",
            inspect.getdoc(thing) or "", "```", ""]  # fmt: skip


def python_page() -> str:
    """docs/reference/python.md."""
    import cmass
    from cmass import formats, pretrained, voxels

    parts = [
        "# Python", "",
        "What most people call, in full; below, every module. On the documentation site each package has a page of its own.", "",
        *_whole("cmass.estimate", cmass.estimate), *_whole("cmass.voxels.density_grid", voxels.density_grid),
        *_whole("cmass.pretrained.load_bundle", pretrained.load_bundle), *_whole("cmass.formats.read", formats.read),
        "## Modules", "", "| module | |", "|---|---|",
    ]  # fmt: skip
    parts += [f"| `{n.module}` | {_cell(n.words)} |" for n in public_names() if n.kind == "module"]
    return "\n".join(parts) + "\n"


#: Every page that is made from the code.
PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands_page,
    "parameters.md": parameters_page,
    "columns.md": columns_page,
    "environment.md": environment.page,
    "python.md": python_page,
}


def mute() -> list[str]:
    """Everything that lacks words."""
    undescribed = sorted(environment.used() - set(environment.VARIABLES))
    return [
        *mute_commands(), *mute_parameters(), *mute_columns(), *mute_names(),
        *(f"variable {name} is not in tests/docs/environment.py" for name in undescribed),
    ]  # fmt: skip
