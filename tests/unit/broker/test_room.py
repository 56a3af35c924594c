"""How a broker knows, without asking for each run, whether the namespace has room for one more."""

from __future__ import annotations

from typing import cast

import pytest
from prefect_lite_broker.room import RETRY_BOUNDS, RETRY_SECONDS, Room
from prefect_lite_broker.store import Store

from prefect_lite.exceptions import StoreUnavailable
from tests.tools.waiting import until
from tests.unit.broker.test_maintenance import running

pytestmark = pytest.mark.anyio


class Counter:
    """Counts what was accepted and not taken away."""

    def __init__(self, stored: int = 0) -> None:
        self.stored = stored
        self.readings = 0
        self.fault: Exception | None = None

    async def waiting(self) -> int:
        self.readings += 1
        if self.fault is not None:
            raise self.fault
        return self.stored

    def room(self, most: int, interval: float = 30.0) -> Room:
        return Room(cast(Store, self), most, interval)

    def submit(self, room: Room, count: int) -> int:
        """So many runs one after the other; returns how many are stored."""
        taken = 0
        for _ in range(count):
            fits = room.admit()
            self.stored += fits
            taken += fits
            room.settled(fits)
        return taken


async def test_the_limit_holds_between_readings() -> None:
    counter = Counter()
    room = counter.room(100)
    assert counter.submit(room, 250) == 100
    assert counter.readings == 0
    assert room.waiting == 100
    assert room.text() == "100 runs wait in this namespace; max_queued_total allows 100."


async def test_runs_that_are_stored_while_it_reads_count(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Counter()
    room = counter.room(100)

    async def late() -> int:
        """The answer was true when it was sent; those of the runs behind it came with it."""
        read = counter.stored
        assert counter.submit(room, 60) == 60
        return read

    with monkeypatch.context() as patch:
        patch.setattr(counter, "waiting", late)
        await room.run_once()
    assert room.waiting == 60
    assert counter.submit(room, 60) == 40
    await room.run_once()
    assert (room.waiting, room.leaving) == (100, 0)


async def test_what_left_makes_room_with_the_next_reading() -> None:
    counter = Counter()
    room = counter.room(100)
    await room.run_once()
    counter.submit(room, 100)
    counter.stored -= 30
    assert counter.submit(room, 1) == 0
    await room.run_once()
    assert counter.submit(room, 100) == 30


async def test_runs_without_an_answer_count() -> None:
    counter = Counter()
    room = counter.room(10)
    assert [room.admit() for _ in range(12)] == [True] * 10 + [False] * 2
    await room.run_once()  # none of them is stored yet
    assert room.waiting == 12
    for _ in range(6):
        room.settled(True)
    for _ in range(6):
        room.settled(False)
    counter.stored = 6
    assert room.waiting == 6
    await room.run_once()
    assert room.waiting == 6


async def test_half_the_room_used_asks_for_a_reading_and_more_does_not_flood() -> None:
    counter = Counter()
    room = counter.room(1_000)
    async with running(room):
        await until(lambda: counter.readings == 1)
        counter.submit(room, 400)
        counter.stored = 0  # executed meanwhile
        counter.submit(room, 200)
        await until(lambda: counter.readings == 2)
        await until(lambda: room.waiting == counter.stored)
        counter.submit(room, 5_000)
        await until(lambda: counter.readings == 3)
    assert counter.readings == 3


async def test_the_store_may_be_away() -> None:
    counter = Counter()
    room = counter.room(10, interval=0.01)
    counter.fault = StoreUnavailable("away")
    async with running(room):
        await until(lambda: counter.readings > 1)
        assert counter.submit(room, 20) == 10  # what it knows itself goes on to count
        counter.fault = None
        counter.stored = 3
        await until(lambda: room.waiting == 3)


async def test_retry_after_follows_the_rate_at_which_runs_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("prefect_lite_broker.room.time.monotonic", lambda: clock[0])
    counter = Counter(100)
    room = counter.room(100)
    await room.run_once()
    assert room.retry_after() == RETRY_SECONDS
    for _ in range(20):
        clock[0] += 1.0
        counter.stored = 80
        await room.run_once()
        assert counter.submit(room, 20) == 20
    assert room.leaving == pytest.approx(20, rel=0.1)
    waits = [room.retry_after() for _ in range(1_000)]
    assert waits[0] == pytest.approx(RETRY_BOUNDS[0], rel=0.1)
    assert waits[39] == pytest.approx(2.0, rel=0.1)  # forty places, twenty each second
    assert waits[-1] == RETRY_BOUNDS[1]
    assert waits == sorted(waits)
