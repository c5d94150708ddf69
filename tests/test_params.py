"""Parameters: the file says what the models say, and mistakes are named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from cmass.errors import ParameterError
from cmass.params import PROFILES, Params, load_params

FILE = Path(__file__).parents[1] / "params.yaml"
TEXT = FILE.read_text(encoding="utf-8")
VALUES = yaml.safe_load(TEXT)
SECTIONS = [
    name for name, field in Params.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
]  # fmt: skip


def leaves(model: type[BaseModel], prefix: str = "") -> dict[str, tuple[Any, str]]:
    """Default and description of every parameter by dotted name."""
    found: dict[str, tuple[Any, str]] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= leaves(kind, f"{prefix}{name}.")
        else:
            found[prefix + name] = (field.default, field.description or "")
    return found


def lines() -> dict[str, str]:
    """Comment of every name in params.yaml, by dotted name, above ``profiles``."""
    comments: dict[str, str] = {}
    stack: list[str] = []
    for line in TEXT.split("\nprofiles:")[0].splitlines():
        match = re.match(r"( *)(\w+):(.*)$", line)
        if match:
            depth = len(match[1]) // 2
            stack = [*stack[:depth], match[2]]
            comments[".".join(stack)] = match[3].partition("  # ")[2]
    return comments


def test_file_holds_every_default():
    given = {k: v for k, v in VALUES.items() if k != "profiles"}
    assert Params.model_validate(given) == Params()
    assert set(leaves(Params)) == {name for name in lines() if name in leaves(Params)}


@pytest.mark.parametrize("name", sorted(leaves(Params)))
def test_file_describes_every_parameter(name):
    assert lines()[name] == leaves(Params)[name][1]


def test_every_parameter_is_described():
    for name, (_, description) in leaves(Params).items():
        assert len(description) > 3, name


def test_every_section_is_described_in_the_file():
    comments = lines()
    for name in SECTIONS:
        words = (Params.model_fields[name].annotation.__doc__ or "").strip().splitlines()[0]
        assert comments[name] == words


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_are_valid_and_name_every_section(profile):
    assert load_params(FILE, profile).profile == profile
    # DVC depends on profiles.<profile>.<section> and stops at one that is not there
    assert set(VALUES["profiles"][profile]) == set(SECTIONS)


def test_standard_changes_nothing():
    assert load_params(FILE, "standard") == Params()


def test_paper_profile_has_sets_as_large_as_the_papers():
    """Kodi Ramanah+2020, sections 2 and 3; mocks and training as in `standard`, but more of them."""
    p = load_params(FILE, "paper")
    assert (p.split.train, p.split.test, p.split.evaluation) == (17_000, 20_000, 5_000)
    ours = Params().mock.haloes.model_dump()
    assert {k for k, v in p.mock.haloes.model_dump().items() if v != ours[k]} == {"n_windows"}
    assert (p.voxels.kappa, p.voxels.n) == (0.175, 50)
    ours = Params().train.model_dump()
    assert {k for k, v in p.train.model_dump().items() if v != ours[k]} == {"epochs", "tries"}
    assert (p.window.v_max_km_s, p.window.half_width_mpc_h) == (2200, 4)


def test_a_profile_overrides_single_values_only():
    smoke = load_params(FILE, "smoke")
    assert smoke.voxels.clusters_per_shard != Params().voxels.clusters_per_shard
    assert smoke.voxels.kappa == Params().voxels.kappa


def test_overrides_win_and_none_means_not_given():
    p = load_params(FILE, "smoke", survey="sdss", mirror=None, seed=5)
    assert (p.survey, p.mirror, p.seed) == ("sdss", None, 5)


@pytest.mark.parametrize("place", ["tcp://10.0.0.1:8786", "tls://dask:8786", "/shared/dask.json"])
def test_a_scheduler_is_an_address_or_a_file(place):
    assert Params(scheduler=place).scheduler == place
    assert Params().scheduler is None


def test_the_built_in_file_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_params() == Params()
    (tmp_path / "params.yaml").write_text("seed: 9")
    assert load_params().seed == 9


# ------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("voxels: {kapa: 1}", r"voxels\.kapa: no such parameter; did you mean 'kappa'"),
        ("voxel: {kappa: 1}", r"voxel: no such parameter; did you mean 'voxels'"),
        ("mock: {haloes: {n_window: 9}}", r"mock\.haloes\.n_window: .* 'n_windows'"),
        ("voxels: {kappa: -1}", r"voxels\.kappa: .*greater than 0.*\(value -1\)"),
        ("voxels: {kappa: wide}", r"voxels\.kappa: .*number.*'wide'"),
        ("survey: sdsss", r"survey: .*'embedded' or 'sdss'"),
        (
            "split: {train: 12000}",
            "split asks for 19900 windows, mock.haloes.n_windows makes 13200",
        ),
        ("a: [1", "not readable as YAML"),
        ("[1, 2]", "names and values"),
        ("profile: huge", "no profile 'huge'; choose from smoke, standard, paper"),
        ("seed: -1", "seed: "),
        ("scheduler: login01:8786", r"scheduler: expected tcp://host:port.*'login01:8786'"),
        ("scheduler: tcp://login01", r"scheduler: expected tcp://host:port"),
        ("scheduler: http://h:1/s.json", r"scheduler: expected tcp://host:port"),
        ("train: {epochs: 1.5}", r"train\.epochs: .*integer"),
        ("voxels: {kappa: .nan}", r"voxels\.kappa: "),
    ],
)
def test_mistakes_are_named(tmp_path, text, words):
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(ParameterError, match=words) as caught:
        load_params(file)
    assert str(file) in str(caught.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(ParameterError, match="no such file"):
        load_params(tmp_path / "nowhere.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ParameterError, match="not readable"):
        load_params(tmp_path / "b.yaml")


def test_an_empty_file_means_defaults(tmp_path):
    (tmp_path / "p.yaml").write_text("")
    assert load_params(tmp_path / "p.yaml") == Params()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  smoke:", "  smokee:", "no profile 'smokee'"),
        (
            "    split: {train: 17000",
            "    splitt: {train: 17000",
            "profile paper: splitt.*did you mean 'split'",
        ),
        ("    split: {train: 17000", "    split: {trainn: 17000", "profile paper: split.trainn"),
        (
            "environment.neighbour_bias: 0.1",
            "environment.bias: 0.4",
            "nuisance.environment.bias: no such",
        ),
        ("environment.neighbour_bias: 0.1", "environment.neighbour_bias: 1.4", "reaches -0.4"),
        ("log10_m200c_min: 13.5 ", "log10_m200c_min: 15.5 ", "must be smaller than"),
    ],
)
def test_slips_in_any_profile_are_found_before_it_is_run(tmp_path, old, new, words):
    assert old in TEXT
    file = tmp_path / "params.yaml"
    file.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(ParameterError, match=words):
        load_params(file, "standard")


def test_a_name_that_stands_twice_is_refused(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("mock: {source: embedded}\nseed: 3\nmock: {source: authors}\n")
    with pytest.raises(ParameterError, match="'mock' stands twice"):
        load_params(file)


def test_a_profile_without_values_is_refused(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("seed: 3\n")
    assert load_params(file).seed == 3
    with pytest.raises(ParameterError, match="no values for the profile 'smoke'"):
        load_params(file, "smoke")


_BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (_BOMB + "mirror: *a9\n", "more than 100000 values"), ("seed: 2024-99-99", "month must be"),
        ("? [a]\n: b", "unhashable"), ("seed: " + "9" * 5000, "digits"),
        ("profiles: {standard: 5}", "expected blocks"), ("profiles: [1]", "expected blocks"),
        ("seed: !!python/object/apply:os.system ['id']", "constructor"),
        ("seed: &a [*a]", "valid integer"), ("[" * 5000, "recursion"),
    ],
)  # fmt: skip
def test_yaml_that_is_hostile(tmp_path, text, words):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParameterError, match=words):
        load_params(tmp_path / "params.yaml")
