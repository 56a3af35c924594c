"""Exceptions across processes: the original type where it can be rebuilt, always with the remote traceback.

A description is a plain list
``[version, module, qualified name, message, traceback text, form, data, fields]``.
``form`` says what ``data`` is: nothing, the arguments of a builtin exception, a pickle of the exception, or a
pickle of its class, arguments and attributes (for classes whose ``__init__`` takes something else than
``args``: those pickle well and fail when loaded). ``fields`` are attributes that are neither in ``args`` nor
in ``__dict__``, by name.
"""

from __future__ import annotations

import builtins
import traceback
from typing import Any, cast

from prefect_lite.encoding import MSGPACK, PICKLE, decode, encode
from prefect_lite.exceptions import RemoteError, RemoteTraceback, SerializationError
from prefect_lite.main_module import import_name_of

_VERSION = 1
_TEXT_ONLY, _BUILTIN, _PICKLED, _PARTS = 0, 1, 2, 3
_MAX_TRACEBACK_CHARS = 64 * 1024
_FIELDS: tuple[tuple[type[BaseException], tuple[str, ...]], ...] = (
    (ImportError, ("name", "path")),
    (AttributeError, ("name",)),
    (NameError, ("name",)),
)


def describe(error: BaseException, *, allow_pickle: bool) -> list[Any]:
    """What ``rebuild`` needs, as plain data. Never fails: what can't go along is left out."""
    form, data = _content(error, allow_pickle)
    kind = type(error)
    text = _traceback_text(error)
    parts = (import_name_of(kind), kind.__qualname__, _message(error), text)
    return [_VERSION, *(_encodable(part) for part in parts), form, data, _fields(error)]


def rebuild(description: Any, *, allow_pickle: bool) -> BaseException:
    """The described exception, with a ``RemoteTraceback`` as ``__cause__``; else a ``RemoteError``."""
    if not isinstance(description, list) or len(cast("list[Any]", description)) < 7:
        return RemoteError("unknown", "the description of the error is damaged")
    _, module, qualname, message, text, form, data, *more = cast("list[Any]", description)
    try:
        error = _from_content(qualname, form, data, allow_pickle)
    except SerializationError:
        error = None  # its class can't be found or built here
    if error is None or not isinstance(error, Exception):
        # KeyboardInterrupt and SystemExit of a worker must not end the process that asks for the result.
        name = qualname if module in ("", "builtins") else f"{module}.{qualname}"
        error = RemoteError(name, message, text)
    elif more:
        _set_fields(error, more[0])
    # By the descriptor: a frozen dataclass refuses to have its attributes set.
    vars(BaseException)["__cause__"].__set__(error, RemoteTraceback(text))
    return error


def _fields(error: BaseException) -> dict[str, str]:
    return {
        name: _encodable(value)
        for kind, names in _FIELDS
        if isinstance(error, kind)
        for name in names
        if isinstance(value := vars(kind)[name].__get__(error), str)
    }


def _set_fields(error: BaseException, fields: dict[str, str]) -> None:
    for kind, names in _FIELDS:
        if isinstance(error, kind):
            for name in names:
                if name in fields:
                    vars(kind)[name].__set__(error, fields[name])


def _content(error: BaseException, allow_pickle: bool) -> tuple[int, bytes]:
    kind = type(error)
    if (
        getattr(builtins, kind.__name__, None) is kind
        and not error.__dict__
        and not isinstance(error, OSError)
    ):
        try:
            return _BUILTIN, encode(error.args, allow_pickle=False)[1]
        except SerializationError:
            pass  # an argument that needs pickle
    if not allow_pickle:
        return _TEXT_ONLY, b""
    try:
        data = encode(error)[1]
        if type(decode(PICKLE, data)) is kind:
            return _PICKLED, data
    except SerializationError:
        pass  # tried again below, piece by piece
    args = tuple(arg if _picklable(arg) else repr(arg) for arg in error.args)
    attributes = {name: value for name, value in error.__dict__.items() if _picklable(value)}
    try:
        return _PARTS, encode((kind, args, attributes))[1]
    except SerializationError:
        return _TEXT_ONLY, b""


def _from_content(qualname: str, form: int, data: bytes, allow_pickle: bool) -> BaseException | None:
    if form == _BUILTIN:
        kind: Any = getattr(builtins, qualname, None)
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            return None
        return _called(kind, decode(MSGPACK, data))
    if form == _PICKLED:
        return decode(PICKLE, data, allow_pickle=allow_pickle)
    if form == _PARTS:
        kind, args, attributes = decode(PICKLE, data, allow_pickle=allow_pickle)
        return _built(kind, args, attributes)
    return None


def _called(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    try:
        return kind(*args)
    except TypeError as exc:
        raise SerializationError(f"{kind.__qualname__} can't be rebuilt: {exc}.") from exc


def _built(kind: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    """An exception without a call of its ``__init__``, whose parameters we don't know."""
    try:
        error = kind.__new__(kind, *args)
        vars(BaseException)["args"].__set__(error, args)
        error.__dict__.update(attributes)
    except Exception as exc:  # the class's own code runs here and may raise anything
        raise SerializationError(f"{kind.__qualname__} can't be rebuilt: {exc}.") from exc
    return error


def _picklable(value: Any) -> bool:
    try:
        encode(value)
    except SerializationError:
        return False
    return True


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as exc:  # a broken __str__ must not hide that the run failed
        return f"<no message: {type(exc).__name__} in __str__>"


def _traceback_text(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as exc:  # a broken __str__ or __repr__ on the way
        text = f"{type(error).__qualname__}: <no traceback: {type(exc).__name__} while formatting it>"
    if len(text) > _MAX_TRACEBACK_CHARS:
        half = _MAX_TRACEBACK_CHARS // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    return text.rstrip("\n")


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # lone surrogates
