"""Proxies on threads of their own, for tests whose own thread waits for processes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.tools.proxy import Proxy

T = TypeVar("T")
CALL_SECONDS = 10.0


class Line:
    """A ``Proxy`` that listens on a free TCP port.

    Args:
        port: Of the target, on this host.

    Attributes:
        url: Where clients and workers connect to.
    """

    def __init__(self, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="line")
        self._thread.start()
        self._proxy = Proxy(("127.0.0.1", port))
        self._wait(self._proxy.start(("127.0.0.1", 0)))
        self.url = f"ws://127.0.0.1:{self._proxy.address[1]}"

    def do(self, act: Callable[[Proxy], T]) -> T:
        """Have the proxy's thread do something with it; returns what that returns."""

        async def run() -> T:
            return act(self._proxy)

        return self._wait(run())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    def close(self) -> None:
        """End the proxy and the thread."""
        self._wait(self._proxy.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_SECONDS)
        self._loop.close()


class Lines:
    """One before each broker of a fleet.

    Args:
        ports: TCP ports of the brokers.

    Attributes:
        urls: Where clients and workers connect to.
    """

    def __init__(self, ports: list[int]) -> None:
        self._lines = [Line(port) for port in ports]
        self.urls = [line.url for line in self._lines]

    def cut(self, which: int) -> None:
        """End every connection to a broker with a reset."""
        self._lines[which].do(lambda proxy: proxy.reset())

    def hold(self, which: int, *, held: bool) -> None:
        """Let nothing pass to or from a broker, or go on; nobody is told."""
        self._lines[which].do(lambda proxy: proxy.hold("both") if held else proxy.release("both"))

    def close(self) -> None:
        """End them all."""
        for line in self._lines:
            line.close()
