"""Every way a run can end has a state and a sentence."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import threading
from typing import Any

import pytest
from scripted_broker import wait_until

from prefect_lite import task
from prefect_lite.exceptions import (
    CrashedRun,
    EnvelopeRejected,
    ParameterBindError,
    PayloadTooLarge,
    SerializationError,
)
from prefect_lite.keyring import Keyring


@task(key="t.add")
def add(x: int, y: int = 0) -> int:
    return x + y


@task(key="t.aadd")
async def aadd(x: int, y: int = 0) -> int:
    await asyncio.sleep(0)
    return x + y


class MyError(Exception):
    pass


@task(key="t.fail")
def fail() -> None:
    raise MyError("boom")


@task(key="t.afail", retries=2)
async def afail() -> None:
    raise ValueError("async boom")


def test_values(broker: Any, serve: Any) -> None:
    serve(add, aadd)
    runs = [(broker.push(key, x, y=1), x + 1) for x in range(20) for key in ("t.add", "t.aadd")]
    for run_id, expected in runs:
        assert broker.outcome(run_id) == expected
    finish = broker.finished[runs[0][0]]
    assert (finish.type, finish.name, finish.attempt) == ("COMPLETED", "Completed", 1)
    assert broker.served[0] == ["t.aadd", "t.add"]


def test_an_exception_comes_back_as_itself(broker: Any, serve: Any) -> None:
    serve(fail)
    run_id = broker.push("t.fail")
    with pytest.raises(Exception, match="boom"):
        broker.outcome(run_id)
    finish = broker.finished[run_id]
    assert (finish.type, finish.name, finish.message) == ("FAILED", "Failed", "MyError: boom")


def test_retries_without_delay_run_in_place_and_are_reported(broker: Any, serve: Any) -> None:
    serve(afail)
    run_id = broker.push("t.afail")
    with pytest.raises(ValueError, match="async boom"):
        broker.outcome(run_id)
    assert broker.finished[run_id].attempt == 3
    assert not broker.retried


def test_a_delayed_retry_goes_back_to_the_broker(broker: Any, serve: Any) -> None:
    serve(fail.with_options(retries=1, retry_delay_seconds=7))
    run_id = broker.push("t.fail")
    wait_until(lambda: run_id in broker.retried)
    retry = broker.retried[run_id]
    assert (retry.after_seconds, retry.attempt, retry.message) == (7, 2, "MyError: boom")
    last = broker.push("t.fail", attempt=2)
    assert broker.end(last).attempt == 2


def test_options_that_travel_win_over_the_workers(broker: Any, serve: Any) -> None:
    serve(fail)
    run_id = broker.push("t.fail", options={"retries": 3})
    assert broker.end(run_id).attempt == 4


def test_arguments_that_do_not_fit(broker: Any, serve: Any) -> None:
    serve(add, aadd)
    for key in ("t.add", "t.aadd"):
        run_id = broker.push(key, 1, z=2)
        with pytest.raises(ParameterBindError, match=r"don't fit a?add"):
            broker.outcome(run_id)
        assert "unexpected keyword argument 'z'" in broker.finished[run_id].message


def test_a_task_that_is_not_served(broker: Any, serve: Any) -> None:
    serve(add)
    finish = broker.end(broker.push("t.other"))
    assert (finish.type, finish.message) == (
        "FAILED",
        "This worker does not serve 't.other', but was given a run of it.",
    )
    assert broker.outcome(broker.push("t.add", 1)) == 1


def test_an_altered_or_unsigned_or_foreign_call_is_refused(broker: Any, serve: Any) -> None:
    serve(add)
    own = broker.seal("0" * 32, "t.add", 1)
    broker_keyring, broker.keyring = broker.keyring, Keyring([])
    unsigned = broker.seal("0" * 32, "t.add", 1)
    broker.keyring = broker_keyring
    for body in (own, unsigned, b"\x93garbage", own[:-1]):
        run_id = broker.push("t.add", body=body)
        with pytest.raises(EnvelopeRejected):
            broker.outcome(run_id)
        assert broker.finished[run_id].message.startswith("The call was refused: ")


class Hostile:
    def __reduce__(self) -> Any:
        return (_leave, ())


def _leave() -> None:
    raise SystemExit(3)


def test_a_call_that_exits_while_it_is_decoded(broker: Any, serve: Any) -> None:
    serve(add, aadd)
    for key in ("t.add", "t.aadd"):
        run_id = broker.push(key, Hostile())
        with pytest.raises(CrashedRun, match="can't be decoded on this worker: SystemExit: 3"):
            broker.outcome(run_id)
        assert broker.finished[run_id].type == "CRASHED"
        assert broker.outcome(broker.push(key, 1)) == 1


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    number: int


@task(key="t.frozen")
def frozen() -> None:
    raise FrozenError(5)


def test_an_exception_that_takes_no_attributes(broker: Any, serve: Any) -> None:
    serve(frozen)
    finish = broker.end(broker.push("t.frozen"))
    assert (finish.type, finish.message.partition(":")[0]) == ("FAILED", "FrozenError")


def _leave_hook(*_: object) -> None:
    raise SystemExit(4)


async def _cancelled_hook(*_: object) -> None:
    raise asyncio.CancelledError


@task(key="t.hooked", on_completion=[_leave_hook, _cancelled_hook])
def hooked() -> str:
    return "hooked"


@task(key="t.ahooked", on_completion=[_leave_hook, _cancelled_hook])
async def ahooked() -> str:
    return "hooked"


def test_a_hook_that_would_end_the_process_changes_nothing(broker: Any, serve: Any) -> None:
    serve(hooked, ahooked)
    for key in ("t.hooked", "t.ahooked"):
        assert broker.outcome(broker.push(key)) == "hooked"


@task(key="t.unpicklable", retries=3)
def unpicklable() -> Any:
    return threading.Lock()


@task(key="t.large")
async def large(size: int) -> bytes:
    return b"x" * size


def test_results_that_cannot_go_back(broker: Any, serve: Any) -> None:
    serve(unpicklable, large)
    run_id = broker.push("t.unpicklable")
    with pytest.raises(SerializationError):
        broker.outcome(run_id)
    assert broker.finished[run_id].attempt == 1, "it ran fine; again would end the same"
    assert "can't be serialized" in broker.finished[run_id].message
    run_id = broker.push("t.large", 300_000)
    with pytest.raises(PayloadTooLarge, match="at most 200,000"):
        broker.outcome(run_id)
    assert len(broker.outcome(broker.push("t.large", 150_000))) == 150_000


@task(key="t.exit")
def leave() -> None:
    raise SystemExit(7)


@task(key="t.aexit")
async def aleave() -> None:
    raise KeyboardInterrupt


@task(key="t.cancels")
async def cancels_itself() -> None:
    raise asyncio.CancelledError


def test_what_would_end_the_process_ends_the_run_only(broker: Any, serve: Any) -> None:
    serve(leave, aleave, cancels_itself, add, aadd)
    for key in ("t.exit", "t.aexit", "t.cancels"):
        run_id = broker.push(key)
        with pytest.raises(CrashedRun, match="raised"):
            broker.outcome(run_id)
        assert broker.finished[run_id].type == "CRASHED"
    assert broker.outcome(broker.push("t.add", 1)) == 1
    assert broker.outcome(broker.push("t.aadd", 1)) == 1


@task(key="t.surrogate")
def surrogate() -> None:
    raise OSError("no file \udc80" + "x" * 100_000)


def test_a_text_that_the_wire_cannot_take_is_made_to_fit(broker: Any, serve: Any) -> None:
    serve(surrogate)
    finish = broker.end(broker.push("t.surrogate"))
    assert finish.message.startswith("OSError: no file ?x")
    assert len(finish.message) == 2_000


variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


@task(key="t.leak")
def leak() -> int:
    seen = variable.get()
    variable.set(seen + 1)
    return seen


def test_context_variables_do_not_leak_into_the_next_run(broker: Any, serve: Any) -> None:
    serve(leak, limit=1)
    assert [broker.outcome(broker.push("t.leak")) for _ in range(3)] == [0, 0, 0]


def test_an_alias_is_served(broker: Any, serve: Any) -> None:
    @task(key="t.new", aliases=["t.old"])
    def renamed() -> int:
        return 1

    serve(renamed)
    assert broker.outcome(broker.push("t.old")) == 1
