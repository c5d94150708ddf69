"""`cmass.estimate`: anyone's tables to masses, good rows and bad ones."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from astropy import units
from astropy.table import Table, vstack

import cmass
from cmass import estimation, formats, pipeline
from cmass.columns import FLAGS, TABLES
from cmass.cosmology import SPEED_OF_LIGHT_KM_S, q0_angular_distance_mpc_h
from cmass.errors import InputError, WorkspaceError
from cmass.pretrained import bundle_of_release, from_workspace, load_bundle, make_bundle
from cmass.promotion import bundle
from cmass.tables import write_json
from cmass.workspace import Workspace
from tests.tiny import window


def sky(n=6, seed=3):
    """Clusters far apart and the galaxies of their windows, as a survey lists them."""
    rng = np.random.default_rng(seed)
    ra, dec = np.arange(n) * 40.0 + 0.5, np.linspace(-40, 40, n)
    z = rng.uniform(0.03, 0.07, n)
    parts = []
    for i in range(n):
        points, _ = window(14.4, rng)
        angle = np.degrees(points[:, :2] / q0_angular_distance_mpc_h(z[i], -0.55))
        parts.append(
            np.column_stack([
                (ra[i] + angle[:, 0] / np.cos(np.radians(dec[i]))) % 360,
                dec[i] + angle[:, 1],
                z[i] + (1 + z[i]) * points[:, 2] / SPEED_OF_LIGHT_KM_S,
            ])
        )  # fmt: skip
    galaxies = np.vstack(parts)
    galaxies = galaxies[rng.permutation(len(galaxies))]
    clusters = Table({"cluster_id": [f"c{i}" for i in range(n)], "ra": ra, "dec": dec, "z": z})
    return clusters, Table(galaxies, names=["ra", "dec", "z"])


def bits(masses, name):
    return [bool(int(f) & FLAGS[name].value) for f in masses["flag"]]


def test_good_clusters_get_masses_like_the_mocks(tiny_bundle):
    clusters, galaxies = sky()
    masses = cmass.estimate(clusters, galaxies, model=tiny_bundle, progress=False)
    assert isinstance(masses, Table)
    assert masses.colnames == TABLES["estimates"].names
    assert masses["cluster_id"].tolist() == clusters["cluster_id"].tolist()
    assert (masses["n_galaxies"] > 50).all()
    m = np.asarray(masses["log10_m200c"], float)
    assert np.isfinite(m).all()
    # Windows of 10^14.4: the tiny network scatters by 0.2 dex.
    assert abs(np.median(m) - 14.4) < 0.25
    assert str(masses["ra"].unit) == "deg"


def test_arrow_in_arrow_out_same_numbers(tiny_bundle):
    clusters, galaxies = sky()
    by_astropy = cmass.estimate(clusters, galaxies, model=tiny_bundle, progress=False)
    by_arrow = cmass.estimate(
        formats.from_astropy(clusters), formats.from_astropy(galaxies), model=tiny_bundle,
        progress=False,
    )  # fmt: skip
    assert isinstance(by_arrow, pa.Table)
    assert by_arrow.schema.field("log10_m200c").metadata[b"unit"] == b"log10(Msun/h)"
    np.testing.assert_array_equal(
        by_arrow["log10_m200c"].to_numpy(), np.asarray(by_astropy["log10_m200c"])
    )


def test_broken_rows_are_flagged_and_the_others_keep_their_masses(tiny_bundle, caplog):
    clusters, galaxies = sky()
    whole = cmass.estimate(clusters, galaxies, model=tiny_bundle, progress=False)
    broken = clusters.copy()
    for row in (
        ["nan", np.nan, 0.0, 0.05],
        ["ra361", 361.0, 0.0, 0.05],
        ["dec-91", 10.0, -91.0, 0.05],
        ["z0", 10.0, 0.0, 0.0],
        ["z-", 10.0, 0.0, -0.1],
        ["twice", 10.0, 0.0, 0.05],
        ["twice", 11.0, 0.0, 0.05],
        ["", 12.0, 0.0, 0.05],
        ["lonely", 100.0, 80.0, 0.05],
    ):
        broken.add_row(row)
    masses = cmass.estimate(broken, galaxies, model=tiny_bundle, progress=False)
    assert bits(masses, "bad_input") == [False] * 6 + [True] * 8 + [False]
    assert bits(masses, "too_few_galaxies")[14]
    assert masses["log10_m200c"].mask.tolist() == [False] * 6 + [True] * 9
    np.testing.assert_allclose(
        np.asarray(masses["log10_m200c"][:6]), np.asarray(whole["log10_m200c"]), atol=1e-6
    )
    assert masses["ra"][7] == 361.0  # the row is shown as it was given
    reasons = (
        "ra is missing", "ra is 361, which is impossible", "dec is -91, which is impossible",
        "z is 0, which is impossible", "z is -0.1, which is impossible",
        "cluster_id twice stands in 2 rows", "cluster_id twice stands in 2 rows", "cluster_id is missing",
    )  # fmt: skip
    assert masses["remark"].tolist()[6:14] == list(reasons)
    for row, words in enumerate(reasons, start=7):
        assert f"cluster in row {row} " in caplog.text and words in caplog.text
    assert "fewer than 4 galaxies" in masses["remark"][14]


def test_bad_galaxies_are_left_out_and_said_so(tiny_bundle, caplog):
    clusters, galaxies = sky()
    whole = cmass.estimate(clusters, galaxies, model=tiny_bundle, progress=False)
    dirty = galaxies.copy()
    dirty.add_row([np.nan, 0.0, 0.05])
    dirty.add_row([clusters["ra"][0], clusters["dec"][0], np.nan])
    dirty.add_row([400.0, 0.0, 0.05])
    masses = cmass.estimate(clusters, dirty, model=tiny_bundle, progress=False)
    np.testing.assert_array_equal(masses["n_galaxies"], whole["n_galaxies"])
    assert f"3 of {len(dirty)} galaxies left out" in caplog.text


def test_what_looks_wrong_as_a_whole_is_warned_of(tiny_bundle, caplog):
    clusters, galaxies = sky()
    cmass.estimate(clusters, galaxies, model=tiny_bundle, progress=False)
    assert "have the ra, dec and z of another" not in caplog.text
    assert "no cluster has a mass" not in caplog.text
    twice = vstack([galaxies, galaxies[:7]])
    cmass.estimate(clusters, twice, model=tiny_bundle, progress=False)
    assert "7 galaxies have the ra, dec and z of another" in caplog.text
    in_km_s = clusters.copy()
    in_km_s["z"] = in_km_s["z"] * 299792.458
    with pytest.raises(
        InputError, match=r"no cluster can be used: z is .*row 1.*clusters.z=z\[km/s\]"
    ):
        cmass.estimate(in_km_s, galaxies, model=tiny_bundle, progress=False)


def test_galaxies_on_one_spot_are_degenerate(tiny_bundle):
    clusters, _ = sky(1)
    spot = Table({"ra": [0.6] * 9, "dec": [-40.0] * 9, "z": [float(clusters["z"][0])] * 9})
    masses = cmass.estimate(clusters, spot, model=tiny_bundle, progress=False)
    assert bits(masses, "degenerate") == [True]


def test_no_clusters_and_no_galaxies_are_no_crash(tiny_bundle):
    clusters, galaxies = sky(2)
    assert len(cmass.estimate(clusters[:0], galaxies, model=tiny_bundle, progress=False)) == 0
    masses = cmass.estimate(clusters, galaxies[:0], model=tiny_bundle, progress=False)
    assert bits(masses, "too_few_galaxies") == [True, True]


def test_integer_identifiers_become_text(tiny_bundle):
    clusters, galaxies = sky(2)
    clusters["cluster_id"] = [7, 8]
    masses = cmass.estimate(clusters, galaxies, model=tiny_bundle, progress=False)
    assert masses["cluster_id"].tolist() == ["7", "8"]


def test_what_cannot_be_used_at_all_is_an_error(tiny_bundle):
    clusters, galaxies = sky(1)
    with pytest.raises(InputError, match="clusters has no column that can be z"):
        cmass.estimate(clusters["cluster_id", "ra", "dec"], galaxies, model=tiny_bundle)
    with pytest.raises(InputError, match="galaxies has no column that can be ra"):
        cmass.estimate(clusters, galaxies["dec", "z"], model=tiny_bundle)
    words = clusters.copy()
    words["ra"] = ["Virgo"]
    with pytest.raises(InputError, match="ra of the clusters holds text that is no number.*Virgo"):
        cmass.estimate(words, galaxies, model=tiny_bundle)


def test_other_names_and_units_give_the_same_masses(tiny_bundle, caplog):
    caplog.set_level("INFO")
    clusters, galaxies = sky(3)
    expected = cmass.estimate(clusters, galaxies, model=tiny_bundle, progress=False)
    others = Table({
        "Name": clusters["cluster_id"], "RAJ2000": clusters["ra"] / 15 * units.hourangle,
        "DEJ2000": np.radians(clusters["dec"]) * units.rad, "cz": clusters["z"] * SPEED_OF_LIGHT_KM_S,
    })  # fmt: skip
    masses = cmass.estimate(others, galaxies, model=tiny_bundle, progress=False)
    assert (
        "cluster_id is Name, ra is RAJ2000 [hourangle], dec is DEJ2000 [rad], z is cz [km/s]"
        in caplog.text
    )
    np.testing.assert_allclose(masses["log10_m200c"], expected["log10_m200c"], atol=1e-4)
    said = {"ra": "z", "z": "ra"}  # the wrong way round, as the user wants it
    swapped = clusters.copy()
    swapped["ra"], swapped["z"] = clusters["z"], clusters["ra"]
    masses = cmass.estimate(swapped, galaxies, columns=said, model=tiny_bundle, progress=False)
    np.testing.assert_allclose(masses["log10_m200c"], expected["log10_m200c"], atol=1e-6)


def test_recentred_clusters_have_their_masses_back(tiny_bundle):
    """Half a Mpc/h and 400 km/s off: the masses are those of the right centres, about."""
    observer = {"centre_kernel_mpc_h": 0.3, "centre_kernel_km_s": 700.0}
    bundle = load_bundle(tiny_bundle)
    bundle = replace(bundle, provenance={"params": {"mock": {"observer": observer}}})
    clusters, galaxies = sky(9)
    expected = cmass.estimate(clusters, galaxies, model=bundle, recentred=True, progress=False)
    off = clusters.copy()
    off["dec"] += np.degrees(0.5 / q0_angular_distance_mpc_h(clusters["z"], -0.55))
    off["z"] += 400 / SPEED_OF_LIGHT_KM_S
    found = cmass.estimate(off, galaxies, model=bundle, recentred=True, progress=False)
    kept = cmass.estimate(off, galaxies, model=bundle, progress=False)
    assert kept["centre_shift_mpc_h"].mask.all()
    assert 0.3 < np.median(found["centre_shift_mpc_h"]) < 0.7
    assert -500 < np.median(found["centre_shift_km_s"]) < -200
    error = [np.abs(np.asarray(m["log10_m200c"] - expected["log10_m200c"])) for m in (found, kept)]
    assert np.median(error[0]) < 0.3 * np.median(error[1])


#: Rows that cannot be used, and what is said of them; None is a missing value.
BROKEN = (
    ("no_ra", None, 0.0, 0.05, "ra is missing"),
    ("south", 10.0, -91.5, 0.05, "dec is -91.5, which is impossible"),
    ("fast", 10.0, 0.0, 15000.0, "z is 15000, which is impossible: a velocity in km/s?"),
    ("near", 10.0, 0.0, 0.0, "z is 0, which is impossible"),
    ("c0", 11.0, 0.0, 0.05, "cluster_id c0 stands in 2 rows"),
)


def test_files_of_every_format_give_the_same_masses_and_reasons(tmp_path, tiny_bundle):
    clusters, galaxies = (formats.from_astropy(t) for t in sky(4))
    broken = pa.table(
        {
            name: [row[k] for row in BROKEN]
            for k, name in enumerate(("cluster_id", "ra", "dec", "z"))
        }
    )
    both = pa.concat_tables([clusters.cast(broken.schema), broken])
    found = {}
    for suffix in (".parquet", ".csv", ".ecsv", ".fits", ".vot"):
        files = [tmp_path / f"{name}{suffix}" for name in ("c", "g", "m")]
        formats.write(files[0], both.rename_columns(["cluster_id", "RAJ2000", "dec", "z"]))
        formats.write(files[1], galaxies)
        estimation.estimate_files(*files, model=tiny_bundle)
        found[suffix] = formats.read(files[2])
    remarks = ["cluster_id c0 stands in 2 rows", "", "", "", *(row[-1] for row in BROKEN)]
    first = found[".parquet"]
    for suffix, masses in found.items():
        assert [x or "" for x in masses["remark"].to_pylist()] == remarks, suffix
        for name in first.column_names:
            if name not in ("remark", "posterior"):
                # Not-a-number and missing are one in some formats.
                values, wanted = (
                    [None if x != x else x for x in table[name].to_pylist()]
                    for table in (masses, first)
                )
                assert values == wanted, (suffix, name)
    assert first["log10_m200c"].null_count == 6
    alone = cmass.estimate(clusters, galaxies, model=tiny_bundle, progress=False)
    assert first["log10_m200c_p50"].to_pylist()[1:4] == alone["log10_m200c_p50"].to_pylist()[1:]


def test_unknown_output_and_column_fail_before_any_work(tmp_path, tiny_bundle):
    clusters, galaxies = sky(1)
    for name, table in (("c", clusters), ("g", galaxies)):
        formats.write(tmp_path / f"{name}.csv", formats.from_astropy(table))
    files = tmp_path / "c.csv", tmp_path / "g.csv"
    with pytest.raises(InputError, match="suffix"):
        estimation.estimate_files(*files, tmp_path / "m.doc", model=tiny_bundle)
    with pytest.raises(InputError, match="'RA2000'"):
        estimation.estimate_files(
            *files, tmp_path / "m.csv", columns={"ra": "RA2000"}, model=tiny_bundle
        )


def test_estimate_agrees_with_the_pipeline(tiny_run, tiny_bundle):
    """The same galaxies by files of a survey and by the bundle: one core, one answer."""
    from cmass.infer import Sample, masses_from_points

    points, _ = window(14.4, np.random.default_rng(9))
    one = np.array([0.0])
    sample = Sample(["a"], one, one, one + 0.05, np.zeros(1, np.int32), points,
                    np.array([0, len(points)]))  # fmt: skip
    a = masses_from_points(sample, from_workspace(*tiny_run), progress=False)
    b = masses_from_points(sample, load_bundle(tiny_bundle), progress=False)
    assert a.equals(b)


def test_bundle_is_checked_when_loaded(tiny_run, tmp_path):
    folder = tmp_path / "bundle"
    make_bundle(*tiny_run, folder, commit="0123abc")
    bundle = load_bundle(folder)
    assert bundle.provenance["commit"] == "0123abc"
    assert bundle.provenance["params"]["voxels"]["n"] == bundle.voxels.n
    pairs = (folder / "pairs.parquet").read_bytes()
    (folder / "pairs.parquet").write_bytes(pairs[:-10])
    with pytest.raises(InputError, match="not the one the model was made with"):
        load_bundle(folder)
    (folder / "pairs.parquet").unlink()
    with pytest.raises(WorkspaceError, match="incomplete"):
        load_bundle(folder)
    with pytest.raises(WorkspaceError, match="holds no model"):
        load_bundle(tmp_path)
    make_bundle(*tiny_run, folder)  # replaces the broken one
    (folder / "model.json").write_text("{}")
    with pytest.raises(InputError):
        load_bundle(folder)


def test_bundle_of_a_release_has_its_commit_parameters_and_figures(tiny_run, tmp_path):
    workspace, params = tiny_run
    with pytest.raises(WorkspaceError, match="finish a run first"):
        bundle_of_release(tmp_path, tmp_path / "bundle")
    own = Workspace(tmp_path, "standard", workspace.survey)
    shutil.copytree(workspace.home, own.home)
    params = params.model_copy(update={"profile": "standard"})
    for made in (own.raw, own.selected, own.figures, own.releases / "latest"):
        made.mkdir(parents=True, exist_ok=True)
        write_json(made / "made.json", {})
    bundle.stage(own, params, own.champion)
    champion = own.seen_as("champion")
    own.receipt.touch()
    facts = {
        "release": {"survey": own.survey},
        "parameters": params.model_dump(mode="json"),
        "software": {"git_commit": "0123abc", "git_state": "clean"},
    }
    write_json(own.releases / "latest" / "provenance.json", facts)
    for name in ("infer", "publish"):  # as if they had run: their stamps
        one, digests = pipeline.step(name), pipeline._Digests(own)
        found, left = digests.of(one.inputs(own)), digests.of(one.outputs(own))
        assert found and left
        pipeline._write_stamp(one, own, params, found, left)
    bundle_of_release(tmp_path, tmp_path / "bundle")
    found = load_bundle(tmp_path / "bundle").provenance
    assert found["commit"] == "0123abc (clean)"
    assert found["params"]["voxels"]["n"] == params.voxels.n
    assert found["figures"]["mocks"]["epsilon_scatter"] > 0
    assert found["figures"]["embedded"]["n_clusters"] > 0
    for step, file in (("publish", own.figures / "made.json"),
                       ("infer", champion.evaluation / "metrics.json")):  # fmt: skip
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(WorkspaceError, match=rf"{step}: .*{file.name}"):
            bundle_of_release(tmp_path, tmp_path / "bundle")
    facts["parameters"]["profile"] = "smoke"
    write_json(own.releases / "latest" / "provenance.json", facts)
    with pytest.raises(WorkspaceError, match="is of profile smoke"):
        bundle_of_release(tmp_path, tmp_path / "bundle")


def test_package_offers_estimate_and_voxels_without_loading_them():
    import subprocess
    import sys

    code = (
        "import sys, cmass; assert 'tensorflow' not in sys.modules and 'numpy' not in sys.modules;"
        "assert callable(cmass.estimate); assert callable(cmass.voxels.density_grid);"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_text_in_a_file_is_named_with_its_place(tmp_path, tiny_bundle):
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text("cluster_id,ra,dec,z\na,10,20,0.05\nb,11,21,0.06\n")
    bad.write_text("cluster_id,ra,dec,z\na,10,north,0.05\nb,11,south,0.06\nc,12,n/a,0.06\n")
    for clusters, galaxies, what in ((bad, good, "clusters"), (good, bad, "galaxies")):
        with pytest.raises(InputError, match=rf"dec of the {what} holds text that is no") as caught:
            estimation.estimate_files(clusters, galaxies, tmp_path / "out.csv", model=tiny_bundle)
        found = caught.value
        assert (found.file, found.column, found.row, found.value) == (bad, "dec", 1, "north")
    assert not (tmp_path / "out.csv").exists()


def test_one_word_among_numbers_costs_one_row(tmp_path, tiny_bundle):
    clusters, galaxies = sky(3)
    formats.write(tmp_path / "g.csv", formats.from_astropy(galaxies))
    formats.write(tmp_path / "c.csv", formats.from_astropy(clusters))
    lines = (tmp_path / "c.csv").read_text().splitlines()
    (tmp_path / "c.csv").write_text("\n".join([*lines, "d,unknown,20,0.05", ""]))
    masses = estimation.estimate_files(
        tmp_path / "c.csv", tmp_path / "g.csv", tmp_path / "m.csv", model=tiny_bundle
    )
    assert masses["log10_m200c"].null_count == 1
    assert masses["remark"][3].as_py() == "ra is 'unknown', which is no number"


def test_files_that_give_nothing_are_errors_and_inputs_are_safe(tmp_path, tiny_bundle):
    clusters, galaxies = tmp_path / "clusters.csv", tmp_path / "galaxies.csv"
    clusters.write_text("cluster_id,ra,dec,z\nA,10,20,0.05\n")
    galaxies.write_text("ra,dec,z\n10,20,15000\n10.1,20,15100\n")
    with pytest.raises(InputError, match="no galaxy can be used.*15000.*velocity"):
        estimation.estimate_files(clusters, galaxies, tmp_path / "out.csv", model=tiny_bundle)
    with pytest.raises(InputError, match="overwrite their own input"):
        estimation.estimate_files(clusters, galaxies, clusters, model=tiny_bundle)
    galaxies.write_text("ra,dec,z\n")
    with pytest.raises(InputError, match="no rows.*galaxies.csv"):
        estimation.estimate_files(clusters, galaxies, tmp_path / "out.csv", model=tiny_bundle)
    assert clusters.read_text().startswith("cluster_id")
    assert not (tmp_path / "out.csv").exists()


def test_masses_without_any_are_written_and_told(tmp_path, tiny_bundle):
    """A list far from the galaxies: every row keeps its reason, and the command fails."""
    clusters, galaxies = tmp_path / "clusters.csv", tmp_path / "galaxies.csv"
    clusters.write_text("cluster_id,ra,dec,z\nA,10,20,0.05\n")
    galaxies.write_text("ra,dec,z\n50,20,0.05\n50.1,20,0.05\n")
    out = tmp_path / "out.csv"
    with pytest.raises(InputError, match=r"no cluster has a mass.* 37\.\d deg away.*out.csv"):
        estimation.estimate_files(clusters, galaxies, out, model=tiny_bundle)
    assert "no galaxy at any redshift lies in the window" in formats.read(out)["remark"][0].as_py()


def test_what_is_said_of_one_table_is_not_taken_for_the_other(tmp_path, tiny_bundle):
    clusters, galaxies = sky(2)
    expected = cmass.estimate(clusters, galaxies, model=tiny_bundle, progress=False)
    swapped = Table(clusters, copy=True)
    swapped["ra"], swapped["dec"] = clusters["dec"], clusters["ra"]
    masses = cmass.estimate(
        swapped, galaxies, columns={"clusters.ra": "dec", "clusters.dec": "ra"}, model=tiny_bundle,
        progress=False,
    )  # fmt: skip
    assert masses["log10_m200c"].tolist() == expected["log10_m200c"].tolist()
