"""Tells the log of trouble with Redis: once when it begins and once when it is over, not once per retry."""

from __future__ import annotations

import logging
import time

logger = logging.getLogger(__name__)

AWAY = "Redis is not reachable"
SILENT = "Redis does not answer"
REFUSES = "Redis refuses writes"
FULL = "Redis refuses new runs"


class Trouble:
    """What is wrong with Redis, by shard.

    All shards of a broker share one: what befalls a server befalls its shards together.
    """

    def __init__(self) -> None:
        self._by_shard: dict[int, dict[str, str]] = {}
        self._told: set[str] = set()
        self._since = 0.0

    def begins(self, shard: int, kind: str, text: str) -> None:
        """Something is wrong, again or still.

        Args:
            shard: Where.
            kind: ``AWAY``, ``SILENT``, ``REFUSES`` or ``FULL``: a kind is told once until all is well again.
            text: What Redis or the network said.
        """
        if not self._by_shard:
            self._since = time.monotonic()
        self._by_shard.setdefault(shard, {})[kind] = text
        if kind not in self._told:
            self._told.add(kind)
            logger.warning("%s: %s", kind, text, extra={"action": "redis_trouble"})

    def ends(self, shard: int, *kinds: str) -> None:
        """This is over in this shard."""
        here = self._by_shard.get(shard)
        if here is None:
            return
        for kind in kinds:
            here.pop(kind, None)
        if here:
            return
        del self._by_shard[shard]
        if not self._by_shard:
            self._told.clear()
            seconds = time.monotonic() - self._since
            logger.info("Redis works again, after %.1f s", seconds, extra={"action": "redis_trouble"})

    def of(self, shard: int) -> str:
        """What is wrong in a shard, "" if nothing is known."""
        return "; ".join(f"{kind}: {text}" for kind, text in self._by_shard.get(shard, {}).items())

    def __str__(self) -> str:
        """What is wrong somewhere, "" if nothing is known."""
        return self.of(next(iter(self._by_shard))) if self._by_shard else ""
