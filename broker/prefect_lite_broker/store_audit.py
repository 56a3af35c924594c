"""The audit in the Redis store: a slice of each shard at a time, in a pass that all brokers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .shard_calls import ShardCalls, to_ms
from .store import Repair

SLICE_KEYS = 200
"""Keys that a slice looks at, about two for each run."""
SLICE_LOOKS = 50_000
"""Entries of ready lists that a slice looks through."""


class AuditCalls(ShardCalls):
    """Counts what this broker has looked at and repaired."""

    audited = 0
    repaired = 0

    async def audit(self, tell: Callable[[Repair], None]) -> None:
        """One slice in each shard, unless another broker made one less than ``audit_seconds`` ago.

        ``tell`` gets what was repaired; see ``scripts/audit.lua`` for the kinds.
        """
        least = to_ms(self.settings.audit_seconds)
        terms = self.result_ttl, self.idempotency, to_ms(self.settings.lease_seconds)

        async def audit(shard: int) -> None:
            _, _, looked, _, *words = await self.script(
                "audit", shard, least, "", SLICE_KEYS, SLICE_LOOKS, *terms
            )
            self.audited += looked
            for i in range(0, len(words), 2):
                self.repaired += 1
                tell(Repair(words[i].decode(), words[i + 1].decode(), shard))

        await self.wherever(audit)

    async def audit_totals(self) -> dict[str, int]:
        """What all brokers have done, over all shards.

        Returns:
            ``passes`` completed (in the shard with the fewest), ``repaired`` since the namespace was made,
            and of the last complete pass ``runs`` and ``undecided``: runs in lists too long to look through.
        """
        totals = {"passes": 0, "repaired": 0, "runs": 0, "undecided": 0}
        passes: list[int] = []
        fields = ("passes", "repaired", "last_runs", "last_undecided")
        for shard, prefix in enumerate(self.prefixes):
            values: list[Any] = await self.command("HMGET", prefix + b"audit", *fields, shard=shard)
            passes.append(int(values[0] or 0))
            for name, value in zip(("repaired", "runs", "undecided"), values[1:], strict=True):
                totals[name] += int(value or 0)
        totals["passes"] = min(passes)
        return totals
