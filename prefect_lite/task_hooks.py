"""Hooks of a task: added by decorators where the task is defined, and readable as lists."""

from __future__ import annotations

from typing import Any, TypeVar

from prefect_lite.option_checks import check_callable
from prefect_lite.options import Options, StateHook, TransactionHook

H = TypeVar("H", bound=StateHook)
C = TypeVar("C", bound=TransactionHook)
T = TypeVar("T")


class TaskHooks:
    """State hooks are called with (task, run, state), transaction hooks with the transaction.

    They may be coroutine functions. They are called in the order in which they were given, options first; one
    that raises is logged and changes nothing. Each decorator gives the function back.
    """

    options: Options

    def on_running(self, fn: H) -> H:
        """Decorator: call ``fn(task, run, state)`` when an attempt starts."""
        return self._add_hook("on_running", fn)

    def on_completion(self, fn: H) -> H:
        """Decorator: call ``fn(task, run, state)`` when a run completed."""
        return self._add_hook("on_completion", fn)

    def on_failure(self, fn: H) -> H:
        """Decorator: call ``fn(task, run, state)`` when a run failed, after its retries."""
        return self._add_hook("on_failure", fn)

    def on_commit(self, fn: C) -> C:
        """Decorator: call ``fn(transaction)`` when the run's record is committed."""
        return self._add_hook("on_commit", fn)

    def on_rollback(self, fn: C) -> C:
        """Decorator: call ``fn(transaction)`` when the transaction rolls back."""
        return self._add_hook("on_rollback", fn)

    @property
    def on_running_hooks(self) -> list[StateHook]:
        """The hooks of ``on_running``, in order; the list is the caller's own."""
        return list(self.options.on_running or ())

    @property
    def on_completion_hooks(self) -> list[StateHook]:
        """The hooks of ``on_completion``, in order; the list is the caller's own."""
        return list(self.options.on_completion or ())

    @property
    def on_failure_hooks(self) -> list[StateHook]:
        """The hooks of ``on_failure``, in order; the list is the caller's own."""
        return list(self.options.on_failure or ())

    @property
    def on_commit_hooks(self) -> list[TransactionHook]:
        """The hooks of ``on_commit``, in order; the list is the caller's own."""
        return list(self.options.on_commit or ())

    @property
    def on_rollback_hooks(self) -> list[TransactionHook]:
        """The hooks of ``on_rollback``, in order; the list is the caller's own."""
        return list(self.options.on_rollback or ())

    def _add_hook(self, name: str, fn: T) -> T:
        check_callable(name, fn)
        self._change({name: (*(getattr(self.options, name) or ()), fn)})
        return fn

    def _change(self, changes: dict[str, Any]) -> None:
        raise NotImplementedError
