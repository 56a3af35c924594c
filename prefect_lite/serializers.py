"""How persisted results become bytes: ``pickle``, ``json``, either of them compressed, or one of your own.

A serializer of your own is a subclass with a ``type``; from then on the option ``result_serializer`` knows it
by that name::

    class TextSerializer(Serializer):
        type: str = "text"

        def dumps(self, obj):
            return str(obj).encode()

        def loads(self, blob):
            return blob.decode()

The serializer is written next to the result, so that whoever reads it needs not know the task.
"""

from __future__ import annotations

import importlib
from typing import Any, cast

from pydantic import Field, SerializeAsAny, field_validator

from prefect_lite import json_values
from prefect_lite.exceptions import SerializationError
from prefect_lite.json_likeness import unlike_keys
from prefect_lite.serializer_base import (
    D,
    Serializer,
    resolve_serializer,
    serializer_from_spec,
    serializer_spec,
)

__all__ = [
    "CompressedJSONSerializer",
    "CompressedPickleSerializer",
    "CompressedSerializer",
    "JSONSerializer",
    "PickleSerializer",
    "Serializer",
    "prefect_json_object_decoder",
    "prefect_json_object_encoder",
    "resolve_serializer",
    "serializer_from_spec",
    "serializer_spec",
]

_BUILT_IN = "prefect_lite.serializers"
_ENCODER = f"{_BUILT_IN}.prefect_json_object_encoder"
_DECODER = f"{_BUILT_IN}.prefect_json_object_decoder"


def prefect_json_object_encoder(obj: Any) -> Any:
    """The JSON form of a value that JSON has none for; what ``JSONSerializer`` uses.

    Raises:
        SerializationError: There is none from which the same value could be made again.
    """
    return json_values.encode_object(obj)


def prefect_json_object_decoder(result: dict[str, Any]) -> Any:
    """The inverse; dicts that are no such form stay as they are.

    Raises:
        SerializationError: The value's class can't be found, or does not take the data.
    """
    return json_values.decode_object(result)


class PickleSerializer(Serializer[D]):
    """cloudpickle: nearly every Python value. The one that is used unless another is asked for.

    Attributes:
        picklelib: Module with ``dumps`` and ``loads``.
        picklelib_version: Accepted as Prefect does; it has no effect.
    """

    type: str = "pickle"
    picklelib: str = "cloudpickle"
    picklelib_version: str | None = None

    @field_validator("picklelib")
    @classmethod
    def _has_functions(cls, value: str) -> str:
        return _checked_module(value, ("dumps", "loads"))

    def dumps(self, obj: D) -> bytes:
        """``obj`` as a pickle.

        Raises:
            SerializationError: It can't be pickled.
        """
        try:
            return cast(bytes, self._module().dumps(obj))
        except Exception as exc:  # the value's own code runs here and may raise anything
            raise SerializationError(
                f"A value of type {type(obj).__name__} can't be pickled: {type(exc).__name__}: {exc}."
            ) from exc

    def loads(self, blob: bytes) -> D:
        """The value of a pickle; this runs what the pickle says, so it must be one that can be trusted.

        Raises:
            SerializationError: It is damaged, or a class can't be found here.
        """
        try:
            return cast(D, self._module().loads(blob))
        except Exception as exc:
            raise SerializationError(
                f"A pickled value can't be loaded here ({type(exc).__name__}: {exc}). "
                f"The module that defines its types must be importable in this process."
            ) from exc

    def _module(self) -> Any:
        # Ours is cloudpickle too, and knows classes of the main program by the name others import them by.
        name = "prefect_lite.pickling" if self.picklelib == "cloudpickle" else self.picklelib
        return importlib.import_module(name)


class JSONSerializer(Serializer[D]):
    """JSON, with pydantic for what JSON lacks: models, dataclasses, sets, dates, UUIDs, bytes, exceptions...

    As always with JSON, tuples become lists, keys of dicts become text, and subclasses of the plain types
    become those. What else would not come back equal is refused.

    Attributes:
        jsonlib: Module with ``dumps`` and ``loads``.
        object_encoder: Dotted name of a function that gives a JSON form for values that have none; None: they
            are refused.
        object_decoder: Dotted name of its inverse, called for each dict.
        dumps_kwargs: More arguments for ``dumps``.
        loads_kwargs: More arguments for ``loads``.
    """

    type: str = "json"
    jsonlib: str = "json"
    object_encoder: str | None = _ENCODER
    object_decoder: str | None = _DECODER
    dumps_kwargs: dict[str, Any] = Field(default_factory=dict[str, Any])
    loads_kwargs: dict[str, Any] = Field(default_factory=dict[str, Any])

    @field_validator("dumps_kwargs")
    @classmethod
    def _without_default(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "default" in value:
            raise ValueError("`default` can't be given; name the function in `object_encoder`")
        return value

    @field_validator("loads_kwargs")
    @classmethod
    def _without_hook(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "object_hook" in value:
            raise ValueError("`object_hook` can't be given; name the function in `object_decoder`")
        return value

    def dumps(self, obj: D) -> bytes:
        """``obj`` as JSON.

        Raises:
            SerializationError: There is a value in it that has no JSON form.
        """
        options = dict(self.dumps_kwargs)
        if self.object_encoder is not None:
            options["default"] = _function(self.object_encoder)
        dumps = importlib.import_module(self.jsonlib).dumps
        try:
            text: str | bytes = dumps(obj, **options)
            if unlike_keys(obj):
                raise ValueError("a dict has two keys that are one in JSON, such as 1 and '1'")
            if self.object_decoder == _DECODER and json_values.needs_escape(text):
                text = dumps(json_values.escaped(obj), **options)
        except (TypeError, ValueError, RecursionError) as exc:
            cause = exc.__cause__ if isinstance(exc.__cause__, SerializationError) else exc
            raise SerializationError(f"The value can't be written as JSON: {cause}") from exc
        return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)

    def loads(self, blob: bytes) -> D:
        """The value of a JSON text.

        Raises:
            SerializationError: It is no JSON, or a class that it names can't be found here.
        """
        options = dict(self.loads_kwargs)
        if self.object_decoder is not None:
            options["object_hook"] = _function(self.object_decoder)
        try:
            text = blob.decode("utf-8", "surrogatepass")
            return cast(D, importlib.import_module(self.jsonlib).loads(text, **options))
        except (TypeError, ValueError, RecursionError) as exc:
            raise SerializationError(f"The stored value can't be read as JSON: {exc}") from exc


class CompressedSerializer(Serializer[D]):
    """Another serializer, compressed.

    Attributes:
        serializer: The other one, or its type.
        compressionlib: Module with ``compress`` and ``decompress``: lzma, zlib, gzip, bz2...
    """

    type: str = "compressed"
    serializer: SerializeAsAny[Serializer[Any]]
    compressionlib: str = "lzma"

    @field_validator("compressionlib")
    @classmethod
    def _has_functions(cls, value: str) -> str:
        return _checked_module(value, ("compress", "decompress"))

    def dumps(self, obj: D) -> bytes:
        """Compressed bytes. Raises what the other serializer raises."""
        return cast(bytes, importlib.import_module(self.compressionlib).compress(self.serializer.dumps(obj)))

    def loads(self, blob: bytes) -> D:
        """The inverse.

        Raises:
            SerializationError: The data is damaged; or what the other serializer raises.
        """
        try:
            data: bytes = importlib.import_module(self.compressionlib).decompress(blob)
        except Exception as exc:  # each library has its own
            raise SerializationError(f"The stored value can't be decompressed: {exc}") from exc
        return cast(D, self.serializer.loads(data))


class CompressedPickleSerializer(CompressedSerializer[D]):
    """``pickle``, compressed."""

    type: str = "compressed/pickle"
    serializer: SerializeAsAny[Serializer[Any]] = Field(
        default_factory=lambda: cast("Serializer[Any]", PickleSerializer())
    )


class CompressedJSONSerializer(CompressedSerializer[D]):
    """``json``, compressed."""

    type: str = "compressed/json"
    serializer: SerializeAsAny[Serializer[Any]] = Field(
        default_factory=lambda: cast("Serializer[Any]", JSONSerializer())
    )


def _checked_module(name: str, functions: tuple[str, ...]) -> str:
    try:
        module = importlib.import_module(name)
    except ImportError as exc:
        raise ValueError(f"The module {name!r} can't be imported: {exc}") from None
    missing = [function for function in functions if not callable(getattr(module, function, None))]
    if missing:
        raise ValueError(f"The module {name!r} has no function {missing[0]!r}")
    return name


def _function(name: str) -> Any:
    module, _, function = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as exc:
        raise SerializationError(f"There is no function {name}: {exc}.") from exc
