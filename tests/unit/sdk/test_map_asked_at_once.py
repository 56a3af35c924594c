"""A ``map`` whose SUBMITs ask for the ends of its runs, because the caller waited for the last one's."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from prefect_lite import PrefectFutureList, batch, task
from prefect_lite.client.runtime import close_runtime, get_runtime
from prefect_lite.exceptions import BatchError, IdempotencyConflict, RunExpired
from prefect_lite.protocol import messages as m
from tests.tools.waiting import wait_until
from tests.unit.sdk.scripted_broker import Peer, ScriptedBroker


@task
def double(x: int) -> int:
    return 2 * x


def tell(broker: ScriptedBroker, peer: Peer, submit: m.Submit) -> None:
    """What a broker does with the watch of a SUBMIT, when it has accepted the run."""
    if submit.watch:
        broker._watchers.setdefault(submit.run_id, set()).add(peer)


@pytest.fixture
def waited(broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch) -> ScriptedBroker:
    """A broker that ends runs at once, whose client has waited for the ends of a map."""
    on_submit = broker._on_submit

    def watch_first(peer: Peer, submit: m.Submit) -> None:
        tell(broker, peer, submit)
        on_submit(peer, submit)

    monkeypatch.setattr(broker, "_on_submit", watch_first)
    broker.execute = lambda x: 2 * x
    assert double.map(range(3), deferred=True).result(timeout=5) == [0, 2, 4]
    assert not any(one.watch for one in broker.submits)
    return broker


def ends(broker: ScriptedBroker, futures: PrefectFutureList[Any], *which: int) -> None:
    for index in which:
        broker.end(futures[index].task_run_id.hex, 10 * index)


def test_nothing_is_asked_twice(waited: ScriptedBroker) -> None:
    asked = len(waited.watches)
    assert double.map(range(1203), deferred=True).result(timeout=20) == [2 * x for x in range(1203)]
    assert all(one.watch for one in waited.submits[3:])
    assert len(waited.watches) == asked


def test_one_map_that_nobody_waits_for_is_the_last(waited: ScriptedBroker) -> None:
    double.map(range(2), deferred=True)
    double.map(range(2), deferred=True)
    assert [one.watch for one in waited.submits[3:]] == [True, True, False, False]


def test_waiting_for_some_of_them_does_not_wait_for_all(waited: ScriptedBroker) -> None:
    waited.execute = None
    futures = double.map(range(4), deferred=True)
    ends(waited, futures, 1, 2)
    assert PrefectFutureList(futures[1:3]).result(timeout=5) == [10, 20]
    twice = PrefectFutureList([futures[1], futures[1], futures[2], futures[2]])
    assert twice.result(timeout=5) == [10, 10, 20, 20]
    assert futures[1].result(timeout=5) == 10
    assert not futures[0].done
    ends(waited, futures, 0, 3)
    assert futures.result(timeout=5) == [0, 10, 20, 30]


def test_a_wait_that_was_too_short_is_followed_by_another(waited: ScriptedBroker) -> None:
    waited.execute = None
    futures = double.map(range(2), deferred=True)
    futures.wait(timeout=0.01)
    ends(waited, futures, 0, 1)
    assert futures.result(timeout=5) == [0, 10]


def test_two_threads_wait_for_the_same_list(waited: ScriptedBroker) -> None:
    waited.execute = None
    futures = double.map(range(50), deferred=True)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(futures.result(timeout=10))) for _ in range(3)]
    for thread in threads:
        thread.start()
    ends(waited, futures, *range(50))
    for thread in threads:
        thread.join(10)
    assert found == [[10 * x for x in range(50)]] * 3


def test_refused_runs_leave_the_others_alone(waited: ScriptedBroker) -> None:
    def refuse_the_second(one: m.Submit) -> m.Message:
        if waited.call_of(one).args != (1,):
            return m.Accepted([one.run_id])
        waited.submits.remove(one)  # it has no record of it
        return m.Refused(one.run_id, "conflict", "Other arguments.")

    waited.accept = refuse_the_second
    with pytest.raises(BatchError) as caught:
        double.map(range(3), deferred=True)
    assert caught.value.futures.result(timeout=5) == [0, 4]
    get_runtime().waited_for_many = True
    futures: PrefectFutureList[Any] = PrefectFutureList()

    def work() -> None:
        with batch():
            futures.extend(double.map(range(3), deferred=True))
            futures.wait(timeout=5)
            assert (futures[0].result(timeout=5), futures[2].result(timeout=5)) == (0, 4)
            with pytest.raises(IdempotencyConflict):
                futures[1].result(timeout=5)

    with pytest.raises(BatchError):
        work()


def test_a_map_that_stops_half_way(waited: ScriptedBroker) -> None:
    class Unsendable:
        def __reduce__(self) -> Any:
            raise ValueError("no")

    items = [*range(500), Unsendable()]
    with pytest.raises(BatchError) as caught:
        double.map(items, deferred=True)
    assert caught.value.futures.result(timeout=10) == [2 * x for x in range(500)]


def test_a_lost_connection_does_not_lose_ends(waited: ScriptedBroker) -> None:
    waited.execute = None
    futures = double.map(range(3), deferred=True)
    waited.cut()
    wait_until(lambda: not get_runtime().connected)
    ends(waited, futures, 0, 1, 2)
    assert futures.result(timeout=5) == [0, 10, 20]


def test_a_client_closed_meanwhile_asks_anew(waited: ScriptedBroker) -> None:
    waited.execute = None
    futures = double.map(range(2), deferred=True)
    close_runtime()
    ends(waited, futures, 0, 1)
    assert futures.result(timeout=5) == [0, 10]


def test_an_unknown_run_among_them(waited: ScriptedBroker) -> None:
    waited.execute = None
    futures = double.map(range(2), deferred=True)
    ends(waited, futures, 0)
    waited.cut()
    waited.submits.clear()
    futures.wait(timeout=5)
    assert futures[0].result(timeout=5) == 0
    with pytest.raises(RunExpired):
        futures[1].result(timeout=5)
