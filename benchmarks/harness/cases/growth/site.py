"""A private deployment of prefect_lite: a Valkey, brokers, workers and clients, all real processes."""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import redis
from prefect_lite_broker.valkey import ALLOCATOR, find_server, server_options

from harness.processes import clean_environ
from prefect_lite.embedded.home import Home, configured_tokens
from prefect_lite.settings import load_settings

from .process import Started, wait_until

PROGRAMS = Path(__file__).parents[1] / "programs"
START_SECONDS = 30.0
ANSWER_SECONDS = 150.0
SLOTS = 500
"""Runs at a time of a worker, as in the throughput cases."""
KIB = 1024


class Site:
    """A Valkey with the options and the allocator of the embedded one, and what is started beside it.

    Everything is ended on leaving the ``with`` block. Brokers, workers and clients talk through unix sockets.

    Args:
        appendfsync: Of the Valkey.
        settings: ``PREFECT_LITE_*`` for all processes, by their names in small letters.

    Attributes:
        folder: Private, removed at the end.
        valkey_socket: Where the Valkey listens.
        brokers: In the order of their numbers.
    """

    def __init__(self, *, appendfsync: str = "everysec", **settings: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="plg-"))
        self._home = Home(self.folder / "home")
        self.valkey_socket = self.folder / "valkey.sock"
        self._appendfsync = appendfsync
        self._stack = ExitStack()
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._environ = clean_environ()
        values: dict[str, Any] = {
            "home": self._home.root,
            "runtime_dir": self.folder / "run",
            "redis_url": f"unix://{self.valkey_socket}",
            **settings,
        }
        self._environ |= {f"PREFECT_LITE_{key.upper()}": str(value) for key, value in values.items()}
        self.brokers: list[Started] = []
        self._sockets: list[Path] = []
        self._count = 0

    def __enter__(self) -> Self:
        try:
            self._start_valkey()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start(self, name: str, *argv: str, piped: bool = False, **environ: str) -> Started:
        """Start any process; it is ended with the site."""
        self._count += 1
        log = self.folder / f"{name}.{self._count}.log"
        started = Started(name, argv, self._environ | environ, log, piped=piped)
        self._stack.callback(started.end)
        return started

    def _start_valkey(self) -> None:
        for folder in (self._home.root, self._home.data, self._home.valkey_log.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        options = server_options(self._home, self.valkey_socket, self._appendfsync)
        argv = [str(find_server())]
        for name, value in options.items():
            argv += [f"--{name}", value]
        valkey = self.start("valkey", *argv, GLIBC_TUNABLES=ALLOCATOR["GLIBC_TUNABLES"])
        valkey.wait_for(self.valkey_socket.exists, START_SECONDS, "socket")

    # -- processes --------------------------------------------------------------------------------

    def start_broker(self) -> Started:
        """One more broker; workers and clients are told which one is theirs."""
        path = self.folder / f"broker{len(self.brokers)}.sock"
        broker = self.start("broker", sys.executable, "-m", "prefect_lite_broker", "--unix", str(path))
        self.brokers.append(broker)
        self._sockets.append(path)
        broker.wait_for(path.exists, START_SECONDS, "socket")
        return broker

    def start_worker(self, *, broker: int = 0, keys: int = 1) -> Started:
        """A worker process with ``SLOTS`` slots, connected to its broker.

        Args:
            broker: Number of its broker.
            keys: How many of the keyed tasks it serves besides the plain ones.
        """
        argv = [sys.executable, str(PROGRAMS / "growth_tasks.py"), str(SLOTS), str(keys)]
        worker = self.start("worker", *argv, PREFECT_LITE_BROKER_URL=self._url(broker))
        worker.wait_for(lambda: "Connected" in worker.log, START_SECONDS, "connection")
        return worker

    def start_client(self, *, broker: int = 0) -> Started:
        """A client process that is asked in JSON lines; see ``programs/load_client.py``."""
        argv = [sys.executable, str(PROGRAMS / "load_client.py")]
        return self.start("client", *argv, piped=True, PREFECT_LITE_BROKER_URL=self._url(broker))

    def start_crowd(self, count: int) -> Started:
        """``count`` idle client connections to the first broker, all open on return."""
        token = configured_tokens(load_settings(home=self._home.root)).client
        argv = [sys.executable, str(PROGRAMS / "crowd.py"), str(self._sockets[0]), str(count), token]
        crowd = self.start("crowd", *argv, piped=True)
        crowd.read_line(START_SECONDS + count / 100)
        return crowd

    def _url(self, broker: int) -> str:
        return f"ws+unix://{self._sockets[broker]}"

    # -- Redis ------------------------------------------------------------------------------------

    def _info(self, section: str) -> dict[str, Any]:
        with redis.Redis(unix_socket_path=str(self.valkey_socket)) as client:
            return client.info(section)  # pyright: ignore[reportReturnType]

    def redis_bytes(self) -> int:
        """``used_memory``."""
        return int(self._info("memory")["used_memory"])

    def wait_for_rewrite(self, seconds: float = 60.0) -> None:
        """Wait until Valkey is not rewriting its append-only file, which would take a core meanwhile."""

        def idle() -> bool:
            state = self._info("persistence")
            return not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]

        wait_until(idle, seconds, "end of the rewrite of the append-only file")

    def broker_kib(self) -> float:
        """Resident memory of the first broker in KiB."""
        return psutil.Process(self.brokers[0].pid).memory_info().rss / KIB
