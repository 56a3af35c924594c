"""Where a run belongs: the flow run and task run that made it, tags around the call, and what went into it.

For runs in this process that goes into their records. For runs on workers it travels, but only if there is
any: signed with the call for the worker, and beside it for whoever asks the broker about the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from uuid import UUID

import msgpack as _untyped_msgpack  # pyright: ignore[reportMissingTypeStubs]

from prefect_lite.context import FlowRunContext, TaskRunContext, current_context
from prefect_lite.exceptions import SubmitError
from prefect_lite.run_inputs import PARENTS, Inputs, TaskRunResult, pack_inputs, unpack_inputs
from prefect_lite.tagging import current_tags

if TYPE_CHECKING:
    from prefect_lite.context import RunContext
    from prefect_lite.runs import TaskRun

msgpack: Any = _untyped_msgpack

OPTION: Final = "belonging"
"""Its name among the options that travel; no task option has it."""

MAX_BYTES: Final = 32_000
"""As much as a SUBMIT may have; inputs beyond are left out."""


class Place(NamedTuple):
    """Where the code that makes a run belongs.

    Attributes:
        flow_run_id: The flow run around it.
        parent_task_run_id: The task run that it is, if a task is the innermost.
    """

    flow_run_id: UUID | None = None
    parent_task_run_id: UUID | None = None


NOWHERE: Final = Place()


def place_of(context: RunContext | None) -> Place:
    """Where code of this run belongs. A flow inside a task hides that task, as in Prefect."""
    if isinstance(context, TaskRunContext):
        return Place(context.task_run.flow_run_id, context.task_run.id)
    if isinstance(context, FlowRunContext):
        return Place(context.flow_run.id)
    return NOWHERE


class Belonging(NamedTuple):
    """What travels with a run.

    Attributes:
        packed: All of it.
        tags: Those around the call.
    """

    packed: bytes
    tags: frozenset[str]


def is_anywhere() -> bool:
    """Whether runs that are made here belong to anything."""
    return current_context() is not None or bool(current_tags())


def belonging(inputs: Inputs, place: Place | None = None) -> Belonging | None:
    """What is to travel with a run that is made here; None for nothing.

    Args:
        inputs: What goes into it, without parents.
        place: Where it belongs, if that is not told by the code that makes it.

    Raises:
        SubmitError: The tags around it are too long to travel.
    """
    flow, parent = place if place is not None else place_of(current_context())
    tags = current_tags()
    content: dict[str, Any] = {}
    if flow is not None:
        content["f"] = flow.hex
    if parent is not None:
        content["p"] = parent.hex
    if tags:
        content["t"] = sorted(tags)
    named = pack_inputs(inputs)
    if named:
        content["i"] = named
    if not content:
        return None
    packed = cast("bytes", msgpack.packb(content))
    if len(packed) > MAX_BYTES and named:
        del content["i"]
        packed = cast("bytes", msgpack.packb(content))
    if len(packed) > MAX_BYTES:
        raise SubmitError(
            f"The {len(tags)} tags around this call take {len(packed):,} bytes, more than {MAX_BYTES:,}. Use "
            f"fewer or shorter ones.",
            code="tags_too_long",
        )
    return Belonging(packed, tags)


def restore(record: TaskRun, packed: bytes) -> bool:
    """Tell a record what came with its run: all of it, or nothing where it is damaged.

    Returns:
        Whether it could be read. A run whose origin can't be told is a run all the same.
    """
    try:
        content: Any = msgpack.unpackb(packed)
        place = _place_in(content)
        inputs, tags = unpack_inputs(content.get("i", {})), frozenset(_texts(content.get("t", [])))
    except Exception:  # whatever a stranger, or a version to come, can make unpacking raise
        return False
    if place.parent_task_run_id is not None:
        inputs[PARENTS] = [TaskRunResult(id=place.parent_task_run_id)]
    if place != NOWHERE:
        record.flow_run_id, record.parent_task_run_id = place
    if inputs:
        record.task_inputs = inputs
    if tags:
        record.call_tags = tags
        record.tags = record.tags | tags
    return True


def _place_in(content: dict[str, Any]) -> Place:
    flow, parent = content.get("f"), content.get("p")
    return Place(UUID(flow) if flow is not None else None, UUID(parent) if parent is not None else None)


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(one, str) for one in cast("list[Any]", values)):
        raise TypeError("tags have to be texts")
    return cast("list[str]", values)


def with_belonging(options: Mapping[str, Any], packed: bytes) -> dict[str, Any]:
    """Options that travel, and this among them."""
    return {**options, OPTION: packed}
