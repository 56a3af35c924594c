"""The base class of serializers, and the register through which they are found by their type."""

from __future__ import annotations

import importlib
import inspect
import warnings
from typing import Any, Generic, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator

from prefect_lite.exceptions import ConfigurationError, OptionTypeError
from prefect_lite.main_module import import_name_of

D = TypeVar("D")

_registry: dict[str, type[Serializer[Any]]] = {}
_BUILT_IN = "prefect_lite.serializers"


class Serializer(BaseModel, Generic[D]):
    """Makes bytes of values and values of bytes. ``Serializer(type="json")`` gives the one of that type.

    Attributes:
        type: Its name. A subclass that has one as default is known by it.
    """

    model_config = ConfigDict(extra="forbid")

    type: str

    def __new__(cls, **data: Any) -> Self:
        known = _registry.get(data.get("type", ""), cls)
        return super().__new__(known if issubclass(known, cls) else cls)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if cls.__pydantic_generic_metadata__["origin"] is not None:
            return  # Serializer[int] is no new one
        name = cls.model_fields["type"].default
        if _has_own_type(cls) and isinstance(name, str):
            _register(cls, name)
        elif cls.__dict__.keys() & {"dumps", "loads"} or (isinstance(name, str) and _has_more_fields(cls)):
            raise TypeError(
                f'{cls.__name__} needs a type of its own, such as `type: str = "{cls.__name__.lower()}"`: '
                f"it is written next to each value, to find the class again."
            )

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_type(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        base = cls.__pydantic_generic_metadata__["origin"] or cls  # of Serializer[int], too
        if isinstance(value, base):
            return cast(Self, value)
        fields = cast("dict[str, Any]", value) if isinstance(value, dict) else {"type": value}
        name = fields.get("type", base.model_fields["type"].default)
        if not isinstance(name, str):
            return handler(value)
        known = _known(name)
        if known is base or (issubclass(base, known) and not _has_own_type(cast("type[Any]", base))):
            return handler(fields)
        if not issubclass(known, base):
            raise ValueError(f"{base.__name__} is not the serializer {name!r}; that is {known.__name__}")
        return cast(Self, known.model_validate(fields))

    def dumps(self, obj: D) -> bytes:
        """``obj`` as bytes."""
        raise NotImplementedError(f"{type(self).__name__} has no `dumps`.")

    def loads(self, blob: bytes) -> D:
        """The inverse of ``dumps``; only for data that can be trusted."""
        raise NotImplementedError(f"{type(self).__name__} has no `loads`.")


def _has_own_type(kind: type[Serializer[Any]]) -> bool:
    return "type" in inspect.get_annotations(kind)


def _has_more_fields(kind: type[Any]) -> bool:
    """Than the class whose type it has."""
    return not set(kind.model_fields) <= set(_registry[kind.model_fields["type"].default].model_fields)


def _register(kind: type[Serializer[Any]], name: str) -> None:
    before = _registry.get(name, kind)
    old, new = (f"{each.__module__}.{each.__qualname__}" for each in (before, kind))
    if old != new:
        warnings.warn(
            f"{new} replaces {old} as the serializer {name!r}; values written by one may not be readable by "
            f"the other.",
            stacklevel=4,
        )
    _registry[name] = kind


def _known(name: str) -> type[Serializer[Any]]:
    try:
        return _registry[name]
    except KeyError:
        names = ", ".join(map(repr, sorted(_registry)))
        raise ValueError(
            f"There is no serializer {name!r}, only {names}. If it is one of your own, "
            f"the module that defines it must be imported first."
        ) from None


def resolve_serializer(value: str | Serializer[Any] | None) -> Serializer[Any]:
    """The serializer that is meant: by its type, or itself. None: ``pickle``.

    Raises:
        ConfigurationError: There is none of that type; lists the known ones.
        OptionTypeError: It is neither.
    """
    if value is None:
        return _registry["pickle"](type="pickle")
    if isinstance(value, Serializer):
        return value
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OptionTypeError(
            f"`result_serializer` must be a Serializer or the type of one, such as 'json', got {value!r}."
        )
    return serializer_from_spec({"type": value})


def serializer_spec(serializer: Serializer[Any]) -> dict[str, Any]:
    """A serializer as plain data, with the modules to import for those that are not ours."""
    spec = serializer.model_dump(mode="json")
    modules: list[str] = []
    inner: Serializer[Any] | None = serializer
    while inner is not None:
        if (module := import_name_of(type(inner))) != _BUILT_IN:
            modules.append(module)
        inner = getattr(cast(Any, inner), "serializer", None)  # of a compressed one
    return {**spec, "modules": modules} if modules else spec


def serializer_from_spec(spec: dict[str, Any]) -> Serializer[Any]:
    """The inverse. It may import the modules that are named, so it is for data whose signature was checked.

    Raises:
        ConfigurationError: There is no such serializer, or its fields don't fit.
    """
    fields = dict(spec)
    for module in cast("list[str]", fields.pop("modules", ())):
        try:
            importlib.import_module(module)
        except ImportError as exc:
            raise ConfigurationError(
                f"The module {module} of the serializer {fields.get('type')!r} can't be imported: {exc}."
            ) from exc
    try:
        return cast("Serializer[Any]", Serializer.model_validate(fields))
    except ValidationError as exc:
        raise ConfigurationError(_problems(exc)) from None


def _problems(error: ValidationError) -> str:
    sentences = [str(item["msg"]).removeprefix("Value error, ").rstrip(".") for item in error.errors()]
    return f"{'; '.join(sentences)}."
