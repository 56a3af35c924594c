"""Whether a broker could accept a run just now, asked of Redis itself."""

from __future__ import annotations

import asyncio

from redis.exceptions import ResponseError

from prefect_lite.exceptions import StoreUnavailable

from .hint_listener import HintListener
from .refusals import sentence
from .shard_calls import ShardCalls
from .trouble import FULL

READY_SECONDS = 0.8
"""For Redis to answer; probes of orchestrators commonly wait one second."""


class Readiness:
    """Answers within ``READY_SECONDS``, and at once while Redis is known to be silent.

    However many ask, there is one question to each shard at a time.

    Args:
        calls: The shards; their writers run.
        listeners: For the hints of all of them.
    """

    def __init__(self, calls: ShardCalls, listeners: list[HintListener]) -> None:
        self._calls = calls
        self._listeners = listeners
        self._asking: asyncio.Task[str] | None = None

    async def reason(self) -> str:
        """Why no run could be accepted, in a sentence; "" when one could."""
        known = self._known()
        if known:
            return known
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="prefect-lite-readiness")
        return await asyncio.shield(self._asking)

    def _known(self) -> str:
        """What is known without a question."""
        calls = self._calls
        if not calls.writers:
            return "The store is not started."
        for shard, writer in enumerate(calls.writers):
            if not writer.connected:
                return f"{calls.trouble.of(shard) or 'Redis is not reachable'}."
            if writer.silent_seconds > READY_SECONDS:
                return f"Redis has not answered for {writer.silent_seconds:.1f} s."
        return ""

    async def _ask(self) -> str:
        """Have every shard's server say whether it takes new runs."""
        calls = self._calls
        questions = [asyncio.ensure_future(calls.script("accepts", shard)) for shard in range(calls.shards)]
        try:
            await asyncio.wait(questions, timeout=READY_SECONDS)
            reasons = [self._answer(shard, question) for shard, question in enumerate(questions)]
        finally:
            for question in questions:
                question.cancel()
        if not all(listener.subscribed.is_set() for listener in self._listeners):
            reasons.append("The wake-up hints are not subscribed.")
        return next(filter(None, reasons), "")

    def _answer(self, shard: int, question: asyncio.Future[object]) -> str:
        if not question.done():
            waiting = f"Redis has not answered for {READY_SECONDS:g} s"
            return f"{self._calls.trouble.of(shard) or waiting}."
        error = question.exception()
        if error is None:
            self._calls.trouble.ends(shard, FULL)
            return ""
        if isinstance(error, ResponseError):
            self._calls.trouble.begins(shard, FULL, sentence(error))
            return f"{FULL}: {sentence(error)}"
        if isinstance(error, StoreUnavailable):
            return str(error)
        raise error

    async def close(self) -> None:
        """End what is being asked."""
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
            await asyncio.wait([asking])
