"""Whatever becomes of a run, the client forgets it, and its place among the unconfirmed ones comes free."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from http import HTTPStatus
from typing import Any

import pytest

from prefect_lite import batch, task
from prefect_lite.client.runtime import Runtime, close_runtime, get_runtime
from prefect_lite.exceptions import PrefectException
from prefect_lite.protocol import messages as m
from prefect_lite.run_ids import new_run_id
from prefect_lite.settings import get_settings
from prefect_lite.upstreams import UNSETTLED
from tests.tools.waiting import wait_until
from tests.unit.sdk.scripted_broker import ScriptedBroker

SECONDS = 1.0
SHARED = [new_run_id() for _ in range(4)]
"""Ids that several threads give their runs."""


@task
def add(x: Any) -> Any:
    return x


@task
def other(x: Any) -> Any:
    return x


class Moody:
    """Gives each SUBMIT any of the answers there are, also none, until it is calm."""

    def __init__(self, chance: random.Random) -> None:
        self.calm = False
        self._chance = chance

    def __call__(self, submit: m.Submit) -> m.Message | None:
        if self.calm:
            return m.Accepted([submit.run_id])
        chance = self._chance.random()
        if chance < 0.3:
            return m.Refused(submit.run_id, "full", "Full.", 0.01)
        if chance < 0.4:
            return m.Refused(submit.run_id, "unavailable", "Away.", 0.01)
        if chance < 0.45:
            return m.Refused(submit.run_id, "conflict", "Other arguments.")
        if chance < 0.55:
            return None
        if chance < 0.6 and submit.idempotency_key:
            return m.Accepted([], [[submit.run_id, new_run_id()]])
        return m.Accepted([submit.run_id])


def conditions(chance: random.Random) -> Any:
    given: dict[str, Any] = {"queue_timeout": chance.choice([None, 0, 0.05, 0.5])}
    kind = chance.random()
    if kind < 0.2:
        given["idempotency_key"] = str(chance.randrange(4))
    elif kind < 0.4:
        given["run_id"] = chance.choice(SHARED)
    return given


def from_a_thread(chance: random.Random) -> None:
    kind = chance.random()
    if kind < 0.6:
        chance.choice([add, other]).apply_async(
            ("x" * chance.choice([1, 3_000, 25_000]),), **conditions(chance)
        )
    elif kind < 0.75:
        add.map(range(60), deferred=True)
    else:
        with batch(queue_timeout=chance.choice([None, 0, 0.3])):
            for _ in range(20):
                other.apply_async((1,), **conditions(chance))


async def from_coroutines(chance: random.Random) -> None:
    async def call() -> None:
        async with asyncio.timeout(chance.choice([0.001, 0.05, 1])), batch(queue_timeout=0.3):
            for _ in range(5):
                await add.aapply_async((1,), **conditions(chance))

    await asyncio.gather(*(call() for _ in range(30)), return_exceptions=True)


def left_over(runtime: Runtime) -> dict[str, int]:
    link, allowance = runtime._link, runtime._allowance
    counts = {
        "runs": allowance.runs,
        "bytes": allowance.bytes,
        "callers": len(allowance._waiters),
        "waiting": len(link._waiting),
        "pending": len(link._pending),
        "twins": len(link._twins),
        "unsure": len(link._unsure),
        "in lines": len(link._queueing),
        "submits": link._session.unanswered,
        "unsettled": len(UNSETTLED),
    }
    return {name: count for name, count in counts.items() if count}


@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_left_over(broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    limits = {"MAX_UNCONFIRMED_RUNS": 40, "MAX_UNCONFIRMED_BYTES": 20_000, "CONNECT_TIMEOUT_SECONDS": 0.3}
    for name, value in limits.items():
        monkeypatch.setenv(f"PREFECT_LITE_{name}", str(value))
    get_settings.cache_clear()  # type: ignore[attr-defined]
    chance = random.Random(seed)
    broker.accept = moody = Moody(chance)
    over = threading.Event()

    def keep_calling(number: int) -> None:
        own = random.Random(f"{seed} {number}")
        while not over.is_set():
            try:
                if number % 4:
                    from_a_thread(own)
                else:
                    asyncio.run(from_coroutines(own))
            except PrefectException:
                continue

    threads = [threading.Thread(target=keep_calling, args=(number,)) for number in range(8)]
    runtimes = {get_runtime()}
    for thread in threads:
        thread.start()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        over.wait(chance.uniform(0.02, 0.1))
        kind = chance.random()
        if kind < 0.2:
            broker.deny = chance.choice([HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.UNAUTHORIZED, None])
        elif kind < 0.3:
            close_runtime()
        broker.cut()
        runtimes.add(get_runtime())
    broker.deny = None
    moody.calm = True
    over.set()
    broker.cut()  # what was left without an answer is sent again
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    for runtime in runtimes:
        wait_until(lambda runtime=runtime: not left_over(runtime), 10, f"the end of {left_over(runtime)}")
