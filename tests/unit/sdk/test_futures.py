"""Futures: waiting in threads, loops and lists, and what ends look like."""

from __future__ import annotations

import asyncio
import pickle
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from prefect_lite import (
    PrefectDistributedFuture,
    PrefectFutureList,
    as_completed,
    task,
    wait,
)
from prefect_lite.client.runtime import close_runtime
from prefect_lite.exceptions import (
    BrokerError,
    CancelledRun,
    CrashedRun,
    EnvelopeRejected,
    FailedRun,
    MissingResult,
    RemoteTraceback,
    RunExpired,
    SubmitError,
)
from prefect_lite.protocol import messages as m
from prefect_lite.states import StateType
from prefect_lite.waiting import close_callbacks
from tests.tools.waiting import wait_until
from tests.unit.sdk.scripted_broker import ScriptedBroker

pytestmark = pytest.mark.anyio


@task
def add(x: int, y: int = 0) -> int:
    return x + y


@task
def double(x: int) -> int:
    return 2 * x


def hexed(future: Any) -> str:
    return future.task_run_id.hex


def ended_soon(broker: ScriptedBroker, future: Any, *args: Any, **fields: Any) -> None:
    """End the run once somebody watches it."""

    def work() -> None:
        wait_until(lambda: hexed(future) in broker.watches)
        broker.end(hexed(future), *args, **fields)

    threading.Thread(target=work, name="ender").start()


def test_a_value_comes_back_before_and_after_the_end(broker: ScriptedBroker) -> None:
    future = add.delay(1)
    ended_soon(broker, future, 3)
    assert future.result(timeout=5) == 3
    watched = len(broker.watches)
    assert future.result() == 3
    assert len(broker.watches) == watched
    assert PrefectDistributedFuture(future.task_run_id).result(timeout=5) == 3


def test_a_large_value_is_kept_once(broker: ScriptedBroker) -> None:
    broker.execute = lambda *_: "x" * 100_000
    future = add.delay(1)
    assert future.result(timeout=5) == future.result() == "x" * 100_000
    assert future.state.data == "x" * 100_000


def test_an_exception_comes_back_with_its_traceback(broker: ScriptedBroker) -> None:
    broker.execute = lambda *_: 1 / 0
    future = add.delay(1)
    with pytest.raises(ZeroDivisionError) as caught:
        future.result(timeout=5)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "1 / 0" in str(caught.value.__cause__)
    assert isinstance(future.result(raise_on_failure=False), ZeroDivisionError)
    assert future.state.is_failed()


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"type": "FAILED", "name": "Failed", "result": None}, FailedRun),
        ({"type": "CRASHED", "name": "Crashed", "result": None, "message": "4 workers died"}, CrashedRun),
        ({"type": "CANCELLED", "name": "Expired", "result": None}, CancelledRun),
        ({"result": None}, MissingResult),
        ({"result": b"junk"}, EnvelopeRejected),
        ({"task_key": "another.key"}, EnvelopeRejected),
        ({"type": "FAILED", "name": "Failed"}, EnvelopeRejected),
    ],
)
def test_ends_without_a_value_say_what_happened(
    broker: ScriptedBroker, fields: dict[str, Any], error: type[Exception]
) -> None:
    future = add.delay(1)
    broker.end(hexed(future), 1, **fields)
    future.wait(timeout=5)
    with pytest.raises(error):
        future.result(timeout=5)
    assert future.state.is_final()


def test_an_exception_does_not_pass_for_a_value(broker: ScriptedBroker) -> None:
    future = add.delay(1)
    broker.end(hexed(future), error=ValueError("v"), type="COMPLETED", name="Completed")
    with pytest.raises(EnvelopeRejected, match="ended as Completed, but what the worker signed is an exc"):
        future.result(timeout=5)


def test_the_result_of_another_task_is_refused(broker: ScriptedBroker) -> None:
    broker.execute = lambda x, *_: x
    other = double.delay(5)
    broker.accept = lambda one: m.Accepted([], [[one.run_id, hexed(other)]])
    with pytest.raises(SubmitError, match="although the call had no idempotency_key"):
        add.delay(1)
    future = add.apply_async((1,), idempotency_key="k")
    assert future == other
    with pytest.raises(
        EnvelopeRejected, match=r"sent to '.*\.add', but the broker has a result of '.*double'"
    ):
        future.result(timeout=5)


def test_polling_sees_the_end(broker: ScriptedBroker) -> None:
    future = add.delay(1)
    broker.end(hexed(future), 5)

    def ended() -> bool:
        future.wait(timeout=0)
        return future.done

    wait_until(ended)
    assert future.result(timeout=0) == 5


def test_a_run_that_ends_while_it_is_looked_at_is_not_lost(broker: ScriptedBroker) -> None:
    from prefect_lite.waiting import collect

    class EndsMeanwhile(PrefectDistributedFuture[int]):
        __slots__ = ("looks",)

        @property
        def done(self) -> bool:
            self.looks = getattr(self, "looks", 0) + 1
            return self.looks > 1

    future = EndsMeanwhile(add.delay(1).task_run_id)
    broker.end(hexed(future), 5)
    seen: list[Any] = []
    collect([future], seen.append)
    wait_until(lambda: seen)
    assert seen == [future]


def test_callbacks_that_raise_are_told(broker: ScriptedBroker, caplog: pytest.LogCaptureFixture) -> None:
    future = add.delay(1)
    future.add_done_callback(lambda _: 1 / 0)
    broker.end(hexed(future), 1)
    wait_until(lambda: "A callback of run" in caplog.text)
    assert "ZeroDivisionError" in caplog.text
    future.wait(timeout=5)
    future.add_done_callback(lambda _: 1 / 0)
    assert caplog.text.count("ZeroDivisionError") == 2


def test_callbacks_are_not_called_when_nothing_can_be_known(
    broker: ScriptedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    future = add.delay(1)
    called: list[Any] = []
    future.add_done_callback(called.append)
    wait_until(lambda: hexed(future) in broker.watches)
    close_runtime()
    wait_until(lambda: "will not be called: The client of this process was closed" in caplog.text)
    close_callbacks()
    assert not called


def test_more_questions_than_a_broker_takes_at_a_time(broker: ScriptedBroker) -> None:
    futures = add.map(range(40), deferred=True)
    broker.questions["run"] = lambda arg: (True, {"run_id": arg, "type": "PENDING", "name": "Pending"})
    states: list[Any] = []
    threads = [threading.Thread(target=lambda one=one: states.append(one.state)) for one in futures]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert [state.is_pending() for state in states] == [True] * 40


def test_an_unknown_run_is_not_waited_for(broker: ScriptedBroker) -> None:
    future: PrefectDistributedFuture[Any] = PrefectDistributedFuture(uuid4())
    with pytest.raises(RunExpired, match=str(future.task_run_id)):
        future.result()
    broker.questions["run"] = lambda arg: (True, {"run_id": arg})
    with pytest.raises(RunExpired):
        PrefectDistributedFuture(uuid4()).state  # noqa: B018


def test_states_are_read_and_dated(broker: ScriptedBroker) -> None:
    future = add.delay(1)
    fields = {"type": "RUNNING", "name": "Retrying", "attempt": 2, "lost": 1, "started_ms": 2_000}
    broker.questions["run"] = lambda arg: (True, {"run_id": arg, **fields})
    state = future.state
    assert (state.type, state.name) == (StateType.RUNNING, "Retrying")
    assert state.timestamp == datetime.fromtimestamp(2, UTC)
    assert (state.state_details.attempt, state.state_details.lost) == (2, 1)
    assert state.state_details.task_run_id == future.task_run_id
    fields.update(type="COMPLETED", name="Completed")
    broker.end(hexed(future), 5)
    assert future.state.result() == 5
    broker.questions["run"] = lambda _: (False, ["busy", "Too many questions."])
    with pytest.raises(BrokerError, match="Too many questions"):
        PrefectDistributedFuture(uuid4()).state  # noqa: B018


def test_a_timeout_says_why(broker: ScriptedBroker) -> None:
    future = add.delay(1)
    why = {"name": "Scheduled", "sentence": "No worker serves 'add'; the run waits for one."}
    broker.questions["why"] = lambda _: (True, why)
    with pytest.raises(TimeoutError) as caught:
        future.result(timeout=0.05)
    assert str(caught.value) == (
        f"Task run {future.task_run_id} did not complete within 0.05 seconds. Its state is Scheduled. "
        "No worker serves 'add'; the run waits for one."
    )
    broker.questions["why"] = lambda _: (False, ["busy", "no"])
    with pytest.raises(TimeoutError, match="did not say why"):
        future.result(timeout=0)
    future.wait(timeout=0.01)
    broker.end(hexed(future), 4)
    assert future.result(timeout=5) == 4


def test_waiting_survives_lost_connections_and_lost_news(broker: ScriptedBroker) -> None:
    future = add.delay(1)
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(future.result()))
    thread.start()
    wait_until(lambda: hexed(future) in broker.watches)
    watched = len(broker.watches)
    broker.cut()
    wait_until(lambda: len(broker.watches) > watched)
    wait_until(lambda: len(broker.watches) > watched + 1)  # read again every 0.2 s
    broker.end(hexed(future), 3)
    thread.join(5)
    assert results == [3]


def test_many_wait_with_one_watch(broker: ScriptedBroker) -> None:
    broker.execute = lambda x, *_: x
    futures = add.map(range(300), deferred=True)
    assert futures.result(timeout=10) == list(range(300))
    assert isinstance(futures, PrefectFutureList)
    done, not_done = wait(futures)
    assert (len(done), len(not_done)) == (300, 0)


def test_a_list_that_is_late_says_how_many(broker: ScriptedBroker) -> None:
    futures = add.map([1, 2], deferred=True)
    broker.end(hexed(futures[0]), 1)
    broker.questions["why"] = lambda _: (True, {"sentence": "It waits behind 3 runs."})
    with pytest.raises(
        TimeoutError, match=r"within 0.3 seconds: 1 of 2 have not ended. Task run .* It waits"
    ):
        futures.result(timeout=0.3)
    done, not_done = wait(futures, timeout=0)
    assert done == {futures[0]}
    assert not_done == {futures[1]}


def test_as_completed_gives_them_as_they_end(broker: ScriptedBroker) -> None:
    one, two, three = add.map([1, 2, 3], deferred=True)
    broker.end(hexed(two), 2)
    seen = as_completed([one, two, three, one], timeout=5)
    assert next(seen) == two
    broker.end(hexed(three), 3)
    assert next(seen) == three
    with pytest.raises(TimeoutError, match=r"1 \(of 2\) futures unfinished"):
        list(as_completed([one, two], timeout=0.05))
    broker.end(hexed(one), 1)
    assert [future.result() for future in seen] == [1]


def test_futures_are_equal_by_run(broker: ScriptedBroker) -> None:
    future = add.delay(1)
    twin: PrefectDistributedFuture[int] = PrefectDistributedFuture(str(future.task_run_id))
    assert future == twin == pickle.loads(pickle.dumps(future))
    assert len({future, twin}) == 1
    assert future != 3
    assert str(future.task_run_id) in repr(future)


def test_callbacks_run_on_a_thread_of_their_own(broker: ScriptedBroker) -> None:
    future = add.delay(1)
    names: list[str] = []
    called = threading.Event()

    def note(one: Any) -> None:
        names.append(threading.current_thread().name)
        assert one.result() == 7  # would never end on the client's own thread
        called.set()

    future.add_done_callback(note)
    ended_soon(broker, future, 7)
    assert called.wait(5)
    assert names[0].startswith("prefect-lite-callbacks")
    future.wait()
    future.add_done_callback(note)
    assert names[1] == threading.current_thread().name


def test_cancel_tells_whether_it_could(broker: ScriptedBroker) -> None:
    future = add.delay(1)
    assert future.cancel()
    assert asyncio.run(future.cancel_async())
    assert broker.cancels == [hexed(future)] * 2
    with pytest.raises(RunExpired):
        PrefectDistributedFuture(UUID(int=1)).cancel()


async def test_coroutines_wait_without_blocking(broker: ScriptedBroker) -> None:
    futures = [await add.adelay(number) for number in range(20)]
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    waiting = asyncio.gather(*futures)
    await asyncio.to_thread(wait_until, lambda: len(set(broker.watches)) == 20)
    for number, future in enumerate(futures):
        broker.end(hexed(future), number)
    assert await asyncio.wait_for(waiting, 5) == list(range(20))
    assert turns > 10
    ticking.cancel()
    assert await PrefectFutureList(futures) == list(range(20))


async def test_coroutines_time_out_and_can_be_cancelled(broker: ScriptedBroker) -> None:
    future = add.delay(1)
    broker.questions["why"] = lambda _: (True, {"sentence": "It is Pending."})
    with pytest.raises(TimeoutError, match="It is Pending"):
        await future.result_async(timeout=0.05)
    await future.wait_async(timeout=0.01)
    with pytest.raises(TimeoutError, match="2 of 2"):
        await PrefectFutureList([future, add.delay(2)]).result_async(timeout=0.05)
    waiting = asyncio.ensure_future(future.result_async())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    broker.end(hexed(future), 4)
    assert await future == 4


def test_one_future_serves_several_loops(broker: ScriptedBroker) -> None:
    future = add.delay(1)
    results: list[int] = []

    async def main() -> int:
        return await future

    threads = [threading.Thread(target=lambda: results.append(asyncio.run(main()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: broker.watches.count(hexed(future)) >= 1)
    broker.end(hexed(future), 6)
    for thread in threads:
        thread.join(5)
    assert results == [6, 6, 6]


def test_foreign_objects_are_refused(client_home: Path) -> None:
    with pytest.raises(TypeError, match="Expected futures"):
        wait([3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="expected a UUID"):
        PrefectDistributedFuture("nonsense")
