"""What one no-op run costs each process, alone and in bulk, beside the bare path.

Alone: round trips one after the other, so nothing can be batched and every process finds its caches cold.
In bulk: ``map(deferred=True)`` to the last result. For each: CPU time and voluntary context switches (a
process that went to sleep and had to be woken) of client, broker, worker and Redis, and Redis' own count of
commands; with ``--strace`` (needs the program of that name, slows everything) system calls as well.

Usage: path_cost.py [--round-trips 3000] [--runs 20000] [--rounds 3] [--kind async|sync] [--strace]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import redis
import uvloop
from bare_path import connected_client
from bare_path import deployment as bare_deployment
from budgets import deployment

ROLES = ("client", "broker", "worker", "redis")


class Spent(NamedTuple):
    """What one process spent so far: seconds, and the times it slept."""

    cpu: float
    sleeps: int


def spent(process: psutil.Process) -> Spent:
    times = process.cpu_times()
    sleeps = 0
    for status in Path(f"/proc/{process.pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile
            sleeps += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status.read_text(), re.M)[1])  # type: ignore[index]
    return Spent(times.user + times.system, sleeps)


@contextlib.contextmanager
def system_calls(pids: dict[str, int], wanted: bool) -> Iterator[dict[str, dict[str, int]]]:
    """Counts the system calls of each process meanwhile; filled when the block is left."""
    counts: dict[str, dict[str, int]] = {}
    if not wanted:
        yield counts
        return
    with tempfile.TemporaryDirectory() as directory:
        tracers = {
            role: subprocess.Popen(
                ["strace", "-f", "-c", "-p", str(pid), "-o", f"{directory}/{role}"], stderr=subprocess.DEVNULL
            )
            for role, pid in pids.items()
        }
        time.sleep(1.0)  # strace does not tell when it has attached to every thread
        try:
            yield counts
        finally:
            for role, tracer in tracers.items():
                tracer.send_signal(signal.SIGINT)
                tracer.wait(timeout=20)
                counts[role] = {}
                for line in Path(directory, role).read_text().splitlines():
                    words = line.split()
                    if len(words) >= 5 and words[3].isdigit() and words[-1] != "total":
                        counts[role][words[-1]] = int(words[3])


def observed(pids: dict[str, int], runs: int, work: Callable[[], None], strace: bool) -> dict[str, Any]:
    """Do the work; per run and role: CPU in us, sleeps, system calls."""
    processes = {role: psutil.Process(pid) for role, pid in pids.items()}
    with system_calls(pids, strace) as calls:
        before = {role: spent(process) for role, process in processes.items()}
        started = time.perf_counter()
        work()
        wall = time.perf_counter() - started
        after = {role: spent(process) for role, process in processes.items()}
    figures: dict[str, Any] = {"wall_us": wall / runs * 1e6}
    for role in ROLES:
        figures[f"{role}_cpu_us"] = (after[role].cpu - before[role].cpu) / runs * 1e6
        figures[f"{role}_sleeps"] = (after[role].sleeps - before[role].sleeps) / runs
        for name, count in calls.get(role, {}).items():
            figures[f"{role}_call_{name}"] = count / runs
    figures["total_cpu_us"] = sum(figures[f"{role}_cpu_us"] for role in ROLES)
    return figures


def commands(client: redis.Redis, runs: int, work: Callable[[], None]) -> dict[str, float]:
    """Calls of each Redis command per run, and the time in scripts, while the work is done."""
    client.config_resetstat()
    work()
    stats: dict[str, Any] = client.info("commandstats")  # type: ignore[assignment]
    figures = {
        name.removeprefix("cmdstat_"): value["calls"] / runs
        for name, value in stats.items()
        if value["calls"] / runs >= 0.005
    }
    if "cmdstat_evalsha" in stats:
        figures["evalsha_us"] = stats["cmdstat_evalsha"]["usec"] / runs
    return figures


def processes_of(runtime_dir: Path) -> dict[str, int]:
    """The embedded broker, its Valkey, and the worker of a private home."""
    with redis.Redis(unix_socket_path=str(next(runtime_dir.rglob("valkey.sock")))) as client:
        valkey: int = client.info("server")["process_id"]  # type: ignore[index]
    pids = {"client": os.getpid(), "redis": valkey}
    for process in psutil.process_iter(["cmdline", "environ"]):
        if (process.info["environ"] or {}).get("PREFECT_LITE_RUNTIME_DIR") != str(runtime_dir):
            continue
        line = " ".join(process.info["cmdline"] or [])
        if "prefect_lite_broker.embedded" in line:
            pids["broker"] = process.pid
        elif line.split()[1:2] and line.split()[1].endswith("tasks.py"):
            pids["worker"] = process.pid
    return pids


def measure_ours(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    with deployment(500) as runtime_dir:
        import tasks  # type: ignore[import-not-found]

        task = getattr(tasks, f"{args.kind}_noop")

        def alone(count: int = args.round_trips) -> None:
            for i in range(count):
                assert task.delay(i).result(timeout=30) == i

        def bulk() -> None:
            assert task.map(range(args.runs), deferred=True).result(timeout=300) == list(range(args.runs))

        alone(500)
        bulk()
        pids = processes_of(runtime_dir)
        socket = next(runtime_dir.rglob("valkey.sock"))
        figures = {
            "alone": observed(pids, args.round_trips, alone, args.strace),
            "bulk": observed(pids, args.runs, bulk, args.strace),
        }
        with redis.Redis(unix_socket_path=str(socket)) as client:
            for name, count, work in (("alone", args.round_trips, alone), ("bulk", args.runs, bulk)):
                calls = commands(client, count, work)
                figures[name] |= {f"redis_command_{key}": value for key, value in calls.items()}
        return figures


def measure_bare(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    with bare_deployment() as (directory, pids):
        pids["client"] = os.getpid()

        async def run() -> dict[str, dict[str, Any]]:
            async with connected_client(directory) as client:
                await client.bulk(2000)
                figures = {}
                for name, count in (("alone", args.round_trips), ("bulk", args.runs)):
                    processes = {role: psutil.Process(pid) for role, pid in pids.items()}
                    before = {role: spent(process) for role, process in processes.items()}
                    started = time.perf_counter()
                    if name == "bulk":
                        await client.bulk(count)
                    else:
                        for _ in range(count):
                            await client.round_trip()
                    wall = time.perf_counter() - started
                    after = {role: spent(process) for role, process in processes.items()}
                    row = {"wall_us": wall / count * 1e6}
                    for role in ROLES:
                        row[f"{role}_cpu_us"] = (after[role].cpu - before[role].cpu) / count * 1e6
                        row[f"{role}_sleeps"] = (after[role].sleeps - before[role].sleeps) / count
                    row["total_cpu_us"] = sum(row[f"{role}_cpu_us"] for role in ROLES)
                    figures[name] = row
                return figures

        return uvloop.run(run())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--round-trips", type=int, default=3_000)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kind", choices=["async", "sync"], default="async")
    parser.add_argument("--strace", action="store_true", help="count system calls; times mean nothing then")
    args = parser.parse_args()
    rounds = [(measure_bare(args), measure_ours(args)) for _ in range(args.rounds)]
    for name in ("alone", "bulk"):
        print(f"{name}: per run, median of {args.rounds} rounds")
        keys = list(dict.fromkeys(key for _, ours in rounds for key in ours[name]))
        for key in keys:
            ours = [o[name][key] for _, o in rounds if key in o[name]]
            bare = [b[name][key] for b, _ in rounds if key in b[name]]
            text = f"{key:>34} {statistics.median(ours):10.2f}"
            if len(ours) > 1:
                text += f"  ({min(ours):.2f} to {max(ours):.2f})"
            if bare:
                text += f"   bare path {statistics.median(bare):.2f}"
            print(text)


if __name__ == "__main__":
    main()
