"""Moves frames between a session and a websocket; the only file of the protocol that does I/O.

Reading never stops: the websockets library lets a connection die whose handler stops calling ``recv``, so
back-pressure is made by credit and by REFUSED. A frame is handled in the callback in which its bytes
arrived; going through ``recv`` would wake a task one turn of the loop later, five times on the way of a run.
That takes some names from inside the library (here and in ``frames.py``); a version that does not have them
is read through ``recv``.
Writing is synchronous as long as the transport takes it; only when its buffer is full a task waits for room,
with a deadline per frame, because neither ``ping`` nor the library's keepalive notices a peer that has
stopped reading.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any, Final

from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed
from websockets.frames import (
    DATA_OPCODES,
    CloseCode,
    Frame,
    Opcode,
    apply_mask,  # pyright: ignore[reportPrivateImportUsage]  # in C, or in Python where that was not built
)
from websockets.protocol import Side, State

from prefect_lite.protocol.codec import MAX_FRAME, ProtocolError
from prefect_lite.protocol.frames import FrameReader, Other, between_frames, write_frame
from prefect_lite.protocol.messages import Message
from prefect_lite.protocol.session import Session

HIGH_WATER: Final = 32 * 1024
"""Bytes in the transport's buffer above which no further frame is given to it. With one frame more this
bounds what a peer that does not read costs."""

UNSENT_BYTES: Final = 32 * 1024
"""The same for what the operating system holds of a TCP connection and has not sent."""


class Pump:
    """One connection's pump; create it and call everything on the connection's event loop.

    Args:
        ws: An open connection, of a server or a client.
        session: The session it serves.
        on_messages: Called with what each frame brought. It must not raise; what it does ends ``run``.
        write_deadline_seconds: A frame that the peer does not take within this time ends the connection.
        on_error: Called once with the fatal error that made this side close, before ``run`` returns.
        on_sent: Called when frames had to wait for room and the last of them has been taken.
    """

    def __init__(
        self,
        ws: Connection,
        session: Session,
        on_messages: Callable[[list[Message]], None],
        *,
        write_deadline_seconds: float,
        on_error: Callable[[ProtocolError], None] | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> None:
        self._ws = ws
        self._session = session
        self._on_messages = on_messages
        self._on_error = on_error
        self._on_sent = on_sent
        self._write_deadline = write_deadline_seconds
        self._loop = asyncio.get_running_loop()
        self._flush_scheduled = False
        self._writer: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failed = False
        self._running = False
        self._transport = ws.transport
        client = ws.protocol.side is Side.CLIENT
        self._mask, self._unmask = (apply_mask, None) if client else (None, apply_mask)
        self._cut: FrameReader | None = None  # set when the library no longer cuts the frames
        # Absent in a library that works otherwise: then everything comes through recv().
        self._by_library: Callable[[Any], None] | None = getattr(ws, "process_event", None)
        self._queued = 0  # messages in the library's queue, the first frame of one counts
        self._done: asyncio.Future[None] = self._loop.create_future()  # the session has closed
        self._raised: BaseException | None = None
        # drain() has to wait exactly when flush() stops.
        ws.transport.set_write_buffer_limits(HIGH_WATER, HIGH_WATER // 4)
        _keep_little_unsent(ws.transport)

    async def run(self) -> None:
        """Read until the connection is closed by either side; ``ws.close_code`` tells how.

        Drives the session's clock too. Frames that wait for being sent are sent from here on.
        """
        self._running = True
        self.schedule_flush()
        try:
            await self._read()
        finally:
            self._running = False
            self._end()
            if self._timer is not None:
                self._timer.cancel()
            if self._writer is not None:
                self._writer.cancel()
                await asyncio.wait([self._writer])

    async def _read(self) -> None:
        ws = self._ws
        while not self._session.closed:
            try:
                data = await ws.recv(decode=False)
            except ConnectionClosed:
                break
            self._receive(data)
            if self._by_library is not None and _nothing_waits(ws):
                # Nothing older is in the library's queue that the next frame could overtake.
                ws.process_event = self._process_event
                await self._until_closed()
                break
        if self._raised is not None:
            raise self._raised
        if ws.state is State.OPEN:
            self.flush()
            await ws.close(CloseCode.POLICY_VIOLATION, "protocol error")

    async def _until_closed(self) -> None:
        """Frames come through ``_process_event`` now; only a fragmented one still comes through ``recv``."""
        while not self._session.closed and self._raised is None:
            reading = self._loop.create_task(self._ws.recv(decode=False))
            reading.add_done_callback(_look_at)
            try:
                await asyncio.wait((reading, self._done), return_when=asyncio.FIRST_COMPLETED)
            finally:
                reading.cancel()
            if self._done.done() or not reading.done():
                return
            try:
                data = reading.result()
            except ConnectionClosed:
                return
            self._queued -= 1
            self._receive(data)

    def _process_event(self, event: Any) -> None:
        """In place of the library's method: hand complete binary frames over at once."""
        opcode = event.opcode
        if self._done.done() and opcode in DATA_OPCODES:
            return  # nobody will take it out of the library's queue
        if opcode is not Opcode.BINARY or not event.fin or self._queued:
            if opcode is Opcode.BINARY or opcode is Opcode.TEXT:
                self._queued += 1  # until recv() has returned it, no other may pass
            assert self._by_library is not None
            self._by_library(event)
            return
        self._receive_or_end(event.data)
        if self._cut is None and between_frames(self._ws.protocol):
            self._cut_frames()

    def _receive_or_end(self, data: bytes) -> None:
        try:
            self._receive(data)
        except BaseException as exc:
            self._raised = exc
        if self._session.closed or self._raised is not None:
            self._end()

    def _end(self) -> None:
        """Nothing is handed over any more."""
        if not self._done.done():
            self._done.set_result(None)

    def _cut_frames(self) -> None:
        """Take what arrives from here on to frames without the library."""
        ws: Any = self._ws
        cut = self._cut = FrameReader(self._unmask, MAX_FRAME)
        by_library: Callable[[bytes], None] = ws.data_received

        def data_received(data: bytes) -> None:
            for frame in cut.feed(data):
                if type(frame) is Other:
                    by_library(frame)
                    if ws.state is not State.OPEN:
                        cut.pass_on()  # it drops what comes after a CLOSE, or after a fault
                elif self._queued or self._done.done():
                    self._process_event(Frame(Opcode.BINARY, frame))
                else:
                    self._receive_or_end(frame)

        ws.data_received = data_received
        self._transport.set_protocol(ws)  # uvloop looks the method up only here

    def _receive(self, data: Any) -> None:
        session = self._session
        try:
            messages = session.receive(data)
        except ProtocolError as problem:
            self._report(problem)
            return
        session.heard_at = self._loop.time()
        if messages:
            self._on_messages(messages)
        if self._timer is None:
            self._arm()
        if session.has_data:
            self.schedule_flush()

    # -- writing ----------------------------------------------------------------------------------

    def schedule_flush(self) -> None:
        """Flush once at the end of this turn of the loop, however often it is called."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Give the transport what waits, as far as it takes it; the rest follows by itself."""
        self._flush_scheduled = False
        if self._timer is None:
            self._arm()  # from WELCOME on, whoever sends it
        if self._writer is None and not self._push():
            self._writer = self._loop.create_task(self._write(), name="prefect-lite-writer")

    def _push(self) -> bool:
        """Write frames until nothing waits (True) or the transport's buffer is full (False)."""
        ws, transport = self._ws, self._transport
        next_frame = self._session.next_frame
        while ws.state is State.OPEN:
            if transport.get_write_buffer_size() > HIGH_WATER:
                return False
            frame = next_frame()
            if frame is None:
                return True
            try:
                write_frame(transport, frame, self._mask)
            except (OSError, RuntimeError):
                return True  # the connection is gone, which recv() reports
        return True

    async def _write(self) -> None:
        try:
            while not self._push():
                async with asyncio.timeout(self._write_deadline):
                    await self._ws.drain()
                # It takes what we send, so it is there. What it has to say may wait for our own last word,
                # which is behind a large body on a slow link.
                self._session.taken(self._loop.time())
        except TimeoutError:
            self._give_up()
        except OSError:
            return  # the connection is gone, which recv() reports
        else:
            if self._on_sent is not None:
                self._loop.call_soon(self._on_sent)
        finally:
            self._writer = None

    async def prove(self) -> None:
        """Close the connection unless the peer answers a ping within the write deadline.

        For one that there is nothing to send to: whether it reads would not be noticed.
        """
        try:
            async with asyncio.timeout(self._write_deadline):
                await (await self._ws.ping())
        except TimeoutError:
            self._give_up()
        except ConnectionClosed:
            return

    def _give_up(self) -> None:
        text = f"The peer did not take a frame within {self._write_deadline:g} s."
        self._report(ProtocolError("write_deadline", text, True))
        self.abort()

    @property
    def buffered(self) -> int:
        """Bytes that the operating system has not taken yet."""
        return self._ws.transport.get_write_buffer_size()

    def abort(self) -> None:
        """Close without a handshake and drop what is buffered."""
        self._ws.transport.abort()

    # -- time and errors --------------------------------------------------------------------------

    def _arm(self) -> None:
        deadline = self._session.next_deadline()
        if deadline is not None and self._running:
            self._timer = self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        try:
            self._session.tick(self._loop.time())
        except ProtocolError as problem:
            self._report(problem)
            self.abort()
            return
        self.flush()  # sets the next timer

    def _report(self, problem: ProtocolError) -> None:
        if not self._failed:
            self._failed = True
            if self._on_error is not None:
                self._on_error(problem)


def _keep_little_unsent(transport: asyncio.Transport) -> None:
    """Bound what the system takes and has not sent yet, where it can.

    By itself it takes megabytes, and what is urgent would wait behind them for as long as a slow link needs.
    """
    sock = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if sock is not None and option is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):  # closed already; the reader will say so
            sock.setsockopt(socket.IPPROTO_TCP, option, UNSENT_BYTES)


def _nothing_waits(ws: Any) -> bool:
    """Whether the library's queue is empty; False where it can't be told."""
    try:
        return not len(ws.recv_messages.frames)
    except (AttributeError, TypeError):
        return False


def _look_at(reading: asyncio.Task[Any]) -> None:
    """The end of a connection is no news to us, and asyncio would complain that nobody looked at it."""
    if not reading.cancelled():
        reading.exception()
