"""When a failed run is tried again: the delay schedule, the jitter and the user's condition. No I/O."""

from __future__ import annotations

import inspect
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from prefect_lite.options import Options


class Retry(NamedTuple):
    """The decision to try again.

    Attributes:
        after_seconds: How long to wait first; 0 runs on in place.
    """

    after_seconds: float


class Condition(NamedTuple):
    """What ``retry_condition_fn`` said.

    Attributes:
        retry: Whether the retry policy applies.
        problem: A sentence when the condition itself failed, else "".
    """

    retry: bool
    problem: str = ""


def next_retry(
    options: Options, failures: int, uniform: Callable[[float, float], float] = random.uniform
) -> Retry | None:
    """Whether a run with so many failed attempts has another one left, and after what delay.

    The jitter only ever lengthens a delay: up to ``(1 + retry_jitter_factor)`` times the base.

    Args:
        options: The run's effective options.
        failures: Failed attempts so far, at least 1.
        uniform: Source of chance; tests give their own.
    """
    if failures > options.retries:
        return None
    delays = options.retry_delays()
    delay = delays[min(failures, len(delays)) - 1]
    jitter = options.retry_jitter_factor
    if jitter and delay:
        delay = uniform(delay, delay * (1.0 + jitter))
    return Retry(delay)


def ask_condition(
    condition: Callable[..., Any], task: Any, run: Any, state: Any
) -> Condition | Awaitable[Any]:
    """Call ``retry_condition_fn(task, run, state)``.

    Returns:
        The answer, or an awaitable to give to ``await_condition`` when the condition is a coroutine function.
    """
    try:
        answer = condition(task, run, state)
    except Exception as exc:
        return _condition_failed(exc)
    if inspect.isawaitable(answer):
        return answer
    return Condition(bool(answer))


async def await_condition(answer: Awaitable[Any]) -> Condition:
    """The answer of a condition that is a coroutine function."""
    try:
        return Condition(bool(await answer))
    except Exception as exc:
        return _condition_failed(exc)


def _condition_failed(exc: Exception) -> Condition:
    """A condition that raises ends the retries: trying on would hide its error."""
    return Condition(False, f"Its retry condition raised {type(exc).__name__}: {exc}")
