"""A page a cluster, to look at before a mass is believed: its sky, its phase space, its posterior."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cmass import cosmology
from cmass.columns import COLUMNS, FLAGS
from cmass.figures.style import (
    BLUE,
    CLEAR_TO_BLUE,
    DARK,
    GOLD,
    INK,
    MASS,
    MUTED,
    PALETTE,
    RED,
    canvas,
    inline_svg,
    nothing,
)
from cmass.file_names import file_names
from cmass.infer import Sample
from cmass.posterior import reweight
from cmass.pretrained import Bundle
from cmass.progress import track
from cmass.tables import atomic_path

Array = NDArray[np.float64]

#: Towards us, at rest, away from us: legible on light and dark paper.
_SPEED = LinearSegmentedColormap.from_list("speed", [BLUE, MUTED, RED])
#: What the table of a page shows, in order.
_SHOWN = (
    "ra", "dec", "z", "n_galaxies", "log10_m200c_p50", "log10_m200c_hmf_p50", "log10_m200c",
    "log10_m200c_dispersion", "outlier_p", "second_peak_p", "centre_shift_mpc_h",
    "centre_shift_km_s",
)  # fmt: skip


def write(folder: Path, estimates: pa.Table, sample: Sample, bundle: Bundle) -> None:
    """Write ``<cluster>.html`` for each cluster and ``index.html``.

    Parameters
    ----------
    folder : Path
        Made if need be; pages of the same clusters are replaced.
    estimates : pyarrow.Table
        Table `estimates`.
    sample : Sample
        Of the same clusters, in the same order.
    bundle : Bundle
        That made the masses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = _environment()
    rows = estimates.to_pylist()
    names = _names([row["cluster_id"] for row in rows])
    common = {"palette": PALETTE, "dark": DARK, "model": _model_words(bundle)}
    page = environment.get_template("cluster.html.jinja2")
    for i, row in enumerate(track(rows, "pages", total=len(rows))):
        cloud = sample.points[sample.offsets[i] : sample.offsets[i + 1]]
        figure = draw(row, cloud, bundle)
        _write(
            folder / f"{names[i]}.html",
            page.render(
                **common, row=row, remark=row["remark"], flags=_flags(row["flag"]),
                numbers=_numbers(row), svg=inline_svg(figure, f"c{i}", _alternative(row)),
                before=_link(rows, names, i - 1), after=_link(rows, names, i + 1),
            ),
        )  # fmt: skip
    index = environment.get_template("index.html.jinja2")
    listed = [
        row | {"page": name, "mass": _interval(row, "log10_m200c"), "words": row["remark"]}
        for row, name in zip(rows, names, strict=True)
    ]
    _write(folder / "index.html", index.render(**common, rows=listed))


@canvas(11.5, 3.9)
def draw(figure: Figure, row: dict[str, Any], cloud: Array, bundle: Bundle) -> None:
    """Sky, phase space and posterior of one cluster.

    Parameters
    ----------
    row : dict
        Of table `estimates`.
    cloud : ndarray, shape (n, 3)
        x, y (proper Mpc/h) and v (km/s) of the galaxies in the window.
    bundle : Bundle
    """
    sky, space, posterior = figure.subplots(1, 3, width_ratios=[1, 1.05, 1.1])
    half, v_max = bundle.window.half_width_mpc_h, bundle.window.v_max_km_s
    radius = _r200_mpc_h(row, bundle)
    colours = {"c": cloud[:, 2], "cmap": _SPEED, "vmin": -1000, "vmax": 1000, "s": 9, "lw": 0}
    dots = sky.scatter(cloud[:, 0], cloud[:, 1], **colours)
    sky.plot(0, 0, "+", color=INK, ms=10, mew=1.2)
    if radius is not None:
        angle = np.linspace(0, 2 * np.pi, 200)
        sky.plot(radius * np.cos(angle), radius * np.sin(angle), color=INK, lw=1)
        space.axvline(radius, color=INK, lw=1)
    sky.set(xlim=(half, -half), ylim=(-half, half), aspect="equal")  # east to the left
    sky.set(xlabel=r"East [$h^{-1}$ Mpc]", ylabel=r"North [$h^{-1}$ Mpc]", title="Sky")
    figure.colorbar(dots, ax=sky, shrink=0.7, pad=0.02, label="v [km/s]", extend="both")
    space.scatter(np.hypot(cloud[:, 0], cloud[:, 1]), cloud[:, 2], **colours)
    space.set(xlim=(0, half * np.sqrt(2)), ylim=(-v_max, v_max), title="Phase space")
    space.set(xlabel=r"Projected radius [$h^{-1}$ Mpc]", ylabel="Line-of-sight velocity [km/s]")
    _posterior(posterior, row, bundle)


def _posterior(axes: Axes, row: dict[str, Any], bundle: Bundle) -> None:
    axes.set_title("Posterior")
    if not row["posterior"]:
        nothing(axes, "no posterior")
        return
    flat = np.array(row["posterior"])[None, :]
    width = np.diff(bundle.edges)
    for name, values, colour in (
        ("flat prior in log mass", flat, BLUE),
        ("halo mass function", reweight(flat, *bundle.priors), GOLD),
    ):
        axes.stairs(values[0] / width, bundle.edges, color=colour, label=name, lw=1.6)
    low, high = row["log10_m200c_p16"], row["log10_m200c_p84"]
    axes.axvspan(low, high, color=CLEAR_TO_BLUE(0.15), lw=0)
    axes.axvline(row["log10_m200c_p50"], color=BLUE, lw=1)
    top = axes.get_ylim()[1]
    axes.set(ylim=(0, 1.3 * top), xlim=(bundle.edges[0], bundle.edges[-1]))
    axes.set(xlabel=MASS, ylabel="Probability density [dex$^{-1}$]")
    axes.legend(loc="upper left")


def _r200_mpc_h(row: dict[str, Any], bundle: Bundle) -> float | None:
    mass = row["log10_m200c_p50"]
    if mass is None:
        return None
    return float(cosmology.from_params(bundle.cosmology).r200c_mpc_h(10**mass, row["z"]))


def _interval(row: dict[str, Any], name: str) -> str:
    """Median and 68 % interval, ``14.31 +0.12 −0.13``."""
    p16, p50, p84 = (row[f"{name}_{q}"] for q in ("p16", "p50", "p84"))
    return "" if p50 is None else f"{p50:.2f} +{p84 - p50:.2f} −{p50 - p16:.2f}"


def _numbers(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, value with unit and meaning of what the page tells."""
    rows = []
    for name in _SHOWN:
        value = row[name]
        if value is None:
            continue
        if name.endswith("_p50"):
            text = _interval(row, name.removesuffix("_p50"))
        else:
            text = f"{value:.6g}" if name in ("ra", "dec", "z") else f"{value:.4g}"
        rows.append((name, f"{text} {COLUMNS[name].unit}".strip(), COLUMNS[name].description))
    return rows


def _flags(value: int) -> list[tuple[str, str]]:
    return [(one.name, one.words) for one in FLAGS.values() if value & one.value]


def _alternative(row: dict[str, Any]) -> str:
    mass = _interval(row, "log10_m200c")
    words = f"log10 M200c is {mass}" if mass else "it has no posterior"
    return (
        f"{row['cluster_id']}: {row['n_galaxies']} galaxies on the sky, in radius and velocity, and the "
        f"posterior of the mass: {words}"
    )


def _model_words(bundle: Bundle) -> str:
    profile, limit = bundle.provenance.get("profile", "?"), bundle.range.flux_limit_mag
    low, high = bundle.range.z
    depth = "" if limit is None else f", r < {limit:g}"
    return f"model of profile {profile}, trained on mocks at z {low:.3f} to {high:.3f}{depth}"


def _names(cluster_ids: list[str]) -> list[str]:
    """A file name a row, for identifiers that are missing or stand twice as well."""
    unique, seen = [], set()
    for number, one in enumerate(cluster_ids, start=1):
        name = (
            one if one and one not in seen and one.casefold() != "index" else f"{one} row {number}"
        )
        unique.append(name)
        seen.add(name)
    found = file_names(unique)
    return [found[name] for name in unique]


def _link(rows: list[dict[str, Any]], names: list[str], i: int) -> tuple[str, str] | None:
    return (f"{names[i]}.html", rows[i]["cluster_id"]) if 0 <= i < len(rows) else None


def _environment() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.PackageLoader("cmass.estimation", "."),
                jinja2.PackageLoader("cmass.publish", "report"),
            ]
        ),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
