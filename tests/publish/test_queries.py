"""docs/queries.md: every query there is asked of a release, and its numbers are computed again."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.cosmology import FlatLambdaCDM
from scipy import stats

from cmass import formats
from cmass.columns import FLAGS, TABLES
from cmass.publish.release import RELEASE_TABLES
from cmass.publish.sql import query
from cmass.tables import read_json
from cmass.workspace import Workspace

DOCUMENT = Path(__file__).parents[2] / "docs" / "queries.md"


class Question(NamedTuple):
    """One section of the document."""

    title: str
    sql: str
    columns: list[str]
    csv: str | None


def _questions() -> list[Question]:
    text = DOCUMENT.read_text(encoding="utf-8")
    found = []
    for title, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL):
        statements = re.findall(r"```sql\n(.*?)```", body, re.DOTALL)
        assert len(statements) == 1, f"{title}: one statement a section"
        gives = re.search(r"^Gives ((?:`\w+`(?:, )?)+)", body, re.MULTILINE)
        assert gives is not None, f"{title}: a line that begins with Gives, and the columns"
        csv = re.search(r"```csv\n(.*?)```", body, re.DOTALL)
        found.append(
            Question(
                title, statements[0], re.findall(r"`(\w+)`", gives[1]), csv[1] if csv else None
            )
        )
    return found


QUESTIONS = _questions()


class Release(NamedTuple):
    """Tables of the release as pandas reads them from Parquet, and its folder."""

    folder: Path
    masses: pd.DataFrame
    clusters: pd.DataFrame
    galaxies: pd.DataFrame
    grid: pd.DataFrame

    @property
    def posteriors(self) -> np.ndarray:
        """Of the clusters that have one, each of sum one."""
        rows = [p for p in self.masses["posterior"] if len(p)]
        return np.array([np.asarray(p, float) / np.sum(p, dtype=float) for p in rows])

    @property
    def with_posterior(self) -> pd.DataFrame:
        return self.masses[[len(p) > 0 for p in self.masses["posterior"]]].reset_index(drop=True)

    @property
    def edges(self) -> np.ndarray:
        return np.append(self.grid["log10_m200c_low"], self.grid["log10_m200c_high"].iloc[-1])

    def above(self, log10_m: float) -> np.ndarray:
        """Probability of each posterior above a mass."""
        cumulative = np.pad(np.cumsum(self.posteriors, axis=1), ((0, 0), (1, 0)))
        return np.array([1 - np.interp(log10_m, self.edges, c) for c in cumulative])

    @property
    def volume(self) -> float:
        """Of an octant out to 250 Mpc/h, h⁻³ Mpc³."""
        return 4 * np.pi / 8 * 250**3 / 3

    @property
    def richest(self) -> str:
        ordered = self.masses.sort_values(["n_galaxies", "cluster_id"], ascending=[False, True])
        return str(ordered["cluster_id"].iloc[0])


@pytest.fixture(scope="module")
def release(released: Workspace) -> Release:
    folder = released.releases / "latest"
    names = ("masses", "clusters", "galaxies", "posterior_grid")
    return Release(folder, *(pq.read_table(folder / f"{n}.parquet").to_pandas() for n in names))


def _ask(question: Question, folder: Path, place: Path) -> pd.DataFrame:
    tables = {}
    if question.csv is not None:
        (place / "mine.csv").write_text(question.csv, encoding="utf-8")
        tables["mine"] = formats.read(place / "mine.csv")
    answer = query(folder, question.sql, tables=tables)
    assert answer.column_names == question.columns, question.title
    return answer.to_pandas()


def test_there_are_enough_and_none_twice() -> None:
    titles = [q.title for q in QUESTIONS]
    assert len(titles) == len(set(titles)) >= 18
    assert set(REFERENCES) <= set(titles)
    assert len(REFERENCES) >= 10


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: q.title)
def test_the_query_of(question: Question, release: Release, tmp_path: Path) -> None:
    answer = _ask(question, release.folder, tmp_path)
    assert len(answer) > 0, question.title
    assert not answer.isna().all(axis=None), question.title
    if question.title in REFERENCES:
        REFERENCES[question.title](answer, release)


def _separations(release: Release) -> SkyCoord:
    return SkyCoord(release.masses["ra"], release.masses["dec"], unit="deg")


def _near(answer: pd.DataFrame, release: Release) -> None:
    separation = _separations(release).separation(SkyCoord(195, 28, unit="deg")).deg
    order = np.argsort(separation)[:5]
    assert answer["cluster_id"].tolist() == release.masses["cluster_id"].iloc[order].tolist()
    np.testing.assert_allclose(answer["separation_deg"], separation[order], atol=1e-7)


def _most_massive(answer: pd.DataFrame, release: Release) -> None:
    near = release.masses[release.masses["z"] < 0.06].dropna(subset="log10_m200c_p50")
    expected = near.sort_values("log10_m200c_p50", ascending=False)["cluster_id"].head(10)
    assert answer["cluster_id"].tolist() == expected.tolist()


def _density(answer: pd.DataFrame, release: Release) -> None:
    p = release.above(14.3)
    assert 5 < p.sum() < 35
    expected = [p.sum(), *(x / release.volume for x in
                           (p.sum(), np.sqrt((p * (1 - p)).sum()), np.sqrt(p.sum())))]  # fmt: skip
    # the octant's area is noted with five digits
    np.testing.assert_allclose(answer.iloc[0].astype(float), expected, rtol=2e-5)
    # the error of the posteriors is what draws from them scatter by
    draws = np.random.default_rng(1).random((20_000, p.size)) < p
    assert answer["error_posteriors"][0] == pytest.approx(
        draws.sum(axis=1).std() / release.volume, rel=0.03
    )


def _pulls(answer: pd.DataFrame, release: Release) -> None:
    both = release.masses.merge(
        release.clusters.drop(columns=["ra", "dec", "z", "n_galaxies", "flag"]), on="cluster_id"
    )
    difference = both["log10_m200c_p50"] - both["log10_m200_galweight"]
    own = np.where(difference > 0, both["sigma_minus"], both["sigma_plus"])
    pull = difference / np.hypot(own, both["log10_m200_galweight_err"])
    expected = both["cluster_id"][abs(pull) > 2]
    assert set(answer["cluster_id"]) == set(expected)
    np.testing.assert_allclose(
        answer["pull"], sorted(pull[abs(pull) > 2], key=abs, reverse=True), rtol=1e-9
    )


def _phase_space(answer: pd.DataFrame, release: Release) -> None:
    cosmology = FlatLambdaCDM(H0=100, Om0=0.307115, Tcmb0=0)
    chosen = release.masses[release.masses["log10_m200c_p50"].between(14, 14.6)]
    density = cosmology.critical_density(chosen["z"].to_numpy()).to(units.Msun / units.Mpc**3).value
    r200 = np.cbrt(3 * 10 ** chosen["log10_m200c_p50"].to_numpy() / (800 * np.pi * density))
    table = release.galaxies.merge(
        chosen.assign(r200=r200)[["cluster_id", "r200"]], on="cluster_id"
    )
    ratio = np.hypot(table["x_proj"], table["y_proj"]) / table["r200"]
    counts, *_ = np.histogram2d(
        ratio, table["v_los"], bins=[np.arange(0, 3.01, 0.5), np.arange(-2000, 2001, 500)]
    )
    assert counts.sum() > 300
    found = np.zeros_like(counts)
    rows = (answer["r_over_r200_low"] / 0.5).astype(int)
    columns = ((answer["v_low_km_s"] + 2000) / 500).astype(int)
    found[rows, columns] = answer["galaxies_per_cluster"]
    np.testing.assert_allclose(found, counts / len(chosen), atol=1e-12)


def _mass_function(answer: pd.DataFrame, release: Release) -> None:
    low = np.floor(5 * release.grid["log10_m200c_centre"]) / 5
    total = pd.Series(release.posteriors.sum(axis=0)).groupby(low.to_numpy()).sum()
    np.testing.assert_allclose(answer["log10_m200c_low"], total.index)
    np.testing.assert_allclose(
        answer["density_h3_mpc3_dex"], total / 0.2 / release.volume, rtol=2e-5, atol=1e-15
    )
    assert answer["density_h3_mpc3_dex"].sum() * 0.2 * release.volume == pytest.approx(
        len(release.posteriors), rel=1e-4
    )


def _own(answer: pd.DataFrame, release: Release) -> None:
    # The fixture's clusters are not on the real sky: no partner there, and a row for each all the same.
    assert answer["name"].tolist() == ["Coma", "nowhere"]
    assert answer["cluster_id"].isna().all()


def _warnings(answer: pd.DataFrame, release: Release) -> None:
    assert answer["value"].tolist() == [flag.value for flag in FLAGS.values()]
    flags = release.masses["flag"].to_numpy()
    names = [flag.name.replace("_", " ") for flag in FLAGS.values()]
    assert answer["warning"].tolist() == names
    for bit, clusters in enumerate(answer["clusters"]):
        assert clusters == sum(int(f) >> bit & 1 for f in flags)
    assert answer["clusters"].sum() > 0


def _curve(answer: pd.DataFrame, release: Release) -> None:
    grid = release.grid
    width = grid["log10_m200c_high"] - grid["log10_m200c_low"]
    have = release.with_posterior.sort_values(
        ["n_galaxies", "cluster_id"], ascending=[False, True]
    ).iloc[0]
    p = np.asarray(have["posterior"], float)
    for name, weight in (("flat", 1.0), ("hmf", grid["prior_hmf"] / grid["prior_flat"])):
        expected = p * weight / (p * weight).sum() / width
        np.testing.assert_allclose(answer[f"density_{name}_per_dex"], expected, rtol=1e-6)


def _quantiles(answer: pd.DataFrame, release: Release) -> None:
    posteriors = dict(zip(release.with_posterior["cluster_id"], release.posteriors, strict=True))
    for row in answer.itertuples():
        cumulative = np.concatenate([[0], np.cumsum(posteriors[row.cluster_id])])
        for q, found in ((0.025, row.p2_5), (0.5, row.p50), (0.975, row.p97_5)):
            assert np.interp(found, release.edges, cumulative) == pytest.approx(q, abs=1e-6)


def _surely(answer: pd.DataFrame, release: Release) -> None:
    p = release.above(14.2)
    expected = set(release.with_posterior["cluster_id"][p > 0.9])
    assert set(answer["cluster_id"]) == expected
    assert expected


def _pairs(answer: pd.DataFrame, release: Release) -> None:
    table, sky = (
        release.clusters,
        SkyCoord(release.clusters["ra"], release.clusters["dec"], unit="deg"),
    )
    found = set()
    for i in range(len(table)):
        for j in range(i + 1, len(table)):
            z = table["z"].iloc[[i, j]].to_numpy()
            distance = table["distance_mpc_h"].iloc[[i, j]].sum() / (2 + z.sum())
            v = 299792.458 * abs(z[0] - z[1]) / (1 + z.mean())
            if sky[i].separation(sky[j]).rad * distance < 5 and v < 1500:
                found.add(tuple(sorted(table["cluster_id"].iloc[[i, j]])))
    assert set(zip(answer["cluster_a"], answer["cluster_b"], strict=True)) == found
    assert found


def _members(answer: pd.DataFrame, release: Release) -> None:
    mine = release.galaxies[release.galaxies["cluster_id"] == release.richest]
    radius = np.hypot(mine["x_proj"], mine["y_proj"])
    expected = mine[(radius < 1) & (abs(mine["v_los"]) < 1000)]
    assert sorted(answer["galaxy_id"]) == sorted(expected["galaxy_id"])


def _dispersions(answer: pd.DataFrame, release: Release) -> None:
    near = release.galaxies[np.hypot(release.galaxies["x_proj"], release.galaxies["y_proj"]) < 1]
    expected = {
        name: (len(v), 1.4826 * stats.median_abs_deviation(v))
        for name, v in near.groupby("cluster_id")["v_los"] if len(v) >= 2
    }  # fmt: skip
    assert len(expected) > 10
    found = {
        r.cluster_id: (r.n, pytest.approx(r.sigma_km_s, rel=1e-9)) for r in answer.itertuples()
    }
    assert expected == found


def _richness(answer: pd.DataFrame, release: Release) -> None:
    table = release.masses.dropna(subset="log10_m200c")
    for row in answer.itertuples():
        inside = table[np.floor(table["z"] / 0.02) * 0.02 == row.z_low]
        assert row.clusters == len(inside)
        if np.ptp(inside["n_galaxies"]) > 0:
            fit = stats.linregress(np.log10(inside["n_galaxies"]), inside["log10_m200c"])
            assert row.slope == pytest.approx(fit.slope)
            assert row.correlation == pytest.approx(fit.rvalue)


def _priors(answer: pd.DataFrame, release: Release) -> None:
    known = release.masses.dropna(subset="log10_m200c_p50")
    assert answer["clusters"].sum() == len(known)
    shift = (known["log10_m200c_hmf_p50"] - known["log10_m200c_p50"]).mean()
    assert np.average(answer["shift_dex"], weights=answer["clusters"]) == pytest.approx(shift)


def _stacks(answer: pd.DataFrame, release: Release) -> None:
    table, width = release.with_posterior, np.diff(release.edges)
    near = (table["z"] < release.masses["z"].median()).to_numpy()
    for half, chosen in (("near", near), ("far", ~near)):
        found = answer[answer["half"] == half]["density_per_dex"].to_numpy()
        np.testing.assert_allclose(
            found, release.posteriors[chosen].mean(axis=0) / width, rtol=1e-5, atol=1e-12
        )


def _completeness(answer: pd.DataFrame, release: Release) -> None:
    distance = release.clusters.set_index("cluster_id")["distance_mpc_h"]
    shell = np.minimum(3, np.floor(4 * (distance[release.with_posterior["cluster_id"]] / 250) ** 3))
    expected = pd.Series(release.above(14.2)).groupby(shell.to_numpy()).sum()
    known = answer.set_index("shell")["n_above"]
    np.testing.assert_allclose(known[expected.index.astype(int)], expected, rtol=1e-6)


def _provenance(answer: pd.DataFrame, release: Release) -> None:
    facts = read_json(release.folder / "provenance.json")
    said = {(r.item, r.property): r.text for r in answer.itertuples()}
    assert said["model", "n_weights"] == str(facts["model"]["n_weights"])
    assert said["release", "survey"] == facts["release"]["survey"]
    assert any(name.endswith("citation") for item, name in said if item == "sources")


def _comments(answer: pd.DataFrame, release: Release) -> None:
    assert len(answer) == sum(len(TABLES[name].columns) for name in RELEASE_TABLES)
    for row in answer.itertuples():
        assert row.comment.startswith(TABLES[row.table_name][row.column_name].description[:20])


REFERENCES: dict[str, Callable[[pd.DataFrame, Release], None]] = {
    "Masses near a position": _near,
    "The most massive within a redshift": _most_massive,
    "Number density above a mass, with its error": _density,
    "Clusters whose mass differs from GalWeight's by two sigma": _pulls,
    "Stacked phase space": _phase_space,
    "The mass function": _mass_function,
    "Your own table beside the masses": _own,
    "Warnings in words": _warnings,
    "The posterior as a curve": _curve,
    "Quantiles of a posterior": _quantiles,
    "Clusters that are surely massive": _surely,
    "Pairs of neighbouring clusters": _pairs,
    "The galaxies of a cluster": _members,
    "Velocity dispersions": _dispersions,
    "Mass against richness": _richness,
    "The two priors compared": _priors,
    "Stacked posteriors": _stacks,
    "Completeness by redshift": _completeness,
    "Which model made this, from which data": _provenance,
    "What a column means": _comments,
}


def test_your_own_clusters_are_matched(release: Release, tmp_path: Path) -> None:
    """The document's cross-match, with a table of clusters that are there."""
    question = next(q for q in QUESTIONS if q.csv is not None)
    some = release.masses.iloc[[7, 3]]
    rows = [f"mine-{r.cluster_id},{r.ra + 0.01},{r.dec - 0.01},{r.z + 0.001},14.0"
            for r in some.itertuples()]  # fmt: skip
    header = (question.csv or "").splitlines()[0]
    answer = _ask(question._replace(csv="\n".join([header, *rows])), release.folder, tmp_path)
    assert answer["name"].str.removeprefix("mine-").tolist() == answer["cluster_id"].tolist()
    sky = SkyCoord(some["ra"], some["dec"], unit="deg")
    apart = sky.separation(SkyCoord(some["ra"] + 0.01, some["dec"] - 0.01, unit="deg")).deg
    np.testing.assert_allclose(sorted(answer["separation_deg"]), sorted(apart), rtol=1e-6)
    far = [f"far,{some['ra'].iloc[0]},{some['dec'].iloc[0]},{some['z'].iloc[0] + 0.01},14.0"]
    answer = _ask(question._replace(csv="\n".join([header, *far])), release.folder, tmp_path)
    assert answer["cluster_id"].isna().all()


def test_they_run_in_anyones_duckdb(release: Release, tmp_path: Path) -> None:
    """Nothing in the document needs the door of cmass."""
    copy = tmp_path / "cmass.duckdb"
    shutil.copyfile(release.folder / "cmass.duckdb", copy)
    with duckdb.connect(str(copy), read_only=True) as connection:
        for question in QUESTIONS:
            if question.csv is None:
                rows = connection.cursor().execute(question.sql).fetchall()
                assert len(rows) == len(query(release.folder, question.sql)), question.title
