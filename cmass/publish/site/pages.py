"""The pages of a site, one after the other: their path in the site and their text."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cmass.columns import FLAGS
from cmass.cosmology import Cosmology, from_params
from cmass.params import CosmologyParams, WindowParams
from cmass.publish import summary
from cmass.publish.database import MACROS
from cmass.publish.report import headline_tiles, unit_words
from cmass.publish.site import drawings, reports
from cmass.publish.site.content import NEIGHBOUR_KM_S, NEIGHBOUR_MPC_H, Cluster, Release
from cmass.publish.site.queries import QUERIES

HERE = Path(__file__).parent
#: Pages that the head of every page leads to: file, words.
NAVIGATION = (
    ("index.html", "Overview"), ("sky.html", "Sky map"), ("clusters.html", "Clusters"),
    ("query.html", "SQL"), ("calibration.html", "Calibration"), ("realism.html", "Realism"),
    ("model.html", "Model card"), ("method.html", "Method"), ("columns.html", "Columns"),
    ("flags.html", "Flags"),
)  # fmt: skip
#: Sections of the report that become pages, by their anchor; `calibration` and `realism` are in the
#: navigation, the others beside them.
REPORT_PAGES = (
    "calibration", "realism", "proof", "rivals", "external", "catalogue", "beyond", "quality",
    "numbers",
)  # fmt: skip
#: Columns of the table of clusters: name, head, decimals.
TABLE = (
    ("cluster_id", "Cluster", None), ("log10_m200c_p50", "log₁₀ M200c", 2), ("z", "z", 4),
    ("n_galaxies", "Galaxies", 0), ("log10_m200c_hmf_p50", "with mass‑function prior", 2),
    ("log10_m200_galweight", "GalWeight", 2), ("log10_m200c_xray", "X‑ray", 2),
    ("ra", "RA [deg]", 4), ("dec", "Dec [deg]", 4), ("flag", "Flags", None),
)  # fmt: skip
#: Columns that the export of the table adds.
_EXPORTED = (
    "log10_m200c", "log10_m200c_p16", "log10_m200c_p84", "log10_m200c_hmf_p16",
    "log10_m200c_hmf_p84", "sigma_minus", "sigma_plus", "log10_m200_galweight_err",
)  # fmt: skip


def pages(release: Release, *, console: bool) -> Iterator[tuple[str, str]]:
    """Every page of a site: path below the site's folder, and text.

    Parameters
    ----------
    release : Release
    console : bool
        Whether the site serves DuckDB for its SQL console.
    """
    render = _renderer(release, console)
    rows = release.clusters
    mass = drawings.scale_of(c.row.get("log10_m200c_p50") for c in rows)
    redshift = drawings.scale_of((c.row["z"] for c in rows), 0, 100)
    massive = sorted(rows, key=lambda c: (-(c.row.get("log10_m200c_p50") or 0), c.place))[:8]
    flags = summary.flag_counts(release.tables["masses"])
    yield "index.html", render(
        "index.html", tiles=headline_tiles(release.tables, release.about["survey"]),
        counts=summary.mass_counts(release.tables["masses"]), massive=massive,
        galaxies=release.tables["galaxies"].num_rows, downloads=_downloads(release.folder),
        citations=_citations(release.facts),
    )  # fmt: skip
    yield "sky.html", render(
        "sky.html", map=drawings.sky_map(release, mass, redshift), mass=mass, redshift=redshift,
        flagged=sum(bool(c.flags) for c in rows),
    )  # fmt: skip
    yield "clusters.html", render("clusters.html", columns=_columns(release), data=_data(release))
    tables = _described(release.tables)
    yield "query.html", render(
        "query.html", queries=QUERIES, queries_data=[asdict(q) for q in QUERIES], tables=tables,
        macros=MACROS,
    )  # fmt: skip
    yield from _report_pages(release, render)
    card = release.folder / "model_card.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else "The release has no model card."
    yield "model.html", render("model.html", card=reports.as_html(text))
    yield (
        "method.html",
        render("method.html", glossary=reports.glossary(release.folder), window=_window(release)),
    )
    yield "columns.html", render("columns.html", tables=tables, macros=MACROS)
    yield "flags.html", render("flags.html", flags=flags)
    yield from _cluster_pages(release, render)


def _renderer(release: Release, console: bool) -> Any:
    """Function from the name of a template and what it shows to the text of a page."""
    environment = _environment()
    shared = {
        "title": release.facts["parameters"]["publish"]["title"], "release": release.about,
        "simulated": release.simulated, "clusters": release.clusters, "console": console,
        "navigation": NAVIGATION, "software": release.facts["software"],
        "registry": release.facts.get("registry") or {},
    }  # fmt: skip

    def render(template: str, path: str = "", **shown: Any) -> str:
        path = path or template
        text: str = environment.get_template(f"{template}.jinja2").render(
            **shared, here=path, root="../" * path.count("/"), **shown
        )
        return text

    return render


@functools.cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.FileSystemLoader(HERE / "templates"),
             jinja2.FileSystemLoader(HERE.parent / "report")]
        ),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {
        "number": _number, "bytes": bytes_text, "interval": drawings.interval_text,
        "unit": unit_words,
    }  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment


def stylesheet() -> str:
    """The site's CSS: the report's, and what only the site has."""
    from cmass.figures.style import DARK, PALETTE

    return str(
        _environment().get_template("site.css.jinja2").render(
            palette=PALETTE, dark=DARK, light_ramp=_ramp(0.0, 0.86), dark_ramp=_ramp(0.3, 1.0)
        )
    )  # fmt: skip


def _ramp(low: float, high: float) -> list[str]:
    """Colours of the ramp's steps: viridis without the end that a page would swallow."""
    import matplotlib
    from matplotlib.colors import to_hex

    part = np.linspace(low, high, drawings.STEPS)
    return [to_hex(colour) for colour in matplotlib.colormaps["viridis"](part)]


# --------------------------------------------------------------------------------------- texts


def _number(value: float | None, decimals: int = 2) -> str:
    """A number with a proper minus; a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{decimals}f}".replace("-", "−")


def bytes_text(size: int) -> str:
    """A size for people."""
    for unit, limit in (("B", 1e3), ("kB", 1e6), ("MB", 1e9)):
        if size < limit:
            value = size / (limit / 1e3)
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
    return f"{size / 1e9:.1f} GB"


def _downloads(folder: Path) -> list[dict[str, Any]]:
    """The release's own files, with what its README says of them."""
    from cmass.publish.release import files_of

    words = reports.file_words(folder)
    words.setdefault("README.md", "how to read the files, and what every column is")
    places = {name: place for place, name in enumerate(words)}  # the README's order
    found = []
    for file in files_of(folder):
        name = file.relative_to(folder).as_posix()
        found.append({"name": name, "size": file.stat().st_size, "words": words.get(name, "")})
    return sorted(found, key=lambda one: (places.get(one["name"], len(places)), one["name"]))


def _citations(facts: dict[str, Any]) -> list[dict[str, str]]:
    """What to cite of the sources: name, citation and licence."""
    found = []
    for name, product in (facts["sources"].get("products") or {}).items():
        if isinstance(product, dict) and product.get("citation"):
            found.append({"name": name, "citation": product["citation"],
                          "licence": product.get("licence", "")})  # fmt: skip
    return found


def _described(tables: dict[str, pa.Table]) -> list[dict[str, Any]]:
    """Every table and column as the metadata of the Parquet files say them."""
    found = []
    for name, table in tables.items():
        said = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        columns = []
        for column in table.schema:
            about = {k.decode(): v.decode() for k, v in (column.metadata or {}).items()}
            columns.append(
                {"name": column.name, "type": str(column.type), "unit": about.get("unit", ""),
                 "ucd": about.get("ucd", ""), "description": about.get("description", "")}
            )  # fmt: skip
        found.append({"name": name, "description": said.get("description", ""),
                      "rows": table.num_rows, "columns": columns})  # fmt: skip
    order = {n: i for i, n in enumerate(("masses", "clusters", "galaxies", "xray_matches"))}
    return sorted(found, key=lambda t: (order.get(t["name"], len(order)), t["name"]))


# --------------------------------------------------------------------------------------- table


def _value(cluster: Cluster, name: str) -> Any:
    if name == "log10_m200c_xray":
        return None if cluster.xray is None else cluster.xray[name]
    value = cluster.row.get(name)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _columns(release: Release) -> list[dict[str, Any]]:
    """Columns that the table of clusters shows; X-ray masses where any are."""
    with_xray = any(c.xray is not None for c in release.clusters)
    return [
        {"name": name, "head": head, "decimals": decimals}
        for name, head, decimals in TABLE if name != "log10_m200c_xray" or with_xray
    ]  # fmt: skip


def _data(release: Release) -> dict[str, Any]:
    """The table's values, column by column, for search, order and export."""
    names = [c["name"] for c in _columns(release)]
    names += [name for name in _EXPORTED if name not in names]
    return {
        "columns": {name: [_value(c, name) for c in release.clusters] for name in names},
        "pages": [c.name for c in release.clusters],
        "flags": {str(flag.value): flag.name for flag in FLAGS.values()},
        "release": release.about["version"],
    }


# --------------------------------------------------------------------------------------- report


def _report_pages(release: Release, render: Any) -> Iterator[tuple[str, str]]:
    parts = reports.report_parts(release.folder)
    there = [parts[name] for name in REPORT_PAGES if name in parts]
    for name in REPORT_PAGES:
        part = parts.get(name)
        if part is None and f"{name}.html" not in dict(NAVIGATION):
            continue
        yield f"{name}.html", render(
            "report_part.html", f"{name}.html", part=part, parts=there,
            name=name.capitalize(),
        )  # fmt: skip


# --------------------------------------------------------------------------------------- clusters


def _cluster_pages(release: Release, render: Any) -> Iterator[tuple[str, str]]:
    from astropy.coordinates import Angle

    rows = release.clusters
    window = _window(release)
    cosmology = from_params(
        CosmologyParams.model_validate(release.facts["parameters"]["cosmology"])
    )
    ra, dec = (Angle([c.row[n] for c in rows], "deg") for n in ("ra", "dec"))
    hours = ra.to_string("hourangle", sep=" ", precision=1, pad=True)
    degrees = dec.to_string("deg", sep=" ", precision=0, pad=True, alwayssign=True)
    for place, cluster in enumerate(rows):
        r200 = _r200(cluster, cosmology)
        yield f"clusters/{cluster.name}.html", render(
            "cluster.html", f"clusters/{cluster.name}.html", cluster=cluster, window=window,
            r200=r200, position=(str(hours[place]), str(degrees[place]).replace("-", "−")),
            before=rows[place - 1] if place else None,
            after=rows[place + 1] if place + 1 < len(rows) else None,
            posterior=drawings.posterior(cluster, release.edges),
            panels=(drawings.sky_panel(cluster, window, r200),
                    drawings.phase_panel(cluster, window, r200)) if len(cluster.points) else (),
            view=_view(cluster, window, r200),
            near=NEIGHBOUR_MPC_H, near_km_s=NEIGHBOUR_KM_S,
        )  # fmt: skip
        yield f"clusters/{cluster.name}.csv", galaxies_csv(cluster)


def _window(release: Release) -> WindowParams:
    return WindowParams.model_validate(release.facts["parameters"]["window"])


def _r200(cluster: Cluster, cosmology: Cosmology) -> float | None:
    """R200c of the posterior's median, proper Mpc/h."""
    mass = cluster.row.get("log10_m200c_p50")
    return None if mass is None else float(cosmology.r200c_mpc_h(10**mass, cluster.row["z"]))


def _view(cluster: Cluster, window: WindowParams, r200: float | None) -> dict[str, Any]:
    """What the interactive view needs: thousandths of Mpc/h and km/s, as whole numbers."""
    x, y, v = np.rint(cluster.points * [1000, 1000, 1]).astype(int).T
    return {"x": x.tolist(), "y": y.tolist(), "v": v.tolist(), "half": window.half_width_mpc_h,
            "v_max": window.v_max_km_s, "r200": r200, "edges": drawings.V_EDGES}  # fmt: skip


def galaxies_csv(cluster: Cluster) -> str:
    """The galaxies of a cluster, to 0.1 kpc/h and 0.1 km/s; all digits are in galaxies.parquet."""
    out = io.StringIO()
    out.write("galaxy_id,x_proj,y_proj,v_los\n")
    for number, (x, y, v) in zip(cluster.galaxy_id, cluster.points, strict=True):
        out.write(f"{number},{x:.4f},{y:.4f},{v:.1f}\n")
    return out.getvalue()
