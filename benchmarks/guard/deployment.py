"""Client, broker and worker in this process, each in its own threads, and a Valkey beside it."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from benchmarks.guard.counting import Counter, Counts, total
from benchmarks.guard.peers import Peer
from benchmarks.guard.redis_side import RedisSide, Traffic
from benchmarks.guard.seams import seam
from benchmarks.guard.stillness import Stillness

BETWEEN_SECONDS = 10.0
"""By so much the clock is put forward before each measurement: every timer of an idle system has gone off."""
AFTER_SECONDS = (0.01, 0.09)
"""And by these steps as part of it: what is put off for a moment, such as DONE, is work all the same. A timer
that goes off much too late would count as a stall."""
START_SECONDS = 20.0
CLIENT, BROKER, WORKER, GUARD = "client", "broker", "worker", "guard"
ROLES = (CLIENT, BROKER, WORKER)
T = TypeVar("T")


def _at_once() -> bool:
    return True


DUTIES = ("AUDIT_SECONDS", "POLL_SECONDS", "REAP_SECONDS", "RETENTION_SECONDS", "WATCH_REFRESH_SECONDS")
"""Periods of what is done whether there are runs or not: none of it falls into a measurement."""


class Performed(NamedTuple):
    """What an action made the parts do.

    Attributes:
        counts: By role.
        turns: Of the event loops, by role.
        redis: Of everybody.
    """

    counts: dict[str, Counts]
    turns: dict[str, int]
    redis: Traffic


class Deployment:
    """Started once for all groups that need it; a context manager.

    Args:
        counter: Made before any other thread.
        stillness: The clock of all loops.
    """

    def __init__(self, counter: Counter, stillness: Stillness) -> None:
        self._counter = counter
        self._stillness = stillness
        self._folder = tempfile.TemporaryDirectory(prefix="plg-", dir="/tmp")
        self._path = Path(self._folder.name)
        self._valkey: subprocess.Popen[bytes] | None = None
        self._broker: Any = None
        self._peers: list[Peer] = []
        self._worker: Any = None
        self._roles: dict[int | None, str] = {threading.get_ident(): CLIENT}

    def __enter__(self) -> Deployment:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        logging.getLogger("prefect_lite").setLevel(logging.CRITICAL)
        logging.getLogger("prefect_lite_broker").setLevel(logging.CRITICAL)
        self._start_valkey()
        os.environ.update(self._environment())
        self.settings = seam("prefect_lite.settings", "get_settings")()
        self._start_broker()
        self.client = self._peer("client")
        self.worker = self._peer("worker", "guard.peer")
        self._start_client()
        self._start_worker()
        # A thread keeps the interpreter until it waits: who goes first is decided by what they wait for.
        sys.setswitchinterval(1000.0)
        self._stillness.clock.stop()

    def __exit__(self, *_exc: object) -> None:
        sys.setswitchinterval(0.005)
        self._stillness.clock.go_on()
        if self._worker is not None:
            self._worker.stop("the guard has seen enough", grace_seconds=0.0)
        seam("prefect_lite.client.runtime", "close_runtime")()
        for peer in self._peers:
            peer.close()
        if self._broker is not None:
            asyncio.run_coroutine_threadsafe(self._broker.stop(), self._loop).result(START_SECONDS)
            self._loop.call_soon_threadsafe(self._loop.stop)
        if self._valkey is not None:
            self._valkey.kill()
            self._valkey.wait()
        self._folder.cleanup()

    # -- what the groups do -----------------------------------------------------------------------

    def perform(self, action: Callable[[], object], until: Callable[[], bool] = _at_once) -> Performed:
        """Count what everybody does from a quiet state to the next one.

        Args:
            action: Begins it; it may wait for the end too.
            until: Whether what was to happen has happened. A function that waits for its thread is not seen
                from outside.

        Raises:
            NeverQuiet: It does not end by itself.
        """
        self._stillness.put_forward(BETWEEN_SECONDS)
        self.settle()
        before, turns = self.redis.traffic(), self._stillness.turns()
        self._counter.start()
        try:
            action()
            self._counter.leave()
            self.settle(until)
            turned = self._stillness.turns()
            for seconds in AFTER_SECONDS:
                self._stillness.put_forward(seconds)
                self.settle()
        finally:
            counts = self._counter.stop()
        turned = {ident: now - turns.get(ident, 0) for ident, now in turned.items()}
        return Performed(
            {role: total(self.of_role(role, counts)) for role in ROLES},
            {role: sum(self.of_role(role, turned)) for role in ROLES},
            self.redis.traffic().since(before),
        )

    def of_role(self, role: str, by_thread: dict[int, T]) -> list[T]:
        """What the threads of a role did."""
        return [each for ident, each in by_thread.items() if self._roles.get(ident, WORKER) == role]

    def settle(self, until: Callable[[], bool] = _at_once) -> None:
        """Wait until ``until`` says yes and nobody has anything left to do."""
        self._stillness.wait(until, self.redis.answered)

    # -- starting ---------------------------------------------------------------------------------

    def _environment(self) -> dict[str, str]:
        values = {
            "HOME": self._path / "home",
            "RUNTIME_DIR": self._path / "run",
            "BROKER_URL": f"ws+unix://{self._path}/broker.sock",
            "REDIS_URL": f"unix://{self._path}/valkey.sock",
            "CLIENT_TOKEN": "client",
            "WORKER_TOKEN": "worker",
            "LEASE_SECONDS": 600,
            "RENEW_SECONDS": 200,
            "LIMIT": 100,
            **dict.fromkeys(DUTIES, 100_000),
        }
        return {f"PREFECT_LITE_{name}": str(value) for name, value in values.items()}

    def _start_valkey(self) -> None:
        home = seam("prefect_lite.embedded.home", "Home")(self._path)
        home.data.mkdir()
        home.logs.mkdir()
        program = seam("prefect_lite_broker.valkey", "find_server")()
        options = seam("prefect_lite_broker.valkey", "server_options")
        command = [str(program)]
        for name, value in options(home, self._path / "valkey.sock", "everysec").items():
            command += [f"--{name}", value]
        self._valkey = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.redis = RedisSide(str(self._path / "valkey.sock"))
                return
            except OSError:
                if self._valkey.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _start_broker(self) -> None:
        store = seam("prefect_lite_broker.redis_store", "RedisStore")(self.settings, "guard")
        auth = seam("prefect_lite_broker.auth", "Auth")({"client": "client", "worker": "worker"})
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, name="guard-broker", daemon=True)
        thread.start()
        self._roles[thread.ident] = BROKER

        async def start() -> None:
            broker = seam("prefect_lite_broker.app", "Broker")
            self._broker = broker(self.settings, store, broker_id="guard", auth=auth)
            await self._broker.start(unix_path=str(self._path / "broker.sock"))

        asyncio.run_coroutine_threadsafe(start(), self._loop).result(START_SECONDS)

    def _peer(self, role: str, *task_keys: str) -> Peer:
        peer = Peer(role, self.settings, task_keys)
        self._peers.append(peer)
        self._roles[peer.ident] = GUARD
        return peer

    def _start_client(self) -> None:
        """The threads that the first call makes are the client's."""
        seam("benchmarks.guard.tasks", "held.delay")(0)
        for thread in threading.enumerate():
            self._roles.setdefault(thread.ident, CLIENT)

    def _start_worker(self) -> None:
        """All threads that come later are the worker's."""
        tasks = seam("benchmarks.guard.tasks", "function"), seam("benchmarks.guard.tasks", "coroutine")
        self._worker = seam("prefect_lite_worker.app", "WorkerApp")(tasks, settings=self.settings, limit=100)
        threading.Thread(target=self._worker.serve, name="guard-worker", daemon=True).start()
        for each in tasks:
            each.delay(0).result(timeout=START_SECONDS)
