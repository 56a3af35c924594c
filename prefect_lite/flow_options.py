"""Flow options: every one is declared here and nowhere else.

``@flow`` and ``Flow.with_options`` borrow the parameter list of ``FlowOptions`` through a ParamSpec. The
engine reads the options of a flow run and of a task run by the same names; those that only tasks have are
constants of the class. ``None`` means "not set", durations are seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast

from prefect_lite.exceptions import ConfigurationError, InvalidNameError, OptionTypeError
from prefect_lite.option_checks import (
    check_names,
    check_number,
    check_object,
    check_run_name,
    check_switch,
    check_text,
    hooks,
)
from prefect_lite.task_runners import TaskRunner

if TYPE_CHECKING:
    from prefect_lite.states import State

    FlowStateHook: TypeAlias = Callable[[Any, Any, State[Any]], Any]
else:
    FlowStateHook = Callable[..., Any]

TaskRunnerOption: TypeAlias = TaskRunner | Executor | Callable[[], TaskRunner | Executor] | None

HOOKS = ("on_running", "on_completion", "on_failure", "on_cancellation", "on_crashed")
_BANNED = "/%&<>"  # in names, as they show up in addresses


@dataclass(frozen=True, kw_only=True)
class FlowOptions:
    """All options of a flow.

    Attributes:
        name: Defaults to the function's name with dashes for underscores.
        description: For people. Defaults to the function's docstring.
        version: Of the flow's definition, for the record.
        flow_run_name: Name of a run: a template over the parameters (``"load-{table}"``) or a callable.
        retries: How often a failed run is tried again. Default 0.
        retry_delay_seconds: Wait before each retry.
        task_runner: Where ``submit`` and ``map`` run tasks: a ``TaskRunner``, any
            ``concurrent.futures.Executor``, or a callable that makes one for each run. None: threads.
        timeout_seconds: Longest duration of one attempt; then it fails as ``TimedOut``. None: no limit.
        validate_parameters: Check arguments against the annotations, and convert them where pydantic does.
        log_prints: Send ``print`` inside the flow, and inside its tasks and flows that say nothing else, to
            the run's log. None: as the flow around it says, else no.
        persist_result: Keep results in result storage; its tasks and flows inherit it. None: the default.
        result_storage, result_serializer: Where and how persisted results are kept; inherited by its tasks.
        cache_result_in_memory: False: a persisted result is read from its storage whenever it is asked for.
        on_running, on_completion, on_failure, on_cancellation, on_crashed: Called with (flow, run, state)
            when a run gets there.
    """

    name: str | None = None
    description: str | None = None
    version: str | None = None
    flow_run_name: str | Callable[..., str] | None = None
    retries: int = 0
    retry_delay_seconds: float | None = None
    task_runner: TaskRunnerOption = None
    timeout_seconds: float | None = None
    validate_parameters: bool = True
    log_prints: bool | None = None
    persist_result: bool | None = None
    result_storage: Any = None
    result_serializer: Any = None
    cache_result_in_memory: bool = True
    on_running: Sequence[FlowStateHook] | None = None
    on_completion: Sequence[FlowStateHook] | None = None
    on_failure: Sequence[FlowStateHook] | None = None
    on_cancellation: Sequence[FlowStateHook] | None = None
    on_crashed: Sequence[FlowStateHook] | None = None

    retry_jitter_factor: ClassVar[None] = None
    retry_condition_fn: ClassVar[None] = None
    keeps: ClassVar[bool] = False

    @property
    def persists(self) -> bool | None:
        """Whether results are persisted, as far as the options say; None leaves it to the flow around."""
        if self.persist_result is None and not (self.result_storage is None is self.result_serializer):
            return True
        return self.persist_result

    def __post_init__(self) -> None:
        if cast("Any", self.retries) is None:  # as programs for Prefect may have it
            object.__setattr__(self, "retries", 0)
        for name in ("name", "description", "version"):
            _check_given(check_text, name, getattr(self, name))
        if self.name is not None:
            check_flow_name(self.name)
        _check_given(check_run_name, "flow_run_name", self.flow_run_name)
        check_number("retries", self.retries, whole=True)
        for name in ("retry_delay_seconds", "timeout_seconds"):
            _check_given(check_number, name, getattr(self, name))
        if self.timeout_seconds == 0:  # as in Prefect
            object.__setattr__(self, "timeout_seconds", None)
        for name in ("validate_parameters", "cache_result_in_memory"):
            check_switch(name, getattr(self, name))
        for name in ("log_prints", "persist_result"):
            _check_given(check_switch, name, getattr(self, name))
        for name in ("result_storage", "result_serializer"):
            check_object(name, getattr(self, name), or_text=True)
        _check_task_runner(self.task_runner)
        for name in HOOKS:  # fixed here, whatever happens to the caller's list later
            if getattr(self, name) is not None:
                object.__setattr__(self, name, hooks(name, getattr(self, name)))

    @property
    def task_run_name(self) -> str | Callable[..., str] | None:
        """What the engine names the run by."""
        return self.flow_run_name

    def retry_delays(self) -> tuple[float, ...]:
        """The wait before each retry in seconds, as ``Options.retry_delays`` gives it for tasks."""
        return (float(self.retry_delay_seconds or 0.0),)

    def changed(self, changes: Mapping[str, Any]) -> FlowOptions:
        """A copy with ``changes``.

        Raises:
            ConfigurationError: An option that does not exist, or an impossible value.
        """
        check_names(changes, OPTION_NAMES, "flow")
        return dataclasses.replace(self, **changes)


OPTION_NAMES = frozenset(field.name for field in dataclasses.fields(FlowOptions))


def _check_given(check: Callable[[str, Any], None], name: str, value: Any) -> None:
    if value is not None:
        check(name, value)


def check_flow_name(name: str) -> str:
    """``name`` itself.

    Raises:
        ConfigurationError: It is empty.
        InvalidNameError: It has characters that would not survive in an address.
    """
    if not name:
        raise ConfigurationError("A flow's name must have at least one character.")
    if any(char in name for char in _BANNED):
        raise InvalidNameError(f"Name {name!r} contains an invalid character. Leave out {' '.join(_BANNED)}.")
    return name


def _check_task_runner(option: Any) -> None:
    if option is None or isinstance(option, (TaskRunner, Executor)) or callable(option):
        return
    raise OptionTypeError(
        f"task_runner must be a task runner, an executor of concurrent.futures, or a callable that makes one "
        f"of these, got {option!r}."
    )
