"""Questions about queues, sessions, logs and dead runs."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgpack

from prefect_lite.protocol.messages import RunState

from .records import read_state
from .shard_calls import ShardCalls


class QuestionCalls(ShardCalls):
    """Rare and read-only, but for the dead set."""

    async def stats(self) -> dict[str, Any]:
        """Figures over all shards.

        Returns:
            ``sessions``, ``delayed``, ``dead``, ``held``, ``blocked`` counts; ``queues``: a list of
            ``task_key``, ``lane`` ("0" to "9", or "s" and "z" for suspects), ``length``, ``oldest_seconds``
            since the head was submitted.
        """
        replies = await self.each("stats")
        queues: dict[str, list[float]] = {}
        for _, _, _, _, now, _, *words in replies:
            for i in range(0, len(words), 3):
                age = max(0.0, (now - words[i + 2]) / 1000) if words[i + 2] else 0.0
                entry = queues.setdefault(words[i].decode(), [0, 0.0])
                entry[0] += words[i + 1]
                entry[1] = max(entry[1], age)
        return {
            "sessions": max(reply[0] for reply in replies),
            "delayed": sum(reply[1] for reply in replies),
            "dead": sum(reply[2] for reply in replies),
            "held": sum(reply[3] for reply in replies),
            "blocked": sum(reply[5] for reply in replies),
            "queues": [
                {"task_key": q[:-2], "lane": q[-1], "length": int(length), "oldest_seconds": age}
                for q, (length, age) in sorted(queues.items())
            ],
        }

    async def sessions(self) -> list[dict[str, Any]]:
        """Every session.

        Returns:
            Each with ``session``, ``expires_in_seconds`` of its lease, ``epoch``, ``task_keys``, ``info``,
            ``opened_ms``, and ``held``: runs in all shards.
        """
        found: dict[str, dict[str, Any]] = {}
        for shard in range(self.shards):
            skip, page = 0, 100
            while page == 100:
                now, *words = await self.script("sessions", shard, skip)
                page = len(words) // 7
                skip += page
                for i in range(0, len(words), 7):
                    _add_session(found, now, words[i : i + 7])
        return list(found.values())

    async def served_keys(self) -> dict[str, int]:
        """Task key to the number of sessions that serve it."""
        served: dict[str, int] = {}
        for session in await self.sessions():
            for key in session["task_keys"]:
                served[key] = served.get(key, 0) + 1
        return served

    async def why(self, run_id: str) -> dict[str, Any]:
        """What a run waits for.

        Returns:
            ``state`` (a RunState), ``served`` (sessions that serve its key), and for a ready run ``ahead``
            (runs before it, -1: more than 100,000), ``length`` and ``lane``; for a delayed one
            ``due_in_seconds``; for a blocked one ``parents_left`` (how many it waits for) and ``parents``
            ([id, state name] of the first few, "" when there is no record).
        """
        reply = await self.script("why", self.shard_of(run_id), run_id)
        if not reply:
            return {"state": RunState(run_id), "served": 0}
        fields, place, length, now, lane, left, *parents = reply
        state = read_state(run_id, fields)
        answer: dict[str, Any] = {"state": state, "served": (await self.served_keys()).get(state.task_key, 0)}
        if fields[0] == b"R":
            answer.update(ahead=place, length=length, lane=lane.decode())
        elif fields[0] == b"D":
            answer["due_in_seconds"] = max(0.0, (state.due_ms - now) / 1000)
        elif fields[0] == b"B":
            answer["parents_left"] = left
            answer["parents"] = await self._parents([parent.decode() for parent in parents])
        return answer

    async def _parents(self, run_ids: list[str]) -> list[list[str]]:
        """Id and state name of each; the name is "" when there is no record."""
        replies = await asyncio.gather(
            *(self.script("lookup", self.shard_of(run_id), 1, run_id) for run_id in run_ids)
        )
        return [
            [run_id, read_state(run_id, reply[0]).name]
            for run_id, reply in zip(run_ids, replies, strict=True)
        ]

    async def read_log(self, run_id: str) -> list[list[Any]]:
        shard = self.shard_of(run_id)
        lines = await self.command(
            "LRANGE", self.prefixes[shard] + f"log:{run_id}".encode(), 0, -1, shard=shard
        )
        return [msgpack.unpackb(line) for line in lines]

    async def dead_list(self, limit: int) -> list[RunState]:
        """The newest dead runs of all shards."""
        states = [
            read_state(reply[i].decode(), reply[i + 1])
            for reply in await self.each("dead_list", limit)
            for i in range(0, len(reply), 2)
        ]
        return sorted(states, key=lambda state: -state.ended_ms)[:limit]

    async def dead_show(self, run_id: str) -> tuple[bool, str]:
        """Whether a run is among the dead, and the worker it was lost on last ("": not known)."""
        shard = self.shard_of(run_id)
        prefix = self.prefixes[shard]
        score = await self.command("ZSCORE", prefix + b"dead", run_id, shard=shard)
        worker = await self.command("HGET", prefix + f"r:{run_id}".encode(), "lw", shard=shard)
        return score is not None, worker.decode("utf-8", "replace") if worker else ""

    async def dead_replay(self, run_id: str) -> bool:
        return bool(await self.script("dead_replay", self.shard_of(run_id), run_id, os.urandom(8)))

    async def dead_drop(self, run_id: str) -> bool:
        shard = self.shard_of(run_id)
        return bool(await self.script("dead_drop", shard, run_id, self.result_ttl, os.urandom(8)))


def _add_session(found: dict[str, dict[str, Any]], now: int, words: list[Any]) -> None:
    session, deadline, epoch, task_keys, info, opened, held = words
    entry = found.setdefault(
        session.decode(),
        {
            "session": session.decode(),
            "expires_in_seconds": (float(deadline) - now) / 1000,
            "epoch": int(epoch),
            "task_keys": msgpack.unpackb(task_keys) if task_keys else [],
            "info": msgpack.unpackb(info) if info else {},
            "opened_ms": int(opened),
            "held": 0,
        },
    )
    entry["held"] += held
