"""Where tasks run: ``flow(task_runner=...)`` and ``serve(task_runner=...)``.

For a flow a task runner is a context manager: entered when the flow run begins, left when it has ended, which
waits for everything that was submitted. ``submit`` returns at once; what a run depends on is waited for by
nobody's thread, so a pool of one can run a chain of tasks. For a worker it only says what to run tasks in.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from prefect_lite.exceptions import ConfigurationError, OptionTypeError

if TYPE_CHECKING:
    from prefect_lite.child_pool import ChildPool
    from prefect_lite.futures import PrefectFuture, PrefectFutureList
    from prefect_lite.local_calls import LocalCall
    from prefect_lite.tasks import Task

MAX_THREADS = 256
"""Of one flow run, where nothing else is said. Made only when none is idle; tasks may wait for tasks."""

__all__ = [
    "ConcurrentTaskRunner",
    "ExecutorTaskRunner",
    "PrefectTaskRunner",
    "ProcessPoolTaskRunner",
    "TaskRunner",
    "ThreadPoolTaskRunner",
]


class TaskRunner(ABC):
    """Base of the task runners. One of your own has to say how it submits, and how it is duplicated."""

    _started = False

    @property
    def name(self) -> str:
        """What kind it is, in one word."""
        return type(self).__name__.lower().removesuffix("taskrunner")

    @abstractmethod
    def duplicate(self) -> Self:
        """Another one with the same settings, not started: each flow run gets its own."""

    @abstractmethod
    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Any = None,
        dependencies: Mapping[str, Iterable[Any]] | None = None,
    ) -> PrefectFuture[Any]:
        """Start a run of a task.

        Args:
            task: The task.
            parameters: Its arguments by name. Futures among them are replaced by their results first.
            wait_for: Futures that have to complete first.
            dependencies: Further inputs to note in the run's record, by name.
        """

    def map(
        self, task: Task[..., Any], parameters: dict[str, Any], wait_for: Any = None
    ) -> PrefectFutureList[Any]:
        """Start a run for each item of the iterables among the parameters.

        Raises:
            MappingMissingIterable, MappingLengthMismatch: These are no mapping.
        """
        from prefect_lite.futures import PrefectFutureList
        from prefect_lite.local_calls import parameters_of
        from prefect_lite.mapping import expand
        from prefect_lite.run_creation import call_of

        calls = expand(task, *call_of(task, parameters))
        return PrefectFutureList(
            self.submit(task, parameters_of(task, args, kwargs), wait_for) for args, kwargs in calls
        )

    def cancel_all(self) -> None:  # noqa: B027  # a runner may have nothing to give up
        """Give up what was submitted and has not started."""

    def __enter__(self) -> Self:
        if self._started:
            raise RuntimeError("This task runner is already started")
        self._started = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._started = False


class PoolTaskRunner(TaskRunner):
    """What the task runners of this package have in common: calls that wait, run, and are waited for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[LocalCall, None] = {}
        self._used = False

    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Any = None,
        dependencies: Mapping[str, Iterable[Any]] | None = None,
    ) -> PrefectFuture[Any]:
        """See ``TaskRunner.submit``.

        Raises:
            RuntimeError: The task runner is not started, or its flow run has ended.
            ParameterTypeError: A collection of an unknown kind holds futures.
        """
        if not self._started:
            raise RuntimeError("Task runner is not started: use it in a `with` block, or give it to a flow.")
        from prefect_lite.interrupts import PERMITS
        from prefect_lite.local_calls import LocalCall

        call = LocalCall(task, parameters, wait_for, dependencies)
        # As a whole: half submitted it would never end, and pools start threads.
        PERMITS.uninterrupted(lambda: self._take(call))
        return call.future

    def _take(self, call: LocalCall) -> None:
        self._used = True
        self._calls[call] = None
        call.ended.add_done_callback(lambda _: self._calls.pop(call, None))
        try:
            call.when_ready(self._start)
        except BaseException:
            self._calls.pop(call, None)
            call.crash("The run could not be submitted.")
            raise

    @property
    def used(self) -> bool:
        """Whether anything was submitted to it since it was started."""
        return self._used

    def cancel_all(self) -> None:
        for call in list(self._calls):
            call.cancel()

    def __enter__(self) -> Self:
        self._used = False
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for everything submitted; when the program itself is to end, only for what has started."""
        try:
            if kind is not None and not issubclass(kind, Exception):
                self._give_up()
            while calls := list(self._calls):  # those may submit more
                for call in calls:
                    call.future.wait()
        except BaseException:  # Ctrl-C, or the timeout of a run around the flow
            self._give_up()
            raise
        finally:
            super().__exit__(kind, error, trace)
            self._close()

    async def aexit(self, kind: type[BaseException] | None) -> None:
        """Leave it without blocking the event loop, which may have a part in what is waited for."""
        if not self._used:
            self.__exit__(kind, None, None)
            return
        try:
            if kind is not None and not issubclass(kind, Exception):
                self._give_up()
            while calls := list(self._calls):
                for call in calls:
                    await call.future.wait_async()
        except BaseException:
            self._give_up()
            raise
        finally:
            await asyncio.to_thread(self.__exit__, None, None, None)

    def _give_up(self) -> None:
        """The program, or a run around the flow, is to end: give up whatever can be."""
        self.cancel_all()

    def _start(self, call: LocalCall) -> None:
        """Execute a call that waits for nothing any more; in any thread, must not block for long."""
        raise NotImplementedError

    def _close(self) -> None:
        """Free what was made for this run of the flow."""
        raise NotImplementedError


class ThreadPoolTaskRunner(PoolTaskRunner):
    """Tasks run in threads; under ``serve``, functions in threads and coroutines on the worker's event loop.

    Args:
        max_workers: Runs at a time. None: for a flow 256, for a worker its ``limit``.

    Raises:
        ConfigurationError: ``max_workers`` is below 1.
    """

    _threads_named: ClassVar[str] = "prefect-lite-run"

    def __init__(self, max_workers: int | None = None) -> None:
        super().__init__()
        self.max_workers = _at_least_one("max_workers", max_workers)
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self._busy: set[int] = set()  # threads that execute a run

    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Any = None,
        dependencies: Mapping[str, Iterable[Any]] | None = None,
    ) -> PrefectFuture[Any]:
        """See ``TaskRunner.submit``. Warns a run that may be about to wait for its own thread."""
        most = self.max_workers or MAX_THREADS
        if len(self._busy) >= most and threading.get_ident() in self._busy:
            from prefect_lite.logging import get_run_logger

            get_run_logger().warning(
                "%s is submitted by a run of the same task runner, whose %s threads are all busy: waiting "
                "for its result may take for ever. Call the task directly, or raise max_workers.",
                task.name,
                most,
            )
        return super().submit(task, parameters, wait_for, dependencies)

    def duplicate(self) -> Self:
        return type(self)(self.max_workers)

    def _start(self, call: LocalCall) -> None:
        with self._lock:
            if self._pool is None:
                self._pool = concurrent.futures.ThreadPoolExecutor(
                    self.max_workers or MAX_THREADS, thread_name_prefix=self._threads_named
                )
            self._pool.submit(self._run, call)

    def _run(self, call: LocalCall) -> None:
        thread = threading.get_ident()
        self._busy.add(thread)
        try:
            call.run()
        finally:
            self._busy.discard(thread)

    def _close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ThreadPoolTaskRunner) and other.max_workers == self.max_workers

    def __hash__(self) -> int:
        return hash((ThreadPoolTaskRunner, self.max_workers))

    def __repr__(self) -> str:
        return f"ThreadPoolTaskRunner(max_workers={self.max_workers})"


ConcurrentTaskRunner = ThreadPoolTaskRunner
"""Its name in older programs."""


class ProcessPoolTaskRunner(PoolTaskRunner):
    """Tasks run in processes of their own, one at a time in each; what kills a process ends that run only.

    Processes are started anew, never forked: in a program's own file, put what is to run only there under
    ``if __name__ == "__main__":``.

    Args:
        max_workers: Processes. None: one for each processor; for a worker its ``limit``, if that is lower.
        max_tasks_per_child: Runs after which a process is replaced. None: never.
        max_memory_per_child: Bytes of resident memory; a process that has more after a run is replaced.

    Raises:
        ConfigurationError: One of these is below 1.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
    ) -> None:
        super().__init__()
        self.max_workers = _at_least_one("max_workers", max_workers)
        self.max_tasks_per_child = _at_least_one("max_tasks_per_child", max_tasks_per_child)
        self.max_memory_per_child = _at_least_one("max_memory_per_child", max_memory_per_child)
        self._children: ChildPool | None = None

    def duplicate(self) -> Self:
        return type(self)(*self._settings)

    def _give_up(self) -> None:
        """Also end the processes of what has started: Ctrl-C does not reach them."""
        super()._give_up()
        if self._children is not None:
            self._children.kill()

    def _start(self, call: LocalCall) -> None:
        with self._lock:
            if self._children is None:
                from prefect_lite.child_pool import ChildPool

                self._children = ChildPool(
                    self.max_workers or available_cpus(), self.max_tasks_per_child, self.max_memory_per_child
                )
            children = self._children
        children.submit(call)

    def _close(self) -> None:
        children, self._children = self._children, None
        if children is not None:
            children.close()

    @property
    def _settings(self) -> tuple[int | None, int | None, int | None]:
        return self.max_workers, self.max_tasks_per_child, self.max_memory_per_child

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProcessPoolTaskRunner) and other._settings == self._settings

    def __hash__(self) -> int:
        return hash((ProcessPoolTaskRunner, self._settings))

    def __repr__(self) -> str:
        return (
            f"ProcessPoolTaskRunner(max_workers={self.max_workers}, max_tasks_per_child="
            f"{self.max_tasks_per_child}, max_memory_per_child={self.max_memory_per_child})"
        )


class ExecutorTaskRunner(PoolTaskRunner):
    """Tasks run in any executor of ``concurrent.futures``, also those of Dask, Ray and others.

    Args:
        executor: Runs that it executes in this process see its objects; for another process, or machine, the
            call is pickled (tasks of importable modules by name).
        owned: Shut it down when the flow run has ended.
    """

    def __init__(self, executor: concurrent.futures.Executor, *, owned: bool = False) -> None:
        super().__init__()
        self.executor = executor
        self._owned = owned

    @property
    def max_workers(self) -> int | None:
        """Runs at a time, if the executor says so."""
        return getattr(self.executor, "_max_workers", None)

    def duplicate(self) -> Self:
        """Another one around the same executor."""
        return type(self)(self.executor, owned=self._owned)

    def _start(self, call: LocalCall) -> None:
        if isinstance(self.executor, concurrent.futures.ThreadPoolExecutor):
            call.hand_to(self.executor.submit(call.run))
            return
        from prefect_lite.packed_calls import PortableCall, run_portable

        if call.resolve():
            call.await_answer(self.executor.submit(run_portable, PortableCall(call)))

    def _close(self) -> None:
        if self._owned:
            self.executor.shutdown()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExecutorTaskRunner) and other.executor is self.executor

    def __hash__(self) -> int:
        return hash((ExecutorTaskRunner, id(self.executor)))

    def __repr__(self) -> str:
        return f"ExecutorTaskRunner({self.executor!r})"


class PrefectTaskRunner(TaskRunner):
    """Tasks run in the background, on workers, as with ``delay``. A flow run does not wait for them."""

    def duplicate(self) -> Self:
        return type(self)()

    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Any = None,
        dependencies: Mapping[str, Iterable[Any]] | None = None,
    ) -> PrefectFuture[Any]:
        """See ``TaskRunner.submit``.

        Raises:
            Exception: Everything that ``Task.apply_async`` raises.
        """
        from prefect_lite.run_creation import call_of

        many: Any = wait_for
        if wait_for is not None and not isinstance(wait_for, Iterable):
            many = [wait_for]
        return task.apply_async(*call_of(task, parameters), many, dependencies)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(PrefectTaskRunner)

    def __repr__(self) -> str:
        return "PrefectTaskRunner()"


def task_runner_from(option: Any) -> TaskRunner:
    """A task runner for one flow run, not started, from what ``flow(task_runner=...)`` was given.

    Raises:
        OptionTypeError: A callable has given something else.
    """
    if option is None:
        return ThreadPoolTaskRunner()
    if isinstance(option, TaskRunner):
        return option.duplicate()
    if isinstance(option, concurrent.futures.Executor):
        return ExecutorTaskRunner(option)
    made: Any = cast("Callable[[], Any]", option)()
    if isinstance(made, TaskRunner):
        return made
    if isinstance(made, concurrent.futures.Executor):
        return ExecutorTaskRunner(made, owned=True)
    raise OptionTypeError(
        f"task_runner must give a task runner or an executor of concurrent.futures; {option!r} gave {made!r}."
    )


def available_cpus() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _at_least_one(name: str, value: int | None) -> int | None:
    if value is not None and (
        not isinstance(cast("Any", value), int) or isinstance(value, bool) or value < 1
    ):
        raise ConfigurationError(f"{name} must be at least 1, got {value!r}.")
    return value
