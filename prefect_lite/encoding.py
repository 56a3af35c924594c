"""Values to bytes and back, so that ``decode(*encode(x)) == x`` with equal types, nested too.

msgpack where it is exact, cloudpickle for the rest. msgpack alone would quietly turn a tuple into a list, a
bytearray into bytes and an IntEnum into an int; so values are checked first, by exact type. Tuples travel
inside msgpack as an extension type.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, cast

import msgpack as _untyped_msgpack  # pyright: ignore[reportMissingTypeStubs]

from prefect_lite.exceptions import SerializationError
from prefect_lite.placeholders import Upstream

msgpack: Any = _untyped_msgpack

MSGPACK = 1
PICKLE = 2
LINKED_MSGPACK = 3
LINKED_PICKLE = 4
"""Of calls that hold placeholders. Codecs of their own: a worker need not look into other calls, and one that
knows nothing of placeholders refuses these."""

LINKED = {LINKED_MSGPACK: MSGPACK, LINKED_PICKLE: PICKLE}
"""And the codecs of what is inside."""

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_LINKED_SCALARS = _SCALARS | {Upstream}
_NAMES = frozenset({str})
_CONTAINERS = frozenset({list, dict, tuple})
# Type checkers are not told what they are: after a comparison they would ask for casts, which are calls.
_LIST: Any = list
_DICT: Any = dict
_TUPLE_EXT = 1
_UPSTREAM_EXT = 2
_MAX_DEPTH = 32  # tuples nest through Python calls at both ends
_MANY_TUPLES = 200  # from here on pickle is faster (a tuple costs 2 us in msgpack, 0.05 in pickle)
_KEEP_BUFFER_BYTES = 1024 * 1024
_NOT_PLAIN = -1

_local = threading.local()


def encode(value: Any, *, allow_pickle: bool = True) -> tuple[int, bytes]:
    """Encode ``value``.

    Returns:
        (codec, data) for ``decode``.

    Raises:
        SerializationError: It can't be pickled, or needs pickle where that is not allowed.
    """
    data = _pack_plain((value,), value, allow_pickle)
    return (MSGPACK, data) if data is not None else (PICKLE, _pickle(value, allow_pickle))


def pack_call(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes | None:
    """The arguments of a call as msgpack, None unless that is exact and quick."""
    values = (*args, *kwargs.values()) if kwargs else args
    return _pack_plain(values, [list(args), _plain_names(kwargs)], True)


def encode_call(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], *, allow_pickle: bool = True
) -> tuple[int, bytes]:
    """Encode the arguments of a call; the inverse is ``decode_call``. Raises like ``encode``."""
    call = [list(args), dict(_plain_names(kwargs))]
    data = _pack_plain((*args, *kwargs.values()), call, allow_pickle)
    return (MSGPACK, data) if data is not None else (PICKLE, _pickle(call, allow_pickle))


def encode_linked_call(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], *, allow_pickle: bool = True
) -> tuple[int, bytes]:
    """``encode_call`` for arguments that hold placeholders."""
    call = [list(args), dict(_plain_names(kwargs))]
    data = _pack_plain((*args, *kwargs.values()), call, allow_pickle, _LINKED_SCALARS)
    return (LINKED_MSGPACK, data) if data is not None else (LINKED_PICKLE, _pickle(call, allow_pickle))


def canonical_call(codec: int, data: bytes) -> bytes:
    """The same bytes for equal calls, whose dicts and keyword arguments may be in another order."""
    if codec not in (MSGPACK, LINKED_MSGPACK):
        return data
    return _pack(_in_order(decode_call(codec, data)), has_tuples=True)


def _in_order(value: Any) -> Any:
    """``value`` with the items of dicts as sorted pairs."""
    if isinstance(value, dict):
        pairs = [(_in_order(key), _in_order(item)) for key, item in cast("dict[Any, Any]", value).items()]
        return {"": sorted(pairs, key=lambda pair: (type(pair[0]).__name__, repr(pair[0])))}
    if isinstance(value, (list, tuple)):
        items = [_in_order(item) for item in cast("list[Any]", value)]
        return tuple(items) if isinstance(value, tuple) else items
    return value


def decode(codec: int, data: bytes, *, allow_pickle: bool = True) -> Any:
    """The inverse of ``encode``. With ``allow_pickle``, only for data whose signature was checked.

    Raises:
        SerializationError: Unknown codec, damaged data, or a class that can't be found here.
    """
    if codec == MSGPACK:
        try:
            return msgpack.unpackb(data, strict_map_key=False, ext_hook=_ext_hook)
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as exc:
            raise SerializationError(f"A payload is damaged: {exc}.") from exc
    if codec != PICKLE:
        raise SerializationError(
            f"A payload has the unknown codec {codec!r}; a newer version may have made it."
        )
    if not allow_pickle:
        raise SerializationError(
            "A pickled payload is refused without a keyring. Give both sides the same keyring."
        )
    from prefect_lite.pickling import loads

    try:
        return loads(data)
    except Exception as exc:  # the value's own code runs here and may raise anything
        raise SerializationError(
            f"A pickled payload can't be loaded here ({type(exc).__name__}: {exc}). "
            f"The module that defines its types must be importable in this process."
        ) from exc


def decode_call(
    codec: int, data: bytes, *, allow_pickle: bool = True
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(args, kwargs) of an encoded call. Raises like ``decode``."""
    call: Any = decode(LINKED.get(codec, codec), data, allow_pickle=allow_pickle)
    if type(call) is _LIST and len(call) == 2:
        args, kwargs = call
        if type(args) is _LIST and type(kwargs) is _DICT:
            return tuple(args), kwargs
    raise SerializationError("A payload is damaged: not a call.")


def _plain_names(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Python takes members of a subclass of str as names too; msgpack does not."""
    if not kwargs or _NAMES.issuperset(map(type, kwargs)):
        return kwargs
    return {str.__str__(name): value for name, value in kwargs.items()}


def _pack_plain(
    values: tuple[Any, ...], whole: Any, allow_pickle: bool, scalars: frozenset[Any] = _SCALARS
) -> bytes | None:
    """``whole`` as msgpack if that is exact for all ``values``, else None."""
    if _SCALARS.issuperset(map(type, values)):
        tuples = 0
    else:
        tuples = _count_tuples(values, _MAX_DEPTH, scalars)
        if tuples == _NOT_PLAIN or (tuples > _MANY_TUPLES and allow_pickle):
            return None
    try:
        return _pack(whole, tuples > 0 or scalars is not _SCALARS)
    except (OverflowError, ValueError, UnicodeEncodeError, RecursionError):
        return None  # integers over 64 bits, lone surrogates, too deep or too large for msgpack


def _count_tuples(values: Any, depth: int, scalars: frozenset[Any]) -> int:
    """How many tuples ``values`` hold, at any depth; ``_NOT_PLAIN`` if msgpack is not exact for them."""
    kinds: set[Any] = set(map(type, values)) - scalars
    if not kinds:
        return 0
    if depth == 0 or not _CONTAINERS.issuperset(kinds):
        return _NOT_PLAIN
    total = 0
    for value in values:
        if isinstance(value, dict):  # exactly so: the kinds were checked above
            keys = _count_tuples(value, depth - 1, scalars)  # a dict iterates its keys
            inner = _count_tuples(value.values(), depth - 1, scalars)
            if keys == _NOT_PLAIN or inner == _NOT_PLAIN:
                return _NOT_PLAIN
            total += keys + inner
        elif isinstance(value, (list, tuple)):
            inner = _count_tuples(value, depth - 1, scalars)
            if inner == _NOT_PLAIN:
                return _NOT_PLAIN
            total += inner + isinstance(value, tuple)
    return total


def _pack(value: Any, has_tuples: bool) -> bytes:
    if has_tuples:
        return _pack_with_tuples(value)
    # A Packer is not safe to share between threads and costs more to make than to use.
    try:
        packer: Any = _local.packer
    except AttributeError:
        packer = _local.packer = msgpack.Packer(strict_types=True)
    data = packer.pack(value)
    if len(data) > _KEEP_BUFFER_BYTES:
        del _local.packer  # its buffer never shrinks
    return data


def _pack_with_tuples(value: Any) -> bytes:
    return cast(bytes, msgpack.packb(value, strict_types=True, default=_as_ext))


def _as_ext(value: Any) -> Any:
    if type(value) is Upstream:
        return msgpack.ExtType(_UPSTREAM_EXT, value.pack())
    if type(value) is not tuple:
        raise ValueError(f"{type(value)} slipped through the check")
    return msgpack.ExtType(_TUPLE_EXT, _pack_with_tuples(list(cast("tuple[Any, ...]", value))))


def _ext_hook(code: int, data: bytes) -> Any:
    if code == _UPSTREAM_EXT:
        return Upstream.unpack(data)
    if code != _TUPLE_EXT:
        raise ValueError(f"unknown extension type {code}")
    return tuple(msgpack.unpackb(data, strict_map_key=False, ext_hook=_ext_hook))


def _pickle(value: Any, allowed: bool) -> bytes:
    if not allowed:
        raise SerializationError(
            "The value needs pickle, which is refused without a keyring. Give clients and workers the same "
            "keyring, or use plain values: None, bool, int, float, str, bytes, list, dict, tuple."
        )
    from prefect_lite.pickling import dumps

    try:
        return dumps(value)
    except Exception as exc:  # the value's own code runs here and may raise anything
        raise SerializationError(
            f"A value of type {type(value).__name__} can't be pickled: {type(exc).__name__}: {exc}."
        ) from exc
