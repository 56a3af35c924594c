"""What every test may use: a Valkey of the session, and a check that nothing is left behind."""

from __future__ import annotations

import compileall
import gc
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

from tests.tools.cluster import Cluster
from tests.tools.server import ValkeyServer
from tests.tools.shared_harness import coming_and_going
from tests.tools.waiting import wait_until

settings.register_profile("default", max_examples=60, stateful_step_count=40, deadline=None)
settings.register_profile(
    "full",
    max_examples=500,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts into the background so, and every process of a test would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

STANDING_THREADS = ("prefect-lite-client",)
"""One of a process by design, from first use to exit."""

FEW_DESCRIPTORS = 8
"""Files that modules and event loops open once, on first use."""

ROOT = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Compile what tests start as processes once, and not in each of the hundreds that write no bytecode."""
    if not hasattr(config, "workerinput"):
        for folder in ("prefect_lite", "worker", "broker", "tests/chaos", "tests/tools"):
            compileall.compile_dir(ROOT / folder, quiet=2)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """One server for the session; each test takes a namespace of its own."""
    server = ValkeyServer()
    server.start()
    _standing.add(server.pid)
    yield server
    server.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three masters for the session; each test takes a namespace of its own."""
    started = Cluster()
    try:
        started.start()
        _standing.update(node.pid for node in started.nodes)
        yield started
    finally:
        started.close()


_standing: set[int] = set()  # servers of the session, which a test may be the first to ask for


def _children() -> set[int]:
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        return {child.pid for child in psutil.Process().children()} - _standing
    found: set[int] = set()
    for task in tasks.iterdir():
        try:
            found.update(int(pid) for pid in (task / "children").read_text().split())
        except FileNotFoundError:  # a thread that ended meanwhile
            continue
    return found - _standing


def _threads() -> set[str]:
    names = {thread.name for thread in threading.enumerate()}
    ours = {name for name in names if name.startswith("prefect-lite") and name not in STANDING_THREADS}
    return {name for name in ours if not name.startswith(coming_and_going())}


def _descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fails a test that leaves child processes, threads of ours, or many open descriptors."""
    children, threads, descriptors = _children(), _threads(), _descriptors()
    yield
    try:
        if _children() - children:  # not a comparison of sets: an older child may have ended meanwhile
            wait_until(lambda: not _children() - children, 5.0, "the end of the test's child processes")
    finally:
        for pid in _children() - children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if _threads() - threads:
        wait_until(lambda: not _threads() - threads, 5.0, "the end of the test's threads")
    if _descriptors() > descriptors + FEW_DESCRIPTORS:
        gc.collect()
        assert _descriptors() <= descriptors + FEW_DESCRIPTORS, "open descriptors were left behind"
