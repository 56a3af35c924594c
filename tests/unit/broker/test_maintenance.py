"""Services: they repeat, survive a store that is away, and can be poked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
from prefect_lite_broker.dispatch import Dispatch
from prefect_lite_broker.maintenance import Promoter, Reaper, Service
from prefect_lite_broker.store import LeaseEvent, PromoteReply, Store
from prefect_lite_broker.watches import Watches

from prefect_lite.exceptions import StoreUnavailable
from prefect_lite.protocol.messages import RunState
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[None]:
    task = asyncio.create_task(service.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Counting(Service):
    name = "counting"

    def __init__(self, interval_seconds: float, faults: list[Exception | None]) -> None:
        super().__init__(interval_seconds)
        self.faults = faults
        self.calls = 0
        self.begun = asyncio.Event()
        self.enough = asyncio.Event()

    async def run_once(self) -> float:
        self.calls += 1
        self.begun.set()
        if self.calls > len(self.faults):
            self.enough.set()
            return self.interval_seconds
        fault = self.faults[self.calls - 1]
        if fault is not None:
            raise fault
        return self.interval_seconds


async def test_a_service_survives_faults(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "prefect_lite_broker.maintenance")
    service = Counting(0.001, [StoreUnavailable("away"), StoreUnavailable("still away"), None])
    async with running(service):
        await asyncio.wait_for(service.enough.wait(), 5)
    lines = [(record.levelno, record.message) for record in caplog.records]
    assert lines == [(logging.DEBUG, "The counting waits for the store: away")], (
        "the store tells of its trouble"
    )


async def test_a_poke_ends_the_pause() -> None:
    service = Counting(3600, [None])
    async with running(service):
        await service.begun.wait()
        service.poke()
        await asyncio.wait_for(service.enough.wait(), 5)


class Recorder:
    """Stands for dispatch and watches."""

    def __init__(self) -> None:
        self.woken: list[str] = []
        self.ends: list[RunState] = []

    def wake(self, key: str) -> None:
        self.woken.append(key)

    def wake_run(self, key: str, run_id: str) -> None:
        self.woken.append(key)

    def ended(self, state: RunState) -> None:
        self.ends.append(state)


class Leases:
    def __init__(self, events: list[LeaseEvent], fault: Exception | None = None) -> None:
        self.events = events
        self.fault = fault

    async def reap(self, tell: Callable[[LeaseEvent], None]) -> None:
        for event in self.events:
            tell(event)
        if self.fault:
            raise self.fault


async def test_the_reaper_logs_wakes_and_tells(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    crashed = RunState("b" * 32, "CRASHED")
    events = [
        LeaseEvent("a" * 32, "tasks.add", "s1", "ready", 1),
        LeaseEvent("b" * 32, "tasks.die", "s1", "crashed", 4, crashed),
    ]
    reaper = Reaper(cast(Store, Leases(events)), cast(Dispatch, recorder), cast(Watches, recorder), 0.1)
    assert await reaper.run_once() == 0.1
    assert recorder.woken == ["tasks.add"]
    assert recorder.ends == [crashed]
    actions = [getattr(record, "action", "") for record in caplog.records]
    assert actions == ["lease_ready", "lease_crashed"]


async def test_what_was_reaped_before_a_fault_is_told() -> None:
    recorder = Recorder()
    leases = Leases([LeaseEvent("a" * 32, "tasks.add", "s1", "ready", 1)], StoreUnavailable("away"))
    reaper = Reaper(cast(Store, leases), cast(Dispatch, recorder), cast(Watches, recorder), 0.1)
    with pytest.raises(StoreUnavailable):
        await reaper.run_once()
    assert recorder.woken == ["tasks.add"]


class Due:
    def __init__(self, replies: list[PromoteReply]) -> None:
        self.replies = replies
        self.calls = 0
        self.called = asyncio.Event()

    async def promote(self) -> PromoteReply:
        self.calls += 1
        self.called.set()
        return self.replies[min(self.calls, len(self.replies)) - 1]


async def test_the_promoter_sleeps_until_the_next_is_due() -> None:
    recorder = Recorder()
    due = Due([PromoteReply(["tasks.add"], [], 0.2), PromoteReply([], [], -1.0)])
    promoter = Promoter(cast(Store, due), cast(Dispatch, recorder), cast(Watches, recorder))
    assert await promoter.run_once() == 0.2
    assert recorder.woken == ["tasks.add"]
    assert await promoter.run_once() == promoter.interval_seconds


async def test_a_sooner_due_time_wakes_the_promoter() -> None:
    recorder = Recorder()
    due = Due([PromoteReply([], [], -1.0)])
    promoter = Promoter(cast(Store, due), cast(Dispatch, recorder), cast(Watches, recorder))
    async with running(promoter):
        await due.called.wait()
        due.called.clear()
        await asyncio.sleep(0)
        promoter.due_in(0.001)
        await asyncio.wait_for(due.called.wait(), 5)


async def test_what_is_delayed_while_the_promoter_looks_is_not_missed() -> None:
    recorder = Recorder()

    class Slow(Due):
        async def promote(self) -> PromoteReply:
            reply = await super().promote()
            if self.calls == 1:
                # The reply is already on its way, and knows nothing of this one.
                promoter.due_in(0.001)
            return reply

    due = Slow([PromoteReply([], [], -1.0)])
    promoter = Promoter(cast(Store, due), cast(Dispatch, recorder), cast(Watches, recorder))
    async with running(promoter):
        await until(lambda: due.calls == 2, 2.0)
