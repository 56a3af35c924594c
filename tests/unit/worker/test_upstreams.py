"""Runs that take the results of others: fetched without a thread, filled in, or failed with a sentence."""

from __future__ import annotations

import threading
from collections import namedtuple
from typing import Any

import pytest
from prefect_lite_worker import upstreams
from scripted_broker import ScriptedBroker, wait_until

from prefect_lite import task
from prefect_lite.exceptions import RunExpired, SerializationError, UpstreamFailedRun
from prefect_lite.placeholders import Upstream
from prefect_lite.protocol import messages as m
from prefect_lite.run_ids import new_run_id

Pair = namedtuple("Pair", "left right")
go = threading.Event()
opening = threading.Event()


@pytest.fixture(autouse=True)
def _closed() -> Any:
    go.clear()
    opening.clear()
    yield
    go.set()


@task(key="u.show")
def show(*args: Any, **kwargs: Any) -> str:
    return repr((args, kwargs))


@task(key="u.ashow")
async def ashow(*args: Any, **kwargs: Any) -> str:
    return repr((args, kwargs))


@task(key="u.take")
def take(value: Any) -> Any:
    return value


@task(key="u.atake")
async def atake(value: Any) -> Any:
    return value


@task(key="u.hold")
def hold() -> None:
    go.wait(10)


class Slow:
    """Takes its time when it is decoded."""

    def __reduce__(self) -> Any:
        return _decode_slowly, ()


def _decode_slowly() -> str:
    opening.set()
    assert go.wait(10)
    return "slow"


def strict(state: m.RunState) -> Upstream:
    return Upstream(state.run_id, False)


def tolerant(state: m.RunState) -> Upstream:
    return Upstream(state.run_id, True)


def waiting(served: Any) -> int:
    return len(served.app._parts.work._upstreams)


def text(value: Any) -> tuple[str, str]:
    return (type(value).__name__, str(value))


@pytest.mark.parametrize("key", ["u.show", "u.ashow"])
def test_placeholders_are_filled_in_every_kind_of_collection(broker: Any, serve: Any, key: str) -> None:
    serve(show, ashow)
    one, two = broker.ended(1), broker.ended([2, (3,)])
    broker.states = {one.run_id: one, two.run_id: two}
    run_id = broker.link(key, [strict(one)], Pair(strict(two), {"x": {strict(one)}}), y=(strict(two), 5))
    assert broker.outcome(run_id) == repr((([1], Pair([2, (3,)], {"x": {1}})), {"y": ([2, (3,)], 5)}))
    assert sorted(broker.watches) == sorted([one.run_id, two.run_id])
    assert broker.outcome(broker.link(key, strict(one))) == "((1,), {})", "and as plain msgpack"
    assert len(broker.watches) == 2, "what has completed is not asked for again"


def test_many_runs_that_take_the_same_result_ask_once(broker: Any, serve: Any) -> None:
    served = serve(take, limit=50)
    one = broker.ended("x" * 50_000)
    runs = [broker.link("u.take", strict(one)) for _ in range(50)]
    wait_until(lambda: waiting(served) == 50)
    wait_until(lambda: one.run_id in broker.watches)
    broker.tell(one)
    assert all(broker.outcome(run_id) == "x" * 50_000 for run_id in runs)
    assert broker.watches.count(one.run_id) == 1


def test_waiting_for_outcomes_occupies_no_thread(broker: Any, serve: Any) -> None:
    served = serve(take, hold, limit=20)
    one = broker.ended(1)
    for _ in range(18):
        broker.link("u.take", strict(one))
    wait_until(lambda: waiting(served) == 18)
    held = [broker.push("u.hold") for _ in range(2)]
    for run_id in held:
        broker.wait_running(run_id)
    assert len(served.app._parts.pool._busy) == 2
    broker.tell(one)
    wait_until(lambda: len(broker.finished) == 18)
    go.set()


def test_a_strict_parent_that_did_not_complete_fails_the_run(broker: Any, serve: Any) -> None:
    serve(take)
    bad = broker.ended(error=ValueError("no"))
    broker.tell(bad)
    run_id = broker.link("u.take", [strict(bad)])
    finish = broker.end(run_id)
    assert (finish.type, finish.name) == ("FAILED", "UpstreamFailed")
    with pytest.raises(UpstreamFailedRun, match="which this one waited for, ended as Failed") as caught:
        broker.outcome(run_id)
    assert bad.run_id in str(caught.value).replace("-", "")
    assert not broker.started


def test_a_tolerated_parent_gives_its_exception_or_its_value(broker: Any, serve: Any) -> None:
    serve(take)
    bad, good = broker.ended(error=ValueError("no")), broker.ended(4)
    late = broker.ended(type="CANCELLED", name="Cancelled", message="Expired.")
    gone = m.RunState(new_run_id())
    for state in (bad, good, late, gone):
        broker.tell(state)
    value = broker.outcome(broker.link("u.take", [tolerant(one) for one in (bad, good, late, gone)]))
    assert text(value[0]) == ("ValueError", "no")
    assert value[1] == 4
    assert text(value[2]) == ("CancelledRun", "Expired.")
    assert isinstance(value[3], RunExpired)
    assert broker.watches.count(gone.run_id) == 2, "asked twice before it is believed"


def test_a_parent_without_a_record_is_named(broker: Any, serve: Any) -> None:
    serve(take)
    gone = m.RunState(new_run_id())
    broker.tell(gone)
    run_id = broker.link("u.take", strict(gone))
    assert broker.end(run_id).name == "UpstreamFailed"
    with pytest.raises(UpstreamFailedRun, match="is unknown") as caught:
        broker.outcome(run_id)
    assert gone.run_id in str(caught.value).replace("-", "")


def test_a_result_that_cannot_be_used_is_named(broker: Any, serve: Any) -> None:
    serve(take)
    good = broker.ended(1)
    moved = good._replace(run_id=new_run_id())  # another run's result
    lost = broker.ended()
    wrong = broker.ended(error=ValueError("x"), type="COMPLETED")
    for state, said in (
        (moved, "does not match its signature"),
        (lost, "not kept"),
        (wrong, "signed is an exception"),
    ):
        broker.tell(state)
        run_id = broker.link("u.take", strict(state))
        assert broker.end(run_id).name == "Failed"
        with pytest.raises(SerializationError, match=said) as caught:
            broker.outcome(run_id)
        assert state.run_id in str(caught.value).replace("-", "")
    run_id = broker.link("u.take", {strict(broker.ended())})
    broker.tell(broker.ended([], run_id=broker_parent(broker)))
    assert "unhashable" in broker.end(run_id).message


def broker_parent(broker: ScriptedBroker) -> str:
    """The run that was asked for last."""
    before = len(set(broker.states))
    wait_until(lambda: len(set(broker.watches)) > before)
    return broker.watches[-1]


def test_a_new_connection_asks_again(broker: Any, serve: Any) -> None:
    served = serve(take)
    one = broker.ended(1)
    run_id = broker.link("u.take", strict(one))
    wait_until(lambda: waiting(served) == 1)
    broker.cut()
    wait_until(lambda: broker.connections == 2)
    wait_until(lambda: broker.watches.count(one.run_id) == 2)
    broker.tell(one)
    assert broker.outcome(run_id) == 1


class Asked:
    """What is asked of a session."""

    def __init__(self) -> None:
        self.watched: list[list[str]] = []
        self.receiving = False
        self.welcomed = False

    def watch(self, run_ids: list[str]) -> None:
        self.watched.append(list(run_ids))


def test_asking_again_becomes_rarer_and_rests_while_a_result_is_on_its_way() -> None:
    session, now = Asked(), 100.0
    table = upstreams.Upstreams(session, lambda: now)  # type: ignore[arg-type]
    run: Any = type("Run", (), {"outcomes": None})()
    assert table.fetch([(run, ["a"])]) == []
    asked: list[float] = []
    while now < 120:
        now += 0.25
        session.receiving = 104 < now < 108
        if table.tick(now):
            asked.append(now - 100)
    assert asked == [1, 3, 8, 16]
    assert not table.overdue(), "there was no broker to answer"
    session.welcomed = True
    for now in (140.0, 180.0):
        assert table.tick(now)
    assert table.overdue() == [run]
    assert table.arrived(m.RunState("a", "RUNNING")) == []
    assert table.arrived(m.RunState("a", "COMPLETED")) == [run]
    assert table.arrived(m.RunState("a", "COMPLETED")) == []
    assert not table.overdue()
    assert session.watched == [["a"]] * 7


def test_an_answer_that_does_not_come_is_asked_for_again(
    broker: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstreams, "REFRESH_SECONDS", 0.1)
    serve(take)
    one = broker.ended(1)
    run_id = broker.link("u.take", strict(one))
    wait_until(lambda: broker.watches.count(one.run_id) == 1)
    broker.states[one.run_id] = one
    assert broker.outcome(run_id) == 1
    assert broker.watches.count(one.run_id) == 2


@pytest.mark.parametrize("key", ["u.take", "u.atake"])
def test_a_parent_that_was_replayed_can_run_in_the_slot_of_what_waits_for_it(
    broker: Any, serve: Any, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """It had ended, so nobody waits for it in the store any more; with one slot both would wait for ever."""
    monkeypatch.setattr(upstreams, "REFRESH_SECONDS", 0.05)
    served = serve(take, atake, limit=1)
    leases = served.app._parts.leases
    one = broker.ended(1)
    run_id = broker.link(key, tolerant(one))
    parent = broker.push("u.take", 1)
    assert broker.outcome(parent) == 1
    assert run_id not in broker.finished
    assert leases.lent == 1
    broker.tell(one)
    assert broker.outcome(run_id) == 1
    wait_until(lambda: leases.lent == 0 and not leases.active)
    assert leases.free == served.app._parts.pool.limit == 1


@pytest.mark.parametrize("limit", [1, 5])
def test_a_run_that_waits_can_be_cancelled_or_lost(broker: Any, serve: Any, limit: int) -> None:
    served = serve(take, limit=limit)
    one = broker.ended(1)
    for end in (broker.cancel, broker.revoke):
        run_id = broker.link("u.take", strict(one))
        wait_until(lambda: waiting(served) == 1)
        end(run_id)
        wait_until(lambda: waiting(served) == 0 and not served.app._parts.leases.active)
        wait_until(lambda: one.run_id in broker.unwatches)
        broker.unwatches.clear()
        if end == broker.cancel:
            assert (broker.end(run_id).type, broker.end(run_id).message) == (
                "CANCELLED",
                "take was cancelled before it started.",
            )
        else:
            assert run_id not in broker.finished
    broker.tell(one)
    assert broker.outcome(broker.link("u.take", strict(one))) == 1, "slots and tables are as before"
    assert served.app._parts.leases.lent == 0


@pytest.mark.parametrize("how", ["cancel", "drain"])
def test_a_run_that_is_stopped_while_its_call_is_opened(broker: Any, serve: Any, how: str) -> None:
    served = serve(take)
    one = broker.ended(1)
    run_id = broker.link("u.take", [strict(one), Slow()])
    assert opening.wait(10)
    [run] = served.app._parts.leases.active.values()
    if how == "cancel":
        broker.cancel(run_id)
        wait_until(lambda: run.stop is not None)
    else:
        served.app.stop("test")
        wait_until(lambda: served.app._parts.work.lifecycle.phase != "serving")
    go.set()
    if how == "cancel":
        assert broker.end(run_id).type == "CANCELLED"
        assert not served.app._parts.pool.strays, "its thread had let go"
    else:
        wait_until(lambda: run_id in broker.released)
        served.wait()
    assert one.run_id not in broker.watches


def test_a_worker_that_drains_hands_back_what_waits(broker: Any, serve: Any) -> None:
    served = serve(take, hold)
    one = broker.ended(1)
    held = broker.push("u.hold")
    broker.wait_running(held)
    run_id = broker.link("u.take", strict(one))
    wait_until(lambda: waiting(served) == 1)
    served.app.stop("test")
    wait_until(lambda: run_id in broker.released)
    assert held not in broker.released
    go.set()
    served.wait()
    assert held in broker.finished


def test_a_retry_in_place_keeps_what_was_fetched(broker: Any, serve: Any) -> None:
    seen: list[Any] = []

    @task(key="u.flaky", retries=2)
    def flaky(value: Any) -> Any:
        seen.append(value)
        if len(seen) < 3:
            raise ValueError("again")
        return value

    serve(flaky)
    one = broker.ended([1])
    broker.tell(one)
    assert broker.outcome(broker.link("u.flaky", strict(one))) == [1]
    assert seen == [[1]] * 3
    assert broker.watches.count(one.run_id) == 1


def test_the_timeout_is_that_of_the_code_not_of_the_wait(broker: Any, serve: Any) -> None:
    served = serve(take.with_options(timeout_seconds=0.15))
    one = broker.ended(1)
    run_id = broker.link("u.take", strict(one))
    wait_until(lambda: waiting(served) == 1)
    threading.Event().wait(0.3)  # longer than the timeout
    broker.tell(one)
    assert broker.outcome(run_id) == 1


def test_what_is_remembered_stays_small(broker: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreams, "KEPT_BYTES", 1_000)
    monkeypatch.setattr(upstreams, "KEPT_RESULT_BYTES", 800)
    served = serve(take)
    states = [broker.ended("x" * size) for size in (500, 500, 2_000, 100)] + [
        broker.ended(error=ValueError())
    ]
    for state in states:
        broker.tell(state)
        broker.end(broker.link("u.take", tolerant(state)))
    assert list(served.app._parts.work._upstreams._kept) == [states[1].run_id, states[3].run_id]
    broker.end(broker.link("u.take", strict(states[0])))
    assert broker.watches.count(states[0].run_id) == 2


def test_a_thousand_results(broker: Any, serve: Any) -> None:
    serve(take)
    states = [broker.ended(number) for number in range(1_000)]
    for state in states:
        broker.states[state.run_id] = state
    run_id = broker.link("u.take", [strict(state) for state in states])
    assert broker.outcome(run_id) == list(range(1_000))


def test_a_large_result_arrives_in_pieces(broker: Any, serve: Any) -> None:
    serve(take)
    one = broker.ended(b"x" * 190_000)
    broker.tell(one)
    run_id = broker.link("u.take", [strict(one)])
    assert broker.outcome(run_id) == [b"x" * 190_000]


def test_without_a_keyring_placeholders_travel_too() -> None:
    from prefect_lite.encoding import LINKED_MSGPACK, decode_call, encode_linked_call

    one = Upstream(new_run_id(), True)
    codec, data = encode_linked_call(([one], (one,)), {"x": {"y": one}}, allow_pickle=False)
    assert codec == LINKED_MSGPACK
    args, kwargs = decode_call(codec, data, allow_pickle=False)
    assert (args, kwargs) == (([one], (one,)), {"x": {"y": one}})
    assert args[0][0].tolerant is True
