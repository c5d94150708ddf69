"""Make a released version again, from its tag."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from cmass.errors import WorkspaceError
from cmass.publish.release import check_sums
from cmass.tables import file_digest, read_json
from cmass.versions import tags
from cmass.versions.archive import (
    CHAMPION,
    FOLDER,
    PARAMETERS,
    RAW,
    RELEASE,
    archived,
    parquet_sums,
)
from cmass.versions.store import Store
from cmass.workspace import Workspace

log = logging.getLogger(__name__)

_STEPS = ("select", "infer", "realism", "figures", "publish")
_TRAINING = (
    "mock", "population", "split", "voxelize", "train", "posterior", "oddity", "evaluate",
)  # fmt: skip
#: Products of a training that have the same bytes whenever they are made.
_OF_TRAINING = ("model", "posterior", "oddity", "evaluation")


@dataclass(frozen=True)
class Compared:
    """A Parquet file of a version: as it was released, and as it came out again (None: it did not)."""

    name: str
    released: str
    rebuilt: str | None

    @property
    def same(self) -> bool:
        """Whether both are the same bytes."""
        return self.released == self.rebuilt


@dataclass(frozen=True)
class Rebuilt:
    """A version that was made again.

    Attributes
    ----------
    folder : Path
        The new release.
    files : list of Compared
        Every Parquet file of the released version.
    software : list of str
        Packages that had another version then: the first suspects where files differ.
    """

    folder: Path
    files: list[Compared]
    software: list[str]

    @property
    def same(self) -> bool:
        """Whether every file came out as it was released."""
        return all(one.same for one in self.files)


def rebuild(data: Path, version: str, *, train: bool = False) -> Rebuilt:
    """Make a version again: its code, its raw data and its model, all other products anew.

    Parameters
    ----------
    data : Path
        The data folder, with the store. The new release goes to ``rebuilt/<version>`` in it.
    version : str
    train : bool
        Make mocks, network and evidence anew as well, and compare them with the version's.

    Returns
    -------
    Rebuilt

    Raises
    ------
    WorkspaceError
        The version is not archived, the archive is damaged, or a step failed.
    """
    said = archived(data, version)
    store = Store(data / FOLDER)
    store.open()
    with tempfile.TemporaryDirectory(prefix=".rebuild-", dir=data) as name:
        work = Path(name).resolve()
        kept = work / "kept"
        store.get(version, said["pointer"], said["sha256"], kept)
        log.info(
            "rebuild: %s is made in %s, whose own `latest` is spoken of below; releases stay as they are",
            version, made_in := work / "data",
        )  # fmt: skip
        with tags.checked_out(tags.clone(), version, work / "code") as code:
            params = yaml.safe_load((kept / PARAMETERS).read_text(encoding="utf-8"))
            made = Workspace(made_in, params["profile"], params["survey"])
            shutil.copytree(kept / RAW, made.raw)
            shutil.copytree(kept / CHAMPION, made.champion)
            compared = []
            if train:
                _run(_TRAINING, code, kept / PARAMETERS, made)
                compared += _compare_training(kept / CHAMPION, made)
            _run(_STEPS, code, kept / PARAMETERS, made)
        folder = (made.releases / "latest").resolve()
        check_sums(folder)
        compared += compare(kept / RELEASE, folder)
        software = _software_differences(kept / RELEASE, folder)
        target = data / "rebuilt" / version
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, target)
    return Rebuilt(target, compared, software)


def compare(released: Path, rebuilt: Path) -> list[Compared]:
    """The Parquet files of two releases, name by name."""
    before, now = parquet_sums(released), parquet_sums(rebuilt)
    return [Compared(name, digest, now.get(name)) for name, digest in sorted(before.items())]


def _compare_training(champion: Path, made: Workspace) -> list[Compared]:
    found = []
    for product in _OF_TRAINING:
        for file in sorted((champion / product).rglob("*")):
            if file.suffix not in (".parquet", ".h5"):
                continue
            name = file.relative_to(champion).as_posix()
            again = made.home / name
            rebuilt = file_digest(again) if again.exists() else None
            found.append(Compared(name, file_digest(file), rebuilt))
    return found


def _run(steps: tuple[str, ...], code: Path, params: Path, made: Workspace) -> None:
    """Run steps with the code of the version; what it says goes where this process says it."""
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    environment["PYTHONPATH"] = str(code)
    for step in steps:
        done = subprocess.run(
            [sys.executable, "-m", "cmass.cli", step, "--params", str(params), "--data",
             str(made.root)],
            cwd=code, env=environment, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise WorkspaceError(f"rebuild: `cmass {step}` of that version failed; see above")


def _software_differences(released: Path, rebuilt: Path) -> list[str]:
    then, now = (read_json(f / "provenance.json")["software"] for f in (released, rebuilt))
    names = sorted(then.keys() | now.keys())
    return [f"{n} {then.get(n)} then, {now.get(n)} now" for n in names if then.get(n) != now.get(n)]
