"""report.html: one file that opens anywhere, without the network."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from cmass.errors import InputError
from cmass.params import Params
from cmass.publish import summary
from cmass.tables import read_table
from cmass.workspace import Workspace

#: Largest report, bytes.
SIZE_MAX = 15_000_000


@dataclass(frozen=True)
class FigureNumber:
    """A number below a figure: ours, the published one and where it stands, as text."""

    words: str
    ours: str
    paper: str
    source: str


@dataclass(frozen=True)
class Panel:
    """One figure of the report: anchor, title, its number in the paper, caption, inline SVG."""

    name: str
    title: str
    paper: str
    caption: str
    svg: str
    wide: bool
    numbers: list[FigureNumber]
    single: bool = False


@dataclass(frozen=True)
class Section:
    """A section of figures, and in words what it lacks."""

    name: str
    title: str
    panels: list[Panel]
    missing: list[str]


def write_report(
    path: Path, workspace: Workspace, params: Params, tables: dict[str, pa.Table],
    facts: dict[str, Any], contracts: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write the report of a release.

    Parameters
    ----------
    path : Path
        The HTML file.
    workspace : Workspace
        Its figure data are read.
    params : Params
    tables : dict of pyarrow.Table
        Tables of the release by name.
    facts : dict
        Provenance, as `cmass.publish.provenance.gather` gives it with the version added.
    contracts : dict, optional
        As `cmass.contracts.release.gather` gives them.
    """
    import jinja2
    import markupsafe

    from cmass import figures
    from cmass.figures.style import DARK, PALETTE
    from cmass.publish.model_card import RIVAL_METRICS, rival_rows
    from cmass.publish.report.contracts import contract_words
    from cmass.publish.report.words import glossary

    def code(words: str) -> markupsafe.Markup:
        """Words between backticks as code."""
        escaped = str(markupsafe.escape(words))
        return markupsafe.Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", escaped))

    masses, calibration = tables["masses"], tables["calibration"]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cmass.publish.report", "."), autoescape=True,
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"code": code, "subset": summary.subset_words}
    numbers = summary.numbers(calibration)
    numbers = [n for n in numbers if not n.metric.startswith(("n_flag_", "xray_"))]
    main = ("all", workspace.survey, "cnn3d", "sigma_m")  # the rest are bins of mass
    text = environment.get_template("report.html.jinja2").render(
        title=params.publish.title,
        release=facts["release"],
        software=facts["software"],
        counts=summary.mass_counts(masses),
        galaxies=tables["galaxies"].num_rows,
        tiles=headline_tiles(tables, workspace.survey),
        sections=sections(workspace, params),
        realism_scores=_realism_scores(workspace, params),
        rivals=rival_rows(figures.tables(workspace)),
        rival_heads=list(RIVAL_METRICS.values()),
        glossary=glossary(params),
        xray={
            summary.subset_words(bin): summary.xray_rows(calibration, bin)
            for bin in dict.fromkeys(calibration["bin"].to_pylist())
            if summary.calibration_value(calibration, "xray_n_compared", bin)["value"] is not None
        },
        xray_heads=list(summary.XRAY_METRICS.values()),
        xray_margin=params.infer.xray.margin_dex,
        massive=params.rivals.massive_log10_m200c,
        numbers=[n for n in numbers if n.bin in main],
        numbers_by_bin=[n for n in numbers if n.bin not in main],
        flags=summary.flag_counts(masses),
        contracts=contract_words(contracts) if contracts else None,
        sources=summary.leaves(facts["sources"]),
        model=summary.leaves({**facts["model"], "registry": facts["registry"]}),
        parameters=summary.leaves({**facts["parameters"], **facts["model_parameters"]}),
        registry=facts["registry"],
        palette=PALETTE,
        dark=DARK,
    )
    path.write_text(text, encoding="utf-8")
    if path.stat().st_size > SIZE_MAX:
        raise InputError(
            f"the report has {path.stat().st_size} bytes, more than {SIZE_MAX}", file=path,
            remedy="One of its figures draws too many points as vectors: draw them as an image",
        )  # fmt: skip


def headline_tiles(tables: dict[str, pa.Table], survey: str) -> list[tuple[str, str, str]]:
    """Headline numbers: label, number, remark."""
    counts, calibration = summary.mass_counts(tables["masses"]), tables["calibration"]
    text = summary.number_text
    tiles = [
        ("Clusters with a mass", f"{counts['with_mass']}", f"of {counts['clusters']} selected"),
    ]
    if counts["sigma_minus"] is not None:
        both = f"−{counts['sigma_minus']:.2f} / +{counts['sigma_plus']:.2f}"
        tiles.append(("Median 1σ error", both, "dex"))
    for metric, label in (
        ("epsilon_mean", "Mean residual on mocks"),
        ("epsilon_scatter", "Scatter on mocks"),
        ("dispersion_epsilon_scatter", "Scatter of σ–M, same mocks"),
        ("coverage_68", "Inside the 1σ interval"),
        ("pull_mean", "Mean pull against GalWeight"),
        ("pull_std", "Standard deviation of the pull"),
    ):
        bin = survey if metric.startswith("pull") else "all"
        row = summary.calibration_value(calibration, metric, bin)
        if row["value"] is not None:
            paper = row["paper_value"]
            expected = summary.calibration_value(calibration, f"expected_{metric}", bin)["value"]
            remarks = [_coverage_words(row)] if metric == "coverage_68" else []
            if paper is not None and not remarks:
                remarks.append(f"paper: {text(paper)}")
            if expected is not None:
                remarks.append(f"mocks\N{NO-BREAK SPACE}expect:\N{NO-BREAK SPACE}{text(expected)}")
            number = f"{text(row['value'])} {row['unit']}".strip()
            tiles.append((label, number, " · ".join(remarks)))
    return tiles


def _coverage_words(row: dict[str, Any]) -> str:
    """What the part of true masses inside the 1σ interval should be, and whether it is."""
    words, error = "calibrated: 0.683", row["error"]
    if error and abs(row["value"] - 0.683) > 2 * error:
        words += ": posteriors too narrow" if row["value"] < 0.683 else ": posteriors too wide"
    return words


def sections(workspace: Workspace, params: Params) -> list[Section]:
    """Sections of figures, drawn one after the other; those without a known figure are left out."""
    from cmass import figures
    from cmass.figures.style import inline_svg

    panels: dict[str, list[Panel]] = {}
    for one in figures.drawn(workspace):
        entry = one.entry
        svg = inline_svg(
            entry.draw(one.tables, params), entry.name, f"{entry.title}. {one.caption}"
        )
        panels.setdefault(entry.section, []).append(
            Panel(entry.name, entry.title, entry.paper, one.caption, svg, entry.wide,
                  [_figure_number(n) for n in one.numbers])
        )  # fmt: skip
    known = {entry.section for entry in figures.entries(workspace.survey)}
    return [
        Section(name, title, alone(panels.get(name, [])), figures.missing_words(workspace, name))
        for name, title in figures.SECTIONS.items() if name in known
    ]  # fmt: skip


def alone(panels: list[Panel]) -> list[Panel]:
    """The same, those marked that have no neighbour in a row of two: they get its whole width."""
    found: list[Panel] = []
    left = True
    for place, panel in enumerate(panels):
        last = place + 1 == len(panels) or panels[place + 1].wide
        single = not panel.wide and left and last
        found.append(replace(panel, single=single))
        left = True if panel.wide or single else not left
    return found


def _figure_number(number: dict[str, Any]) -> FigureNumber:
    """A number of figures.json as text."""
    unit = unit_words(number["unit"])

    def with_unit(words: str) -> str:
        return f"{words} {unit}".strip()

    ours = summary.with_error(number["value"], number["error"])
    paper = "" if number["paper"] is None else with_unit(summary.number_text(number["paper"]))
    source = number["source"] if paper else ""
    return FigureNumber(number["words"], with_unit(ours), paper, source)


def unit_words(unit: str) -> str:
    """A VOUnit string for people."""
    known = {"log10(Msun/h)": "log₁₀ h⁻¹ M☉", "deg2": "deg²", "Mpc/h": "h⁻¹ Mpc"}
    return known.get(unit, unit)


def _realism_scores(workspace: Workspace, params: Params) -> list[Any]:
    """Scores of the comparison with the mocks; empty where none was made."""
    from cmass.figures.realism import score_rows

    file = workspace.realism / "realism.parquet"
    if not file.exists():
        return []
    return list(score_rows(read_table(file, "realism"), params.realism.agreement))
