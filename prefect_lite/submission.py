"""From a call to a durable run: bind, encode, sign, send, wait for the broker's word."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast

from prefect_lite.belonging import Belonging, Place, belonging, is_anywhere, with_belonging
from prefect_lite.client.requests import Submission, wait_for_all
from prefect_lite.client.runtime import Runtime, get_runtime
from prefect_lite.conditions import SendConditions, parse_conditions, seconds_of
from prefect_lite.context import current_context
from prefect_lite.encoding import (
    MSGPACK,
    canonical_call,
    encode,
    encode_call,
    encode_linked_call,
    pack_call,
)
from prefect_lite.envelope import CALL, fingerprint, pack_options, seal
from prefect_lite.exceptions import (
    BatchError,
    PayloadTooLarge,
    SerializationError,
)
from prefect_lite.futures import PrefectDistributedFuture, PrefectFuture, PrefectFutureList
from prefect_lite.placeholders import ids_in
from prefect_lite.protocol.messages import Submit
from prefect_lite.run_ids import new_run_id
from prefect_lite.run_inputs import inputs_of, listed
from prefect_lite.upstreams import UNSETTLED, Found, Linked, alink, found_in, has_futures, link

if TYPE_CHECKING:
    from prefect_lite.batch import batch
    from prefect_lite.collecting import Collector
    from prefect_lite.tasks import Task
    from prefect_lite.utilities.annotations import allow_failure

CHUNK_RUNS: Final = 500
WINDOW_CHUNKS: Final = 16
"""Chunks of a ``map`` that may be unacknowledged at a time: it can't flood the broker's write queue."""

_NO_PARENTS: list[str] = []  # never changed; one for each run would be one more for the garbage collector

current_batch: ContextVar[batch | None] = ContextVar("prefect_lite_batch", default=None)


class Prepared:
    """What all runs of a task have in common, worked out once."""

    __slots__ = (
        "key",
        "keyring",
        "limit",
        "max_lost",
        "name",
        "namespace",
        "options",
        "runtime",
        "tags",
        "travelling",
        "ttl",
    )

    def __init__(self, task: Task[..., Any], runtime: Runtime) -> None:
        """Raises: OptionNotPortable: An option changed by ``with_options`` can't travel."""
        options = task.options
        self.runtime = runtime
        self.keyring = runtime.keyring
        self.namespace = runtime.namespace
        self.limit = runtime.settings.max_payload_bytes
        self.key = task.key
        self.travelling = task.travelling_options
        self.options = pack_options(self.travelling)
        # A name that the key already tells would only cost memory in Redis.
        self.name = "" if task.key.rpartition(".")[2] == task.name else task.name[:512]
        self.ttl = options.result_ttl_seconds or 0.0
        self.max_lost = -1 if options.max_lost is None else options.max_lost
        self.tags = sorted(options.tags or ())


def send(
    task: Task[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    conditions: SendConditions | None = None,
    wait_for: Iterable[PrefectFuture[Any] | allow_failure[Any]] | None = None,
    dependencies: Mapping[str, Any] | None = None,
    place: Place | None = None,
) -> PrefectDistributedFuture[Any]:
    """Make a run durable and return its future. Raises what ``Task.delay`` says."""
    args, prepared = _begin(task, args, kwargs)
    encoded = _encode(task, prepared, args, kwargs)
    if encoded is None or wait_for or dependencies:
        wait_for = listed(wait_for)  # it may be used up by looking
        linked = link(args, kwargs, found_in((wait_for, dependencies)))
        whose = _belonging(task, args, kwargs, wait_for, dependencies, place)
        message = _linked_message(task, prepared, linked, conditions, whose, watch=prepared.runtime.waited)
    else:
        whose = belonging({}, place) if place is not None or is_anywhere() else None
        message = _message(task, prepared, encoded, conditions, whose, watch=prepared.runtime.waited)
    runtime = prepared.runtime
    future, collector = _watched(runtime, message)
    submission = runtime.submit((message,), collector, _patience(runtime, conditions))
    if _left_to_batch(submission, future, message):
        return future
    submission.wait()
    return _accepted(submission, future)


async def asend(
    task: Task[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    conditions: SendConditions | None = None,
    wait_for: Iterable[PrefectFuture[Any] | allow_failure[Any]] | None = None,
    dependencies: Mapping[str, Any] | None = None,
    place: Place | None = None,
) -> PrefectDistributedFuture[Any]:
    """``send`` for coroutines."""
    args, prepared = _begin(task, args, kwargs)
    encoded = _encode(task, prepared, args, kwargs)
    if encoded is None or wait_for or dependencies:
        wait_for = listed(wait_for)  # it may be used up by looking
        linked = await alink(args, kwargs, found_in((wait_for, dependencies)))
        whose = _belonging(task, args, kwargs, wait_for, dependencies, place)
        message = _linked_message(task, prepared, linked, conditions, whose, watch=prepared.runtime.waited)
    else:
        whose = belonging({}, place) if place is not None or is_anywhere() else None
        message = _message(task, prepared, encoded, conditions, whose, watch=prepared.runtime.waited)
    runtime = prepared.runtime
    future, collector = _watched(runtime, message)
    submission = await runtime.submit_async((message,), collector, _patience(runtime, conditions))
    if _left_to_batch(submission, future, message):
        return future
    await submission.wait_async()
    return _accepted(submission, future)


def _left_to_batch(submission: Submission, future: PrefectDistributedFuture[Any], message: Submit) -> bool:
    """Whether an open batch takes over the wait."""
    open_batch = current_batch.get()
    if open_batch is None:
        return False
    if message.idempotency_key:
        UNSETTLED[message.run_id] = submission
    if open_batch.add(submission, [future]):
        return True
    UNSETTLED.pop(message.run_id, None)
    return False


def _watched(runtime: Runtime, message: Submit) -> tuple[PrefectDistributedFuture[Any], Collector | None]:
    """The future of a run, and whoever takes its end, if its SUBMIT asks for that."""
    future = PrefectDistributedFuture.from_run_id(message.run_id, message.task_key)
    if not message.watch:
        return future, None
    runtime.waited = False
    from prefect_lite.collecting import Collector

    collector = Collector(runtime, (future,), watch=False)
    future._collector = collector  # pyright: ignore[reportPrivateUsage]
    return future, collector


def _patience(runtime: Runtime, conditions: SendConditions | None) -> float:
    """Seconds that a run may wait for room."""
    given = seconds_of("queue_timeout", conditions.get("queue_timeout")) if conditions else None
    if given is None:
        open_batch = current_batch.get()
        given = open_batch.queue_timeout if open_batch is not None else None
    return runtime.queue_wait_seconds if given is None else given


def send_many(
    task: Task[..., Any],
    calls: Iterable[tuple[tuple[Any, ...], Mapping[str, Any]]],
    wait_for: Iterable[PrefectFuture[Any] | allow_failure[Any]] | None = None,
) -> PrefectFutureList[Any]:
    """Make many runs durable, a few hundred to a frame.

    Args:
        task: The task; its bound instance, if any, is among the arguments already.
        calls: (args, kwargs) of each run; they bind.
        wait_for: What all of them wait for.

    Raises:
        BatchError: Some were refused, or could not be sent; the others run, and are its ``futures``.
        Exception: What ``Task.delay`` raises, when it is the same for all, or before any was sent.
    """
    sending = _Sending(_prepare(task))
    wait_for = listed(wait_for)
    found = found_in(wait_for) if wait_for else None
    try:
        for args, kwargs in calls:
            sending.add(_bulk_message(task, sending, args, kwargs, wait_for, found))
    except Exception as exc:
        sending.stop_at(exc)
        raise
    sending.complete()
    open_batch = current_batch.get()
    if open_batch is None or not sending.join(open_batch):
        sending.wait()
        raise_refusals(sending.sent, sending.futures)
    return sending.futures


def _bulk_message(
    task: Task[..., Any],
    sending: _Sending,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    wait_for: Iterable[PrefectFuture[Any] | allow_failure[Any]] | None,
    found: Found | None,
) -> Submit:
    prepared, watch = sending.prepared, sending.watch
    encoded = _encode(task, prepared, args, kwargs)
    if encoded is None or found is not None:
        linked = link(args, kwargs, found or Found([]))
        whose = _belonging(task, args, kwargs, wait_for)
        return _linked_message(task, prepared, linked, None, whose, watch=watch)
    return _message(task, prepared, encoded, None, sending.belonging, watch=watch)


def _belonging(
    task: Task[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    wait_for: Any,
    dependencies: Mapping[str, Any] | None = None,
    place: Place | None = None,
) -> Belonging | None:
    """Where a run belongs that depends on others, and on which; to be asked once all of these have an id."""
    return belonging(inputs_of(task.binder.parameters(args, kwargs), wait_for, dependencies), place)


class _Sending:
    """Runs of one ``send_many`` on their way.

    Attributes:
        prepared: Of their task.
        futures: Of all runs so far, in order.
        sent: Their submissions, a chunk each.
        watch: Their SUBMITs are to ask for their ends.
        belonging: Where they belong, if they depend on nothing.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.futures: PrefectFutureList[Any] = PrefectFutureList()
        self.sent: list[Submission] = []
        self.watch = prepared.runtime.waited_for_many
        self.belonging = belonging({}) if is_anywhere() else None
        self._chunk: list[Submit] = []
        self._collector: Collector | None = None
        if self.watch:
            from prefect_lite.collecting import Collector

            prepared.runtime.waited_for_many = False
            self._collector = Collector(prepared.runtime, (), watch=False)

    def add(self, message: Submit) -> None:
        self._chunk.append(message)
        future = PrefectDistributedFuture.from_run_id(message.run_id, self.prepared.key)
        self.futures.append(future)
        if self._collector is not None:
            self._collector.expect(future)
        if len(self._chunk) == CHUNK_RUNS:
            self._flush()

    def complete(self) -> None:
        """There are no more."""
        self._flush()
        if self._collector is not None:
            self._collector.complete()

    def _flush(self) -> None:
        if self._chunk:
            runtime = self.prepared.runtime
            messages = tuple(self._chunk)
            self.sent.append(runtime.submit(messages, self._collector, _patience(runtime, None)))
            self._chunk.clear()
            if len(self.sent) > WINDOW_CHUNKS:
                self.sent[-WINDOW_CHUNKS - 1].wait()

    def wait(self) -> None:
        wait_for_all(self.sent)

    def join(self, open_batch: batch) -> bool:
        """Leave the wait to a batch; False when that has ended."""
        futures = cast("Sequence[PrefectDistributedFuture[Any]]", self.futures)
        starts = range(0, len(futures), CHUNK_RUNS)
        return all(
            open_batch.add(submission, futures[start : start + CHUNK_RUNS])
            for submission, start in zip(self.sent, starts, strict=True)
        )

    def stop_at(self, error: Exception) -> None:
        """The next call can't be sent: name the runs that were, unless there are none."""
        if not self.sent:
            return
        self.wait()
        count = len(self.futures)
        futures = self.futures[: count - len(self._chunk)]
        errors = _errors(self.sent)
        accepted = _accepted_of(futures, errors)
        raise BatchError(
            f"Call {count + 1} can't be sent, so {len(accepted)} runs were accepted and no more: {error}",
            errors,
            accepted,
        ) from error


def raise_refusals(submissions: Iterable[Submission], futures: Iterable[PrefectFuture[Any]]) -> None:
    """Raise for runs that were not accepted.

    Args:
        submissions: All of them settled.
        futures: Of all their runs.

    Raises:
        BatchError: Some runs were refused.
        Exception: The one refusal, when there is one reason for all runs.
    """
    errors = _errors(submissions)
    if not errors:
        return
    futures = list(futures)
    first = next(iter(errors.values()))
    if len(errors) == len(futures) and all(error is first for error in errors.values()):
        raise first
    raise BatchError(
        f"{len(errors)} of {len(futures)} runs were not accepted. The first: {first}",
        errors,
        _accepted_of(futures, errors),
    ) from first


def _errors(submissions: Iterable[Submission]) -> dict[str, Exception]:
    errors: dict[str, Exception] = {}
    for submission in submissions:
        errors.update(submission.errors)
    return errors


def _accepted_of(
    futures: Iterable[PrefectFuture[Any]], errors: Mapping[str, Exception]
) -> PrefectFutureList[Any]:
    return PrefectFutureList(
        future
        for future in futures
        if future._id not in errors  # pyright: ignore[reportPrivateUsage]
    )


def _begin(
    task: Task[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], Prepared]:
    if task.bound_to:
        args = (*task.bound_to, *args)
    task.binder.check(args, kwargs)
    return args, _prepare(task)


def _prepare(task: Task[..., Any]) -> Prepared:
    context = current_context()
    if context is not None and context.drawing is not None:
        context.drawing.refuse("apply_async")
    runtime = get_runtime()
    prepared: Prepared | None = task.prepared
    if prepared is None or prepared.runtime is not runtime:
        prepared = task.prepared = Prepared(task, runtime)
    return prepared


def _encode(
    task: Task[..., Any], prepared: Prepared, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[int, bytes] | None:
    """(codec, payload); None when there are futures among the arguments."""
    plain = pack_call(args, kwargs)
    if plain is not None:
        return MSGPACK, plain
    if has_futures(args, kwargs):
        return None
    return _encode_with(encode_call, task, prepared, args, kwargs)


def _encode_with(
    encode_: Callable[..., tuple[int, bytes]],
    task: Task[..., Any],
    prepared: Prepared,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> tuple[int, bytes]:
    allow_pickle = bool(prepared.keyring)
    try:
        return encode_(args, kwargs, allow_pickle=allow_pickle)
    except SerializationError as exc:
        raise _named(task, args, kwargs, allow_pickle) or exc from exc


def _named(
    task: Task[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], allow_pickle: bool
) -> SerializationError | None:
    """The same error with the name of the parameter that causes it."""
    for name, value in task.binder.parameters(args, kwargs).items():
        try:
            if allow_pickle or not ids_in((value,), {}):  # placeholders alone need no pickle
                encode(value, allow_pickle=allow_pickle)
        except SerializationError as exc:
            return SerializationError(f"Argument {name!r} of {task.name}() can't be sent. {exc}")
    return None


def _linked_message(
    task: Task[..., Any],
    prepared: Prepared,
    linked: Linked,
    conditions: SendConditions | None,
    whose: Belonging | None,
    *,
    watch: bool,
) -> Submit:
    """SUBMIT of a run that waits for others."""
    encode_ = encode_linked_call if linked.has_placeholders else encode_call
    encoded = _encode_with(encode_, task, prepared, linked.args, linked.kwargs)
    message = _message(task, prepared, encoded, conditions, whose, watch=watch)
    return message._replace(parents=linked.parents, tolerated=linked.tolerated)


def _message(
    task: Task[..., Any],
    prepared: Prepared,
    encoded: tuple[int, bytes],
    conditions: SendConditions | None,
    whose: Belonging | None,
    *,
    watch: bool,
) -> Submit:
    codec, payload = encoded
    if conditions:
        run_id, timing = parse_conditions(prepared.key, conditions)
        print_ = fingerprint(prepared.key, codec, canonical_call(codec, payload))
    else:
        run_id, timing, print_ = new_run_id(), (0.0, 0.0, 0, ""), b""
    options, tags, info = prepared.options, prepared.tags, b""
    if whose is not None:
        info = whose.packed
        options = pack_options(with_belonging(prepared.travelling, info))
        if whose.tags:
            tags = sorted(whose.tags.union(tags))
    body = seal(prepared.keyring, CALL, prepared.namespace, prepared.key, run_id, codec, options, payload)
    if len(body) > prepared.limit:
        raise PayloadTooLarge(
            f"The arguments of {task.name}() take {len(body):,} bytes, more than max_payload_bytes "
            f"({prepared.limit:,}). Pass a reference, such as a path or URL, instead.",
            run_id=run_id,
            code="payload_too_large",
        )
    return Submit(
        run_id,
        prepared.key,
        body,
        print_,
        prepared.name,
        *timing,
        prepared.ttl,
        prepared.max_lost,
        _NO_PARENTS,
        tags,
        watch,
        _NO_PARENTS,
        info,
    )


def _accepted(submission: Submission, future: PrefectDistributedFuture[Any]) -> PrefectDistributedFuture[Any]:
    if submission.errors:
        raise next(iter(submission.errors.values()))
    if submission.aliases:
        future.stand_for(next(iter(submission.aliases.values())))
    return future
