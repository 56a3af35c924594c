"""Submitted runs as bytes: for child processes, and for executors that run them who knows where.

Tasks and flows of importable modules go by name. What code inside a run can ask of its flow goes along, so
that ``runtime.flow_run`` and ``FlowRunContext.get()`` answer there as here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prefect_lite.context import FlowRunContext, current_context, enter_run, leave_run
from prefect_lite.exceptions import CrashedRun, SerializationError
from prefect_lite.flow_options import FlowOptions
from prefect_lite.run_ends import describe
from prefect_lite.states import Crashed, Failed, State
from prefect_lite.tagging import current_tags, tags

if TYPE_CHECKING:
    from prefect_lite.local_calls import LocalCall
    from prefect_lite.runs import TaskRun

MAX_FLOW_BYTES = 256 * 1024
"""A flow's own arguments stay behind when they are larger: they would go along with each of its tasks."""


def pack(call: LocalCall) -> bytes:
    """A call with resolved arguments as another process can execute it, with ``run_packed``.

    Raises:
        SerializationError: Something in it can't be pickled; says which argument.
    """
    from prefect_lite.pickling import dumps

    record, task = call.record, call.task
    flow, now, log_prints = call.context.run(_surroundings)
    try:
        return dumps((task, call.args, call.kwargs, record, flow, now, log_prints))
    except Exception as exc:
        raise SerializationError(_culprit(call, exc)) from exc


def _surroundings() -> tuple[bytes | None, frozenset[str], bool]:
    context = current_context()
    return _packed_flow(FlowRunContext.get()), current_tags(), context is not None and context.log_prints


def _packed_flow(context: FlowRunContext | None) -> bytes | None:
    if context is None:
        return None
    from prefect_lite.flows import Flow
    from prefect_lite.pickling import dumps

    flow, run = context.flow, context.flow_run
    nameless, named = Flow(_defined_elsewhere, name=flow.name), Flow(_defined_elsewhere, name=flow.name)
    named.binder = flow.binder  # its parameters have names
    call, nothing = (context.args, context.kwargs), ((), dict[str, Any]())
    tries: tuple[Any, ...] = ((flow, *call), (named, *call), (flow, *nothing), (nameless, *nothing))
    for what, args, kwargs in tries:
        try:
            data = dumps((what, run, args, kwargs))
        except Exception:  # what the user's objects raise; the next try has less of them
            continue
        if len(data) <= MAX_FLOW_BYTES or not (args or kwargs):
            return data
    return None


def _defined_elsewhere() -> None:
    raise RuntimeError("This flow is defined where this process can't import it from.")


def _culprit(call: LocalCall, error: Exception) -> str:
    from prefect_lite.pickling import dumps

    task = call.task
    for name, value in task.binder.parameters(call.args, call.kwargs).items():
        try:
            dumps(value)
        except Exception as exc:
            return (
                f"The argument {name!r} of {task.name}() can't be sent to another process: {describe(exc)}. "
                f"Pass something that can be pickled, or run the task in threads."
            )
    return (
        f"{task.name}() can't be sent to another process: {describe(error)}. Define the task at the top "
        f"level of a module, or run it in threads."
    )


def run_packed(data: bytes, told: Callable[[TaskRun], None] | None = None) -> bytes:
    """Execute a call here.

    Args:
        data: What ``pack`` has made.
        told: Takes the run's record before it begins.

    Returns:
        The final state, for ``unpacked_end``.
    """
    from prefect_lite.pickling import loads

    try:
        task, args, kwargs, record, flow, now, log_prints = loads(data)
    except BaseException as exc:
        text = f"The call can't be read in the process that was to run it: {describe(exc)}"
        return _packed_end(Crashed(message=text, data=CrashedRun(text)))
    if told is not None:
        told(record)
    state = _executed(task, args, kwargs, record, flow, now, log_prints)
    try:
        return _packed_end(state)
    except Exception as exc:
        text = f"The result of {task.name}() can't be sent back from its process: {describe(exc)}"
        return _packed_end(Failed(message=text, data=SerializationError(text)))


def _packed_end(state: State[Any]) -> bytes:
    from prefect_lite import remote_errors
    from prefect_lite.pickling import dumps

    data = state.data
    if not isinstance(data, BaseException):
        return dumps((state, None))
    # As those of workers: with its traceback, and also if it can't be pickled or not be rebuilt.
    told = remote_errors.describe(data, allow_pickle=True)
    return dumps((state.model_copy(update={"data": None}), told))


def unpacked_end(data: bytes) -> State[Any]:
    """The final state that ``run_packed`` has packed."""
    from prefect_lite import remote_errors
    from prefect_lite.pickling import loads

    state, told = loads(data)
    if told is None:
        return state
    return state.model_copy(update={"data": remote_errors.rebuild(told, allow_pickle=True)})


def _executed(
    task: Any,
    args: Any,
    kwargs: Any,
    record: TaskRun,
    flow: bytes | None,
    now: frozenset[str],
    log_prints: bool,
) -> State[Any]:
    from prefect_lite.local_calls import execute_here
    from prefect_lite.pickling import loads
    from prefect_lite.task_runners import ThreadPoolTaskRunner

    try:
        with ThreadPoolTaskRunner() as runner, tags(*now):
            if flow is None:
                return execute_here(task, args, kwargs, record)
            definition, run, flow_args, flow_kwargs = loads(flow)
            options = FlowOptions(log_prints=log_prints)
            context = FlowRunContext(definition, options, run, flow_args, flow_kwargs)
            context.task_runner = runner
            token = enter_run(context)
            try:
                return execute_here(task, args, kwargs, record)
            finally:
                leave_run(token)
    except BaseException as exc:
        text = describe(exc)
        return Crashed(message=text, data=CrashedRun(text))


class PortableCall:
    """A call on its way through an executor, which may pickle it or not."""

    def __init__(self, call: LocalCall) -> None:
        self._call = call

    def __call__(self) -> PortableAnswer:
        """Execute it where it was made."""
        return PortableAnswer(self._call.context.run(self._call.execute))

    def __reduce__(self) -> Any:
        return PackedCall, (pack(self._call),)


class PackedCall:
    """The same where it has arrived."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __call__(self) -> PackedAnswer:
        """Execute it."""
        return PackedAnswer(run_packed(self._data))


class PortableAnswer:
    """A final state that has not left its process; called, it gives it."""

    def __init__(self, state: State[Any]) -> None:
        self._state = state

    def __call__(self) -> State[Any]:
        """The state."""
        return self._state


class PackedAnswer:
    """A final state as it travels; called, it gives it."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __call__(self) -> State[Any]:
        """The state."""
        return unpacked_end(self._data)


def run_portable(call: PortableCall | PackedCall) -> PortableAnswer | PackedAnswer:
    """What executors are given to call."""
    return call()
