"""One connection through the proxy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from tests.tools.proxy.flow import Direction, Flow, Trouble


class Link:
    """Both directions of a connection; made by the proxy.

    Attributes:
        number: Counted from 1 in the order of arrival.
        doomed: The next piece of the way back is not passed on, and the connection reset.
        flows: The two directions.
    """

    def __init__(
        self,
        number: int,
        caller: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        target: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        troubles: dict[Direction, Trouble],
        inspect: Callable[[Direction, Link, bytes], bool],
        count: Callable[[Direction, int, int], None],
    ) -> None:
        self.number = number
        self.doomed = False
        self._writers = (caller[1], target[1])
        self._closed = asyncio.Event()
        for writer in self._writers:
            writer.transport.set_write_buffer_limits(0)  # drain() waits until the system has taken it
            with _socket(writer) as sock:
                if sock.family != socket.AF_UNIX:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def flow(direction: Direction, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> Flow:
            return Flow(
                source,
                sink,
                troubles[direction],
                lambda data: inspect(direction, self, data),
                lambda passed, lost: count(direction, passed, lost),
            )

        self.flows: dict[Direction, Flow] = {
            "up": flow("up", caller[0], target[1]),
            "down": flow("down", target[0], caller[1]),
        }

    @property
    def lost(self) -> bool:
        """Something of it fell into a black hole: it can't go on."""
        return any(flow.lost for flow in self.flows.values())

    def change(self, direction: Direction, **changes: Any) -> None:
        """Other trouble in one direction from now on."""
        self.flows[direction].change(**changes)

    async def run(self) -> bool:
        """Until both directions have ended, or it is cut; False if a piece was not to be passed on."""
        tasks = {asyncio.create_task(flow.run()): flow for flow in self.flows.values()}
        closed = asyncio.create_task(self._closed.wait())
        waiting = {closed, *tasks}
        passed = True
        try:
            while closed in waiting and len(waiting) > 1 and passed:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {closed}:
                    passed = passed and task.result()
                    if tasks[task].ended == "reset":
                        self.reset()
        finally:
            for task in (closed, *tasks):
                task.cancel()
            await asyncio.gather(closed, *tasks, return_exceptions=True)
            if not passed:
                self.reset()
            self.cut()
        return passed

    def half_close(self, direction: Direction) -> None:
        """Tell the receiver of this direction that nothing more will come."""
        with contextlib.suppress(OSError), _socket(self._writers[1 if direction == "up" else 0]) as sock:
            sock.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """End both connections with FIN; what waited is dropped."""
        for writer in self._writers:
            if not writer.transport.is_closing():
                # Before closing, which would send RST instead if something lies unread in the socket.
                with contextlib.suppress(OSError), _socket(writer) as sock:
                    sock.shutdown(socket.SHUT_WR)
            writer.transport.abort()
        self._closed.set()

    def reset(self) -> None:
        """End both connections with RST (a unix socket has no such thing: they are closed)."""
        for writer in self._writers:
            if not writer.transport.is_closing():
                with contextlib.suppress(OSError), _socket(writer) as sock:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self._closed.set()


def _socket(writer: asyncio.StreamWriter) -> socket.socket:
    """A second handle on a transport's socket; event loops do not let one shut it down."""
    return socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
