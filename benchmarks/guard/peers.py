"""A client and a worker that do exactly what they are told, in threads that are not counted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from benchmarks.guard.seams import seam

UP_SECONDS = 20.0


class Peer:
    """One connection to the broker.

    Args:
        role: ``client`` or ``worker``.
        settings: Where the broker is.
        task_keys: What a worker serves; it grants no credit by itself.

    Attributes:
        session: The protocol session; touch it inside ``do`` only.
    """

    def __init__(self, role: str, settings: Any, task_keys: tuple[str, ...] = ()) -> None:
        self.session = seam("prefect_lite.protocol.peer_session", "PeerSession")(
            role, settings.namespace, max_payload_bytes=settings.max_payload_bytes
        )
        if role == "worker":
            self.session.serve(task_keys)
        self._settings, self._role = settings, role
        self._messages: list[Any] = []
        self._up = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._connection: Any = None
        self._thread = threading.Thread(target=self._run, name=f"guard-{role}", daemon=True)
        self._thread.start()
        if not self._up.wait(UP_SECONDS):
            raise TimeoutError(f"The guard's {role} got no connection.")

    @property
    def ident(self) -> int | None:
        """Of its thread."""
        return self._thread.ident

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._connection = seam("prefect_lite.client.connection", "BrokerConnection")(
            self.session,
            self._settings,
            self._role,
            on_messages=self._messages.extend,
            on_up=lambda _welcome: self._up.set(),
            on_down=lambda _fault: None,
        )
        await self._connection.run()

    def do(self, action: Callable[[], object]) -> None:
        """Have the session do something, and send what that made in one go."""

        def act() -> None:
            action()
            self._connection.schedule_flush()

        self._loop.call_soon_threadsafe(act)

    def has(self, kind: type[Any], count: int) -> bool:
        """Whether so many messages of a class have come since the last ``took``."""
        return sum(type(message) is kind for message in [*self._messages]) >= count

    def took(self, kind: type[Any]) -> list[Any]:
        """The messages of a class that have come since the last call; others are dropped."""
        messages = [message for message in self._messages if type(message) is kind]
        self._messages.clear()
        return messages

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._connection.aclose(), self._loop)
        self._thread.join(5.0)
