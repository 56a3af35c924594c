"""A TCP or unix-socket proxy that breaks connections at the moments that hurt.

    proxy = Proxy(target="/run/valkey.sock")
    await proxy.start("/tmp/proxy.sock")            # or start(("127.0.0.1", 0)); see ``address``
    proxy.cut_next_reply(b"EVALSHA")                # executed, but the caller never hears of it
    proxy.cut_next_request(b"EVALSHA")              # never arrives
    proxy.cut()                                     # every connection, now
    proxy.hold("down")                              # swallow nothing, pass nothing: a black hole
    proxy.delay("up", 0.2)                          # slow down one direction
    proxy.refuse(True)                              # accept and close at once
    await proxy.close()

``up`` is from the caller to the target, ``down`` the way back. Everything runs on one event loop. From a
shell: ``python -m tests.tools.proxy LISTEN TARGET``, with sockets as paths or host:port; it cuts all
connections on SIGUSR1 and holds or passes them on SIGUSR2.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Literal

Address = str | tuple[str, int]
Direction = Literal["up", "down"]

CHUNK_BYTES = 65536


class Link:
    """One connection through the proxy."""

    def __init__(self, caller: asyncio.StreamWriter, target: asyncio.StreamWriter) -> None:
        self.caller, self.target = caller, target
        self.doomed = False  # the next reply is cut

    def abort(self) -> None:
        for writer in (self.caller, self.target):
            writer.transport.abort()


class Proxy:
    """See the module docstring.

    Args:
        target: Where connections go: path of a unix socket, or (host, port).
    """

    def __init__(self, target: Address) -> None:
        self.target = target
        self.address: Address = ""
        self.accepted = 0
        self.cuts = 0
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._refuse = False
        self._delays: dict[Direction, float] = {"up": 0.0, "down": 0.0}
        self._open: dict[Direction, asyncio.Event] = {"up": asyncio.Event(), "down": asyncio.Event()}
        for gate in self._open.values():
            gate.set()
        self._reply_of: bytes | None = None
        self._request: bytes | None = None

    # -- faults -----------------------------------------------------------------------------------
    def cut(self) -> int:
        """Abort every connection; returns how many there were."""
        links = list(self._links)
        for link in links:
            link.abort()
        self.cuts += len(links)
        return len(links)

    def cut_next_reply(self, request: bytes = b"") -> None:
        """Abort the next connection on which data comes back after a request that contains ``request``."""
        self._reply_of = request

    def cut_next_request(self, request: bytes = b"") -> None:
        """Abort the next connection on which such a request comes, instead of passing it on."""
        self._request = request

    @property
    def armed(self) -> bool:
        """A cut asked for has not happened yet."""
        return self._reply_of is not None or self._request is not None or any(x.doomed for x in self._links)

    def hold(self, direction: Direction) -> None:
        """Pass nothing on in this direction until ``release``; the connections stay."""
        self._open[direction].clear()

    def release(self, direction: Direction) -> None:
        self._open[direction].set()

    def delay(self, direction: Direction, seconds: float) -> None:
        """Pass each piece on only after this long; 0 ends it."""
        self._delays[direction] = seconds

    def refuse(self, refused: bool) -> None:
        """Close new connections at once, without telling the target."""
        self._refuse = refused

    # -- life -------------------------------------------------------------------------------------
    async def start(self, listen: Address) -> None:
        if isinstance(listen, str):
            self._server = await asyncio.start_unix_server(self._accept, listen)
            self.address = listen
        else:
            self._server = await asyncio.start_server(self._accept, *listen)
            self.address = self._server.sockets[0].getsockname()[:2]

    async def close(self) -> None:
        self._refuse = True
        if self._server is not None:
            self._server.close()
        await asyncio.sleep(0)  # what was accepted in this turn has its task in the next
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._refuse:
            return
        try:
            if isinstance(self.target, str):
                target_reader, target_writer = await asyncio.open_unix_connection(self.target)
            else:
                target_reader, target_writer = await asyncio.open_connection(*self.target)
        except OSError:
            return
        link = Link(writer, target_writer)
        self._links.add(link)
        try:
            up = asyncio.create_task(self._pump("up", link, reader, target_writer))
            down = asyncio.create_task(self._pump("down", link, target_reader, writer))
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            for pump in (up, down):
                pump.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
        finally:
            self._links.discard(link)
            link.abort()

    async def _pump(
        self, direction: Direction, link: Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await source.read(CHUNK_BYTES):
                if self._delays[direction]:
                    await asyncio.sleep(self._delays[direction])
                await self._open[direction].wait()
                if not self._passes(direction, link, data):
                    self.cuts += 1
                    link.abort()
                    return
                sink.write(data)
                await sink.drain()
        except OSError:
            return

    def _passes(self, direction: Direction, link: Link, data: bytes) -> bool:
        if direction == "down":
            return not link.doomed
        if self._request is not None and self._request in data:
            self._request = None
            return False
        if self._reply_of is not None and self._reply_of in data:
            self._reply_of = None
            link.doomed = True
        return True


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    return (host, int(port)) if colon and port.isdigit() else text


async def _main(listen: str, target: str) -> None:
    proxy = Proxy(_address(target))
    await proxy.start(_address(listen))
    held = False

    def toggle() -> None:
        nonlocal held
        held = not held
        for direction in ("up", "down"):
            (proxy.hold if held else proxy.release)(direction)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, proxy.cut)
    loop.add_signal_handler(signal.SIGUSR2, toggle)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:3]))
