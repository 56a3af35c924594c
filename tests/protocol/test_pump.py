"""The pump on real websockets over a unix socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from websockets.asyncio.client import unix_connect
from websockets.asyncio.server import ServerConnection, unix_serve
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import State

from prefect_lite.protocol import messages as m
from prefect_lite.protocol.broker_session import BrokerSession
from prefect_lite.protocol.codec import MAX_FRAME, ProtocolError, encode_frame
from prefect_lite.protocol.pump import HIGH_WATER, Pump
from tests.protocol.pairs import MIB, broker, peer, run_id
from tests.protocol.samples import RUN

OPTIONS: dict[str, Any] = {"compression": None, "max_size": MAX_FRAME + 1024, "ping_interval": None}


class Side:
    """A pump with what it reported."""

    def __init__(self, ws: Any, session: Any, *, deadline: float = 5.0) -> None:
        self.ws = ws
        self.session = session
        self.seen: list[m.Message] = []
        self.errors: list[ProtocolError] = []
        self.changed = asyncio.Event()
        self.react: Callable[[m.Message], None] = lambda message: None
        self.pump = Pump(ws, session, self._take, write_deadline_seconds=deadline, on_error=self._fail)

    def _take(self, messages: list[m.Message]) -> None:
        self.seen += messages
        for message in messages:
            self.react(message)
        self.pump.schedule_flush()
        self.changed.set()

    def _fail(self, problem: ProtocolError) -> None:
        self.errors.append(problem)
        self.changed.set()

    async def until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        async with asyncio.timeout(timeout):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def server(
    path: Path, *, deadline: float = 5.0, max_payload_bytes: int = MIB
) -> AsyncIterator[asyncio.Queue[Side]]:
    """A server that welcomes everybody and hands out each connection's side once it runs."""
    sides: asyncio.Queue[Side] = asyncio.Queue()

    async def handle(ws: ServerConnection) -> None:
        side = Side(ws, broker(max_payload_bytes=max_payload_bytes), deadline=deadline)

        def react(message: m.Message) -> None:
            if isinstance(message, m.Hello):
                side.session.welcome("s1", b"secret", 1)

        side.react = react
        sides.put_nowait(side)
        await side.pump.run()

    async with unix_serve(handle, str(path), **OPTIONS):
        yield sides


@asynccontextmanager
async def client(path: Path, role: str = "client", *, deadline: float = 5.0) -> AsyncIterator[Side]:
    async with unix_connect(str(path), "ws://localhost/", proxy=None, **OPTIONS) as ws:
        session = peer(role, max_payload_bytes=32 * MIB)
        side = Side(ws, session, deadline=deadline)
        session.connect()
        task = asyncio.create_task(side.pump.run())
        await side.until(lambda: session.welcomed)
        try:
            yield side
        finally:
            await ws.close()
            await task


def run(test: Callable[[], Awaitable[None]]) -> None:
    for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:

            async def bounded() -> None:
                async with asyncio.timeout(30):
                    await test()
                others = asyncio.all_tasks() - {asyncio.current_task()}
                assert not [task for task in others if task.get_name() == "prefect-lite-writer"]

            runner.run(bounded())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def test_messages_flow_both_ways_in_batches(path: Path) -> None:
    async def test() -> None:
        async with server(path) as sides, client(path) as one:
            other = await sides.get()
            submits = [m.Submit(run_id(n), "k", b"x" * 100) for n in range(3_000)]
            for submit in submits:
                one.session.submit(submit)
            one.pump.schedule_flush()
            one.pump.schedule_flush()
            await other.until(lambda: len(other.seen) == 3_001)
            assert other.seen[1:] == submits
            other.session.send(m.Accepted([submit.run_id for submit in submits]))
            other.pump.flush()
            await one.until(lambda: one.session.unanswered == 0)

    run(test)


def test_a_large_body_and_small_messages_share_the_wire(path: Path) -> None:
    async def test() -> None:
        async with server(path, max_payload_bytes=16 * MIB) as sides, client(path) as one:
            other = await sides.get()
            big = m.Submit(RUN, "k", b"b" * (10 * MIB))
            one.session.submit(big)
            one.pump.flush()
            one.session.send(m.Query(1, "stats"))
            one.pump.flush()
            await other.until(lambda: len(other.seen) == 3)
            assert other.seen[1:] == [m.Query(1, "stats"), big]

    run(test)


def test_a_peer_that_stops_reading_is_dropped_at_the_deadline(path: Path) -> None:
    async def test() -> None:
        async with (
            server(path, deadline=0.3) as sides,
            unix_connect(str(path), "ws://localhost/", proxy=None, **OPTIONS) as ws,
        ):
            await ws.send(encode_frame([m.Hello(0, "client", "default")]))
            await ws.recv()
            other = await sides.get()
            ws.transport.pause_reading()
            session: BrokerSession = other.session
            start = asyncio.get_running_loop().time()
            for number in range(200):
                session.send(m.RunState(run_id(number), "COMPLETED", result=b"r" * 60_000))
            other.pump.flush()
            held = other.pump.buffered
            await other.until(lambda: bool(other.errors))
            assert asyncio.get_running_loop().time() - start < 2
            assert [problem.code for problem in other.errors] == ["write_deadline"]
            assert held <= HIGH_WATER + MAX_FRAME
            ws.transport.abort()

    run(test)


@pytest.mark.parametrize("by_library", [True, False])
def test_reading_goes_on_while_writing_waits(
    path: Path, monkeypatch: pytest.MonkeyPatch, by_library: bool
) -> None:
    """The library pauses reading, and in the end closes, when 16 frames wait for a ``recv``."""
    if not by_library:
        monkeypatch.setattr("prefect_lite.protocol.pump._nothing_waits", lambda ws: False)

    async def test() -> None:
        async with (
            server(path) as sides,
            unix_connect(str(path), "ws://localhost/", proxy=None, **OPTIONS) as ws,
        ):
            await ws.send(encode_frame([m.Hello(0, "client", "default")]))
            await ws.recv()
            other = await sides.get()
            ws.transport.pause_reading()
            for number in range(100):
                other.session.send(m.RunState(run_id(number), "COMPLETED", result=b"r" * 60_000))
            other.pump.flush()
            for number in range(200):
                await ws.send(encode_frame([m.Query(number, "stats")]))
            await other.until(lambda: sum(isinstance(one, m.Query) for one in other.seen) == 200)
            assert other.session.has_data
            assert not other.errors
            ws.transport.abort()

    run(test)


def test_a_peer_has_to_prove_that_it_reads(path: Path) -> None:
    async def test() -> None:
        async with server(path, deadline=0.3) as sides, client(path) as one:
            other = await sides.get()
            await other.pump.prove()
            assert not other.errors
            one.ws.transport.pause_reading()
            await other.pump.prove()
            assert [problem.code for problem in other.errors] == ["write_deadline"]
            one.ws.transport.resume_reading()
        async with server(path, deadline=5.0) as sides, client(path) as one:
            other = await sides.get()
            one.ws.transport.abort()
            await other.pump.prove()
            assert not other.errors, "gone, which is no news of reading"

    run(test)


def test_a_slow_reader_that_makes_progress_is_kept(path: Path) -> None:
    """The whole takes far longer than the deadline, each frame less."""

    async def test() -> None:
        async with server(path, deadline=0.5, max_payload_bytes=8 * MIB) as sides, client(path) as one:
            other = await sides.get()
            transport = one.ws.transport
            one.session.watch([RUN])
            one.pump.flush()
            await other.until(lambda: len(other.seen) == 2)
            loop = asyncio.get_running_loop()
            paused = 0

            def stutter() -> None:
                nonlocal paused
                if paused >= 20 or transport.is_closing():
                    return
                paused += 1
                transport.pause_reading()
                loop.call_later(0.06, resume)

            def resume() -> None:
                transport.resume_reading()
                loop.call_later(0.001, stutter)

            stutter()
            result = b"r" * (6 * MIB)
            other.session.send(m.RunState(RUN, "COMPLETED", result=result))
            other.pump.flush()
            await one.until(lambda: len(one.seen) == 2)
            assert one.seen[1] == m.RunState(RUN, "COMPLETED", result=result)

    run(test)


def test_a_broken_frame_is_answered_and_the_connection_closed(path: Path) -> None:
    async def test() -> None:
        async with server(path) as sides, client(path) as one:
            other = await sides.get()
            await one.ws.send(b"\xc1")
            await other.until(lambda: bool(other.errors))
            await one.ws.wait_closed()
            assert one.ws.close_code == 1008
            assert isinstance(one.seen[-1], m.Error)
            assert one.seen[-1].fatal
            assert other.errors[0].code == "malformed"

    run(test)


def test_the_heartbeat_is_driven_and_silence_ends_the_connection(path: Path) -> None:
    async def test() -> None:
        async with server(path) as sides, client(path) as one:
            other = await sides.get()
            one.session.renew_seconds = other.session.renew_seconds = 0.02
            one.session.lease_seconds = 0.1
            # The timers were armed with the long beat of WELCOME.
            for side in (one, other):
                side.session._next_tick = 0.0
                side.pump._tick()
            await other.until(lambda: sum(isinstance(seen, m.Renew) for seen in other.seen) > 2)
            await one.until(lambda: bool(one.errors))  # nobody answers
            assert one.errors[0].code == "silent"
            await other.ws.wait_closed()

    run(test)


def test_run_ends_when_the_other_side_vanishes(path: Path) -> None:
    async def test() -> None:
        async with server(path) as sides, client(path) as one:
            other = await sides.get()
            one.session.send(m.Query(1, "stats"))
            other.pump.abort()
            await one.ws.wait_closed()
            one.pump.flush()
            assert one.errors == []

    run(test)


def test_an_error_of_the_application_is_not_hidden(path: Path) -> None:
    async def test() -> None:
        async with server(path) as sides:
            async with unix_connect(str(path), "ws://localhost/", proxy=None, **OPTIONS) as ws:
                session = peer("client")
                session.connect()

                def broken(messages: list[m.Message]) -> None:
                    raise RuntimeError("a bug")

                pump = Pump(ws, session, broken, write_deadline_seconds=1.0)
                with pytest.raises(RuntimeError, match="a bug"):
                    await pump.run()
            await sides.get()

    run(test)


def test_a_fragmented_frame_is_not_overtaken(path: Path) -> None:
    async def test() -> None:
        async with server(path) as sides, client(path) as one:
            other = await sides.get()
            frames = [encode_frame([m.Query(number, "stats")]) for number in (1, 2, 3, 4)]
            await one.ws.send(frames[0])
            # As the library writes them, but in one write: all of it is received in one callback.
            protocol = one.ws.protocol
            protocol.send_binary(frames[1][:5], fin=False)
            protocol.send_continuation(frames[1][5:], fin=True)
            protocol.send_binary(frames[2])
            one.ws.send_data()
            await other.until(lambda: len(other.seen) == 4)
            await one.ws.send(frames[3])
            await other.until(lambda: len(other.seen) == 5)
            requests = [message.request for message in other.seen if isinstance(message, m.Query)]
            assert requests == [1, 2, 3, 4]

    run(test)


class _Unfamiliar:
    """A websocket of a library whose inside looks different."""

    def __init__(self, ws: Any) -> None:
        self._ws = ws

    def __getattr__(self, name: str) -> Any:
        if name in ("process_event", "recv_messages"):
            raise AttributeError(name)
        return getattr(self._ws, name)


def test_without_the_library_s_inside_frames_come_through_recv(path: Path) -> None:
    async def test() -> None:
        async with (
            server(path) as sides,
            unix_connect(str(path), "ws://localhost/", proxy=None, **OPTIONS) as ws,
        ):
            session = peer("client", max_payload_bytes=MIB)
            one = Side(_Unfamiliar(ws), session)
            session.connect()
            task = asyncio.create_task(one.pump.run())
            await one.until(lambda: session.welcomed)
            other = await sides.get()
            for number in range(3):
                other.session.send(m.Answer(number, True, None))
                other.pump.flush()
            await one.until(lambda: len(one.seen) == 4)
            await ws.close()
            await task

    run(test)


def test_silence_right_after_welcome_is_noticed(path: Path) -> None:
    async def test() -> None:
        async with (
            server(path) as sides,
            unix_connect(str(path), "ws://localhost/", proxy=None, **OPTIONS) as ws,
        ):
            # The broker's application answers later than in the turn in which HELLO came.
            await ws.send(encode_frame([m.Hello(0, "client", "default")]))
            other = await sides.get()
            react, other.react = other.react, lambda message: None
            await other.until(lambda: bool(other.seen))
            other.session._times = (0.1, 0.02)
            react(other.seen[0])
            other.pump.flush()
            await other.until(lambda: bool(other.errors))
            assert other.errors[0].code == "silent"
            await ws.wait_closed()

    run(test)


def test_a_beat_sets_one_timer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with server(path), client(path) as one:
            armed: list[float] = []
            monkeypatch.setattr(one.pump, "_loop", _Clock(asyncio.get_running_loop(), armed))
            one.pump._tick()
            assert len(armed) == 1

    run(test)


class _Clock:
    """A loop that notes its timers."""

    def __init__(self, loop: Any, armed: list[float]) -> None:
        self._loop = loop
        self._armed = armed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_at(self, when: float, callback: Callable[[], None]) -> Any:
        self._armed.append(when)
        return self._loop.call_at(when, callback)


def said(*messages: m.Message) -> bytes:
    """What a client's socket sends for a frame of these."""
    return Frame(Opcode.BINARY, encode_frame([*messages])).serialize(mask=True)


HELLO = said(m.Hello(0, "client", "default"))
CLOSE = Frame(Opcode.CLOSE, Close(CloseCode.NORMAL_CLOSURE, "").serialize()).serialize(mask=True)
UNKNOWN = b"\x83\x80abcd"
"""A frame of a kind that is not defined."""


@pytest.mark.parametrize("before", [0, 1, 2], ids=["at first", "by the library", "by hand"])
@pytest.mark.parametrize("end", [CLOSE, UNKNOWN], ids=["close", "unknown"])
def test_what_comes_after_the_end_is_dropped(path: Path, end: bytes, before: int) -> None:
    """Whoever cuts the frames: the first comes through ``recv``, the next from the library's callback."""

    async def test() -> None:
        async with (
            server(path) as sides,
            unix_connect(str(path), "ws://localhost/", proxy=None, **OPTIONS) as ws,
        ):
            frames = [HELLO, said(m.Query(1, "stats")), said(m.Query(2, "stats"))]
            for frame in frames[:before]:
                ws.transport.write(frame)
                await (await ws.ping())
            late = said(m.Query(3, "stats"))
            ws.transport.write(frames[before] + end + late)
            other = await sides.get()
            while ws.state is State.OPEN:  # the answer to `end` has not come yet
                await asyncio.sleep(0)
                with contextlib.suppress(RuntimeError):  # it has
                    ws.transport.write(late)
            await other.ws.wait_closed()
            assert other.seen[1:] == [m.Query(i + 1, "stats") for i in range(before)]
            ws.transport.abort()

    run(test)


def test_nothing_is_handed_over_after_run(path: Path) -> None:
    """Whoever was cancelled has let go of the session; another connection may use it."""

    async def test() -> None:
        seen: list[m.Message] = []
        running: asyncio.Future[asyncio.Task[None]] = asyncio.get_running_loop().create_future()
        over = asyncio.Event()

        async def handle(ws: ServerConnection) -> None:
            session = broker()
            pump = Pump(ws, session, seen.extend, write_deadline_seconds=1.0)
            running.set_result(asyncio.create_task(pump.run()))
            await over.wait()

        async with (
            unix_serve(handle, str(path), **OPTIONS),
            unix_connect(str(path), "ws://localhost/", proxy=None, **OPTIONS) as ws,
        ):
            await ws.send(encode_frame([m.Hello(0, "client", "default")]))
            await (await ws.ping())
            task = await running
            assert len(seen) == 1
            task.cancel()
            await asyncio.wait([task])
            await ws.send(encode_frame([m.Goodbye("")]))
            await (await ws.ping())
            assert len(seen) == 1
            over.set()

    run(test)


def test_a_peer_that_goes_on_after_a_fatal_error_is_heard_to_its_close(path: Path) -> None:
    """The library would stop reading when its queue, which nobody empties any more, is full."""

    async def test() -> None:
        async with (
            server(path) as sides,
            unix_connect(str(path), "ws://localhost/", proxy=None, **OPTIONS) as ws,
        ):
            ws.transport.write(HELLO)
            await ws.recv()
            other = await sides.get()
            broken = Frame(Opcode.BINARY, b"\xc1").serialize(mask=True)
            ws.transport.write(broken + said(m.Query(1, "stats")) * 100)
            await other.ws.wait_closed()
            assert other.errors[0].code == "malformed"
            assert not other.ws.recv_messages.paused
            assert not len(other.ws.recv_messages.frames)
            ws.transport.abort()

    run(test)
