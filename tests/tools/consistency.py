"""State and queue of every run agree: a full pass of the broker's own audit finds nothing to repair."""

from __future__ import annotations

from typing import Any, NamedTuple

import redis
from prefect_lite_broker.scripts import SCRIPTS

DAY_MS = 86_400_000


class Pass(NamedTuple):
    """What a full pass of the audit over one shard came to."""

    runs: int
    undecided: int
    repairs: list[tuple[str, str]]  # kind, run or session


def full_pass(
    client: redis.Redis, prefix: str, *, keys: int = 500, looks: int = 10_000_000, lease_ms: int = 15_000
) -> Pass:
    """Audit a shard from end to end, whatever its brokers are doing; repairs what it finds.

    Args:
        client: A plain client of the server that holds the shard.
        prefix: Start of the shard's keys.
        keys: Per slice.
        looks: Entries of ready lists to look through, per slice.
        lease_ms: Of a session that is put back.
    """
    position, runs, undecided = "", 0, 0
    repairs: list[tuple[str, str]] = []
    script = client.register_script(SCRIPTS["audit"].source)
    while True:
        args = [-1, position, keys, looks, DAY_MS, DAY_MS, lease_ms]
        reply: Any = script(keys=[prefix], args=args)
        position = reply[1].decode()
        runs += reply[2]
        undecided += reply[3]
        words = [word.decode() for word in reply[4:]]
        repairs += zip(words[::2], words[1::2], strict=True)
        if not position:
            return Pass(runs, undecided, repairs)


def assert_consistent(client: redis.Redis, namespace: str, shards: int = 1) -> int:
    """Fail when the audit of any shard has something to repair; returns how many runs it looked at.

    May be called at any time, also while brokers work: scripts leave nothing half done.

    Raises:
        AssertionError: Names what was repaired.
    """
    runs = 0
    for shard in range(shards):
        done = full_pass(client, f"pl:{{{namespace}:{shard}}}:")
        assert not done.repairs, f"shard {shard} was repaired: {done.repairs}"
        runs += done.runs
    return runs


def assert_never_repaired(client: redis.Redis, namespace: str, shards: int = 1) -> None:
    """The same of what the brokers' own audits have found so far."""
    for shard in range(shards):
        repaired: Any = client.hget(f"pl:{{{namespace}:{shard}}}:audit", "repaired")
        assert not int(repaired or 0), f"brokers repaired {int(repaired)} runs or sessions of shard {shard}"
