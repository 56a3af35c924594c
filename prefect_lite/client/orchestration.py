"""Looking at runs: ``get_client()``.

Runs on workers are asked for at the broker, over the connection that the process has anyway; the newest runs
of this process itself are in ``run_history``. Each method is a short program that says what it wants to know;
one driver waits for the answers in a thread, the other in a coroutine.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterable
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self, TypeVar, cast, overload
from uuid import UUID

from prefect_lite import run_history, waiting
from prefect_lite.client.requests import Answered
from prefect_lite.client.run_records import record_of, state_of, states_of
from prefect_lite.client.runtime import get_runtime, may_have_runs
from prefect_lite.exceptions import BrokerError, ObjectNotFound, PrefectException
from prefect_lite.futures import PrefectDistributedFuture
from prefect_lite.run_ids import parse_run_id
from prefect_lite.runs import FlowRun, TaskRun
from prefect_lite.states import NO_RESULT, State, StateType

T = TypeVar("T")

DEFAULT_LIMIT: Final = 200
"""Runs that a list has unless it says otherwise."""


class Question(NamedTuple):
    """A QUERY to the broker; the program goes on with the value of its ANSWER."""

    what: str
    arg: Any


class Result(NamedTuple):
    """How a run has ended; the program goes on with its value or exception, or with ``NO_RESULT``."""

    run_id: str


Steps = Generator[Question | Result, Any, T]


def _record(run_id: str) -> Steps[dict[str, Any] | None]:
    """What the broker knows of a run; None for nothing, which it is not started for to say."""
    return (yield Question("record", run_id)) if may_have_runs() else None


def _read_task_run(run_id: UUID | str) -> Steps[TaskRun]:
    wanted = parse_run_id(run_id)
    own = run_history.get(wanted)
    if isinstance(own, TaskRun):
        return own
    fields = yield from _record(wanted)
    if fields is None:
        raise _not_found(wanted)
    record = record_of(fields)
    if record.end_time_ns:
        data = yield Result(wanted)
        record.state = state_of(fields, data)
    return record


def _read_task_run_states(run_id: UUID | str) -> Steps[list[State[Any]]]:
    wanted = parse_run_id(run_id)
    own = run_history.get(wanted)
    if isinstance(own, TaskRun):
        return own.states
    fields = yield from _record(wanted)
    if fields is None:
        return []
    data = (yield Result(wanted)) if fields["ended_ms"] else NO_RESULT
    return states_of(fields, data)


def _read_flow_run(run_id: UUID | str) -> Steps[FlowRun]:
    wanted = parse_run_id(run_id)
    own = run_history.get(wanted)
    yield from ()
    if not isinstance(own, FlowRun):
        raise ObjectNotFound(
            f"There is no record of flow run {UUID(wanted)}: only the process that ran it has one, while it "
            f"is among the newest {run_history.LIMIT:,} runs."
        )
    return own


def _not_found(run_id: str) -> ObjectNotFound:
    return ObjectNotFound(
        f"There is no record of task run {UUID(run_id)}: it ended longer ago than records are kept "
        f"(result_ttl_seconds), belongs to another broker or namespace, or was no run of a worker but "
        f"of another process."
    )


class Wanted(NamedTuple):
    """Which runs a list is to have; see ``PrefectClient.read_task_runs``."""

    task_key: str | None
    states: frozenset[str]
    tags: frozenset[str]
    since: datetime | None
    until: datetime | None
    limit: int | None
    offset: int

    @property
    def most(self) -> int | None:
        """So many of the newest are enough."""
        return None if self.limit is None else self.limit + self.offset

    def fits(self, record: TaskRun) -> bool:
        """Whether a run of this process is one of them."""
        state = record.state
        created = record.created
        return (
            (self.task_key is None or record.task_key == self.task_key)
            and (
                not self.states or (state is not None and bool(self.states & {state.type.value, state.name}))
            )
            and self.tags <= record.tags
            and (self.since is None or created >= self.since)
            and (self.until is None or created <= self.until)
        )

    def arg(self, position: str) -> dict[str, Any]:
        """Of QUERY ``runs``."""
        asked: dict[str, Any] = {
            "position": position,
            "states": sorted(self.states),
            "tags": sorted(self.tags),
        }
        if self.task_key is not None:
            asked["task_key"] = self.task_key
        if self.since is not None:
            asked["since_ms"] = max(0, int(self.since.timestamp() * 1000))
        if self.until is not None:
            asked["until_ms"] = max(0, int(self.until.timestamp() * 1000))
        return asked


def _wanted(
    task_key: str | None,
    state: StateType | str | Iterable[StateType | str] | None,
    tags: str | Iterable[str] | None,
    since: datetime | None,
    until: datetime | None,
    limit: int | None,
    offset: int,
) -> Wanted:
    for name, moment in (("since", since), ("until", until)):
        if moment is not None and (not isinstance(cast("Any", moment), datetime) or moment.tzinfo is None):
            raise ValueError(f"{name} must be an aware datetime, like datetime.now(UTC), not {moment!r}.")
    for name, number in (("limit", 0 if limit is None else limit), ("offset", offset)):
        if not isinstance(cast("Any", number), int) or number < 0:
            raise ValueError(f"{name} must be a whole number and not negative, got {number!r}.")
    if not isinstance(cast("Any", task_key), str | None):
        raise ValueError(f"task_key must be the key of a task, like add.task_key, got {task_key!r}.")
    return Wanted(task_key, _words("state", state), _words("tags", tags), since, until, limit, offset)


def _words(name: str, given: Any) -> frozenset[str]:
    words: Any = [given] if isinstance(given, str) else () if given is None else given
    if not isinstance(words, Iterable) or isinstance(words, type):
        raise ValueError(f"{name} must be a text, or several of them, got {given!r}.")
    found = list(cast("Iterable[Any]", words))
    for one in found:
        if not isinstance(one, str):
            raise ValueError(f"{name} must be a text, or several of them, got {one!r} in it.")
    return frozenset(map(str, found))


def _read_task_runs(wanted: Wanted) -> Steps[list[TaskRun]]:
    found: dict[str, TaskRun] = {}
    for record in run_history.recent():
        if isinstance(record, TaskRun) and wanted.fits(record):
            found[record.run_id] = record
    position = "" if may_have_runs() else None
    while position is not None:
        page = yield Question("runs", wanted.arg(position))
        some = list(page["runs"])
        for run_id in page["ids"]:
            fields = yield Question("record", run_id)
            if fields is not None:
                some.append(fields)
        for fields in some:
            record = record_of(fields)
            found.setdefault(record.run_id, record)  # one may come twice
        position = page["next"]
        if wanted.most is not None and len(found) > 2 * wanted.most + DEFAULT_LIMIT:
            found = {record.run_id: record for record in _newest(found.values(), wanted.most)}
    return _newest(found.values(), wanted.most)[wanted.offset :]


def _newest(records: Iterable[TaskRun], count: int | None) -> list[TaskRun]:
    """By the time when they were made, the newest first."""
    if count is None:
        return sorted(records, key=_age)
    return heapq.nsmallest(count, records, key=_age)


def _age(record: TaskRun) -> tuple[float, str]:
    return -record.created.timestamp(), record.run_id


# -- the two drivers ----------------------------------------------------------------------------------


def _drive(steps: Steps[T]) -> T:
    answer: Any = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as end:
            return end.value
        if isinstance(step, Question):
            answered = get_runtime().ask(*step)
            answered.wait()
            answer = _answer_of(answered)
        else:
            future = PrefectDistributedFuture[Any](step.run_id)
            waiting.wait_all([future], None)
            answer = _data(future)


async def _adrive(steps: Steps[T]) -> T:
    answer: Any = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as end:
            return end.value
        if isinstance(step, Question):
            answered = get_runtime().ask(*step)
            await answered.wait_async()
            answer = _answer_of(answered)
        else:
            future = PrefectDistributedFuture[Any](step.run_id)
            await waiting.wait_all_async([future], None)
            answer = _data(future)


def _answer_of(answered: Answered) -> Any:
    if answered.error is None and not answered.ok and answered.value[0] == "unknown_query":
        raise BrokerError(
            "The broker can't be asked for records of runs: it is older than this client. Update it (a local "
            "one: `prefect-lite broker stop`, the next use starts another)."
        )
    return waiting.answer_of(answered)


def _data(future: PrefectDistributedFuture[Any]) -> Any:
    try:
        return waiting.final_state(future).data
    except PrefectException:
        return NO_RESULT  # it can't be decoded here, or is gone by now; the rest of the record counts


# -- for users ----------------------------------------------------------------------------------------


class PrefectClient:
    """What is known of runs, for coroutines; works with and without ``async with``."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """The connection is the process's and stays."""

    async def read_task_run(self, task_run_id: UUID | str) -> TaskRun:
        """A task run: on a worker, or among the newest of this process.

        The state of a run on a worker that has ended has its result.

        Args:
            task_run_id: A UUID.

        Raises:
            ObjectNotFound: There is no record of it.
            ValueError: ``task_run_id`` is no UUID.
            BrokerUnreachable: No broker answered.
        """
        return await _adrive(_read_task_run(task_run_id))

    async def read_task_run_states(self, task_run_id: UUID | str) -> list[State[Any]]:
        """The states that a task run was in, in order; none for a run that there is no record of.

        Raises like ``read_task_run``. Of a run on a worker: ``Scheduled``, ``Running``, ``AwaitingRetry`` and
        ``Retrying`` for its retries (the last 50 or so), and how it ended.
        """
        return await _adrive(_read_task_run_states(task_run_id))

    async def read_task_runs(
        self,
        *,
        task_key: str | None = None,
        state: StateType | str | Iterable[StateType | str] | None = None,
        tags: str | Iterable[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = DEFAULT_LIMIT,
        offset: int = 0,
    ) -> list[TaskRun]:
        """Task runs on workers, and the newest of this process; without results.

        The broker keeps no index for this: it looks through all its records, a few at a time. Where none has
        ever run none is started.

        Args:
            task_key: Of this task only.
            state: Of this type (``"FAILED"``, ``StateType.FAILED``) or name (``"TimedOut"``), or one of them.
            tags: With this tag, or all of these.
            since: Made at this time or later; aware.
            until: Made at this time or before; aware.
            limit: So many at most; None for all.
            offset: Leave out so many of the newest.

        Returns:
            The newest first.

        Raises:
            ValueError: A time is naive, a number negative, or something of a wrong type.
            BrokerUnreachable: No broker answered.
            BrokerError: Its store is away.
        """
        return await _adrive(_read_task_runs(_wanted(task_key, state, tags, since, until, limit, offset)))

    async def read_flow_run(self, flow_run_id: UUID | str) -> FlowRun:
        """A flow run of this process, while it is among the newest runs.

        Raises:
            ObjectNotFound: It is not.
            ValueError: ``flow_run_id`` is no UUID.
        """
        return _drive(_read_flow_run(flow_run_id))


class SyncPrefectClient:
    """The same for functions; each method is that of ``PrefectClient``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """The connection is the process's and stays."""

    def read_task_run(self, task_run_id: UUID | str) -> TaskRun:
        """See ``PrefectClient.read_task_run``."""
        return _drive(_read_task_run(task_run_id))

    def read_task_run_states(self, task_run_id: UUID | str) -> list[State[Any]]:
        """See ``PrefectClient.read_task_run_states``."""
        return _drive(_read_task_run_states(task_run_id))

    def read_task_runs(
        self,
        *,
        task_key: str | None = None,
        state: StateType | str | Iterable[StateType | str] | None = None,
        tags: str | Iterable[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = DEFAULT_LIMIT,
        offset: int = 0,
    ) -> list[TaskRun]:
        """See ``PrefectClient.read_task_runs``."""
        return _drive(_read_task_runs(_wanted(task_key, state, tags, since, until, limit, offset)))

    def read_flow_run(self, flow_run_id: UUID | str) -> FlowRun:
        """See ``PrefectClient.read_flow_run``."""
        return _drive(_read_flow_run(flow_run_id))


@overload
def get_client(*, sync_client: Literal[False] = False) -> PrefectClient: ...
@overload
def get_client(*, sync_client: Literal[True]) -> SyncPrefectClient: ...
@overload
def get_client(*, sync_client: bool) -> PrefectClient | SyncPrefectClient: ...
def get_client(*, sync_client: bool = False) -> PrefectClient | SyncPrefectClient:
    """A client that looks at runs.

    Args:
        sync_client: Its methods are functions; else they are coroutine functions.

    Example:
        async with get_client() as client:
            run = await client.read_task_run(future.task_run_id)
    """
    return SyncPrefectClient() if sync_client else PrefectClient()
