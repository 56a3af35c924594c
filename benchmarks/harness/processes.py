"""The processes of one session: started apart, found again by their environment, and all ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import psutil

MARK = "BENCH_SCRATCH"
GRACE_SECONDS = 3.0
BROKER_GRACE_SECONDS = 10.0


class Processes:
    """What was started for one session, and what that started in turn.

    Args:
        scratch: The session's private folder; every process of it has it in its environment.
        environ: The environment of all of them.
        folder: Their working directory.
    """

    def __init__(self, scratch: Path, environ: dict[str, str], folder: Path) -> None:
        self._scratch = scratch
        self._environ = environ
        self._folder = folder
        self._roots: dict[str, list[subprocess.Popen[bytes]]] = {
            "client": [],
            "broker": [],
            "worker": [],
            "redis": [],
        }

    def spawn(
        self, role: str, name: str, command: list[str], keep: tuple[int, ...] = ()
    ) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own, with its output in ``<scratch>/<name>.log``."""
        with (self._scratch / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=keep,
                start_new_session=True,
            )
        self._roots[role].append(process)
        return process

    def ended(self, role: str) -> bool:
        """Whether a process of this role that should be running is not."""
        return any(process.poll() is not None for process in self._roots[role])

    def by_role(self) -> dict[str, list[psutil.Process]]:
        """All living processes of the session.

        One that was not started here is a broker, or the Redis of one.
        """
        found: dict[str, list[psutil.Process]] = {role: [] for role in self._roots}
        known: set[int] = set()
        for role, roots in self._roots.items():
            for root in roots:
                for process in _tree(root.pid):
                    if process.pid not in known:
                        known.add(process.pid)
                        found[role].append(process)
        for process in self._marked():
            if process.pid not in known:
                found["redis" if _is_redis(process) else "broker"].append(process)
        return found

    def end(self) -> None:
        """End them all: asked first, then by force; clients and workers before what they depend on."""
        for role in ("client", "worker"):
            end_all([process for root in self._roots[role] for process in _tree(root.pid)], GRACE_SECONDS)
        roles = self.by_role()
        end_all(roles["client"] + roles["worker"] + roles["broker"], BROKER_GRACE_SECONDS)
        end_all(self.by_role()["redis"], GRACE_SECONDS)
        for roots in self._roots.values():
            for root in roots:
                root.wait()

    def _marked(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if _belongs_to(process, self._scratch)]


def _belongs_to(process: psutil.Process, scratch: Path) -> bool:
    """By its environment, or where it runs: a Valkey writes its title over its environment."""
    try:
        return process.environ().get(MARK) == str(scratch) or Path(process.cwd()).is_relative_to(scratch)
    except (psutil.Error, OSError):
        return False  # another user's, or gone


def _is_redis(process: psutil.Process) -> bool:
    try:
        return process.name().startswith(("valkey", "redis"))
    except psutil.Error:
        return False


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def end_all(processes: list[psutil.Process], grace_seconds: float) -> None:
    """Ask them all to end, then use force; the root of a tree first: its children mostly end with it."""
    for process in processes:
        _send(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=grace_seconds)
    for process in alive:
        _send(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=grace_seconds)


def _send(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


def clean_environ() -> dict[str, str]:
    """This process's environment without what would change a peer's behaviour."""
    foreign = ("PREFECT", "PYTHON", "CELERY", "VIRTUAL_ENV", "BENCH_", "DRAMATIQ", "dramatiq", "UVLOOP")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def last_words(path: Path, lines: int = 3) -> str:
    """The end of a log, for the reason of a failure."""
    try:
        text = path.read_text(errors="replace").strip()
    except OSError:
        return ""
    return " | ".join(text.splitlines()[-lines:])[-300:]
