"""The stage that a fault is tried on: a data folder, commands in processes of their own, what must hold.

One undisturbed run is made once and kept; every try begins with a copy of it from which a step's
products are taken away, at one and the same path (MLflow keeps absolute ones).
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from cmass.pipeline import STEPS, step
from cmass.publish.release import SUMS, complete_releases, verify
from cmass.shards import digest_of, source_digest
from cmass.tables import file_digest, read_json
from cmass.workspace import Workspace

ROOT = Path(__file__).parents[2]
#: What a broken run may leave and the next one must not.
LEFTOVERS = (".tmp", ".partial", ".old", ".scratch", ".inbox")
#: Longest time of a command, and of a killed run's workers to notice, seconds.
LIMIT_S, ORPHANS_S = 900.0, 30.0
_SMALLER: dict[str, Any] = {
    "rivals": {"estimators": ["cnn3d", "dispersion", "richness"]},
    "train": {"epochs": 3},
    "mock": {"haloes": {"n_windows": 480, "sight_lines_max": 2}, "haloes_per_shard": 20},
    "split": {"train": 240, "test": 130, "evaluation": 80},
    "voxels": {"n": 26},
    "infer": {"bootstrap_rounds": 10},
    "realism": {"bootstrap_rounds": 20, "permutations": 20},
    "oddity": {"n_injected": 20, "n_reference": 100},
}


class Broken(AssertionError):
    """Something that must hold after a fault does not."""


def require(holds: bool, words: str) -> None:
    """Raise `Broken` with `words` unless it holds."""
    if not holds:
        raise Broken(words)


@dataclass
class Command:
    """A command at work in a session of its own, its output in a file."""

    pid: int
    log: Path
    started: float = field(default_factory=time.monotonic)
    _code: int | None = None

    @property
    def text(self) -> str:
        """What it has said so far, without the wrapping of lines."""
        words = self.log.read_text(encoding="utf-8", errors="replace")
        return re.sub(r"[ \t]+\n {15,}", " ", words)

    def code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, limit_s: float = LIMIT_S) -> int:
        """Its exit code."""
        end = time.monotonic() + limit_s
        while (code := self.code()) is None:
            if time.monotonic() > end:
                self.kill()
                raise Broken(f"not done after {limit_s:.0f} s; it said:\n{self.text[-1500:]}")
            time.sleep(0.02)
        return code

    def wait_for(self, pattern: str) -> bool:
        """Wait until it says `pattern`; False if it ended without."""
        while not re.search(pattern, self.text):
            if self.code() is not None:
                return bool(re.search(pattern, self.text))
            if time.monotonic() > self.started + LIMIT_S:
                self.kill()
                raise Broken(f"never said {pattern!r}")
            time.sleep(0.01)
        return True

    def kill(self) -> None:
        """kill -9, of this process alone; its children must notice."""
        if self.code() is None:
            os.kill(self.pid, signal.SIGKILL)
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def children(self) -> list[psutil.Process]:
        """Processes of its session beside itself, those of a dead leader as well."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = os.getsid(process.pid) == self.pid and process.pid != self.pid
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (OSError, psutil.Error):
                continue
        return found

    def require_no_orphans(self) -> None:
        """Workers must not outlive the run that started them."""
        end = time.monotonic() + ORPHANS_S
        while left := self.children():
            require(
                time.monotonic() < end, f"{len(left)} processes outlive a killed run: {left[0]}"
            )
            time.sleep(0.1)


class Stage:
    """The data folder that faults befall.

    Parameters
    ----------
    root : Path
        Work folder; the undisturbed run in it is used again while the code is the same.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.data, self.base = self.root / "data", self.root / "base"
        self.params = self.root / "params.yaml"
        self.seconds: dict[str, float] = {}
        self._number = 0
        self.version = ""
        self._running: list[Command] = []
        self.at_end: list[Callable[[], object]] = []

    # ------------------------------------------------------------------------- the undisturbed run

    def prepare(self) -> None:
        """Make the undisturbed run, unless it is there; know its products."""
        if self.version:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        self.write_params(self.params)
        identity, mark = digest_of(source_digest("."), self.params.read_text()), self.root / "whole"
        if not (mark.exists() and mark.read_text() == identity):
            mark.unlink(missing_ok=True)
            for folder in (self.data, self.base):
                shutil.rmtree(folder, ignore_errors=True)
            sys.stderr.write("the undisturbed run: about two minutes\n")
            run = self.start("run", real=True)
            require(run.wait() == 0, f"the undisturbed run failed:\n{run.text[-3000:]}")
            self.data.rename(self.base)
            mark.write_text(identity)
        self.know_base()

    def know_base(self) -> None:
        """Remember what the undisturbed run made and published."""
        self.version = (self.base / "release" / "latest").readlink().name
        self.products = products(self.base)
        self.sums = (self.base / "release" / self.version / SUMS).read_text()
        require(len(self.products) > 40, f"only {len(self.products)} products are compared")

    def write_params(self, file: Path, **publish: Any) -> Path:
        """The smoke profile made smaller, with other values of section publish."""
        values = yaml.safe_load((ROOT / "params.yaml").read_text())
        smoke = values["profiles"]["smoke"]
        for name, smaller in _SMALLER.items():
            smoke[name] = (smoke.get(name) or {}) | smaller
        smoke["publish"] = publish
        file.write_text(yaml.safe_dump(values, sort_keys=False))
        return file

    def titled(self, title: str) -> Path:
        """Parameters under which publish makes a new version."""
        return self.write_params(self.root / "titled.yaml", title=title)

    # -------------------------------------------------------------------------------------- a try

    def workspace(self) -> Workspace:
        """The data folder as the library sees it."""
        return Workspace(self.data, "smoke", "embedded")

    def reset(self, *without: str, keep_outputs: bool = False) -> None:
        """Copy the undisturbed run and take the stamps of the steps `without`, and what they made."""
        self.prepare()
        if not self.data.is_mount():
            shutil.rmtree(self.data, ignore_errors=True)
            self.data.mkdir()
        subprocess.run(["cp", "-a", f"{self.base}/.", str(self.data)], check=True)
        for name in without:
            self.forget(name, keep_outputs=keep_outputs)

    def forget(self, name: str, *, keep_outputs: bool = False) -> None:
        """Take a step's stamp away, and what it made."""
        one, workspace = step(name), self.workspace()
        folder = workspace.home / ".stamps"
        (folder / workspace.survey / f"{name}.json").unlink(missing_ok=True)
        (folder / f"{name}.json").unlink(missing_ok=True)
        if keep_outputs:
            return
        for path in one.outputs(workspace):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != "latest":
                path.unlink(missing_ok=True)

    def start(
        self, *words: str, params: Path | None = None, real: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> Command:  # fmt: skip
        """Start ``cmass`` with `words`; with the profile, parameters and data folder of this stage.

        Parameters
        ----------
        real : bool
            Start Python anew. Otherwise this process, which has the libraries imported, is forked: the
            same command, seconds sooner.
        """
        self._number += 1
        log = self.root / "logs" / f"{self._number:04d}-{words[0]}.log"
        log.parent.mkdir(exist_ok=True)
        given = [
            "--data",
            str(self.data),
            "--params",
            str(params or self.params),
            "--profile",
            "smoke",
        ]
        line, more = [*words, *given], dict(environment or {})
        if real:
            with open(log, "w") as stream:
                child = subprocess.Popen(
                    [sys.executable, "-m", "cmass.cli", *line], cwd=ROOT, stdout=stream,
                    stderr=stream, stdin=subprocess.DEVNULL, start_new_session=True,
                    env=os.environ | {"PYTHONPATH": str(ROOT)} | more,
                )  # fmt: skip
            child.returncode = 0  # it is waited for by its number
            pid = child.pid
        else:
            log.touch()
            pid = _fork(line, log, more)
        self._running.append(Command(pid, log))
        return self._running[-1]

    def heal(self, *, params: Path | None = None, **options: Any) -> Command:
        """The next run: it must end well, with the undisturbed run's products, and leave nothing."""
        run = self.start("run", params=params, **options)
        code = run.wait()
        require(code == 0, f"the next run ended with {code}:\n{run.text[-2500:]}")
        self.note_times(run)
        self.require_published()
        now = products(self.data)
        odd = sorted(
            n for n in now.keys() | self.products.keys() if now.get(n) != self.products.get(n)
        )
        require(not odd, f"products differ from the undisturbed run's: {', '.join(odd[:5])}")
        left = [
            p
            for p in self.data.rglob("*")
            if p.name.endswith(LEFTOVERS) or p.name.startswith(".staging")
        ]
        require(not left, f"left behind: {left[:3]}")
        return run

    def tidy(self) -> None:
        """End what a try left running."""
        for command in self._running:
            command.kill()
            for child in command.children():
                child.kill()
        self._running.clear()

    def note_times(self, run: Command) -> None:
        """Remember how long steps take, as their log says."""
        for name, seconds in re.findall(r"(\w+): done in (\d+) s", run.text):
            self.seconds[name] = float(seconds) + 0.5

    def require_published(self, *, older: bool = True) -> str:
        """What readers see must be whole: `latest`, every version, and the older release as it was."""
        releases = self.data / "release"
        latest = releases / "latest"
        require(latest.is_symlink(), "there is no link `latest`")
        target = str(latest.readlink())
        require(bool(re.fullmatch(r"[0-9.]+-[0-9a-f]{8}", target)), f"latest is {target}")
        whole = complete_releases(releases)
        for folder in whole:
            verify(folder)
        seen = {
            p.name
            for p in releases.iterdir()
            if p.is_dir() and not p.is_symlink() and not p.name.startswith(".")
        }
        require(
            seen == {p.name for p in whole},
            f"versions that are not whole: {seen - {p.name for p in whole}}",
        )
        require(target in seen, f"latest points at {target}, which is not there")
        if older:
            require(self.version in seen, "the older release is gone")
            sums = (releases / self.version / SUMS).read_text()
            require(sums == self.sums, "the older release was changed")
        return target

    def title(self) -> str:
        """Title of the release in force."""
        facts = read_json(self.data / "release" / "latest" / "provenance.json")
        return str(facts["parameters"]["publish"]["title"])


def refused(run: Command, code: int, pattern: str) -> str:
    """A command must have ended with `code` and said `pattern`; returns what it said."""
    found = run.wait()
    message = run.text[run.text.rfind("error:") :] if "error:" in run.text else run.text[-800:]
    require(found == code, f"exit code {found}, expected {code}: {message}")
    require(
        bool(re.search(pattern, message, re.DOTALL)), f"the message lacks {pattern!r}: {message}"
    )
    return " ".join(message.split())


#: Tables of how long things took, which is never the same twice.
_TIMES = ("costs.parquet", "rival_costs.parquet")


def products(data: Path) -> dict[str, str]:
    """Checksums of every Parquet file and of the weights, but for times; of the release without
    provenance, which names run, commit and day."""
    files = [*data.glob("smoke/**/*.parquet"), *data.glob("smoke/**/*.h5")]
    files += [p for p in data.glob("release/latest/*.parquet") if p.stem != "provenance"]
    return {p.relative_to(data).as_posix(): file_digest(p) for p in files if p.name not in _TIMES}


def step_names() -> list[str]:
    """All steps, in order."""
    return [one.name for one in STEPS]


def warm() -> None:
    """Import what most commands need, so that a fork has it; TensorFlow is not safe to fork."""
    import great_expectations  # noqa: F401
    import mlflow  # noqa: F401

    import cmass.cli
    import cmass.contracts.handovers
    import cmass.figures
    import cmass.publish
    import cmass.registry  # noqa: F401


def _fork(line: list[str], log: Path, environment: Mapping[str, str]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        os.chdir(ROOT)
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, null), (1, stream), (2, stream)):
            os.dup2(source, target)
        os.environ.update({"PYTHONPATH": str(ROOT)} | dict(environment))
        sys.argv = ["cmass", *line]
        code = _command()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _command() -> int:
    from cmass.cli import main

    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@dataclass(frozen=True)
class Fault:
    """A fault and what must come of it.

    Attributes
    ----------
    name : str
    how : str
        How it is provoked, at a random time.
    outcome : str
        What was seen when every try went well.
    attempt : callable
        Provokes it once on a `Stage` with random numbers of its own; raises `Broken` where something does
        not hold, and returns what happened.
    """

    name: str
    how: str
    outcome: str
    attempt: Callable[[Stage, random.Random], str]
