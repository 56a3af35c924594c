"""A taken-over connection, at the other end of which the test is the server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from prefect_lite_broker.redis_link import RedisLink
from redis.asyncio.connection import DefaultParser
from redis.exceptions import ConnectionError, InvalidResponse, MovedError, RedisError, ResponseError

REPLIES = b"+OK\r\n:7\r\n$5\r\nhe\r\no\r\n*2\r\n$1\r\na\r\n*1\r\n:-1\r\n$-1\r\n"
MEANT = [b"OK", 7, b"he\r\no", [b"a", [-1]], None]


class Bench:
    """A link and what it told, and the server's socket."""

    def __init__(self, ours: socket.socket) -> None:
        self.server = ours
        self.replies: list[Any] = []
        self.reads: list[int] = []  # replies there were after each read
        self.lost: list[BaseException] = []
        self.writable = 0
        self.react: Callable[[Any], None] = lambda reply: None
        self.changed = asyncio.Event()

    async def open(self, theirs: socket.socket) -> Bench:
        reader, writer = await asyncio.open_unix_connection(sock=theirs)
        parser = SimpleNamespace(parse_error=DefaultParser.parse_error)
        connection: Any = SimpleNamespace(_reader=reader, _writer=writer, _parser=parser)
        self.writer = writer
        self.link = RedisLink(connection, self._reply, self._read, self._write, self._lose)
        return self

    def _reply(self, reply: Any) -> None:
        self.replies.append(reply)
        self.react(reply)

    def _read(self) -> None:
        self.reads.append(len(self.replies))
        self.changed.set()

    def _write(self) -> None:
        self.writable += 1
        self.changed.set()

    def _lose(self, error: BaseException) -> None:
        self.lost.append(error)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def say(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.server, data)

    async def hear(self, length: int) -> bytes:
        heard = b""
        while len(heard) < length:
            heard += await asyncio.get_running_loop().sock_recv(self.server, length - len(heard))
        return heard


def run(test: Callable[[Bench], Awaitable[None]]) -> None:
    """On both kinds of loop, whose transports differ."""
    for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:

            async def bounded() -> None:
                ours, theirs = socket.socketpair()
                ours.setblocking(False)
                with ours:
                    async with asyncio.timeout(20):
                        bench = await Bench(ours).open(theirs)
                        await test(bench)
                    bench.link.fail(ConnectionError("over"))
                    bench.writer.close()
                    await asyncio.sleep(0)

            runner.run(bounded())


def test_replies_that_come_together_are_handed_on_together() -> None:
    async def test(bench: Bench) -> None:
        await bench.say(REPLIES)
        await bench.until(lambda: len(bench.replies) == len(MEANT))
        assert bench.replies == MEANT
        assert bench.reads == [len(MEANT)]

    run(test)


def test_replies_in_any_pieces() -> None:
    async def test(bench: Bench) -> None:
        for at in range(len(REPLIES)):
            bench.link.data_received(REPLIES[at : at + 1])
        assert bench.replies == MEANT
        for cut in range(len(REPLIES)):
            bench.replies.clear()
            bench.link.data_received(REPLIES[:cut])
            bench.link.data_received(REPLIES[cut:])
            assert bench.replies == MEANT, cut

    run(test)


def test_refusals_keep_their_place() -> None:
    async def test(bench: Bench) -> None:
        await bench.say(b":1\r\n-MOVED 7 somewhere:6379\r\n:2\r\n-OOM too much\r\n")
        await bench.until(lambda: len(bench.replies) == 4)
        one, moved, two, oom = bench.replies
        assert (one, two) == (1, 2)
        assert isinstance(moved, MovedError)
        assert (moved.host, moved.port) == ("somewhere", 6379)
        assert isinstance(oom, ResponseError)
        assert not bench.lost

    run(test)


@pytest.mark.parametrize("said", [b"-LOADING the data\r\n", b"HTTP/1.1 400 Bad Request\r\n"])
def test_a_server_that_is_not_fit_ends_it(said: bytes) -> None:
    async def test(bench: Bench) -> None:
        await bench.say(b":1\r\n" + said + b":2\r\n")
        await bench.until(lambda: bool(bench.lost))
        assert bench.replies == [1], "what follows counts for nothing"
        assert isinstance(bench.lost[0], RedisError)

    run(test)


def test_the_server_closes_in_the_middle_of_a_reply() -> None:
    async def test(bench: Bench) -> None:
        await bench.say(b":1\r\n$100\r\nhalf")
        await bench.until(lambda: bool(bench.replies))
        bench.server.close()
        await bench.until(lambda: bool(bench.lost))
        assert isinstance(bench.link.error, (ConnectionError, OSError))
        bench.link.send([b"x"])
        bench.link.data_received(b":2\r\n")
        await asyncio.sleep(0)
        assert bench.replies == [1]
        assert len(bench.lost) == 1, "told once"

    run(test)


def test_a_callback_that_raises_ends_it() -> None:
    async def test(bench: Bench) -> None:
        def broken(reply: Any) -> None:
            raise ZeroDivisionError

        bench.react = broken
        await bench.say(b":1\r\n:2\r\n")
        await bench.until(lambda: bool(bench.lost))
        assert isinstance(bench.link.error, ZeroDivisionError)
        assert bench.replies == [1]

    run(test)


def test_given_up_while_replies_are_handed_on() -> None:
    async def test(bench: Bench) -> None:
        bench.react = lambda reply: bench.link.fail(TimeoutError())
        await bench.say(b":1\r\n:2\r\n")
        await bench.until(lambda: bool(bench.lost))
        assert bench.replies == [1]
        assert bench.reads == []

    run(test)


def test_a_server_that_does_not_read() -> None:
    async def test(bench: Bench) -> None:
        piece = b"x" * (1 << 20)
        sent = 0
        while not bench.link.full:
            bench.link.send([piece, piece])
            sent += 2
            await asyncio.sleep(0)
        assert sent < 20
        await bench.hear(sent * len(piece))
        await bench.until(lambda: bool(bench.writable))
        assert not bench.link.full

    run(test)


def test_asking() -> None:
    async def test(bench: Bench) -> None:
        asked = asyncio.ensure_future(bench.link.ask([b"a", b"b"]))
        assert await bench.hear(2) == b"ab"
        await bench.say(b":1\r\n")
        await bench.say(b":2\r\n")
        assert await asked == [1, 2]
        asked = asyncio.ensure_future(bench.link.ask([b"a", b"b"]))
        assert await bench.hear(2) == b"ab"
        await bench.say(b"-ERR no\r\n:2\r\n")
        with pytest.raises(ResponseError, match="no"):
            await asked
        assert bench.link.error is None
        await bench.say(b":3\r\n")
        await bench.until(lambda: bench.replies == [3])

    run(test)


def test_after_a_question_that_was_cancelled_it_is_not_used_again() -> None:
    async def test(bench: Bench) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await bench.link.ask([b"a"])
        assert isinstance(bench.link.error, TimeoutError)
        bench.link.data_received(b":1\r\n")
        assert bench.replies == []
        with pytest.raises(TimeoutError):
            await bench.link.ask([b"a"])

    run(test)


def test_an_answer_that_nobody_asked_for() -> None:
    async def test(bench: Bench) -> None:
        asked = asyncio.ensure_future(bench.link.ask([b"a"]))
        await asyncio.sleep(0)
        bench.link.data_received(b":1\r\n:2\r\n")
        assert await asked == [1]
        assert isinstance(bench.link.error, InvalidResponse)

    run(test)


def test_a_connection_that_was_closed_before() -> None:
    async def test(bench: Bench) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        late = Bench(ours)
        reader, writer = await asyncio.open_unix_connection(sock=theirs)
        ours.close()
        assert await reader.read() == b""
        parser = SimpleNamespace(parse_error=DefaultParser.parse_error)
        connection: Any = SimpleNamespace(_reader=reader, _writer=writer, _parser=parser)
        link = RedisLink(connection, late._reply, late._read, late._write, late._lose)
        assert isinstance(link.error, ConnectionError)
        assert late.lost == [link.error]
        writer.close()

    run(test)
