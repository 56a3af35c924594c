"""Listens to the wake-up hints of other brokers, and knows whether there are any.

A hint may always be lost; whoever relies on one also polls. While this broker is alone, its scripts publish
nothing (``on_peers(False)``).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, RedisError

from .connect import pack_command, send
from .store import Hints

logger = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
SILENT_CHECKS = 10


class HintListener:
    """One subscribed connection for channels of one server.

    Args:
        dial: Makes a connected connection.
        doubt: Told of errors: perhaps another server is the right one now.
        channels: The ``ev`` channels; in a cluster one only, as they may part.
        broker_id: Own hints are skipped by it.
        hints: Who is told.
        count_listeners: Asks Redis how many brokers are subscribed; None if another listener does.
        on_peers: Told whether other brokers listen.
    """

    def __init__(
        self,
        dial: Callable[[], Awaitable[AbstractConnection]],
        doubt: Callable[[BaseException], None],
        channels: list[bytes],
        broker_id: str,
        hints: Hints,
        count_listeners: Callable[[], Awaitable[int]] | None,
        on_peers: Callable[[bool], None],
    ) -> None:
        self._dial = dial
        self._doubt = doubt
        self._channels = channels
        self._broker_id = broker_id
        self._hints = hints
        self._count_listeners = count_listeners
        self._on_peers = on_peers
        self._heard = 0
        self.subscribed = asyncio.Event()

    async def run(self) -> None:
        """For ever; cancel to stop."""
        lost = False
        while True:
            connection: AbstractConnection | None = None
            try:
                connection = await self._dial()
                await self._subscribe(connection)
                if lost:
                    self._hints.on_hints_lost()
                lost = False
                self.subscribed.set()
                await self._listen(connection)
            except (RedisError, OSError, TimeoutError) as exc:
                if not lost:
                    logger.info("hints are interrupted: %s", exc, extra={"action": "hints"})
                lost = True
                self.subscribed.clear()
                self._doubt(exc)
            finally:
                if connection is not None:
                    await connection.disconnect(nowait=True)
            await asyncio.sleep(random.uniform(0.05, 0.5))

    async def _subscribe(self, connection: AbstractConnection) -> None:
        async with asyncio.timeout(CHECK_SECONDS * SILENT_CHECKS):
            await send(connection, pack_command(("SSUBSCRIBE", *self._channels)))
            for _ in self._channels:
                await connection.read_response()

    async def _listen(self, connection: AbstractConnection) -> None:
        silent = 0
        check_at = 0.0
        clock = asyncio.get_running_loop().time
        while True:
            # By the clock, not by silence: a broker that is alone hears its own hints all the time.
            if clock() >= check_at:
                await self._check_peers()
                check_at = clock() + CHECK_SECONDS
            message: Any = await connection.read_response(timeout=CHECK_SECONDS)
            if message is None:
                silent += 1
                if silent > SILENT_CHECKS:
                    raise TimeoutError("no answer on the hint connection")
                await send(connection, pack_command(("PING",)))
                continue
            silent = 0
            if message[0] == b"smessage":
                self._tell(message[2])
            elif message[0] == b"sunsubscribe":  # by the server
                raise ConnectionError("the slot of the channel has moved to another node")

    async def _check_peers(self) -> None:
        if self._count_listeners is None:
            return
        heard = self._heard
        listeners = await self._count_listeners()
        if heard == self._heard:
            self._on_peers(listeners > 1)

    def _tell(self, packed: bytes) -> None:
        try:
            sender, kind, items = msgpack.unpackb(packed)
        except (ValueError, TypeError) as exc:
            logger.warning("unreadable hint skipped: %s", exc, extra={"action": "hints"})
            return
        if sender == self._broker_id:
            return
        if sender:
            self._heard += 1
            self._on_peers(True)
        try:
            if kind == "e":
                self._hints.on_ended(items)
            elif kind == "r":
                self._hints.on_ready(items)
            elif kind == "c":
                self._hints.on_cancel(*items)
        except Exception:
            # A listener that dies of one hint would never hear the next.
            logger.critical("a hint could not be handed on", exc_info=True)
