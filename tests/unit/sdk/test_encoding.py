"""Whatever goes through the codec comes back equal, with the same types at every depth."""

from __future__ import annotations

import collections
import dataclasses
import enum
import math
import threading
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prefect_lite.encoding import MSGPACK, PICKLE, decode, decode_call, encode, encode_call, pack_call
from prefect_lite.exceptions import SerializationError


class Text(str):
    __slots__ = ()


class Level(enum.IntEnum):
    LOW = 1


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Job:
    name: str


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters())
    | st.binary()
)
ODD = st.sampled_from(
    [
        Text("t"),
        Level.LOW,
        Point(1, 2),
        Job("j"),
        bytearray(b"b"),
        frozenset({1}),
        1 << 70,
        "\ud800",
        msgpack.ExtType(1, b"\x90"),
        msgpack.Timestamp(1, 2),
        collections.OrderedDict(a=1),
        complex(1, 2),
    ]
)
HASHABLE = (
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
)
VALUES = st.recursive(
    SCALARS | ODD,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(HASHABLE, inner, max_size=4)
    ),
    max_leaves=12,
)


def same(left: Any, right: Any) -> bool:
    """Equal, with equal types all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return len(left) == len(right) and all(
            same(*keys) and same(left[keys[0]], right[keys[1]]) for keys in zip(left, right, strict=True)
        )
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return bool(left == right)


@given(VALUES)
@example([()] * 300)
@example({(1, (2,)): [True, {"a": (None,)}]})
@example([Level.LOW, 1])
def test_decode_undoes_encode(value: Any) -> None:
    codec, data = encode(value)
    assert same(decode(codec, data), value)


@given(st.lists(VALUES, max_size=3).map(tuple), st.dictionaries(st.text(), VALUES, max_size=3))
def test_calls_come_back_too(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    back = decode_call(*encode_call(args, kwargs))
    assert same(back[0], args)
    assert same(back[1], kwargs)
    plain = pack_call(args, kwargs)
    if plain is not None:
        assert same(decode_call(MSGPACK, plain), (args, kwargs))


@pytest.mark.parametrize("value", [None, 1, "a", [1, "a", {"b": (1, 2)}], {"x": [1.5, b"z"]}])
def test_plain_values_take_msgpack(value: Any) -> None:
    assert encode(value)[0] == MSGPACK


@pytest.mark.parametrize(
    "value", [Level.LOW, Text("a"), bytearray(b"a"), {1, 2}, Job("a"), 1 << 64, [Point(1, 2)]]
)
def test_other_values_take_pickle(value: Any) -> None:
    assert encode(value)[0] == PICKLE


def test_cycles_and_deep_nesting_survive() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    back = decode(*encode(cycle))
    assert back[0] is back
    deep: Any = ()
    for _ in range(100):
        deep = (deep,)
    assert decode(*encode(deep)) == deep


def test_without_pickle_only_plain_values_pass() -> None:
    assert encode([(1,)] * 300, allow_pickle=False)[0] == MSGPACK
    with pytest.raises(SerializationError, match="needs pickle"):
        encode(Job("a"), allow_pickle=False)
    with pytest.raises(SerializationError, match="refused without a keyring"):
        decode(*encode(Job("a")), allow_pickle=False)


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(SerializationError, match="type lock"):
        encode(threading.Lock())


@pytest.mark.parametrize(
    ("codec", "data"), [(MSGPACK, b"\xc1"), (MSGPACK, b""), (PICKLE, b"nonsense"), (7, b"")]
)
def test_damaged_data_is_refused(codec: int, data: bytes) -> None:
    with pytest.raises(SerializationError):
        decode(codec, data)


@pytest.mark.parametrize("call", [1, [1], [[1], [2]], [{}, {}]])
def test_a_damaged_call_is_refused(call: Any) -> None:
    with pytest.raises(SerializationError, match="not a call"):
        decode_call(MSGPACK, msgpack.packb(call))


def test_functions_and_local_classes_are_pickled_by_value() -> None:
    class Local:
        pass

    offset = 3
    function, kind = decode(*encode((lambda x: x + offset, Local)))
    assert function(1) == 4
    assert kind.__name__ == "Local"


def test_threads_do_not_share_a_packer() -> None:
    failures: list[Any] = []

    def work(number: int) -> None:
        value = {"n": number, "deep": [(number, str(number))] * 20}
        failures.extend(1 for _ in range(300) if decode(*encode(value)) != value)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
