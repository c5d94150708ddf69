"""Step figures: every figure with its files, labels with units, tables, numbers; what is missing."""

from __future__ import annotations

import json
import logging
import struct

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

from cmass import figures
from cmass.columns import TABLES
from cmass.evaluate.realism.statistics import STATISTICS
from cmass.figures import external, mocks, oddity, posteriors, rivals
from cmass.figures.beyond import sources
from cmass.figures.house import SOURCES, Inputs, schema_of, source
from cmass.figures.style import DARK, PALETTE, UNITLESS, save
from cmass.params import Params
from cmass.rivals import scores as rival_scores
from cmass.study import STUDIES, open_study
from cmass.tables import check_table, file_digest, make_table, read_table, write_table
from cmass.workspace import Workspace
from tests.products import RIVALS

BY_NAME = {entry.name: entry for entry in figures.entries()}
#: Figures that steps of a run of the embedded survey make; studies are made by hand.
NAMES = [
    entry.name for entry in figures.entries("embedded")
    if not any(source(name).command.startswith("cmass study") for name in entry.sources)
]  # fmt: skip
#: Quantities of the statistics that have no unit, by the statistics' own declaration.
PLAIN = {s.coordinate for s in STATISTICS.values() if not s.coordinate_unit} | {
    s.value for s in STATISTICS.values() if not s.unit
}


def index(workspace: Workspace) -> dict:
    return json.loads((workspace.figures / "figures.json").read_text(encoding="utf-8"))


def unlabelled(figure: Figure) -> list[str]:
    """Axes of a figure whose label is missing or has no unit, in words."""
    found = []
    for axes in figure.axes:
        if not axes.axison:
            continue  # words in place of a drawing
        bar = axes.get_label() == "<colorbar>"
        for which in ("x", "y", "z"):
            if not hasattr(axes, f"get_{which}label"):
                continue
            label = getattr(axes, f"get_{which}label")()
            if bar and which == "x":
                continue
            if not label and which != "z":
                shared = getattr(axes, f"get_shared_{which}_axes")()
                label = next(
                    (words for other in shared.get_siblings(axes)
                     if (words := getattr(other, f"get_{which}label")())), "",
                )  # fmt: skip
            if "[" not in label and not label.startswith(UNITLESS) and label not in PLAIN:
                found.append(f"{which}: {label!r}")
    return found


def drawn(name: str, workspace: Workspace, params: Params) -> Figure:
    entry = BY_NAME[name]
    return entry.draw(entry.behind(Inputs(workspace, params)), params)


@pytest.mark.parametrize("name", NAMES)
def test_axes_carry_units_and_nothing_is_cut_off(
    released: Workspace, params: Params, name: str
) -> None:
    figure = drawn(name, released, params)
    assert unlabelled(figure) == []
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.01


def test_an_axis_without_a_unit_is_found() -> None:
    figure = Figure()
    axes = figure.add_subplot()
    axes.set(xlabel="Distance", ylabel="Mass [Msun]")
    assert unlabelled(figure) == ["x: 'Distance'"]


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_drawn_from_a_finished_run(tiny_run, name: str) -> None:
    _, params = tiny_run
    entry, inputs = BY_NAME[name], Inputs(*tiny_run)
    if inputs.lacking(entry.sources):
        assert inputs.lacking(entry.sources) == ["history"]  # the run in small trains nothing
        return
    tables = entry.behind(inputs)
    figure = entry.draw(tables, params)
    assert unlabelled(figure) == []
    assert len(entry.words(tables, params)) > 40
    for table in tables.values():
        check_table(table, TABLES[schema_of(table)])
        assert table.num_rows or schema_of(table) == "realism"


def test_every_figure_has_its_files(released: Workspace) -> None:
    told = index(released)
    assert [one["name"] for one in told["figures"]] == NAMES
    assert {one["name"] for one in told["missing"]} == {f"study_{name}" for name in STUDIES}
    for one in told["figures"]:
        pdf, png = (released.figures / f"{one['name']}.{kind}" for kind in ("pdf", "png"))
        assert one["files"] == [pdf.name, png.name]
        assert pdf.read_bytes().startswith(b"%PDF-")
        width, height = struct.unpack(">II", png.read_bytes()[16:24])
        assert 700 <= width <= 2000
        assert 400 <= height <= 1400
        assert one["tables"]
        for file, schema in one["tables"].items():
            assert read_table(released.figures / file, schema).num_rows > 0
        for file, digest in one["sha256"].items():
            assert file_digest(released.figures / file) == digest
        assert set(one["sha256"]) == {*one["files"], *one["tables"]}
    named = {file for one in told["figures"] for file in one["sha256"]} | {"figures.json"}
    assert {p.name for p in released.figures.iterdir()} == named


def test_all_figures_of_the_paper_stand_in_its_order() -> None:
    papers = [entry.paper for entry in figures.entries() if entry.paper]
    # Fig. 3 is a drawing of the network
    assert papers == [f"Fig. {n}" for n in ("1", "2", "4", "5", "6", "7", "8", "9", "10", "A1")]
    assert {
        "Fig. 1",
        "Fig. 2",
        "Fig. 4",
        "Fig. 5",
        "Fig. 6",
        "Fig. 7",
        "Fig. 10",
        "Fig. A1",
    } <= set(papers)


def test_a_table_that_exists_is_copied_as_it_is(released: Workspace) -> None:
    for name, one in SOURCES.items():
        file = released.figures / f"{name}.parquet"
        if file.exists():
            theirs = read_table(one.path(released), one.schema)
            assert read_table(file, one.schema).equals(theirs), name


@pytest.mark.parametrize("name", ["fig02_window", "fig05_predictions", "fig10_galweight", "sky",
                                  "realism_abundance"])  # fmt: skip
def test_the_same_tables_give_the_same_bytes(released, params, tmp_path, name: str) -> None:
    # made again, later: a date or a clock in a file would change it
    entry = BY_NAME[name]
    told = next(one for one in index(released)["figures"] if one["name"] == name)
    tables = {f.removesuffix(".parquet"): read_table(released.figures / f, s)
              for f, s in told["tables"].items()}  # fmt: skip
    for file in save(entry.draw(tables, params), tmp_path, name):
        assert file_digest(file) == told["sha256"][file.name], file.name
        assert b"Date" not in file.read_bytes()


def test_the_papers_numbers_stand_beside_ours(released: Workspace) -> None:
    told = {one["name"]: one["numbers"] for one in index(released)["figures"]}
    papers = {name: [n["paper"] for n in numbers] for name, numbers in told.items()}
    assert papers["fig05_predictions"] == [0.04, 0.16]
    assert papers["fig04_joint_density"] == [0.2, 20_000]
    assert papers["fig01_mass_distributions"] == [15_300, 1_700, 20_000, 5_000]
    assert papers["fig10_galweight"][:2] == [-0.02, 1.05]
    assert papers["figA1_mass_function"][:2] == [6670, 14.0]  # the fixture compares no clusters
    assert told["fig05_predictions"][1]["value"] == 0.158
    area = told["figA1_mass_function"][0]["value"]
    # an octant of the sky has 5157 deg²; one of its near clusters in 40 was not selected at most
    assert 0.8 * 5157 < area <= 5157


def test_captions_tell_no_typed_number_of_ours(released: Workspace, params: Params) -> None:
    captions = {one["name"]: one["caption"] for one in index(released)["figures"]}
    haloes = params.mock.haloes
    assert (
        f"flat from {haloes.log10_m200c_min:g} to {haloes.log10_m200c_max:g}"
        in captions["fig01_mass_distributions"]
    )
    own = pq.read_table(released.figures / "window_cluster.parquet").to_pylist()[0]
    assert f"Mock window {own['cluster_id']} of the evaluation set" in captions["fig02_window"]


# ------------------------------------------------------------------------------ what is missing


@pytest.fixture
def few(monkeypatch) -> list[str]:
    """Only three entries, one per stage of a run."""
    names = ["fig01_mass_distributions", "fig06_coverage", "figA1_mass_function"]
    some = tuple(BY_NAME[name] for name in names)
    monkeypatch.setattr(figures, "entries", lambda survey=None: some)
    return names


def test_what_is_not_there_is_named_with_the_command_that_makes_it(
    make_workspace, params, few, caplog
) -> None:
    workspace = make_workspace(n_clusters=5, n_mocks=60)
    (workspace.masses / "mass_function.parquet").unlink()
    old = workspace.figures / "figA1_mass_function.pdf"
    old.parent.mkdir(parents=True)
    old.write_text("of an earlier run")
    with caplog.at_level(logging.INFO, logger="cmass"):
        figures.run(workspace, params)
    told = index(workspace)
    assert [one["name"] for one in told["figures"]] == few[:2]
    assert not old.exists()
    assert told["missing"][0]["lacks"] == [
        {"file": "smoke/embedded/masses/mass_function.parquet", "command": "cmass infer"}
    ]
    words = (
        "Fig. A1 (Mass function) lacks smoke/embedded/masses/mass_function.parquet, which "
        "`cmass infer` makes"
    )
    assert figures.missing_words(workspace) == [words]
    assert figures.missing_words(workspace, "proof") == [words]
    assert figures.missing_words(workspace, "realism") == []
    assert words in caplog.text


def test_before_the_step_ran_there_is_nothing(make_workspace) -> None:
    workspace = make_workspace(n_clusters=3, n_mocks=40)
    assert list(figures.drawn(workspace)) == []
    assert figures.missing_words(workspace) == []


def test_every_source_names_a_command_and_a_table() -> None:
    from cmass.pipeline import STEPS

    commands = {f"cmass {one.name}" for one in STEPS} | {f"cmass study {n}" for n in STUDIES}
    everything = SOURCES | sources()
    assert len(everything) == len(SOURCES) + len(sources())  # no name stands for two tables
    for name, one in everything.items():
        assert one.command in commands, name
        assert one.schema in TABLES
    for entry in figures.entries():
        assert set(entry.sources) <= set(everything)
        assert entry.section in figures.SECTIONS
    assert len(BY_NAME) == len(figures.entries())


def test_the_dark_palette_has_every_colour() -> None:
    assert list(DARK) == list(PALETTE)
    assert len(set(PALETTE.values())) == len(PALETTE)  # the SVG's colours are found by their codes


# -------------------------------------------------------------------------------------- Fig. 1


def test_distributions_count_every_window_once() -> None:
    true = np.array([13.51, 13.59, 13.61, 14.05, 14.05])
    ids = list("abcde")
    clusters = pa.table({"cluster_id": ids, "log10_m200c_true": true})
    split = pa.table(
        {"cluster_id": ["e", "a", "b", "c"], "set": ["test", "train", "train", "train"]}
    )
    table = mocks.distributions(split, clusters, 0.1)
    train = table.filter(pc.equal(table["set"], "train"))
    assert dict(zip(train["log10_m200c_low"].to_numpy().round(1), train["n"].to_pylist(),
                    strict=True))[13.5] == 2  # fmt: skip
    assert pc.sum(table["n"]).as_py() == 4  # d belongs to no set


# -------------------------------------------------------------------------------------- Fig. 2


def test_the_window_shown_is_the_typical_one() -> None:
    n = 30
    clusters = pa.table({
        "cluster_id": [f"w{i:02d}" for i in range(n)],
        "log10_m200c_true": [14.5] * 21 + [13.8] * 9,
        "n_galaxies": [*range(100, 121), *range(9)],
    })  # fmt: skip
    assert mocks.representative(clusters, 14.5) == "w10"  # median of 100 … 120
    # too few are near: the ten nearest in mass, none of the nine light ones among them
    lonely = clusters.set_column(1, "log10_m200c_true", pa.array(np.linspace(14.0, 14.29, n)))
    assert mocks.representative(lonely, 14.5, within_dex=0.001) in {f"w{i}" for i in range(20, 30)}


def test_voxels_of_the_window_are_what_the_network_reads(released, params) -> None:
    from scipy.stats import gaussian_kde

    galaxies = pq.read_table(released.figures / "window_galaxies.parquet")
    voxels = read_table(released.figures / "window_voxels.parquet", "window_voxels")
    assert voxels.num_rows == params.voxels.n**3
    points = np.column_stack([galaxies[c].to_numpy() for c in ("x_proj", "y_proj", "v_los")]).T
    grid = np.column_stack([voxels[c].to_numpy() for c in ("x_proj", "y_proj", "v_los")])[::97].T
    expected = gaussian_kde(points, params.voxels.kappa).evaluate(grid)
    found = voxels["probability"].to_numpy()
    # the same density up to its norm; 1e-5 of the peak is what the voxels are held to
    ratio = found[::97].sum() / expected.sum()
    np.testing.assert_allclose(found[::97], ratio * expected, atol=2e-5 * found.max())
    assert found.sum(dtype=float) == pytest.approx(1, abs=1e-4)


# -------------------------------------------------------------------------------------- Fig. 5


def test_bands_are_means_over_the_windows_of_a_bin() -> None:
    true = np.array([14.01, 14.03, 14.12])
    predicted = np.array([14.2, 14.4, 14.1])
    levels = predicted[:, None] + np.array([-0.4, -0.2, 0, 0.2, 0.4])
    levels[2] = np.nan  # no posterior: not in the means
    table = posteriors.prediction_bands(true, predicted, levels, 0.1).to_pylist()
    assert [row["n"] for row in table] == [2, 0]
    assert table[0]["log10_m200c"] == pytest.approx(14.3)
    assert table[0]["log10_m200c_p16"] == pytest.approx(14.1)
    assert table[0]["log10_m200c_p97_5"] == pytest.approx(14.7)
    assert table[1]["log10_m200c"] is None


# -------------------------------------------------------------------------------------- Fig. 7


def contaminated(shift: float, n: int = 6000) -> pa.Table:
    """Mocks whose residual falls with mass, and by `shift` where a neighbour is near."""
    rng = np.random.default_rng(4)
    true = rng.uniform(13.5, 15, n)
    near = rng.uniform(size=n) < np.clip(15.2 - true, 0.05, 0.9)  # light ones most often
    distance = np.where(near, rng.uniform(1, 7, n), np.nan)
    reverted = 14.2 + 0.7 * (true - 14.2)
    predicted = reverted - np.where(near & (distance < 3), shift, 0) + rng.normal(0, 0.1, n)
    return make_table("contamination", {
        "cluster_id": [str(i) for i in range(n)], "halo_id": np.arange(n) // 2,
        "log10_m200c_true": true, "log10_m200c": predicted,
        "contaminant_mass_ratio": np.where(near, 2.0, np.nan), "contaminant_distance": distance,
    })  # fmt: skip


def test_mean_reversion_is_not_taken_for_contamination() -> None:
    rows = posteriors.contamination_bins(contaminated(0.0), Params()).to_pylist()
    for row in rows:
        if row["n"] > 100:
            # four errors, and 0.01 dex for lines between the means of bins of 0.2 dex
            assert abs(row["mean"]) < 4 * row["error"] + 0.01, row


def test_a_near_neighbour_is_found_at_its_distance() -> None:
    rows = posteriors.contamination_bins(contaminated(-0.25), Params()).to_pylist()
    by_distance = {r["coordinate_low"]: r for r in rows if r["statistic"] == "distance"}
    # the network overestimates by 0.25: the residual falls by as much
    assert by_distance[0.0]["mean"] == pytest.approx(-0.25, abs=0.02)
    assert by_distance[2.0]["mean"] == pytest.approx(-0.25, abs=0.02)
    assert by_distance[4.0]["mean"] == pytest.approx(0.0, abs=0.02)
    clean = next(r for r in rows if r["statistic"] == "clean")
    assert clean["mean"] == pytest.approx(0.0, abs=0.01)
    # of independent rows the bootstrap gives scatter over root n; 200 resamples know it to 5 %
    expected = by_distance[2.0]["scatter"] / np.sqrt(by_distance[2.0]["n"])
    assert by_distance[2.0]["error"] == pytest.approx(expected, rel=0.25)


def test_without_clean_windows_there_is_no_excess() -> None:
    table = contaminated(-0.2, 200)
    none = table.filter(pc.is_valid(table["contaminant_mass_ratio"]))
    assert np.isnan(posteriors.excess(none, 0.2)).all()
    rows = posteriors.contamination_bins(none, Params()).to_pylist()
    assert all(row["mean"] is None for row in rows)


# ------------------------------------------------------------------------------ Figs. 8 and 9


def test_errors_of_several_seeds_are_of_windows_and_seeds() -> None:
    value, error = rival_scores.over_seeds(
        np.array([0.2, 0.22, 0.24]), np.array([0.01, 0.01, 0.01])
    )
    assert value == pytest.approx(0.22)
    # three seeds scatter by 0.02: their mean is known to 0.02/sqrt(3); the windows are the same
    assert error == pytest.approx(np.hypot(0.01, 0.02 / np.sqrt(3)))
    assert rival_scores.over_seeds(np.array([0.2]), np.array([0.01])) == (0.2, 0.01)
    nothing = rival_scores.over_seeds(np.array([np.nan]), np.array([np.nan]))
    assert np.isnan(nothing[0])
    assert nothing[1] is None


def test_residuals_of_rivals_are_of_all_seeds_and_those_with_a_mass(released, params) -> None:
    inputs = Inputs(released, params)
    table = rivals.by_mass(inputs["rival_predictions"], 0.3).to_pandas()
    n = table.groupby("estimator")["n"].sum()
    assert n["cnn3d"] == 600
    assert n["dispersion"] == 598  # one window has none, for each of two seeds
    raw = inputs["rival_predictions"].to_pandas()
    own = raw[(raw.estimator == "cnn2d") & raw.log10_m200c_true.between(14.1, 14.4, "left")]
    row = table[(table.estimator == "cnn2d") & (table.log10_m200c_low.round(2) == 14.1)].iloc[0]
    epsilon = own.log10_m200c_true - own.log10_m200c
    assert row["scatter"] == pytest.approx(epsilon.std())
    assert row["n"] == len(own)


def test_scatter_laws_show_each_estimator_and_the_papers_point(released, params) -> None:
    scores = Inputs(released, params)["rival_scores"]
    axes = rivals.scatter_laws(scores).axes[0]
    _, labels = axes.get_legend_handles_labels()
    assert len(labels) == len(RIVALS) + 1
    star = next(line for line in axes.lines if line.get_marker() == "*")
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (0.08, 0.04)
    # the paper, section 4.4: 0.09 dex for masses from a dispersion
    levels = sorted(line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":")
    assert levels[1] == pytest.approx(0.09, abs=0.005)
    assert rival_scores.estimators_by_scatter(scores)[0] == "cnn3d"


def test_without_the_networks_figure_8_says_so() -> None:
    empty = TABLES["rival_residuals"].arrow_schema().empty_table()
    scores = TABLES["rival_scores"].arrow_schema().empty_table()
    for figure in (rivals.dimensions(empty, scores), rivals.scatter_laws(scores),
                   rivals.rivals_by_mass(empty, scores)):  # fmt: skip
        assert figure.axes[0].texts[0].get_text().endswith(".")


# ------------------------------------------------------------------------------ external truth


def xray(n: int = 20) -> pa.Table:
    """Matches of which each fourth has two candidates, and each fifth is refused."""
    rng = np.random.default_rng(5)
    mass = rng.uniform(13.9, 14.8, n)
    ours = mass + 0.1
    columns = {
        "cluster_id": [f"c{i}" for i in range(n)], "xray_name": [f"X{i}" for i in range(n)],
        "z": np.full(n, 0.05), "xray_z": np.full(n, 0.05), "separation_mpc_h": np.full(n, 0.1),
        "velocity_offset_km_s": np.zeros(n), "accepted": np.arange(n) % 5 > 0,
        "ambiguous": np.arange(n) % 4 == 0, "log10_m500c_xray": mass - 0.15,
        "log10_m200c_xray": mass, "log10_m200c_xray_err_lower": np.full(n, 0.05),
        "log10_m200c_xray_err_upper": np.full(n, 0.05),
        "log10_m200c_xray_conversion_err": np.full(n, 0.03), "log10_m200c": ours,
        "log10_m200c_p16": ours - 0.2, "log10_m200c_p50": ours, "log10_m200c_p84": ours + 0.2,
        "log10_m200c_hmf_p50": ours, "log10_m200c_dispersion": ours,
        "log10_m200_galweight": mass - 0.05, "log10_m200_galweight_err": np.full(n, 0.1),
        "flag": np.zeros(n, int),
    }  # fmt: skip
    return make_table("xray_matches", columns)


def test_masses_beside_xray_masses() -> None:
    figure = external.beside_xray(xray(), 14.3)
    assert unlabelled(figure) == []
    ours, galweight, both = figure.axes
    assert "median +0.10 dex, scatter 0.00" in ours.get_title()
    assert "median −0.05 dex" in galweight.get_title()
    # 16 of each difference, in the bins of 0.1 dex that hold +0.10 and -0.05
    heights = [[*patch.get_path().vertices[:, 1]] for patch in both.patches]
    assert [max(h) for h in heights] == [16, 16]
    drawn = {line.get_label(): len(line.get_xdata()) for line in ours.lines}
    assert drawn["two candidates"] == 4  # of five, one is refused
    assert max(drawn.values()) == 12  # 16 accepted, 4 of them unsure


def test_without_xray_masses_the_figure_says_so() -> None:
    table = xray().filter(pa.array([False] * 20))
    assert "nothing to compare" in external.beside_xray(table, 14.3).axes[0].texts[0].get_text()


def test_rates_of_the_flags() -> None:
    """A row that tells no rate is left out; the rates stand where they belong."""
    rates = make_table("oddity_rates", {
        "case": ["mocks", "no neighbour above 0.2 of the mass", "field alone", "too few"],
        "n": [500, 300, 100, 3], "unlike_mocks": [0.01, 0.01, 0.9, None],
        "unlike_mocks_error": [0.004, 0.006, 0.03, None],
        "two_clusters": [0.06, 0.012, 0.4, None],
        "two_clusters_error": [0.01, 0.006, 0.05, None],
    })  # fmt: skip
    figure = oddity.flag_rates(rates, 0.01)
    assert unlabelled(figure) == []
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()][-1] == "field alone (100)"
    unlike, two = (c.lines[0].get_xdata() for c in axes.containers)
    assert list(unlike) == [0.01, 0.01, 0.9] and list(two) == [0.06, 0.012, 0.4]
    entry = next(e for e in figures.entries() if e.name == "oddity_rates")
    assert [n.value for n in entry.numbers({"oddity_rates": rates}, Params())] == [0.01, 0.012]
    none = oddity.flag_rates(rates.slice(3), 0.01)
    assert "large enough" in none.axes[0].texts[0].get_text()


def test_xray_masses_are_for_real_skies() -> None:
    assert "xray_masses" in {e.name for e in figures.entries("sdss")}
    assert "xray_masses" not in {e.name for e in figures.entries("embedded")}


# --------------------------------------------------------------------------------- beyond


def test_a_study_that_was_made_is_drawn_and_wakes_the_step(
    make_workspace, params, few, monkeypatch
) -> None:
    from cmass.pipeline import _inputs, step

    workspace = make_workspace(n_clusters=5, n_mocks=60)
    monkeypatch.setattr(figures, "entries", lambda survey=None: (BY_NAME["study_fibres"],))
    figures.run(workspace, params)
    assert index(workspace)["missing"][0]["lacks"] == [
        {"file": "smoke/study/profile/fibres.parquet", "command": "cmass study fibres"}
    ]
    before = _inputs(step("figures"), workspace, params)
    table = TABLES["fibres"].arrow_schema().empty_table()
    file = workspace.study / "profile" / "fibres.parquet"
    write_table(file, table, "fibres")
    assert set(_inputs(step("figures"), workspace, params)) - set(before) == {file}


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_an_entry_with_its_tables(name: str) -> None:
    study = open_study(name)
    entry = BY_NAME[f"study_{name}"]
    assert entry.sources == study.products
    assert entry.section == "beyond"
    assert entry.words({}, Params()).startswith(study.caption)
