"""Simulation files: peak memory and time to sort boxes of several sizes and to serve haloes.

Writes synthetic boxes of 1 Gpc/h (hlist, and SAG as CSV), and for each starts a fresh process that
sorts it into cells and serves the fields of 200 haloes. Memory must not grow with the box: leaves
with an error if the largest takes over a quarter more than the smallest of at least a million.

    python -m benchmarks.bench_boxes                     # 1e5, 1e6 and 4e6 galaxies
    python -m benchmarks.bench_boxes 100000 1000000      # sizes of your own
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.paired import Measurement, Result, to_json

BOX, SCALE, MOST_GROWTH = 1000.0, 0.9567, 1.25
HEADER = "#scale(0) id(1) pid(2) M200c(3) x(4) y(5) z(6) vx(7) vy(8) vz(9)\n"


def write_box(folder: Path, n_galaxies: int) -> None:
    """One halo for ten galaxies, in chunks."""
    import pyarrow as pa
    import pyarrow.csv as pc

    random = np.random.default_rng(1)
    n_haloes, chunk = n_galaxies // 10, 200_000
    centre = (BOX * random.random((n_haloes, 3))).astype("f4")
    with open(folder / "haloes.list", "wb") as stream:
        stream.write(HEADER.encode())
        for start in range(0, n_haloes, chunk):
            x = centre[start : start + chunk]
            n = len(x)
            # one in fifty is a cluster
            mass = np.where(np.arange(n) % 50 == 0, random.uniform(13.5, 15.1, n), 12.0)
            columns = [
                np.full(n, SCALE), 10**10 + start + np.arange(n), np.full(n, -1), 10**mass,
                *x.T.astype(float), *(300 * random.standard_normal((3, n))),
            ]  # fmt: skip
            options = pc.WriteOptions(include_header=False, delimiter=" ")
            pc.write_csv(
                pa.table([*map(pa.array, columns)], [*map(str, range(10))]), stream, options
            )
    with open(folder / "galaxies.csv", "wb") as stream:
        for start in range(0, n_galaxies, chunk):
            n = min(chunk, n_galaxies - start)
            host = (start + np.arange(n)) // 10
            central = (start + np.arange(n)) % 10 == 0  # where its halo is
            away = np.where(central[:, None], 0.0, random.standard_normal((n, 3)))
            x = (centre[host] + away) % BOX
            table = {
                "mainhaloid": 10**10 + host, "galaxytype": np.where(central, 0, 1),
                "magstarsdssr": -18 - random.exponential(1.2, n).clip(0, 6),
                **dict(zip("xyz", x.T, strict=True)),
                **dict(zip(("vx", "vy", "vz"), 400 * random.standard_normal((3, n)), strict=True)),
            }  # fmt: skip
            options = pc.WriteOptions(include_header=start == 0)
            pc.write_csv(pa.table({k: pa.array(v) for k, v in table.items()}), stream, options)


def measure(folder: Path) -> None:
    """Sort and serve; print seconds of processor time and the peak of the memory, MB."""
    from cmass.mock.boxes import open_box
    from cmass.params import FilesParams, Params
    from cmass.workspace import Workspace

    base = Params()
    files = FilesParams(
        haloes=(str(folder / "haloes.list"),), galaxies=(str(folder / "galaxies.csv"),),
        box_size_mpc_h=BOX, scale_factor=SCALE,
    )  # fmt: skip
    haloes = base.mock.haloes.model_copy(update={"n_windows": 200})
    update = {"source": "rockstar-sag", "files": files, "haloes": haloes}
    params = base.model_copy(update={"mock": base.mock.model_copy(update=update)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.process_time()
    source = open_box(Workspace(folder / "data", "standard", "embedded"), params)
    sorted_after = time.process_time() - start
    peak_sort = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    plans = source.plan(params)
    start = time.process_time()
    n = sum(len(source.field(plan, 100.0, params).galaxies) for plan in plans)
    serve = (time.process_time() - start) / len(plans)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(sorted_after, serve, n / len(plans), before, peak_sort, peak)


def peak_memory(sizes: list[int]) -> dict[int, float]:
    """Print what each size costs; peak memory in MB by size."""
    print("galaxies   sort (s)   field (ms)   galaxies a field   MB: imports   sorting   serving")
    peaks = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            write_box(Path(name), size)
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.bench_boxes", "--measure", name],
                capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode:
                raise RuntimeError(f"a box of {size} galaxies failed:\n{done.stderr}")
            seconds, serve, n, before, sorting, serving = map(float, done.stdout.split()[-6:])
        peaks[size] = max(sorting, serving)
        print(
            f"{size:8d} {seconds:10.1f} {1000 * serve:12.1f} {n:18.0f} {before:14.0f} "
            f"{sorting:9.0f} {serving:9.0f}", flush=True,
        )  # fmt: skip
    return peaks


def growth(peaks: dict[int, float]) -> float:
    """Peak of the largest box over that of the smallest of at least a million galaxies."""
    large = [peaks[size] for size in sorted(peaks) if size >= 1_000_000]
    return large[-1] / large[0] if large else 1.0


def results(small: bool) -> list[Result]:
    """Whether memory grows with the box; nothing when small."""
    if small:
        return []
    grown = growth(peak_memory([1_000_000, 4_000_000]))
    what = "peak memory of sorting 4 × 10⁶ galaxies over that of 10⁶"
    return [Measurement("simulation files", what, grown, "", MOST_GROWTH)]


def main(sizes: list[int]) -> int:
    """Measure all sizes and compare."""
    grown = growth(peak_memory(sizes))
    if grown > MOST_GROWTH:
        print(f"memory grows {grown:.2f} times, {MOST_GROWTH:g} is allowed")
    return int(grown > MOST_GROWTH)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["--json"]:
        Path(sys.argv[2]).write_text(to_json(results("--small" in sys.argv)), encoding="utf-8")
    else:
        sys.exit(main([int(a) for a in sys.argv[1:]] or [100_000, 1_000_000, 4_000_000]))
