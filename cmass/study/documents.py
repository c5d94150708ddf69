"""Results of the studies as Markdown, and where they stand in the documentation."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cmass.errors import InputError
from cmass.mock.ingredients import EVERYTHING, INGREDIENTS
from cmass.study.numbers import ANOTHER_SEED
from cmass.tables import atomic_path, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What stands for a number that there is none of.
_NONE = "–"


def ingredients_markdown(table: pa.Table, survey: str | None) -> str:
    """Table `ingredients` as Markdown: one line an ingredient, means over the seeds.

    Parameters
    ----------
    table : pyarrow.Table
    survey : str, optional
        Name of the survey whose clusters were weighed.
    """
    rows = _by_group(table, "ingredient")
    order = [EVERYTHING, ANOTHER_SEED, *INGREDIENTS]
    compared = np.isfinite(to_numpy(table, "galweight_offset_median")[0]).any()
    head = ["without", "ε own: mean", "scatter", "change", "ε full: mean", "scatter",
            "fixed network: shift", f"{survey or 'survey'}: shift", "scatter"]  # fmt: skip
    if compared:
        head += ["GalWeight: offset", "scatter", "pull mean", "pull std"]
    lines = _head(head)
    full = rows.get((EVERYTHING,), {})
    for name in (n for n in order if (n,) in rows):
        row = rows[name,]
        title = {EVERYTHING: "nothing", ANOTHER_SEED: "nothing, another seed"}.get(
            name, name.replace("_", " ")
        )
        own = row["epsilon_scatter"]
        # The same seed has the same haloes: the change is less noisy than the two numbers.
        change = {s: v - full["epsilon_scatter"].get(s, np.nan) for s, v in own.items()}
        shown = [
            _signed(row["epsilon_mean"]), _plain(own),
            _NONE if name == EVERYTHING else _signed(change),
            _signed(row["reference_epsilon_mean"]), _plain(row["reference_epsilon_scatter"]),
            _signed(row["fixed_network_shift_mean"]), _signed(row["survey_shift_median"]),
            _plain(row["survey_shift_scatter"]),
        ]  # fmt: skip
        if compared:
            shown += _galweight_cells(row)
        lines.append(_line([title, *shown]))
    return "\n".join(lines)


def nuisance_markdown(table: pa.Table) -> str:
    """Table `nuisance` as Markdown: one line a network and kind of windows."""
    rows = _by_group(table, "trained_on", "evaluated_on")
    compared = np.isfinite(to_numpy(table, "galweight_offset_median")[0]).any()
    head = ["trained on", "judged on", "ε mean", "scatter", "inside 68 %", "inside 95 %",
            "posterior ±", "shift", "its scatter"]  # fmt: skip
    if compared:
        head += ["GalWeight: offset", "scatter", "pull mean", "pull std"]
    lines = _head(head)
    for key, row in rows.items():
        shown = [
            _signed(row["epsilon_mean"]), _plain(row["epsilon_scatter"]),
            _plain(row["coverage_68"]), _plain(row["coverage_95"]),
            _plain(row["half_width_median"]), _signed(row["shift_median"]),
            _plain(row["shift_scatter"]),
        ]  # fmt: skip
        if compared:
            shown += _galweight_cells(row)
        lines.append(_line([*key, *shown]))
    return "\n".join(lines)


def _galweight_cells(row: dict[str, dict[int, float]]) -> list[str]:
    return [
        _signed(row["galweight_offset_median"]), _plain(row["galweight_scatter"]),
        _signed(row["galweight_pull_mean"]), _plain(row["galweight_pull_std"]),
    ]  # fmt: skip


def _by_group(table: pa.Table, *keys: str) -> dict[tuple[str, ...], dict[str, dict[int, float]]]:
    """Values by seed of every number, for each group in the order of the table."""
    numbers = [n for n in table.column_names if n not in (*keys, "seed")]
    found: dict[tuple[str, ...], dict[str, dict[int, float]]] = {}
    for row in table.to_pylist():
        group = found.setdefault(tuple(row[k] for k in keys), {n: {} for n in numbers})
        for name in numbers:
            if isinstance(row[name], int | float):
                group[name][row["seed"]] = row[name]
    return found


def _plain(by_seed: dict[int, float]) -> str:
    return _mean(by_seed, "")


def _signed(by_seed: dict[int, float]) -> str:
    return _mean(by_seed, "+").replace("-", "−")


def _mean(by_seed: dict[int, float], sign: str) -> str:
    """Mean over the seeds and, where there is more than one, half their range."""
    values = np.array([v for v in by_seed.values() if np.isfinite(v)])
    if not values.size:
        return _NONE
    mean = f"{values.mean():{sign}.3f}"
    return mean if values.size == 1 else f"{mean} ± {np.ptp(values) / 2:.3f}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(names: list[str]) -> list[str]:
    return [_line(names), "|" + "---|" * len(names)]


def mean_and_error(
    by_seed: Mapping[int, float], errors: Mapping[int, float]
) -> tuple[float, float]:
    """Mean over the seeds and its error.

    The error is the larger of what the windows of each seed allow and what the seeds show.

    Parameters
    ----------
    by_seed, errors : mapping of int to float
        The number and its error by seed.
    """
    seeds = [s for s, v in by_seed.items() if np.isfinite(v)]
    if not seeds:
        return float("nan"), float("nan")
    values = np.array([by_seed[s] for s in seeds])
    sampled = np.sqrt(np.mean([errors[s] ** 2 for s in seeds]) / len(seeds))
    seen = values.std(ddof=1) / np.sqrt(len(seeds)) if len(seeds) > 1 else 0.0
    return float(values.mean()), float(max(sampled, seen))


def groups(table: pa.Table, key: str) -> list[tuple[Any, list[dict[str, Any]]]]:
    """Rows of each value of a column, in the order of the table."""
    found: dict[Any, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        found.setdefault(row[key], []).append(row)
    return list(found.items())


def seeds_of(rows: list[dict[str, Any]]) -> str:
    """How many seeds the rows are of."""
    return str(len({row["seed"] for row in rows}))


def mean_of(
    rows: list[dict[str, Any]], value: str, error: str | None = None
) -> tuple[float, float]:
    """`mean_and_error` of a column over the seeds of some rows; what is missing does not count."""
    known = [r for r in rows if r[value] is not None]
    values = {r["seed"]: float(r[value]) for r in known}
    errors = {r["seed"]: float((error and r[error]) or 0.0) for r in known}
    mean, spread = mean_and_error(values, errors)
    # One seed says nothing of the seeds, and no error of its own means none at all.
    return mean, spread if error or len(values) > 1 else float("nan")


def value_cell(value: float | None, error: float | None = None, *, sign: bool = False,
               digits: int = 3) -> str:  # fmt: skip
    """A number with its error for a table; a dash for none."""
    if value is None or not np.isfinite(value):
        return _NONE
    words = f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")
    known = error is not None and np.isfinite(error)
    return f"{words} ± {error:.{digits}f}" if known else words


def grid(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    return "\n".join([*_head(list(head)), *(_line(row) for row in rows)])


def save_figure(figure: Figure, stem: Path) -> Path:
    """Write a figure as ``<stem>.png`` and ``<stem>.pdf``; return the first."""
    for kind, about in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
        path = stem.with_name(f"{stem.name}.{kind}")
        with atomic_path(path) as temporary:
            figure.savefig(
                temporary, format=kind, dpi=130, facecolor="white", metadata=about,
            )  # fmt: skip
    return path


def put_picture(document: Path, name: str, picture: Path, caption: str) -> str:
    """Copy a study's picture beside a document; return the line that shows it there."""
    target = document.parent / f"study_{name}.png"
    with atomic_path(target) as temporary:
        shutil.copyfile(picture, temporary)
    return f"![{caption}]({target.name})"


def put_between_markers(path: Path, name: str, block: str) -> None:
    """Write `block` between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` in a document.

    Raises
    ------
    InputError
        There is no such document, or it lacks one of the markers.
    """
    before, after = around_markers(path, name)
    with atomic_path(path) as temporary:
        temporary.write_text(f"{before}\n{block}\n{after}", encoding="utf-8")


def around_markers(path: Path, name: str) -> tuple[str, str]:
    """The document up to the marker that begins a block, and from the one that ends it.

    Raises
    ------
    InputError
        There is no such document, or it lacks one of the markers.
    """
    if not path.is_file():
        raise InputError("no such document", file=path, remedy="Give one with --docs that is there")
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise InputError(
            f"no place for the results: the document lacks {begin} or {end}", file=path,
            remedy="Put both lines where the table is to stand",
        )  # fmt: skip
    return before + begin, end + after
