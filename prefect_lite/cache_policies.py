"""What makes two runs the same, so that the second can take the result of the first.

A policy makes a key of a run: of its task's source, its arguments, its flow run. Policies add up
(``TASK_SOURCE + INPUTS``), and arguments can be left out (``INPUTS - "debug"``).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, TypeVar, cast

from prefect_lite.exceptions import ConfigurationError, OptionTypeError
from prefect_lite.hashing import hash_arguments, hash_objects
from prefect_lite.option_checks import check_object

if TYPE_CHECKING:
    from prefect_lite.context import TaskRunContext
    from prefect_lite.filesystems import WritableFileSystem
    from prefect_lite.locking.protocol import LockManager
    from prefect_lite.transactions import IsolationLevel

__all__ = [
    "DEFAULT",
    "FLOW_PARAMETERS",
    "INPUTS",
    "NONE",
    "NO_CACHE",
    "RUN_ID",
    "TASK_SOURCE",
    "CacheKeyFnPolicy",
    "CachePolicy",
    "CompoundCachePolicy",
    "FlowParameters",
    "Inputs",
    "RunId",
    "TaskSource",
]

P = TypeVar("P", bound="CachePolicy")

KeyStorage: TypeAlias = "WritableFileSystem | str | Path"
Level: TypeAlias = "IsolationLevel | Literal['READ_COMMITTED', 'SERIALIZABLE']"
CacheKeyFn: TypeAlias = "Callable[[TaskRunContext, dict[str, Any]], str | None]"

Arguments: TypeAlias = dict[str, Any]

_LEVELS = ("READ_COMMITTED", "SERIALIZABLE")


@dataclass
class CachePolicy:
    """Base of all policies, and of your own: those define ``compute_key``.

    Attributes:
        key_storage: Where the records of cached results are, if not beside the results: a storage or a path.
        isolation_level: ``SERIALIZABLE``: runs with one key run one after the other, so that only the first
            really does. None: ``READ_COMMITTED``, where those that start before one has ended all run.
        lock_manager: Of what locks ``SERIALIZABLE`` makes use. None: files' for runs in this process, the
            broker's for runs on workers.
    """

    key_storage: KeyStorage | None = None
    isolation_level: Level | None = None
    lock_manager: LockManager | None = None

    @classmethod
    def from_cache_key_fn(cls, cache_key_fn: CacheKeyFn) -> CacheKeyFnPolicy:
        """A policy whose key is what ``cache_key_fn(context, arguments)`` returns; None is no key."""
        return CacheKeyFnPolicy(cache_key_fn=cache_key_fn)

    def configure(
        self,
        key_storage: KeyStorage | None = None,
        lock_manager: LockManager | None = None,
        isolation_level: Level | None = None,
    ) -> Self:
        """The same policy with these; what is None stays as it is.

        Args:
            key_storage: Where the records of cached results are.
            lock_manager: What ``SERIALIZABLE`` locks keys with.
            isolation_level: ``READ_COMMITTED`` or ``SERIALIZABLE``, by its name or as ``IsolationLevel``.

        Raises:
            ConfigurationError: One of them can't be meant.
        """
        if key_storage is not None:
            check_object("key_storage", key_storage, or_text=True)
        if lock_manager is not None and not callable(getattr(lock_manager, "acquire_lock", None)):
            raise OptionTypeError(
                f"`lock_manager` must be a lock manager, got {type(lock_manager).__name__} instead: "
                f"{lock_manager!r}."
            )
        if isolation_level is not None and _plain(isolation_level) not in _LEVELS:
            raise ConfigurationError(
                f"`isolation_level` must be READ_COMMITTED or SERIALIZABLE, got {isolation_level!r}."
            )
        return _configured(self, key_storage, isolation_level, lock_manager)

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: Arguments, flow_parameters: Arguments, **kwargs: Any
    ) -> str | None:
        """The key of a run.

        Args:
            task_ctx: Context of the run.
            inputs: Its arguments by parameter name, defaults included.
            flow_parameters: Those of the flow run around it in this process; empty without one.
            **kwargs: For what later versions may add.

        Returns:
            The key; None if this policy has nothing to say about the run.

        Raises:
            HashError: An argument can't be hashed.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no compute_key().")

    def may_repeat(self, task_ctx: TaskRunContext) -> bool:
        """Whether another run can have the key of this one; else nothing is looked up."""
        return True

    def __add__(self, other: CachePolicy) -> CachePolicy:
        """Both: runs are the same if they are for each of the two.

        Raises:
            ConfigurationError: They are configured differently.
        """
        if not isinstance(cast("object", other), CachePolicy):
            return NotImplemented
        if isinstance(other, _None):
            return self
        if isinstance(self, _None):
            return other
        return CompoundCachePolicy(policies=[self, other])

    def __sub__(self, other: str) -> CachePolicy:
        """The same policy without the argument ``other`` in its key.

        Raises:
            OptionTypeError: It is no name.
        """
        if not isinstance(cast("object", other), str):
            raise OptionTypeError(
                f"Can only subtract strings from cache policies: names of arguments, as in "
                f'INPUTS - "debug"; got {other!r}.'
            )
        return self._without(other)

    def _without(self, name: str) -> CachePolicy:
        return self


@dataclass
class CacheKeyFnPolicy(CachePolicy):
    """The key is what a function makes of a run.

    Attributes:
        cache_key_fn: Called with the run's context and its arguments by name.
    """

    cache_key_fn: CacheKeyFn | None = None

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: Arguments, flow_parameters: Arguments, **kwargs: Any
    ) -> str | None:
        return self.cache_key_fn(task_ctx, inputs) if self.cache_key_fn is not None else None


@dataclass
class CompoundCachePolicy(CachePolicy):
    """A sum of policies. Those that have no key for a run are left out; if none has, there is none.

    Attributes:
        policies: The parts, without sums among them. All ``Inputs`` are one, with all that they leave out.
    """

    policies: list[CachePolicy] = field(default_factory=list[CachePolicy])

    def __post_init__(self) -> None:
        parts = [part for policy in self.policies for part in _parts(policy)]
        self.key_storage = _agreed(self, self.policies, "key_storage", "storage locations")
        self.isolation_level = _agreed(self, self.policies, "isolation_level", "isolation levels")
        self.lock_manager = _agreed(self, self.policies, "lock_manager", "lock implementations")
        of_inputs = [part for part in parts if isinstance(part, Inputs)]
        self.policies = [_bare(part) for part in parts if not isinstance(part, Inputs)]
        if of_inputs:
            names = dict.fromkeys(name for part in of_inputs for name in part.exclude)
            self.policies.append(Inputs(exclude=list(names)))

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: Arguments, flow_parameters: Arguments, **kwargs: Any
    ) -> str | None:
        keys = [
            policy.compute_key(task_ctx=task_ctx, inputs=inputs, flow_parameters=flow_parameters, **kwargs)
            for policy in self.policies
        ]
        if all(key is None for key in keys):
            return None
        return hash_objects("sum", keys, raise_on_failure=True)

    def may_repeat(self, task_ctx: TaskRunContext) -> bool:
        parts = [policy for policy in self.policies if not isinstance(policy, _None)]
        return bool(parts) and all(policy.may_repeat(task_ctx) for policy in parts)

    def _without(self, name: str) -> CachePolicy:
        changed = copy.copy(self)
        changed.policies = [policy - name for policy in self.policies]
        return changed


@dataclass
class _None(CachePolicy):
    """No caching."""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: Arguments, flow_parameters: Arguments, **kwargs: Any
    ) -> str | None:
        return None

    def may_repeat(self, task_ctx: TaskRunContext) -> bool:
        return False


@dataclass
class TaskSource(CachePolicy):
    """The source of the task's function, without what it calls: changed code does not find old results."""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: Arguments, flow_parameters: Arguments, **kwargs: Any
    ) -> str | None:
        from prefect_lite.task_sources import source_hash

        return source_hash(task_ctx.task.fn)


@dataclass
class FlowParameters(CachePolicy):
    """The arguments of the flow around the run in this process."""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: Arguments, flow_parameters: Arguments, **kwargs: Any
    ) -> str | None:
        return hash_arguments("flow parameters", flow_parameters) if flow_parameters else None


@dataclass
class RunId(CachePolicy):
    """The id of the flow run, so that only runs within one take each other's results; else the run's own."""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: Arguments, flow_parameters: Arguments, **kwargs: Any
    ) -> str | None:
        run = task_ctx.task_run
        return str(run.flow_run_id if run.flow_run_id is not None else run.id)

    def may_repeat(self, task_ctx: TaskRunContext) -> bool:
        return task_ctx.task_run.flow_run_id is not None


@dataclass
class Inputs(CachePolicy):
    """The run's arguments, and nothing else: runs of two tasks may have the same.

    Attributes:
        exclude: Names of arguments that are left out.
    """

    exclude: list[str] = field(default_factory=list[str])

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: Arguments, flow_parameters: Arguments, **kwargs: Any
    ) -> str | None:
        if not inputs:
            return None
        return hash_arguments(
            "inputs", {name: value for name, value in inputs.items() if name not in self.exclude}
        )

    def _without(self, name: str) -> CachePolicy:
        changed = copy.copy(self)
        changed.exclude = [*self.exclude, name]
        return changed


def _parts(policy: CachePolicy) -> list[CachePolicy]:
    if isinstance(policy, CompoundCachePolicy):
        return policy.policies
    return [] if isinstance(policy, _None) else [policy]


def _agreed(whole: CachePolicy, parts: list[CachePolicy], name: str, what: str) -> Any:
    """What a sum is configured with: itself, or as its parts are."""
    found: Any = getattr(whole, name)
    if found is not None:
        return found
    for part in parts:
        value = getattr(part, name)
        if found is not None and value is not None and _plain(value) != _plain(found):
            raise ConfigurationError(
                f"Cannot add cache policies with different {what}: {found!r} and {value!r}. "
                f"Configure their sum instead, as in (INPUTS + TASK_SOURCE).configure({name}=...)."
            )
        found = value if found is None else found
    return found


def _configured(policy: P, storage: Any, level: Any, locks: Any) -> P:
    """A copy with these; None leaves what there is. Not made anew, as one may have an __init__ of its own."""
    changed = copy.copy(policy)
    changed.key_storage = storage if storage is not None else policy.key_storage
    changed.isolation_level = level if level is not None else policy.isolation_level
    changed.lock_manager = locks if locks is not None else policy.lock_manager
    return changed


def _bare(policy: CachePolicy) -> CachePolicy:
    """Without what its sum is configured with."""
    if policy.key_storage is policy.isolation_level is policy.lock_manager is None:
        return policy
    bare = copy.copy(policy)
    bare.key_storage = bare.isolation_level = bare.lock_manager = None
    return bare


def _plain(value: Any) -> Any:
    """An isolation level by its name, whichever way it was given."""
    return getattr(value, "value", value)


INPUTS: Final = Inputs()
"""Runs with the same arguments are the same, of whatever task."""
NONE: Final = _None()
"""Nothing is cached."""
NO_CACHE: Final = _None()
"""Nothing is cached."""
TASK_SOURCE: Final = TaskSource()
"""Runs of the same code are the same."""
FLOW_PARAMETERS: Final = FlowParameters()
"""Runs in flows with the same arguments are the same."""
RUN_ID: Final = RunId()
"""Runs in one flow run are the same."""
DEFAULT: Final = INPUTS + TASK_SOURCE + RUN_ID
"""Runs in one flow run, of the same code with the same arguments, are the same."""
