"""``task_run_name``: what a run is called in the terminal, in log lines and in its record."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from prefect_lite.context import FlowRunContext

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import TypeIs

    from prefect_lite.context import RunContext

MAX_NAME = 200
"""Characters."""


class TaskRunNameCallbackWithParameters(Protocol):
    """A callable for ``task_run_name`` that is given the run's arguments, by name, defaults included."""

    @classmethod
    def is_callback_with_parameters(cls, callable: Callable[..., str]) -> TypeIs[Self]:
        """Whether ``callable`` is one: it has a parameter called ``parameters``."""
        try:
            return "parameters" in inspect.signature(callable).parameters
        except (TypeError, ValueError):  # some builtins have no signature
            return False

    def __call__(self, parameters: dict[str, Any]) -> str:
        """The name of a run with these arguments."""
        ...


def name_run(context: RunContext) -> Exception | None:
    """Give the run the name that its option makes, unless it has it; an empty one leaves it its default name.

    Returns:
        What went wrong: the exception that the template or the callable raised, or a TypeError. A run that
        can't be named fails before it starts.
    """
    if context.run.given_name is not None:
        return None  # before an earlier attempt
    option: Any = context.options.task_run_name
    which = "flow_run_name" if isinstance(context, FlowRunContext) else "task_run_name"
    try:
        name = _made(option, context)
        if not isinstance(name, str):
            raise TypeError(
                f"The callable for {which!r} returned type {type(name).__name__} "
                f"but a string is required: {option!r}."
            )
    except (Exception, SystemExit) as exc:
        what = f"the template {option!r}" if isinstance(option, str) else f"the callable {option!r}"
        problem = exc if isinstance(exc, Exception) else RuntimeError(f"SystemExit: {exc}")
        problem.add_note(f"It was raised by {what} of {which}, for the arguments {_names(context)}.")
        return problem
    if name:
        context.run.given_name = name[:MAX_NAME]
    return None


def _made(option: Any, context: RunContext) -> Any:
    if isinstance(option, str):
        return option.format(**context.parameters)
    if TaskRunNameCallbackWithParameters.is_callback_with_parameters(option):
        return option(parameters=context.parameters)
    name: object = option()
    if inspect.iscoroutine(name):
        name.close()  # else Python warns that nobody has awaited it
    return name


def _names(context: RunContext) -> str:
    return ", ".join(context.definition.signature.parameters) or "(none)"
