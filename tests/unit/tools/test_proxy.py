"""The fault proxy does to connections what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.tools.proxy import Proxy
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio


class Echo:
    """A target that repeats what it hears and remembers it."""

    def __init__(self) -> None:
        self.heard = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                self.heard += data
                writer.write(data)
        except ConnectionError:
            pass
        finally:
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
