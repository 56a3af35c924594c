"""Questions about what is kept by name: impossible ones are refused before the store hears of them, pages fit
a frame, and large bodies wait for room."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect_lite_broker import queries
from prefect_lite_broker.bodies import LARGE_BYTES, Bodies
from prefect_lite_broker.hub import Hub
from prefect_lite_broker.keep_queries import KEEP_QUESTIONS
from prefect_lite_broker.questions import Refusal, WithBody
from prefect_lite_broker.verbs import Outgoing
from redis.exceptions import OutOfMemoryError, ResponseError

from prefect_lite.protocol.codec import MAX_FRAME, encode_frame
from prefect_lite.protocol.kept_things import (
    MAX_BLOCK_BYTES,
    MAX_BLOCK_NAME,
    MAX_BLOCKS,
    MAX_ENTRY_KEY,
    MAX_HOLDER,
)
from prefect_lite.protocol.messages import Answer
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio

NO_TEXTS: tuple[Any, ...] = (None, 5, b"key", ["key"], True, {})
NO_KEYS: tuple[Any, ...] = (
    *NO_TEXTS,
    "",
    "x" * (MAX_ENTRY_KEY + 1),
    "é" * (MAX_ENTRY_KEY // 2 + 1),
    "\ud800",
)
NO_HOLDERS: tuple[Any, ...] = (*NO_TEXTS, "", "x" * (MAX_HOLDER + 1), "é" * (MAX_HOLDER // 2 + 1))
NO_TIMES: tuple[Any, ...] = (None, "5", True, 0, -1, float("nan"), float("inf"), 1e300, [5])
NO_WORDS: tuple[Any, ...] = (
    *NO_TEXTS,
    "",
    "Upper",
    "under_score",
    "a/b",
    "é",
    "a b",
    "x" * (MAX_BLOCK_NAME + 1),
    "a\n",
)
NO_MARKS: tuple[Any, ...] = (5, b"m", "x" * 65, [])

IMPOSSIBLE: list[tuple[str, Any]] = [
    *((what, [key]) for what in ("keep.get", "keep.has", "keep.drop", "lock.look") for key in NO_KEYS),
    *(
        (what, arg)
        for what in KEEP_QUESTIONS
        for arg in ("key", 5, {}, [], ["a"] * 9)
        if what != "block.list"
    ),
    *(("keep.put", [key, None, None]) for key in NO_KEYS),
    *(("keep.put", ["key", ttl, None]) for ttl in NO_TIMES if ttl is not None),
    *(("keep.put", ["key", None, fence]) for fence in NO_HOLDERS if fence is not None),
    *(("keep.put", ["key", None, "me", mark]) for mark in NO_MARKS),
    *((what, [key, "me", 5.0]) for what in ("lock.take", "lock.renew") for key in NO_KEYS),
    *((what, ["key", holder, 5.0]) for what in ("lock.take", "lock.renew") for holder in NO_HOLDERS),
    *((what, ["key", "me", seconds]) for what in ("lock.take", "lock.renew") for seconds in NO_TIMES),
    *(("lock.drop", ["key", holder]) for holder in NO_HOLDERS),
    *(("lock.drop", ["key", "me", mark]) for mark in NO_MARKS),
    *((what, [word, "name"]) for what in ("block.get", "block.drop") for word in NO_WORDS),
    *((what, ["kind", word]) for what in ("block.get", "block.drop") for word in NO_WORDS),
    *(("block.put", ["kind", word, False]) for word in NO_WORDS),
    *(("block.put", ["kind", "name", overwrite]) for overwrite in (None, 1, "yes")),
    *(("block.put", ["kind", "name", False, mark]) for mark in NO_MARKS),
    *(("block.list", position) for position in (5, b"x", "x" * 300, [1])),
]


class _Never:
    """A store that nobody asks."""

    def __getattr__(self, name: str) -> Any:
        def asked(*args: Any) -> None:
            raise AssertionError(f"{name}{args} was asked of the store")

        return asked


def a_hub(**store: Any) -> Hub:
    settings = SimpleNamespace(max_payload_bytes=1 << 20)
    return cast(
        "Hub", SimpleNamespace(store=SimpleNamespace(**store) if store else _Never(), settings=settings)
    )


@pytest.mark.parametrize("what", KEEP_QUESTIONS)
async def test_what_can_not_be_asked(what: str) -> None:
    body = b"document" if KEEP_QUESTIONS[what].takes_body else None
    arguments = [arg for kind, arg in IMPOSSIBLE if kind == what]
    assert len(arguments) > 3
    for arg in arguments:
        ok, value = await queries.answer(a_hub(), "client", what, arg, body)
        assert (ok, value[0]) == (False, "bad_argument"), (arg, value)
        assert value[1].endswith(".")


@given(
    what=st.sampled_from(sorted(KEEP_QUESTIONS)),
    arg=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda parts: st.lists(parts, max_size=5) | st.dictionaries(st.text(), parts, max_size=3),
    ),
    body=st.none() | st.binary(),
)
def test_whatever_is_asked_is_answered(what: str, arg: Any, body: bytes | None) -> None:
    """By a store that has nothing: an internal error would be a check that is missing."""

    async def nothing(*_args: Any) -> None:
        return None

    async def none_saved() -> list[str]:
        return []

    async def saved(*_args: Any) -> int:
        return 1

    names = (
        "keep_get",
        "keep_put",
        "keep_has",
        "keep_drop",
        "lock_take",
        "lock_renew",
        "lock_drop",
        "lock_look",
    )
    store: dict[str, Any] = dict.fromkeys((*names, "block_get", "block_drop"), nothing)
    hub = a_hub(**store, block_list=none_saved, block_put=saved, block_size=saved)
    ok, value = asyncio.run(queries.answer(hub, "worker", what, arg, body))
    assert ok or value[0] == "bad_argument", value


@pytest.mark.parametrize(
    "what", [what for what in queries.QUESTIONS if not queries.QUESTIONS[what].takes_body]
)
async def test_most_questions_take_no_body(what: str) -> None:
    ok, value = await queries.answer(a_hub(), "admin", what, None, b"")
    assert (ok, value[0]) == (False, "bad_argument")


@pytest.mark.parametrize("what", ["keep.put", "block.put"])
async def test_what_is_to_be_kept_has_to_be_there(what: str) -> None:
    arg = ["kind", "name", False] if what == "block.put" else ["key", None, None]
    ok, value = await queries.answer(a_hub(), "client", what, arg)
    assert (ok, value[0]) == (False, "bad_argument")


async def test_a_block_is_short() -> None:
    arg = ["kind", "name", False]
    ok, value = await queries.answer(a_hub(), "client", "block.put", arg, b"x" * (MAX_BLOCK_BYTES + 1))
    assert (ok, value[0]) == (False, "bad_argument")
    assert f"{MAX_BLOCK_BYTES:,}" in value[1]


async def test_lists_of_blocks_come_in_pages_that_fit_a_frame() -> None:
    paths = sorted(f"{'k' * MAX_BLOCK_NAME}/{number:0{MAX_BLOCK_NAME}}" for number in range(MAX_BLOCKS))

    async def block_list() -> list[str]:
        return paths

    hub, seen, position = a_hub(block_list=block_list), list[str](), None
    while True:
        ok, page = await queries.answer(hub, "client", "block.list", position)
        assert ok
        assert len(encode_frame([Answer(1, True, page)])) <= MAX_FRAME
        seen += ["/".join(pair) for pair in page["blocks"]]
        position = page["next"]
        if position is None:
            break
    assert seen == paths


@pytest.mark.parametrize(
    ("error", "code"),
    [(OutOfMemoryError("command not allowed"), "full"), (ResponseError("WRONGTYPE no"), "internal")],
)
async def test_a_redis_that_refuses(error: Exception, code: str) -> None:
    async def refuse(*_args: Any) -> None:
        raise error

    ok, value = await queries.answer(a_hub(keep_put=refuse), "client", "keep.put", ["k", None, None], b"x")
    assert (ok, value[0]) == (False, code)


# -- room -------------------------------------------------------------------------------------------


class _Store:
    """One entry, which may grow between two looks."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = list(sizes)
        self.asked: list[int] = []

    async def keep_get(self, _key: str, most: int) -> bytes | int:
        self.asked.append(most)
        size = self.sizes.pop(0) if len(self.sizes) > 1 else self.sizes[0]
        return size if size > most else b"x" * size


class _Peer:
    """Reads when it is told to."""

    def __init__(self) -> None:
        self.gone = False
        self.reading = 0
        self.keeps_up = True

    def fits(self, _size: int) -> bool:
        return self.keeps_up


class _Room(Bodies):
    def __init__(self, most: int = 1_000, wait_seconds: float = 60.0) -> None:
        super().__init__(most, wait_seconds, self.count)
        self.on_their_way = 0

    def count(self, more: int) -> None:
        self.on_their_way += more

    def of(self, peer: _Peer, size: int) -> Any:
        return self.room(cast("Outgoing", peer), size)

    async def used(self, peer: _Peer, size: int) -> None:
        async with self.of(peer, size):
            pass


async def asked(store: _Store, room: Any) -> Any:
    hub = a_hub(keep_get=store.keep_get)
    return await queries.answer(hub, "client", "keep.get", ["key"], None, room)


async def test_a_small_body_comes_with_one_look_and_needs_no_room() -> None:
    store = _Store(LARGE_BYTES)
    assert await asked(store, None) == (True, WithBody(True, b"x" * LARGE_BYTES))
    assert store.asked == [LARGE_BYTES]


async def test_a_large_body_is_read_when_there_is_room_for_it() -> None:
    store, room, peer = _Store(100_000), _Room(), _Peer()
    peer.keeps_up = False
    answer = asyncio.ensure_future(asked(store, lambda size: room.of(peer, size)))
    await until(lambda: bool(room._waiting))
    assert store.asked == [LARGE_BYTES], "its length is all that is known"
    peer.keeps_up = True
    room.look()
    assert (await answer)[1] == WithBody(True, b"x" * 100_000)
    assert store.asked == [LARGE_BYTES, 100_000]
    assert (room.on_their_way, peer.reading) == (0, 0)


async def test_a_body_that_has_grown_since_waits_for_more_room() -> None:
    store, room, peer = _Store(100_000, 200_000), _Room(), _Peer()
    ok, value = await asked(store, lambda size: room.of(peer, size))
    assert (ok, len(value.body)) == (True, 200_000)
    assert store.asked == [LARGE_BYTES, 100_000, 200_000]


async def test_a_body_that_is_longer_than_may_be_sent() -> None:
    ok, value = await asked(_Store(2 << 20), None)
    assert (ok, value[0]) == (False, "payload_too_large")


async def test_who_waits_too_long_is_told_to_ask_again() -> None:
    room, peer = _Room(wait_seconds=0.01), _Peer()
    peer.keeps_up = False
    ok, value = await asked(_Store(100_000), lambda size: room.of(peer, size))
    assert (ok, value[0]) == (False, "busy")
    peer.keeps_up = True
    room.look()
    assert (room.on_their_way, peer.reading) == (0, 0), "nobody is let in who has left"


async def test_a_slow_peer_does_not_hold_up_others_and_one_that_is_gone_waits_no_more() -> None:
    room, slow, quick = _Room(), _Peer(), _Peer()
    slow.keeps_up = False
    waiting = asyncio.ensure_future(room.used(slow, 100_000))
    await asyncio.sleep(0)
    await room.used(quick, 100_000)
    slow.gone = True
    room.look()
    with pytest.raises(Refusal):
        await waiting
    assert not room._waiting


async def test_what_is_read_counts_until_it_is_handed_on() -> None:
    room, peer = _Room(), _Peer()
    async with room.of(peer, 700):
        assert (room.on_their_way, peer.reading) == (700, 700)
    assert (room.on_their_way, peer.reading) == (0, 0)
    with pytest.raises(RuntimeError):
        async with room.of(peer, 700):
            raise RuntimeError
    assert (room.on_their_way, peer.reading) == (0, 0)


async def test_bodies_of_questions_are_bounded_and_one_alone_may_be_larger() -> None:
    room = _Room(most=1_000)
    assert room.take(5_000)
    assert not room.take(1)
    assert room.take(0), "a question without a body needs no room"
    room.give_back(5_000)
    assert room.take(600)
    assert not room.take(600)
    assert room.take(400)
    assert room.asked == 1_000
