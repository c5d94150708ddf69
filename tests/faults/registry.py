"""MLflow that is away, stalls, or is killed in the middle of train, judge or champion."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.faults.stage import Fault, Stage, refused, require

#: Longest time until a run says that MLflow is away, and that it does not answer, seconds.
_AWAY_S, _STALLS_S = 90.0, 300.0
_SAID = "MLflow at http://127.0.0.1:[0-9]+ did not.*(run|once it)"
STEPS = ("train", "judge", "champion")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def away(stage: Stage, rng: random.Random) -> str:
    """Nobody listens."""
    name = rng.choice(STEPS)
    stage.reset(name)
    environment = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}"}
    run = stage.start(rng.choice(["run", name]), environment=environment)
    words = refused(run, 5, _SAID)
    seconds = time.monotonic() - run.started
    require(seconds < _AWAY_S + stage.seconds.get(name, 0), f"{seconds:.0f} s until it said so")
    stage.require_published()
    stage.heal()
    return f"{name}: after {seconds:.0f} s: {words[:140]}"


@contextmanager
def silent_server() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        held: list[socket.socket] = []

        def hold() -> None:
            with suppress(OSError):
                while True:
                    held.append(server.accept()[0])

        threading.Thread(target=hold, daemon=True).start()
        try:
            yield int(server.getsockname()[1])
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for one in held:
                one.close()


def stalls(stage: Stage, rng: random.Random) -> str:
    """It takes connections and says nothing. The limits are made shorter than they are, in proportion."""
    name = rng.choice(STEPS)
    stage.reset(name)
    with silent_server() as port:
        environment = {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
        }
        run = stage.start(name, environment=environment)
        words = refused(run, 5, _SAID)
    seconds = time.monotonic() - run.started
    require(seconds < _AWAY_S + stage.seconds.get(name, 0), f"{seconds:.0f} s until it said so")
    stage.require_published()
    stage.heal()
    return f"{name}: after {seconds:.0f} s: {words[:140]}"


@contextmanager
def server(stage: Stage, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's own server on the stage's store."""
    data = stage.data
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{data / 'mlflow' / 'mlflow.db'}",
        "--artifacts-destination", str(data / "mlflow" / "artifacts"),
    ]  # fmt: skip
    with open(stage.root / "logs" / f"mlflow-{port}.log", "wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        )  # fmt: skip
        try:
            end = time.monotonic() + 180
            while True:
                with (
                    suppress(OSError),
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2),
                ):
                    break
                require(
                    process.poll() is None and time.monotonic() < end,
                    "MLflow's server does not start",
                )
                time.sleep(0.2)
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()


def killed(stage: Stage, rng: random.Random) -> str:
    """kill -9 of the server while a step talks to it; started again, the next run goes on."""
    name, port = rng.choice(STEPS), free_port()
    stage.reset(name)
    environment = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    if name == "train":  # something to register
        shutil.rmtree(stage.data / "mlflow")
        (stage.data / "mlflow").mkdir()
        for one in ("judge", "champion"):
            stage.forget(one)
    with server(stage, port) as process:
        run = stage.start("run", environment=environment)
        require(
            run.wait_for(rf" {name}: (not made|outputs|inputs|outside)"),
            f"{name} did not begin: {run.text[-1500:]}",
        )
        moment = rng.uniform(0, stage.seconds.get(name, 3.0))
        end = time.monotonic() + moment
        while time.monotonic() < end and run.code() is None:
            time.sleep(0.01)
        os.killpg(process.pid, 9)
        process.wait()
        code = run.wait()
        words = "it needed MLflow no more" if code == 0 else refused(run, 5, _SAID)
    stage.require_published()
    with server(stage, port):
        stage.heal(environment=environment)
    return f"{name}, {moment:.1f} s after it began: {words[:140]}"


FAULTS = [
    Fault("MLflow away", "nobody listens at `MLFLOW_TRACKING_URI`, in train, judge or champion",
          "code 5 within 90 s of the question, with the address; nothing is lost; the next run goes on", away),
    Fault("MLflow stalls", "its port takes connections and never answers (time limit of a request: 3 s here, 20 s otherwise)",
          "the same", stalls),
    Fault("MLflow killed", "kill -9 of MLflow's server at a random moment of train, judge or champion",
          "the same, or the step needed it no more; server back, the next run ends with the same bytes", killed),
]  # fmt: skip
