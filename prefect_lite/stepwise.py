"""Generator functions called here: what they yield comes one by one, and the run ends with the last one.

The rest is as in the engine's drivers. Each attempt runs the function anew, so after a retry the caller gets
what it yields from the start. The timeout is for the function's own time, not for what its caller does in
between. A caller that has enough closes the generator, which completes the run.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar, cast

from prefect_lite import clock, direct, engine
from prefect_lite.context import RunContext, active_transaction, enter_run, leave_run
from prefect_lite.direct_controls import CoroutineControl, ThreadControl
from prefect_lite.hooks import told_of_start
from prefect_lite.interrupts import RunInterrupted
from prefect_lite.logging.prints import prints_to_log
from prefect_lite.persistence import keeps
from prefect_lite.retry_decisions import retried
from prefect_lite.run_creation import new_record
from prefect_lite.run_ends import Outcome, judged, nameless
from prefect_lite.run_names import name_run
from prefect_lite.thread_or_loop import Waits, in_thread, on_loop

if TYPE_CHECKING:
    from prefect_lite.context import TaskRunContext
    from prefect_lite.tasks import Task

T = TypeVar("T")

LEAST_SECONDS = 1e-6
"""An attempt whose time is over is stopped in its next step, not before it."""


class Walk:
    """A run of a generator function, of a task or of a flow.

    The run is the current one in each step. Between the steps it is not: the code there is the caller's.

    Args:
        context: The run.

    Attributes:
        item: What the last step has yielded.
        outcome: How the run, or its last attempt, has ended.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._isasync: bool = context.definition.isasync
        self._steps: Any = None  # of the current attempt
        self._advance: Callable[[Any], Any] | None = None
        self._given: Any = None
        self._left: float | None = None
        self.item: Any = None
        self.outcome = Outcome("completed")

    def next(self) -> Waits[bool]:
        """Go on to what the function yields next; False when the run has ended instead."""
        run = self._context.run
        while True:
            if self._advance is None and not (yield from self._inside(self._begin())):
                return False
            if (yield from self._inside(self._step())):
                return True
            if self.outcome.kind != "retry":
                return False
            self._advance = None
            seconds = self.outcome.after_seconds
            if seconds > 0:
                direct.await_retry(run, self.outcome)
                if self._isasync:
                    yield clock.asleep(seconds)
                else:
                    clock.sleep(seconds)

    def send(self, value: Any) -> None:
        """What its last ``yield`` is to give the function in the next step."""
        self._advance = self._steps.asend if self._isasync else self._steps.send
        self._given = value

    def throw(self, error: BaseException) -> None:
        """What its last ``yield`` is to raise in the next step."""
        self._advance = self._steps.athrow if self._isasync else self._steps.throw
        self._given = error

    def close(self) -> Waits[None]:
        """The caller has enough; that is no failure, unless the function makes it one."""
        yield from self._inside(self._closed())

    def _inside(self, waits: Waits[T]) -> Waits[T]:
        context = self._context
        token = enter_run(context)
        outer = active_transaction.get()
        if context.transaction is not None:
            active_transaction.set(context.transaction)
        try:
            with prints_to_log(context) if context.log_prints else engine.NO_PRINTS:
                return (yield from waits)
        finally:
            if active_transaction.get() is not outer:
                active_transaction.set(outer)
            leave_run(token)

    def _begin(self) -> Waits[bool]:
        """Start an attempt; False when the run has ended over its name."""
        context = self._context
        options = context.options
        context.run.run_count += 1
        if options.task_run_name is not None and (problem := name_run(context)) is not None:
            self.outcome = yield from engine.concluded(context, nameless(problem))
            return False
        context.run.began()
        if options.on_running:
            yield from told_of_start(context, options.on_running)
        self._left = options.timeout_seconds
        self._advance = self._first_step
        return True

    def _first_step(self, _: None) -> Any:
        self._steps = self._context.definition.fn(*self._context.args, **self._context.kwargs)
        return self._steps.__anext__() if self._isasync else next(self._steps)

    def _step(self) -> Waits[bool]:
        """Whether the function has yielded; else this attempt has ended."""
        assert self._advance is not None
        given, self._given = self._given, None
        control = (CoroutineControl if self._isasync else ThreadControl)(self._left)
        error: BaseException | None = None
        began = time.monotonic()
        try:
            try:
                control.begin(self._context.run.run_count)
                self.item = self._advance(given)
                if self._isasync:
                    self.item = yield self.item
            except BaseException as exc:
                error = engine.without_first_frame(exc)
            reason = control.end()
        except BaseException as exc:  # it landed between the lines above, see the engine
            reason = control.end()
            if reason is None or not isinstance(exc, RunInterrupted):
                error, reason = exc, None
        if self._left is not None:
            self._left = max(LEAST_SECONDS, self._left - (time.monotonic() - began))
        try:
            if error is None and reason is None:
                return True
            self.item = None
            yield from self._ended(error, reason)
            return False
        finally:
            del given, error  # else the exception, this frame and all arguments keep each other

    def _ended(self, error: BaseException | None, reason: str | None) -> Waits[None]:
        value: Any = None
        try:
            if isinstance(error, StopIteration):
                value, error = error.value, None
            elif isinstance(error, StopAsyncIteration):
                error = None
            outcome = judged(self._context, value, error, reason, outermost=False)
        except BaseException as exc:
            if self._context.transaction is not None and not isinstance(exc, GeneratorExit):
                from prefect_lite import keeping

                asked = keeping.demanded(cast("TaskRunContext", self._context))
                yield from keeping.broken_off(asked.transaction, exc)
            raise
        finally:
            del error
        if outcome.kind != "completed":
            with suppress(Exception):  # it was stopped, and has yielded all the same
                yield from self._close_steps()
            outcome = yield from retried(self._context, outcome)
        outcome = yield from self._settled(outcome)
        self.outcome = yield from engine.concluded(self._context, outcome)

    def _closed(self) -> Waits[None]:
        error: BaseException | None = None
        try:
            yield from self._close_steps()
        except BaseException as exc:
            error = engine.without_first_frame(exc)
        try:
            outcome = judged(self._context, None, error, None, outermost=False)
        finally:
            del error
        if outcome.kind == "completed":
            outcome = outcome._replace(message="Its caller has closed it.")
        outcome = yield from self._settled(outcome)
        self.outcome = yield from engine.concluded(self._context, outcome)

    def _settled(self, outcome: Outcome) -> Waits[Outcome]:
        """Commit or roll back: what was yielded is gone, so only hooks and inner transactions take part."""
        context = self._context
        if context.transaction is None and not keeps(context):
            return outcome
        from prefect_lite import keeping  # most programs never need it

        kept = yield from keeping.at_the_end(cast("TaskRunContext", context))
        return (yield from keeping.closed(cast("TaskRunContext", context), kept, outcome))

    def _close_steps(self) -> Waits[None]:
        if self._steps is None:
            return
        if self._isasync:
            yield self._steps.aclose()
        else:
            self._steps.close()


def steps(context: RunContext) -> Generator[Any, Any, Any]:
    """What a run of a generator function yields, of a task or of a flow; the caller's ``for`` is its pace.

    Raises:
        BaseException: What the run ended with.
    """
    walk = Walk(context)
    try:
        while in_thread(walk.next()):
            try:
                walk.send((yield walk.item))
            except GeneratorExit:
                # In a context of its own: it may be the garbage collector that closes the generator, in the
                # midst of anything, and until Python 3.12 in that of setting this very context variable.
                copy_context().run(in_thread, walk.close())
                direct.value_of(walk.outcome)
                raise
            except BaseException as exc:
                walk.throw(exc)
        return direct.value_of(walk.outcome)
    except BaseException as exc:
        direct.note_crash(context.run, exc)
        raise


async def asteps(opened: Callable[[], AbstractAsyncContextManager[RunContext]]) -> AsyncGenerator[Any]:
    """``steps`` of an asynchronous generator function; ``opened()`` prepares the run when it begins."""
    async with opened() as context:
        walk = Walk(context)
        try:
            while await on_loop(walk.next()):
                try:
                    walk.send((yield walk.item))
                except GeneratorExit:
                    await on_loop(walk.close())
                    direct.value_of(walk.outcome)
                    raise
                except BaseException as exc:
                    walk.throw(exc)
            direct.value_of(walk.outcome)
        except BaseException as exc:
            direct.note_crash(context.run, exc)
            raise


def call(
    task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], wait_for: Any
) -> Generator[Any]:
    """Run a generator function in this thread.

    Raises:
        BaseException: What the run ended with.
    """
    record = new_record(task, args, kwargs, wait_for)
    args, kwargs = direct.resolved(record, args, kwargs, wait_for)
    return (yield from steps(direct.task_context(task, args, kwargs, record)))


def acall(
    task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], wait_for: Any
) -> AsyncGenerator[Any]:
    """The same for an asynchronous generator function, in the caller's asyncio task."""

    @asynccontextmanager
    async def opened() -> AsyncGenerator[RunContext]:
        record = new_record(task, args, kwargs, wait_for)
        call = await direct.aresolved(record, args, kwargs, wait_for)
        yield direct.task_context(task, *call, record)

    return asteps(opened)
