"""Runs that are made: records of those that begin here, and ``Task.create_run`` for all others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from inspect import Parameter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect_lite import clock, run_history
from prefect_lite.belonging import NOWHERE, Place, place_of
from prefect_lite.context import current_context
from prefect_lite.exceptions import ParameterBindError
from prefect_lite.run_ids import new_run_id, parse_run_id
from prefect_lite.run_inputs import PARENTS, TaskRunResult, inputs_of, is_plain, listed
from prefect_lite.runs import TaskRun
from prefect_lite.states import Scheduled, StateType
from prefect_lite.tagging import current_tags

if TYPE_CHECKING:
    from prefect_lite.client.orchestration import PrefectClient, SyncPrefectClient
    from prefect_lite.conditions import SendConditions
    from prefect_lite.context import FlowRunContext, TaskRunContext
    from prefect_lite.run_inputs import RunInput
    from prefect_lite.tasks import Task


def new_record(
    task: Task[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    wait_for: Any = None,
    *,
    plain: bool = False,
) -> TaskRun:
    """The record of a run that is about to begin here, in the state Pending.

    Args:
        task: The task.
        args: Positional arguments, of a method with its instance; they need not fit.
        kwargs: The same by name.
        wait_for: Futures and states, one or many.
        plain: No other run has to do with the arguments, as the caller knows.
    """
    context = current_context()
    record = _record(task, new_run_id(), place_of(context) if context is not None else NOWHERE)
    parent = record.parent_task_run_id
    if plain or (wait_for is None and is_plain(args) and is_plain(kwargs.values())):
        if parent is not None:
            record.task_inputs[PARENTS] = [TaskRunResult(id=parent)]
    else:
        values: dict[str, Any] = dict.fromkeys(record.parameter_names)
        with suppress(ParameterBindError):  # the run itself will say so
            values.update(task.binder.parameters(args, kwargs))
        record.task_inputs = inputs_of(values, wait_for or None, None, parent)
    run_history.remember(record)
    return record


async def create_run(
    task: Task[..., Any],
    client: PrefectClient | SyncPrefectClient | None = None,
    id: UUID | str | None = None,
    parameters: Mapping[str, Any] | None = None,
    flow_run_context: FlowRunContext | None = None,
    parent_task_run_context: TaskRunContext | None = None,
    wait_for: Any = None,
    extra_task_inputs: Mapping[str, Iterable[RunInput]] | None = None,
    deferred: bool = False,
) -> TaskRun:
    """Make a run of a task, without executing it here.

    Args:
        task: The task.
        client: For programs written for Prefect; this process has one connection.
        id: The run's, else a new one.
        parameters: Arguments by name.
        flow_run_context: The flow run it belongs to, else the one around this code.
        parent_task_run_context: The task run it belongs to, else the one around this code.
        wait_for: Futures and states, one or many, that have to complete first.
        extra_task_inputs: What else is to be noted of where its arguments come from.
        deferred: Send it to a worker, as ``apply_async`` does; else the record alone is made.

    Returns:
        Its record: ``Scheduled`` when it was sent, else ``Pending``.

    Raises:
        ParameterBindError: With ``deferred``, the parameters don't fit.
        Exception: With ``deferred``, everything that ``apply_async`` raises.
    """
    if not deferred:
        return await create_local_run(
            task,
            client,
            id,
            parameters,
            flow_run_context,
            parent_task_run_context,
            wait_for,
            extra_task_inputs,
        )
    from prefect_lite.submission import asend

    place = _place(flow_run_context, parent_task_run_context)
    args, kwargs = call_of(task, parameters or {})
    waited = listed(wait_for) if wait_for is not None else None
    conditions: SendConditions | None = {"run_id": id} if id is not None else None
    future = await asend(task, args, kwargs, conditions, waited, extra_task_inputs, place)
    record = _record(task, parse_run_id(future.task_run_id), place)
    record.transitions = None
    record.parameters = dict(parameters or {})
    record.task_inputs = inputs_of(record.parameters, waited, extra_task_inputs, place.parent_task_run_id)
    moment = clock.now()
    record.state = Scheduled(scheduled_time=moment)
    record.expected_start_time = moment
    return record


async def create_local_run(
    task: Task[..., Any],
    client: PrefectClient | SyncPrefectClient | None = None,
    id: UUID | str | None = None,
    parameters: Mapping[str, Any] | None = None,
    flow_run_context: FlowRunContext | None = None,
    parent_task_run_context: TaskRunContext | None = None,
    wait_for: Any = None,
    extra_task_inputs: Mapping[str, Iterable[RunInput]] | None = None,
    deferred: bool = False,
) -> TaskRun:
    """Make the record of a run that is to be executed in this process; ``deferred`` changes nothing.

    Args:
        task: The task.
        client: See ``create_run``, as for the others.
        id: The run's, else a new one.
        parameters: Arguments by name.
        flow_run_context: The flow run it belongs to.
        parent_task_run_context: The task run it belongs to.
        wait_for: Futures and states, one or many.
        extra_task_inputs: What else went into it.
        deferred: For programs written for Prefect.
    """
    place = _place(flow_run_context, parent_task_run_context)
    record = _record(task, parse_run_id(id) if id is not None else new_run_id(), place)
    record.parameters = dict(parameters or {})
    waited = listed(wait_for) if wait_for is not None else None
    parent = place.parent_task_run_id
    record.task_inputs = inputs_of(record.parameters, waited, extra_task_inputs, parent)
    run_history.remember(record)
    return record


def call_of(task: Task[..., Any], parameters: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call that gives a task these arguments; names it does not have are left to the call to refuse."""
    left = dict(parameters)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    in_order = True
    expected = [*task.binder.signature.parameters.values()][len(task.bound_to) :]
    # What follows them can't be given without the ones before.
    follow = any(left.get(each.name) for each in expected if each.kind is Parameter.VAR_POSITIONAL)
    for parameter in expected:
        name, kind = parameter.name, parameter.kind
        if kind is Parameter.VAR_POSITIONAL:
            args.extend(left.pop(name, ()))
        elif kind is Parameter.VAR_KEYWORD:
            kwargs.update(left.pop(name, {}))
        elif name in left and (kind is Parameter.KEYWORD_ONLY or not in_order):
            kwargs[name] = left.pop(name)
        elif name in left:
            args.append(left.pop(name))
        elif follow and parameter.default is not Parameter.empty and kind is not Parameter.KEYWORD_ONLY:
            args.append(parameter.default)
        else:
            in_order = False
    return tuple(args), {**kwargs, **left}


def _record(task: Task[..., Any], run_id: str, place: Place) -> TaskRun:
    options = task.options
    record = TaskRun(run_id, task.key, task.name, 0, options.version)
    record.parameter_names = task.binder.names
    record.transitions = [(StateType.PENDING, "Pending", None, clock.time_ns())]
    tags = current_tags()
    if tags or options.tags:
        record.tags = tags.union(options.tags or ())
    if place is not NOWHERE:
        record.flow_run_id, record.parent_task_run_id = place
    return record


def _place(flow: FlowRunContext | None, parent: TaskRunContext | None) -> Place:
    """Where a run belongs, of which the caller may have told a part."""
    here = place_of(current_context())
    if parent is not None:
        inside = place_of(parent)
        return inside if flow is None else Place(flow.flow_run.id, inside.parent_task_run_id)
    if flow is None:
        return here
    same = here.flow_run_id == flow.flow_run.id
    return Place(flow.flow_run.id, here.parent_task_run_id if same else None)
