"""Sessions in the Redis store: leases, epochs and what a worker holds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from prefect_lite.exceptions import StoreUnavailable

from .lanes import pack
from .shard_calls import ShardCalls, to_ms
from .store import RenewReply, Resumed

RESUME_TRIES = 2
"""A resume that was overtaken is made once more. If it is overtaken again, the worker that is really there
will come again; a connection that nobody reads will not."""

_STATUS = {b"o": "ok", b"m": "moved", b"u": "unknown"}


class SessionCalls(ShardCalls):
    """A session has an epoch in every shard; all of them are kept equal."""

    async def open_session(self, session: str, digest: bytes, info: dict[str, Any]) -> int:
        lease = to_ms(self.settings.lease_seconds)
        return max(await self.each("open_session", session, digest, pack(info), lease))

    async def resume_session(
        self, session: str, digest: bytes, info: dict[str, Any] | None = None
    ) -> Resumed | None:
        """Take a session over; None when no shard knows it, or the secret is another one.

        Safe to be cut anywhere and begun again, here or by another broker: the first shard gives each call
        an epoch of its own, and where a later one was faster this one has ``moved``.

        Args:
            session: Its id.
            digest: Of its secret.
            info: For shards that know it no more while others do.
        """
        packed = pack(info or {})
        floor = 0
        for _ in range(RESUME_TRIES):
            first = await self._resume_first(session, digest, packed, floor)
            if first is None:
                return None
            epoch: int = first[1]
            replies = [first, *await self._resume(range(1, self.shards), session, digest, epoch, packed)]
            ahead = [reply[1] for reply in replies if reply[0] == b"m"]
            if not ahead:
                words = [word.decode() for reply in replies for word in reply[2:]]
                return Resumed(epoch, [words[i : i + 2] for i in range(0, len(words), 2)])
            # A later resume, or a first shard that has lost data: only an epoch above all tells.
            floor = max(ahead)
        return Resumed(0, [], moved=True)

    async def _resume_first(self, session: str, digest: bytes, packed: bytes, floor: int) -> Any:
        """The first shard chooses the epoch; one that knows the session no more asks the others first."""
        (reply,) = await self._resume((0,), session, digest, 0, b"", floor)
        if reply[0] == b"u":
            others = await self._resume(range(1, self.shards), session, digest, -1, b"")
            known = [other[1] for other in others if other[0] == b"o"]
            if not known:
                return None
            (reply,) = await self._resume((0,), session, digest, 0, packed, max(known))
        return None if reply[0] == b"u" else reply

    async def _resume(
        self, shards: Iterable[int], session: str, digest: bytes, epoch: int, packed: bytes, floor: int = 0
    ) -> list[Any]:
        lease = to_ms(self.settings.lease_seconds)
        return await asyncio.gather(
            *(
                self.script("resume_session", shard, session, digest, epoch, lease, packed, floor)
                for shard in shards
            )
        )

    async def serve(self, session: str, epoch: int, task_keys: list[str]) -> str:
        return _worst(await self.each("serve", session, epoch, pack(task_keys)))

    async def renew(self, session: str, epoch: int, held: list[list[str]]) -> RenewReply:
        """Shards that are away hold up no other: the leases there would be lost.

        Raises:
            StoreUnavailable: Not all were renewed.
        """
        lease = to_ms(self.settings.lease_seconds)
        by_shard: list[list[str]] = [[] for _ in range(self.shards)]
        for run_id, token in held:
            by_shard[self.shard_of(run_id)] += (run_id, token)
        outcomes = await self.apart(
            lambda shard: self.script("renew", shard, session, epoch, lease, *by_shard[shard])
        )
        away = [outcome for outcome in outcomes if isinstance(outcome, StoreUnavailable)]
        replies: list[Any] = [outcome for outcome in outcomes if not isinstance(outcome, StoreUnavailable)]
        status = _worst([reply[0] for reply in replies])
        if away and status == "ok":
            raise away[0]
        revoked: list[list[str]] = []
        cancelling: list[list[str]] = []
        for reply in replies:
            words = [word.decode() for word in reply[2:]]
            pairs = [words[i : i + 2] for i in range(0, len(words), 2)]
            revoked += pairs[: reply[1]]
            cancelling += pairs[reply[1] :]
        return RenewReply(status, revoked, cancelling)

    async def disconnect(self, session: str, epoch: int) -> None:
        await self.each("disconnect", session, epoch, to_ms(self.settings.disconnect_grace_seconds))

    async def close_session(self, session: str, epoch: int) -> list[str]:
        """Returns the task keys that have work again."""
        ready: set[str] = set()
        for shard in range(self.shards):
            more = 1
            while more:
                more, *words = await self.script(
                    "close_session",
                    shard,
                    session,
                    epoch,
                    self.result_ttl,
                    self.idempotency,
                )
                ready.update(word.decode() for word in words)
        return sorted(ready)


def _worst(statuses: list[bytes]) -> str:
    """One answer for all shards: unknown beats moved beats ok."""
    for word in (b"u", b"m"):
        if word in statuses:
            return _STATUS[word]
    return "ok"
