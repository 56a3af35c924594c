"""Records of runs: some by id, or all that fit, a slice of the keys at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from .lanes import RUNS_PER_CALL
from .records import RunRecord, read_record
from .shard_calls import ShardCalls
from .store import RunFilter, Slice

SLICE_KEYS = 200
"""Keys that one script call looks at: some 0.3 ms of Redis. Half of them are records; most have a result."""


class RecordCalls(ShardCalls):
    """Read-only, and no index is kept for it: a list looks at every key, in slices."""

    async def read_runs(self, run_ids: Sequence[str]) -> list[RunRecord]:
        """The records of these runs, in no order; those there are none of are left out."""
        groups: dict[int, list[str]] = {}
        for run_id in run_ids:
            groups.setdefault(self.shard_of(run_id), []).append(run_id)
        replies = await asyncio.gather(
            *(
                self.script("runs", shard, "ids", *ids[start : start + RUNS_PER_CALL])
                for shard, ids in groups.items()
                for start in range(0, len(ids), RUNS_PER_CALL)
            )
        )
        return [record for reply in replies for record in _records(reply)]

    async def scan_runs(self, shard: int, position: str, wanted: RunFilter) -> Slice:
        """Those records among the next keys of a shard that fit.

        Args:
            shard: Where to look.
            position: Of the slice; "0" at first.
            wanted: What they have to fit.
        """
        words = (wanted.task_key, wanted.letters, wanted.since_ms, wanted.until_ms)
        reply = await self.script("runs", shard, "scan", position, SLICE_KEYS, *words)
        fitting = [record for record in _records(reply) if wanted.fits(record)]
        following = reply[0].decode()
        return Slice(fitting, None if following == "0" else following)


def _records(reply: list[Any]) -> list[RunRecord]:
    return [read_record(reply[i].decode(), reply[i + 1]) for i in range(1, len(reply), 2)]
