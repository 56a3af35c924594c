"""A private home with real processes in it: brokers, workers and clients as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import psutil

from prefect_lite.embedded.home import Home as HomePaths
from prefect_lite.embedded.home import read_record
from prefect_lite.embedded.local_broker import LocalStatus, local_status, stop_local
from prefect_lite.embedded.locks import is_locked, owner_of
from prefect_lite.settings import Settings, load_settings
from tests.tools.leftovers import end_with
from tests.tools.waiting import wait_until

__all__ = ["PATIENT_TIMES", "PrivateHome", "Running", "wait_until"]

SHORT_TIMES = {
    "lease_seconds": 1.5,
    "renew_seconds": 0.5,
    "disconnect_grace_seconds": 0.5,
    "reap_seconds": 0.1,
}

COMMANDS = """
    # What each command of the arguments returns and prints
    import io, json, shlex, sys
    from contextlib import redirect_stderr, redirect_stdout
    from prefect_lite.cli import main

    said = []
    for command in sys.argv[1:]:
        sys.argv = ["prefect-lite", *shlex.split(command)]
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = main()
        said.append([sys.argv, code, out.getvalue(), err.getvalue()])
    print(json.dumps(said))
"""

PATIENT_TIMES = {"lease_seconds": 6.0, "renew_seconds": 2.0, "disconnect_grace_seconds": 5.0}
"""Where nothing may be lost and no end of a lease is waited for: a busy machine may well stand still."""


def describe(process: psutil.Process) -> str:
    """Pid and command line, as far as it can be told."""
    try:
        return f"{process.pid} {' '.join(process.cmdline())}"
    except psutil.Error:
        return str(process.pid)


class Running:
    """A started process whose output goes to a file."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        """Everything it has printed so far, stdout and stderr."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, timeout: float = 15.0) -> None:
        """Wait until it has printed ``text``."""
        wait_until(
            lambda: text in self.output or self.process.poll() is not None,
            timeout,
            f"{text!r} from {self.name}",
        )
        assert text in self.output, f"{self.name} ended without {text!r}:\n{self.output}"

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and reap it."""
        self.process.kill()
        self.process.wait()

    def wait(self, timeout: float = 15.0) -> int:
        """Wait for its end and return the exit code."""
        return self.process.wait(timeout)


class PrivateHome:
    """``PREFECT_LITE_HOME`` and a project directory of its own, short protocol times.

    Attributes:
        root: The home directory.
        project: Where ``write`` puts modules, and the current directory of what runs.
        settings: The same settings for code in the test process.
        env: The environment of the processes; add to it before starting them.
    """

    def __init__(self, directory: Path, **overrides: object) -> None:
        self.root = directory / "home"
        self.project = directory / "project"
        self.project.mkdir()
        self.runtime = Path(
            tempfile.mkdtemp(prefix="pl-", dir="/tmp")
        )  # pytest's own is too long for a socket
        values = {**SHORT_TIMES, **overrides, "home": self.root, "runtime_dir": self.runtime}
        self.settings: Settings = load_settings(**values)
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_LITE_")}
        self.env.update({f"PREFECT_LITE_{key.upper()}": str(value) for key, value in values.items()})
        self.env["PYTHONDONTWRITEBYTECODE"] = "1"
        self.paths = HomePaths(self.root)
        self._running: list[Running] = []
        self._started: list[subprocess.Popen[bytes]] = []
        self._end = end_with(self, self._started, self.runtime)

    # -- files and processes ----------------------------------------------------------------------

    def write(self, name: str, text: str, directory: Path | None = None) -> Path:
        """Write a file of the project (dedented)."""
        path = (directory or self.project) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def python(
        self, code: str, *args: str, timeout: float = 30.0, check: bool = True, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run code as ``python -c`` in the project directory and wait for its end."""
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), *args],
            cwd=cwd or self.project,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert result.returncode == 0, f"exit {result.returncode}:\n{result.stdout}\n{result.stderr}"
        return result

    def commands(self, *commands: str) -> list[subprocess.CompletedProcess[str]]:
        """Run several ``prefect-lite`` commands after each other in one process, which starts but once."""
        said = json.loads(self.python(COMMANDS, *commands).stdout)
        return [subprocess.CompletedProcess(args, *rest) for args, *rest in said]

    def cli(self, *args: str, timeout: float = 30.0, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the console script ``prefect-lite`` and wait for its end."""
        result = subprocess.run(
            [str(Path(sys.executable).with_name("prefect-lite")), *args],
            cwd=self.project,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert result.returncode == 0, f"exit {result.returncode}:\n{result.stdout}\n{result.stderr}"
        return result

    def start(self, name: str, *command: str, cwd: Path | None = None) -> Running:
        """Start ``python *command``; it is ended with the test."""
        log = self.project / f"{name}.{len(self._running)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=cwd or self.project,
                env={**self.env, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._started.append(process)
        running = Running(name, process, log)
        self._running.append(running)
        return running

    # -- the local broker -------------------------------------------------------------------------

    @property
    def status(self) -> LocalStatus:
        return local_status(self.settings)

    @property
    def broker_pid(self) -> int:
        """0 when no broker holds this home."""
        return int((owner_of(self.paths.broker_lock) or {}).get("pid", 0))

    @property
    def valkey_pid(self) -> int:
        """0 when no Valkey holds this home's data."""
        if not is_locked(self.paths.valkey_lock):
            return 0
        return int(read_record(self.paths.valkey_record).get("pid", 0))

    def kill_broker(self) -> int:
        """``kill -9`` the local broker and wait until it is gone; returns its pid."""
        pid = self.broker_pid
        assert pid, "no broker runs"
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self.broker_pid != pid, what="the broker's end")
        return pid

    def kill_valkey(self) -> int:
        """``kill -9`` the local Valkey; returns its pid."""
        pid = self.valkey_pid
        assert pid, "no Valkey runs"
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self.valkey_pid != pid, what="the Valkey server's end")
        return pid

    def processes(self) -> list[psutil.Process]:
        """Every living process that belongs to this home, whoever started it."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            try:
                if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                    continue
                # Valkey overwrites its environment with its title, but works in the data directory.
                ours = process.environ().get("PREFECT_LITE_HOME") == str(self.root)
                if ours or Path(process.cwd()).is_relative_to(self.root):
                    found.append(process)
            except psutil.Error:  # ended meanwhile, or not ours to look at
                continue
        return found

    def logs(self) -> str:
        """The logs of broker and Valkey, for a failing test."""
        parts = []
        for path in (self.paths.broker_log, self.paths.valkey_log):
            if path.is_file():
                parts.append(f"--- {path.name}\n{path.read_text(errors='replace')[-6000:]}")
        return "\n".join(parts)

    def close(self) -> None:
        """End everything.

        Raises:
            AssertionError: A process of this home had to be killed.
        """
        for running in self._running:
            if running.process.poll() is None:
                running.process.terminate()
        for running in self._running:
            try:
                running.process.wait(5)
            except subprocess.TimeoutExpired:
                running.kill()
        if self.root.is_dir():
            stop_local(self.settings)
        deadline = time.monotonic() + 5.0
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.01)  # those that have let go of their locks take a moment to end
        described = [describe(process) for process in left]
        for process in left:
            process.kill()
        self._end()
        assert not described, f"left behind: {described}"
