"""Payloads that are verified and signed beside the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from prefect_lite_worker import execution
from prefect_lite_worker.app import WorkerApp
from scripted_broker import wait_until

from prefect_lite import envelope, task
from prefect_lite.exceptions import EnvelopeRejected, PayloadTooLarge
from prefect_lite.keyring import Keyring
from prefect_lite.run_ids import new_run_id

LONG = "x" * 50_000
mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="none")


class Gate:
    """Holds up what is done beside the loop."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()
        self.threads: list[str] = []

    def __call__(self, function: Any) -> Any:
        def gated(*arguments: Any) -> Any:
            self.threads.append(threading.current_thread().name)
            if self.threads[-1].startswith("prefect-lite-signing"):
                self.entered.set()
                assert self.release.wait(10)
            return function(*arguments)

        return gated


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "LONG_BYTES", 10_000)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Calls wait here for their verification."""
    found = Gate()
    monkeypatch.setattr(envelope, "verify_call", found(envelope.verify_call))
    yield found
    found.release.set()


class Fussy:
    """Notes which thread rebuilds it and which takes it apart."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.threads: list[str] = []

    def __getstate__(self) -> dict[str, Any]:
        asyncio.get_running_loop()
        return {"text": self.text, "threads": [*self.threads, "sealed on a loop"]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        self.threads.append("opened on a loop")


@task(key="l.echo")
async def echo(value: Any) -> Any:
    mark.set("echo")
    await asyncio.sleep(0)
    assert mark.get() == "echo"
    return value


@task(key="l.length")
async def length(value: Any) -> int:
    return len(value)


@task(key="l.produce")
async def produce(size: int) -> str:
    return "y" * size


@task(key="l.slow", timeout_seconds=0.1)
async def slow(value: Any) -> None:
    await asyncio.Event().wait()


def test_a_long_value_goes_there_and_back(broker: Any, serve: Any) -> None:
    serve(echo)
    runs = [broker.push("l.echo", LONG + str(number)) for number in range(8)]
    assert [broker.outcome(run_id) for run_id in runs] == [LONG + str(number) for number in range(8)]


def test_code_of_the_user_stays_on_the_loop(broker: Any, serve: Any) -> None:
    async def push() -> str:
        return broker.push("l.echo", Fussy(LONG))

    serve(echo)
    found = broker.outcome(asyncio.run(push()))
    assert found.text == LONG
    assert found.threads == ["sealed on a loop", "opened on a loop", "sealed on a loop"]


def test_others_go_on_while_a_long_call_is_verified(gate: Gate, broker: Any, serve: Any) -> None:
    serve(echo, length)
    long = broker.push("l.length", LONG)
    assert gate.entered.wait(10)
    assert broker.outcome(broker.push("l.echo", "short")) == "short"
    assert long not in broker.finished
    gate.release.set()
    assert broker.outcome(long) == len(LONG)


def test_a_wrong_signature_is_refused(broker: Any, serve: Any) -> None:
    serve(length)
    run_id = new_run_id()
    for body in (
        envelope.seal_call(Keyring.generate(), "default", "l.length", run_id, (LONG,), {}, {}),
        envelope.seal_call(broker.keyring, "default", "l.length", new_run_id(), (LONG,), {}, {}),
        b"\x96" + b"\xc1" * len(LONG),
    ):
        run_id = broker.push("l.length", body=body)
        with pytest.raises(EnvelopeRejected):
            broker.outcome(run_id)
        assert broker.finished[run_id].message.startswith("The call was refused: ")


def test_a_call_is_cancelled_while_it_is_verified(gate: Gate, broker: Any, serve: Any) -> None:
    serve(length)
    run_id = broker.push("l.length", LONG)
    assert gate.entered.wait(10)
    broker.cancel(run_id)
    served_again = broker.push("l.length", "ab")
    assert broker.outcome(served_again) == 2
    gate.release.set()
    finish = broker.end(run_id)
    assert finish.type == "CANCELLED"
    assert (run_id, 1) not in broker.started


def test_a_call_is_revoked_while_it_is_verified(gate: Gate, broker: Any, serve: Any) -> None:
    served = serve(length)
    run_id = broker.push("l.length", LONG)
    assert gate.entered.wait(10)
    broker.revoke(run_id)
    wait_until(lambda: all(run.stop is not None for run in served.app._parts.leases.active.values()))
    gate.release.set()
    assert broker.outcome(broker.push("l.length", "ab")) == 2
    assert run_id not in broker.finished
    assert run_id not in broker.released


def test_the_timeout_is_of_the_code_alone(gate: Gate, broker: Any, serve: Any) -> None:
    serve(slow, length)
    run_id = broker.push("l.slow", LONG)
    assert gate.entered.wait(10)
    assert broker.outcome(broker.push("l.length", "ab")) == 2
    assert run_id not in broker.finished
    gate.release.set()
    assert broker.end(run_id).name == "TimedOut"


def test_the_end_of_the_program_hands_back_what_is_being_verified(
    gate: Gate, broker: Any, settings: Any
) -> None:
    runs: list[str] = []

    async def main() -> None:
        serving = asyncio.create_task(WorkerApp([length], settings=settings).aserve())
        runs.append(broker.push("l.length", LONG))
        await asyncio.to_thread(gate.entered.wait, 10)
        assert not serving.done()

    asyncio.run(main())
    gate.release.set()
    wait_until(lambda: runs[0] in broker.released)
    assert runs[0] not in broker.finished


def test_a_long_result_may_be_too_long(broker: Any, serve: Any) -> None:
    serve(produce)
    with pytest.raises(PayloadTooLarge, match="at most 200,000 are allowed"):
        broker.outcome(broker.push("l.produce", 300_000))
    assert broker.outcome(broker.push("l.produce", 20_000)) == "y" * 20_000


def test_others_go_on_while_a_long_result_is_signed(
    broker: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    monkeypatch.setattr(envelope, "seal", gate(envelope.seal))
    serve(produce)
    run_id = broker.push("l.produce", 20_000)
    assert gate.entered.wait(10)
    assert broker.outcome(broker.push("l.produce", 3)) == "yyy"
    assert run_id not in broker.finished
    gate.release.set()
    assert broker.outcome(run_id) == "y" * 20_000


def test_a_defect_while_signing_ends_the_run(
    broker: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> bytes:
        if arguments[-2] == envelope.VALUE:
            raise SystemExit("a defect")
        return seal(*arguments)

    seal = envelope.seal
    serve(produce)
    monkeypatch.setattr(envelope, "seal", broken)
    finish = broker.end(broker.push("l.produce", 20_000))
    assert (finish.type, "a defect" in finish.message) == ("CRASHED", True)


def test_a_worker_that_has_stopped_signs_by_itself(broker: Any, serve: Any) -> None:
    served = serve(echo)
    served.app._parts.execution.close()
    assert broker.outcome(broker.push("l.echo", LONG)) == LONG
