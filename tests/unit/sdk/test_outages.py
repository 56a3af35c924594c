"""A broker that goes away: what is given up, what is withdrawn, and who looks for a broker again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest

from prefect_lite import PrefectFutureList, batch, task
from prefect_lite.client.runtime import close_runtime, get_runtime
from prefect_lite.exceptions import (
    AuthenticationFailed,
    BatchError,
    BrokerUnreachable,
    ConfigurationError,
)
from prefect_lite.protocol import messages as m
from prefect_lite.settings import get_settings
from tests.tools.waiting import wait_until
from tests.unit.sdk.scripted_broker import Peer, ScriptedBroker


@task
def add(x: int, y: int = 0) -> int:
    return x + y


@pytest.fixture
def impatient(broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch) -> ScriptedBroker:
    """A broker whose clients give up after 0.3 s."""
    monkeypatch.setenv("PREFECT_LITE_CONNECT_TIMEOUT_SECONDS", "0.3")
    get_settings.cache_clear()  # type: ignore[attr-defined]
    return broker


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run ``work``; the list gets its result or exception."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as exc:
            outcome.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


@pytest.mark.parametrize("what", ["delay", "state", "cancel"])
def test_calls_give_up_when_a_broker_that_was_there_is_gone(impatient: ScriptedBroker, what: str) -> None:
    future = add.delay(1)
    impatient.stop()
    calls: dict[str, Callable[[], Any]] = {
        "delay": lambda: add.delay(2),
        "state": lambda: future.state,
        "cancel": future.cancel,
    }
    for _ in range(2):
        thread, outcome = in_thread(calls[what])
        thread.join(5)
        assert isinstance(outcome[0], BrokerUnreachable)
    impatient.start()
    add.delay(3)
    assert [impatient.call_of(submit).args for submit in impatient.submits] == [(1,), (3,)]


def test_a_call_under_way_when_the_broker_goes_is_given_up_and_withdrawn(impatient: ScriptedBroker) -> None:
    impatient.accept = lambda _: None
    thread, outcome = in_thread(lambda: add.delay(1))
    (submit,) = impatient.wait_for_submits(1)
    impatient.stop()
    thread.join(5)
    text = str(outcome[0])
    assert isinstance(outcome[0], BrokerUnreachable)
    assert "may have been stored" in text
    assert f"run_id='{submit.run_id}'" in text
    impatient.accept = lambda one: m.Accepted([one.run_id])
    impatient.start()
    add.delay(2)
    assert [impatient.call_of(one).args for one in impatient.submits] == [(1,), (2,)]


def test_after_a_refused_token_nothing_is_sent_later(broker: ScriptedBroker) -> None:
    broker.accept = lambda _: None
    thread, outcome = in_thread(lambda: add.delay(1))
    (submit,) = broker.wait_for_submits(1)
    broker.deny = HTTPStatus.UNAUTHORIZED
    broker.cut()
    thread.join(5)
    assert isinstance(outcome[0], AuthenticationFailed)
    assert submit.run_id in str(outcome[0])
    assert "may have been stored" in str(outcome[0])
    broker.deny = None
    broker.accept = lambda one: m.Accepted([one.run_id])
    add.delay(2)
    assert [broker.call_of(one).args for one in broker.submits] == [(1,), (2,)]


def test_another_namespace_is_told_at_once(broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: ScriptedBroker, peer: Peer, hello: m.Hello) -> None:
        peer.send(m.Error("namespace", f"This broker serves namespace 'a', not {hello.namespace!r}.", True))

    monkeypatch.setattr(ScriptedBroker, "_on_hello", refuse)
    with pytest.raises(ConfigurationError, match=r"not 'default'\. Set PREFECT_LITE_NAMESPACE"):
        add.delay(1)
    assert broker.connections == 1


# -- idle clients ---------------------------------------------------------------------------------


def down(broker: ScriptedBroker) -> None:
    """End the connections and wait until the client knows."""
    broker.cut()
    wait_until(lambda: not get_runtime().connected, 5, "the client to notice")
    wait_until(lambda: not broker.peers, 5, "the connection's end")


def resting() -> bool:
    connection = get_runtime()._link._connection
    return connection is not None and connection.resting


def test_an_idle_client_does_not_come_back_until_it_is_used(broker: ScriptedBroker) -> None:
    future = add.delay(1)
    broker.end(future.task_run_id.hex, 5)
    assert future.result(timeout=5) == 5
    for uses in (lambda: add.delay(2), lambda: add.delay(3).cancel(), lambda: future.state):
        before = broker.connections
        down(broker)
        wait_until(resting)
        assert broker.connections == before
        uses()
    assert broker.connections == 3  # the state of a run that has ended asks nobody


@pytest.mark.parametrize("how", ["result", "callback"])
def test_a_client_that_waits_comes_back(broker: ScriptedBroker, how: str) -> None:
    future = add.delay(1)
    called: list[Any] = []
    thread = None
    if how == "result":
        thread, called = in_thread(lambda: future.result(timeout=10))
    else:
        future.add_done_callback(lambda one: called.append(one.result()))
    wait_until(lambda: future.task_run_id.hex in broker.watches)
    broker.cut()
    wait_until(lambda: broker.connections == 2)
    broker.end(future.task_run_id.hex, 5)
    wait_until(lambda: called)
    assert called == [5]
    if thread is not None:
        thread.join(5)


def test_a_watch_that_nobody_waits_with_keeps_no_connection(broker: ScriptedBroker) -> None:
    first = add.delay(1)
    broker.end(first.task_run_id.hex, 1)
    first.result(timeout=5)
    second = add.delay(2)  # its end is asked for by its SUBMIT
    assert broker.submits[1].watch
    down(broker)
    wait_until(resting)
    assert broker.connections == 1
    thread, outcome = in_thread(lambda: second.result(timeout=10))
    wait_until(lambda: second.task_run_id.hex in broker.watches)
    broker.end(second.task_run_id.hex, 7)
    thread.join(5)
    assert outcome == [7]


def test_a_client_that_gave_up_stops_looking(impatient: ScriptedBroker) -> None:
    impatient.stop()
    with pytest.raises(BrokerUnreachable):
        add.delay(1)
    wait_until(resting)
    impatient.start()
    start = time.monotonic()
    add.delay(2)
    assert time.monotonic() - start < 2
    assert impatient.connections == 1


# -- closing --------------------------------------------------------------------------------------


def test_a_client_that_was_closed_fails_what_comes_late(broker: ScriptedBroker) -> None:
    add.delay(1)
    runtime = get_runtime()
    close_runtime()
    with pytest.raises(BrokerUnreachable, match="was closed"):
        raise next(iter(runtime.submit(broker.submits).errors.values()))
    answered = runtime.ask("run", "x")
    assert answered.wait(5)
    assert isinstance(answered.error, BrokerUnreachable)
    runtime.unwatch(["x"], object())  # type: ignore[arg-type]


def test_calls_that_race_with_closing_end(broker: ScriptedBroker) -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                add.delay(1)
            except BrokerUnreachable:
                continue

    threads = [in_thread(work) for _ in range(4)]
    for count in range(20):
        broker.wait_for_submits(len(broker.submits) + count % 3)
        close_runtime()
    stop.set()
    for thread, outcome in threads:
        thread.join(10)
        assert not thread.is_alive()
        assert outcome == [None]


def test_waiters_are_told_that_the_client_was_closed(broker: ScriptedBroker) -> None:
    future = add.delay(1)
    thread, outcome = in_thread(lambda: future.result(timeout=10))
    wait_until(lambda: future.task_run_id.hex in broker.watches)
    close_runtime()
    thread.join(5)
    assert isinstance(outcome[0], BrokerUnreachable)
    assert "closed" in str(outcome[0])


def test_a_map_that_loses_its_broker_names_what_was_accepted(impatient: ScriptedBroker) -> None:
    impatient.accept = lambda one: m.Accepted([one.run_id]) if len(impatient.submits) <= 3 else None
    thread, outcome = in_thread(lambda: add.map(range(5), deferred=True))
    impatient.wait_for_submits(5)
    impatient.stop()
    thread.join(5)
    error = outcome[0]
    assert isinstance(error, BatchError)
    assert isinstance(error.futures, PrefectFutureList)
    assert [future.task_run_id.hex for future in error.futures] == [
        one.run_id for one in impatient.submits[:3]
    ]
    assert len(error.errors) == 2
    assert all("may have been stored" in str(one) for one in error.errors.values())


def test_a_batch_names_what_was_accepted(broker: ScriptedBroker) -> None:
    broker.accept = lambda one: (
        m.Refused(one.run_id, "full", "Full.")
        if broker.call_of(one).args == (2,)
        else m.Accepted([one.run_id])
    )
    futures: list[Any] = []

    def work() -> None:
        with batch():
            futures.append(add.delay(1))
            futures.append(add.delay(2))
            futures.extend(add.map([2, 3], deferred=True))

    with pytest.raises(BatchError) as caught:
        work()
    assert caught.value.futures == [futures[0], futures[3]]
    assert set(caught.value.errors) == {futures[1].task_run_id.hex, futures[2].task_run_id.hex}
