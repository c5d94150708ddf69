"""Weights files: the same bytes whenever they are written, and whole or not there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorflow")
from cmass.errors import WorkspaceError
from cmass.estimators import deepsets
from cmass.networks import cnn3d
from cmass.networks.weights_file import save_weights
from cmass.params import DeepSetsParams

pytestmark = pytest.mark.xdist_group("tensorflow")


@pytest.mark.parametrize(
    "build", [lambda: cnn3d.build(12), lambda: deepsets.network(DeepSetsParams(width=8))],
    ids=["cnn3d", "deepsets"],
)  # fmt: skip
def test_networks_made_before_leave_no_trace(tmp_path: Path, build):
    """Keras counts the layers that a process has made, and writes the count down."""
    weights = build().get_weights()
    for name in ("a", "b"):
        model = build()
        model.set_weights(weights)
        save_weights(model, tmp_path / f"{name}.weights.h5", {"seed": 1})
    assert (tmp_path / "a.weights.h5").read_bytes() == (tmp_path / "b.weights.h5").read_bytes()


def test_no_room_to_write_is_an_error(tmp_path: Path, monkeypatch):
    """A container's memory file system may be small, or be another's."""
    path = tmp_path / "a.weights.h5"
    asked = []

    def usage(folder):
        asked.append(folder)
        return shutil._ntuple_diskusage(1, 1, 1000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(WorkspaceError, match=r"no room for \d+ MB of a network's weights"):
        save_weights(cnn3d.build(20), path)
    assert len(asked) == 2 and not path.exists()


def test_a_full_disk_leaves_what_was_there(tmp_path: Path):
    """On a real disk that is full, where we may make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=64k", "cmass-test", str(disk)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        (disk / "a.weights.h5").write_text("older")
        code = (
            "import sys; from pathlib import Path\n"
            "from cmass.networks import cnn3d\n"
            "from cmass.networks.weights_file import save_weights\n"
            "save_weights(cnn3d.build(20), Path(sys.argv[1]))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(disk / "a.weights.h5")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert "WorkspaceError: no space left on the disk" in done.stderr
        assert [p.name for p in disk.iterdir()] == ["a.weights.h5"]
        assert (disk / "a.weights.h5").read_text() == "older"
    finally:
        subprocess.run(["umount", str(disk)], check=True)
