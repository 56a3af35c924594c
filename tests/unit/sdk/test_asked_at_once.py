"""Runs whose SUBMIT asks for their end, because the caller waited for the last one."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from prefect_lite import PrefectDistributedFuture, batch, task
from prefect_lite.client.runtime import close_runtime, get_runtime
from prefect_lite.exceptions import BrokerUnreachable, IdempotencyConflict, QueueFull
from prefect_lite.protocol import messages as m
from prefect_lite.settings import get_settings
from tests.tools.waiting import wait_until
from tests.unit.sdk.scripted_broker import ScriptedBroker


@task
def add(x: int, y: int = 0) -> int:
    return x + y


@pytest.fixture
def waited(broker: ScriptedBroker) -> ScriptedBroker:
    """A broker whose client has waited for a run, so that the next one is asked for at once."""
    future = add.delay(0)
    broker.end(future.task_run_id.hex, 0)
    future.result(timeout=5)
    return broker


def test_one_round_trip_is_saved(waited: ScriptedBroker) -> None:
    watches = len(waited.watches)
    future = add.delay(1)
    peer = next(iter(waited.peers))
    waited._watchers[future.task_run_id.hex] = {peer}
    waited.end(future.task_run_id.hex, 4)
    assert future.result(timeout=5) == 4
    assert waited.submits[1].watch
    assert len(waited.watches) == watches


def test_a_run_refused_in_a_batch_is_told(waited: ScriptedBroker) -> None:
    def refuse(one: m.Submit) -> m.Message:
        waited.submits.remove(one)  # it has no record of it
        return m.Refused(one.run_id, "full", "Full.")

    waited.accept = refuse
    futures: list[Any] = []

    def work() -> None:
        with batch():
            futures.append(add.delay(1))
            with pytest.raises(QueueFull):
                futures[0].result(timeout=5)

    with pytest.raises(QueueFull):
        work()
    with pytest.raises(QueueFull):
        futures[0].result(timeout=5)


def threads_waiting(run_id: str) -> bool:
    return isinstance(get_runtime()._link._watching._listeners.get(run_id), list)


def test_others_who_watch_a_refused_run_go_on(waited: ScriptedBroker) -> None:
    run_id = UUID(int=77)
    answer = threading.Event()

    def refuse(one: m.Submit) -> m.Message:
        assert answer.wait(5)
        return m.Refused(one.run_id, "conflict", "Other arguments.")

    waited.accept = refuse
    other: PrefectDistributedFuture[Any] = PrefectDistributedFuture(run_id)
    results: list[Any] = []

    thread = threading.Thread(target=lambda: results.append(other.result(timeout=10)))

    def work() -> None:
        with batch():
            add.apply_async((1,), run_id=run_id)
            thread.start()
            wait_until(lambda: threads_waiting(run_id.hex))
            answer.set()
            waited.wait_for_submits(2)

    with pytest.raises(IdempotencyConflict):
        work()
    wait_until(lambda: run_id.hex in waited.watches)
    waited.end(run_id.hex, 3)
    thread.join(5)
    assert results == [3]


def test_a_forked_child_waits_on_its_own_connection(waited: ScriptedBroker) -> None:
    future = add.delay(1)
    waited.end(future.task_run_id.hex, 9)
    wait_until(lambda: future.task_run_id.hex in waited.states)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, str(future.result(timeout=5)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    assert os.read(reader, 10) == b"9"
    os.close(reader)


def test_after_the_client_was_closed_another_one_waits(waited: ScriptedBroker) -> None:
    future = add.delay(1)
    close_runtime()
    waited.end(future.task_run_id.hex, 9)
    assert future.result(timeout=5) == 9


def test_a_key_of_an_existing_run_is_followed(waited: ScriptedBroker) -> None:
    existing = add.apply_async((1,), idempotency_key="k")
    waited.end(existing.task_run_id.hex, 6)
    wait_until(lambda: existing.task_run_id.hex in waited.states)
    assert existing.result(timeout=5) == 6
    waited.accept = lambda one: m.Accepted([], [[one.run_id, existing.task_run_id.hex]])
    with batch():
        future = add.apply_async((1,), idempotency_key="k")
        assert waited.wait_for_submits(3)[2].watch
    assert future.result(timeout=5) == 6
    assert future.task_run_id == existing.task_run_id
    assert future.state.is_completed()


def test_a_run_that_was_never_sent_is_not_waited_for(
    client_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_LITE_CONNECT_TIMEOUT_SECONDS", "0.3")
    get_settings.cache_clear()  # type: ignore[attr-defined]
    get_runtime().waited = True
    with pytest.raises(BrokerUnreachable), batch():
        future = add.delay(1)
    with pytest.raises(BrokerUnreachable):
        future.result(timeout=5)
