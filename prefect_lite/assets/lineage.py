"""From which assets a run has made its own: found through what went into it.

A run that makes assets hands them on to whoever takes its result, or waits for it. Other runs hand on what
they have got, so that it may be several steps away. Results are also known by identity while a flow runs, as
they may be passed on without a future or state.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from prefect_lite import run_history
from prefect_lite.belonging import restore
from prefect_lite.client.asset_records import assets_of_runs
from prefect_lite.nesting import SCALARS, items_of
from prefect_lite.run_inputs import PARENTS, TaskRunResult
from prefect_lite.runs import TaskRun

if TYPE_CHECKING:
    from prefect_lite.context import FlowRunContext, TaskRunContext
    from prefect_lite.thread_or_loop import Waits

MAX_RUNS: Final = 1_000
"""Runs looked at for one run, nearest first; what is further away is not found."""
MAX_REMEMBERED: Final = 10_000
"""Runs of this process whose assets are remembered; of others the broker is asked."""
MAX_VALUES: Final = 10_000
"""Results of a flow run that are known by identity, and things looked at in the arguments of a call."""
MAX_DEPTH: Final = 8
SPREAD: Final = 100
"""Things in a result that are known, too: ``a, b = make()``."""

_made: dict[str, list[str]] = {}
_order: deque[str] = deque()
_values: WeakKeyDictionary[FlowRunContext, dict[int, tuple[Any, list[str]]]] = WeakKeyDictionary()
"""By flow run: results, kept so that their ids stay theirs, with the keys of what was made with them."""
_lock = threading.Lock()


def remember(run_id: str, keys: list[str]) -> None:
    """A run of this process hands these assets on."""
    with _lock:
        if run_id not in _made:
            _order.append(run_id)
        _made[run_id] = keys
        if len(_order) > MAX_REMEMBERED:
            _made.pop(_order.popleft(), None)


def remember_value(flow: FlowRunContext | None, value: Any, keys: list[str]) -> None:
    """A result that stands for these assets in the code of a flow run."""
    if flow is None or not keys or type(value) in SCALARS:
        return
    values = _values.setdefault(flow, {})
    parts = zip(items_of(value) or (), range(SPREAD), strict=False)
    for one in (value, *(part for part, _ in parts)):
        # What a run has only passed on in its result keeps the assets that it had.
        if type(one) not in SCALARS and len(values) < MAX_VALUES and (one is value or id(one) not in values):
            values[id(one)] = one, keys


def forget_all() -> None:
    """Empty it; for tests."""
    with _lock:
        _made.clear()
        _order.clear()
    _values.clear()


def sources_by_run(run: TaskRun, *, ask: bool = True) -> Waits[list[str]]:
    """The keys of the assets that the runs have made, or got, whose results went into a run; nearest first.

    Args:
        run: The run.
        ask: Ask the broker; else what this process knows has to do.

    Raises:
        Exception: What ``assets_of_runs`` raises.
    """
    found: dict[str, None] = {}
    front, seen = list(_inputs(run)), set[str]()
    while front and len(seen) < MAX_RUNS:
        front = [run_id for run_id in dict.fromkeys(front) if run_id not in seen][: MAX_RUNS - len(seen)]
        seen.update(front)
        unknown: list[str] = []
        for run_id in front:
            keys = _made.get(run_id)
            found.update(dict.fromkeys(keys or ()))
            if keys is None:
                unknown.append(run_id)
        front: list[str] = []
        if unknown:
            # Also of runs of this process: a child process may have executed them.
            assets, info = (yield from assets_of_runs(unknown)) if ask else ({}, {})
            for run_id in unknown:
                found.update(dict.fromkeys(assets.get(run_id, ())))
                if run_id not in assets:
                    front += _inputs(_record(run_id, info.get(run_id)))
    return list(found)


def _record(run_id: str, info: bytes | None) -> TaskRun | None:
    record = run_history.get(run_id)
    if record is None and info is not None:
        record = TaskRun(run_id, "", "", 0)
        restore(record, info)
    return record if isinstance(record, TaskRun) else None


def _inputs(record: TaskRun | None) -> Iterator[str]:
    """The task runs that a run has taken results of, or has waited for."""
    if record is None:
        return
    for name, inputs in record.task_inputs.items():
        if name != PARENTS:
            yield from (one.id.hex for one in inputs if isinstance(one, TaskRunResult))


def sources_by_value(context: TaskRunContext) -> list[str]:
    """The keys of the assets whose values are among the arguments of a run, or in these.

    What is in such a value is not looked at, and in others to a depth and number at which a large argument
    costs little.
    """
    flow = context.flow_context
    values = _values.get(flow) if flow is not None else None
    found: list[str] = []
    level: Iterable[Any] = (*context.args, *context.kwargs.values())
    left = MAX_VALUES
    for _ in range(MAX_DEPTH if values else 0):
        inside: list[Iterable[Any]] = []
        for one in level:
            left -= 1
            if left < 0:
                return found
            if type(one) in SCALARS:
                continue
            known = values.get(id(one)) if values else None
            if known is not None:
                found += known[1]
            else:
                inside.append(items_of(one) or ())
        level = chain.from_iterable(inside)
    return found
