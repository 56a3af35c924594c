"""The fault proxy does to connections what it says."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.tools.proxy import Link, Proxy
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio


class Echo:
    """A target that repeats what it hears and remembers it."""

    def __init__(self) -> None:
        self.heard = b""
        self.pieces: list[bytes] = []
        self.ends: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = "eof"
        try:
            while data := await reader.read(1000):
                self.heard += data
                self.pieces.append(data)
                writer.write(data)
        except ConnectionError:
            end = "reset"
        finally:
            self.ends.append(end)
            writer.transport.abort()


@pytest.fixture
async def echo() -> AsyncIterator[tuple[Echo, Proxy]]:
    target = Echo()
    server = await asyncio.start_server(target.serve, "127.0.0.1", 0)
    proxy = Proxy(server.sockets[0].getsockname()[:2])
    await proxy.start(("127.0.0.1", 0))
    yield target, proxy
    await proxy.close()
    server.close()


class Caller:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, data: bytes) -> bytes:
        self.writer.write(data)
        try:
            return await self.reader.read(1000)
        except ConnectionError:
            return b""
        finally:
            if self.reader.at_eof():
                self.close()

    def close(self) -> None:
        self.writer.transport.abort()


async def call(proxy: Proxy) -> Caller:
    host, port = proxy.address
    return Caller(*await asyncio.open_connection(str(host), int(port)))


async def test_passes_data_until_cut(echo: tuple[Echo, Proxy]) -> None:
    _, proxy = echo
    caller = await call(proxy)
    assert await caller.ask(b"hello") == b"hello"
    assert proxy.cut() == 1
    assert await caller.ask(b"again") == b""
    caller.close()


async def test_a_lost_reply_was_heard_and_a_lost_request_was_not(echo: tuple[Echo, Proxy]) -> None:
    target, proxy = echo
    proxy.cut_next_reply(b"pay")
    first = await call(proxy)
    assert await first.ask(b"look") == b"look"
    assert await first.ask(b"pay 1") == b""
    assert target.heard == b"lookpay 1"
    assert not proxy.armed or await until(lambda: not proxy.armed)
    proxy.cut_next_request(b"pay")
    second = await call(proxy)
    assert await second.ask(b"pay 2") == b""
    assert b"pay 2" not in target.heard
    first.close()
    second.close()


async def test_a_black_hole_keeps_the_connection(echo: tuple[Echo, Proxy]) -> None:
    target, proxy = echo
    caller = await call(proxy)
    proxy.hold("down")
    answer = asyncio.ensure_future(caller.ask(b"hello"))
    await until(lambda: target.heard == b"hello")
    assert not answer.done()
    proxy.release("down")
    assert await answer == b"hello"
    caller.close()


async def test_refused_connections(echo: tuple[Echo, Proxy]) -> None:
    target, proxy = echo
    proxy.refuse(True)
    caller = await call(proxy)
    assert await caller.ask(b"hello") == b""
    assert target.heard == b""
    caller.close()


async def test_cut_is_an_end_and_reset_an_error(echo: tuple[Echo, Proxy]) -> None:
    target, proxy = echo
    caller = await call(proxy)
    assert await caller.ask(b"1") == b"1"
    proxy.cut()
    assert await caller.reader.read() == b""
    caller.close()
    caller = await call(proxy)
    assert await caller.ask(b"2") == b"2"
    assert proxy.reset() == 1
    with pytest.raises(ConnectionResetError):
        await caller.reader.read()
    caller.close()
    await until(lambda: target.ends == ["eof", "reset"])
    assert (proxy.counters.cuts, proxy.counters.resets, proxy.links) == (1, 1, [])


async def test_the_end_of_one_direction_passes_and_the_other_goes_on(echo: tuple[Echo, Proxy]) -> None:
    _, proxy = echo
    caller = await call(proxy)
    caller.writer.write(b"last words")
    caller.writer.write_eof()
    assert await caller.reader.read() == b"last words"
    caller.close()
    await until(lambda: not proxy.links)


async def test_a_half_close_is_heard_by_the_receiver(echo: tuple[Echo, Proxy]) -> None:
    target, proxy = echo
    caller = await call(proxy)
    assert await caller.ask(b"1") == b"1"
    proxy.half_close("up")
    await until(lambda: target.ends == ["eof"])
    caller.close()


async def test_a_vanished_peer_is_not_reported(echo: tuple[Echo, Proxy]) -> None:
    target, proxy = echo
    first, second = await call(proxy), await call(proxy)
    assert (await first.ask(b"1"), await second.ask(b"2")) == (b"1", b"2")
    await until(lambda: len(proxy.links) == 2)
    link = next(link for link in proxy.links if link.number == 1)
    proxy.black_hole("both", [link])
    first.writer.write(b"lost")
    await until(lambda: proxy.counters.lost["up"] == 4)
    first.close()
    await until(lambda: link.flows["up"].ended)
    assert await second.ask(b"3") == b"3"
    assert (target.ends, target.heard) == ([], b"123")
    proxy.release()
    await until(lambda: target.ends == ["reset"])
    assert await second.ask(b"4") == b"4", "it had lost nothing"
    second.close()


async def test_a_one_way_cut(echo: tuple[Echo, Proxy]) -> None:
    target, proxy = echo
    caller = await call(proxy)
    assert await caller.ask(b"1") == b"1"
    proxy.black_hole("down")
    caller.writer.write(b"2")
    await until(lambda: proxy.counters.lost["down"] == 1)
    assert target.heard == b"12"
    caller.close()


async def test_nobody_gets_through_a_black_hole_and_those_who_waited_do_afterwards(
    echo: tuple[Echo, Proxy],
) -> None:
    target, proxy = echo
    proxy.black_hole()
    caller = await call(proxy)
    answer = asyncio.ensure_future(caller.ask(b"hello"))
    await until(lambda: proxy.accepted == 1)
    assert not proxy.links
    assert not target.heard
    proxy.release()
    assert await answer == b"hello"
    caller.close()


async def test_latency_delays_pieces_in_order_and_many_are_on_their_way(echo: tuple[Echo, Proxy]) -> None:
    _, proxy = echo
    proxy.delay("up", 0.1, jitter=0.05)
    caller = await call(proxy)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    sent = b""
    for number in range(20):
        caller.writer.write(b"%d." % number)
        sent += b"%d." % number
        await asyncio.sleep(0.001)
    assert await caller.reader.readexactly(len(sent)) == sent
    assert 0.05 <= loop.time() - begun < 1.0, "not one after the other, which would take 2 s"
    caller.close()


async def test_a_limit_is_shared_by_all_connections(echo: tuple[Echo, Proxy]) -> None:
    _, proxy = echo
    proxy.limit("up", 100_000)
    callers = [await call(proxy), await call(proxy)]
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for caller in callers:
        caller.writer.write(bytes(10_000))
    for caller in callers:
        assert len(await caller.reader.readexactly(10_000)) == 10_000
        caller.close()
    assert loop.time() - begun >= 0.15


async def test_slices_arrive_as_such(echo: tuple[Echo, Proxy]) -> None:
    target, proxy = echo
    proxy.slice("up", 3, 0.01)
    caller = await call(proxy)
    caller.writer.write(b"abcdefgh")
    assert await caller.reader.readexactly(8) == b"abcdefgh"
    assert target.pieces == [b"abc", b"def", b"gh"]
    proxy.calm()
    assert await caller.ask(b"abcdefgh") == b"abcdefgh"
    assert target.pieces[3:] == [b"abcdefgh"]
    caller.close()


async def test_a_held_sender_is_not_read_from_without_end(echo: tuple[Echo, Proxy]) -> None:
    target, proxy = echo
    caller = await call(proxy)
    assert await caller.ask(b"1") == b"1"
    proxy.hold()
    caller.writer.transport.set_write_buffer_limits(0)
    caller.writer.write(bytes(8_000_000))
    await until(lambda: caller.writer.transport.get_write_buffer_size() < 8_000_000)
    assert target.heard == b"1"
    assert caller.writer.transport.get_write_buffer_size() > 1_000_000
    caller.close()
    proxy.release()


async def test_trouble_for_chosen_newcomers(echo: tuple[Echo, Proxy]) -> None:
    target, _ = echo

    def second(link: Link) -> None:
        if link.number == 2:
            proxy.slice("up", 1, 0.005, [link])

    proxy = Proxy(echo[1].target, on_link=second)
    await proxy.start(("127.0.0.1", 0))
    for text in (b"ab", b"cd"):
        caller = await call(proxy)
        caller.writer.write(text)
        assert await caller.reader.readexactly(2) == text
        caller.close()
    assert target.pieces == [b"ab", b"c", b"d"]
    await proxy.close()


async def test_the_command(echo: tuple[Echo, Proxy]) -> None:
    target, inner = echo
    host, port = inner.target
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.tools.proxy", "127.0.0.1:0", f"{host}:{port}"),
        *("--slice", "1", "--slice-pause-ms", "5", "--way", "up", "--end", "reset"),
        cwd=Path(__file__).parents[3],
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    found = re.search(rb":(\d+)", await process.stdout.readline())
    assert found is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", int(found[1]))
    writer.write(b"ab")
    assert await reader.readexactly(2) == b"ab"
    assert target.pieces == [b"a", b"b"]
    process.send_signal(signal.SIGUSR1)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.transport.abort()
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    assert b"'resets': 1" in await process.stdout.read()
