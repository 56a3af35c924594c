"""``delay`` and its kin: what is sent, when they return, and what they raise."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import threading
import time
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from prefect_lite import PrefectDistributedFuture, batch, task, unmapped
from prefect_lite.client.runtime import close_runtime, get_runtime
from prefect_lite.exceptions import (
    AuthenticationFailed,
    BatchError,
    BrokerUnreachable,
    ConfigurationError,
    IdempotencyConflict,
    OptionNotPortable,
    ParameterBindError,
    PayloadTooLarge,
    PrefectException,
    QueueFull,
    SerializationError,
    StoreUnavailable,
    SubmitError,
)
from prefect_lite.protocol import messages as m
from prefect_lite.settings import get_settings
from tests.tools.waiting import wait_until
from tests.unit.sdk.scripted_broker import ScriptedBroker

pytestmark = pytest.mark.anyio


@task(tags=["blue"], result_ttl_seconds=700, max_lost=1)
def add(x: int, y: int = 0) -> int:
    return x + y


@dataclasses.dataclass
class Box:
    content: int

    @task(name="Box plus")
    def plus(self, other: int) -> int:
        return self.content + other


def refuse(code: str, **more: Any) -> Any:
    return lambda submit: m.Refused(submit.run_id, code, "Said the broker.", **more)


def test_the_run_is_described_and_signed(broker: ScriptedBroker) -> None:
    future = add.delay(1, y=2)
    (submit,) = broker.submits
    assert future.task_run_id.hex == submit.run_id
    assert (submit.task_key, submit.tags) == (f"{__name__}.add", ["blue"])
    assert (submit.result_ttl_seconds, submit.max_lost, submit.priority) == (700, 1, 0)
    assert (submit.name, submit.fingerprint, submit.idempotency_key) == ("", b"", "")
    assert broker.call_of(submit) == ((1,), {"y": 2}, {})
    assert broker.tokens == ["Bearer client-token"]


def test_changed_options_and_methods_travel(broker: ScriptedBroker) -> None:
    Box(3).plus.with_options(retries=4).delay(1)
    (submit,) = broker.submits
    assert submit.name == "Box plus"
    assert broker.call_of(submit) == ((Box(3), 1), {}, {"retries": 4})


def test_it_returns_only_after_accepted(broker: ScriptedBroker) -> None:
    broker.accept = lambda _: None
    futures: list[Any] = []
    thread = threading.Thread(target=lambda: futures.append(add.delay(1)))
    thread.start()
    (submit,) = broker.wait_for_submits(1)
    assert thread.is_alive()
    assert not futures
    broker.accept = lambda one: m.Accepted([one.run_id])
    broker.cut()  # the client asks again on the next connection
    thread.join(5)
    assert futures[0].task_run_id.hex == submit.run_id
    assert {one.run_id for one in broker.submits} == {submit.run_id}


@pytest.mark.parametrize(
    ("args", "error"),
    [((), ParameterBindError), ((1, 2, 3), ParameterBindError), ((threading.Lock(),), SerializationError)],
)
def test_bad_arguments_are_refused_before_anything_is_sent(
    client_home: Path, args: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):  # there is no broker to ask
        add.delay(*args)


def test_the_argument_that_cannot_be_sent_is_named(client_home: Path) -> None:
    with pytest.raises(SerializationError, match=r"Argument 'y' of add\(\) can't be sent.*lock"):
        add.delay(1, threading.Lock())  # type: ignore[arg-type]


def test_too_large_and_not_portable_are_refused_here(
    client_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_LITE_MAX_PAYLOAD_BYTES", "1000")
    get_settings.cache_clear()  # type: ignore[attr-defined]
    with pytest.raises(PayloadTooLarge, match=r"add\(\) take 2,\d+ bytes, more than"):
        add.delay("x" * 2000)  # type: ignore[arg-type]
    with pytest.raises(OptionNotPortable):
        add.with_options(on_failure=[print]).delay(1)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("conflict", IdempotencyConflict),
        ("full", QueueFull),
        ("unavailable", StoreUnavailable),
        ("payload_too_large", PayloadTooLarge),
        ("unsupported", SubmitError),
    ],
)
def test_refusals_have_their_own_exceptions(
    broker: ScriptedBroker, code: str, error: type[PrefectException]
) -> None:
    broker.accept = refuse(code, retry_after_seconds=3.0)
    with pytest.raises(error, match="Said the broker") as caught:
        add.delay(1)
    if isinstance(caught.value, QueueFull):
        assert caught.value.retry_after_seconds == 3.0


def test_no_broker_within_the_connect_timeout(client_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_LITE_CONNECT_TIMEOUT_SECONDS", "0.3")
    get_settings.cache_clear()  # type: ignore[attr-defined]
    with pytest.raises(
        BrokerUnreachable, match=r"No broker answered at ws\+unix.* within 0.3 s. Start one with"
    ):
        add.delay(1)
    with pytest.raises(BrokerUnreachable):
        PrefectDistributedFuture(UUID(int=1)).result(timeout=5)


def test_what_was_given_up_is_not_sent_later(broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_LITE_CONNECT_TIMEOUT_SECONDS", "0.3")
    get_settings.cache_clear()  # type: ignore[attr-defined]
    broker.stop()
    with pytest.raises(BrokerUnreachable):
        add.delay(1)
    broker.start()
    add.delay(2)
    assert [broker.call_of(submit).args for submit in broker.submits] == [(2,)]


def test_it_waits_for_a_broker_that_comes_in_time(broker: ScriptedBroker) -> None:
    broker.stop()
    threading.Timer(0.2, broker.start).start()
    add.delay(1)
    assert len(broker.submits) == 1


@pytest.mark.parametrize("status", [HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN])
def test_a_wrong_token_is_not_tried_twice(broker: ScriptedBroker, status: HTTPStatus) -> None:
    broker.deny = status
    with pytest.raises(AuthenticationFailed, match="PREFECT_LITE_CLIENT_TOKEN"):
        add.delay(1)
    assert len(broker.tokens) == 1
    broker.deny = None
    add.delay(1)  # perhaps another token by now


def test_a_proxy_that_says_503_is_tried_again(broker: ScriptedBroker) -> None:
    broker.deny = HTTPStatus.SERVICE_UNAVAILABLE
    thread = threading.Thread(target=add.delay, args=(1,))
    thread.start()
    wait_until(lambda: len(broker.tokens) >= 3)
    broker.deny = None
    thread.join(5)
    assert len(broker.submits) == 1


def test_an_unserved_key_is_told_once(broker: ScriptedBroker, caplog: pytest.LogCaptureFixture) -> None:
    broker.accept = lambda one: m.Accepted(
        [one.run_id], [], [[one.task_key, f"No worker serves {one.task_key}"]]
    )
    add.delay(1)
    add.delay(2)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        f"No worker serves {add.key}"
    ]


# -- conditions -----------------------------------------------------------------------------------


def test_conditions_are_sent_as_durations(broker: ScriptedBroker) -> None:
    later = datetime.now(UTC) + timedelta(seconds=60)
    add.apply_async((1,), {"y": 2}, countdown=5, expires=30, priority=9)
    add.apply_async([1], eta=later, expires=later, run_id=UUID(int=7))
    one, two = broker.submits
    assert (one.countdown_seconds, one.expires_seconds, one.priority) == (5, 30, 9)
    assert 50 < two.countdown_seconds <= 60
    assert 50 < two.expires_seconds <= 60
    assert two.run_id == UUID(int=7).hex
    assert len(two.fingerprint) == 16
    add.apply_async((1,), eta=datetime.now(UTC) - timedelta(hours=1))
    assert broker.submits[2].countdown_seconds == 0


@pytest.mark.parametrize(
    "conditions",
    [
        {"eta": datetime(2030, 1, 1)},
        {"eta": 3},
        {"countdown": -1},
        {"countdown": 1, "eta": datetime.now(UTC)},
        {"expires": 0},
        {"expires": datetime(2020, 1, 1, tzinfo=UTC)},
        {"priority": 10},
        {"priority": True},
        {"idempotency_key": ""},
        {"idempotency_key": 5},
        {"idempotency_key": "\ud800"},
        {"idempotency_key": "k", "run_id": UUID(int=1)},
    ],
)
def test_impossible_conditions_are_refused_here(client_home: Path, conditions: Any) -> None:
    with pytest.raises(ConfigurationError):
        add.apply_async((1,), **conditions)
    with pytest.raises(TypeError, match="colour"):
        add.apply_async((1,), colour="blue")  # type: ignore[call-overload]


def test_an_idempotency_key_stands_for_the_first_run(broker: ScriptedBroker) -> None:
    first = add.apply_async((1,), idempotency_key="k")
    broker.accept = lambda one: m.Accepted([], [[one.run_id, first.task_run_id.hex]])
    second = add.apply_async((1,), idempotency_key="k")
    assert second == first
    one, two = broker.submits
    assert one.run_id != two.run_id
    assert one.run_id[-3:] == two.run_id[-3:]
    assert one.fingerprint == two.fingerprint


def test_the_order_of_names_makes_no_conflict(broker: ScriptedBroker) -> None:
    calls: list[dict[str, Any]] = [
        {"x": {"a": 1, "b": (2, {"c": 3, "d": 4})}, "y": 2},
        {"y": 2, "x": {"b": (2, {"d": 4, "c": 3}), "a": 1}},
        {"y": 2, "x": {"b": [2, {"d": 4, "c": 3}], "a": 1}},
        {"y": 2, "x": {"b": (2, {"d": 4, "c": 3}), "a": True}},
    ]
    for kwargs in calls:
        add.apply_async(kwargs=kwargs, idempotency_key="k")
    one, two, *others = [submit.fingerprint for submit in broker.submits]
    assert one == two
    assert len({one, *others}) == 3


def test_names_may_be_of_a_kind_of_str(broker: ScriptedBroker) -> None:
    class Name(str):
        __slots__ = ()

    add.delay(**{Name("x"): 1, Name("y"): 2})
    add.delay(**{Name("x"): {3}})  # type: ignore[arg-type]
    assert [broker.call_of(submit).kwargs for submit in broker.submits] == [{"x": 1, "y": 2}, {"x": {3}}]
    assert {type(name) for submit in broker.submits for name in broker.call_of(submit).kwargs} == {str}


def test_the_same_id_from_two_threads_is_settled_for_both(broker: ScriptedBroker) -> None:
    broker.accept = lambda _: None
    asked = {"run_id": UUID(int=9)}
    futures: list[Any] = []
    threads = [
        threading.Thread(target=lambda: futures.append(add.apply_async((1,), **asked))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    broker.wait_for_submits(1)
    broker.accept = lambda one: m.Accepted([one.run_id])
    broker.cut()
    for thread in threads:
        thread.join(5)
    assert len(futures) == 2


# -- many at a time -------------------------------------------------------------------------------


def test_map_sends_all_and_returns_when_they_are_durable(broker: ScriptedBroker) -> None:
    futures = add.map(range(1200), unmapped(5), deferred=True)
    assert len(futures) == len(broker.submits) == 1200
    assert [submit.run_id for submit in broker.submits] == [future.task_run_id.hex for future in futures]
    assert broker.call_of(broker.submits[7]).args == (7, 5)


def test_map_names_the_refused_and_keeps_the_rest(broker: ScriptedBroker) -> None:
    broker.accept = lambda one: (
        m.Refused(one.run_id, "full", "Full.")
        if broker.call_of(one).args == (2,)
        else m.Accepted([one.run_id])
    )
    with pytest.raises(BatchError, match=r"1 of 4 runs were not accepted\. The first: Full\.") as caught:
        add.map([1, 2, 3, 4], deferred=True)
    assert [type(error) for error in caught.value.errors.values()] == [QueueFull]


def test_map_names_what_was_accepted_before_a_call_that_cannot_be_sent(broker: ScriptedBroker) -> None:
    items: list[Any] = [*range(700), threading.Lock(), 701]
    with pytest.raises(BatchError, match=r"Call 701 can't be sent, so 500 runs were accepted") as caught:
        add.map(items, deferred=True)
    assert isinstance(caught.value.__cause__, SerializationError)
    assert [future.task_run_id.hex for future in caught.value.futures] == [
        submit.run_id for submit in broker.submits
    ]
    with pytest.raises(SerializationError):  # nothing was sent
        add.map([1, threading.Lock()], deferred=True)
    assert len(broker.submits) == 500


def test_map_without_a_broker_says_so_once(client_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_LITE_CONNECT_TIMEOUT_SECONDS", "0.2")
    get_settings.cache_clear()  # type: ignore[attr-defined]
    with pytest.raises(BrokerUnreachable):
        add.map([1, 2], deferred=True)


def test_a_batch_waits_once_at_its_end(broker: ScriptedBroker) -> None:
    broker.accept = lambda _: None
    returned = threading.Event()

    def work() -> None:
        with batch():
            futures.extend(add.delay(number) for number in range(50))
            futures.extend(add.map([1, 2], deferred=True))
            inside.set()
        returned.set()

    futures: list[Any] = []
    inside = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(5)
    assert not returned.is_set()
    broker.accept = lambda one: m.Accepted([one.run_id])
    broker.wait_for_submits(52)
    broker.cut()
    thread.join(5)
    assert returned.is_set()
    assert len({future.task_run_id for future in futures}) == 52


def test_a_batch_names_the_refused(broker: ScriptedBroker) -> None:
    broker.accept = refuse("full")

    def work(error: Exception | None = None) -> None:
        with batch():
            add.delay(1)
            add.delay(2)
            if error is not None:
                raise error

    with pytest.raises(BatchError, match="2 of 2 runs"):
        work()
    with pytest.raises(ZeroDivisionError):  # the block's own exception says more
        work(ZeroDivisionError())


def test_a_batch_learns_what_its_keys_stand_for(broker: ScriptedBroker) -> None:
    existing = UUID(int=5)
    broker.accept = lambda one: m.Accepted([], [[one.run_id, existing.hex]])
    with batch():
        future = add.apply_async((1,), idempotency_key="k")
    assert future.task_run_id == existing


def test_a_thread_that_outlives_its_batch_waits_itself(broker: ScriptedBroker) -> None:
    left, returned = threading.Event(), threading.Event()

    def late() -> None:
        assert left.wait(5)
        add.delay(1)
        add.map([2, 3], deferred=True)
        returned.set()

    with batch():
        thread = threading.Thread(target=contextvars.copy_context().run, args=(late,))
        thread.start()
    broker.accept = lambda _: None
    left.set()
    broker.wait_for_submits(1)
    assert not returned.wait(0.1)
    broker.accept = lambda one: m.Accepted([one.run_id])
    broker.cut()
    thread.join(5)
    assert returned.is_set()


async def test_a_coroutine_that_outlives_its_batch_waits_itself(broker: ScriptedBroker) -> None:
    async with batch():
        child = asyncio.create_task(add.adelay(1))
    broker.accept = lambda _: None
    await asyncio.to_thread(broker.wait_for_submits, 1)
    assert not child.done()
    broker.accept = lambda one: m.Accepted([one.run_id])
    broker.cut()
    await asyncio.wait_for(child, 5)


# -- threads and loops ----------------------------------------------------------------------------


def test_threads_share_one_connection(broker: ScriptedBroker) -> None:
    threads = [threading.Thread(target=lambda: [add.delay(n) for n in range(20)]) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(broker.submits) == 100
    assert broker.connections == 1


async def test_the_loop_goes_on_while_coroutines_wait(broker: ScriptedBroker) -> None:
    broker.accept = lambda _: None
    waiting = asyncio.gather(add.adelay(1), add.aapply_async((2,)))
    await asyncio.to_thread(broker.wait_for_submits, 2)
    assert not waiting.done()
    broker.accept = lambda one: m.Accepted([one.run_id])
    broker.cut()
    assert len(await asyncio.wait_for(waiting, 5)) == 2


async def test_an_async_batch(broker: ScriptedBroker) -> None:
    async with batch():
        futures = [await add.adelay(number) for number in range(10)]
    assert {submit.run_id for submit in broker.submits} == {future.task_run_id.hex for future in futures}


async def test_it_works_under_a_running_loop(broker: ScriptedBroker) -> None:
    broker.execute = lambda x, y=0: x + y
    assert add.delay(1, 2).result(timeout=5) == 3


def test_a_closed_client_starts_again(broker: ScriptedBroker) -> None:
    add.delay(1)
    first = get_runtime()
    close_runtime()
    add.delay(2)
    assert get_runtime() is not first
    assert broker.connections == 2


def test_closing_fails_what_waits(broker: ScriptedBroker) -> None:
    broker.accept = lambda _: None
    errors: list[Exception] = []

    def work() -> None:
        try:
            add.delay(1)
        except BrokerUnreachable as exc:
            errors.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    broker.wait_for_submits(1)
    close_runtime()
    thread.join(5)
    assert "closed" in str(errors[0])


def test_a_fault_is_seen_and_mended_quickly(broker: ScriptedBroker) -> None:
    add.delay(1)
    for number in range(3):
        broker.cut()
        start = time.monotonic()
        add.delay(number)
        assert time.monotonic() - start < 2
    assert len({submit.run_id for submit in broker.submits}) == 4
