"""Arguments of flows against their annotations: checked, and converted where pydantic does that."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from prefect_lite.exceptions import ParameterTypeError

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class ParameterCheck:
    """What a flow's annotations say about its arguments. pydantic is loaded with the first annotated call.

    ``*args`` and ``**kwargs``, defaults, and annotations that can't be evaluated or mean nothing to pydantic
    are not checked.

    Args:
        fn: The flow's function.
        signature: Of it.
    """

    def __init__(self, fn: Callable[..., Any], signature: inspect.Signature) -> None:
        self._fn = inspect.unwrap(fn)
        self._signature = signature
        self._adapters: dict[str, Any] | None = None

    def checked(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """The arguments as the flow takes them; they bind.

        Raises:
            ParameterTypeError: Some don't fit; says which and why.
        """
        adapters = self._adapters
        if adapters is None:
            adapters = self._adapters = dict(self._make_adapters())
        if not adapters:
            return args, kwargs
        from pydantic import ValidationError

        bound = self._signature.bind(*args, **kwargs)
        problems: list[str] = []
        for name, value in bound.arguments.items():
            if name not in adapters:
                continue
            try:
                bound.arguments[name] = adapters[name].validate_python(value)
            except ValidationError as exc:
                for error in exc.errors():
                    where = ".".join(map(str, (name, *error["loc"])))
                    problems.append(f" - {where}: {error['msg']}")
        if problems:
            raise ParameterTypeError("\n".join(("Flow run received invalid parameters:", *problems)))
        return bound.args, bound.kwargs

    def _make_adapters(self) -> Iterator[tuple[str, Any]]:
        for name, parameter in self._signature.parameters.items():
            if parameter.kind in _VARIADIC or parameter.annotation in (parameter.empty, Any, "Any"):
                continue
            adapter = self._adapter(parameter.annotation)
            if adapter is not None:
                yield name, adapter

    def _adapter(self, annotation: Any) -> Any:
        from pydantic import ConfigDict, PydanticUserError, TypeAdapter
        from pydantic.errors import PydanticUndefinedAnnotation

        try:
            if isinstance(annotation, str):
                annotation = eval(annotation, self._names())  # what typing.get_type_hints does, one by one
            try:
                return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
            except PydanticUserError as exc:
                if exc.code != "type-adapter-config-unused":  # models have a configuration of their own
                    raise
                return TypeAdapter(annotation)
        except (
            NameError,
            AttributeError,
            SyntaxError,
            TypeError,
            PydanticUserError,
            PydanticUndefinedAnnotation,
        ):
            return None

    def _names(self) -> dict[str, Any]:
        names: dict[str, Any] = dict(getattr(self._fn, "__globals__", {}))
        code, cells = getattr(self._fn, "__code__", None), getattr(self._fn, "__closure__", None)
        for name, cell in zip(code.co_freevars if code else (), cells or (), strict=True):
            try:
                names[name] = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
        return names
