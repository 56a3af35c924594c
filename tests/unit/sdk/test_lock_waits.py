"""Slots of runs that wait for a lock: lent in the end, so that nothing stands still, but few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from prefect_lite import lock_waits
from prefect_lite.lock_waits import MANY, LockWait


class Lease:
    """Of a run on a worker."""

    lock_patience_seconds = 2.0

    def __init__(self) -> None:
        self.lent = 0

    def line(self, line: list[Any]) -> None:
        """No log is kept."""

    def lend(self, waits: int) -> None:
        self.lent += waits


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(lock_waits, "monotonic", clock)
    yield clock
    assert lock_waits._lent == 0


def test_a_slot_is_lent_after_a_while_and_once(clock: Clock) -> None:
    lease = Lease()
    waiting = LockWait(lease, lambda: False)
    clock.now += 1.9
    assert waiting() is False
    assert lease.lent == 0
    clock.now += 0.2
    waiting()
    waiting()
    assert lease.lent == 1
    waiting.end()
    waiting.end()
    assert lease.lent == 0


def test_a_short_wait_lends_nothing(clock: Clock) -> None:
    lease = Lease()
    waiting = LockWait(lease, lambda: True)
    assert waiting() is True
    waiting.end()
    assert lease.lent == 0
    assert LockWait(None, lambda: False)() is False


def test_the_more_have_lent_theirs_the_longer_it_takes(clock: Clock) -> None:
    leases = [Lease() for _ in range(3 * MANY)]
    waits = [LockWait(lease, lambda: False) for lease in leases]
    lent = []
    for _ in range(3):
        clock.now += 2.0
        for waiting in waits:
            waiting()
        lent.append(sum(lease.lent for lease in leases))
    assert lent == [MANY, 2 * MANY, 3 * MANY]
    for waiting in waits:
        waiting.end()
