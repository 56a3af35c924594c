"""``@flow`` and what it makes of a function: a run that its tasks belong to.

A flow runs where it is called, through the same engine as tasks. While it runs, ``submit`` and ``map`` use
its task runner; when it ends, everything that was submitted has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    cast,
    overload,
)

from prefect_lite.binding import Binder
from prefect_lite.borrowed_parameters import show_parameters, with_parameters_of
from prefect_lite.context import current_context
from prefect_lite.flow_options import OPTION_NAMES, FlowOptions, FlowStateHook
from prefect_lite.generators import whole
from prefect_lite.main_module import MAIN_NAMES, import_name_of, load_name, register_main
from prefect_lite.option_checks import check_callable, check_names
from prefect_lite.task_functions import Answer, dress, inspected

if TYPE_CHECKING:
    import inspect

    from prefect_lite.flow_parameters import ParameterCheck
    from prefect_lite.futures import PrefectFuture
    from prefect_lite.states import State
    from prefect_lite.utilities.annotations import allow_failure

    WaitFor = Iterable[PrefectFuture[Any] | allow_failure[Any]] | None

__all__ = ["Flow", "flow"]

P = ParamSpec("P")
Q = ParamSpec("Q")
O = ParamSpec("O")  # noqa: E741  # the options' own parameter list
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
T = TypeVar("T")


class Flow(Generic[P, R_co]):
    """A function whose calls are flow runs.

    Every option is readable as an attribute of its name, hooks as ``on_..._hooks``; all under ``options``.

    Attributes:
        fn: The function.
        name: Label for people.
        options: All options, immutable.
        isasync: Whether ``fn`` is a coroutine function or an asynchronous generator function.
        isgenerator: Whether it is a generator function, asynchronous or not.
        body: What a run calls.
        should_validate_parameters: The option ``validate_parameters``.
        bound_to: The instance or class that calls get as their first argument, if any.
        binder: Checks arguments.
    """

    materializes: ClassVar[bool] = False
    fn: Callable[P, R_co]
    name: str
    description: str | None
    options: FlowOptions
    isasync: bool
    isgenerator: bool

    def __init__(
        self,
        fn: Callable[P, R_co] | classmethod[Any, P, R_co] | staticmethod[P, R_co],
        options: FlowOptions | None = None,
        /,
        **given: Any,
    ) -> None:
        """``Flow(fn, name="x", retries=3)`` is what ``flow(name="x", retries=3)(fn)`` makes.

        Args:
            fn: A function, coroutine function, generator function or callable object.
            options: Checked ones, instead of the following.
            **given: See ``prefect_lite.flow_options.FlowOptions``.

        Raises:
            OptionTypeError: ``fn`` can't be called, or an option does not exist or has a wrong type.
            ConfigurationError: An option is impossible.
            ReservedArgumentError: A parameter is called ``wait_for`` or ``return_state``.
        """
        function = inspected(fn)
        dress(self, function.fn)
        if getattr(self, "__module__", None) in MAIN_NAMES:
            register_main()
        self.fn = function.fn
        self.isasync, self.isgenerator = function.isasync, function.isgenerator
        self._function = function
        self.bound_to: tuple[Any, ...] = ()
        self._set_options(options if options is not None else _options(given))
        self.binder = Binder(function.fn, self.name)
        self._check: ParameterCheck | None = None

    def _set_options(self, options: FlowOptions) -> None:
        self.options = options
        default = self._function.name.replace("_", "-")
        self.name = options.name or ("unknown-lambda" if default == "<lambda>" else default)
        self.description = (
            options.description if options.description is not None else self._function.description
        )
        self.should_validate_parameters = options.validate_parameters

    def __getattr__(self, name: str) -> Any:
        """Options by their name, and lists of hooks."""
        if name == "retry_delay_seconds":
            return self.options.retry_delay_seconds or 0  # shown as Prefect shows it
        if name in _SHOWN:
            return getattr(self.options, name)
        if name in _HOOK_LISTS:
            return list(getattr(self.options, name.removesuffix("_hooks")) or ())
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _copy(self) -> Self:
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        return copy

    @property
    def signature(self) -> inspect.Signature:
        """The function's signature."""
        return self.binder.signature

    @property
    def body(self) -> Callable[..., Any]:
        """What a run of it calls."""
        from prefect_lite.flow_runs import asettling, settling

        fn = whole(self.fn, self.isasync) if self.isgenerator else self.fn
        return asettling(cast("Any", fn)) if self.isasync else settling(fn)

    @property
    def parameter_check(self) -> ParameterCheck:
        """What the annotations say about arguments."""
        if self._check is None:
            from prefect_lite.flow_parameters import ParameterCheck

            self._check = ParameterCheck(self.fn, self.signature)
        return self._check

    @property
    def ismethod(self) -> Answer:
        """Whether this is a method bound to an instance."""
        return Answer(bool(self.bound_to) and not self._function.isclassmethod)

    @property
    def isclassmethod(self) -> Answer:
        """Whether ``@flow`` was put on a classmethod."""
        return Answer(self._function.isclassmethod)

    @property
    def isstaticmethod(self) -> Answer:
        """Whether ``@flow`` was put on a staticmethod."""
        return Answer(self._function.isstaticmethod)

    def validate_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Parameters as a run gets them: checked against the annotations, and converted.

        Args:
            parameters: By name.

        Raises:
            ParameterTypeError: Some don't fit; says which and why.
            ParameterBindError: The flow has no such parameters.
        """
        self.binder.check((), parameters)
        return self.binder.parameters(*self.parameter_check.checked((), dict(parameters)))

    @with_parameters_of(FlowOptions)
    def with_options(self: Flow[P, R], changes: dict[str, Any]) -> Flow[P, R]:
        """The same flow with other options; those not named stay. ``None`` given means ``None``.

        Raises:
            ConfigurationError: An option that does not exist, or an impossible value.
        """
        copy = self._copy()
        copy._set_options(self.options.changed(changes))
        return copy

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...
    @overload
    def __get__(
        self: Flow[Concatenate[S, Q], R], instance: S, owner: type[Any] | None = None
    ) -> Flow[Q, R]: ...
    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        """As an attribute of a class: bind like the function it wraps."""
        if self._function.isstaticmethod or (instance is None and not self._function.isclassmethod):
            return self
        copy = self._copy()
        copy.bound_to = (owner if self._function.isclassmethod else instance,)
        return copy

    # -- a run ------------------------------------------------------------------------------------

    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]  # a coroutine function's T is what it gives
        self: Flow[..., Coroutine[Any, Any, T]],
        *args: Any,
        return_state: Literal[True],
        wait_for: WaitFor = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, State[T]]: ...
    @overload
    def __call__(
        self: Flow[..., T], *args: Any, return_state: Literal[True], wait_for: WaitFor = None, **kwargs: Any
    ) -> State[T]: ...
    @overload
    def __call__(self: Flow[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def __call__(
        self: Flow[..., T],
        *args: Any,
        return_state: Literal[False] = False,
        wait_for: WaitFor = None,
        **kwargs: Any,
    ) -> T: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run in this process; a coroutine function gives a coroutine, a generator function a generator.

        Futures among the arguments are replaced by their results. Futures among what the function returns are
        waited for and replaced by their values, in whatever collection they are.

        Args:
            *args: Of the function.
            return_state: Give the final state instead of its value or exception.
            wait_for: Futures that have to complete first.
            **kwargs: Of the function.

        Raises:
            ParameterBindError: The arguments don't fit the signature.
            ParameterTypeError: An argument does not fit its annotation.
            UpstreamFailedRun: The run of a future among them did not complete.
            BaseException: What the function raised last, or what a run ended with whose future it returned.
        """
        from prefect_lite import flow_runs

        arguments = (*self.bound_to, *args)
        context = current_context()
        if context is not None and context.drawing is not None:
            return context.drawing.call(self, arguments, kwargs)
        return flow_runs.call(cast("Any", self), arguments, kwargs)

    def visualize(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Draw what a run would do: its tasks, and an arrow from each to those that get its result.

        The function itself is executed, so what it does outside of tasks is done. Tasks and other flows that
        it calls, submits or maps are not: they give their ``viz_return_value``, or a placeholder that can be
        passed on and nothing else. Options of the flow have no effect.

        The picture is the file ``<flow's name>.png`` in the working directory, shown in a window where there
        is a screen; in a notebook it is shown there. ``visualization.graph_of`` gives the graph instead.

        Args:
            *args: Of the function. They are neither checked against annotations nor converted.
            **kwargs: The same by name.

        Returns:
            None; where an event loop runs in this thread a coroutine that draws, to be awaited.

        Raises:
            GraphvizImportError: The package graphviz is not installed.
            GraphvizExecutableNotFoundError: The program ``dot`` is not installed.
            VisualizationUnsupportedError: The flow sends a run to a worker, as ``apply_async`` does.
            FlowVisualizationError: The picture can't be made or written.
            ParameterBindError: The arguments don't fit.
            Exception: What the function raises.
        """
        from prefect_lite.visualization import visualize

        return visualize(self, args, kwargs)

    # -- hooks ------------------------------------------------------------------------------------

    def on_running(self, fn: FlowStateHook) -> FlowStateHook:
        """Decorator: call ``fn(flow, run, state)`` when an attempt starts."""
        return self._add_hook("on_running", fn)

    def on_completion(self, fn: FlowStateHook) -> FlowStateHook:
        """Decorator: call ``fn(flow, run, state)`` when a run completed."""
        return self._add_hook("on_completion", fn)

    def on_failure(self, fn: FlowStateHook) -> FlowStateHook:
        """Decorator: call ``fn(flow, run, state)`` when a run failed, after its retries."""
        return self._add_hook("on_failure", fn)

    def on_cancellation(self, fn: FlowStateHook) -> FlowStateHook:
        """Decorator: call ``fn(flow, run, state)`` when a run was cancelled."""
        return self._add_hook("on_cancellation", fn)

    def on_crashed(self, fn: FlowStateHook) -> FlowStateHook:
        """Decorator: call ``fn(flow, run, state)`` when a run crashed."""
        return self._add_hook("on_crashed", fn)

    def _add_hook(self, name: str, fn: T) -> T:
        check_callable(name, fn)
        self._set_options(self.options.changed({name: (*(getattr(self.options, name) or ()), fn)}))
        return fn

    # -- as a value -------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<Flow {self.name}>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Flows of importable modules are pickled by name, as functions are."""
        module, qualname = import_name_of(self), getattr(self, "__qualname__", "")
        try:
            found: Any = load_name(module, qualname)
        except (ImportError, AttributeError):  # defined in a function, a notebook, or by -c
            found = None
        return (load_name, (module, qualname)) if found is self else super().__reduce_ex__(protocol)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_check": None}


_HOOK_LISTS = frozenset(
    f"{name}_hooks" for name in ("on_running", "on_completion", "on_failure", "on_cancellation", "on_crashed")
)
_SHOWN = frozenset({
    "version", "flow_run_name", "retries", "retry_delay_seconds", "task_runner", "timeout_seconds",
    "log_prints", "persist_result", "result_storage", "result_serializer", "cache_result_in_memory",
})  # fmt: skip
"""Options that no attribute or method of a flow has the name of."""


def _options(given: dict[str, Any]) -> FlowOptions:
    check_names(given, OPTION_NAMES, "flow")
    return FlowOptions(**given)


show_parameters(cast("Any", Flow).__init__, FlowOptions)


class _FlowDecorator(Protocol[O]):
    @overload
    def __call__(self, fn: Callable[P, R], /, *args: O.args, **options: O.kwargs) -> Flow[P, R]: ...
    @overload
    def __call__(
        self, fn: None = None, /, *args: O.args, **options: O.kwargs
    ) -> Callable[[Callable[P, R]], Flow[P, R]]: ...


def _decorator_with_parameters_of(
    _options: Callable[O, FlowOptions],
) -> Callable[[Callable[..., Any]], _FlowDecorator[O]]:
    return lambda function: cast("_FlowDecorator[O]", show_parameters(function, FlowOptions))


@_decorator_with_parameters_of(FlowOptions)
def flow(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a flow: ``@flow`` or ``@flow(retries=3, log_prints=True)``.

    Args:
        fn: The function.
        **options: See ``prefect_lite.flow_options.FlowOptions``.

    Raises:
        ConfigurationError: An option that does not exist, or an impossible value.
    """
    checked = _options(options)

    def decorate(function: Callable[..., Any]) -> Flow[..., Any]:
        return Flow(function, checked)

    return decorate if fn is None else decorate(fn)
