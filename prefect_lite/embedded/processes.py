"""Starting processes that outlive us, and ending processes that we know by pid and start time."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

POLL_SECONDS = 0.01
LOG_LIMIT_BYTES = 5 * 1024 * 1024


def identity(pid: int) -> str:
    """When a process started, as an opaque text, so that a reused pid is not taken for it.

    Returns:
        "" when the process is gone, or on systems without ``/proc`` (there the pid alone has to do).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    # The command name may hold spaces and brackets: count from the last bracket. 22nd field: start time.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()


def is_alive(pid: int, started: str) -> bool:
    """Whether the process that ``identity`` described is still running (a zombie is not)."""
    if pid <= 0:
        return False
    if started or sys.platform == "linux":
        return bool(started) and identity(pid) == started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def hostname() -> str:
    """The name under which this machine enters its records (a home directory may be on a network disk)."""
    return platform.node()


def end_process(pid: int, started: str, ended: Callable[[], bool], timeout_seconds: float) -> bool:
    """Send SIGTERM, wait until ``ended()``, after ``timeout_seconds`` SIGKILL.

    ``ended`` is asked instead of the pid where a lock tells the truth (a lock also covers forked children).

    Returns:
        False when the process could not be ended.
    """
    for number, patience in ((signal.SIGTERM, timeout_seconds), (signal.SIGKILL, 5.0)):
        if ended():
            return True
        if is_alive(pid, started):
            try:
                os.kill(pid, number)
            except PermissionError:
                return False
            except ProcessLookupError:
                pass  # it ended between the two calls; `ended` will say so
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if ended():
                return True
            time.sleep(POLL_SECONDS)
    return ended()


def open_log(path: Path) -> int:
    """Open a log for appending, 0600; one that has grown too long is kept as ``.1`` and begun anew."""
    try:
        if path.stat().st_size > LOG_LIMIT_BYTES:
            path.replace(path.with_name(path.name + ".1"))
    except FileNotFoundError:
        pass
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def start_detached(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path, pass_fds: Sequence[int] = ()
) -> None:
    """Start a process that is nobody's child, in a session of its own, its output going to ``log``.

    The shell in between ends at once, so the process is adopted by init and never left as our zombie. No
    descriptor but ``pass_fds`` is inherited: one that kept our stdout would make ``program | cat`` hang.

    Raises:
        OSError: No shell could be started.
    """
    output = open_log(log)
    try:
        subprocess.run(
            ["/bin/sh", "-c", '"$@" &', "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
            close_fds=True,
            pass_fds=tuple(pass_fds),
            check=True,
        )
    finally:
        os.close(output)
