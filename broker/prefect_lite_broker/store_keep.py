"""What is kept by name: cache entries, locks and saved blocks.

An entry and the lock of the same key are in one shard, which the key chooses; all blocks are in the first.
Bodies are opaque. Every call may be repeated.
"""

from __future__ import annotations

from prefect_lite.protocol.kept_things import MAX_BLOCKS, BlockName, Drop, Hold, Put

from . import keys
from .shard_calls import ShardCalls, to_ms

MARK_WAITS = 2
"""The mark of a question stays for so many times the time in which whoever asks it gives up."""


class KeepCalls(ShardCalls):
    """Rare beside the life of runs, and perhaps large: a lane of its own, bounded in each pipeline."""

    async def keep_get(self, key: str, most: int) -> bytes | int | None:
        """An entry's body, or its length if that is over ``most``; None when there is none."""
        idle = to_ms(self.settings.cache_idle_seconds)
        return await self.weighed("keep_get", self._place(key), key, idle, b"%d" % most, weight=most)

    async def keep_put(self, put: Put, body: bytes) -> bool:
        """Write an entry; False when the lock is not that of ``put.fence``."""
        kind, seconds = ("f", put.ttl_seconds) if put.ttl_seconds else ("s", self.settings.cache_idle_seconds)
        words = (put.key, put.fence, kind, max(1, to_ms(seconds)), put.mark, self._mark_ms, body)
        return bool(await self.weighed("keep_put", self._place(put.key), *words, weight=len(body)))

    async def keep_has(self, key: str) -> bool:
        shard = self._place(key)
        return bool(await self.command("EXISTS", self._name(shard, "keep", key), shard=shard))

    async def keep_drop(self, key: str) -> bool:
        """Remove an entry; whether there was one."""
        shard = self._place(key)
        return bool(await self.command("UNLINK", self._name(shard, "keep", key), shard=shard))

    async def lock_take(self, hold: Hold) -> bool:
        ms = max(1, to_ms(hold.seconds))
        return bool(await self.script("lock_take", self._place(hold.key), hold.key, hold.holder, ms))

    async def lock_renew(self, hold: Hold) -> bool:
        ms = max(1, to_ms(hold.seconds))
        return bool(await self.script("lock_renew", self._place(hold.key), hold.key, hold.holder, ms))

    async def lock_drop(self, drop: Drop) -> bool:
        words = (drop.key, drop.holder, drop.mark, self._mark_ms)
        return bool(await self.script("lock_drop", self._place(drop.key), *words))

    async def lock_look(self, key: str) -> str | None:
        """Who has a lock."""
        shard = self._place(key)
        holder = await self.command("HGET", self._name(shard, "lock", key), "h", shard=shard)
        return None if holder is None else holder.decode()

    async def block_put(self, block: BlockName, document: bytes) -> int:
        """Save a block: 1, or 0 when there is one, -1 when there are ``MAX_BLOCKS``."""
        words = (block.path, int(block.overwrite), block.mark, self._mark_ms, MAX_BLOCKS, document)
        return await self.weighed("block_put", 0, *words, weight=len(document))

    async def block_size(self, block: BlockName) -> int:
        """Bytes of a saved block's document; 0 when there is none."""
        return await self.command("HSTRLEN", self.prefixes[0] + b"blocks", block.path)

    async def block_get(self, block: BlockName) -> bytes | None:
        return await self.command("HGET", self.prefixes[0] + b"blocks", block.path)

    async def block_list(self) -> list[str]:
        """``slug/name`` of all, in order."""
        return sorted(path.decode() for path in await self.command("HKEYS", self.prefixes[0] + b"blocks"))

    async def block_drop(self, block: BlockName) -> bool:
        """Remove a block; whether it was there."""
        return bool(await self.script("block_drop", 0, block.path, block.mark, self._mark_ms))

    @property
    def _mark_ms(self) -> int:
        return to_ms(MARK_WAITS * self.settings.keep_wait_seconds)

    def _place(self, key: str) -> int:
        return keys.shard_of_key(key, self.shards)

    def _name(self, shard: int, kind: str, key: str) -> bytes:
        return self.prefixes[shard] + f"{kind}:{key}".encode()
