"""The pool of threads, and how they share the interpreter with the connection thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prefect_lite_worker.threads import ThreadPool
from scripted_broker import wait_until


class Gated(threading.Thread):
    """As beside threads that are busy in Python: it takes long until a thread has started."""

    gate = threading.Event()

    def start(self) -> None:
        if self.name.startswith("prefect-lite-run"):
            assert self.gate.wait(10)
        super().start()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    monkeypatch.setattr(Gated, "gate", threading.Event())
    monkeypatch.setattr(threading, "Thread", Gated)
    yield Gated.gate
    Gated.gate.set()


def fake_run(started: float = 0.0) -> Any:
    return SimpleNamespace(task=SimpleNamespace(name="one"), started=started)


def pool_of(limit: int, executed: list[Any]) -> ThreadPool:
    return ThreadPool(executed.append, limit)


def test_who_submits_does_not_wait_for_threads_to_start(gate: threading.Event) -> None:
    """The connection thread would miss a renewal."""
    executed: list[Any] = []
    pool = pool_of(10, executed)
    runs = [fake_run() for _ in range(10)]
    pool.submit(runs)
    assert pool.grow(), "all of them wait"
    assert not executed
    gate.set()
    wait_until(lambda: len(executed) == 10)
    pool.stop(exiting=False)
    assert executed == runs


def test_a_pool_may_stop_before_its_threads_have_started(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefect_lite_worker.threads.JOIN_SECONDS", 0.05)
    pool = pool_of(4, [])
    pool.submit([fake_run(), fake_run()])
    assert pool.names() == {}
    pool.stop(exiting=False)
    gate.set()
    wait_until(lambda: not any(thread.name.startswith("prefect-lite-") for thread in threading.enumerate()))
