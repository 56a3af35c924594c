"""How much of what questions and answers carry is in a broker at a time.

Bodies of questions wait for the store: beyond a bound further ones are refused, and asked again. Bodies of
answers wait for whoever asked to read them: a large one is read from the store only when the peer that it is
for keeps up, and all peers together have room.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from prefect_lite_broker.questions import Refusal

if TYPE_CHECKING:
    from prefect_lite_broker.verbs import Outgoing

LARGE_BYTES = 16 * 1024
"""Up to this size a result or body is for everybody at any time: small ones must not wait for deaf peers."""


class _Waiting(NamedTuple):
    size: int
    let_in: asyncio.Future[bool]


class Bodies:
    """The bodies of questions and answers of one broker.

    Args:
        most: Bytes of questions that wait for the store; one alone may have more.
        wait_seconds: For so long an answer waits for room.
        counted: Called with the bytes by which there is more, or less, on its way to peers.
    """

    def __init__(self, most: int, wait_seconds: float, counted: Callable[[int], None]) -> None:
        self.asked = 0
        self._most = most
        self._wait_seconds = wait_seconds
        self._counted = counted
        self._waiting: dict[Outgoing, deque[_Waiting]] = {}

    # -- questions --------------------------------------------------------------------------------

    def take(self, size: int) -> bool:
        """Keep the body of a question until ``give_back``; False: there is no room for it now."""
        if size and self.asked and self.asked + size > self._most:
            return False
        self.asked += size
        return True

    def give_back(self, size: int) -> None:
        """The question is answered."""
        self.asked -= size

    # -- answers ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def room(self, peer: Outgoing, size: int) -> AsyncGenerator[None]:
        """Have room for a body that is for ``peer``: wait for it, and count the body as on its way.

        Raises:
            Refusal: There was none in time, or the peer is gone.
        """
        if peer in self._waiting or not peer.fits(size):
            await self._wait_for(peer, size)
        else:
            self._enter(peer, size)
        try:
            yield
        finally:
            peer.reading -= size
            self._counted(-size)
            # Not at once: what was read counts again when it is handed on, in this turn of the loop.
            asyncio.get_running_loop().call_soon(self.look)

    def waits(self, peer: Outgoing) -> bool:
        """Whether any body for this peer waits for room."""
        return peer in self._waiting

    def look(self) -> None:
        """There may be room again: let in those that fit, the oldest of each peer first."""
        for peer, bodies in [*self._waiting.items()]:
            while bodies and (peer.gone or peer.fits(bodies[0].size)):
                size, let_in = bodies.popleft()
                if not peer.gone:
                    self._enter(peer, size)
                let_in.set_result(not peer.gone)
            if not bodies:
                del self._waiting[peer]

    def _enter(self, peer: Outgoing, size: int) -> None:
        peer.reading += size
        self._counted(size)

    async def _wait_for(self, peer: Outgoing, size: int) -> None:
        waiting = _Waiting(size, asyncio.get_running_loop().create_future())
        bodies = self._waiting.setdefault(peer, deque())
        bodies.append(waiting)
        await asyncio.wait((waiting.let_in,), timeout=self._wait_seconds)
        if not waiting.let_in.done():
            bodies.remove(waiting)
            if not bodies:
                del self._waiting[peer]
        elif waiting.let_in.result():
            return
        raise Refusal("busy", "Peers have too much to read already, and so there is no room for this body.")
