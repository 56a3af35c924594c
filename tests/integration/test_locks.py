"""Locks in Redis, between real processes: one holder at a time, whatever becomes of them."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_lite.broker_storage import BrokerStorage
from prefect_lite.client import keeping
from prefect_lite.locking.redis import RENEWALS, RedisLockManager
from prefect_lite.results import ResultStore
from prefect_lite.testing import Harness
from prefect_lite.thread_or_loop import in_thread
from prefect_lite.transactions import IsolationLevel, transaction
from tests.integration.harness import PATIENT_TIMES, PrivateHome, wait_until

SHORT = 0.05

HOLDER = """
    import sys, time
    from prefect_lite.locking.redis import RedisLockManager
    assert RedisLockManager(lock_seconds=float(sys.argv[1])).acquire_lock("k", "child", acquire_timeout=30)
    print("held", flush=True)
    time.sleep(600)
"""

WAITER = """
    from prefect_lite.locking.redis import RedisLockManager
    manager = RedisLockManager()
    print("waits", flush=True)
    assert manager.acquire_lock("k", "waiter", acquire_timeout=60)
    print("has it", flush=True)
    manager.release_lock("k", "waiter")
"""

COUNTER = """
    import pathlib, sys, uuid
    from prefect_lite.locking.redis import RedisLockManager
    manager, counter, inside = RedisLockManager(), pathlib.Path("counter"), pathlib.Path("inside")
    for _ in range(25):
        holder = uuid.uuid4().hex
        assert manager.acquire_lock("k", holder, acquire_timeout=60)
        inside.mkdir()  # fails if somebody is
        counter.write_text(str(int(counter.read_text()) + 1))
        inside.rmdir()
        manager.release_lock("k", holder)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[PrivateHome]:
    made = PrivateHome(tmp_path, **PATIENT_TIMES)
    yield made
    made.close()


def test_a_lock_has_one_holder(harness: Harness) -> None:
    manager = RedisLockManager()
    assert manager.acquire_lock("k", "a")
    assert manager.acquire_lock("k", "a")
    assert not manager.acquire_lock("k", "b", acquire_timeout=0)
    assert not manager.acquire_lock("k", "b", acquire_timeout=SHORT)
    assert manager.is_locked("k")
    assert (manager.is_lock_holder("k", "a"), manager.is_lock_holder("k", "b")) == (True, False)
    assert not manager.wait_for_lock("k", SHORT)
    with pytest.raises(ValueError, match="No lock held by 'b'"):
        manager.release_lock("k", "b")
    manager.release_lock("k", "a")
    assert manager.wait_for_lock("k")
    with pytest.raises(ValueError, match="No lock held by 'a'"):
        manager.release_lock("k", "a")


def test_a_lock_with_a_time_is_free_afterwards(harness: Harness) -> None:
    manager = RedisLockManager()
    assert manager.acquire_lock("k", "a", hold_timeout=0.2)
    assert manager.acquire_lock("k", "b", acquire_timeout=30)
    assert not manager.is_lock_holder("k", "a")
    manager.release_lock("k", "b")


def test_coroutines(harness: Harness) -> None:
    async def main() -> None:
        manager = RedisLockManager()
        assert await manager.aacquire_lock("k", "a")
        assert not await manager.aacquire_lock("k", "b", acquire_timeout=SHORT)
        assert not await manager.await_for_lock("k", SHORT)
        waiting = asyncio.create_task(manager.aacquire_lock("k", "b"))
        await asyncio.to_thread(manager.release_lock, "k", "a")
        assert await waiting
        await asyncio.to_thread(manager.release_lock, "k", "b")

    asyncio.run(main())


def test_a_lock_is_renewed_while_it_is_held(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    renewed = threading.Semaphore(0)
    real = keeping.renew_lock

    def counted(key: str, holder: str, hold_seconds: float) -> keeping.Waits[bool]:
        held = yield from real(key, holder, hold_seconds)
        renewed.release()
        return held

    monkeypatch.setattr(keeping, "renew_lock", counted)
    manager = RedisLockManager(lock_seconds=0.6)
    assert manager.acquire_lock("k", "a")
    for _ in range(6):  # for 1.2 s and more, twice as long as it would last
        assert renewed.acquire(timeout=30)
    assert manager.is_lock_holder("k", "a")
    manager.release_lock("k", "a")
    wait_until(lambda: not RENEWALS._runs, 10, "the end of the thread that renews")


def test_losing_a_lock_is_noticed_and_told(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("prefect_lite.locking")
    logger.addHandler(caplog.handler)
    try:
        manager = RedisLockManager(lock_seconds=0.3)
        assert manager.acquire_lock("k", "a")
        assert in_thread(keeping.drop_lock("k", "a"))  # as if it had run out
        assert RedisLockManager().acquire_lock("k", "b")
        wait_until(lambda: "The lock 'k' was lost" in caplog.text, 10, "the renewal")
    finally:
        logger.removeHandler(caplog.handler)
    assert RedisLockManager().is_lock_holder("k", "b")
    RedisLockManager().release_lock("k", "b")


def test_who_has_lost_the_lock_writes_nothing(harness: Harness) -> None:
    """The broker refuses it in the moment of writing, so no pause of this process is too long."""
    store = ResultStore(result_storage=BrokerStorage(), lock_manager=RedisLockManager())
    undone: list[str] = []
    with transaction(key="k", store=store, isolation_level=IsolationLevel.SERIALIZABLE) as txn:
        holder = in_thread(keeping.lock_holder("k"))
        assert holder is not None
        assert in_thread(keeping.drop_lock("k", holder))
        txn.stage("late", [lambda _: undone.append("undone")])
    assert undone == ["undone"]
    assert txn.is_rolled_back()
    assert not store.exists("k")


def test_processes_are_never_inside_together(home: PrivateHome) -> None:
    (home.project / "counter").write_text("0")
    home.write("counts.py", COUNTER)
    running = [home.start(f"counter {number}", "counts.py") for number in range(3)]
    assert [process.wait(60) for process in running] == [0] * 3
    assert (home.project / "counter").read_text() == "75"


def test_a_killed_holder_lets_go_after_its_time(home: PrivateHome) -> None:
    home.write("holds.py", HOLDER)
    home.write("waits.py", WAITER)
    holder = home.start("holder", "holds.py", "1")
    holder.wait_for("held")
    waiter = home.start("waiter", "waits.py")
    waiter.wait_for("waits")
    assert "has it" not in waiter.output
    holder.signal(signal.SIGKILL)
    assert waiter.wait(30) == 0
    assert "has it" in waiter.output
