"""What is checked about a Redis before it is trusted with runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from redis.exceptions import ResponseError

from prefect_lite.exceptions import ConfigurationError

from .keys import SCHEMA_VERSION, meta_key

Command = Callable[..., Awaitable[Any]]

MINIMUM_REDIS = (7, 0)
MINIMUM_VALKEY = (7, 2)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


async def probe(command: Command) -> list[str]:
    """Check version, persistence and eviction.

    Args:
        command: Runs one Redis command.

    Returns:
        Warnings, a sentence each.

    Raises:
        ConfigurationError: The server is too old.
    """
    info = await _server_info(command)
    valkey, redis = info.get("valkey_version"), info.get("redis_version", "0")
    if valkey:
        if _version(valkey) < MINIMUM_VALKEY:
            raise ConfigurationError(f"Valkey {valkey} is too old; 7.2 or newer is needed.")
    elif _version(redis) < MINIMUM_REDIS:
        raise ConfigurationError(f"Redis {redis} is too old; 7.0 or newer is needed.")
    warnings: list[str] = []
    policy = await _config(command, "maxmemory-policy")
    if policy not in ("noeviction", ""):
        warnings.append(f"maxmemory-policy is {policy!r}: Redis may throw runs away; set it to noeviction.")
    aof, save = await _config(command, "appendonly"), await _config(command, "save")
    if aof == "no":
        kept = "only in snapshots" if save else "nowhere"
        warnings.append(f"appendonly is off: runs are kept {kept}; set appendonly yes.")
    return warnings


async def _server_info(command: Command) -> dict[str, str]:
    text = (await command("INFO", "server")).decode()
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name: value.strip() for name, _, value in pairs}


async def _config(command: Command, name: str) -> str:
    """A setting's value, "" when the server (a hosted one, say) does not tell."""
    try:
        reply = await command("CONFIG", "GET", name)
    except ResponseError:
        return ""
    return reply[1].decode() if len(reply) > 1 else ""


async def claim_namespace(command: Command, namespace: str, shards: int) -> None:
    """Record shard count and schema at first start; later they must be the same.

    Raises:
        ConfigurationError: Another broker uses this namespace with others.
    """
    key = meta_key(namespace)
    known = await command("HMGET", key, "shards", "schema")
    if None in known:  # else nothing is written: a broker must be able to start while memory is full
        await command("HSETNX", key, "shards", shards)
        await command("HSETNX", key, "schema", SCHEMA_VERSION)
        known = await command("HMGET", key, "shards", "schema")
    known_shards, known_schema = (int(value) for value in known)
    if known_schema != SCHEMA_VERSION:
        raise ConfigurationError(
            f"Namespace {namespace!r} has data of schema {known_schema}, this version uses {SCHEMA_VERSION}."
        )
    if known_shards != shards:
        raise ConfigurationError(
            f"Namespace {namespace!r} was started with {known_shards} shards, not {shards}; "
            f"set PREFECT_LITE_SHARDS={known_shards}."
        )
