"""What is checked about a Redis before it is trusted with runs."""

from __future__ import annotations

import asyncio

from redis.exceptions import RedisError, ResponseError

from prefect_lite.exceptions import ConfigurationError, StoreUnavailable
from prefect_lite.settings import Settings

from . import keys
from .connect import Command, Dialer, conversation
from .keys import SCHEMA_VERSION, meta_key

MINIMUM_REDIS = (7, 0)
MINIMUM_VALKEY = (7, 2)

RETRY_SECONDS = 0.1
"""Between two attempts to make the first contact."""


async def first_contact(dialer: Dialer, settings: Settings) -> tuple[int, list[str]]:
    """Check the servers and the namespace.

    Returns:
        The number of shards, and warnings, a sentence each.

    Raises:
        StoreUnavailable: No server to use within ``redis_wait_seconds``.
        ConfigurationError: A server is too old, or the namespace has another shard count or schema.
    """
    wait, problem = settings.redis_wait_seconds, "no reply"
    try:
        async with asyncio.timeout(wait):
            while True:
                try:
                    return await _contact(dialer, settings)
                except (RedisError, OSError) as exc:
                    problem = str(exc) or type(exc).__name__
                    dialer.doubt(exc)
                await asyncio.sleep(RETRY_SECONDS)
    except TimeoutError:
        text = f"Redis could not be used within {wait:g} s ({problem.rstrip('.')})."
        raise StoreUnavailable(text) from None


async def _contact(dialer: Dialer, settings: Settings) -> tuple[int, list[str]]:
    warnings: dict[str, None] = {}
    for dial in await dialer.masters():
        async with conversation(dial) as command:
            warnings.update(dict.fromkeys(await probe(command, settings.redis_wait_replicas)))
    # In a cluster the namespace's own key is in another slot than any shard.
    slot = keys.slot(keys.meta_key(settings.namespace).encode())
    async with conversation(dialer.on(slot)) as command:
        shards = await claim_namespace(command, settings.namespace, settings.shards, dialer.default_shards)
    return shards, list(warnings)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


async def probe(command: Command, replicas: int = 0) -> list[str]:
    """Check version, persistence, eviction and replicas.

    Args:
        command: Runs one Redis command.
        replicas: How many have to confirm each write.

    Returns:
        Warnings, a sentence each.

    Raises:
        ConfigurationError: The server is too old.
    """
    info = await _info(command, "server")
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
    attached = int((await _info(command, "replication")).get("connected_slaves", "0")) if replicas else 0
    if attached < replicas:
        warnings.append(
            f"{attached} replicas are attached, but {replicas} have to confirm each write "
            "(PREFECT_LITE_REDIS_WAIT_REPLICAS): nothing can be stored until they are."
        )
    return warnings


async def _info(command: Command, section: str) -> dict[str, str]:
    text = (await command("INFO", section)).decode()
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name: value.strip() for name, _, value in pairs}


async def _config(command: Command, name: str) -> str:
    """A setting's value, "" when the server (a hosted one, say) does not tell."""
    try:
        reply = await command("CONFIG", "GET", name)
    except ResponseError:
        return ""
    return reply[1].decode() if len(reply) > 1 else ""


async def claim_namespace(command: Command, namespace: str, wanted: int | None, default: int) -> int:
    """Record shard count and schema at first start; later they must be the same.

    Args:
        command: Runs one Redis command.
        namespace: Whose.
        wanted: Shards that the settings ask for, None for as many as there are.
        default: Shards of a namespace that is new, if the settings ask for none.

    Returns:
        The number of shards.

    Raises:
        ConfigurationError: Another broker uses this namespace with others.
    """
    key = meta_key(namespace)
    known = await command("HMGET", key, "shards", "schema")
    if None in known:  # else nothing is written: a broker must be able to start while memory is full
        await command("HSETNX", key, "shards", default if wanted is None else wanted)
        await command("HSETNX", key, "schema", SCHEMA_VERSION)
        known = await command("HMGET", key, "shards", "schema")
    shards, schema = (int(value) for value in known)
    if schema != SCHEMA_VERSION:
        raise ConfigurationError(
            f"Namespace {namespace!r} has data of schema {schema}, this version uses {SCHEMA_VERSION}."
        )
    if wanted is not None and shards != wanted:
        raise ConfigurationError(
            f"Namespace {namespace!r} was started with {shards} shards, not {wanted}; "
            f"set PREFECT_LITE_SHARDS={shards}, or leave it out."
        )
    return shards
