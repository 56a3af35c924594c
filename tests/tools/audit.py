"""Checks that all keys of a namespace agree with each other and that none is left without an end."""

from __future__ import annotations

from collections import Counter
from typing import Any

import redis

from tests.tools.consistency import full_pass

LEASED, TERMINAL = "LXK", "cfhk"
SINGLE_KEYS = {
    "open",
    "delayed",
    "expires",
    "sessions",
    "tick",
    "dead",
    "audit",
    "blocked",
    "unblock",
    "orphans",
    "blocks",
    "assets",
    "assets_at",
}


def audit(client: redis.Redis, prefix: str) -> dict[str, str]:
    """Check every invariant of the key map.

    Args:
        client: A plain client.
        prefix: Start of the shard's keys.

    Returns:
        Run id to state letter.

    Raises:
        AssertionError: Names the key that is wrong.
    """
    repairs = full_pass(client, prefix).repairs
    assert not repairs, f"the broker's own audit had something to repair: {repairs}"
    names = [
        key.decode().removeprefix(prefix) for key in client.scan_iter(match=_escape(prefix) + "*", count=1000)
    ]
    hashes = _hashes(client, prefix, [name for name in names if name[:2] in ("r:", "h:")])
    lives = _each(client, "pttl", prefix, names)
    runs = {name[2:]: record for name, record in hashes.items() if name.startswith("r:")}
    held = {name[2:]: leases for name, leases in hashes.items() if name.startswith("h:")}
    indexes = _each(client, "zrange", prefix, ["sessions", "delayed", "dead", "open"], 0, -1)
    sessions, delayed, dead, opened = ({member.decode() for member in index} for index in indexes.values())
    lists = _each(client, "lrange", prefix, [name for name in names if name.startswith("ready:")], 0, -1)
    queued = Counter(run.decode() for ids in lists.values() for run in ids)
    for run, record in runs.items():
        where = (queued[run], run in delayed, run in dead)
        lease = held.get(record.get("o", ""), {}).get(run)
        needed = f"needed:{run}" in lives
        _check_run(run, record, where, lease, lives[f"r:{run}"], lives.get(f"b:{run}", -2), needed)
    for session, leases in held.items():
        assert session in sessions, f"h:{session} of no session"
        for run, token in leases.items():
            assert runs[run].get("t") == token, f"{session} holds {run} under another token"
    missing = {name[6:] for name in lists} - opened
    assert not missing, f"ready lists that no claim would find: {missing}"
    assert delayed <= {run for run, record in runs.items() if record["st"] == "D"}
    assert dead <= set(runs)
    _check_waiting(client, prefix, names, runs)
    for name in names:
        _check_name(client, prefix, name, runs, sessions, lives[name])
    return {run: record["st"] for run, record in runs.items()}


def _each(client: redis.Redis, command: str, prefix: str, names: list[str], *args: int) -> dict[str, Any]:
    """One command for many keys, in one round trip."""
    pipeline = client.pipeline(transaction=False)
    for name in names:
        getattr(pipeline, command)(prefix + name, *args)
    return dict(zip(names, pipeline.execute(), strict=True))


def _hashes(client: redis.Redis, prefix: str, names: list[str]) -> dict[str, dict[str, str]]:
    return {
        name: {field.decode(): value.decode("latin-1") for field, value in fields.items()}
        for name, fields in _each(client, "hgetall", prefix, names).items()
    }


def _escape(prefix: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in prefix)


def _check_run(
    run: str,
    record: dict[str, str],
    where: tuple[int, bool, bool],
    lease: str | None,
    life: int,
    body: int,
    needed: bool,
) -> None:
    """``life`` and ``body``: PTTL of record and body; ``where``: times queued, delayed, dead.

    ``needed``: a run that waited for this one has not ended, or has yet to let it go.
    """
    state = record["st"]
    queued, delayed, dead = where
    if state in TERMINAL and not dead:
        assert needed or life > 0, f"{run} has ended and would stay for ever"
        assert body == -2 or (body > 0) == (life > 0), f"{run} and its result do not live equally long"
        return
    assert life == -1, f"{run} is not over but expires"
    assert body == -1, f"{run} has lost its body"
    if state == "R":
        assert queued == 1, f"{run} is ready and queued {queued} times"
    elif state == "D":
        assert delayed, f"{run} is delayed and nobody would wake it"
    elif state == "B":
        assert not queued, f"{run} is blocked and queued"
    elif state in LEASED:
        assert lease == record["t"], f"{run} is leased and nobody holds it"
    else:
        assert state == "h", f"{run} is dead in state {state}"


def _check_waiting(
    client: redis.Redis, prefix: str, names: list[str], runs: dict[str, dict[str, str]]
) -> None:
    """Who waits for whom, as far as one shard can tell."""
    indexes = _each(client, "zrange", prefix, ["blocked", "unblock", "orphans"], 0, -1)
    blocked, unblock, orphans = ({member.decode() for member in index} for index in indexes.values())
    assert blocked == {run for run, record in runs.items() if record["st"] == "B"}
    deps = _hashes(client, prefix, [name for name in names if name.startswith("deps:")])
    for name, parents in deps.items():
        run = name[5:]
        left = sum(kind != "" for kind in parents.values())
        if run in blocked:
            assert left == int(runs[run]["dl"]) > 0, f"{run} waits for {left} runs"
        else:
            assert run in unblock or runs[run]["st"] not in TERMINAL, f"{run} has ended and holds {name}"
    assert {f"deps:{run}" for run in blocked} <= set(deps), "blocked by nothing"
    children = _each(
        client,
        "smembers",
        prefix,
        [n for n in names if n.partition(":")[0] in ("blocked", "needed") and ":" in n],
    )
    for name, ids in children.items():
        kind, _, run = name.partition(":")
        if kind == "blocked":
            assert ids <= children[f"needed:{run}"]
            ended = run not in runs or runs[run]["st"] in TERMINAL
            assert not ended or run in unblock | orphans, f"{run} has ended and nobody would tell {name}"


def _check_name(
    client: redis.Redis,
    prefix: str,
    name: str,
    runs: dict[str, dict[str, str]],
    sessions: set[str],
    life: int,
) -> None:
    kind, _, rest = name.partition(":")
    if name in SINGLE_KEYS or kind in ("ready", "r", "h", "blocked", "needed", "deps"):
        return
    if kind == "b":
        assert rest in runs, f"a body of no run: {name}"
    elif kind in ("s", "c"):
        assert rest in sessions, f"a session without a lease: {name}"
    elif kind in ("log", "keep", "lock", "did", "made"):
        assert life > 0, f"{name} would stay for ever"
    elif kind in ("asset", "asset_runs", "asset_at"):
        assert client.zscore(prefix + "assets", rest) is not None, f"{name} of no asset"
    elif kind == "idem":
        value = client.get(prefix + name)
        run = value[:32].decode() if value else ""  # type: ignore[index]
        over = run not in runs or runs[run]["st"] in TERMINAL
        assert not over or life > 0, f"{name} would stay for ever"
    else:
        raise AssertionError(f"no key of the key map: {name}")
