"""From a call to a durable run: bind, encode, sign, send, wait for the broker's word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from prefect_lite.serializers import MSGPACK, encode, encode_call, pack_call
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
        wait_all(_upstreams(wait_for, dependencies))
    encoded = _encode(task, prepared, args, kwargs)
    if encoded is None:
        args, kwargs = resolve(args, kwargs)
        encoded = _encode(task, prepared, args, kwargs, resolved=True)
    message = _message(task, prepared, encoded or (0, b""), conditions)
    submission, future = _post(prepared.runtime, message)
    open_batch = current_batch.get()
    if open_batch is not None:
        open_batch.add(submission, [future])
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
        await await_all(_upstreams(wait_for, dependencies))
    encoded = _encode(task, prepared, args, kwargs)
    if encoded is None:
        args, kwargs = await aresolve(args, kwargs)
        encoded = _encode(task, prepared, args, kwargs, resolved=True)
    message = _message(task, prepared, encoded or (0, b""), conditions)
    submission, future = _post(prepared.runtime, message)
    open_batch = current_batch.get()
    if open_batch is not None:
        open_batch.add(submission, [future])
        return future
    await submission.wait_async()
    return _accepted(submission, future)


def _post(runtime: Runtime, message: Submit) -> tuple[Submission, PrefectDistributedFuture[Any]]:
    future = PrefectDistributedFuture.from_run_id(message.run_id)
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
        BatchError: Some were refused; the others run.
        Exception: What ``Task.delay`` raises, when it is the same for all.
    """
    prepared = _prepare(task)
    futures: PrefectFutureList[Any] = PrefectFutureList()
    unanswered: list[Submission] = []
    sent: list[Submission] = []
    chunk: list[Submit] = []
    open_batch = current_batch.get()
    future_of = PrefectDistributedFuture.from_run_id

    def flush() -> None:
        submission = prepared.runtime.submit(tuple(chunk))
        chunk.clear()
        sent.append(submission)
        unanswered.append(submission)
        if len(unanswered) > WINDOW_CHUNKS:
            unanswered.pop(0).wait()

    for args, kwargs in calls:
        encoded = _encode(task, prepared, args, kwargs)
        if encoded is None:
            args, kwargs = resolve(args, kwargs)  # noqa: PLW2901
            encoded = _encode(task, prepared, args, kwargs, resolved=True)
        message = _message(task, prepared, encoded or (0, b""), None)
        chunk.append(message)
        futures.append(future_of(message.run_id))
        if len(chunk) == CHUNK_RUNS:
            flush()
    if chunk:
        flush()
    if open_batch is not None:
        for submission in sent:
            open_batch.add(submission, ())
        return futures
    for submission in unanswered:
        submission.wait()
    raise_refusals(sent, len(futures))
    return futures


def raise_refusals(submissions: Iterable[Submission], total: int) -> None:
    """Raise for runs that were not accepted.

    Raises:
        BatchError: Some of ``total`` runs were refused.
        Exception: The one refusal, when there is one reason for all runs.
    """
    errors: dict[str, Exception] = {}
    for submission in submissions:
        errors.update(submission.errors)
    if not errors:
        return
    first = next(iter(errors.values()))
    if len(errors) == total and all(error is first for error in errors.values()):
        raise first
    raise BatchError(
        f"{len(errors)} of {total} runs were not accepted. The first: {first}", errors
    ) from first


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
        print_ = fingerprint(prepared.key, codec, payload)
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
    key = given.get("idempotency_key")
    if key is not None and (not key or len(key) > 512):
        raise ConfigurationError("An idempotency_key has 1 to 512 characters.")
    asked = given.get("run_id")
    if asked is not None and key is not None:
        raise ConfigurationError("Give run_id or idempotency_key, not both: the key chooses the id.")
    if asked is not None:
        run_id = parse_run_id(asked)
    else:
        run_id = run_id_for(task_key, key) if key is not None else new_run_id()
    return run_id, (countdown or 0.0, cast("float", expires or 0.0), priority, key or "")


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


def _upstreams(
    wait_for: Iterable[PrefectFuture[Any]] | None, dependencies: Mapping[str, Any] | None
) -> list[PrefectFuture[Any]]:
    wanted: list[Any] = list(wait_for or ())
    for group in (dependencies or {}).values():
        wanted.extend(cast("Iterable[Any]", group) if isinstance(group, Iterable) else [group])
    return [future for future in wanted if isinstance(future, PrefectFuture)]


def _accepted(submission: Submission, future: PrefectDistributedFuture[Any]) -> PrefectDistributedFuture[Any]:
    if submission.errors:
        raise next(iter(submission.errors.values()))
    if submission.aliases:
        return PrefectDistributedFuture.from_run_id(next(iter(submission.aliases.values())))
    return future
