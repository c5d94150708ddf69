"""Scripts and manifests in deploy/: they parse, and say what the commands understand."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
import typer.main
import yaml

from cmass import cli

DEPLOY = Path(__file__).parents[1] / "deploy"
SCRIPTS = sorted(DEPLOY.glob("*.sbatch"))
MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))


def commands() -> list[list[str]]:
    """Every call of dask or cmass, as words."""
    found = []
    for script in SCRIPTS:
        text = script.read_text().replace("\\\n", " ")
        lines = [line.strip().removeprefix("exec ") for line in text.splitlines()]
        found += [shlex.split(x.rstrip("&")) for x in lines if x.startswith(("dask ", "cmass "))]
    for manifest in MANIFESTS:
        for container in containers(manifest):
            found.append(container["command"])
    return found


def containers(manifest: dict) -> list[dict]:
    return manifest["spec"].get("template", {}).get("spec", {}).get("containers", [])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_scripts_are_shell(script):
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_there_is_a_command_for_each_part():
    assert {tuple(words[:2]) for words in commands()} == {
        ("dask", "scheduler"), ("dask", "worker"), ("cmass", "$step"), ("cmass", "estimate"),
        ("cmass", "run"),
    }  # fmt: skip


@pytest.mark.parametrize("words", commands(), ids=lambda w: " ".join(w)[:60])
def test_every_option_is_one_of_the_command(words):
    if words[0] == "dask":
        pytest.importorskip("distributed")
        from distributed.cli import dask_scheduler, dask_worker

        command = {"scheduler": dask_scheduler, "worker": dask_worker}[words[1]].main
    else:
        name = words[1].replace("$step", "mock")
        command = typer.main.get_command(cli.app).commands[name]  # type: ignore[attr-defined]
    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    assert {w for w in words if w.startswith("--")} <= known


def test_pods_share_one_image_one_volume_and_one_scheduler():
    pods = [m for m in MANIFESTS if containers(m)]
    assert len({c["image"] for m in pods for c in containers(m)}) == 1
    mounts = [
        v["mountPath"] for m in pods for c in containers(m) for v in c.get("volumeMounts", [])
        if v["name"] == "data"
    ]  # fmt: skip
    assert mounts == ["/work/data"] * 2  # the same path for workers and client
    (service,) = (m for m in MANIFESTS if m["kind"] == "Service")
    (claim,) = (m for m in MANIFESTS if m["kind"] == "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    address = f"tcp://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    text = (DEPLOY / "kubernetes.yaml").read_text()
    assert text.count(address) == 2  # the workers, and the line that makes params.yaml
