"""Running a function: one short driver each for functions and coroutines.

Direct calls, submitted runs, flows and the worker share them; they differ in the ``Control`` they pass, which
is told when an attempt begins and ends and knows whether somebody stopped it. Retries without delay run on in
place; a retry with a delay is handed back to the caller, who sleeps (direct call) or gives the run back.

What an attempt's end means is in ``run_ends.py``, whether another one follows in ``retry_decisions.py``.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from prefect_lite.hooks import hooks_for, told_of_end, told_of_start
from prefect_lite.interrupts import RunInterrupted
from prefect_lite.logging.prints import prints_to_log
from prefect_lite.retry_decisions import retried
from prefect_lite.run_ends import Outcome, judged, nameless, note_end
from prefect_lite.run_names import name_run
from prefect_lite.thread_or_loop import Waits, in_thread, on_loop

if TYPE_CHECKING:
    from prefect_lite.context import RunContext

NO_PRINTS = nullcontext()


class Control(Protocol):
    """What a driver tells about a run's attempts, and asks.

    Attributes:
        outermost: Nothing above this run may see its SystemExit, CancelledError and the like: they end
            the run as crashed. False for a direct call, where they belong to the caller.
    """

    outermost: bool

    def begin(self, attempt: int) -> None:
        """User code is about to start; from now on the attempt may be interrupted.

        Raises:
            RunInterrupted: The run was stopped before it began.
        """
        ...

    def end(self) -> str | None:
        """User code has ended; from now on nothing can interrupt. Returns why it was stopped, or None."""
        ...

    def stop_reason(self) -> str | None:
        """Why the run is to be stopped, if it is."""
        ...


def drive_sync(context: RunContext, control: Control) -> Outcome:
    """Run attempts until one ends the run or asks for a delay.

    Args:
        context: The run, already the current one.
        control: Told of each attempt.

    Raises:
        BaseException: Only what is no ``Exception``, and only when the control is not outermost.
    """
    options, run, function = context.options, context.run, context.definition.body
    if options.task_run_name is not None and (problem := name_run(context)) is not None:
        return conclude(context, nameless(problem))
    error: BaseException | None = None
    outcome: Outcome | None = None
    try:
        with prints_to_log(context) if logs_prints(context) else NO_PRINTS:
            while True:
                if run.transitions is not None:
                    run.began()
                if options.on_running:
                    in_thread(told_of_start(context, options.on_running))
                value: Any = None
                error = None
                try:
                    try:
                        control.begin(run.run_count)
                        value = function(*context.args, **context.kwargs)
                    except BaseException as exc:
                        error = without_first_frame(exc)
                    reason = control.end()
                except BaseException as exc:
                    # It landed between the lines above: an interruption of this run, or of one that this one
                    # is called by, or a Ctrl-C.
                    reason = control.end()
                    if reason is None or not isinstance(exc, RunInterrupted):
                        error, reason = exc, None
                outcome = judged(context, value, error, reason, outermost=control.outermost)
                if outcome.kind != "completed":
                    outcome = in_thread(retried(context, outcome))
                    if may_go_on(outcome, control):
                        run.run_count += 1
                        continue
                if run.transitions is not None:
                    note_end(run, outcome)
                hooks = hooks_for(context, outcome)
                return in_thread(told_of_end(context, hooks, outcome)) if hooks else outcome
    finally:
        error = outcome = None  # else the error, its frames (this is one) and all arguments keep each other


async def drive_async(context: RunContext, control: Control) -> Outcome:
    """The same for a coroutine function."""
    options, run, function = context.options, context.run, context.definition.body
    if options.task_run_name is not None and (problem := name_run(context)) is not None:
        return await on_loop(concluded(context, nameless(problem)))
    error: BaseException | None = None
    outcome: Outcome | None = None
    try:
        with prints_to_log(context) if logs_prints(context) else NO_PRINTS:
            while True:
                if run.transitions is not None:
                    run.began()
                if options.on_running:
                    await on_loop(told_of_start(context, options.on_running))
                value: Any = None
                error = None
                try:
                    control.begin(run.run_count)
                    value = await function(*context.args, **context.kwargs)
                except BaseException as exc:
                    error = without_first_frame(exc)
                reason = control.end()
                outcome = judged(context, value, error, reason, outermost=control.outermost)
                if outcome.kind != "completed":
                    outcome = await on_loop(retried(context, outcome))
                    if may_go_on(outcome, control):
                        run.run_count += 1
                        continue
                if run.transitions is not None:
                    note_end(run, outcome)
                hooks = hooks_for(context, outcome)
                return await on_loop(told_of_end(context, hooks, outcome)) if hooks else outcome
    finally:
        error = outcome = None


def may_go_on(outcome: Outcome, control: Control) -> bool:
    """Whether the next attempt is to start at once, and here."""
    return outcome.kind == "retry" and outcome.after_seconds <= 0 and control.stop_reason() is None


def conclude(context: RunContext, outcome: Outcome) -> Outcome:
    """A run has ended without the drivers, or before its first attempt; see ``concluded``."""
    return in_thread(concluded(context, outcome))


def concluded(context: RunContext, outcome: Outcome) -> Waits[Outcome]:
    """The run has ended, unless it is to be retried: note it, and tell the hooks.

    Returns:
        The outcome, with its state if there was need of one.
    """
    note_end(context.run, outcome)
    hooks = hooks_for(context, outcome)
    return (yield from told_of_end(context, hooks, outcome)) if hooks else outcome


def logs_prints(context: RunContext) -> bool:
    """Whether prints of a run go to its log; quick for most runs, which say nothing about it."""
    own = context.options.log_prints
    return context.log_prints if own is None and context.enclosing is not None else bool(own)


def without_first_frame(error: BaseException) -> BaseException:
    """Take our own frame off a traceback: people want to see theirs, and the frame would keep the error."""
    trace = error.__traceback__
    # Assigning to the attribute would fail with a frozen dataclass.
    return error if trace is None else error.with_traceback(trace.tb_next)
