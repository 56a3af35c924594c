"""Proxies before the brokers of a fleet, on a thread of their own, so that a test can cut the lines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from tests.tools.proxy import Proxy

CLOSE_SECONDS = 10.0


class Lines:
    """One proxy per broker.

    Args:
        ports: TCP ports of the brokers.

    Attributes:
        urls: Where clients and workers connect to.
    """

    def __init__(self, ports: list[int]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-lines", daemon=True)
        self._thread.start()
        self._proxies = [Proxy(("127.0.0.1", port)) for port in ports]
        for proxy in self._proxies:
            self._do(proxy.start(("127.0.0.1", 0)))
        self.urls = [f"ws://127.0.0.1:{proxy.address[1]}" for proxy in self._proxies]

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CLOSE_SECONDS)

    def cut(self, which: int) -> None:
        """End every connection to a broker with a reset."""
        proxy = self._proxies[which]

        async def cut() -> None:
            proxy.reset()

        self._do(cut())

    def hold(self, which: int, *, held: bool) -> None:
        """Let nothing pass to or from a broker, or go on; nobody is told."""
        proxy = self._proxies[which]

        async def change() -> None:
            if held:
                proxy.hold("both")
            else:
                proxy.release("both")

        self._do(change())

    def close(self) -> None:
        """End the proxies and the thread."""
        for proxy in self._proxies:
            self._do(proxy.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_SECONDS)
        self._loop.close()
