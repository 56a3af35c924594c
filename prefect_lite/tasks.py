"""``@task`` and what it makes of a function.

A ``Task`` is called here (``add(1, 2)``), sent to a worker (``add.delay(1, 2)``) or served by one
(``add.serve()``). Runs never change it; ``with_options`` makes another one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from prefect_lite import known_tasks
from prefect_lite.binding import Binder
from prefect_lite.borrowed_parameters import show_parameters, with_parameters_of
from prefect_lite.exceptions import OptionTypeError
from prefect_lite.generators import whole
from prefect_lite.main_module import MAIN_NAMES, import_name_of, load_name, register_main
from prefect_lite.option_checks import check_names
from prefect_lite.options import (
    ATTRIBUTE_NAMES,
    OPTION_NAMES,
    AttributeOptions,
    Options,
    TaskOptions,
    travelling,
)
from prefect_lite.retries import exponential_backoff
from prefect_lite.run_names import TaskRunNameCallbackWithParameters
from prefect_lite.task_calls import R_co, TaskCalls
from prefect_lite.task_functions import Answer, dress, inspected
from prefect_lite.task_hooks import TaskHooks
from prefect_lite.task_keys import check_key, task_key_of
from prefect_lite.task_serving import TaskServing

if TYPE_CHECKING:
    from uuid import UUID

    from prefect_lite.context import FlowRunContext, TaskRunContext
    from prefect_lite.hashing import task_input_hash
    from prefect_lite.materializing import MaterializingTask
    from prefect_lite.run_inputs import RunInput
    from prefect_lite.runs import TaskRun

    _Attributes = AttributeOptions  # a task shows its options as attributes; type checkers see them here
else:
    _Attributes = object

__all__ = [
    "MaterializingTask",
    "Task",
    "TaskOptions",
    "TaskRunNameCallbackWithParameters",
    "exponential_backoff",
    "task",
    "task_input_hash",
]

MYPY = False  # mypy takes it for True

P = ParamSpec("P")
Q = ParamSpec("Q")
O = ParamSpec("O")  # noqa: E741  # the options' own parameter list
R = TypeVar("R")
T = TypeVar("T")
S = TypeVar("S")


class Task(TaskCalls[P, R_co], TaskServing, TaskHooks, _Attributes):
    """A function that can run here, in a thread pool, or on a worker.

    Every option is readable: most as attributes (``task.retries``), all under ``task.options``.

    Attributes:
        fn: The function.
        body: What a run of it calls: ``fn``, or for a generator what collects all that it yields.
        key: What its runs name it by.
        name: Label for people.
        options: All options, immutable.
        isasync: Whether ``fn`` is a coroutine function or an asynchronous generator function.
        isgenerator: Whether it is a generator function, asynchronous or not.
        bound_to: The instance or class that calls get as their first argument, if any.
        binder: Checks arguments.
        prepared: What ``submission.py`` keeps between two runs.
        materializes: Whether its runs make assets, or hand on which ones they have read.
    """

    materializes: bool = False

    fn: Callable[P, R_co]
    key: str
    name: str
    options: Options
    isasync: bool
    isgenerator: bool

    def __init__(
        self,
        fn: Callable[P, R_co] | classmethod[Any, P, R_co] | staticmethod[P, R_co],
        options: Options | None = None,
        /,
        **given: Unpack[TaskOptions],
    ) -> None:
        """``Task(fn, name="x", retries=3)`` is what ``task(name="x", retries=3)(fn)`` makes.

        Args:
            fn: A function, coroutine function, generator function or callable object.
            options: Checked ones, instead of the following.
            **given: See ``prefect_lite.options.Options``.

        Raises:
            ConfigurationError: ``fn`` is not callable or an option is impossible.
            ReservedArgumentError: A parameter is called ``wait_for``, ``return_state`` or ``deferred``.
        """
        if options is None or given:
            options = _options(given)
        elif not isinstance(cast("object", options), Options):
            raise OptionTypeError(f"Give options by their name, as in Task(fn, name={options!r}).")
        function = inspected(fn)
        dress(self, function.fn)
        if getattr(self, "__module__", None) in MAIN_NAMES:
            register_main()
        self.fn = function.fn
        self.isasync, self.isgenerator = function.isasync, function.isgenerator
        self.body: Callable[..., Any] = (
            whole(function.fn, function.isasync) if function.isgenerator else function.fn
        )
        self._function = function
        self._changes: dict[str, Any] = {}
        self._original = True  # what a worker finds under the same key
        self.bound_to: tuple[Any, ...] = ()
        self._set_options(options)
        self.binder = Binder(function.fn, self.name)

    def _set_options(self, options: Options) -> None:
        self.options = options
        self.name = options.name or self._function.name
        self.key = check_key(options.key if options.key is not None else task_key_of(self.fn))
        for alias in options.aliases:
            check_key(alias)
        self.__dict__.update({name: getattr(options, name) for name in ATTRIBUTE_NAMES})
        if options.description is None:
            self.__dict__["description"] = self._function.description
        if options.asset_deps is None:
            self.__dict__["asset_deps"] = []  # as Prefect shows it
        self.prepared: Any = None
        self.materializes = type(self).materializes or bool(options.asset_deps)
        known_tasks.learn(self, original=self._original)

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
    def ismethod(self) -> Answer:
        """Whether this is a method bound to an instance."""
        return Answer(bool(self.bound_to) and not self._function.isclassmethod)

    @property
    def isclassmethod(self) -> Answer:
        """Whether ``@task`` was put on a classmethod."""
        return Answer(self._function.isclassmethod)

    @property
    def isstaticmethod(self) -> Answer:
        """Whether ``@task`` was put on a staticmethod."""
        return Answer(self._function.isstaticmethod)

    @property
    def tags(self) -> frozenset[str]:
        """Labels of every run."""
        return cast("frozenset[str]", self.options.tags)

    @property
    def retry_delay_seconds(self) -> float | list[float]:
        """One delay for all retries, or the list of them (also where a callable has made it)."""
        delays = self.options.retry_delays()
        given = self.options.retry_delay_seconds
        return list(delays) if callable(given) or isinstance(given, Sequence) else delays[0]

    @property
    def travelling_options(self) -> dict[str, Any]:
        """What ``with_options`` changed, as plain data that goes with each run.

        Raises:
            OptionNotPortable: A changed option is a callable or another object only this process has.
        """
        changes = self._changes
        if callable(changes.get("retry_delay_seconds")):  # it has been asked; its answer can travel
            changes = {**changes, "retry_delay_seconds": self.retry_delay_seconds}
        return travelling(changes, self.name)

    @with_parameters_of(Options)
    def with_options(self: Task[P, R], changes: dict[str, Any]) -> Task[P, R]:
        """The same task with other options; those not named stay. ``None`` given means ``None``.

        Raises:
            ConfigurationError: An option that does not exist, or an impossible value.
        """
        copy = self._copy()
        copy._set_options(self.options.changed(changes))
        copy._changes = {**self._changes, **{name: getattr(copy.options, name) for name in changes}}
        return copy

    if not MYPY:  # it takes the first one that fits the arguments, whatever ``self`` is
        # Of a classmethod, whose first parameter is a class.
        @overload
        def __get__(self: Task[Concatenate[type[S], Q], R], instance: None, owner: type[S]) -> Task[Q, R]: ...
        @overload
        def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...

    @overload
    def __get__(  # pyright: ignore[reportOverlappingOverload]  # for mypy
        self: Task[..., R], instance: None, owner: type[Any] | None = None
    ) -> Task[..., R]: ...
    @overload
    def __get__(
        self: Task[Concatenate[S, Q], R], instance: S, owner: type[Any] | None = None
    ) -> Task[Q, R]: ...
    @overload
    def __get__(
        self: Task[Concatenate[type[S], Q], R], instance: S, owner: type[Any] | None = None
    ) -> Task[Q, R]: ...
    # Of a staticmethod.
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> Self: ...
    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        """As an attribute of a class: bind like the function it wraps. The instance goes with the run."""
        if self._function.isstaticmethod or (instance is None and not self._function.isclassmethod):
            return self
        copy = self._copy()
        copy.bound_to = (owner if self._function.isclassmethod else instance,)
        return copy

    def _change(self, changes: dict[str, Any]) -> None:
        self._set_options(self.options.changed(changes))
        if not self._original:
            self._changes = {**self._changes, **changes}

    # -- runs that start later --------------------------------------------------------------------

    async def create_run(
        self,
        client: Any = None,
        id: UUID | None = None,
        parameters: dict[str, Any] | None = None,
        flow_run_context: FlowRunContext | None = None,
        parent_task_run_context: TaskRunContext | None = None,
        wait_for: Any = None,
        extra_task_inputs: Mapping[str, set[RunInput]] | None = None,
        deferred: bool = False,
    ) -> TaskRun:
        """Make a run without executing it here.

        Args:
            client: For programs written for Prefect; not needed.
            id: Of the run. Default: a new one.
            parameters: Arguments by name; kept in the record.
            flow_run_context: The flow run it belongs to. Default: the current one, if any.
            parent_task_run_context: The run it was made in. Default: the current one, if any.
            wait_for: Futures that have to end before it may start, one or many.
            extra_task_inputs: Inputs to record beside those found in ``parameters``, by name.
            deferred: Send it to a worker, as ``apply_async`` does; else only its record is made.

        Returns:
            Its record: ``Scheduled`` when it was sent, else ``Pending``.
        """
        from prefect_lite.run_creation import create_run

        place = flow_run_context, parent_task_run_context
        inputs = wait_for, extra_task_inputs
        return await create_run(cast("Any", self), client, id, parameters, *place, *inputs, deferred)

    async def create_local_run(
        self,
        client: Any = None,
        id: UUID | None = None,
        parameters: dict[str, Any] | None = None,
        flow_run_context: FlowRunContext | None = None,
        parent_task_run_context: TaskRunContext | None = None,
        wait_for: Any = None,
        extra_task_inputs: Mapping[str, set[RunInput]] | None = None,
        deferred: bool = False,
    ) -> TaskRun:
        """Make the record of a run that this process is to execute. Nothing is sent, ``deferred`` or not.

        The arguments are those of ``create_run``.
        """
        from prefect_lite.run_creation import create_local_run

        place = flow_run_context, parent_task_run_context
        inputs = wait_for, extra_task_inputs
        return await create_local_run(cast("Any", self), client, id, parameters, *place, *inputs, deferred)

    # -- as a value -------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<Task {self.key}>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Tasks of importable modules are pickled by name, as functions are."""
        module, qualname = import_name_of(self), getattr(self, "__qualname__", "")
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


def _options(given: Mapping[str, Any]) -> Options:
    check_names(given, OPTION_NAMES)
    return Options(**given)


show_parameters(cast("Any", Task).__init__, Options)


def __getattr__(name: str) -> Any:
    """What only some programs use is loaded when they do."""
    if name == "task_input_hash":
        from prefect_lite.hashing import task_input_hash

        return task_input_hash
    if name == "MaterializingTask":
        from prefect_lite.materializing import MaterializingTask

        return MaterializingTask
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
    return lambda function: cast("_TaskDecorator[O]", show_parameters(function, Options))


@_decorator_with_parameters_of(Options)
def task(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a task: ``@task`` or ``@task(retries=3, timeout_seconds=10)``.

    Args:
        fn: The function.
        **options: See ``prefect_lite.options.Options``.

    Raises:
        ConfigurationError: An option that does not exist, or an impossible value.
    """
    checked = _options(options)

    def decorate(function: Callable[..., Any]) -> Task[..., Any]:
        return Task(function, checked)

    return decorate if fn is None else decorate(fn)
