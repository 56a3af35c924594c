"""What the broker's services call: reaping, promoting, retention."""

from __future__ import annotations

from prefect_lite.protocol.messages import RunState

from .records import read_state
from .shard_calls import ShardCalls, to_ms
from .store import LeaseEvent, PromoteReply

SERVICE_LIMIT = 100
"""Runs that one call of a service may touch."""


class ServiceCalls(ShardCalls):
    """Each call goes on until nothing is left to do in any shard."""

    async def reap(self) -> list[LeaseEvent]:
        settings = self.settings
        args = (
            to_ms(settings.lease_seconds),
            settings.max_lost,
            settings.suspect_group_max,
            SERVICE_LIMIT,
            self.result_ttl,
            self.idempotency,
            settings.max_dead,
        )
        events: list[LeaseEvent] = []
        for shard in range(self.shards):
            more = 1
            while more:
                more, *words = await self.script("reap", shard, *args)
                for i in range(0, len(words), 6):
                    run_id, task_key, session, outcome = (word.decode() for word in words[i : i + 4])
                    state = read_state(run_id, words[i + 5]) if words[i + 5] else None
                    events.append(LeaseEvent(run_id, task_key, session, outcome, words[i + 4], state))
        return events

    async def promote(self) -> PromoteReply:
        ready: set[str] = set()
        ended: list[RunState] = []
        soonest = -1.0
        for shard in range(self.shards):
            due_ms = 0
            while due_ms == 0:
                due_ms, count, *words = await self.script(
                    "promote", shard, SERVICE_LIMIT, self.result_ttl, self.idempotency
                )
                ready.update(word.decode() for word in words[:count])
                for i in range(count, len(words), 2):
                    ended.append(read_state(words[i].decode(), words[i + 1]))
            if due_ms > 0 and (soonest < 0 or due_ms < soonest * 1000):
                soonest = due_ms / 1000
        return PromoteReply(sorted(ready), ended, soonest)

    async def retention(self) -> int:
        """Returns how many entries were removed."""
        replies = await self.each("retention", self.settings.max_dead, self.result_ttl, SERVICE_LIMIT)
        return sum(replies)
