"""Sessions in the Redis store: leases, epochs and what a worker holds."""

from __future__ import annotations

import asyncio
from typing import Any

from .lanes import pack
from .shard_calls import ShardCalls, to_ms
from .store import RenewReply, Resumed

_STATUS = {b"o": "ok", b"m": "moved", b"u": "unknown"}


class SessionCalls(ShardCalls):
    """A session has an epoch in every shard; all of them are kept equal."""

    async def open_session(self, session: str, digest: bytes, info: dict[str, Any]) -> int:
        lease = to_ms(self.settings.lease_seconds)
        return max(await self.each("open_session", session, digest, pack(info), lease))

    async def resume_session(self, session: str, digest: bytes) -> Resumed | None:
        lease = to_ms(self.settings.lease_seconds)
        # The first shard decides the epoch, the others follow.
        first = await self.script("resume_session", 0, session, digest, 0, lease)
        if not first:
            return None
        rest = await asyncio.gather(
            *(
                self.script("resume_session", i, session, digest, first[0], lease)
                for i in range(1, self.shards)
            )
        )
        if not all(rest):
            return None
        words = [word.decode() for reply in (first, *rest) for word in reply[1:]]
        return Resumed(first[0], [words[i : i + 2] for i in range(0, len(words), 2)])

    async def serve(self, session: str, epoch: int, task_keys: list[str]) -> str:
        return _worst(await self.each("serve", session, epoch, pack(task_keys)))

    async def renew(self, session: str, epoch: int, held: list[list[str]]) -> RenewReply:
        lease = to_ms(self.settings.lease_seconds)
        by_shard: list[list[str]] = [[] for _ in range(self.shards)]
        for run_id, token in held:
            by_shard[self.shard_of(run_id)] += (run_id, token)
        replies = await asyncio.gather(
            *(self.script("renew", i, session, epoch, lease, *pairs) for i, pairs in enumerate(by_shard))
        )
        revoked: list[list[str]] = []
        cancelling: list[list[str]] = []
        for reply in replies:
            words = [word.decode() for word in reply[2:]]
            pairs = [words[i : i + 2] for i in range(0, len(words), 2)]
            revoked += pairs[: reply[1]]
            cancelling += pairs[reply[1] :]
        return RenewReply(_worst([reply[0] for reply in replies]), revoked, cancelling)

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
