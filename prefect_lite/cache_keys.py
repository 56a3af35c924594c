"""The key under which a run's result is kept for others, and found again."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from prefect_lite.cache_policies import DEFAULT, NO_CACHE, Arguments, CachePolicy
from prefect_lite.exceptions import ConfigurationError, HashError, OptionTypeError
from prefect_lite.hashing import hash_objects
from prefect_lite.logging import get_run_logger

if TYPE_CHECKING:
    from prefect_lite.context import TaskRunContext
    from prefect_lite.options import Options

MAX_PLAIN_KEY = 200
"""Bytes. A key is the name of a file in some storages; longer ones are replaced by their hash."""


@dataclass
class StorageKey(CachePolicy):
    """``result_storage_key``: the key is what the template makes.

    Attributes:
        template: The option.
        found_again: Later runs take what is there.
    """

    template: str = ""
    found_again: bool = True

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: Arguments, flow_parameters: Arguments, **kwargs: Any
    ) -> str | None:
        return filled_template(self.template, inputs)

    def may_repeat(self, task_ctx: TaskRunContext) -> bool:
        return self.found_again


def effective_policy(options: Options) -> CachePolicy:
    """The policy of a task, as its options say together.

    ``persist_result=False`` means no caching; ``result_storage_key`` goes before ``cache_key_fn``, and that
    before ``cache_policy``, which still says how they are configured.

    Raises:
        OptionTypeError: ``cache_policy`` is no policy.
    """
    given = options.cache_policy
    if given is not None and not isinstance(given, CachePolicy):
        raise OptionTypeError(
            f"`cache_policy` must be a cache policy such as INPUTS, got {type(given).__name__} instead: "
            f"{given!r}. Your own is a class that inherits from prefect_lite.cache_policies.CachePolicy."
        )
    if options.persist_result is False:
        return NO_CACHE
    policy: CachePolicy
    if options.result_storage_key is not None:
        policy = StorageKey(template=options.result_storage_key, found_again=given != NO_CACHE)
    elif options.cache_key_fn is not None:
        policy = CachePolicy.from_cache_key_fn(options.cache_key_fn)
    else:
        return given if given is not None else DEFAULT
    if given is not None:
        policy.key_storage, policy.lock_manager = given.key_storage, given.lock_manager
        policy.isolation_level = given.isolation_level
    return policy


def cache_key(context: TaskRunContext) -> str | None:
    """The key of a run: under it a result is looked up, and kept.

    A key that can't be made is an error in the run's log, and the run goes on without.

    Returns:
        The key; None if no other run is to find the result.

    Raises:
        ConfigurationError: The template of ``result_storage_key`` can't be filled in, or ``cache_policy`` is
            no policy.
    """
    policy = effective_policy(context.options)
    if isinstance(policy, StorageKey):
        return policy.compute_key(context, context.parameters, {})
    if not policy.may_repeat(context):
        return None
    flow = context.flow_context
    try:
        key = policy.compute_key(
            task_ctx=context,
            inputs=context.parameters,
            flow_parameters=flow.parameters if flow is not None else {},
        )
    except HashError as exc:
        get_run_logger().error(_UNHASHABLE, exc)
        return None
    except (Exception, SystemExit):
        get_run_logger().exception(_RAISED, _maker(policy))
        return None
    return _usable(key, policy)


_NOT_CACHED: Final = "Error encountered when computing cache key - the result of this run is not cached."
_UNHASHABLE: Final = (
    f'{_NOT_CACHED} %s Leave the argument out of the key with cache_policy=INPUTS - "its name", make a key '
    "without it in a cache_key_fn, or do without a cache with cache_policy=NO_CACHE."
)
_RAISED: Final = f"{_NOT_CACHED} %s raised an exception."
_WRONG: Final = f"{_NOT_CACHED} %s returned %s instead of text or None: %r."


def filled_template(template: str, parameters: dict[str, Any]) -> str:
    """What ``result_storage_key`` makes for the current run.

    Args:
        template: With ``{parameters[x]}`` and attributes of ``{task_run.…}`` and ``{flow_run.…}``.
        parameters: The run's arguments by name.

    Raises:
        ConfigurationError: It names something else, makes nothing, or is no template.
    """
    from prefect_lite.runtime import flow_run, task_run

    try:
        key = template.format(parameters=parameters, task_run=task_run, flow_run=flow_run)
    except Exception as exc:  # the arguments' own code runs here and may raise anything
        problem = f"{type(exc).__name__}: {exc}"
    else:
        if key:
            return key
        problem = "it makes an empty key"
    names = ", ".join(parameters) or "(none)"
    raise ConfigurationError(
        f"result_storage_key={template!r} can't be filled in: {problem}. It may use parameters[name], of "
        f"these: {names}; and the attributes of task_run and flow_run that prefect_lite.runtime has."
    )


def _usable(key: object, policy: CachePolicy) -> str | None:
    if key is None or key == "":
        return None
    if not isinstance(key, str):
        if inspect.iscoroutine(key):
            key.close()  # else Python warns that nobody has awaited it
        get_run_logger().error(_WRONG, _maker(policy), type(key).__name__, key)
        return None
    if _names_a_file(key):
        return key
    return cast("str", hash_objects("key", key, raise_on_failure=True))


def _names_a_file(key: str) -> bool:
    """Whether a storage of files can have it as a name inside of its folder."""
    parts = key.split("/")
    unusual = "\0" in key or "\\" in key or any(part in ("", ".", "..") for part in parts)
    return not unusual and len(key.encode(errors="surrogatepass")) <= MAX_PLAIN_KEY and key.isprintable()


def _maker(policy: CachePolicy) -> str:
    function = getattr(policy, "cache_key_fn", None)
    if function is not None:
        return f"The cache_key_fn {getattr(function, '__qualname__', function)!r}"
    return f"The cache policy {type(policy).__name__}"
