"""Processes are known by pid and start time, and ended politely first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from prefect_lite.embedded.processes import LOG_LIMIT_BYTES, end_process, identity, is_alive, open_log

STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); input()"


@pytest.fixture
def child() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", STUBBORN], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_a_pid_alone_is_not_an_identity(child: subprocess.Popen[bytes]) -> None:
    started = identity(child.pid)
    assert is_alive(child.pid, started)
    assert not is_alive(child.pid, "another time")
    child.kill()
    child.communicate()
    assert not is_alive(child.pid, started)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_zombie_is_not_alive(child: subprocess.Popen[bytes]) -> None:
    started = identity(child.pid)
    child.kill()
    assert child.stdout is not None
    child.stdout.read()  # its end, but nobody has waited for it yet
    assert end_process(child.pid, started, lambda: not is_alive(child.pid, started), 5)
    child.communicate()


def test_who_ignores_sigterm_is_killed(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout is not None
    child.stdout.readline()
    started = identity(child.pid)
    assert end_process(child.pid, started, lambda: child.poll() is not None, 0.1)
    assert child.returncode == -9
    child.communicate()


def test_a_long_log_is_begun_anew(tmp_path: Path) -> None:
    log = tmp_path / "broker.log"
    with log.open("wb") as file:
        file.truncate(LOG_LIMIT_BYTES + 1)
    with open(open_log(log), "w") as file:
        file.write("new")
    assert log.read_text() == "new"
    assert (tmp_path / "broker.log.1").stat().st_size == LOG_LIMIT_BYTES + 1
