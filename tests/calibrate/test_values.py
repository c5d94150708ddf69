"""Values by dotted name: params.yaml keeps its comments, bad values are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cmass.calibrate.values import value_of, with_values, write_values
from cmass.errors import ParameterError
from cmass.params import Params, load_params

SHIPPED = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def file(tmp_path) -> Path:
    return Path(shutil.copy(SHIPPED, tmp_path / "params.yaml"))


def changed_lines(file: Path) -> list[tuple[str, str]]:
    old, new = SHIPPED.read_text().splitlines(), file.read_text().splitlines()
    assert len(old) == len(new)
    return [(a, b) for a, b in zip(old, new, strict=True) if a != b]


def test_writing_nothing_changes_no_byte(file):
    write_values(file, {})
    assert file.read_bytes() == SHIPPED.read_bytes()


def test_a_value_is_written_and_comments_stay(file):
    write_values(
        file, {"mock.galaxies.satellite_amplitude": 0.91234, "mock.members.velocity_bias": 1.1}
    )
    lines = changed_lines(file)
    assert len(lines) == 2
    for (old, new), value in zip(lines, ("0.91234", "1.1"), strict=True):
        name, _, comment = old.partition(":")
        assert new == f"{name}: {value}  #{comment.partition('#')[2]}"
    params = load_params(file)
    assert params.mock.galaxies.satellite_amplitude == 0.91234
    assert params.mock.members.velocity_bias == 1.1


def test_a_mapping_is_filled(file):
    before = load_params(SHIPPED).mock.nuisance
    write_values(
        file, {"mock.nuisance": {**before, "environment.neighbour_bias": 0.11, "members.velocity_bias": 0.02}}
    )  # fmt: skip
    expected = before | {"environment.neighbour_bias": 0.11, "members.velocity_bias": 0.02}
    assert load_params(file).mock.nuisance == expected
    assert "# half width of the range" in file.read_text()


@pytest.mark.parametrize("name", ["mock.galaxies.colour", "mock.planets.number", "colour"])
def test_unknown_names_are_refused_and_nothing_is_written(file, name):
    with pytest.raises(ParameterError):
        write_values(file, {"seed": 1, name: 2.0})
    assert file.read_bytes() == SHIPPED.read_bytes()


def test_values_change_in_memory_and_are_checked():
    params = with_values(Params(), {"mock.galaxies.completeness": 0.8, "population.n_windows": 30})
    assert value_of(params, "mock.galaxies.completeness") == 0.8
    assert params.population.n_windows == 30
    assert params.mock.galaxies.flux_limit_mag == Params().mock.galaxies.flux_limit_mag
    with pytest.raises(ParameterError, match=r"mock\.galaxies\.completeness"):
        with_values(Params(), {"mock.galaxies.completeness": 1.2})


@pytest.mark.parametrize(
    ("priors", "words"),
    [({"mock.galaxies.colour": [0, 1]}, "no such parameter"),
     ({"mock.galaxies": [0, 1]}, "not a number"),
     ({"mock.members.velocity_bias": [1.1, 0.9]}, "lowest value comes first")],
)  # fmt: skip
def test_priors_must_name_numbers(priors, words):
    with pytest.raises(ValueError, match=words):
        Params.model_validate({"calibrate": {"priors": priors}})
