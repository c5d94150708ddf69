"""report.html: one file that opens anywhere, without the network."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cmass.params import Params
from cmass.publish import summary
from cmass.tables import atomic_path, read_json, read_table
from cmass.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Largest report, bytes.
SIZE_MAX = 3_000_000


@dataclass(frozen=True)
class Panel:
    """One figure of the report: an anchor, a title, a caption, its inline SVG."""

    name: str
    title: str
    caption: str
    svg: str


def write_report(
    path: Path, workspace: Workspace, params: Params, tables: dict[str, pa.Table],
    facts: dict[str, Any],
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
    """
    import jinja2

    from cmass.publish.report.figures import PALETTE

    masses, calibration = tables["masses"], tables["calibration"]
    expectations = workspace.raw / "expectations.json"
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cmass.publish.report", "."), autoescape=True,
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    numbers = summary.numbers(calibration)
    main = ("all", workspace.survey, "cnn3d", "sigma_m")  # the rest are bins of mass
    text = environment.get_template("report.html.jinja2").render(
        title=params.publish.title,
        release=facts["release"],
        software=facts["software"],
        counts=summary.mass_counts(masses),
        galaxies=tables["galaxies"].num_rows,
        tiles=_tiles(tables, workspace.survey),
        panels=list(panels(workspace, params, tables)),
        **_realism(workspace, params),
        numbers=[n for n in numbers if n.bin in main and not n.metric.startswith("n_flag_")],
        numbers_by_bin=[n for n in numbers if n.bin not in main],
        flags=summary.flag_counts(masses),
        expectations=expectation_rows(read_json(expectations)) if expectations.exists() else [],
        sources=summary.leaves(facts["sources"]),
        model=summary.leaves({**facts["model"], "registry": facts["registry"]}),
        parameters=summary.leaves(facts["parameters"]),
        palette=PALETTE,
    )
    path.write_text(text, encoding="utf-8")
    if path.stat().st_size > SIZE_MAX:
        raise RuntimeError(f"{path.name} has {path.stat().st_size} bytes, more than {SIZE_MAX}")


def _tiles(tables: dict[str, pa.Table], survey: str) -> list[tuple[str, str, str]]:
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
            remark = _coverage_words(row) if metric == "coverage_68" else ""
            if paper is not None and not remark:
                remark = f"paper: {text(paper)}"
            tiles.append((label, f"{text(row['value'])} {row['unit']}".strip(), remark))
    return tiles


def _coverage_words(row: dict[str, Any]) -> str:
    """What the part of true masses inside the 1σ interval should be, and whether it is."""
    words, error = "calibrated: 0.683", row["error"]
    if error and abs(row["value"] - 0.683) > 2 * error:
        words += ": posteriors too narrow" if row["value"] < 0.683 else ": posteriors too wide"
    return words


def _offset_words(calibration: pa.Table, survey: str) -> dict[str, str]:
    """Mean and scatter of each half's offsets, observed and expected, for a legend."""
    found = {}
    for half in ("even", "odd"):
        values = [
            summary.calibration_value(calibration, f"{prefix}galweight_{name}", f"{survey}_{half}")
            for name in ("offset_mean", "scatter")
            for prefix in ("", "expected_")
        ]
        if all(row["value"] is not None for row in values):
            mean, model_mean, scatter, model_scatter = (row["value"] for row in values)
            found[half] = (
                f"mean {mean:+.3f}, scatter {scatter:.3f}\n"
                f"(expected {model_mean:+.3f}, {model_scatter:.3f})"
            )
    return found


def panels(workspace: Workspace, params: Params, tables: dict[str, pa.Table]) -> Iterator[Panel]:
    """Draw the report's figures one after the other."""
    from cmass.publish.report import figures

    masses, clusters = tables["masses"], tables["clusters"]
    joined = figures.with_galweight(masses, clusters)
    rejected = workspace.selected / "rejected.parquet"
    complete = params.infer.completeness_log10_m200c

    def panel(name: str, title: str, caption: str, figure: Figure) -> Panel:
        return Panel(name, title, caption, inline_svg(figure, name, f"{title}. {caption}"))

    yield panel(
        "sky", "Sky map",
        "The selected clusters, coloured by the network's mass; larger symbols have more galaxies "
        "in the window. Crosses are clusters of the source that were not selected: too far, or too "
        "close to the survey's edge. East is to the left.",
        figures.sky_map(
            masses,
            read_table(rejected, "rejected_clusters") if rejected.exists() else None,
        ),
    )  # fmt: skip
    yield panel(
        "galweight", "Masses against GalWeight",
        "Posterior medians against the dynamical masses of the cluster catalogue; the "
        "dashed line is equality.",
        figures.predicted_galweight(masses, clusters),
    )  # fmt: skip
    yield panel(
        "pull", "Pull against GalWeight",
        "Difference of the two log masses over the combined error, and the unit Gaussian. A perfect "
        "simulator does not give a mean of zero here: the flat prior moves it.",
        figures.pull_histogram(summary.pulls(joined)),
    )  # fmt: skip
    yield panel(
        "offsets", "Observed and expected comparison",
        "Log ratio of our masses and GalWeight's, even and odd clusters apart (points with Poisson "
        "errors), and what the mocks predict (lines): the population of haloes, seen by the "
        "network and weighed as GalWeight does, selected as the catalogue is. Ratios of GalWeight's "
        "masses to their imitation come from even clusters; no mass of ours enters the prediction.",
        figures.offsets(
            read_table(workspace.masses / "offsets.parquet", "offsets"),
            _offset_words(tables["calibration"], workspace.survey),
        ),
    )  # fmt: skip
    yield panel(
        "mass-function", "Mass function",
        "Clusters per volume and dex with Poisson bands, the halo mass function of Tinker+2008, and "
        "what the network would say of its haloes (expected). "
        f"Below log₁₀ M = {complete:g} the catalogue is not complete.",
        figures.mass_function(
            read_table(workspace.masses / "mass_function.parquet", "mass_function"), complete
        ),
    )  # fmt: skip
    yield panel(
        "truth", "Predicted and true mass of mocks",
        "Evaluation mocks, which neither the network nor the posterior has seen; the dashed line is "
        "equality.",
        figures.predicted_true(
            read_table(workspace.evaluation / "predictions.parquet", "predictions")
        ),
    )  # fmt: skip
    yield panel(
        "residuals", "Residuals by mass",
        "Mean and 1σ and 2σ bands of ε = log₁₀(M_true/M_pred) of the evaluation mocks in bins of "
        "true mass; positive where the network underestimates.",
        figures.residuals(read_table(workspace.evaluation / "residuals.parquet", "residuals")),
    )  # fmt: skip
    yield panel(
        "coverage", "Coverage",
        "How often the true mass lies in the central interval of the posterior, against the "
        "probability in that interval. The grey band holds 95 % of calibrated posteriors.",
        figures.coverage(read_table(workspace.evaluation / "coverage.parquet", "coverage")),
    )  # fmt: skip
    yield panel(
        "joint", "Joint density",
        "Point estimate and true mass of the test mocks. A vertical slice is the posterior of a "
        "cluster with that point estimate. Contours hold 68 % and 95 %.",
        figures.joint_density(read_table(workspace.posterior / "joint.parquet", "joint")),
    )  # fmt: skip
    yield panel(
        "loss", "Training",
        "Root mean square error of log mass on training and validation mocks by epoch. The weights "
        "of the best epoch are kept.",
        figures.loss_curve(read_table(workspace.model / "history.parquet", "training_history")),
    )  # fmt: skip


def _realism(workspace: Workspace, params: Params) -> dict[str, Any]:
    """Scores and panels of the comparison with the mocks; empty where none was made."""
    from cmass.publish.report import realism

    file = workspace.realism / "realism.parquet"
    if not file.exists():
        return {"realism_scores": [], "realism_panels": []}
    table, agreement = read_table(file, "realism"), params.realism.agreement
    drawn = [
        Panel(name, title, caption, inline_svg(figure, name, f"{title}. {caption}"))
        for name, title, caption, figure in realism.figures(table, agreement)
    ]
    return {"realism_scores": realism.score_rows(table, agreement), "realism_panels": drawn}


def inline_svg(figure: Figure, name: str, alternative: str) -> str:
    """SVG of a figure for use inside a page.

    Palette colours become CSS variables, ids are made unique by `name`, the size is left
    to the page, and `alternative` is what a screen reader says.
    """
    import html

    import matplotlib

    from cmass.publish.report.figures import PALETTE

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for variable, colour in PALETTE.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    label = html.escape(alternative, quote=True)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def expectation_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Results of `cmass.expectations.validate` as rows: one a table and expectation."""
    return [
        {
            "table": name, "expectation": row["expectation"].replace("_", " "),
            "column": row["column"],
            "limits": ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in row["limits"].items()),
            "success": row["success"], "found": row["found"],
        }
        for name, table in results["tables"].items()
        for row in table["expectations"]
    ]  # fmt: skip


def save_overview(workspace: Workspace, path: Path, params: Params | None = None) -> None:
    """Save one picture of a workspace's results, for a README.

    Masses against GalWeight, coverage, residuals and mass function, as PNG.

    Parameters
    ----------
    workspace : Workspace
        With the products of evaluate and infer.
    path : Path
        The PNG file; replaced in one piece.
    params : Params, optional
        For the completeness limit of the mass function.
    """
    from cmass.publish.report.figures import overview

    complete = (params or Params()).infer.completeness_log10_m200c
    figure = overview(
        read_table(workspace.masses / "masses.parquet", "masses"),
        read_table(workspace.selected / "clusters.parquet", "clusters"),
        read_table(workspace.evaluation / "coverage.parquet", "coverage"),
        read_table(workspace.evaluation / "residuals.parquet", "residuals"),
        read_table(workspace.masses / "mass_function.parquet", "mass_function"),
        complete,
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
