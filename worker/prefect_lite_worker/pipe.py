"""Messages between a worker and its child processes: msgpack arrays with a length before each, over a socket.

The worker's end never blocks (``Channel``); the child's end does (``read_message``, ``write_message``). The
worker unpacks plain data only, and what the user's code has made stays bytes to it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import msgpack as _untyped_msgpack

msgpack: Any = _untyped_msgpack

START, RUN, STOP = "start", "run", "stop"
"""To a child: what it serves; execute this; stop that."""
READY, BROKEN, STARTED, LEFT, LINES, LEND, NEED, END = (
    "ready", "broken", "started", "left", "lines", "lend", "need", "end",
)  # fmt: skip
"""From a child: it has loaded the tasks; it can't; an attempt's code begins; it has ended; log lines; the run
waits for other runs; the call takes results of others; the run's end."""

READ_BYTES = 256 * 1024
MAX_BYTES = 1 << 32
"""Of one message; a length beyond is none of ours."""
LONGEST_BYTES = 1 << 30
"""Of a result: longer than a broker takes, as the worker may have a storage for it."""
READS_PER_TURN = 8
"""The other children, and the broker, get their turn after these."""

_length = struct.Struct(">Q")


def pack(message: list[Any]) -> bytes:
    """One message as it travels."""
    # Texts of the user may have halves of surrogate pairs; who shows or stores them replaces them.
    body = msgpack.packb(message, unicode_errors="surrogatepass")
    return _length.pack(len(body)) + body


def unpack(data: bytes | memoryview) -> list[Any]:
    """The reverse, without the length.

    Raises:
        ValueError: It is no message.
    """
    message = msgpack.unpackb(data, strict_map_key=False, unicode_errors="surrogatepass")
    if not isinstance(message, list) or not message:
        raise ValueError("not a message")
    return message


def write_message(sock: socket.socket, message: list[Any]) -> None:
    """Send one message, however long that takes."""
    sock.sendall(pack(message))


def read_message(sock: socket.socket) -> list[Any] | None:
    """Wait for one message; None when the other side has gone."""
    head = _read(sock, _length.size)
    body = _read(sock, _length.unpack(head)[0]) if head is not None else None
    return None if body is None else unpack(body)


def _read(sock: socket.socket, size: int) -> bytes | None:
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        try:
            count = sock.recv_into(view[got:])
        except OSError:  # the user's code may have closed our descriptor
            return None
        if not count:
            return None
        got += count
    return bytes(data)


class Channel:
    """The worker's end, on the connection thread's loop.

    Args:
        sock: Connected; closed with the channel.
        loop: Calls us.
        on_message: Takes each message.
        on_closed: Called once, when the other side has gone or has sent nonsense; not after ``close``.
    """

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        on_message: Callable[[list[Any]], None],
        on_closed: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._loop = loop
        self._on_message = on_message
        self._on_closed = on_closed
        self._came = bytearray()
        self._waits: deque[memoryview] = deque()
        self._open = True
        sock.setblocking(False)
        loop.add_reader(sock, self._read)

    def send(self, message: list[Any]) -> None:
        """Send a message, soon; into a closed channel it goes nowhere."""
        if not self._open:
            return
        self._waits.append(memoryview(pack(message)))
        if len(self._waits) == 1:
            self._write()

    def close(self) -> None:
        """The other side reads an end of file."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._waits.clear()
            self._came = bytearray()
            self._sock.close()

    def _write(self) -> None:
        waits = self._waits
        try:
            while waits:
                sent = self._sock.send(waits[0])
                if sent == len(waits[0]):
                    waits.popleft()
                else:
                    waits[0] = waits[0][sent:]
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._sock, self._write)
        except OSError:
            waits.clear()  # it has gone; reading finds that out
        else:
            self._loop.remove_writer(self._sock)

    def _read(self) -> None:
        for _ in range(READS_PER_TURN):
            try:
                data = self._sock.recv(READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                self._lost()
                return
            self._came += data
            self._take()
            if not self._open or len(data) < READ_BYTES:
                return

    def _take(self) -> None:
        came, start = self._came, 0
        while self._open and len(came) >= start + _length.size:
            (size,) = _length.unpack_from(came, start)
            end = start + _length.size + size
            if len(came) < end and size <= MAX_BYTES:
                break
            try:
                message = unpack(memoryview(came)[start + _length.size : end])
            except (ValueError, msgpack.UnpackException):
                self._lost()  # somebody else has written to our socket
                return
            self._on_message(message)
            start = end
        if self._open:
            self._came = came[start:] if start else came

    def _lost(self) -> None:
        if self._open:
            self.close()
            self._on_closed()
