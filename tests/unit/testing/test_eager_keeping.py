"""What is kept by name in eager mode: the answers are those of a real broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from prefect_lite import clock
from prefect_lite.client import keeping
from prefect_lite.client.runtime import get_runtime
from prefect_lite.exceptions import StorageError
from prefect_lite.settings import get_settings
from prefect_lite.testing import eager, test_harness
from prefect_lite.thread_or_loop import Waits, in_thread

PLACES: dict[str, Callable[[], AbstractContextManager[Any]]] = {"eager": eager, "broker": test_harness}


def of(waits: Waits[Any]) -> Any:
    """The answer, or what is refused."""
    try:
        return in_thread(waits)
    except StorageError as exc:
        return str(exc)


def conversation() -> Iterator[Any]:
    yield of(keeping.read_entry("a"))
    yield of(keeping.drop_entry("a"))
    yield of(keeping.write_entry("a", b""))
    yield of(keeping.read_entry("a"))
    yield of(keeping.write_entry("a", b"x" * 100_000, 50.0))
    yield of(keeping.entry_exists("a"))
    yield of(keeping.read_entry("a"))
    yield of(keeping.write_entry("a", b"fenced", fence="me"))
    yield of(keeping.take_lock("a", "me", 50.0))
    yield of(keeping.take_lock("a", "me", 50.0))
    yield of(keeping.take_lock("a", "you", 50.0))
    yield of(keeping.write_entry("a", b"fenced", fence="me"))
    yield of(keeping.write_entry("a", b"fenced", fence="you"))
    yield of(keeping.lock_holder("a"))
    yield of(keeping.renew_lock("a", "me", 50.0))
    yield of(keeping.renew_lock("a", "you", 50.0))
    yield of(keeping.drop_lock("a", "you"))
    yield of(keeping.drop_lock("a", "me"))
    yield of(keeping.drop_lock("a", "me"))
    yield of(keeping.lock_holder("a"))
    yield of(keeping.renew_lock("a", "me", 50.0))
    yield of(keeping.read_entry("a"))
    yield of(keeping.drop_entry("a"))
    yield of(keeping.entry_exists("a"))
    yield of(keeping.save_block("kind", "b", b"one", False))
    yield of(keeping.save_block("kind", "b", b"two", False))
    yield of(keeping.load_block("kind", "b"))
    yield of(keeping.save_block("kind", "b", b"two", True))
    yield of(keeping.save_block("kind", "a", b"three", False))
    yield of(keeping.load_block("kind", "b"))
    yield of(keeping.load_block("kind", "c"))
    yield of(keeping.list_blocks())
    yield of(keeping.drop_block("kind", "b"))
    yield of(keeping.drop_block("kind", "b"))
    yield of(keeping.list_blocks())
    yield of(keeping.take_lock("a", "", 50.0))
    yield of(keeping.take_lock("a", "me", -1.0))
    yield of(keeping.write_entry("a", b"", float("nan")))
    yield of(keeping.save_block("Kind", "a", b"x", False))
    yield of(keeping.save_block("kind", "a", b"", True))
    yield of(keeping.save_block("kind", "a", bytes(300_000), True))


def test_the_same_answers_as_a_broker_gives() -> None:
    said = {}
    for place, opened in PLACES.items():
        with opened():
            said[place] = list(conversation())
    for number, (here, there) in enumerate(zip(said["eager"], said["broker"], strict=True)):
        assert here == there, f"answer {number}"


def test_what_is_too_long_for_a_broker_is_too_long_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_LITE_MAX_PAYLOAD_BYTES", "1000")
    get_settings.cache_clear()  # type: ignore[attr-defined]
    try:
        with eager(), pytest.raises(StorageError, match="1001 bytes is over the limit of 1000"):
            in_thread(keeping.write_entry("a", bytes(1_001)))
    finally:
        get_settings.cache_clear()  # type: ignore[attr-defined]


def test_entries_grow_old_by_the_clock_that_tests_move_and_locks_do_not() -> None:
    with eager():
        for key, ttl in (("short", 10.0), ("long", 100.0), ("idle", None)):
            in_thread(keeping.write_entry(key, b"body", ttl))
        in_thread(keeping.take_lock("short", "me", 10.0))
        clock.sleep(50.0)
        assert in_thread(keeping.read_entry("short")) is None
        assert in_thread(keeping.read_entry("long")) == b"body"
        assert in_thread(keeping.lock_holder("short")) == "me"
        idle = get_settings().cache_idle_seconds
        clock.sleep(idle - 60.0)
        assert in_thread(keeping.read_entry("idle")) == b"body"
        clock.sleep(idle - 60.0)
        assert in_thread(keeping.entry_exists("idle")), "it was read"
        clock.sleep(120.0)
        assert not in_thread(keeping.entry_exists("idle"))
        assert in_thread(keeping.drop_entry("long")) is False


def test_a_lock_that_is_not_renewed_is_free() -> None:
    with eager():
        assert in_thread(keeping.take_lock("a", "me", 0.001))
        while in_thread(keeping.lock_holder("a")) is not None:
            pass
        assert not in_thread(keeping.renew_lock("a", "me", 10.0))
        assert in_thread(keeping.take_lock("a", "you", 10.0))


def test_nothing_is_left_for_the_next_time() -> None:
    with eager():
        in_thread(keeping.write_entry("a", b"body"))
    with eager():
        assert in_thread(keeping.read_entry("a")) is None
        get_runtime().withdraw(get_runtime().ask("keep.has", ["a"]))
