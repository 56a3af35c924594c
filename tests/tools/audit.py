"""Checks that all keys of a namespace agree with each other and that none is left without an end."""

from __future__ import annotations

from collections import Counter

import redis

LEASED, TERMINAL = "LXK", "cfhk"
SINGLE_KEYS = {"open", "delayed", "expires", "sessions", "tick", "dead"}


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
    names = [
        key.decode().removeprefix(prefix) for key in client.scan_iter(match=_escape(prefix) + "*", count=1000)
    ]
    runs = {name[2:]: _hash(client, prefix + name) for name in names if name.startswith("r:")}
    held = {name[2:]: _hash(client, prefix + name) for name in names if name.startswith("h:")}
    sessions = {member.decode() for member in client.zrange(prefix + "sessions", 0, -1)}
    queued, lists = _queued(client, prefix, names)
    delayed = {member.decode() for member in client.zrange(prefix + "delayed", 0, -1)}
    dead = {member.decode() for member in client.zrange(prefix + "dead", 0, -1)}
    for run, record in runs.items():
        _check_run(client, prefix, run, record, queued, delayed, dead, held)
    for session, leases in held.items():
        assert session in sessions, f"h:{session} of no session"
        for run, token in leases.items():
            assert runs[run].get("t") == token, f"{session} holds {run} under another token"
    opened = {member.decode() for member in client.zrange(prefix + "open", 0, -1)}
    assert lists <= opened, f"ready lists that no claim would find: {lists - opened}"
    assert delayed <= {run for run, record in runs.items() if record["st"] == "D"}
    assert dead <= set(runs)
    for name in names:
        _check_name(client, prefix, name, runs, sessions)
    return {run: record["st"] for run, record in runs.items()}


def _escape(prefix: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in prefix)


def _hash(client: redis.Redis, key: str) -> dict[str, str]:
    fields = client.hgetall(key)
    return {name.decode(): value.decode("latin-1") for name, value in fields.items()}  # type: ignore[union-attr]


def _queued(client: redis.Redis, prefix: str, names: list[str]) -> tuple[Counter[str], set[str]]:
    queued: Counter[str] = Counter()
    lists: set[str] = set()
    for name in names:
        if name.startswith("ready:"):
            lists.add(name[6:])
            queued.update(member.decode() for member in client.lrange(prefix + name, 0, -1))
    return queued, lists


def _check_run(
    client: redis.Redis,
    prefix: str,
    run: str,
    record: dict[str, str],
    queued: Counter[str],
    delayed: set[str],
    dead: set[str],
    held: dict[str, dict[str, str]],
) -> None:
    state = record["st"]
    body, ttl = client.pttl(f"{prefix}b:{run}"), client.pttl(f"{prefix}r:{run}")
    if state in TERMINAL and run not in dead:
        assert ttl > 0, f"{run} has ended and would stay for ever"
        assert body == -2 or body > 0, f"the result of {run} would stay for ever"
        return
    assert ttl == -1, f"{run} is not over but expires"
    assert body == -1, f"{run} has lost its body"
    if state == "R":
        assert queued[run] == 1, f"{run} is ready and queued {queued[run]} times"
    elif state == "D":
        assert run in delayed, f"{run} is delayed and nobody would wake it"
    elif state in LEASED:
        assert held.get(record["o"], {}).get(run) == record["t"], f"{run} is leased and nobody holds it"
    else:
        assert state == "h", f"{run} is dead in state {state}"
        assert run in dead


def _check_name(
    client: redis.Redis, prefix: str, name: str, runs: dict[str, dict[str, str]], sessions: set[str]
) -> None:
    kind, _, rest = name.partition(":")
    if name in SINGLE_KEYS or kind in ("ready", "r", "h"):
        return
    if kind == "b":
        assert rest in runs, f"a body of no run: {name}"
    elif kind in ("s", "c"):
        assert rest in sessions, f"a session without a lease: {name}"
    elif kind == "log":
        assert client.pttl(prefix + name) > 0, f"{name} would stay for ever"
    elif kind == "idem":
        value = client.get(prefix + name)
        run = value[:32].decode() if value else ""
        over = run not in runs or runs[run]["st"] in TERMINAL
        assert not over or client.pttl(prefix + name) > 0, f"{name} would stay for ever"
    else:
        raise AssertionError(f"no key of the key map: {name}")
