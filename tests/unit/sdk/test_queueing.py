"""What a client does when a queue is full: raise at once, or send the same run again until there is room."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import Any

import pytest

from prefect_lite import batch, task
from prefect_lite.client.allowance import Allowance, _Waiter
from prefect_lite.client.queueing import _Line, _Waiting
from prefect_lite.client.requests import Submission
from prefect_lite.client.runtime import close_runtime, get_runtime
from prefect_lite.exceptions import (
    BatchError,
    BrokerUnreachable,
    ConfigurationError,
    IdempotencyConflict,
    QueueFull,
    StoreUnavailable,
)
from prefect_lite.protocol import messages as m
from prefect_lite.run_ids import new_run_id
from prefect_lite.settings import get_settings
from prefect_lite.upstreams import UNSETTLED
from tests.tools.waiting import wait_until
from tests.unit.sdk.scripted_broker import ScriptedBroker

pytestmark = pytest.mark.anyio

RETRY = 0.02


@task
def add(x: int, y: int = 0) -> int:
    return x + y


@task
def show(text: str) -> str:
    return text


@task
def other() -> None: ...


class Queue:
    """Takes as many runs as it has room for, and refuses the rest; ``asked`` counts the SUBMITs of each."""

    def __init__(self, broker: ScriptedBroker, room: int = 0, code: str = "full") -> None:
        self.broker = broker
        self.room = room
        self.code = code
        self.full = False
        self.asked: Counter[str] = Counter()
        self.accepted: list[str] = []
        broker.accept = self

    def __call__(self, submit: m.Submit) -> m.Message:
        self.asked[submit.run_id] += 1
        if self.room > 0 and not self.full:
            self.room -= 1
            self.accepted.append(submit.run_id)
            return m.Accepted([submit.run_id])
        # For the rest of the frame: room that comes in the midst of it would let runs overtake others.
        self.full = True
        asyncio.get_running_loop().call_soon(setattr, self, "full", False)
        self.broker.submits.remove(submit)  # it has no record of it
        return m.Refused(submit.run_id, self.code, "7 runs wait; limit allows 7.", RETRY)


def set_up(monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"PREFECT_LITE_{name.upper()}", str(value))
    get_settings.cache_clear()  # type: ignore[attr-defined]


def test_a_full_queue_is_told_at_once(broker: ScriptedBroker) -> None:
    queue = Queue(broker)
    with pytest.raises(QueueFull, match="7 runs wait; limit allows 7") as caught:
        add.delay(1)
    text = str(caught.value)
    assert f"{__name__}.add was not accepted. Start more workers" in text
    assert "PREFECT_LITE_QUEUE_WAIT_SECONDS" in text
    assert (caught.value.retry_after_seconds, caught.value.waited_seconds) == (RETRY, 0.0)
    assert list(queue.asked.values()) == [1]


@pytest.mark.parametrize("code", ["full", "unavailable"])
def test_the_same_run_is_sent_until_there_is_room(broker: ScriptedBroker, code: str) -> None:
    queue = Queue(broker, code=code)
    threading.Thread(
        target=lambda: (wait_until(lambda: sum(queue.asked.values()) >= 4), setattr(queue, "room", 1))
    ).start()
    future = add.apply_async((1,), queue_timeout=20)
    assert queue.accepted == list(queue.asked) == [future.task_run_id.hex]
    assert queue.asked[future.task_run_id.hex] >= 4


def test_the_end_of_patience_says_how_long(broker: ScriptedBroker) -> None:
    queue = Queue(broker)
    started = time.monotonic()
    with pytest.raises(QueueFull, match=r"was not accepted within \d\.\d s") as caught:
        add.apply_async((1,), queue_timeout=0.5)
    assert 0.5 <= time.monotonic() - started < 10
    assert 0.5 <= caught.value.waited_seconds < 10
    (times,) = queue.asked.values()
    assert 2 <= times <= 60
    assert not get_runtime()._link._queueing
    assert get_runtime()._allowance.runs == get_runtime()._allowance.bytes == 0


def test_a_store_that_stays_away_says_that_the_run_may_be_stored(broker: ScriptedBroker) -> None:
    Queue(broker, code="unavailable")
    with pytest.raises(StoreUnavailable, match=r"within 0\.\d s.*may have been stored; it is safe to repeat"):
        add.apply_async((1,), queue_timeout=0.1)


def test_the_setting_applies_to_every_call(broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, queue_wait_seconds=20)
    queue = Queue(broker)
    opener = threading.Thread(target=lambda: (wait_until(lambda: queue.asked), setattr(queue, "room", 99)))
    opener.start()
    add.delay(1)
    opener.join()
    queue.room = 0
    with pytest.raises(QueueFull):
        add.apply_async((1,), queue_timeout=0)


@pytest.mark.parametrize("value", [-1, "x", True])
def test_an_impossible_queue_timeout(broker: ScriptedBroker, value: Any) -> None:
    with pytest.raises(ConfigurationError, match="queue_timeout must be a number of seconds"):
        add.apply_async((1,), queue_timeout=value)


def test_who_does_not_wait_is_told_at_once_although_the_same_run_waits(broker: ScriptedBroker) -> None:
    queue = Queue(broker)
    run_id = new_run_id()
    waiting = threading.Thread(target=lambda: add.apply_async((1,), run_id=run_id, queue_timeout=15))
    waiting.start()
    wait_until(lambda: get_runtime()._link._queueing)
    started = time.monotonic()
    with pytest.raises(QueueFull, match="limit allows 7") as caught:
        add.apply_async((1,), run_id=run_id)
    assert time.monotonic() - started < 10
    assert caught.value.waited_seconds == 0.0
    queue.room = 1
    waiting.join()
    assert len(queue.accepted) == 1


def test_a_map_that_is_interrupted_is_not_sent_again(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(monkeypatch, queue_wait_seconds=60)
    monkeypatch.setattr("prefect_lite.submission.CHUNK_RUNS", 2)
    queue = Queue(broker)

    def interrupt(self: Submission, timeout: float | None = None) -> bool:
        wait_until(lambda: queue.asked)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("prefect_lite.client.latch.Latch.wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            add.map(range(6), deferred=True)
    wait_until(lambda: not get_runtime()._link._queueing and not get_runtime()._allowance.runs)
    assert queue.accepted == []


def test_a_batch_waits_in_order_and_with_few_repeats(broker: ScriptedBroker) -> None:
    queue = Queue(broker, room=100)
    done = threading.Event()

    def drain() -> None:
        while not done.wait(0.005):
            queue.room += 20

    threading.Thread(target=drain).start()
    try:
        with batch(queue_timeout=10):
            futures = [add.delay(n) for n in range(400)]
            futures += add.map(range(400), deferred=True)
    finally:
        done.set()
    asked = [future.task_run_id.hex for future in futures]
    assert sorted(queue.accepted) == sorted(asked)
    assert set(queue.accepted[:100]) == set(asked[:100])
    # Sent once by the call, and again in probes of which most are accepted: not 800 at each probe.
    assert sum(queue.asked.values()) < 4 * len(asked)
    waited = [run for run in queue.accepted if queue.asked[run] > 1]
    in_order = [run for run in asked if queue.asked[run] > 1]
    assert waited == in_order


def test_a_batch_without_patience_names_the_refused(broker: ScriptedBroker) -> None:
    Queue(broker, room=3)

    def call() -> None:
        with batch():
            for n in range(5):
                add.delay(n)

    with pytest.raises(BatchError, match="2 of 5 runs were not accepted") as caught:
        call()
    assert [type(error) for error in caught.value.errors.values()] == [QueueFull] * 2


def test_other_tasks_are_not_held_up(broker: ScriptedBroker) -> None:
    def accept(submit: m.Submit) -> m.Message:
        if submit.task_key.endswith("add"):
            return m.Refused(submit.run_id, "full", "Full.", RETRY)
        return m.Accepted([submit.run_id])

    broker.accept = accept

    def call() -> None:
        with pytest.raises(QueueFull):
            add.apply_async((1,), queue_timeout=1)

    waiting = threading.Thread(target=call)
    waiting.start()
    wait_until(lambda: get_runtime()._link._queueing)
    started = time.monotonic()
    other.delay()
    assert time.monotonic() - started < 0.8
    with pytest.raises(QueueFull):
        add.delay(2)  # without patience it does not stand in line
    assert waiting.is_alive()
    waiting.join()


async def test_coroutines_wait_and_can_be_cancelled(broker: ScriptedBroker) -> None:
    queue = Queue(broker)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await add.aapply_async((1,), queue_timeout=10)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), batch(queue_timeout=10):
            await add.adelay(1)
    # Nobody waits for it any more, so it must not be sent when there is room.
    wait_until(lambda: not get_runtime()._link._queueing)
    queue.room = 5
    future = await add.adelay(2)
    assert queue.accepted == [future.task_run_id.hex]


async def test_no_run_of_a_cancelled_batch_is_sent_again(broker: ScriptedBroker) -> None:
    queue = Queue(broker)

    async def call() -> None:
        async with asyncio.timeout(0.2), batch(queue_timeout=10):
            for n in range(3):
                await add.aapply_async((n,), idempotency_key=str(n))

    with pytest.raises(TimeoutError):
        await call()
    assert not UNSETTLED
    wait_until(lambda: not get_runtime()._link._queueing)
    queue.room = 5
    future = await add.adelay(2)
    assert queue.accepted == [future.task_run_id.hex]
    assert get_runtime()._allowance.runs == 0


async def test_a_block_that_is_cancelled_does_not_wait_for_room(broker: ScriptedBroker) -> None:
    Queue(broker)
    started = time.monotonic()

    async def call() -> None:
        async with asyncio.timeout(0.2), batch(queue_timeout=60):
            add.delay(1)
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await call()
    assert time.monotonic() - started < 20
    assert not get_runtime()._link._queueing


def test_result_inside_a_batch_waits_for_room_too(broker: ScriptedBroker) -> None:
    queue = Queue(broker)
    broker.execute = add.fn
    broker.questions["run"] = lambda run_id: (True, m.RunState(run_id)._asdict())
    results: list[int] = []
    with batch(queue_timeout=10):
        future = add.delay(2, 3)
        wait_until(lambda: queue.asked)
        assert future.state.name == "Pending"
        opener = threading.Timer(0.6, lambda: setattr(queue, "room", 1))  # watches are renewed each 0.2 s
        opener.start()
        results.append(future.result(timeout=10))
    assert results == [5]


def test_result_inside_a_batch_tells_the_refusal(broker: ScriptedBroker) -> None:
    queue = Queue(broker)
    futures: list[Any] = []

    def call() -> None:
        with batch():
            futures.append(add.delay(1))
            wait_until(lambda: queue.asked)
            started = time.monotonic()
            with pytest.raises(QueueFull, match="limit allows 7"):
                futures[0].result(timeout=5)
            assert time.monotonic() - started < 2

    with pytest.raises(QueueFull, match="limit allows 7"):
        call()
    with pytest.raises(QueueFull, match="limit allows 7"):
        futures[0].result(timeout=5)


def test_a_run_sent_before_a_cut_may_have_been_stored(broker: ScriptedBroker) -> None:
    broker.accept = lambda _: None
    errors: list[Exception] = []

    def call() -> None:
        with pytest.raises(QueueFull) as caught:
            add.delay(1)
        errors.append(caught.value)

    calling = threading.Thread(target=call)
    calling.start()
    broker.wait_for_submits(1)
    Queue(broker)
    broker.cut()
    calling.join()
    assert "may have been stored; it is safe to repeat" in str(errors[0])
    assert isinstance(errors[0], QueueFull)
    assert errors[0].run_id == broker.submits[0].run_id


def test_a_conflict_after_a_cut_is_no_maybe(broker: ScriptedBroker) -> None:
    broker.accept = lambda _: None
    errors: list[Exception] = []

    def call() -> None:
        with pytest.raises(IdempotencyConflict, match="Other arguments") as caught:
            add.apply_async((1,), idempotency_key="once")
        errors.append(caught.value)

    calling = threading.Thread(target=call)
    calling.start()
    broker.wait_for_submits(1)
    broker.accept = lambda submit: m.Refused(submit.run_id, "conflict", "Other arguments.")
    broker.cut()
    calling.join()
    assert "may have been stored" not in str(errors[0])
    assert not get_runtime()._link._unsure


def test_a_close_says_that_a_waiting_run_may_be_stored(broker: ScriptedBroker) -> None:
    queue = Queue(broker, code="unavailable")

    def call() -> None:
        with pytest.raises(BrokerUnreachable, match=r"closed.*may have been stored; it is safe to repeat"):
            add.apply_async((1,), queue_timeout=20)
        ended.set()

    ended = threading.Event()
    runtime = get_runtime()
    threading.Thread(target=call).start()
    wait_until(lambda: queue.asked and runtime._link._queueing.holds(next(iter(queue.asked))))
    close_runtime()
    assert ended.wait(10)
    assert runtime._allowance.runs == 0


def test_patience_covers_a_broker_that_is_away(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(monkeypatch, connect_timeout_seconds=0.2)
    broker.stop()
    with pytest.raises(BrokerUnreachable):
        add.delay(1)
    starter = threading.Timer(0.6, broker.start)
    starter.start()
    add.apply_async((1,), queue_timeout=10)
    starter.join()


# -- runs of this process without a broker's word ---------------------------------------------------


def test_a_fast_loop_is_slowed_down(broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, max_unconfirmed_runs=10)
    most: list[int] = []

    def accept(submit: m.Submit) -> m.Message:
        most.append(get_runtime()._allowance.runs)
        return m.Accepted([submit.run_id])

    broker.accept = accept
    with batch():
        for n in range(200):
            add.delay(n)
    assert len(broker.submits) == 200
    assert max(most) <= 10
    assert get_runtime()._allowance.runs == get_runtime()._allowance.bytes == 0


@pytest.mark.parametrize("bound", [{"max_unconfirmed_runs": 3}, {"max_unconfirmed_bytes": 1000}])
def test_a_broker_that_never_answers_does_not_fill_the_memory(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch, bound: dict[str, int]
) -> None:
    set_up(monkeypatch, connect_timeout_seconds=0.3, **bound)
    broker.accept = lambda _: None

    def flood() -> None:
        for _ in range(100):
            show.delay("x" * 200)

    with batch():
        with pytest.raises(QueueFull, match="runs of this process") as caught:
            flood()
        sent = len(broker.submits)
        assert 1 < sent <= 4
        assert caught.value.waited_seconds >= 0.3
        broker.accept = lambda submit: m.Accepted([submit.run_id])
        broker.cut()  # they are sent again, and answered
    assert "MAX_UNCONFIRMED_BYTES" in str(caught.value)
    assert get_runtime()._allowance.runs == 0


def test_one_large_submission_passes_when_nothing_else_is_on_its_way() -> None:
    allowance = Allowance(10, 1000)
    assert allowance.try_enter(500, 5000)
    assert not allowance.try_enter(1, 1)
    allowance.leave(500, 5000)
    assert allowance.try_enter(1, 1)


def test_places_are_given_in_turn() -> None:
    allowance = Allowance(2, 1000)
    assert allowance.try_enter(2, 0)
    entered: list[int] = []

    def enter(number: int, runs: int) -> None:
        assert allowance.enter(runs, 0, 5)
        entered.append(number)

    threads = [threading.Thread(target=enter, args=(number, runs)) for number, runs in ((0, 2), (1, 1))]
    for number, thread in enumerate(threads):
        thread.start()
        wait_until(lambda n=number: len(allowance._waiters) == n + 1)
    assert not allowance.try_enter(1, 0)
    allowance.leave(1, 0)
    assert entered == []  # the small one does not overtake
    allowance.leave(1, 0)
    threads[0].join()
    assert entered == [0]
    allowance.leave(2, 0)
    threads[1].join()


async def test_who_gives_up_leaves_the_line() -> None:
    allowance = Allowance(1, 1000)
    assert allowance.try_enter(1, 0)
    assert not allowance.enter(1, 0, 0.01)
    assert not await allowance.enter_async(1, 0, 0.01)
    waiting = asyncio.create_task(allowance.enter_async(1, 0, 5))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    allowance.leave(1, 0)
    assert allowance.runs == 0
    assert allowance.try_enter(1, 0)


# -- what it costs when many wait -------------------------------------------------------------------


async def test_many_who_wait_for_a_place_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0

    def equal(waiter: object, other: object) -> bool:
        nonlocal compared
        compared += 1
        return waiter is other

    monkeypatch.setattr(_Waiter, "__eq__", equal)
    allowance = Allowance(1, 1000)

    async def one() -> None:
        assert await allowance.enter_async(1, 0, 100)
        allowance.leave(1, 0)

    assert allowance.try_enter(1, 0)
    waiting = [asyncio.create_task(one()) for _ in range(500)]
    await asyncio.sleep(0)
    allowance.leave(1, 0)
    await asyncio.gather(*waiting)
    assert allowance.runs == 0
    assert compared < 5_000


def test_the_last_of_a_long_line_is_as_quick_to_take_as_the_first() -> None:
    message = m.Submit("0" * 32, "task", b"")
    waiting = _Waiting(1, message, Submission(1), m.Refused(message.run_id, "full", "", 0.0))

    def cost(length: int) -> float:
        times: list[float] = []
        for _ in range(4):
            line = _Line()
            line.front.update((str(number), waiting) for number in range(length))
            started = time.process_time()
            while line:
                line.pop()
            times.append(time.process_time() - started)
        return min(times)

    # Ten times as long: 10 when each costs the same, towards 100 when that grows with the length.
    assert cost(60_000) / cost(6_000) < 40


# -- questions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arg",
    ["x" * 600_000, list(range(20_000)), {str(n): n for n in range(2_000)}, {1: 2}, b"x" * 300_000, object()],
    ids=["long text", "long list", "large map", "number as key", "long bytes", "no data"],
)
def test_a_question_the_broker_would_cut_us_for_is_not_asked(broker: ScriptedBroker, arg: Any) -> None:
    broker.questions["stats"] = lambda _: (True, {})
    asked = get_runtime().ask("stats", arg)
    assert asked.wait(5)
    assert "The question can't be sent" in str(asked.error)
    good = get_runtime().ask("stats", 1)
    assert good.wait(5)
    assert good.ok
    assert broker.connections == 1
