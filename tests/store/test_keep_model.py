"""Locks and entries against a model: any sequence of questions, and the same answers.

Time is moved by hand (an expiry is brought forward), so nothing here waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any, ClassVar, NamedTuple, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from prefect_lite.protocol.kept_things import Drop, Hold, Put
from tests.store.conftest import MakeSettings
from tests.store.driver import Driver
from tests.tools.server import ValkeyServer

T = TypeVar("T")

KEYS = st.sampled_from(("a", "b{x}"))
HOLDERS = st.sampled_from(("me", "you"))
MARKS = st.sampled_from(("", "m1", "m2"))
IDLE_SECONDS = 1_000.0


class Entry(NamedTuple):
    body: bytes
    ttl: float


class KeepMachine(RuleBasedStateMachine):
    """Rules are the questions; every answer is checked against the model."""

    loop: ClassVar[asyncio.AbstractEventLoop]
    driver: ClassVar[Driver]

    def __init__(self) -> None:
        super().__init__()
        self.driver.client.flushdb()
        self.holders: dict[str, str] = {}
        self.marks: dict[str, str] = {}  # of the last drop of each lock
        self.entries: dict[str, Entry] = {}

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def life(self, name: str) -> float:
        return self.driver.client.pttl(self.driver.prefix + name) / 1000  # type: ignore[operator]

    # -- locks ------------------------------------------------------------------------------------
    @rule(key=KEYS, holder=HOLDERS, seconds=st.sampled_from((50.0, 500.0)))
    def take(self, key: str, holder: str, seconds: float) -> None:
        free = self.holders.get(key, holder) == holder
        assert self.wait(self.driver.store.lock_take(Hold(key, holder, seconds))) == free
        if free:
            self.holders[key] = holder
            assert seconds - 5 < self.life(f"lock:{key}") <= seconds

    @rule(key=KEYS, holder=HOLDERS, seconds=st.sampled_from((50.0, 500.0)))
    def renew(self, key: str, holder: str, seconds: float) -> None:
        held = self.holders.get(key) == holder
        assert self.wait(self.driver.store.lock_renew(Hold(key, holder, seconds))) == held
        if held:
            assert seconds - 5 < self.life(f"lock:{key}") <= seconds

    @rule(key=KEYS, holder=HOLDERS, mark=MARKS)
    def drop(self, key: str, holder: str, mark: str) -> None:
        # One with the mark of the last drop is that one once more: it does not undo what was taken since.
        repeated = bool(mark) and self.marks.get(key) == mark
        held = not repeated and self.holders.get(key) == holder
        assert self.wait(self.driver.store.lock_drop(Drop(key, holder, mark))) == (held or repeated)
        if held:
            del self.holders[key]
            if mark:
                self.marks[key] = mark
            else:
                self.marks.pop(key, None)

    @rule(key=KEYS)
    def look(self, key: str) -> None:
        assert self.wait(self.driver.store.lock_look(key)) == self.holders.get(key)

    @rule(key=KEYS)
    def lock_runs_out(self, key: str) -> None:
        self.driver.client.pexpire(f"{self.driver.prefix}lock:{key}", 0)
        self.holders.pop(key, None)
        self.marks.pop(key, None)

    # -- entries ----------------------------------------------------------------------------------
    @rule(
        key=KEYS,
        body=st.sampled_from((b"", b"s", b"f" * 20, b"x" * 100_000)),
        ttl=st.sampled_from((0.0, 50.0)),
        fence=st.sampled_from(("", "me", "you")),
    )
    def put(self, key: str, body: bytes, ttl: float, fence: str) -> None:
        allowed = not fence or self.holders.get(key) == fence
        assert self.wait(self.driver.store.keep_put(Put(key, ttl, fence), body)) == allowed
        if allowed:
            self.entries[key] = Entry(body, ttl)

    @rule(key=KEYS, most=st.sampled_from((0, 20, 1 << 20)))
    def get(self, key: str, most: int) -> None:
        found = self.wait(self.driver.store.keep_get(key, most))
        entry = self.entries.get(key)
        if entry is None:
            assert found is None
        elif len(entry.body) > most:
            assert found == len(entry.body)
        else:
            assert found == entry.body
            assert entry.ttl or self.life(f"keep:{key}") >= IDLE_SECONDS - 5

    @rule(key=KEYS)
    def has(self, key: str) -> None:
        assert self.wait(self.driver.store.keep_has(key)) == (key in self.entries)

    @rule(key=KEYS)
    def drop_entry(self, key: str) -> None:
        assert self.wait(self.driver.store.keep_drop(key)) == (self.entries.pop(key, None) is not None)

    @rule(key=KEYS)
    def nobody_reads_it_for_long(self, key: str) -> None:
        if key in self.entries:
            left = 20_000 if self.entries[key].ttl else 200_000
            self.driver.client.pexpire(f"{self.driver.prefix}keep:{key}", left)

    @rule(key=KEYS)
    def entry_runs_out(self, key: str) -> None:
        self.driver.client.pexpire(f"{self.driver.prefix}keep:{key}", 0)
        self.entries.pop(key, None)

    # -- always -----------------------------------------------------------------------------------
    @invariant()
    def all_of_it_expires(self) -> None:
        for key, entry in self.entries.items():
            longest = entry.ttl or 1.1 * IDLE_SECONDS
            assert 0 < self.life(f"keep:{key}") <= longest
        for key in self.holders:
            assert self.life(f"lock:{key}") > 0


@pytest.fixture
def machine(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[KeepMachine]]:
    """The machine with a store that all examples share; each starts with an empty database.

    Its loop stands still between the steps, so nothing may be bound by the time that passes there.
    """
    monkeypatch.setattr("prefect_lite_broker.writer.EXCHANGE_SECONDS", 3600.0)
    server = ValkeyServer(appendonly="no")  # its own, because it is emptied
    server.start()
    settings = make_settings(
        redis_url=server.url, redis_wait_seconds=3600, cache_idle_seconds=IDLE_SECONDS, keep_wait_seconds=3600
    )
    loop = asyncio.new_event_loop()
    with server.client() as client:
        driver = Driver(settings, client)
        loop.run_until_complete(driver.start())
        KeepMachine.loop, KeepMachine.driver = loop, driver
        yield KeepMachine
        loop.run_until_complete(driver.stop())
    loop.close()
    server.close()


@pytest.mark.timeout(600)
def test_locks_and_entries_agree_with_the_model(machine: type[KeepMachine]) -> None:
    run_state_machine_as_test(machine)
