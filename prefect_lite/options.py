"""Task options: every one is declared here and nowhere else.

``TaskOptions`` is the public TypedDict for ``Unpack``; ``Options`` is what a task keeps, with the defaults.
A test holds their field lists and types equal. ``@task`` and ``with_options`` borrow the parameter list of
``Options`` through a ParamSpec: a misspelt option is a type error, and at run time a ``ConfigurationError``.

Meaning of ``None``: "not set", for each option as its paragraph says. Durations are seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, cast

from prefect_lite.exceptions import OptionNotPortable
from prefect_lite.option_checks import (
    assets,
    check_callable,
    check_duration,
    check_names,
    check_number,
    check_object,
    check_policy,
    check_run_name,
    check_switch,
    check_text,
    hooks,
    retry_delays,
    texts,
)

if TYPE_CHECKING:
    from prefect_lite.states import State

    StateHook: TypeAlias = Callable[[Any, Any, State[Any]], Any]
else:
    StateHook = Callable[..., Any]

TransactionHook: TypeAlias = Callable[[Any], Any]
RetryCondition: TypeAlias = Callable[[Any, Any, Any], bool | Awaitable[bool]]
RetryDelays: TypeAlias = float | Sequence[float] | Callable[[int], list[float]] | None


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
    cache_result_in_memory: bool
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
        version: Of the task's definition, for the record.
        aliases: Older keys that a worker serving this task also serves.
        retries: How often a failed run is tried again. Default 0. Lost workers are not counted here.
        retry_jitter_factor: Spread each delay to both sides by a random share of up to this. None: not.
        retry_condition_fn: Called with (task, run, state) after a failure; False ends the run as failed.
        timeout_seconds: Longest duration of one attempt; then it fails as ``TimedOut``. None or 0: no limit.
        log_prints: Send ``print`` inside the task to the run's log. None: no.
        task_run_name: Name of a run: a template over the arguments (``"load-{table}"``, ``"{user.name}"``),
            or a callable; one with a parameter called ``parameters`` gets the arguments in it, by name.
        result_ttl_seconds: How long the ended run's record is kept. None: the broker's setting (a day).
        max_lost: Lost leases after which a run is ``Crashed``. None: the broker's setting (3).
        stop_on_lost_contact: Stop a run whose worker has reached no broker for a whole lease, instead of
            letting it finish beside its replacement. Default False.
        persist_result: Keep the result in result storage. None: yes if one of the options for caches and
            results below is set, else as the flow around it or the setting ``persist_results`` says (no).
            False: no caching either.
        result_storage: Where: a storage, a path, a URL, or the name of a saved one
            (``local-file-system/my-storage``), which is looked up when a run needs it. None: the flow's, else
            the setting's; see docs/results.md.
        result_storage_key: Under which key: a template over ``parameters``, ``task_run`` and ``flow_run``.
            A later run finds what an earlier one has kept there. None: the cache key, else a new one.
        result_serializer: How: ``pickle``, ``json``, ``compressed/pickle``, or a serializer. None: the
            flow's, else pickle.
        cache_result_in_memory: False: a persisted result is read from its storage whenever it is asked for.
        cache_policy: What makes two runs the same, so that the second takes the result of the first.
            None: task, inputs and flow run, where results are persisted.
        cache_key_fn: Called with (context, arguments); its text is the key, None is none. Wins over
            ``cache_policy``.
        cache_expiration: How long a result may be taken by other runs. None: for ever.
        refresh_cache: True: run, and replace what is there. None: as the setting ``refresh_cache`` says (no).
        viz_return_value: Value that stands for the result when a flow is drawn.
        asset_deps: Assets that this task reads.
    """

    description: str | None = None
    version: str | None = None
    aliases: Iterable[str] = ()
    retries: int = 0
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
    cache_result_in_memory: bool = True
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
        tags: Labels of every run, beside those of the ``tags(...)`` context it starts in. Default none.
        retry_delay_seconds: Wait before a retry: one number for all, a list with one per retry (the last
            repeats), or a callable that makes that list from ``retries``. At most 50. None: no wait.
        on_running, on_completion, on_failure: Called with (task, run, state) when a run gets there.
        on_commit: Called with the transaction before the result is kept; after the run, or when the
            transaction around it commits.
        on_rollback: Called with the transaction when one around the run fails after it.
    """

    name: str | None = None
    key: str | None = None
    tags: Iterable[str] | None = None
    retry_delay_seconds: RetryDelays = None
    on_running: Sequence[StateHook] | None = None
    on_completion: Sequence[StateHook] | None = None
    on_failure: Sequence[StateHook] | None = None
    on_commit: Sequence[TransactionHook] | None = None
    on_rollback: Sequence[TransactionHook] | None = None

    # Two more, which follow from these. Every run asks, so they are no properties, nor fields of the class.
    persists = cast("bool | None", None)
    """Whether results are persisted, as far as the options say; None leaves it to the flow around."""
    keeps = cast("bool", False)
    """Whether each run of the task is a transaction: it persists, or has hooks for them."""

    def __post_init__(self) -> None:
        values = self.__dict__
        for name, fix in _FIXES.items():
            value = values[name]
            if value is not None and value is not _CLEARED.get(name):
                values[name] = fix(name, value)  # fixed, whatever happens to the caller's list later
        for name, cleared in _CLEARED.items():
            if values[name] is None:
                values[name] = cleared
        values["_delays"] = retry_delays(self.retry_delay_seconds, self.retries)
        persists = self.persist_result
        if persists is None and any(values[name] is not None for name in _ASK_FOR_IT):
            persists = True if values["cache_policy"] is None else _wants_cache(self) or None
        values["persists"] = persists
        values["keeps"] = bool(persists or self.on_commit or self.on_rollback)

    def retry_delays(self) -> tuple[float, ...]:
        """The configured delays in seconds, one or more; retry n (from 0) takes ``delays[min(n, last)]``."""
        return self.__dict__["_delays"]

    def changed(self, changes: Mapping[str, Any]) -> Options:
        """A copy with ``changes``.

        Raises:
            ConfigurationError: An option that does not exist, or an impossible value.
        """
        check_names(changes, OPTION_NAMES)
        return dataclasses.replace(self, **changes)


_ASK_FOR_IT = ("cache_policy", "cache_key_fn", "result_storage", "result_storage_key", "result_serializer")


def _wants_cache(options: Options) -> bool:
    """Whether any of those options but ``NO_CACHE`` is set."""
    from prefect_lite.cache_policies import NO_CACHE

    others = (getattr(options, name) for name in _ASK_FOR_IT[1:])
    return options.cache_policy != NO_CACHE or any(value is not None for value in others)


HOOKS = ("on_running", "on_completion", "on_failure", "on_commit", "on_rollback")
OPTION_NAMES = frozenset(field.name for field in dataclasses.fields(Options))
ATTRIBUTE_NAMES = frozenset(field.name for field in dataclasses.fields(AttributeOptions))

# They say which task runs, or matter only where the task was changed.
_STAY_HERE = frozenset({"key", "aliases", "description", "viz_return_value"})
_OBJECTS = frozenset({"asset_deps", "cache_policy", "result_serializer", "result_storage"})
"""Those that ``portable_options.py`` describes as plain data."""
_PLAIN = (type(None), bool, int, float, str)


def travelling(changes: Mapping[str, Any], task_name: str) -> dict[str, Any]:
    """The changed options as plain data that goes with a run; ``applied`` is the inverse.

    Raises:
        OptionNotPortable: One of them is a callable or another object that only this process has.
    """
    plain: dict[str, Any] = {}
    for name, value in changes.items():
        if name in _STAY_HERE:
            continue
        if name in _OBJECTS and value is not None and not isinstance(value, str):
            from prefect_lite.portable_options import as_plain

            try:
                plain[name] = as_plain(name, value)
            except TypeError as exc:
                raise _not_portable(task_name, name, value) from exc
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
            raise _not_portable(task_name, name, value)
    return plain


def _not_portable(task_name: str, name: str, value: Any) -> OptionNotPortable:
    return OptionNotPortable(
        f"{task_name!r} was given {name}={value!r} by with_options(), which can't travel with a run. "
        f"Set it where the task is defined, so that the worker has it too."
    )


def applied(options: Options, travelled: Mapping[str, Any]) -> Options:
    """``options`` with what came along with a run; names this version does not know are left out."""
    if not travelled:
        return options
    changes = {name: value for name, value in travelled.items() if name in OPTION_NAMES - _STAY_HERE}
    if changes.get("cache_expiration") is not None:
        changes["cache_expiration"] = timedelta(seconds=changes["cache_expiration"])
    for name in _OBJECTS & changes.keys():
        if isinstance(changes[name], dict):
            from prefect_lite.portable_options import from_plain

            changes[name] = from_plain(name, changes[name])
    new = dataclasses.replace(options, **changes)
    for name in ("assets", "materialized_by"):  # they are no options of all tasks, but travel with these
        if name in travelled:
            new.__dict__[f"_{name}"] = travelled[name]
    return new


Fix: TypeAlias = Callable[[str, Any], Any]


def _checked(check: Callable[..., None], **how: Any) -> Fix:
    def fix(name: str, value: Any) -> Any:
        check(name, value, **how)
        return value

    return fix


def _listed(_name: str, value: Any) -> Any:
    return tuple(cast("Sequence[Any]", value)) if isinstance(value, list) else value


def _labels(name: str, value: Any) -> frozenset[str]:
    return frozenset(texts(name, value))


def _limit(name: str, value: Any) -> Any:
    check_number(name, value)
    return value or None  # no time at all means no limit


_TEXT = _checked(check_text)
_COUNT = _checked(check_number, whole=True)
_SWITCH = _checked(check_switch)
_CALLABLE = _checked(check_callable)

_FIXES: dict[str, Fix] = {
    **dict.fromkeys(("name", "description", "version", "key", "result_storage_key"), _TEXT),
    **dict.fromkeys(("retries", "max_lost"), _COUNT),
    **dict.fromkeys(("log_prints", "stop_on_lost_contact", "cache_result_in_memory"), _SWITCH),
    **dict.fromkeys(("persist_result", "refresh_cache"), _SWITCH),
    **dict.fromkeys(("retry_condition_fn", "cache_key_fn"), _CALLABLE),
    **dict.fromkeys(HOOKS, hooks),
    **dict.fromkeys(("result_storage", "result_serializer"), _checked(check_object, or_text=True)),
    "cache_policy": _checked(check_policy),
    "tags": _labels,
    "aliases": texts,
    "asset_deps": assets,
    "retry_delay_seconds": _listed,
    "retry_jitter_factor": _checked(check_number),
    "timeout_seconds": _limit,
    "task_run_name": _checked(check_run_name),
    "result_ttl_seconds": _checked(check_number, above=True),
    "cache_expiration": _checked(check_duration),
}
"""What becomes of each option's value, unless it is None. Options that are not here may be anything."""

_CLEARED: dict[str, Any] = {
    "retries": 0,
    "tags": frozenset(),
    "aliases": (),
    "stop_on_lost_contact": False,
    "cache_result_in_memory": True,
}
"""What None means where it means something else."""
