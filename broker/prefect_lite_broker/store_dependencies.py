"""What the broker does about runs that wait for others: one script each, in one shard each.

Every call takes many runs, at most ``RUNS_PER_CALL`` of them to a script, and may be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from prefect_lite.protocol.messages import Submit

from .lanes import PARENT_BYTES, RUNS_PER_CALL, pack
from .records import read_state
from .shard_calls import ShardCalls, to_ms
from .store import DueWork, EndedRun, Resolved, Settlement, SubmitDone, SubmitReply

T = TypeVar("T")

RECHECKS = 5
"""A confirmed registration is confirmed again after so many times ``unknown_parent_seconds``: the node that
had it may have lost its last second."""

DUE_RUNS = 100
DUE_PARENTS = 1000
DUE_LEASE_MS = 2000
"""What a service takes at a time, and how long nobody else takes it."""


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in order, so many at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


class DependencyCalls(ShardCalls):
    """The five steps; ``dependencies.py`` makes them."""

    async def _many(
        self, name: str, head: Sequence[Any], ops: Sequence[tuple[str, Sequence[Any]]]
    ) -> list[Any]:
        """One script for operations of (run, arguments), in the shard of each run; replies per call."""
        groups: dict[int, list[int]] = {}
        for at, (run_id, _) in enumerate(ops):
            groups.setdefault(self.shard_of(run_id), []).append(at)
        calls = [(shard, part) for shard, places in groups.items() for part in batched(places, RUNS_PER_CALL)]
        replies = await asyncio.gather(
            *(
                self.script(name, shard, *head, *(word for at in part for word in ops[at][1]))
                for shard, part in calls
            )
        )
        answers: list[Any] = [None] * len(ops)
        for (_, part), reply in zip(calls, replies, strict=True):
            if isinstance(reply, list):
                for at, answer in zip(part, reply, strict=True):
                    answers[at] = answer
        return answers

    def blocked(self, msg: Submit, done: SubmitDone) -> tuple[int, SubmitDone]:
        """The bytes that the parents of a submit weigh, and what its reply is to be handed to."""
        return PARENT_BYTES * (len(msg.parents) + len(msg.tolerated)), partial(self._stored, msg, done)

    def _stored(self, msg: Submit, done: SubmitDone, reply: SubmitReply) -> None:
        done(reply)
        if reply.status == "accepted":
            self.on_blocked(msg.run_id, list(dict.fromkeys([*msg.parents, *msg.tolerated])))

    async def watch_parents(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        """Register (parent, child) pairs.

        Returns:
            For each how the parent ended, "" if it has not: state letter and name, as ``resolve`` takes it.
        """
        wait = to_ms(self.settings.unknown_parent_seconds)
        ops = [(parent, (parent, child)) for parent, child in pairs]
        return [outcome.decode() for outcome in await self._many("watch_parent", (wait,), ops)]

    async def resolve(self, outcomes: Sequence[tuple[str, str, str]]) -> list[Resolved]:
        """Tell blocked runs how one of those they wait for ended: (child, parent, outcome) each."""
        if not outcomes:
            return []
        head = (self.backlogs[0].call.sender, self.result_ttl, self.idempotency)
        ops = [(outcome[0], outcome) for outcome in outcomes]
        found: list[Resolved] = []
        for (child, parent, _), (word, text, fields) in zip(
            outcomes, await self._many("resolve", head, ops), strict=True
        ):
            state = read_state(child, fields) if fields else None
            key = text.decode() if word == b"r" else ""
            delay = text / 1000 if word == b"d" else 0.0
            found.append(Resolved(child, parent, _RESOLVED[word], key, delay, state))
        return found

    async def ended(self, run_ids: Sequence[str], limit: int = RUNS_PER_CALL) -> list[EndedRun]:
        """What is left to do for runs that have ended; those that have not are left out.

        Args:
            run_ids: The runs.
            limit: Children and parents at most, for each call.
        """
        replies = await self._many("ended", (limit,), [(run_id, (run_id,)) for run_id in run_ids])
        found: list[EndedRun] = []
        for run_id, reply in zip(run_ids, replies, strict=True):
            if reply:
                outcome, parents, *words = reply
                ids = [word.decode() for word in words]
                found.append(EndedRun(run_id, outcome.decode(), ids[:parents], ids[parents:]))
        return found

    async def settle(self, settlements: Sequence[Settlement]) -> list[str]:
        """Note what has been done; returns the runs that have ended and for which more is left to do."""
        if not settlements:
            return []
        ops = [(settlement.run_id, (pack(settlement),)) for settlement in settlements]
        replies = await self._many("settle", (self.result_ttl,), ops)
        return [settlement.run_id for settlement, more in zip(settlements, replies, strict=True) if more]

    async def wired(self, run_ids: Sequence[str]) -> None:
        """These runs are registered with all they wait for."""
        later = to_ms(RECHECKS * self.settings.unknown_parent_seconds)
        await self._many("wired", (later,), [(run_id, (run_id,)) for run_id in run_ids])

    async def waits(
        self, run_ids: Sequence[str], *, times_only: bool = False
    ) -> dict[str, tuple[int, list[str]]]:
        """When the blocked ones of these were submitted (ms), and what they wait for.

        Args:
            run_ids: The runs.
            times_only: Leave out what they wait for, which may be 10,000 others each.
        """
        head = ("times" if times_only else "all",)
        replies = await self._many("waits", head, [(run_id, (run_id,)) for run_id in run_ids])
        return {
            run_id: (reply[0], [word.decode() for word in reply[1:]])
            for run_id, reply in zip(run_ids, replies, strict=True)
            if reply
        }

    async def due_dependencies(self, shard: int) -> DueWork:
        """Take over what nobody seems to be seeing to in a shard."""
        unknown = self.settings.unknown_parent_seconds
        more, count, *words = await self.script(
            "due", shard, DUE_RUNS, DUE_LEASE_MS, DUE_PARENTS, to_ms(unknown), to_ms(RECHECKS * unknown)
        )
        ended = [word.decode() for word in words[:count]]
        blocked = [(ids[0].decode(), [word.decode() for word in ids[1:]]) for ids in words[count:]]
        return DueWork(bool(more), ended, blocked)


_RESOLVED = {b"w": "waits", b"r": "ready", b"d": "delayed", b"f": "failed", b"e": "ended"}
