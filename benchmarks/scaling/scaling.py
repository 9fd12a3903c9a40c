"""What weights in parts cost, and what they lose: one study a call, one table of docs/results each.

    python benchmarks/scaling/scaling.py parts    # 1e7 draws in 1 to 1000 parts, merged in random trees
    python benchmarks/scaling/scaling.py stream   # 1e6 to 1e9 draws from a file; 8 GB in --folder
    python benchmarks/scaling/scaling.py clusters # 1e8 draws: two threads, two workers of Dask, two of Ray
    python benchmarks/scaling/scaling.py parquet  # a report on 5 GB of rollouts in --folder

Contestants take turns in rounds and the least of each is told, so that other work on the machine counts for
little. Files are made, read and removed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import isdiag
from isdiag import Summary

PIECE = 2**21
BLOCK = 2**22  # of a cluster's worker
RESULTS = Path(__file__).parents[2] / "docs" / "results"


def write(out: Path, name: str, rows: list[dict[str, Any]]) -> None:
    with (out / f"scaling_{name}.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    for row in rows:
        print(row)


def least(rounds: int, contestants: dict[str, Callable[[], Any]]) -> dict[str, tuple[float, float]]:
    """Of each the least wall time and the least time of the processor, in seconds."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            start = time.perf_counter(), time.process_time()
            call()
            found[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return {name: tuple(map(min, zip(*times, strict=True))) for name, times in found.items()}  # type: ignore[misc]


# ------------------------------------------------------------------------------------------------- parts


def parts(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(3)
    log_w = np.log(rng.pareto(1.6, size=options.draws or 10_000_000)) + 0.1 * rng.normal(
        size=options.draws or 10_000_000
    )
    h = np.cos(log_w)
    exact, whole = isdiag.select_gamma(log_w), isdiag.snis(log_w, h)
    rows: list[dict[str, Any]] = []
    for count in (1, 2, 10, 100, 1000):
        cuts = np.sort(rng.integers(0, log_w.size, size=count - 1))
        start = time.perf_counter()
        made = [Summary.of(*part) for part in zip(np.split(log_w, cuts), np.split(h, cuts), strict=True)]
        halfway = time.perf_counter()
        while len(made) > 1:  # two at random
            for i in sorted(rng.choice(len(made), size=2, replace=False), reverse=True):
                made.append(made.pop(i))
            made.append(made.pop().merge(made.pop()))
        end = time.perf_counter()
        found, estimate = made[0].select_gamma(), made[0].snis()
        ess = [
            made[0].ess(gamma) / isdiag.ess(log_w, gamma=gamma) - 1 for gamma in (0.01, 0.1, 0.5, 1.0, 2.0)
        ]
        rows.append(
            {
                "parts": count,
                "gamma_error": f"{abs(found.gamma / exact.gamma - 1):.1e}",
                "khat_error": f"{abs(found.khat - exact.khat):.1e}",
                "ess_error": f"{np.abs(ess).max():.1e}",
                "estimate_error": f"{abs(estimate.estimate - whole.estimate):.1e}",
                "std_error_error": f"{abs(estimate.std_error / whole.std_error - 1):.1e}",
                "summaries_s": f"{halfway - start:.2f}",
                "merge_ms": f"{(end - halfway) / max(count - 1, 1) * 1e3:.2f}",
            }
        )
    write(options.out, "parts", rows)


# ------------------------------------------------------------------------------------------------ streams


def make_stream(path: Path, draws: int) -> None:
    rng = np.random.default_rng(1)
    with path.open("wb") as file:
        for start in range(0, draws, PIECE):
            rng.normal(scale=1.5, size=min(PIECE, draws - start)).tofile(file)


def pieces(path: Path, cold: bool) -> Iterator[Any]:
    memory = np.empty(PIECE)
    with path.open("rb", buffering=0) as file:
        if cold:  # what the system holds of the file in memory is dropped
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while count := file.readinto(memory):
            yield memory[: count // memory.itemsize]


def read_and_exp(path: Path, cold: bool) -> None:
    out = np.empty(PIECE)
    for piece in pieces(path, cold):
        np.exp(piece, out=out[: piece.size])


def stream(options: argparse.Namespace) -> None:
    path = options.folder / "isdiag_stream.f8"
    isdiag.Summary.of(np.zeros(10)).select_gamma()
    rows: list[dict[str, Any]] = []
    for draws in (1_000_000, 10_000_000, 100_000_000, 1_000_000_000):
        if options.draws and draws > options.draws:
            break
        make_stream(path, draws)
        for cold in (False, True)[: 1 + (draws == 1_000_000_000)]:
            state: dict[int, Summary] = {}

            def summarize(workers: int, cold: bool = cold, state: dict[int, Summary] = state) -> None:
                state[workers] = Summary.of_parts(pieces(path, cold), workers=workers, n_max=5e9)

            times = least(
                3,
                {
                    "exp": partial(read_and_exp, path, cold),
                    "one": partial(summarize, 1),
                    "two": partial(summarize, 2),
                },
            )
            assert state[1].to_bytes() == state[2].to_bytes()
            ns = {name: (wall / draws * 1e9, cpu / draws * 1e9) for name, (wall, cpu) in times.items()}
            rows.append(
                {
                    "draws": draws,
                    "file": "disk" if cold else "memory",
                    "exp_cpu_ns": f"{ns['exp'][1]:.2f}",
                    "summary_cpu_ns": f"{ns['one'][1]:.2f}",
                    "exp_wall_ns": f"{ns['exp'][0]:.2f}",
                    "summary_wall_ns": f"{ns['one'][0]:.2f}",
                    "two_threads_wall_ns": f"{ns['two'][0]:.2f}",
                    "speed": f"{ns['exp'][0] / ns['one'][0]:.2f}",
                    "speed_of_two_threads": f"{ns['exp'][0] / ns['two'][0]:.2f}",
                    "state_mb": f"{len(state[1].to_bytes()) / 1e6:.2f}",
                    "most_memory_mb": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}",
                }
            )
            print(rows[-1], flush=True)
    path.unlink()
    write(options.out, "stream", rows)


# ----------------------------------------------------------------------------------------------- clusters


def draw_block(seed: int, size: int) -> Any:
    return 2.0 * np.random.default_rng(seed).normal(size=size)


def of_block(seed: int, size: int) -> Summary:
    return Summary.of(draw_block(seed, size))


def draw_of_dask(block_info: Any = None) -> Any:
    return draw_block(block_info[None]["chunk-location"][0], block_info[None]["chunk-shape"][0])


def clusters(options: argparse.Namespace) -> None:
    import dask.array as da
    import ray
    from distributed import Client, LocalCluster

    import isdiag.dask
    import isdiag.ray

    draws = options.draws or 100_000_000
    sizes = (BLOCK,) * (draws // BLOCK) + (draws % BLOCK,) * (draws % BLOCK > 0)
    lazy = isdiag.dask.summary(da.map_blocks(draw_of_dask, chunks=(sizes,), dtype=float, meta=np.empty(0)))
    found: dict[str, Summary] = {}

    def by_threads() -> None:
        found["threads"] = lazy.compute(scheduler="threads", num_workers=2)

    def by_dask() -> None:
        found["dask"] = client.compute(lazy).result()

    def by_ray() -> None:
        found["ray"] = ray.get(isdiag.ray.merge([of_ray.remote(*job) for job in enumerate(sizes)]))

    times: dict[str, tuple[float, float]] = {}
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**settings) as cluster, Client(cluster) as client:
        by_threads(), by_dask()  # workers load compiled kernels once
        times |= beside_threads(least(7, {"threads": by_threads, "dask": by_dask}))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    of_ray = ray.remote(of_block)
    by_ray()
    times |= beside_threads(least(7, {"threads": by_threads, "ray": by_ray}))
    ray.shutdown()
    for other in (found["dask"], found["ray"]):
        assert other.pareto_khat() == found["threads"].pareto_khat()
        assert abs(other.ess() / found["threads"].ess() - 1) < 1e-12
    rows: list[dict[str, Any]] = []
    for name, (threads, workers) in times.items():
        ratio = f"{workers / threads:.2f}"
        rows.append({"cluster": name, "draws": draws, "two_threads_s": f"{threads:.2f}"})
        rows[-1] |= {"two_workers_s": f"{workers:.2f}", "ratio": ratio}
    write(options.out, "clusters", rows)


def beside_threads(times: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Wall times of the threads and of the other contestant, under its name."""
    (threads, _), (workers, _) = times.values()
    return {list(times)[1]: (threads, workers)}


# ------------------------------------------------------------------------------------------------ parquet


def make_rollouts(path: Path, size: float) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng, rows = np.random.default_rng(2), 0
    ages = pa.array(["0 steps", "1 step", "2 steps", "4 steps"])
    writer: Any = None
    while writer is None or path.stat().st_size < size:
        count = 2**20
        age = rng.integers(0, 4, size=count).astype(np.int8)
        x = rng.normal(size=count)
        table = pa.table(
            {
                "prompt": rng.integers(0, 2**40, size=count),
                "policy_age": pa.DictionaryArray.from_arrays(pa.array(age), ages),
                "log_w": 0.3 * (1 + age) * x,
                "reward": (x + rng.normal(size=count) > 0).astype(np.float32),
                "length": rng.integers(1, 4096, size=count).astype(np.int32),
                "log_pi": -rng.exponential(size=count),
            }
        )
        if writer is None:
            writer = pq.ParquetWriter(path, table.schema, compression="snappy", use_dictionary=["policy_age"])
        writer.write_table(table)
        rows += count
    writer.close()
    return rows


def parquet(options: argparse.Namespace) -> None:
    path = options.folder / "isdiag_rollouts.parquet"
    count = make_rollouts(path, 5e9 if not options.draws else 30 * options.draws)
    rows: list[dict[str, Any]] = []
    for by in ((), ("--by", "policy_age")):
        call = ["report", str(path), "--columns", "log_w", "--h", "reward", *by, "--json"]
        start = time.perf_counter()
        said = subprocess.run(  # noqa: S603 -- itself
            [sys.executable, "-c", f"{MEASURED}main({call!r})"], capture_output=True, text=True, check=True
        )
        (report,) = json.loads(said.stdout)
        assert sum(column["n"] for column in report["columns"]) == count
        rows.append(
            {
                "report": " ".join(["log_w", "--h", "reward", *by]),
                "file_gb": f"{path.stat().st_size / 1e9:.2f}",
                "rows": count,
                "seconds": f"{time.perf_counter() - start:.1f}",
                "most_memory_mb": said.stderr.split()[-1],
            }
        )
    path.unlink()
    write(options.out, "parquet", rows)


MEASURED = """
import atexit, resource, sys
from isdiag.cli import main
atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr))
"""


STUDIES = {study.__name__: study for study in (parts, stream, clusters, parquet)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="for large files")
    parser.add_argument("--draws", type=lambda text: int(float(text)), help="fewer, to try it")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    STUDIES[options.study](options)


if __name__ == "__main__":
    main()
