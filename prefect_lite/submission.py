"""From a call to a durable run: bind, encode, sign, send, wait for the broker's word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast

from prefect_lite.client.requests import Submission
from prefect_lite.client.runtime import Runtime, get_runtime
from prefect_lite.envelope import CALL, fingerprint, pack_options, seal
from prefect_lite.exceptions import (
    BatchError,
    ConfigurationError,
    PayloadTooLarge,
    SerializationError,
)
from prefect_lite.futures import PrefectDistributedFuture, PrefectFuture, PrefectFutureList
from prefect_lite.protocol.messages import Submit
from prefect_lite.run_ids import new_run_id, parse_run_id, run_id_for
from prefect_lite.serializers import MSGPACK, canonical_call, encode, encode_call, pack_call
from prefect_lite.upstreams import aresolve, await_all, has_futures, resolve, wait_all

if TYPE_CHECKING:
    from uuid import UUID

    from prefect_lite.batch import batch
    from prefect_lite.tasks import Task

CHUNK_RUNS: Final = 500
WINDOW_CHUNKS: Final = 16
"""Chunks of a ``map`` that may be unacknowledged at a time: it can't flood the broker's write queue."""

current_batch: ContextVar[batch | None] = ContextVar("prefect_lite_batch", default=None)


class SendConditions(TypedDict, total=False):
    """When and how a run is to be executed. Nothing given: at once.

    ``countdown``: seconds to wait first. ``eta``: the same as a point in time, an aware datetime.
    ``expires``: seconds from now, or an aware datetime, after which a run that has not started is cancelled.
    ``priority``: 0 (default) to 9, higher first. ``idempotency_key``: a second run of the task with the same
    key is the first one, until a day after its end. ``run_id``: the id to give the run.
    """

    countdown: float | None
    eta: datetime | None
    expires: float | datetime | None
    priority: int
    idempotency_key: str | None
    run_id: UUID | str | None


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
        self.options = pack_options(task.travelling_options)
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
    wait_for: Iterable[PrefectFuture[Any]] | None = None,
    dependencies: Mapping[str, Any] | None = None,
) -> PrefectDistributedFuture[Any]:
    """Make a run durable and return its future. Raises what ``Task.delay`` says."""
    args, prepared = _begin(task, args, kwargs)
    if wait_for or dependencies:
        wait_all((wait_for, dependencies))
    encoded = _encode(task, prepared, args, kwargs)
    if encoded is None:
        args, kwargs = resolve(args, kwargs)
        encoded = _encode(task, prepared, args, kwargs, resolved=True)
    message = _message(task, prepared, encoded or (0, b""), conditions)
    submission, future = _post(prepared.runtime, message)
    open_batch = current_batch.get()
    if open_batch is not None and open_batch.add(submission, [future]):
        return future
    submission.wait()
    return _accepted(submission, future)


async def asend(
    task: Task[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    conditions: SendConditions | None = None,
    wait_for: Iterable[PrefectFuture[Any]] | None = None,
    dependencies: Mapping[str, Any] | None = None,
) -> PrefectDistributedFuture[Any]:
    """``send`` for coroutines."""
    args, prepared = _begin(task, args, kwargs)
    if wait_for or dependencies:
        await await_all((wait_for, dependencies))
    encoded = _encode(task, prepared, args, kwargs)
    if encoded is None:
        args, kwargs = await aresolve(args, kwargs)
        encoded = _encode(task, prepared, args, kwargs, resolved=True)
    message = _message(task, prepared, encoded or (0, b""), conditions)
    submission, future = _post(prepared.runtime, message)
    open_batch = current_batch.get()
    if open_batch is not None and open_batch.add(submission, [future]):
        return future
    await submission.wait_async()
    return _accepted(submission, future)


def _post(runtime: Runtime, message: Submit) -> tuple[Submission, PrefectDistributedFuture[Any]]:
    future = PrefectDistributedFuture.from_run_id(message.run_id, message.task_key)
    if not runtime.waited:
        return runtime.submit((message,)), future
    runtime.waited = False
    from prefect_lite.waiting import Collector

    collector = Collector(runtime, [future], watch=False)
    future._collector = collector  # pyright: ignore[reportPrivateUsage]
    return runtime.submit((message._replace(watch=True),), collector), future


def send_many(
    task: Task[..., Any], calls: Iterable[tuple[tuple[Any, ...], Mapping[str, Any]]]
) -> PrefectFutureList[Any]:
    """Make many runs durable, a few hundred to a frame.

    Args:
        task: The task; its bound instance, if any, is among the arguments already.
        calls: (args, kwargs) of each run; they bind.

    Raises:
        BatchError: Some were refused, or could not be sent; the others run, and are its ``futures``.
        Exception: What ``Task.delay`` raises, when it is the same for all, or before any was sent.
    """
    sending = _Sending(_prepare(task))
    try:
        for args, kwargs in calls:
            sending.add(_bulk_message(task, sending.prepared, args, kwargs))
    except Exception as exc:
        sending.stop_at(exc)
        raise
    sending.flush()
    open_batch = current_batch.get()
    if open_batch is None or not sending.join(open_batch):
        sending.wait()
        raise_refusals(sending.sent, sending.futures)
    return sending.futures


def _bulk_message(
    task: Task[..., Any], prepared: Prepared, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Submit:
    encoded = _encode(task, prepared, args, kwargs)
    if encoded is None:
        args, kwargs = resolve(args, kwargs)
        encoded = _encode(task, prepared, args, kwargs, resolved=True)
    return _message(task, prepared, encoded or (0, b""), None)


class _Sending:
    """Runs of one ``send_many`` on their way.

    Attributes:
        prepared: Of their task.
        futures: Of all runs so far, in order.
        sent: Their submissions, a chunk each.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.futures: PrefectFutureList[Any] = PrefectFutureList()
        self.sent: list[Submission] = []
        self._chunk: list[Submit] = []

    def add(self, message: Submit) -> None:
        self._chunk.append(message)
        self.futures.append(PrefectDistributedFuture.from_run_id(message.run_id, self.prepared.key))
        if len(self._chunk) == CHUNK_RUNS:
            self.flush()

    def flush(self) -> None:
        if self._chunk:
            self.sent.append(self.prepared.runtime.submit(tuple(self._chunk)))
            self._chunk.clear()
            if len(self.sent) > WINDOW_CHUNKS:
                self.sent[-WINDOW_CHUNKS - 1].wait()

    def wait(self) -> None:
        for submission in self.sent:
            submission.wait()

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
    runtime = get_runtime()
    prepared: Prepared | None = task.prepared
    if prepared is None or prepared.runtime is not runtime:
        prepared = task.prepared = Prepared(task, runtime)
    return prepared


def _encode(
    task: Task[..., Any],
    prepared: Prepared,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    resolved: bool = False,
) -> tuple[int, bytes] | None:
    """(codec, payload); None when there are futures among the arguments, to be resolved first."""
    plain = pack_call(args, kwargs)
    if plain is not None:
        return MSGPACK, plain
    if not resolved and has_futures(args, kwargs):
        return None
    allow_pickle = bool(prepared.keyring)
    try:
        return encode_call(args, kwargs, allow_pickle=allow_pickle)
    except SerializationError as exc:
        raise _named(task, args, kwargs, allow_pickle) or exc from exc


def _named(
    task: Task[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], allow_pickle: bool
) -> SerializationError | None:
    """The same error with the name of the parameter that causes it."""
    for name, value in task.binder.parameters(args, kwargs).items():
        try:
            encode(value, allow_pickle=allow_pickle)
        except SerializationError as exc:
            return SerializationError(f"Argument {name!r} of {task.name}() can't be sent. {exc}")
    return None


def _message(
    task: Task[..., Any],
    prepared: Prepared,
    encoded: tuple[int, bytes],
    conditions: SendConditions | None,
) -> Submit:
    codec, payload = encoded
    if conditions:
        run_id, timing = _conditions(prepared.key, conditions)
        print_ = fingerprint(prepared.key, codec, canonical_call(codec, payload))
    else:
        run_id, timing, print_ = new_run_id(), (0.0, 0.0, 0, ""), b""
    body = seal(
        prepared.keyring, CALL, prepared.namespace, prepared.key, run_id, codec, prepared.options, payload
    )
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
        [],
        prepared.tags,
    )


def _conditions(task_key: str, given: SendConditions) -> tuple[str, tuple[float, float, int, str]]:
    """(run id, (countdown seconds, expiry seconds, priority, idempotency key))"""
    unknown = set(given) - set(SendConditions.__annotations__)
    if unknown:
        raise TypeError(f"apply_async() got an unexpected keyword argument {unknown.pop()!r}")
    countdown = _seconds("countdown", given.get("countdown"))
    eta: Any = given.get("eta")
    if eta is not None:
        if countdown is not None:
            raise ConfigurationError("Give countdown or eta, not both.")
        countdown = max(0.0, _until("eta", eta))
    expires: Any = given.get("expires")
    if expires is not None:
        expires = (
            _until("expires", expires) if isinstance(expires, datetime) else _seconds("expires", expires)
        )
        if expires <= 0:
            raise ConfigurationError(f"expires must be in the future, got {given.get('expires')!r}.")
    priority: Any = given.get("priority", 0)
    if type(priority) is not int or not 0 <= priority <= 9:
        raise ConfigurationError(f"priority must be a whole number from 0 to 9, got {priority!r}.")
    key: Any = given.get("idempotency_key")
    if key is not None:
        _check_idempotency_key(key)
    asked = given.get("run_id")
    if asked is not None and key is not None:
        raise ConfigurationError("Give run_id or idempotency_key, not both: the key chooses the id.")
    if asked is not None:
        run_id = parse_run_id(asked)
    else:
        run_id = run_id_for(task_key, key) if key is not None else new_run_id()
    return run_id, (countdown or 0.0, cast("float", expires or 0.0), priority, key or "")


def _check_idempotency_key(key: Any) -> None:
    if not isinstance(key, str) or not 1 <= len(key) <= 512:
        raise ConfigurationError(f"An idempotency_key is a string of 1 to 512 characters, got {key!r}.")
    try:
        key.encode()
    except UnicodeEncodeError as exc:
        raise ConfigurationError(f"The idempotency_key {key!r} is no valid text: {exc.reason}.") from None


def _seconds(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 3e9:
        raise ConfigurationError(f"{name} must be a number of seconds, not negative, got {value!r}.")
    return float(value)


def _until(name: str, moment: Any) -> float:
    if not isinstance(moment, datetime) or moment.tzinfo is None or moment.utcoffset() is None:
        raise ConfigurationError(
            f"{name} must be an aware datetime, like datetime.now(UTC) + timedelta(hours=1), not {moment!r}."
        )
    return (moment - datetime.now(UTC)).total_seconds()


def _accepted(submission: Submission, future: PrefectDistributedFuture[Any]) -> PrefectDistributedFuture[Any]:
    if submission.errors:
        raise next(iter(submission.errors.values()))
    if submission.aliases:
        future.stand_for(next(iter(submission.aliases.values())))
    return future
