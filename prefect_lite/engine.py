"""Running a function: one short driver each for functions and coroutines.

Direct calls, submitted runs, flows and the worker share them; they differ in the ``Control`` they pass, which
is told when an attempt begins and ends and knows whether somebody stopped it. Retries without delay run on in
place; a retry with a delay is handed back to the caller, who sleeps (direct call) or gives the run back.

What an attempt's end means is in ``run_ends.py``, whether another one follows in ``retry_decisions.py``.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol, cast

from prefect_lite.hooks import hooks_for, told_of_end, told_of_start
from prefect_lite.interrupts import RunInterrupted
from prefect_lite.logging.prints import prints_to_log
from prefect_lite.persistence import keeps
from prefect_lite.retry_decisions import retried
from prefect_lite.run_ends import Outcome, judged, nameless, note_end
from prefect_lite.run_names import name_run
from prefect_lite.thread_or_loop import Waits, in_thread, on_loop

if TYPE_CHECKING:
    from prefect_lite.context import RunContext, TaskRunContext

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
    options, run = context.options, context.run
    if options.task_run_name is not None and (problem := name_run(context)) is not None:
        return conclude(context, nameless(problem))
    outcome: Outcome | None = None
    try:
        with prints_to_log(context) if logs_prints(context) else NO_PRINTS:
            while True:
                if run.transitions is not None:
                    run.began()
                if options.on_running:
                    in_thread(told_of_start(context, options.on_running))
                outcome = _kept_in_thread(context, control) if keeps(context) else _attempt(context, control)
                if context.transaction is not None:
                    outcome = _closed_in_thread(cast("TaskRunContext", context), outcome)
                if outcome.kind != "completed" and may_go_on(outcome, control):
                    run.run_count += 1
                    continue
                if run.transitions is not None:
                    note_end(run, outcome)
                hooks = hooks_for(context, outcome)
                return in_thread(told_of_end(context, hooks, outcome)) if hooks is not None else outcome
    except BaseException as exc:
        if context.transaction is not None:
            _broken_off_in_thread(cast("TaskRunContext", context), exc)
        raise
    finally:
        outcome = None  # else an error in it, its frames (this is one) and all arguments keep each other


def _attempt(context: RunContext, control: Control) -> Outcome:
    function = context.definition.body
    value: Any = None
    error: BaseException | None = None
    outcome: Outcome | None = None
    try:
        try:
            try:
                control.begin(context.run.run_count)
                value = function(*context.args, **context.kwargs)
            except BaseException as exc:
                error = without_first_frame(exc)
            reason = control.end()
        except BaseException as exc:
            # It landed between the lines above: an interruption of this run, or of one that this one is
            # called by, or a Ctrl-C.
            reason = control.end()
            if reason is None or not isinstance(exc, RunInterrupted):
                error, reason = exc, None
        outcome = judged(context, value, error, reason, outermost=control.outermost)
        return outcome if outcome.kind == "completed" else in_thread(retried(context, outcome))
    finally:
        error = outcome = None


def _kept_in_thread(context: TaskRunContext, control: Control) -> Outcome:
    """An attempt that is a transaction."""
    from prefect_lite import keeping  # most programs never need it

    kept = in_thread(keeping.opened(context, control))
    if kept.outcome is not None:
        return kept.outcome
    try:
        outcome = _attempt(context, control)
    except BaseException as exc:
        in_thread(keeping.broken_off(kept.transaction, exc))
        raise
    return in_thread(keeping.closed(context, kept, outcome))


def _closed_in_thread(context: TaskRunContext, outcome: Outcome) -> Outcome:
    """End the transaction that the run's code has asked for, where nothing is kept."""
    from prefect_lite import keeping

    return in_thread(keeping.closed(context, keeping.demanded(context), outcome))


def _broken_off_in_thread(context: TaskRunContext, error: BaseException) -> None:
    from prefect_lite import keeping

    in_thread(keeping.broken_off(keeping.demanded(context).transaction, error))


async def drive_async(context: RunContext, control: Control) -> Outcome:
    """The same for a coroutine function."""
    options, run = context.options, context.run
    if options.task_run_name is not None and (problem := name_run(context)) is not None:
        return await on_loop(concluded(context, nameless(problem)))
    outcome: Outcome | None = None
    try:
        with prints_to_log(context) if logs_prints(context) else NO_PRINTS:
            while True:
                if run.transitions is not None:
                    run.began()
                if options.on_running:
                    await on_loop(told_of_start(context, options.on_running))
                outcome = await (
                    _kept_on_loop(context, control) if keeps(context) else _aattempt(context, control)
                )
                if context.transaction is not None:
                    outcome = await _closed_on_loop(cast("TaskRunContext", context), outcome)
                if outcome.kind != "completed" and may_go_on(outcome, control):
                    run.run_count += 1
                    continue
                if run.transitions is not None:
                    note_end(run, outcome)
                hooks = hooks_for(context, outcome)
                return await on_loop(told_of_end(context, hooks, outcome)) if hooks is not None else outcome
    except BaseException as exc:
        if context.transaction is not None and not isinstance(exc, GeneratorExit):
            await _broken_off_on_loop(cast("TaskRunContext", context), exc)
        raise
    finally:
        outcome = None


async def _aattempt(context: RunContext, control: Control) -> Outcome:
    function = context.definition.body
    value: Any = None
    error: BaseException | None = None
    outcome: Outcome | None = None
    try:
        try:
            control.begin(context.run.run_count)
            value = await function(*context.args, **context.kwargs)
        except BaseException as exc:
            error = without_first_frame(exc)
        reason = control.end()
        outcome = judged(context, value, error, reason, outermost=control.outermost)
        return outcome if outcome.kind == "completed" else await on_loop(retried(context, outcome))
    finally:
        error = outcome = None


async def _kept_on_loop(context: TaskRunContext, control: Control) -> Outcome:
    from prefect_lite import keeping

    kept = await on_loop(keeping.opened(context, control))
    if kept.outcome is not None:
        return kept.outcome
    try:
        outcome = await _aattempt(context, control)
    except GeneratorExit:  # its loop is being thrown away: nothing can be awaited any more
        raise
    except BaseException as exc:
        await on_loop(keeping.broken_off(kept.transaction, exc))
        raise
    return await on_loop(keeping.closed(context, kept, outcome))


async def _closed_on_loop(context: TaskRunContext, outcome: Outcome) -> Outcome:
    from prefect_lite import keeping

    return await on_loop(keeping.closed(context, keeping.demanded(context), outcome))


async def _broken_off_on_loop(context: TaskRunContext, error: BaseException) -> None:
    from prefect_lite import keeping

    await on_loop(keeping.broken_off(keeping.demanded(context).transaction, error))


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
    return (yield from told_of_end(context, hooks, outcome)) if hooks is not None else outcome


def logs_prints(context: RunContext) -> bool:
    """Whether prints of a run go to its log; quick for most runs, which say nothing about it."""
    own = context.options.log_prints
    return context.log_prints if own is None and context.enclosing is not None else bool(own)


def without_first_frame(error: BaseException) -> BaseException:
    """Take our own frame off a traceback: people want to see theirs, and the frame would keep the error."""
    trace = error.__traceback__
    # Assigning to the attribute would fail with a frozen dataclass.
    return error if trace is None else error.with_traceback(trace.tb_next)
