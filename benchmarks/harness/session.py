"""One peer at work: its server, brokers, worker tree and client process, from start to end."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from harness.declaration import Layout, Peer
from harness.driving import Driver, PeerFailed
from harness.machine import Conditions, conditions_between, read_machine
from harness.peers import FOLDER, SHARED
from harness.processes import MARK, Processes, clean_environ, last_words
from harness.server import Server
from harness.usage import peak_memory, read_usage

FIRST_RUN_SECONDS = 60.0


@dataclass(frozen=True)
class Measured:
    """A driver's answer, with what the machine and the session's processes did meanwhile.

    Attributes:
        answer: As the driver gave it.
        conditions: Of the time from request to answer.
        cpu: CPU seconds by role.
    """

    answer: dict[str, Any]
    conditions: Conditions
    cpu: dict[str, float]


class Session:
    """Starts everything on entry, with one run already waiting for the worker, and ends everything on exit.

    Args:
        peer: Whom to start.
        layout_name: Which of its layouts.
        python: The interpreter of its venv.

    Attributes:
        import_seconds: Of the library and the app, in the client process.
        first_run_seconds: From the start of the worker process to the end of the run that waited for it.
            None where the declaration skips "E/first_run": then the run is sent after the worker has started.
        start_conditions: What the machine did during that time.
    """

    def __init__(self, peer: Peer, layout_name: str, python: Path) -> None:
        self.peer = peer
        self.layout: Layout = peer.layouts[layout_name]
        self.import_seconds = 0.0
        self.first_run_seconds: float | None = None
        self.start_conditions = Conditions()
        self._python = python
        self._scratch = Path(tempfile.mkdtemp(prefix="plb-"))
        self.folder = FOLDER / peer.name
        self._server = Server(self._scratch / "valkey") if peer.redis else None
        self.environ = self._environment(layout_name)
        self._processes = Processes(self._scratch, self.environ, self.folder)
        self._driver: Driver | None = None

    def __enter__(self) -> Session:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def measure(self, request: dict[str, Any], timeout: float = 60.0) -> Measured:
        """Let the driver do this, and watch.

        Raises:
            PeerFailed: The driver failed, took longer than ``timeout`` seconds, or a process ended meanwhile.
        """
        assert self._driver is not None
        roles = self._roles()
        machine, usage = read_machine(), read_usage(roles)
        own = psutil.Process().cpu_times()
        try:
            answer = self._driver.ask(request, timeout)
            self._check()
        except PeerFailed as failure:
            raise PeerFailed(f"{failure}{self._worker_words()}") from None
        cpu = read_usage(self._roles()).since(usage)
        spent = psutil.Process().cpu_times()
        harness = spent.user + spent.system - own.user - own.system
        return Measured(answer, conditions_between(machine, read_machine(), sum(cpu.values()) + harness), cpu)

    def peak_memory(self) -> dict[str, float]:
        """Peak resident memory by role so far, in MiB."""
        return {role: peak_memory(processes) for role, processes in self._roles().items()}

    def close(self) -> None:
        """End all processes and remove the folder; safe to repeat."""
        if self._driver is not None:
            self._driver.stop()
            self._driver = None
        self._processes.end()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _start(self) -> None:
        if self._server is not None:
            self._server.wait_until_ready(self._processes.spawn("redis", "valkey", self._server.command()))
        for number, command in enumerate(self.peer.brokers):
            self._processes.spawn("broker", f"broker{number}", self._filled(command))
        self._driver = Driver(self.peer.name, self.folder, self._python, self._spawn_client, self._check)
        try:
            self.import_seconds = self._driver.ready()["import_seconds"]
            self._run_first(self._driver)
        except PeerFailed as failure:
            raise PeerFailed(f"did not start: {failure}{self._worker_words()}") from None

    def _run_first(self, driver: Driver) -> None:
        task = "async_noop" if self.peer.kinds[0] == "async" else "noop"
        waits = self.peer.skip_reason("E", "first_run") is None
        if waits:
            driver.ask({"do": "enqueue", "task": task}, FIRST_RUN_SECONDS)
        usage, machine = read_usage(self._roles()), read_machine()
        started = time.monotonic()
        for number, command in enumerate(self.layout.workers):
            self._processes.spawn("worker", f"worker{number}", self._filled(command))
        if not waits:
            driver.ask({"do": "enqueue", "task": task}, FIRST_RUN_SECONDS)
        ended = driver.ask({"do": "collect"}, FIRST_RUN_SECONDS)["ended"]
        if waits:
            self.first_run_seconds = ended - started
        spent = read_usage(self._roles()).since(usage)
        self.start_conditions = conditions_between(machine, read_machine(), sum(spent.values()))

    def _roles(self) -> dict[str, list[psutil.Process]]:
        return self._processes.by_role()

    def _spawn_client(self, name: str, command: list[str], keep: tuple[int, ...]) -> subprocess.Popen[bytes]:
        return self._processes.spawn("client", name, command, keep)

    def _check(self) -> None:
        for role in ("worker", "broker", "redis"):
            if self._processes.ended(role):
                raise PeerFailed(f"a {role} process ended")

    def _worker_words(self) -> str:
        words = last_words(self._scratch / "worker0.log")
        return f"; worker: {words}" if words else ""

    def _filled(self, command: tuple[str, ...]) -> list[str]:
        return [self._fill(part) for part in command]

    def _fill(self, text: str) -> str:
        values = {
            "python": self._python,
            "bin": self._python.parent,
            "dir": self.folder,
            "scratch": self._scratch,
        }
        for name, value in values.items():
            text = text.replace("{" + name + "}", str(value))
        return text

    def _environment(self, layout_name: str) -> dict[str, str]:
        environ = clean_environ() | {
            "HOME": str(self._scratch),
            "TMPDIR": str(self._scratch),
            "PYTHONPATH": f"{self.folder}:{SHARED}",
            "BENCH_CONCURRENCY": str(self.layout.concurrency),
            "BENCH_LAYOUT": layout_name,
            MARK: str(self._scratch),
        }
        if self._server is not None:
            environ["BENCH_REDIS_URL"] = self._server.url
            environ["BENCH_REDIS_SOCKET"] = str(self._server.socket_path)
        return environ | {name: self._fill(value) for name, value in self.peer.environ.items()}
