"""Placeholders survive every codec, and only what holds some is made anew."""

from __future__ import annotations

import pickle
from collections import OrderedDict, namedtuple
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_lite.encoding import (
    LINKED_MSGPACK,
    LINKED_PICKLE,
    MSGPACK,
    canonical_call,
    decode_call,
    encode_linked_call,
)
from prefect_lite.envelope import Call, LinkedCall, fingerprint, open_call, seal
from prefect_lite.exceptions import EnvelopeRejected, SerializationError
from prefect_lite.keyring import Keyring
from prefect_lite.placeholders import Upstream, filled, ids_in
from prefect_lite.run_ids import new_run_id

Pair = namedtuple("Pair", "left right")
RING = Keyring([("k1", b"1" * 32)])
A, B = new_run_id(), new_run_id()

UPSTREAMS = st.builds(Upstream, st.sampled_from([A, B]), st.booleans())
VALUES = st.recursive(
    UPSTREAMS | st.none() | st.integers() | st.text() | st.binary() | st.just(bytearray(b"x")),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(VALUES, VALUES)
def test_they_come_back_equal_wherever_they_are(one: Any, other: Any) -> None:
    assert decode_call(*encode_linked_call((one,), {"x": other})) == ((one,), {"x": other})


@given(VALUES)
def test_filling_changes_what_they_stand_for_and_nothing_else(value: Any) -> None:
    (same,), _ = filled((value,), {}, lambda upstream: upstream)
    assert same is value
    (changed,), _ = filled((value,), {}, lambda upstream: 5)
    assert not ids_in((changed,), {})
    assert repr(changed) == repr(value).replace("tolerant=True", "tolerant=False").replace(
        f"Upstream('{A}', tolerant=False)", "5"
    ).replace(f"Upstream('{B}', tolerant=False)", "5")


def test_collections_keep_their_kind_and_others_are_left_alone() -> None:
    one = Upstream(A, False)
    untouched = [OrderedDict(a=1), {1, 2}]
    args, kwargs = filled(
        (Pair(one, untouched), frozenset({one})), {"x": {"y": (one,)}}, lambda upstream: upstream.run_id
    )
    assert args == (Pair(A, untouched), frozenset({A}))
    assert type(args[0]) is Pair
    assert args[0].right is untouched
    assert kwargs == {"x": {"y": (A,)}}
    assert list(ids_in((one, [Upstream(B, True), one]), {"x": one})) == [A, B]


def test_a_call_with_placeholders_says_so_under_its_signature() -> None:
    one = Upstream(A, True)
    for values, kind in (((one,), LINKED_MSGPACK), (({one},), LINKED_PICKLE)):
        codec, payload = encode_linked_call(values, {})
        assert codec == kind
        body = seal(RING, "call", "ns", "k", B, codec, b"", payload)
        call = open_call(RING, "ns", "k", B, body)
        assert type(call) is LinkedCall
        assert call.args == values
        unlinked = body.replace(bytes([codec, 0xC4]), bytes([codec - 2, 0xC4]), 1)
        assert unlinked != body
        with pytest.raises(EnvelopeRejected):
            open_call(RING, "ns", "k", B, unlinked)
    plain = seal(RING, "call", "ns", "k", B, MSGPACK, b"", b"\x92\x90\x80")
    assert type(open_call(RING, "ns", "k", B, plain)) is Call


def test_equal_calls_have_equal_fingerprints_whatever_the_order() -> None:
    one, other = Upstream(A, False), Upstream(B, False)

    def print_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        codec, payload = encode_linked_call(args, kwargs)
        return fingerprint("k", codec, canonical_call(codec, payload))

    assert print_of((), {"x": one, "y": 1}) == print_of((), {"y": 1, "x": one})
    assert print_of((one,), {}) != print_of((other,), {})
    assert print_of(({one},), {}) == print_of(({other},), {}), "as all pickled calls of a task"


@pytest.mark.parametrize("data", [b"", b"\x02" + b"x" * 16, b"\x01" + b"x" * 15])
def test_damaged_ones_are_refused(data: bytes) -> None:
    import msgpack

    with pytest.raises(ValueError, match="damaged"):
        Upstream.unpack(data)
    payload = msgpack.packb([[msgpack.ExtType(2, data)], {}])
    with pytest.raises(SerializationError):
        decode_call(LINKED_MSGPACK, payload)


def test_they_are_values() -> None:
    one = Upstream(A, True)
    assert one == Upstream(A, True) == pickle.loads(pickle.dumps(one))
    assert one != Upstream(A, False)
    assert one != A
    assert len({one, Upstream(A, True), Upstream(A, False)}) == 2
