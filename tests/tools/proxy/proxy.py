"""The proxy: accepts, connects on, and makes the trouble that was asked for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tests.tools.proxy.flow import Address, Bucket, Direction, Trouble
from tests.tools.proxy.link import Link

Ways = Literal["up", "down", "both"]

BUFFER_BYTES = 64 * 1024
BACKLOG = 4096


@dataclass
class Counters:
    """What has happened since the start.

    Attributes:
        accepted: Connections of callers.
        refused: Of these, closed at once or not connected on.
        cuts: Connections ended by ``cut``, ``cut_next_...``.
        resets: Connections ended by ``reset`` or after a black hole.
        passed: Bytes passed on, per direction.
        lost: Bytes lost in a black hole, per direction.
    """

    accepted: int = 0
    refused: int = 0
    cuts: int = 0
    resets: int = 0
    passed: dict[Direction, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    lost: dict[Direction, int] = field(default_factory=lambda: {"up": 0, "down": 0})


class Proxy:
    """See the package's docstring.

    Args:
        target: Where connections go: path of a unix socket, or (host, port).
        buffer_bytes: Receive buffer of each socket; by default megabytes, which hide a slow link.
        on_link: Called with each new ``Link`` before anything passes, to choose trouble for it alone.

    Attributes:
        address: Where it listens, as ``start`` was told or the free port it found.
        counters: What has happened.
    """

    def __init__(
        self,
        target: Address,
        *,
        buffer_bytes: int = BUFFER_BYTES,
        on_link: Callable[[Link], None] | None = None,
    ) -> None:
        self.target = target
        self.address: Address = ""
        self.counters = Counters()
        self._buffer_bytes = buffer_bytes
        self._on_link = on_link
        self._links: dict[Link, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._refuse = False
        self._troubles: dict[Direction, Trouble] = {"up": Trouble(), "down": Trouble()}
        self._released = asyncio.Event()
        self._reply_of: bytes | None = None
        self._request: bytes | None = None

    @property
    def links(self) -> list[Link]:
        """The connections there are, oldest first."""
        return list(self._links)

    @property
    def accepted(self) -> int:
        return self.counters.accepted

    @property
    def cuts(self) -> int:
        return self.counters.cuts

    # -- ends of connections ----------------------------------------------------------------------

    def cut(self, links: Iterable[Link] | None = None) -> int:
        """End connections with FIN; returns how many there were."""
        chosen = self._chosen(links)
        for link in chosen:
            link.cut()
        self.counters.cuts += len(chosen)
        return len(chosen)

    def reset(self, links: Iterable[Link] | None = None) -> int:
        """End connections with RST; returns how many there were."""
        chosen = self._chosen(links)
        for link in chosen:
            link.reset()
        self.counters.resets += len(chosen)
        return len(chosen)

    def half_close(self, direction: Direction, links: Iterable[Link] | None = None) -> None:
        """Tell the receivers of a direction that it has ended (FIN); the other direction stays."""
        for link in self._chosen(links):
            link.half_close(direction)

    def cut_next_reply(self, request: bytes = b"") -> None:
        """Reset the next connection on which data comes back after a request that contains ``request``."""
        self._reply_of = request

    def cut_next_request(self, request: bytes = b"") -> None:
        """Reset the next connection on which such a request comes, instead of passing it on."""
        self._request = request

    @property
    def armed(self) -> bool:
        """A cut asked for has not happened yet."""
        return self._reply_of is not None or self._request is not None or any(x.doomed for x in self._links)

    def refuse(self, refused: bool) -> None:
        """Close new connections at once, without telling the target."""
        self._refuse = refused

    # -- trouble that lasts -----------------------------------------------------------------------

    def hold(self, ways: Ways = "both", links: Iterable[Link] | None = None) -> None:
        """Pass nothing on until ``release``, and read nothing: a stall. Ends are held too; nothing is lost.

        With ``up`` held for all, new connections wait too.
        """
        self._change(ways, links, held=True)

    def black_hole(self, ways: Ways = "both", links: Iterable[Link] | None = None) -> None:
        """Lose all that comes, ends of connections too, so that neither side is told of the other's."""
        self._change(ways, links, lossy=True)

    def release(self, ways: Ways = "both", links: Iterable[Link] | None = None) -> None:
        """End ``hold`` and ``black_hole``. A connection that has lost something is reset."""
        self._change(ways, links, held=False, lossy=False)
        self.reset([link for link in self._chosen(links) if link.lost])
        if links is None:
            self._released.set()
            self._released = asyncio.Event()

    def delay(
        self, ways: Ways, seconds: float, jitter: float = 0.0, links: Iterable[Link] | None = None
    ) -> None:
        """Pass each piece on so many seconds after it came, give or take ``jitter``; 0 ends it."""
        self._change(ways, links, latency=seconds, jitter=jitter)

    def limit(self, ways: Ways, rate: float, links: Iterable[Link] | None = None) -> None:
        """Pass at most ``rate`` bytes per second in each direction; those concerned share it. 0 ends it."""
        for direction in _directions(ways):
            self._change(direction, links, bucket=Bucket(rate) if rate else None)

    def slice(self, ways: Ways, size: int, pause: float = 0.0, links: Iterable[Link] | None = None) -> None:
        """Write at most ``size`` bytes at once, with ``pause`` seconds in between; 0 ends it."""
        self._change(ways, links, slice_bytes=size, slice_pause=pause)

    def calm(self, links: Iterable[Link] | None = None) -> None:
        """End all trouble that lasts."""
        self.release("both", links)
        self.delay("both", 0.0, links=links)
        self.limit("both", 0, links=links)
        self.slice("both", 0, links=links)
        if links is None:
            self._refuse = False

    def _change(self, ways: Ways, links: Iterable[Link] | None, **changes: Any) -> None:
        chosen = self._chosen(links)
        for direction in _directions(ways):
            if links is None:
                self._troubles[direction] = replace(self._troubles[direction], **changes)
            for link in chosen:
                link.change(direction, **changes)

    def _chosen(self, links: Iterable[Link] | None) -> list[Link]:
        return [link for link in (self._links if links is None else links) if link in self._links]

    # -- life -------------------------------------------------------------------------------------

    async def start(self, listen: Address) -> None:
        """Listen on the path of a unix socket, or on (host, port); port 0 finds a free one."""
        if isinstance(listen, str):
            self._server = await asyncio.start_unix_server(self._accept, listen, backlog=BACKLOG)
            self.address = listen
            return
        self._server = await asyncio.start_server(self._accept, *listen, backlog=BACKLOG, limit=16 * 1024)
        for listening in self._server.sockets:
            self._shrink(listening)  # accepted sockets inherit it, before a window is offered
        self.address = self._server.sockets[0].getsockname()[:2]

    async def close(self) -> None:
        """Stop listening and end every connection."""
        self._refuse = True
        if self._server is not None:
            self._server.close()
        await asyncio.sleep(0)  # what was accepted in this turn has its task in the next
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _shrink(self, sock: Any) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.counters.accepted += 1
        try:
            await self._serve(self.counters.accepted, reader, writer)
        except asyncio.CancelledError:
            return  # close(); asyncio would log it
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _serve(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not self._refuse and (self._troubles["up"].held or self._troubles["up"].lossy):
            await self._released.wait()  # a network that passes nothing has no handshakes either
        if self._refuse:
            self.counters.refused += 1
            return
        try:
            target = await self._dial()
        except OSError:
            self.counters.refused += 1
            return
        link = Link(number, (reader, writer), target, self._troubles, self._passes, self._count)
        self._links[link] = None
        try:
            if self._on_link is not None:
                self._on_link(link)
            if not await link.run():
                self.counters.cuts += 1
        finally:
            del self._links[link]
            link.cut()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.target, str):
            return await asyncio.open_unix_connection(self.target, limit=16 * 1024)
        reader, writer = await asyncio.open_connection(*self.target, limit=16 * 1024)
        self._shrink(writer.get_extra_info("socket"))
        return reader, writer

    def _count(self, direction: Direction, passed: int, lost: int) -> None:
        self.counters.passed[direction] += passed
        self.counters.lost[direction] += lost

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


def _directions(ways: Ways) -> tuple[Direction, ...]:
    return ("up", "down") if ways == "both" else (ways,)
