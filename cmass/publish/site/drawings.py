"""SVG drawings of the site: small, drawn by the thousand, coloured by the page's own style.

What they show stands in classes (`r0` to `r9` for the steps of the ramp, names of estimators and
priors), so that one drawing serves light and dark screens and print. Those of the report, which
are few and rich, are Matplotlib's.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cmass.params import WindowParams
from cmass.publish.site.content import Cluster, Release

#: Steps of the colour ramp.
STEPS = 10
#: Edges of |v| between colours, km/s, and of the projected radius, Mpc/h.
V_EDGES = (0, 250, 500, 800, 1200, 1700)
_WIDTH = 440.0


@dataclass(frozen=True)
class Scale:
    """Steps of colour over a range of values."""

    low: float
    high: float

    def step(self, value: float | None) -> int | None:
        """Step of a value, 0 to 9; None for none."""
        if value is None or not np.isfinite(value):
            return None
        part = (value - self.low) / max(self.high - self.low, 1e-9)
        return int(np.clip(np.floor(STEPS * part), 0, STEPS - 1))


def scale_of(values: Iterable[float | None], low: float = 2, high: float = 98) -> Scale:
    """A scale over the values between two percentiles."""
    known = [v for v in values if v is not None and np.isfinite(v)]
    return Scale(*map(float, np.percentile(known, [low, high]))) if known else Scale(0, 1)


def _n(value: float) -> str:
    """A coordinate with one decimal, none where that is enough."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _line(xs: Sequence[float] | np.ndarray, ys: Sequence[float] | np.ndarray) -> str:
    """Path data of a line through points."""
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in zip(xs, ys, strict=True))


def _text(x: float, y: float, words: str, classes: str = "") -> str:
    return f'<text x="{_n(x)}" y="{_n(y)}"{_class(classes)}>{html.escape(words)}</text>'


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


def _svg(name: str, width: float, height: float, label: str, parts: Iterable[str]) -> str:
    words = html.escape(label, quote=True)
    return (
        f'<svg class="{name}" viewBox="0 0 {_n(width)} {_n(height)}" role="img" '
        f'aria-label="{words}">{"".join(parts)}</svg>'
    )


# ------------------------------------------------------------------------------------ posteriors


def posterior(cluster: Cluster, edges: np.ndarray) -> str:
    """Posterior under both priors, and below it every mass with its 68 % interval."""
    estimates = cluster.estimates
    left, right, top, base = 8.0, _WIDTH - 8, 10.0, 196.0
    has_density = cluster.flat is not None
    if not has_density:
        base = top
    values = [v for e in estimates for v in (e.value, e.low, e.high) if v is not None]
    low, high = min([edges[0], *values]) - 0.03, max([edges[-1], *values]) + 0.03

    def x(value):
        return left + (np.asarray(value) - low) / (high - low) * (right - left)

    parts = []
    bottom = base + (30 if has_density else 6) + 34 * len(estimates)
    ticks = np.arange(np.ceil(low * 4) / 4, high, 0.25)
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{_n(x(tick))} {_n(top)}V{_n(bottom)}"/>')
    if has_density:
        parts += _densities(cluster, edges, x, top, base)
        for tick in ticks[::2]:
            parts.append(_text(float(x(tick)), base + 16, f"{tick:.1f}", "mid tick"))
    for number, one in enumerate(estimates):
        y = base + (30 if has_density else 6) + 34 * number
        parts.append(_text(left, y + 12, f"{one.words}: {interval_text(one)}", "label"))
        middle = y + 22
        if one.low is not None and one.high is not None:
            ends = f"M{_n(x(one.low))} {_n(middle)}H{_n(x(one.high))}"
            parts.append(f'<path class="reach e-{one.name}" d="{ends}"/>')
        parts.append(
            f'<circle class="dot e-{one.name}" cx="{_n(x(one.value))}" cy="{_n(middle)}" r="4"/>'
        )
    axis = "log₁₀ M200c [h⁻¹ M☉]"
    if not has_density:
        parts += [_text(float(x(t)), bottom + 14, f"{t:.1f}", "mid tick") for t in ticks[::2]]
        bottom += 14
    parts.append(_text((left + right) / 2, bottom + 16, axis, "mid axis"))
    return _svg("posterior", _WIDTH, bottom + 22, posterior_words(cluster), parts)


def _densities(cluster: Cluster, edges: np.ndarray, x, top: float, base: float) -> list[str]:
    """The two posteriors as steps, their heights on one scale, and the 68 % interval shaded."""
    widths = np.diff(edges)
    pairs = [(n, p) for n, p in (("flat", cluster.flat), ("hmf", cluster.hmf)) if p is not None]
    tallest = max(float(np.max(p / widths)) for _, p in pairs)
    parts = []
    for name, probability in pairs:
        heights = base - (probability / widths) / tallest * (base - top - 8)
        xs = x(edges)
        outline = f"M{_n(xs[0])} {_n(base)}V{_n(heights[0])}" + "".join(
            f"H{_n(right)}V{_n(down)}"
            for right, down in zip(xs[1:], [*heights[1:], base], strict=True)
        )
        parts.append(f'<path class="density {name}" d="{outline}"/>')
    parts.append(
        f'<path class="base" d="M{_n(float(x(edges[0])))} {_n(base)}H{_n(float(x(edges[-1])))}"/>'
    )
    return parts


def interval_text(estimate) -> str:
    """A mass with its interval, as 14.35 −0.12 +0.15."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}"
    below, above = estimate.value - estimate.low, estimate.high - estimate.value
    if f"{below:.2f}" == f"{above:.2f}":
        return f"{estimate.value:.2f} ± {below:.2f}"
    return f"{estimate.value:.2f} −{below:.2f} +{above:.2f}"


def posterior_words(cluster: Cluster) -> str:
    """The drawing of masses in words, for those who do not see it."""
    masses = "; ".join(f"{e.words} {interval_text(e)}" for e in cluster.estimates)
    what = "Posterior probability of" if cluster.flat is not None else "No posterior for"
    return f"{what} log₁₀ M200c of {cluster.id} in h⁻¹ M☉. {masses or 'No mass'}."


# ------------------------------------------------------------------------------------ galaxies


def _dots(x: np.ndarray, y: np.ndarray, speed: np.ndarray) -> list[str]:
    """Dots by the hundred as one path a colour, the fast ones below the slow ones."""
    step = np.searchsorted(V_EDGES, speed, side="right") - 1
    found = []
    for colour in range(len(V_EDGES) - 1, -1, -1):
        here = step == colour
        if here.any():
            data = "".join(f"M{_n(a)} {_n(b)}h0" for a, b in zip(x[here], y[here], strict=True))
            found.append(f'<path class="dots v{colour}" d="{data}"/>')
    return found


def sky_panel(cluster: Cluster, window: WindowParams, r200: float | None) -> str:
    """Galaxies of the window on the sky, north up and east to the left."""
    half, size = window.half_width_mpc_h, 300.0
    x, y, v = cluster.points.T
    scale = (size - 44) / (2 * half)
    top = 22
    cx, cy = 36 + scale * half, top + scale * half
    parts = [_frame(36, top, size - 44, size - 44)]
    for tick in np.linspace(-half, half, 5):
        parts.append(
            _text(cx - tick * scale, top + size - 28, f"{tick:g}".replace("-", "−"), "mid tick")
        )
        parts.append(_text(31, cy - tick * scale + 4, f"{tick:g}".replace("-", "−"), "end tick"))
    if r200 is not None:
        parts.append(f'<circle class="r200" cx="{_n(cx)}" cy="{_n(cy)}" r="{_n(scale * r200)}"/>')
    parts += _dots(cx - scale * x, cy - scale * y, np.abs(v))
    parts.append(f'<path class="cross" d="M{_n(cx - 6)} {_n(cy)}h12M{_n(cx)} {_n(cy - 6)}v12"/>')
    parts.append(_text(36 + (size - 44) / 2, top + size - 12, "east ← x [h⁻¹ Mpc]", "mid axis"))
    parts.append(_text(36, 14, "y [h⁻¹ Mpc], north up", "axis"))
    words = (
        f"{len(x)} galaxies of {cluster.id} on the sky, within {half:g} h⁻¹ Mpc of its centre, "
        "north up, east to the left, coloured by speed along the line of sight"
    )
    return _svg("panel", size, size + 14, words, parts)


def phase_panel(cluster: Cluster, window: WindowParams, r200: float | None) -> str:
    """Galaxies of the window by projected radius and velocity."""
    half, v_max, size = window.half_width_mpc_h, window.v_max_km_s, 300.0
    x, y, v = cluster.points.T
    radius = np.hypot(x, y)
    reach = half * np.sqrt(2)
    width, height = size - 52, size - 44
    top = 22
    middle = top + height / 2
    parts = [_frame(44, top, width, height)]
    parts.append(f'<path class="grid" d="M44 {_n(middle)}h{_n(width)}"/>')
    for tick in np.arange(0, reach, max(1.0, np.floor(half / 4))):
        parts.append(_text(44 + tick / reach * width, top + size - 28, f"{tick:g}", "mid tick"))
    for tick in (-0.9 * v_max, -0.45 * v_max, 0.0, 0.45 * v_max, 0.9 * v_max):
        value = round(tick / 100) * 100
        place = middle - value / v_max * height / 2
        parts.append(_text(40, place + 4, f"{value:g}".replace("-", "−"), "end tick"))
    if r200 is not None:
        parts.append(
            f'<path class="r200" d="M{_n(44 + r200 / reach * width)} {top}v{_n(height)}"/>'
        )
    parts += _dots(44 + radius / reach * width, middle - v / v_max * height / 2, np.abs(v))
    parts.append(_text(44 + width / 2, top + size - 12, "projected radius [h⁻¹ Mpc]", "mid axis"))
    parts.append(_text(44, 14, "velocity [km/s]", "axis"))
    words = (
        f"{len(x)} galaxies of {cluster.id} by projected radius, to {reach:.1f} h⁻¹ Mpc, and velocity "
        f"along the line of sight, to ±{v_max:g} km/s"
    )
    return _svg("panel", size, size + 14, words, parts)


def _frame(x: float, y: float, width: float, height: float) -> str:
    return (
        f'<rect class="frame" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"/>'
    )


# ------------------------------------------------------------------------------------ sky map

_SKY_W, _SKY_H = 1000.0, 500.0


def mollweide(ra_deg: np.ndarray, dec_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places on the map, Mollweide's equal-area projection, RA 180° in the middle, east to the left."""
    from matplotlib.projections.geo import MollweideAxes

    longitude = np.radians((np.asarray(ra_deg, float) % 360) - 180)
    latitude = np.radians(np.asarray(dec_deg, float))
    project = MollweideAxes.MollweideTransform(1)
    x, y = np.asarray(project.transform(np.column_stack([longitude, latitude]))).T
    reach = 2 * np.sqrt(2)
    return _SKY_W / 2 * (1 - 0.99 * x / reach), _SKY_H / 2 * (1 - 0.99 * y / np.sqrt(2))


def sky_map(release: Release, mass: Scale, redshift: Scale) -> str:
    """All clusters on the sky: links, coloured by mass, redshift or flags as the page says."""
    parts = []
    dec = np.linspace(-90, 90, 61)
    for ra in range(0, 361, 30):
        whole = np.full(61, 359.999 if ra == 360 else float(ra))
        kind = "outline" if ra in (0, 360) else "grid"
        parts.append(f'<path class="{kind}" d="{_line(*mollweide(whole, dec))}"/>')
    for parallel in range(-60, 61, 30):
        ra_line = np.linspace(0, 359.999, 73)
        xs, ys = mollweide(ra_line, np.full(73, float(parallel)))
        parts.append(f'<path class="grid" d="{_line(xs, ys)}"/>')
        if parallel:
            parts.append(
                _text(xs.max() - 4, ys[0] - 4, f"{parallel:+d}°".replace("-", "−"), "end tick")
            )
    for hour in range(60, 360, 60):
        x, y = mollweide(np.array([float(hour)]), np.array([0.0]))
        parts.append(_text(x[0], y[0] + 14, f"{hour}°", "mid tick"))
    parts.append(f'<path class="galaxy" d="{_galactic_plane()}"/>')
    order = sorted(release.clusters, key=lambda c: (c.row.get("log10_m200c_p50") or 0, c.place))
    xs, ys = mollweide(
        np.array([c.row["ra"] for c in order], float), np.array([c.row["dec"] for c in order], float)
    )  # fmt: skip
    for number, (cluster, x, y) in enumerate(zip(order, xs, ys, strict=True)):
        parts.append(_place(cluster, x, y, mass, redshift, first=number == len(order) - 1))
    return (
        f'<svg id="sky" class="skymap" viewBox="0 0 {_n(_SKY_W)} {_n(_SKY_H)}" role="group" '
        f'aria-label="Map of {len(order)} clusters. Arrow keys go from cluster to cluster, Enter opens '
        f'one." data-colour="mass">{"".join(parts)}</svg>'
    )


def _place(
    cluster: Cluster, x: float, y: float, mass: Scale, redshift: Scale, *, first: bool
) -> str:
    value = cluster.row.get("log10_m200c_p50")
    words = f"{cluster.id}: " + (
        f"log₁₀ M200c {value:.2f}" if value is not None else "no posterior"
    ) + f", z {cluster.row['z']:.4f}, {len(cluster.points)} galaxies"  # fmt: skip
    if cluster.flags:
        words += ", flagged " + ", ".join(f.name for f in cluster.flags)
    steps = (("m", mass.step(value)), ("z", redshift.step(cluster.row["z"])))
    classes = " ".join(f"{k}{'x' if s is None else s}" for k, s in steps)
    classes += f" f{int(bool(cluster.flags))}"
    # A link that says its cluster; one of them is in the order of the tab key, arrows do the rest.
    return (
        f'<a href="clusters/{cluster.name}.html" tabindex="{0 if first else -1}" '
        f'aria-label="{html.escape(words, quote=True)}"><circle class="{classes}" cx="{_n(x)}" '
        f'cy="{_n(y)}" r="4"/></a>'
    )


def _galactic_plane() -> str:
    """Path of the Galactic plane, broken where it leaves the map at one side."""
    from astropy.coordinates import SkyCoord

    plane = SkyCoord(l=np.linspace(0, 360, 181), b=np.zeros(181), unit="deg", frame="galactic").icrs
    order = np.argsort(plane.ra.deg)
    return _line(*mollweide(plane.ra.deg[order], plane.dec.deg[order]))
