"""What the parts of the Redis store share: a writer per shard, and calls that are awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from prefect_lite.exceptions import StoreUnavailable
from prefect_lite.settings import Settings

from . import keys
from .backlog import Backlog
from .lanes import Terms
from .redis_url import parse_redis_url
from .scripts import SCRIPTS
from .topology import make_dialer
from .trouble import Trouble
from .way import Way
from .writer import ShardWriter

T = TypeVar("T")


def to_ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _nothing() -> None:
    """Until there is somebody to tell."""


def _nobody(_task_keys: list[str]) -> None:
    """Until there is somebody to tell."""


def _nobody_waits(_run_id: str, _parents: list[str] | None = None) -> None:
    """Until there is somebody to tell."""


class ShardCalls:
    """A writer for each shard of a namespace; how many there are is known once ``open_shards`` was called.

    Raises:
        ConfigurationError: Namespace or URL can't be used.
    """

    def __init__(self, settings: Settings) -> None:
        keys.check_namespace(settings.namespace)
        self.shards = settings.shards or 0
        self.settings = settings
        self.result_ttl = to_ms(max(settings.result_ttl_seconds, settings.min_result_ttl_seconds))
        self.idempotency = to_ms(settings.idempotency_seconds)
        self.dialer = make_dialer(parse_redis_url(settings.redis_url))
        self.on_settled: Callable[[], None] = _nothing
        self.on_ready: Callable[[list[str]], None] = _nobody
        self.on_blocked: Callable[[str, list[str]], None] = _nobody_waits
        self.on_unblocked: Callable[[str], None] = _nobody_waits
        self.trouble = Trouble()
        self.prefixes: list[bytes] = []
        self.backlogs: list[Backlog] = []
        self.writers: list[ShardWriter] = []

    def open_shards(self, shards: int) -> None:
        """Make the writers, which nobody runs yet."""
        settings = self.settings
        self.shards = shards
        terms = Terms(
            result_ttl=self.result_ttl,
            min_result_ttl=to_ms(settings.min_result_ttl_seconds),
            idempotency=self.idempotency,
            longest=settings.max_queue_length,
            log_lines=settings.max_log_lines,
            suspect=to_ms(settings.suspect_seconds),
        )
        self.prefixes = [keys.prefix(settings.namespace, shard) for shard in range(shards)]
        self.backlogs = [Backlog(terms, settings.redis_wait_seconds, self._ready) for _ in self.prefixes]
        for backlog in self.backlogs:
            for lane in backlog.lanes:
                lane.unblocked = self._unblocked
        self.writers = [
            ShardWriter(self._way(shard), prefix, self.backlogs[shard], self._settled)
            for shard, prefix in enumerate(self.prefixes)
        ]

    def _way(self, shard: int) -> Way:
        settings, slot = self.settings, keys.slot(self.prefixes[shard])
        return Way(
            self.dialer.on(slot),
            partial(self.dialer.elsewhere, slot),
            self.dialer.doubt,
            self.trouble,
            shard,
            settings.redis_wait_replicas,
            to_ms(settings.redis_wait_replicas_seconds),
        )

    def _unblocked(self, run_id: str) -> None:
        self.on_unblocked(run_id)

    def _settled(self) -> None:
        self.on_settled()

    def _ready(self, task_keys: list[str]) -> None:
        self.on_ready(task_keys)

    def shard_of(self, run_id: str) -> int:
        return keys.shard_of(run_id, self.shards)

    def answers(self, shard: int) -> bool:
        return self.writers[shard].answers

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

    async def weighed(self, name: str, shard: int, *args: Any, weight: int) -> Any:
        """Run a script whose last word (bytes), or whose answer, may have ``weight`` bytes: what is asked for
        so is bounded in each pipeline. Raises like ``command``."""
        command = ("EVALSHA", SCRIPTS[name].sha, 1, self.prefixes[shard], *args)
        future = self.backlogs[shard].keep.add(command, weight)
        self.writers[shard].wake()
        return await future

    async def each(self, name: str, *args: Any) -> list[Any]:
        """One script in every shard at once."""
        return await asyncio.gather(*(self.script(name, shard, *args) for shard in range(self.shards)))

    async def apart(
        self, duty: Callable[[int], Awaitable[T]], shards: Iterable[int] | None = None
    ) -> list[T | StoreUnavailable]:
        """A duty in each shard at once; one whose server is known to be away or silent is not asked, so that
        no other waits for it.

        Args:
            duty: Called with the shard.
            shards: All by default.

        Returns:
            What came of each, in order.

        Raises:
            Exception: Of a duty, if it is no ``StoreUnavailable``; all are over.
        """
        outcomes = await asyncio.gather(
            *(self._if_there(duty, shard) for shard in (range(self.shards) if shards is None else shards)),
            return_exceptions=True,
        )
        found: list[T | StoreUnavailable] = []
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, StoreUnavailable):
                raise outcome
            found.append(outcome)
        return found

    async def _if_there(self, duty: Callable[[int], Awaitable[T]], shard: int) -> T:
        if not self.answers(shard):
            why = self.trouble.of(shard) or self.writers[shard].last_error or "Redis is away"
            raise StoreUnavailable(f"{why}.")
        return await duty(shard)

    async def wherever(
        self, duty: Callable[[int], Awaitable[T]], shards: Iterable[int] | None = None
    ) -> list[T]:
        """The same for what can be done later in the shards that are away.

        Raises:
            StoreUnavailable: All are.
        """
        outcomes = await self.apart(duty, shards)
        done = [outcome for outcome in outcomes if not isinstance(outcome, StoreUnavailable)]
        for outcome in outcomes:
            if isinstance(outcome, StoreUnavailable) and not done:
                raise outcome
        return done
