"""What the engine adds to runs that keep something: results that are persisted, caches, transactions.

Each attempt of such a run is a transaction. If what an earlier run has kept under its key is there, that is
taken and the function is not called; else what the function returns is staged, and kept when the transaction
commits. Runs that keep nothing pay one question for all of this (``keeps``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from prefect_lite import clock
from prefect_lite.cache_keys import cache_key, effective_policy
from prefect_lite.context import TaskRunContext, active_transaction, current_context
from prefect_lite.exceptions import BrokerError, MissingResult, StorageError
from prefect_lite.lock_waits import LockWait
from prefect_lite.logging import get_run_logger
from prefect_lite.persistence import persists, refreshes
from prefect_lite.result_records import ResultRecord
from prefect_lite.results import ResultStore, store_for
from prefect_lite.retry_decisions import retried
from prefect_lite.run_ends import Outcome, judged
from prefect_lite.states import NO_RESULT, State, StateType
from prefect_lite.transactions import AsyncTransaction, BaseTransaction, IsolationLevel, Transaction

if TYPE_CHECKING:
    from prefect_lite.cache_policies import CachePolicy
    from prefect_lite.engine import Control
    from prefect_lite.thread_or_loop import Waits

_joining = threading.Lock()

NO_ERROR = "The attempt was stopped."


class Kept:
    """The transaction of one attempt.

    Attributes:
        transaction: It is the active one until ``closed``.
        store: Where the result goes; None: nowhere.
        key: Under which key; None: a new one.
        outcome: There is one already: an earlier run's result, or an error; the function is not to be called.
    """

    __slots__ = ("key", "outcome", "store", "transaction")

    def __init__(self, transaction: BaseTransaction, store: ResultStore | None, key: str | None) -> None:
        self.transaction = transaction
        self.store = store
        self.key = key
        self.outcome: Outcome | None = None


def opened(context: TaskRunContext, control: Control) -> Waits[Kept]:
    """Begin the transaction of an attempt, and look for an earlier result.

    The slot that the run has on a worker is lent while it waits for long for another run that has the key.
    """
    kept: Kept | None = None
    entered = False
    try:
        _join(context)
        kept = yield from _prepared(context)
        waiting = LockWait(context.lease, lambda: control.stop_reason() is not None)
        try:
            yield from kept.transaction.entering(waiting)
        finally:
            waiting.end()
        entered = True
        if kept.transaction.is_committed():
            yield from _taken(context, control, kept)
        return kept
    except Exception as exc:
        if kept is not None and entered:
            yield from _left(kept.transaction, exc, contained=True)
        return (yield from _not_opened(context, control, kept, exc))


def _join(context: TaskRunContext) -> None:
    """Make the task around a run with hooks a transaction, so that the hooks hear of its end.

    One without hooks is kept at once: what it has cached is there when the task around it is tried again.
    """
    if not (context.options.on_commit or context.options.on_rollback) or active_transaction.get() is not None:
        return
    around = context.enclosing
    while around is not None and not isinstance(around, TaskRunContext):
        around = around.enclosing
    if around is None:
        return
    with _joining:
        if around.transaction is None:
            around.transaction = _bare(around)
            _begun(around.transaction.entering)
        else:
            active_transaction.set(around.transaction)  # made in another thread or coroutine of the task


def _not_opened(
    context: TaskRunContext, control: Control, kept: Kept | None, error: Exception
) -> Waits[Kept]:
    alone = Kept(_bare(context), None, None)
    if control.stop_reason() is not None:
        yield from alone.transaction.entering()  # the attempt will not begin
    elif isinstance(error, (BrokerError, StorageError)) and not (kept and kept.transaction.is_serializable):
        # What can't be looked up is looked upon as not there: a cache that is away must not stop work.
        get_run_logger().warning("The run goes on without its cache: %s", error)
        yield from alone.transaction.entering()
    else:
        outcome = judged(context, None, error, None, outermost=True)
        alone.outcome = yield from retried(context, outcome)
    return alone


def _prepared(context: TaskRunContext) -> Waits[Kept]:
    if not persists(context):
        return Kept(_bare(context), None, None)
    store = yield from store_for(context)
    policy = effective_policy(context.options)
    key = cache_key(context)
    repeats = policy.may_repeat(context)
    context.task_run.cache_key = key
    if key is None and not repeats and store.is_brokers:
        # Nobody else can have this key, and the run's own record keeps its result in the same Redis.
        return Kept(_bare(context), None, None)
    kind = AsyncTransaction if context.definition.isasync else Transaction
    transaction = kind(
        key=key if key is not None else uuid4().hex,
        store=store,
        isolation_level=_level(policy) if key is not None else IsolationLevel.READ_COMMITTED,
        overwrite=key is None or not repeats or refreshes(context),
        write_on_commit=True,
        logger=get_run_logger(),
    )
    transaction.is_of_run = True
    return Kept(transaction, store, transaction.key)


def _level(policy: CachePolicy) -> IsolationLevel | None:
    return IsolationLevel(policy.isolation_level) if policy.isolation_level is not None else None


def _bare(context: TaskRunContext) -> BaseTransaction:
    """A transaction for hooks, and for those inside, that keeps nothing itself."""
    kind = AsyncTransaction if context.definition.isasync else Transaction
    return kind(write_on_commit=False, logger=get_run_logger())


def _taken(context: TaskRunContext, control: Control, kept: Kept) -> Waits[None]:
    """Take the earlier result as this run's, unless it turns out that there is none to be had."""
    transaction = kept.transaction
    try:
        record = yield from transaction.reading()
        value = (yield from record.getting()) if record is not None else None
    except (MissingResult, BrokerError, StorageError) as exc:
        get_run_logger().warning("The cached result can't be used, so the task runs: %s", exc)
        record = value = None
    if record is None:
        waiting = LockWait(context.lease, lambda: control.stop_reason() is not None)
        try:
            yield from transaction.reopening(waiting)
        finally:
            waiting.end()
        return
    state: State[Any] = State(StateType.COMPLETED, "Cached", state_details=context.run.details, data=record)
    reference = _reference(context, kept.store, record)
    kept.outcome = Outcome("completed", value, state=state, kept=record, reference=reference)
    yield from _left(transaction, None)


def _reference(
    context: TaskRunContext, store: ResultStore | None, record: ResultRecord[Any]
) -> dict[str, Any] | None:
    """Where the record is, for a run on a worker whose result is not in Redis."""
    if store is None or not record.is_persisted or context.lease is None or context.enclosing is not None:
        return None
    if store.is_brokers or store.metadata_storage is not None:
        return None
    from prefect_lite.stored_results import of_record

    try:
        return of_record(record, store.result_storage)
    except StorageError:  # only this process can read it there, so the value itself goes to the broker
        return None


def closed(context: TaskRunContext, kept: Kept, outcome: Outcome) -> Waits[Outcome]:
    """The function has ended: commit what it has returned, or roll back what was done inside.

    Args:
        context: The run.
        kept: What ``opened`` or ``demanded`` gave.
        outcome: How the attempt has ended.

    Returns:
        The outcome, with the record of the result if it is kept.
    """
    transaction, options = kept.transaction, context.options
    if outcome.kind != "completed":
        error = outcome.error or RuntimeError(outcome.message or NO_ERROR)
        # What is tried again is no failure of the transaction around it.
        yield from _left(transaction, error, contained=outcome.kind == "retry")
        return outcome
    value = outcome.value if outcome.state is None else outcome.state.data
    staged: Any = None if value is NO_RESULT else value
    record: ResultRecord[Any] | None = None
    try:
        if kept.store is not None:
            staged = record = kept.store.create_result_record(staged, kept.key, _expiration(context))
        transaction.stage(staged, list(options.on_rollback or ()), list(options.on_commit or ()))
    except Exception as exc:
        yield from _left(transaction, exc)
        return judged(context, None, exc, None, outermost=True)
    yield from _left(transaction, None)
    if record is None:
        return outcome
    state: State[Any] | None = outcome.state
    if state is None:
        state = State(StateType.COMPLETED, "Completed", state_details=context.run.details, data=record)
    return outcome._replace(state=state, kept=record, reference=_reference(context, kept.store, record))


def broken_off(transaction: BaseTransaction, error: BaseException) -> Waits[None]:
    """The attempt was left by what is no failure of its function, such as Ctrl-C: roll back."""
    yield from _left(transaction, error)


def _left(
    transaction: BaseTransaction, error: BaseException | None, *, contained: bool = False
) -> Waits[None]:
    """End a transaction; what goes wrong with that is no failure of the run, whose work is done."""
    try:
        yield from transaction.leaving(error, contained)
    except Exception:
        get_run_logger().exception("The transaction of the run could not be ended.")


def _expiration(context: TaskRunContext) -> datetime | None:
    lasting = context.options.cache_expiration
    return clock.now() + lasting if lasting is not None else None


def on_demand() -> BaseTransaction | None:
    """The transaction of the current task run, made now if it has none; None outside of task runs."""
    context = current_context()
    if not isinstance(context, TaskRunContext):
        return None
    if context.transaction is None:
        transaction = context.transaction = _bare(context)
        _begun(transaction.entering)
    return context.transaction


def demanded(context: TaskRunContext) -> Kept:
    """The transaction that ``on_demand`` has made; it is the run's no more."""
    transaction, context.transaction = context.transaction, None
    assert transaction is not None
    return Kept(transaction, None, None)


def at_the_end(context: TaskRunContext) -> Waits[Kept]:
    """A transaction for a run that has ended already; the one that its code has asked for, if it did."""
    if context.transaction is not None:
        return demanded(context)
    kept = Kept(_bare(context), None, None)
    yield from kept.transaction.entering()
    return kept


def _begun(entering: Callable[[], Waits[None]]) -> None:
    """Enter a transaction that keeps nothing: there is nothing to wait for."""
    for _ in entering():
        raise AssertionError("a transaction without a key has waited for something")
