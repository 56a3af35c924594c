"""What other threads hand to the client's loop thread, and wait for."""

from __future__ import annotations

import time
from typing import Any, Protocol

from prefect_lite.client.latch import Latch
from prefect_lite.exceptions import (
    IdempotencyConflict,
    PayloadTooLarge,
    QueueFull,
    StoreUnavailable,
    SubmitError,
)
from prefect_lite.protocol.messages import Refused, RunState


class Listener(Protocol):
    """Told of the end of runs, on the loop thread. Must not raise or block.

    Attributes:
        waited_for: Somebody waits; else it is there for somebody who may come.
    """

    waited_for: bool

    def ended(self, state: RunState) -> None:
        """A run has ended, or is unknown to the broker (``type`` is "")."""
        ...

    def moved(self, run_id: str, existing: str) -> None:
        """What was asked for as ``run_id`` is the run ``existing``; its end will be told."""
        ...

    def failed(self, error: Exception) -> None:
        """Nothing will ever be told: the run or this client was refused, or no broker has answered."""
        ...


class Submission(Latch):
    """Runs on their way; set when each is durable or refused.

    Attributes:
        remaining: How many are neither durable nor refused.
        since: When they were handed over (monotonic seconds).
        errors: Refusals by run id.
        aliases: Ids of existing runs, by the id that was asked for (same idempotency key).
        listener: Told of the ends of the runs that are sent with ``watch``.
    """

    __slots__ = ("aliases", "errors", "listener", "remaining", "since")

    def __init__(self, count: int, listener: Listener | None = None) -> None:
        super().__init__()
        self.listener = listener
        self.remaining = count
        self.since = time.monotonic()
        self.errors: dict[str, Exception] = {}
        self.aliases: dict[str, str] = {}
        if not count:
            self.set()

    def settled(self) -> None:
        """One more is durable or refused."""
        self.remaining -= 1
        if not self.remaining:
            self.set()


class Answered(Latch):
    """A question; set when it is answered or can't be.

    Attributes:
        ok: The broker answered it.
        value: Its answer; on a refusal [code, sentence].
        error: Why there is no answer, else None.
    """

    __slots__ = ("error", "ok", "since", "value")

    def __init__(self) -> None:
        super().__init__()
        self.ok = False
        self.value: Any = None
        self.error: Exception | None = None
        self.since = time.monotonic()


def refusal(message: Refused) -> Exception:
    """The exception that a REFUSED stands for."""
    code, text, run_id = message.code, message.text, message.run_id
    if code == "unavailable":
        return StoreUnavailable(text or "The broker's Redis does not answer.")
    if code == "full":
        error = QueueFull(text or "The queue is full.", run_id=run_id, code=code)
        if message.retry_after_seconds >= 0:
            error.retry_after_seconds = message.retry_after_seconds
        return error
    kind = {"conflict": IdempotencyConflict, "payload_too_large": PayloadTooLarge}.get(code, SubmitError)
    return kind(text or f"The broker refused the run ({code}).", run_id=run_id, code=code)
