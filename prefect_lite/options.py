"""Task options: every one is declared here and nowhere else.

``TaskOptions`` is the public TypedDict for ``Unpack``; ``Options`` is what a task keeps, with the defaults.
A test holds their field lists and types equal. ``@task`` and ``with_options`` borrow the parameter list of
``Options`` through a ParamSpec: a misspelt option is a type error, and at run time a ``ConfigurationError``.

Meaning of ``None``: "not set", for each option as its paragraph says. Durations are seconds.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, cast

from prefect_lite.exceptions import ConfigurationError, OptionNotPortable

if TYPE_CHECKING:
    from prefect_lite.states import State

    StateHook: TypeAlias = Callable[[Any, Any, State[Any]], Any]
else:
    StateHook = Callable[..., Any]

TransactionHook: TypeAlias = Callable[[Any], Any]
RetryCondition: TypeAlias = Callable[[Any, Any, Any], bool]
RetryDelays: TypeAlias = float | Sequence[float] | Callable[[int], list[float]] | None

MAX_RETRY_DELAYS = 50


class TaskOptions(TypedDict, total=False):
    """All options of a task, for ``**kwargs: Unpack[TaskOptions]``; see ``Options`` for their meaning."""

    name: str | None
    description: str | None
    tags: Iterable[str] | None
    version: str | None
    key: str | None
    aliases: Iterable[str]
    retries: int
    retry_delay_seconds: RetryDelays
    retry_jitter_factor: float | None
    retry_condition_fn: RetryCondition | None
    timeout_seconds: float | None
    log_prints: bool | None
    task_run_name: str | Callable[..., str] | None
    result_ttl_seconds: float | None
    max_lost: int | None
    stop_on_lost_contact: bool
    persist_result: bool | None
    result_storage: Any
    result_storage_key: str | None
    result_serializer: Any
    cache_policy: Any
    cache_key_fn: Callable[[Any, dict[str, Any]], str | None] | None
    cache_expiration: timedelta | None
    refresh_cache: bool | None
    viz_return_value: Any
    asset_deps: Sequence[Any] | None
    on_running: Sequence[StateHook] | None
    on_completion: Sequence[StateHook] | None
    on_failure: Sequence[StateHook] | None
    on_commit: Sequence[TransactionHook] | None
    on_rollback: Sequence[TransactionHook] | None


@dataclass(frozen=True, kw_only=True)
class AttributeOptions:
    """The options that a task shows as attributes under their own name (``task.retries``).

    Attributes:
        description: For people. Defaults to the function's docstring.
        tags: Labels of every run; shown and searchable.
        version: Of the task's definition, for the record.
        aliases: Older keys that a worker serving this task also serves.
        retries: How often a failed run is tried again. Default 0. Lost workers are not counted here.
        retry_delay_seconds: Wait before a retry: one number for all, a list with one per retry (the last
            repeats), or a callable that makes that list from ``retries``. At most 50. None: no wait.
        retry_jitter_factor: Lengthen each delay by a random share of up to this factor. None: exact delays.
        retry_condition_fn: Called with (task, run, state) after a failure; False ends the run as failed.
        timeout_seconds: Longest duration of one attempt; then it fails as ``TimedOut``. None: no limit.
        log_prints: Send ``print`` inside the task to the run's log. None: no.
        task_run_name: Name of a run: a template over the arguments (``"load-{table}"``) or a callable.
        result_ttl_seconds: How long the ended run's record is kept. None: the broker's setting (a day).
        max_lost: Lost leases after which a run is ``Crashed``. None: the broker's setting (3).
        stop_on_lost_contact: Stop a run whose worker has reached no broker for a whole lease, instead of
            letting it finish beside its replacement. Default False.
        persist_result: Keep the result in result storage. None: the default.
        result_storage, result_storage_key, result_serializer: Where and how a persisted result is kept.
        cache_policy, cache_key_fn, cache_expiration, refresh_cache: Reuse of earlier results.
        viz_return_value: Value that stands for the result when a flow is drawn.
        asset_deps: Assets that this task reads.
    """

    description: str | None = None
    tags: Iterable[str] | None = None
    version: str | None = None
    aliases: Iterable[str] = ()
    retries: int = 0
    retry_delay_seconds: RetryDelays = None
    retry_jitter_factor: float | None = None
    retry_condition_fn: RetryCondition | None = None
    timeout_seconds: float | None = None
    log_prints: bool | None = None
    task_run_name: str | Callable[..., str] | None = None
    result_ttl_seconds: float | None = None
    max_lost: int | None = None
    stop_on_lost_contact: bool = False
    persist_result: bool | None = None
    result_storage: Any = None
    result_storage_key: str | None = None
    result_serializer: Any = None
    cache_policy: Any = None
    cache_key_fn: Callable[[Any, dict[str, Any]], str | None] | None = None
    cache_expiration: timedelta | None = None
    refresh_cache: bool | None = None
    viz_return_value: Any = None
    asset_deps: Sequence[Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Options(AttributeOptions):
    """All options of a task.

    Attributes:
        name: Label for people, may repeat. Defaults to the function's name.
        key: What a run names its task by. Defaults to ``module.qualname``; must be unique in a worker.
        on_running, on_completion, on_failure: Called with (task, run, state) when a run gets there.
        on_commit, on_rollback: Called with the transaction.
    """

    name: str | None = None
    key: str | None = None
    on_running: Sequence[StateHook] | None = None
    on_completion: Sequence[StateHook] | None = None
    on_failure: Sequence[StateHook] | None = None
    on_commit: Sequence[TransactionHook] | None = None
    on_rollback: Sequence[TransactionHook] | None = None

    def __post_init__(self) -> None:
        _check_texts(self)
        _check_numbers(self)
        _check_callables(self)
        for name in ("tags", "aliases", *HOOKS):  # fixed here, whatever happens to the caller's list later
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, frozenset(value) if name == "tags" else tuple(value))
        self.retry_delays()

    def retry_delays(self) -> tuple[float, ...]:
        """The configured delays in seconds, one or more; retry n (from 0) takes ``delays[min(n, last)]``.

        Raises:
            ConfigurationError: Too many, negative, or no numbers.
        """
        delays: Any = self.retry_delay_seconds
        if delays is None:
            return (0.0,)
        if callable(delays):
            delays = delays(self.retries)
        if not isinstance(delays, Iterable):
            delays = (delays,)
        listed: tuple[Any, ...] = tuple(cast("Iterable[Any]", delays))
        if len(listed) > MAX_RETRY_DELAYS:
            raise ConfigurationError(
                f"retry_delay_seconds has {len(listed)} delays; at most {MAX_RETRY_DELAYS}."
            )
        for delay in listed:
            _require_number("retry_delay_seconds", delay, minimum=0)
        return tuple(float(delay) for delay in listed) or (0.0,)

    def changed(self, changes: Mapping[str, Any]) -> Options:
        """A copy with ``changes``.

        Raises:
            ConfigurationError: An option that does not exist, or an impossible value.
        """
        check_names(changes)
        return dataclasses.replace(self, **changes)


HOOKS = ("on_running", "on_completion", "on_failure", "on_commit", "on_rollback")
OPTION_NAMES = frozenset(field.name for field in dataclasses.fields(Options))
ATTRIBUTE_NAMES = frozenset(field.name for field in dataclasses.fields(AttributeOptions))

# They say which task runs, or matter only where the task was changed.
_STAY_HERE = frozenset({"key", "aliases", "description", "viz_return_value"})
_PLAIN = (type(None), bool, int, float, str)


def check_names(options: Mapping[str, Any]) -> None:
    """Refuse options that don't exist, naming the nearest one that does."""
    for name in options:
        if name not in OPTION_NAMES:
            import difflib

            near = difflib.get_close_matches(name, OPTION_NAMES, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigurationError(f"There is no task option {name!r}.{hint}")


def travelling(changes: Mapping[str, Any], task_name: str) -> dict[str, Any]:
    """The changed options as plain data that goes with a run; ``applied`` is the inverse.

    Raises:
        OptionNotPortable: One of them is a callable or another object that only this process has.
    """
    plain: dict[str, Any] = {}
    for name, value in changes.items():
        if name in _STAY_HERE:
            continue
        if isinstance(value, timedelta):
            plain[name] = value.total_seconds()
        elif isinstance(value, (list, tuple, set, frozenset)):
            items = cast("Iterable[Any]", value)
            plain[name] = sorted(items) if name == "tags" else list(items)
        else:
            plain[name] = value
        items = plain[name] if isinstance(plain[name], list) else [plain[name]]
        if not all(type(item) in _PLAIN for item in items):
            raise OptionNotPortable(
                f"{task_name!r} was given {name}={value!r} by with_options(), which can't travel with a run. "
                f"Set it where the task is defined, so that the worker has it too."
            )
    return plain


def applied(options: Options, travelled: Mapping[str, Any]) -> Options:
    """``options`` with what came along with a run; names this version does not know are left out."""
    if not travelled:
        return options
    changes = {name: value for name, value in travelled.items() if name in OPTION_NAMES - _STAY_HERE}
    if changes.get("cache_expiration") is not None:
        changes["cache_expiration"] = timedelta(seconds=changes["cache_expiration"])
    return dataclasses.replace(options, **changes)


def _require_number(
    name: str, value: Any, *, minimum: float, above: bool = False, whole: bool = False
) -> None:
    kind: Any = numbers.Integral if whole else numbers.Real
    fits = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or value < minimum or (above and value == minimum):
        what = "a whole number" if whole else "a number"
        bound = f"above {minimum:g}" if above else f"of at least {minimum:g}"
        raise ConfigurationError(f"{name} must be {what} {bound}, got {value!r}.")


def _check_numbers(options: Options) -> None:
    _require_number("retries", options.retries, minimum=0, whole=True)
    if options.retry_jitter_factor is not None:
        _require_number("retry_jitter_factor", options.retry_jitter_factor, minimum=0)
    if options.timeout_seconds is not None:
        _require_number("timeout_seconds", options.timeout_seconds, minimum=0, above=True)
    if options.result_ttl_seconds is not None:
        _require_number("result_ttl_seconds", options.result_ttl_seconds, minimum=0, above=True)
    if options.max_lost is not None:
        _require_number("max_lost", options.max_lost, minimum=0, whole=True)
    expiration: Any = options.cache_expiration
    if expiration is not None and not isinstance(expiration, timedelta):
        raise ConfigurationError(f"cache_expiration must be a timedelta, got {expiration!r}.")


def _check_texts(options: Options) -> None:
    for name in ("name", "description", "version", "key", "result_storage_key"):
        value = getattr(options, name)
        if value is not None and not isinstance(value, str):
            raise ConfigurationError(f"{name} must be a string, got {value!r}.")
    for name in ("tags", "aliases"):
        value: Any = getattr(options, name)
        if value is None:
            continue
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise ConfigurationError(f"{name} must be a collection of strings, got {value!r}.")
        for item in cast("Iterable[Any]", value):
            if not isinstance(item, str):
                raise ConfigurationError(f"{name} must be a collection of strings, got {item!r} in it.")


def _check_callables(options: Options) -> None:
    for name in ("retry_condition_fn", "cache_key_fn"):
        value = getattr(options, name)
        if value is not None and not callable(value):
            raise ConfigurationError(f"{name} must be callable, got {value!r}.")
    run_name: Any = options.task_run_name
    if run_name is not None and not isinstance(run_name, str) and not callable(run_name):
        raise ConfigurationError(f"task_run_name must be a string or a callable, got {run_name!r}.")
    for name in HOOKS:
        hooks: Any = getattr(options, name)
        if hooks is None:
            continue
        if isinstance(hooks, str) or not isinstance(hooks, Iterable):
            raise ConfigurationError(f"{name} must be a list of callables, got {hooks!r}.")
        for hook in cast("Iterable[Any]", hooks):
            if not callable(hook):
                raise ConfigurationError(f"{name} must be a list of callables, got {hook!r} in it.")
