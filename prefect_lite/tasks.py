"""``@task`` and what it makes of a function.

A ``Task`` is called here (``add(1, 2)``), sent to a worker (``add.delay(1, 2)``) or served by one
(``add.serve()``). Runs never change it; ``with_options`` makes another one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    cast,
    overload,
)

from prefect_lite.binding import Binder
from prefect_lite.exceptions import ConfigurationError
from prefect_lite.main_module import MAIN_NAMES, import_name_of, load_name, register_main
from prefect_lite.options import (
    ATTRIBUTE_NAMES,
    AttributeOptions,
    Options,
    StateHook,
    TaskOptions,
    TransactionHook,
    check_names,
    travelling,
)
from prefect_lite.task_calls import R_co, TaskCalls
from prefect_lite.task_keys import check_key, task_key_of

if TYPE_CHECKING:
    _Attributes = AttributeOptions  # a task shows its options as attributes; type checkers see them here
else:
    _Attributes = object

__all__ = ["Task", "TaskOptions", "exponential_backoff", "task"]

P = ParamSpec("P")
Q = ParamSpec("Q")
O = ParamSpec("O")  # noqa: E741  # the options' own parameter list
R = TypeVar("R")
T = TypeVar("T")
S = TypeVar("S")


def exponential_backoff(backoff_factor: float) -> Callable[[int], list[float]]:
    """Delays for ``retry_delay_seconds`` that double with every retry.

    Args:
        backoff_factor: The first delay in seconds.
    """

    def delays(retries: int) -> list[float]:
        return [backoff_factor * 2.0**retry for retry in range(min(retries, 50))]

    return delays


def _with_parameters_of(
    _options: Callable[O, Options],
) -> Callable[[Callable[[S, dict[str, Any]], T]], Callable[Concatenate[S, O], T]]:
    """Give a method that takes a dict of options the keyword parameters of ``Options``."""

    def decorate(method: Callable[[S, dict[str, Any]], T]) -> Callable[Concatenate[S, O], T]:
        @functools.wraps(method)
        def with_keywords(self: S, *args: O.args, **options: O.kwargs) -> T:
            return method(self, dict(options))

        return with_keywords

    return decorate


class Task(TaskCalls[P, R_co], _Attributes):
    """A function that can run here, in a thread pool, or on a worker.

    Every option is readable: most as attributes (``task.retries``), all under ``task.options``.

    Attributes:
        fn: The function.
        key: What its runs name it by.
        name: Label for people.
        options: All options, immutable.
        isasync: Whether ``fn`` is a coroutine function.
        isclassmethod, isstaticmethod: What kind of attribute of a class it is.
        bound_to: The instance or class that calls get as their first argument, if any.
        binder: Checks arguments.
        prepared: What ``submission.py`` keeps between two runs.
    """

    fn: Callable[P, R_co]
    key: str
    name: str
    options: Options
    isasync: bool

    def __init__(self, fn: Callable[P, R_co], options: Options | None = None) -> None:
        """Usually made by ``@task``.

        Args:
            fn: A function, coroutine function, or callable object.
            options: Defaults to ``Options()``.

        Raises:
            ConfigurationError: ``fn`` is not callable or an option is impossible.
            ReservedArgumentError: A parameter is called ``wait_for``, ``return_state`` or ``deferred``.
        """
        self.isclassmethod = isinstance(fn, classmethod)
        self.isstaticmethod = isinstance(fn, staticmethod)
        if isinstance(fn, (classmethod, staticmethod)):
            fn = cast("Any", fn).__func__
        if not callable(fn):
            raise ConfigurationError(f"@task needs a function, got {fn!r}.")
        functools.update_wrapper(cast("Any", self), fn)
        if getattr(fn, "__module__", None) in MAIN_NAMES:
            register_main()
        self.fn = fn
        self.isasync = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)
        self._changes: dict[str, Any] = {}
        self._original = True  # what a worker finds under the same key
        self.bound_to: tuple[Any, ...] = ()
        self._set_options(options or Options())
        self.binder = Binder(fn, self.name)

    def _set_options(self, options: Options) -> None:
        self.options = options
        self.name = options.name or getattr(self.fn, "__name__", type(self.fn).__name__)
        self.key = check_key(options.key if options.key is not None else task_key_of(self.fn))
        self.__dict__.update({name: getattr(options, name) for name in ATTRIBUTE_NAMES})
        if options.description is None:
            self.__dict__["description"] = inspect.getdoc(self.fn)
        self.prepared: Any = None

    def _copy(self) -> Self:
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy._original = False
        return copy

    @property
    def task_key(self) -> str:
        """The same as ``key``."""
        return self.key

    @property
    def signature(self) -> inspect.Signature:
        """The function's signature."""
        return self.binder.signature

    @property
    def ismethod(self) -> bool:
        """Whether this is a method bound to an instance."""
        return bool(self.bound_to) and not self.isclassmethod

    @property
    def travelling_options(self) -> dict[str, Any]:
        """What ``with_options`` changed, as plain data that goes with each run.

        Raises:
            OptionNotPortable: A changed option is a callable or another object only this process has.
        """
        return travelling(self._changes, self.name)

    @_with_parameters_of(Options)
    def with_options(self: Task[P, R], changes: dict[str, Any]) -> Task[P, R]:
        """The same task with other options; those not named stay. ``None`` given means ``None``.

        Raises:
            ConfigurationError: An option that does not exist, or an impossible value.
        """
        copy = self._copy()
        copy._set_options(self.options.changed(changes))
        copy._changes = {**self._changes, **changes}
        return copy

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...
    @overload
    def __get__(
        self: Task[Concatenate[S, Q], R], instance: S, owner: type[Any] | None = None
    ) -> Task[Q, R]: ...
    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        """As an attribute of a class: bind like the function it wraps. The instance goes with the run."""
        if self.isstaticmethod or (instance is None and not self.isclassmethod):
            return self
        copy = self._copy()
        copy.bound_to = (owner if self.isclassmethod else instance,)
        return copy

    # -- here -------------------------------------------------------------------------------------

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run in this process, with retries, timeout and hooks; a coroutine function gives a coroutine."""
        from prefect_lite import engine

        return engine.call(self, (*self.bound_to, *args), dict(kwargs))

    # -- as a worker ------------------------------------------------------------------------------

    def serve(self, **settings: Any) -> None:
        """Execute runs of this task until the process is stopped; ``settings``: see ``task_worker.serve``."""
        from prefect_lite.task_worker import serve

        serve(self, **settings)

    async def aserve(self, **settings: Any) -> None:
        """``serve`` in the caller's event loop, without signal handlers."""
        from prefect_lite.task_worker import aserve

        await aserve(self, **settings)

    # -- hooks ------------------------------------------------------------------------------------

    def on_running(self, fn: StateHook) -> StateHook:
        """Decorator: call ``fn(task, run, state)`` when a run starts. Use it where the task is defined."""
        return self._add_hook("on_running", fn)

    def on_completion(self, fn: StateHook) -> StateHook:
        """Decorator: call ``fn(task, run, state)`` when a run completed."""
        return self._add_hook("on_completion", fn)

    def on_failure(self, fn: StateHook) -> StateHook:
        """Decorator: call ``fn(task, run, state)`` when a run failed, after its retries."""
        return self._add_hook("on_failure", fn)

    def on_commit(self, fn: TransactionHook) -> TransactionHook:
        """Decorator: call ``fn(transaction)`` when the run's record is committed."""
        return self._add_hook("on_commit", fn)

    def on_rollback(self, fn: TransactionHook) -> TransactionHook:
        """Decorator: call ``fn(transaction)`` when the transaction rolls back."""
        return self._add_hook("on_rollback", fn)

    def _add_hook(self, name: str, fn: T) -> T:
        change: dict[str, Any] = {name: (*(getattr(self.options, name) or ()), fn)}
        self._set_options(self.options.changed(change))
        if not self._original:
            self._changes = {**self._changes, **change}
        return fn

    # -- as a value -------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<Task {self.key}>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Tasks of importable modules are pickled by name, as functions are."""
        module, qualname = import_name_of(self), cast("Any", self).__qualname__
        try:
            found: Any = load_name(module, qualname)
        except (ImportError, AttributeError):  # defined in a function, a notebook, or by -c
            return super().__reduce_ex__(protocol)
        if found is self:
            return load_name, (module, qualname)
        if isinstance(found, Task) and cast("Any", found).fn is self.fn:
            return _load_changed, (module, qualname, self._changes, self.bound_to)
        return super().__reduce_ex__(protocol)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "prepared": None}


def _load_changed(module: str, qualname: str, changes: dict[str, Any], bound_to: tuple[Any, ...]) -> Any:
    found: Any = load_name(module, qualname)
    changed = found.with_options(**changes) if changes else found._copy()
    changed.bound_to = bound_to
    return changed


class _TaskDecorator(Protocol[O]):
    @overload
    def __call__(self, fn: Callable[P, R], /, *args: O.args, **options: O.kwargs) -> Task[P, R]: ...
    @overload
    def __call__(
        self, fn: None = None, /, *args: O.args, **options: O.kwargs
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def _decorator_with_parameters_of(
    _options: Callable[O, Options],
) -> Callable[[Callable[..., Any]], _TaskDecorator[O]]:
    return lambda function: cast("_TaskDecorator[O]", function)


@_decorator_with_parameters_of(Options)
def task(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a task: ``@task`` or ``@task(retries=3, timeout_seconds=10)``.

    Args:
        fn: The function.
        **options: See ``prefect_lite.options.Options``.

    Raises:
        ConfigurationError: An option that does not exist, or an impossible value.
    """
    check_names(options)
    checked = Options(**options)

    def decorate(function: Callable[..., Any]) -> Task[..., Any]:
        return Task(function, checked)

    return decorate if fn is None else decorate(fn)
