"""The budgets of the main path, measured beside the bare path in one run.

Starts an embedded broker and one worker process in a private home, then measures: one durable ``delay()``,
the round trip of a no-op, no-op throughput of ``map(deferred=True)`` for async and sync tasks, Redis CPU
per run, and the time of ``import prefect_lite``. Each round runs the bare path first; ratios are taken
inside a round and the median of the rounds is reported.

Usage: python benchmarks/budgets.py [--runs 20000] [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bare_path import measure as measure_bare_path

TASKS = """
from prefect_lite import task
from prefect_lite.task_worker import serve

@task
async def async_noop(x=None):
    return x

@task
def sync_noop(x=None):
    return x

if __name__ == "__main__":
    serve(async_noop, sync_noop, limit=int(__import__("sys").argv[1]))
"""


def percentile(times: list[float], fraction: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * fraction))]


def redis_cpu_seconds(runtime_dir: Path) -> float:
    import redis

    sockets = list(runtime_dir.rglob("valkey.sock"))
    with redis.Redis(unix_socket_path=str(sockets[0])) as client:
        cpu: dict[str, Any] = client.info("cpu")  # type: ignore[assignment]
    return float(cpu["used_cpu_user_main_thread"]) + float(cpu["used_cpu_sys_main_thread"])


def import_seconds() -> float:
    """Median wall time that ``import prefect_lite`` adds to a bare interpreter, of 7 fresh processes."""
    code = "import time; t=time.perf_counter(); import prefect_lite; print(time.perf_counter()-t)"
    return statistics.median(
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(7)
    )


def measure_prefect_lite(runtime_dir: Path, runs: int, round_trips: int) -> dict[str, float]:
    from tasks import async_noop, sync_noop  # type: ignore[import-not-found]

    figures: dict[str, float] = {}
    async_noop.delay(1).result(timeout=30)
    sync_noop.delay(1).result(timeout=30)
    times, delays = [], []
    for i in range(round_trips):
        started = time.perf_counter()
        future = async_noop.delay(i)
        delays.append(time.perf_counter() - started)
        assert future.result(timeout=30) == i
        times.append(time.perf_counter() - started)
    figures["delay_p50_ms"] = percentile(delays, 0.5) * 1e3
    figures["round_trip_p50_ms"] = percentile(times, 0.5) * 1e3
    figures["round_trip_p99_ms"] = percentile(times, 0.99) * 1e3
    for name, task in (("async", async_noop), ("sync", sync_noop)):
        task.map(range(1000), deferred=True).result(timeout=60)
        cpu = redis_cpu_seconds(runtime_dir)
        started = time.perf_counter()
        futures = task.map(range(runs), deferred=True)
        enqueued = time.perf_counter()
        values = futures.result(timeout=300)
        ended = time.perf_counter()
        assert values == list(range(runs)), "results differ"
        figures[f"{name}_runs_per_second"] = runs / (ended - started)
        figures[f"{name}_enqueue_per_second"] = runs / (enqueued - started)
        figures[f"{name}_redis_cpu_us_per_run"] = (redis_cpu_seconds(runtime_dir) - cpu) / runs * 1e6
    return figures


@contextlib.contextmanager
def deployment(limit: int) -> Any:
    """A private home with an embedded broker and one worker process; yields the runtime directory."""
    directory = Path(tempfile.mkdtemp(prefix="plb"))
    environ = os.environ | {
        "PREFECT_LITE_HOME": str(directory / "home"),
        "PREFECT_LITE_RUNTIME_DIR": str(directory / "run"),
        # Beside what was set: a paired comparison runs another tree with this file.
        "PYTHONPATH": os.pathsep.join(filter(None, (str(directory), os.environ.get("PYTHONPATH")))),
    }
    (directory / "tasks.py").write_text(TASKS)
    os.environ.update(environ)
    sys.path.insert(0, str(directory))
    worker = subprocess.Popen(
        [sys.executable, str(directory / "tasks.py"), str(limit)], env=environ,
        stdout=(directory / "worker.log").open("wb"), stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield directory / "run"
    finally:
        from prefect_lite.client.runtime import close_runtime

        close_runtime()
        worker.terminate()
        worker.wait(timeout=40)
        subprocess.run([sys.executable, "-m", "prefect_lite.cli", "broker", "stop"], env=environ, check=False)
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--round-trips", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rounds: list[dict[str, float]] = []
    with deployment(args.limit) as runtime_dir:
        for _ in range(args.rounds):
            bare = measure_bare_path(args.runs, args.round_trips)
            ours = measure_prefect_lite(runtime_dir, args.runs, args.round_trips)
            ours["async_rate_vs_bare"] = ours["async_runs_per_second"] / bare["runs_per_second"]
            ours["sync_rate_vs_bare"] = ours["sync_runs_per_second"] / bare["runs_per_second"]
            ours["round_trip_vs_bare"] = ours["round_trip_p50_ms"] / bare["round_trip_p50_ms"]
            rounds.append({f"bare_{key}": value for key, value in bare.items()} | ours)
    figures = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
    figures["import_ms"] = import_seconds() * 1e3
    if args.json:
        print(json.dumps(figures, indent=1))
        return
    for key, value in figures.items():
        spread = [r[key] for r in rounds if key in r]
        print(f"{key:>28} {value:12.2f}" + (f"   ({min(spread):.2f} to {max(spread):.2f})" if spread else ""))


if __name__ == "__main__":
    main()
