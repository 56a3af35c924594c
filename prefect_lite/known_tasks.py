"""The tasks that this process has defined, by key: for whoever runs "all of them", such as a test harness."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from prefect_lite.tasks import Task

_known: dict[str, list[ref[Task[..., Any]]]] = {}
"""Most keys have one; a task that is defined anew, for a moment perhaps, does not push out the first."""
_listeners: list[Callable[[Task[..., Any]], None]] = []
_lock = threading.RLock()  # a task may be collected, and forgotten, in the midst of any of this


def learn(task: Task[..., Any], *, original: bool) -> None:
    """A task was defined, or got its key.

    Args:
        task: It is known for as long as somebody else keeps it.
        original: False for one made by ``with_options``, which never takes the place of the one it is made
            of: a worker has that, too.
    """
    key = task.key

    def forget(gone: ref[Task[..., Any]]) -> None:
        with _lock:
            found = _known.get(key)
            if found is not None and gone in found:
                found.remove(gone)
                if not found:
                    del _known[key]

    with _lock:
        found = _known.get(key, [])
        if found and (not original or any(each() is task for each in found)):
            return
        found.append(ref(task, forget))
        _known[key] = found  # again: the garbage collector may have emptied it just now, in this thread
    for listener in tuple(_listeners):
        listener(task)


def find(key: str) -> Task[..., Any] | None:
    """The task that was defined last with this key, or has it as an alias."""
    for each in reversed(_known.get(key, ())):
        task = each()
        if task is not None:
            return task
    return next((task for task in known() if key in task.options.aliases), None)


def known() -> list[Task[..., Any]]:
    """All tasks that are there, of each key the last one."""
    living = ([task for each in [*found] if (task := each()) is not None] for found in [*_known.values()])
    return [tasks[-1] for tasks in living if tasks]


def listen(listener: Callable[[Task[..., Any]], None]) -> None:
    """Call ``listener`` with every task that is defined from now on, in the thread that does it."""
    _listeners.append(listener)


def stop_listening(listener: Callable[[Task[..., Any]], None]) -> None:
    """Undo ``listen``."""
    _listeners.remove(listener)


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # another thread may have held it


os.register_at_fork(after_in_child=_after_fork)
