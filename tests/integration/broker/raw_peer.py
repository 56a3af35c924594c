"""Peers that speak the wire protocol by hand, so that a test decides every frame."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from prefect_lite.protocol.codec import decode_frame, encode_frame
from prefect_lite.protocol.messages import (
    PROTOCOL_MINOR,
    PROTOCOL_NAME,
    Accepted,
    Answer,
    Hello,
    Message,
    Query,
    Ready,
    Renew,
    Run,
    Serve,
    Submit,
    Welcome,
)

M = TypeVar("M", bound=Message)

TOKENS = {role: f"{role}-token-0123456789" for role in ("client", "worker", "admin")}
PATIENCE_SECONDS = 8.0


def new_id() -> str:
    """A fresh run id."""
    return uuid.uuid4().hex


async def dial(address: str, *, token: str = "", headers: dict[str, str] | None = None) -> ClientConnection:
    """Open a websocket to a ``ws+unix://`` or ``ws://`` address."""
    sent = dict(headers or {})
    if token:
        sent["Authorization"] = f"Bearer {token}"
    options: dict[str, Any] = {
        "subprotocols": [PROTOCOL_NAME],
        "additional_headers": sent,
        "compression": None,
        "ping_interval": None,
        "max_size": 1 << 20,
    }
    if address.startswith("ws+unix://"):
        return await unix_connect(address.removeprefix("ws+unix://"), "ws://localhost/", **options)
    return await connect(address, proxy=None, **options)


class RawPeer:
    """A websocket and what has arrived on it, in order."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.inbox: list[Message] = []
        self.seen: list[Message] = []

    async def send(self, *messages: Message) -> None:
        """Send messages as one frame."""
        await self.ws.send(encode_frame(messages))

    async def expect(self, cls: type[M], where: Callable[[M], object] | None = None) -> M:
        """The first message of a class (and a condition) that arrives; others are kept.

        Raises:
            AssertionError: It did not come, or the connection was closed.
        """
        at = 0
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    while at < len(self.inbox):
                        message = self.inbox[at]
                        if isinstance(message, cls) and (where is None or where(message)):
                            return self.inbox.pop(at)  # pyright: ignore[reportReturnType]
                        at += 1
                    await self._receive()
        except TimeoutError:
            raise AssertionError(f"No {cls.__name__} came, only {self.inbox}") from None
        except ConnectionClosed as exc:
            raise AssertionError(f"No {cls.__name__} came, but {exc}; {self.inbox}") from None

    async def _receive(self) -> None:
        messages = decode_frame(await self.ws.recv(decode=False))
        self.inbox += messages
        self.seen += messages

    async def closed(self) -> int:
        """Wait for the end of the connection; returns its close code."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                while True:
                    await self._receive()
            except ConnectionClosed:
                return self.ws.close_code or 0

    async def settle(self) -> None:
        """Have the broker answer everything sent so far (by a question that it answers last)."""
        await self.send(Query(999, "run", "f" * 32))
        await self.expect(Answer, lambda answer: answer.request == 999)

    @asynccontextmanager
    async def beating(self, seconds: float, runs: Sequence[Run] = ()) -> AsyncIterator[None]:
        """Send a RENEW with the leases of these runs every so often, meanwhile."""

        async def beat() -> None:
            while True:
                await self.send(Renew(0, [[run.run_id, run.token] for run in runs]))
                await asyncio.sleep(seconds)

        task = asyncio.create_task(beat())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def drop(self) -> None:
        """Cut the connection without a word."""
        if self.ws.state is not State.CLOSED:
            self.ws.transport.abort()

    # -- what most tests begin with -------------------------------------------------------------------

    async def hello(self, role: str, namespace: str, session: str = "", secret: bytes = b"") -> Welcome:
        await self.send(Hello(PROTOCOL_MINOR, role, namespace, session, secret))
        return await self.expect(Welcome)

    async def serve(self, *task_keys: str, limit: int = 0) -> None:
        await self.send(Serve(list(task_keys)), Ready(limit))

    async def submit(self, task_key: str = "tasks.add", *, run_id: str = "", **fields: Any) -> str:
        """Submit a run and wait until it is accepted; returns its id."""
        run_id = run_id or new_id()
        await self.send(Submit(run_id, task_key, fields.pop("body", b"body"), **fields))
        await self.expect(Accepted, lambda message: run_id in message.run_ids)
        return run_id

    async def runs(self, count: int) -> list[Run]:
        """Wait for so many RUNs."""
        return [await self.expect(Run) for _ in range(count)]
