"""When a failed run is tried again: the delay schedule, the jitter and the user's condition."""

from __future__ import annotations

import inspect
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect_lite.option_checks import MAX_RETRY_DELAYS, check_number

if TYPE_CHECKING:
    from prefect_lite.options import Options


class Retry(NamedTuple):
    """The decision to try again.

    Attributes:
        after_seconds: How long to wait first; 0 runs on in place.
    """

    after_seconds: float


def exponential_backoff(backoff_factor: float) -> Callable[[int], list[float]]:
    """Delays for ``retry_delay_seconds`` that double with every retry.

    Args:
        backoff_factor: The first delay in seconds.

    Returns:
        What makes the list of delays from the number of retries. Beyond 50 retries the last delay repeats.

    Raises:
        ConfigurationError: The factor is negative or no number.
    """
    check_number("backoff_factor", backoff_factor)

    def delays(retries: int) -> list[float]:
        return [backoff_factor * 2.0**retry for retry in range(min(retries, MAX_RETRY_DELAYS))]

    return delays


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

    The jitter spreads a delay to both sides by a random share of up to ``retry_jitter_factor`` (as observed
    in Prefect 3.8.8), so that runs that failed together come back neither together nor later on the whole.

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
        delay = uniform(max(0.0, delay * (1.0 - jitter)), delay * (1.0 + jitter))
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
    except (Exception, SystemExit) as exc:
        return _condition_failed(exc)
    if inspect.isawaitable(answer):
        return answer
    return Condition(bool(answer))


async def await_condition(answer: Awaitable[Any]) -> Condition:
    """The answer of a condition that is a coroutine function."""
    try:
        return Condition(bool(await answer))
    except (Exception, SystemExit) as exc:
        return _condition_failed(exc)


def _condition_failed(exc: BaseException) -> Condition:
    """A condition that raises ends the retries: trying on would hide its error.

    It is logged too, as whoever calls a task directly gets the task's own exception and no message.
    """
    from prefect_lite.context import current_context  # for once; most programs never come here
    from prefect_lite.logging import get_run_logger

    if current_context() is not None:
        get_run_logger().error("retry_condition_fn raised an exception: no more retries.", exc_info=exc)
    return Condition(False, f"Its retry condition raised {type(exc).__name__}: {exc}")
