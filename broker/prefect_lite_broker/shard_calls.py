"""What the parts of the Redis store share: a writer per shard, and calls that are awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from prefect_lite.exceptions import ConfigurationError
from prefect_lite.settings import Settings

from . import keys
from .backlog import Backlog
from .connect import Dialer
from .lanes import Terms
from .scripts import SCRIPTS
from .writer import ShardWriter


def to_ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _nothing() -> None:
    """Until there is somebody to tell."""


def _nobody(_task_keys: list[str]) -> None:
    """Until there is somebody to tell."""


class ShardCalls:
    """A writer for each shard of a namespace.

    Raises:
        ConfigurationError: Namespace or URL can't be used.
    """

    def __init__(self, settings: Settings) -> None:
        keys.check_namespace(settings.namespace)
        self.shards = settings.shards
        self.settings = settings
        self.result_ttl = to_ms(max(settings.result_ttl_seconds, settings.min_result_ttl_seconds))
        self.idempotency = to_ms(settings.idempotency_seconds)
        terms = Terms(
            result_ttl=self.result_ttl,
            min_result_ttl=to_ms(settings.min_result_ttl_seconds),
            idempotency=self.idempotency,
            longest=settings.max_queue_length,
            log_lines=settings.max_log_lines,
            suspect=to_ms(settings.suspect_seconds),
        )
        try:
            self.dial = Dialer(settings.redis_url)
        except ValueError as exc:
            raise ConfigurationError(f"PREFECT_LITE_REDIS_URL: {exc}.") from None
        self.prefixes = [keys.prefix(settings.namespace, shard) for shard in range(self.shards)]
        self.on_settled: Callable[[], None] = _nothing
        self.on_ready: Callable[[list[str]], None] = _nobody
        self.backlogs = [Backlog(terms, settings.redis_wait_seconds, self._ready) for _ in self.prefixes]
        self.writers = [
            ShardWriter(self.dial, prefix, backlog, self._settled)
            for prefix, backlog in zip(self.prefixes, self.backlogs, strict=True)
        ]

    def _settled(self) -> None:
        self.on_settled()

    def _ready(self, task_keys: list[str]) -> None:
        self.on_ready(task_keys)

    def shard_of(self, run_id: str) -> int:
        return keys.shard_of(run_id, self.shards)

    async def command(self, *command: Any, shard: int = 0) -> Any:
        """Run one Redis command through the shard's writer.

        Raises:
            StoreUnavailable: No answer within ``redis_wait_seconds``.
            ResponseError: Redis refused it.
        """
        writer = self.writers[shard]
        future = self.backlogs[shard].call.add(command)
        writer.wake()
        return await future

    async def script(self, name: str, shard: int, *args: Any) -> Any:
        """Run one script in one shard; raises like ``command``."""
        sha, prefix = SCRIPTS[name].sha, self.prefixes[shard]
        return await self.command("EVALSHA", sha, 1, prefix, *args, shard=shard)

    async def each(self, name: str, *args: Any) -> list[Any]:
        """One script in every shard at once."""
        return await asyncio.gather(*(self.script(name, shard, *args) for shard in range(self.shards)))
