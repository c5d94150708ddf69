"""Images and compose file in docker/: linted, and true to the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.service.settings import ServiceSettings

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
COMPOSE = ROOT / "docker" / "compose.yaml"
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]
#: Those that do their work once and end.
ONCE = ("prepare", "deploy")


def test_dockerfile_passes_hadolint():
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint is not installed: pip install '.[dev]'")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stdout


def test_what_the_image_copies_is_there_and_not_ignored():
    kept = {
        line[1:] for line in (ROOT / "docker" / "Dockerfile.dockerignore").read_text().split()
        if line.startswith("!")
    }  # fmt: skip
    for line in DOCKERFILE.read_text().splitlines():
        if line.startswith("COPY"):
            for name in line.split()[1:-1]:
                name = name.removeprefix("./")
                assert (ROOT / name).exists()
                assert name in kept


def test_compose_file_is_to_its_schema():
    checker = Path(sys.executable).parent / "check-jsonschema"
    if not checker.exists():
        pytest.skip("check-jsonschema is not installed: pip install '.[dev]'")
    words = [checker, "--builtin-schema", "vendor.compose-spec", COMPOSE]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_every_server_is_watched_and_waits_for_what_it_needs(name):
    one = SERVICES[name]
    assert one["restart"] == ("no" if name in ONCE else "unless-stopped")
    if name == "worker":  # its own check is the image's
        assert "HEALTHCHECK" in DOCKERFILE.read_text()
    elif name in ONCE:
        assert one["healthcheck"] == {"disable": True}
    else:
        assert one["healthcheck"]["test"][0] == "CMD"
    for needed, how in one.get("depends_on", {}).items():
        ending = needed in ONCE
        assert how["condition"] == (
            "service_completed_successfully" if ending else "service_healthy"
        )


def test_ports_are_bound_to_this_machine():
    ports = [port for one in SERVICES.values() for port in one.get("ports", [])]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)
    # and are those of `make serve`
    given = {int(re.search(r":-(\d+)\}", port)[1]) for port in ports}
    defaults = {n: f.default for n, f in ServiceSettings.model_fields.items()}
    assert given == {defaults[n] for n in ("s3_port", "prefect_port", "mlflow_port")}


def test_secrets_come_from_outside_and_must_be_given():
    text = COMPOSE.read_text()
    for name in ("CMASS_POSTGRES_PASSWORD", "CMASS_S3_KEY", "CMASS_S3_SECRET"):
        assert re.search(rf"\$\{{{name}:\?set {name}", text)
    for one in SERVICES.values():
        for key, value in one.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEY", key):
                assert value.startswith("${") and ":?" in value
        assert "PASSWORD" not in str(one.get("command", ""))


def test_every_volume_is_declared():
    declared = yaml.safe_load(COMPOSE.read_text())["volumes"]
    used = {v.split(":")[0] for one in SERVICES.values() for v in one.get("volumes", [])}
    assert {name for name in used if not name.startswith(".")} == set(declared)
    assert all((COMPOSE.parent / name).exists() for name in used if name.startswith("."))
    # the worker and those that make its shards see the data folder at one path
    assert SERVICES["worker"]["volumes"] == SERVICES["dask-worker"]["volumes"]
