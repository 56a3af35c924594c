"""How distributed futures wait: one WATCH for a list of runs, and what their final STATE says."""

from __future__ import annotations

import concurrent.futures
import logging
import os
import queue
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from prefect_lite.client.requests import Answered
from prefect_lite.client.runtime import get_runtime
from prefect_lite.collecting import Collector
from prefect_lite.exceptions import BrokerError, EnvelopeRejected, RunExpired, SerializationError
from prefect_lite.futures import UNDECODED, PrefectDistributedFuture, take_in_slices
from prefect_lite.outcomes import open_record, state_from_record
from prefect_lite.protocol.messages import RunState
from prefect_lite.states import NO_RESULT, Pending, State, StateType, is_kept, result_of
from prefect_lite.thread_or_loop import on_loop

logger = logging.getLogger("prefect_lite.client")

Future = PrefectDistributedFuture[Any]

WHY_SECONDS: Final = 1.0
LARGE_BYTES: Final = 64 * 1024


def collect(futures: Sequence[Future], each: Callable[[Any], object]) -> Collector:
    """Call ``each`` with every future when its run has ended (on the loop thread), or with an exception."""
    open_ones: list[Future] = []
    for future in futures:
        if future.done:
            each(future)
        else:  # looked at once only: it may end at any moment
            open_ones.append(future)
    return Collector(get_runtime(), open_ones, each)


def wait_all(futures: Sequence[Future], timeout: float | None, *, decode: bool = False) -> bool:
    """Block until all have ended; False when ``timeout`` seconds passed first.

    Args:
        futures: Of runs anywhere.
        timeout: Seconds; None waits for ever.
        decode: Decode results as they come, which would else be done after the last one.

    Raises:
        BrokerUnreachable, AuthenticationFailed: Nothing can ever be told.
    """
    open_ones = [future for future in futures if not future.done]
    if not open_ones:
        return True
    collector = _collector(futures, open_ones)
    lend = _slot_lender()
    if lend is not None:
        lend(1)
    try:
        if decode and len(open_ones) > 1:
            _decode_in_turn(collector, open_ones, timeout)
            ended = all(future.done for future in open_ones)
        else:
            ended = collector.wait(timeout)
    finally:
        if lend is not None:
            lend(-1)
        collector.stop()
    if collector.error is not None:
        raise collector.error
    return ended


async def wait_all_async(futures: Sequence[Future], timeout: float | None) -> bool:
    """``wait_all`` for coroutines."""
    open_ones = [future for future in futures if not future.done]
    if not open_ones:
        return True
    collector = _collector(futures, open_ones)
    lend = _slot_lender()
    if lend is not None:
        lend(1)
    try:
        ended = await collector.wait_async(timeout)
    finally:
        if lend is not None:
            lend(-1)
        collector.stop()
    if collector.error is not None:
        raise collector.error
    return ended


def _collector(futures: Sequence[Future], open_ones: Sequence[Future]) -> Collector:
    """Who waits for these, of which some are open: one that is there already, if their SUBMITs asked."""
    runtime = get_runtime()
    ready = futures[0]._collector  # pyright: ignore[reportPrivateUsage]
    if len(futures) == 1:
        runtime.waited = True
    else:
        runtime.waited_for_many = True
    if ready is not None and ready.fits(futures) and ready.take(runtime):
        return ready
    return Collector(runtime, open_ones)


def _decode_in_turn(collector: Collector, futures: Sequence[Future], timeout: float | None) -> None:
    deadline = None if timeout is None else time.monotonic() + timeout
    for future in futures:
        if not future.done:
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not collector.wait_for(future, remaining):
                return
        record = future._final  # pyright: ignore[reportPrivateUsage]
        if record is not None and record.type == StateType.COMPLETED:
            try:
                _data(future, record)
            except SerializationError:
                continue  # raised again when this result is asked for


def next_ended(ended: queue.SimpleQueue[Any], timeout: float | None) -> Any:
    """The next item that ``collect`` has put there.

    Raises:
        queue.Empty: None came in ``timeout`` seconds.
    """
    lend = _slot_lender()
    if lend is None:
        return take_in_slices(ended, timeout)
    with suppress(queue.Empty):
        return ended.get_nowait()
    lend(1)
    try:
        return take_in_slices(ended, timeout)
    finally:
        lend(-1)


def _slot_lender() -> Callable[[int], None] | None:
    """Inside a run on a worker: how to lend its slot while it waits, so that nesting can't deadlock."""
    context = sys.modules.get("prefect_lite.context")
    run = context.TaskRunContext.get() if context is not None else None
    return run.slot if run is not None else None


# -- states ---------------------------------------------------------------------------------------


async def final_result_async(future: Future, raise_on_failure: bool) -> Any:
    """``final_result`` for coroutines: a value that is in a storage is read without blocking the loop."""
    record = future._final  # pyright: ignore[reportPrivateUsage]
    if record is not None and record.type == "COMPLETED" and record.result is not None:
        data = _data(future, record)
        return (await on_loop(data.getting())) if is_kept(data) else data
    return final_result(future, raise_on_failure)


def final_result(future: Future, raise_on_failure: bool) -> Any:
    """The value of a run that has ended, or its exception.

    Raises:
        RunExpired: The broker has no record of it.
        SerializationError: Its result can't be verified or decoded here.
        BaseException: What the run raised, if ``raise_on_failure``.
    """
    record = future._final  # pyright: ignore[reportPrivateUsage]
    if record is not None and record.type == "COMPLETED" and record.result is not None:
        data = _data(future, record)  # without the 10 us of a State
        return data.result if is_kept(data) else data
    return result_of(final_state(future), raise_on_failure)


def final_state(future: Future) -> State[Any]:
    """The decoded end of a run that has ended. Raises like ``final_result``, but not for the run."""
    record = future._final  # pyright: ignore[reportPrivateUsage]
    if record is None or not record.type:
        raise expired(future)
    return state_from_record(record, _data(future, record))


def _data(future: Future, record: RunState) -> Any:
    data = future._data  # pyright: ignore[reportPrivateUsage]
    if data is UNDECODED:
        data = NO_RESULT if record.type == StateType.COMPLETED else None
        if record.result is not None:
            asked = future._key  # pyright: ignore[reportPrivateUsage]
            runtime = get_runtime()
            data = open_record(runtime.keyring, runtime.namespace, record)
            if asked and record.task_key != asked:
                raise EnvelopeRejected(
                    f"Run {future.task_run_id} was sent to {asked!r}, but the broker has a result of "
                    f"{record.task_key!r} for it."
                )
        future._data = data  # pyright: ignore[reportPrivateUsage]
        if record.result is not None and len(record.result) > LARGE_BYTES:
            # Held once is enough. Last, because other threads decode what they find without data.
            future._final = record._replace(result=b"")  # pyright: ignore[reportPrivateUsage]
    return data


def current_state(future: Future) -> State[Any]:
    """Where the run stands now. Raises like ``PrefectDistributedFuture.state``."""
    if not future.done:
        answered = get_runtime().ask("run", future._id)  # pyright: ignore[reportPrivateUsage]
        answered.wait()
        record = RunState(**answer_of(answered))
        if not record.type:
            submission = future._submission  # pyright: ignore[reportPrivateUsage]
            if submission is not None and not submission.done:
                return Pending(message="No broker has accepted it yet.")
            raise expired(future)
        state = state_from_record(record, None)
        if not state.is_final():
            return state
        wait_all([future], None)  # the answer has no result; a WATCH gives it at once
    try:
        return final_state(future)
    except SerializationError:
        record = future._final  # pyright: ignore[reportPrivateUsage]
        return state_from_record(record, NO_RESULT) if record is not None else State(StateType.PENDING)


def expired(future: Future) -> Exception:
    """The error for a run that the broker has no record of: why it was refused, if it was."""
    submission = future._submission  # pyright: ignore[reportPrivateUsage]
    if submission is not None:
        refused = submission.errors.get(future._id)  # pyright: ignore[reportPrivateUsage]
        if refused is not None:
            return refused
    return RunExpired(
        f"The broker has no record of run {future.task_run_id}: it ended longer ago than results are kept "
        f"(result_ttl_seconds), or it was submitted to another broker or namespace."
    )


# -- questions ------------------------------------------------------------------------------------


def cancel(future: Future) -> bool:
    """See ``PrefectDistributedFuture.cancel``."""
    answered = get_runtime().cancel(future._id)  # pyright: ignore[reportPrivateUsage]
    answered.wait()
    return _cancelled(future, answered)


async def cancel_async(future: Future) -> bool:
    """``cancel`` for coroutines."""
    answered = get_runtime().cancel(future._id)  # pyright: ignore[reportPrivateUsage]
    await answered.wait_async()
    return _cancelled(future, answered)


def _cancelled(future: Future, answered: Answered) -> bool:
    status = answer_of(answered)["status"]
    if status == "unknown":
        raise expired(future)
    return status in ("cancelled", "cancelling")


def answer_of(answered: Answered) -> Any:
    """The value of an answer.

    Raises:
        BrokerError: There is none, or the broker refused.
    """
    if answered.error is not None:
        raise answered.error
    if not answered.ok:
        raise BrokerError(str(answered.value[1]))  # [code, sentence]
    return answered.value


def late_text(future: Future, timeout: float | None) -> str:
    """Why a run has not ended in time, in sentences."""
    answered = get_runtime().ask("why", future._id)  # pyright: ignore[reportPrivateUsage]
    answered.wait(WHY_SECONDS)
    return _late_text(future, timeout, answered)


async def late_text_async(future: Future, timeout: float | None) -> str:
    """``late_text`` for coroutines."""
    answered = get_runtime().ask("why", future._id)  # pyright: ignore[reportPrivateUsage]
    await answered.wait_async(WHY_SECONDS)
    return _late_text(future, timeout, answered)


def _late_text(future: Future, timeout: float | None, answered: Answered) -> str:
    text = f"Task run {future.task_run_id} did not complete within {timeout or 0:g} seconds."
    if not answered.ok:
        return f"{text} The broker did not say why: it can't be reached or did not answer."
    facts: dict[str, Any] = answered.value
    name = facts.get("name") or facts.get("state") or facts.get("type") or ""
    sentence = str(facts.get("sentence") or "")
    known = f" Its state is {name}." if name and str(name) not in sentence else ""
    return f"{text}{known} {sentence}".rstrip()


# -- callbacks ------------------------------------------------------------------------------------

_callbacks: concurrent.futures.ThreadPoolExecutor | None = None


def call_when_done(future: Future, fn: Callable[[Any], object]) -> None:
    """Call ``fn(future)``: now if its run is known to have ended, else later, in one thread of our own.

    Not on the client's loop thread: a slow callback would hold up everything that waits.
    """
    if future.done:
        _call(fn, future)
        return
    pool = _callback_pool()

    def ended(what: Future | Exception) -> None:
        if isinstance(what, Exception):
            logger.error("A callback of run %s will not be called: %s", future.task_run_id, what)
        else:
            pool.submit(_call, fn, future)

    collect([future], ended)


def _call(fn: Callable[[Any], object], future: Future) -> None:
    try:
        fn(future)
    except Exception:  # of the user's own code, and nobody is there to catch it
        logger.exception("A callback of run %s raised.", future.task_run_id)


def _callback_pool() -> concurrent.futures.ThreadPoolExecutor:
    global _callbacks
    if _callbacks is None:
        _callbacks = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="prefect-lite-callbacks")
    return _callbacks


def close_callbacks() -> None:
    """End the callback thread once it has nothing left to do."""
    global _callbacks
    pool, _callbacks = _callbacks, None
    if pool is not None:
        pool.shutdown()


def _after_fork() -> None:
    global _callbacks
    _callbacks = None  # its thread stayed in the parent


os.register_at_fork(after_in_child=_after_fork)
