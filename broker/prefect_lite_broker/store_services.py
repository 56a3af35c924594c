"""What the broker's services call: reaping, promoting, retention."""

from __future__ import annotations

from collections.abc import Callable

from prefect_lite.protocol.messages import RunState

from .records import read_state, unblocks
from .shard_calls import ShardCalls, to_ms
from .store import LeaseEvent, PromoteReply

SERVICE_LIMIT = 100
"""Runs that one call of a service may touch."""

RETENTION_LIMIT = 1000
"""Entries that one call of retention may look at; each costs less than a run."""

OVER_LIMIT = 500
"""Runs that one call looks at to see whether they have ended."""

GAP_MS = 3000
GAP_LOOKS = 3
"""The reaper has not looked for so long, or for so many intervals: nobody can be blamed for not renewing."""


class ServiceCalls(ShardCalls):
    """Each call goes on until nothing is left to do in any shard that answers; only if none does, it raises
    ``StoreUnavailable``."""

    async def reap(self, tell: Callable[[LeaseEvent], None]) -> None:
        """``tell`` gets the events after each call, so that a later one that fails takes none with it."""
        settings = self.settings
        args = (
            to_ms(settings.lease_seconds),
            settings.max_lost,
            settings.suspect_group_max,
            SERVICE_LIMIT,
            self.result_ttl,
            self.idempotency,
            settings.max_dead,
            max(GAP_MS, to_ms(GAP_LOOKS * settings.reap_seconds)),
        )

        async def reap(shard: int) -> None:
            more = 1
            while more:
                more, *words = await self.script("reap", shard, *args)
                for i in range(0, len(words), 6):
                    run_id, task_key, session, outcome = (word.decode() for word in words[i : i + 4])
                    state = read_state(run_id, words[i + 5]) if words[i + 5] else None
                    if unblocks(words[i + 5]):
                        self.on_unblocked(run_id)
                    tell(LeaseEvent(run_id, task_key, session, outcome, words[i + 4], state))

        # A shard that is away must not make a gap in the looks at the others: it would spare everybody there.
        await self.wherever(reap)

    async def promote(self) -> PromoteReply:
        ready: set[str] = set()
        ended: list[RunState] = []

        async def promote(shard: int) -> int:
            due_ms = 0
            while due_ms == 0:
                due_ms, count, *words = await self.script(
                    "promote", shard, SERVICE_LIMIT, self.result_ttl, self.idempotency
                )
                ready.update(word.decode() for word in words[:count])
                for i in range(count, len(words), 2):
                    ended.append(read_state(words[i].decode(), words[i + 1]))
                    if unblocks(words[i + 1]):
                        self.on_unblocked(ended[-1].run_id)
            return due_ms

        soonest = min((due_ms for due_ms in await self.wherever(promote) if due_ms > 0), default=-1000)
        return PromoteReply(sorted(ready), ended, soonest / 1000)

    async def over(self, run_ids: list[str]) -> list[str]:
        """Those of the runs that have ended; costs much less than a lookup."""
        by_shard: dict[int, list[str]] = {}
        for run_id in run_ids:
            by_shard.setdefault(self.shard_of(run_id), []).append(run_id)
        found: list[str] = []

        async def over(shard: int) -> None:
            ids = by_shard[shard]
            for i in range(0, len(ids), OVER_LIMIT):
                reply = await self.script("over", shard, *ids[i : i + OVER_LIMIT])
                found.extend(word.decode() for word in reply)

        await self.wherever(over, by_shard)
        return found

    async def retention(self) -> int:
        """Returns how many entries were removed."""

        async def retention(shard: int) -> int:
            more, removed = 1, 0
            while more:
                more, count = await self.script(
                    "retention", shard, self.settings.max_dead, self.result_ttl, RETENTION_LIMIT
                )
                removed += count
            return removed

        return sum(await self.wherever(retention))

    async def advance(self, seconds: float) -> None:
        """For test suites: as if so much time had passed, except for leases. Looks at every key."""
        await self.each("advance", to_ms(seconds))

    async def waiting(self) -> int:
        """Runs that are ready, delayed or blocked, in all shards."""
        return sum(await self.each("waiting"))
