"""What other threads hand to the client's loop thread, and wait for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from prefect_lite.client.latch import Latch
from prefect_lite.exceptions import (
    IdempotencyConflict,
    PayloadTooLarge,
    QueueFull,
    StoreUnavailable,
    SubmitError,
)
from prefect_lite.protocol.messages import Refused, RunState

if TYPE_CHECKING:
    from prefect_lite.client.allowance import Allowance
    from prefect_lite.settings import Settings


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
        patience: Seconds from then on for which refusals that may pass are taken for a "not yet".
        errors: Refusals by run id.
        aliases: Ids of existing runs, by the id that was asked for (same idempotency key).
        listener: Told of the ends of the runs that are sent with ``watch``.
    """

    __slots__ = (
        "aliases", "allowance", "count", "errors", "listener", "patience", "remaining", "since", "size",
    )  # fmt: skip

    def __init__(
        self,
        count: int,
        listener: Listener | None = None,
        patience: float = 0.0,
        allowance: Allowance | None = None,
        size: int = 0,
    ) -> None:
        """``allowance``: where it has taken a place, for ``size`` bytes, to be left in the end."""
        super().__init__()
        self.listener = listener
        self.patience = patience
        self.allowance = allowance
        self.count = self.remaining = count
        self.size = size
        self.since = time.monotonic()
        self.errors: dict[str, Exception] = {}
        self.aliases: dict[str, str] = {}
        if not count:
            self._end()

    def settled(self) -> None:
        """One more is durable or refused."""
        self.remaining -= 1
        if not self.remaining:
            self._end()

    def _end(self) -> None:
        if self.allowance is not None:
            self.allowance.leave(self.count, self.size)
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        try:
            return super().wait(timeout)
        except BaseException:
            self.patience = 0.0  # nobody waits any more: it must not be sent again later
            raise

    async def wait_async(self, timeout: float | None = None) -> bool:
        try:
            return await super().wait_async(timeout)
        except BaseException:
            self.patience = 0.0
            raise


def wait_for_all(submissions: Sequence[Submission]) -> None:
    """Wait until all are settled; who is interrupted wants none of them any more."""
    try:
        for submission in submissions:
            submission.wait()
    except BaseException:
        give_up(submissions)
        raise


async def wait_for_all_async(submissions: Sequence[Submission]) -> None:
    """``wait_for_all`` for coroutines."""
    try:
        for submission in submissions:
            await submission.wait_async()
    except BaseException:
        give_up(submissions)
        raise


def give_up(submissions: Sequence[Submission]) -> None:
    """Nobody wants these runs any more: those that were refused must not be sent again later."""
    for submission in submissions:
        submission.patience = 0.0


class Answered(Latch):
    """A question; set when it is answered or can't be.

    Attributes:
        ok: The broker answered it.
        value: Its answer; on a refusal [code, sentence].
        body: Bytes that came with the answer, if any.
        error: Why there is no answer, else None.
    """

    __slots__ = ("body", "error", "ok", "since", "value")

    def __init__(self) -> None:
        super().__init__()
        self.ok = False
        self.value: Any = None
        self.body: bytes | None = None
        self.error: Exception | None = None
        self.since = time.monotonic()


def refusal(message: Refused, task_key: str = "", waited: float = 0.0) -> Exception:
    """The exception that a REFUSED stands for.

    Args:
        message: What the broker said.
        task_key: Of the run's task.
        waited: Seconds for which it was sent again.
    """
    code, text, run_id = message.code, message.text, message.run_id
    for_so_long = f" within {waited:.1f} s" if waited else ""
    if code == "unavailable":
        text = text or "The broker's Redis does not answer."
        return StoreUnavailable(f"{text} The run of {task_key} was not accepted{for_so_long}. {_UNAVAILABLE}")
    if code == "full":
        text = text or "The queue is full."
        error = QueueFull(
            f"{text} The run of {task_key} was not accepted{for_so_long}. {_FULL}", run_id=run_id, code=code
        )
        error.waited_seconds = waited
        if message.retry_after_seconds >= 0:
            error.retry_after_seconds = message.retry_after_seconds
        return error
    if code == "conflict":
        return IdempotencyConflict(f"{text} {_CONFLICT}".lstrip(), run_id=run_id, code=code)
    kind = PayloadTooLarge if code == "payload_too_large" else SubmitError
    return kind(text or f"The broker refused the run ({code}).", run_id=run_id, code=code)


_WAIT = "queue_timeout= of apply_async() and batch(), or PREFECT_LITE_QUEUE_WAIT_SECONDS"
_FULL = f"Start more workers, raise the limit at the broker, or have the call wait for room: {_WAIT}."
_UNAVAILABLE = f"See the broker's log, or have the call wait for the store: {_WAIT}."
_CONFLICT = "Give the call another idempotency_key or run_id, or the arguments of that run."


def too_many(task_key: str, allowance: Allowance, settings: Settings, waited: float) -> QueueFull:
    """The error for a run that found no place in this process, and was not sent."""
    error = QueueFull(
        f"{allowance.runs:,} runs of this process, with {allowance.bytes:,} bytes of arguments, have no "
        f"broker's word yet; PREFECT_LITE_MAX_UNCONFIRMED_RUNS ({settings.max_unconfirmed_runs:,}) and "
        f"PREFECT_LITE_MAX_UNCONFIRMED_BYTES ({settings.max_unconfirmed_bytes:,}) allow no more. The run of "
        f"{task_key} was not sent within {waited:.1f} s. The broker is slow or away: see 'prefect-lite "
        f"status', or wait longer: {_WAIT}.",
        code="full",
    )
    error.waited_seconds = waited
    return error


def perhaps_stored(error: Exception, run_id: str) -> Exception:
    """``error`` for a run that was sent, as far as anybody can tell."""
    text = (
        f"{error} Run {run_id} was sent and may have been stored; it is safe to repeat the call with "
        f"apply_async(run_id={run_id!r}), which never makes a second run."
    )
    unsure = type(error)(text)
    unsure.__dict__.update(error.__dict__)
    unsure.__cause__ = error
    return unsure
