"""Envelopes open only as what they were sealed for."""

from __future__ import annotations

import hmac
import pickle
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_lite import envelope
from prefect_lite.encoding import MSGPACK, PICKLE, encode
from prefect_lite.envelope import (
    fingerprint,
    open_call,
    open_outcome,
    seal_call,
    seal_error,
    seal_value,
)
from prefect_lite.exceptions import ConfigurationError, EnvelopeRejected, SerializationError
from prefect_lite.keyring import Keyring

RING = Keyring([("k1", b"1" * 32)])
RUN = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32


class Tripwire:
    """Tells when it is unpickled."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("unpickled before it was verified",)


def sealed(args: tuple[Any, ...] = (1,), ring: Keyring = RING, **options: Any) -> bytes:
    return seal_call(ring, "ns", "m.add", RUN, args, {"y": 2}, options)


def test_a_call_comes_back_with_its_options() -> None:
    call = open_call(RING, "ns", "m.add", RUN, sealed((1, (2,)), retries=3))
    assert call == ((1, (2,)), {"y": 2}, {"retries": 3})


def test_the_signature_is_hmac_sha256_over_everything() -> None:
    version, key_id, codec, options, payload, mac = msgpack.unpackb(sealed(retries=1))
    assert (version, key_id, codec) == (1, "k1", MSGPACK)
    lengths = len(RUN).to_bytes(1, "big") + bytes([codec]) + len(options).to_bytes(4, "big")
    lengths += len(payload).to_bytes(8, "big")
    covered = envelope.signed_prefix("call", "ns", "m.add") + lengths + RUN.encode() + options + payload
    assert mac == hmac.digest(b"1" * 32, covered, "sha256")


def test_a_long_key_is_hashed_first_as_hmac_says() -> None:
    key = b"k" * 100
    body = sealed(ring=Keyring([("long", key)]))
    _, _, codec, options, payload, mac = msgpack.unpackb(body)
    lengths = b"\x20" + bytes([codec]) + bytes(4) + len(payload).to_bytes(8, "big")
    covered = envelope.signed_prefix("call", "ns", "m.add") + lengths + RUN.encode() + options + payload
    assert mac == hmac.digest(key, covered, "sha256")


@pytest.mark.parametrize("place", [("other", "m.add", RUN), ("ns", "m.sub", RUN), ("ns", "m.add", OTHER)])
def test_it_opens_nowhere_else(place: tuple[str, str, str]) -> None:
    with pytest.raises(EnvelopeRejected, match="does not match its signature"):
        open_call(RING, *place, sealed((Tripwire(),)))


def test_a_result_is_no_call_and_a_call_no_result() -> None:
    with pytest.raises(EnvelopeRejected):
        open_outcome(RING, "ns", "m.add", RUN, sealed())
    with pytest.raises(EnvelopeRejected):
        open_call(RING, "ns", "m.add", RUN, seal_value(RING, "ns", "m.add", RUN, [[], {}]))


@given(st.data())
def test_no_altered_byte_gets_through(data: st.DataObject) -> None:
    body = bytearray(seal_call(RING, "ns", "m.add", RUN, (Tripwire(),), {}, {"retries": 1}))
    index = data.draw(st.integers(0, len(body) - 1))
    body[index] ^= data.draw(st.integers(1, 255))
    with pytest.raises(EnvelopeRejected):
        open_call(RING, "ns", "m.add", RUN, bytes(body))


@given(st.binary(max_size=60))
def test_nonsense_is_refused(body: bytes) -> None:
    with pytest.raises(EnvelopeRejected):
        open_call(RING, "ns", "m.add", RUN, body)


PARTS: list[Any] = [1, "", MSGPACK, b"", b"\x92\x90\x80", b""]


@pytest.mark.parametrize(
    "content",
    [
        None, 1, "abcdef", dict.fromkeys(map(str, range(6)), 0), dict(enumerate(PARTS)), [], PARTS[:5],
        [2, *PARTS[1:]], [1, 2, *PARTS[2:]], [1, b"", *PARTS[2:]], [1, "", "1", *PARTS[3:]],
        [1, "", True, *PARTS[3:]], [1, "", -1, *PARTS[3:]], [1, "", 256, *PARTS[3:]],
        [*PARTS[:3], "", *PARTS[4:]], [*PARTS[:4], None, b""], [*PARTS[:5], ""],
    ],
)  # fmt: skip
def test_another_shape_is_refused(content: Any) -> None:
    with pytest.raises(EnvelopeRejected):
        open_call(Keyring(), "ns", "m.add", RUN, msgpack.packb(content))


def test_more_parts_of_a_newer_version_are_left_alone() -> None:
    body = msgpack.packb([*PARTS, "more", 1])
    assert open_call(Keyring(), "ns", "m.add", RUN, body) == ((), {}, {})


@pytest.mark.parametrize("call", [1, [], [[], {}, 1], [{}, []], [[], []], {"a": 1, "b": 2}])
def test_what_is_no_call_is_refused(call: Any) -> None:
    body = msgpack.packb([*PARTS[:4], msgpack.packb(call), b""])
    with pytest.raises(SerializationError, match="not a call"):
        open_call(Keyring(), "ns", "m.add", RUN, body)


def test_with_a_keyring_nothing_unsigned_opens() -> None:
    unsigned = seal_call(Keyring(), "ns", "m.add", RUN, (1,), {}, {})
    with pytest.raises(EnvelopeRejected, match="not signed"):
        open_call(RING, "ns", "m.add", RUN, unsigned)
    with pytest.raises(EnvelopeRejected, match="unknown key 'k1'"):
        open_call(Keyring([("k2", b"2" * 32)]), "ns", "m.add", RUN, sealed())


def test_without_a_keyring_plain_values_pass_and_pickle_does_not() -> None:
    empty = Keyring()
    assert open_call(empty, "ns", "m.add", RUN, sealed(ring=empty)).args == (1,)
    with pytest.raises(SerializationError, match="needs pickle"):
        sealed((Tripwire(),), ring=empty)
    forged = msgpack.packb([1, "", PICKLE, b"", pickle.dumps(Tripwire()), b""])
    with pytest.raises(SerializationError, match="refused without a keyring"):
        open_call(empty, "ns", "m.add", RUN, forged)


def test_old_keys_verify_after_a_change_of_keys() -> None:
    new = Keyring([("k2", b"2" * 32), ("k1", b"1" * 32)])
    assert open_call(new, "ns", "m.add", RUN, sealed()).args == (1,)
    assert msgpack.unpackb(sealed(ring=new))[1] == "k2"


@pytest.mark.parametrize("value", [None, 3, (1, 2), {"a": {1}}])
def test_values_come_back(value: Any) -> None:
    assert open_outcome(RING, "ns", "k", RUN, seal_value(RING, "ns", "k", RUN, value)) == ("value", value)


def test_errors_come_back() -> None:
    kind, error = open_outcome(RING, "ns", "k", RUN, seal_error(RING, "ns", "k", RUN, KeyError("x")))
    assert kind == "error"
    assert isinstance(error, KeyError)
    assert error.args == ("x",)


def test_fingerprints_tell_calls_apart_but_not_pickles() -> None:
    one, two = encode([1])[1], encode([2])[1]
    assert len(fingerprint("k", MSGPACK, one)) == 16
    assert fingerprint("k", MSGPACK, one) != fingerprint("k", MSGPACK, two)
    assert fingerprint("k", MSGPACK, one) != fingerprint("l", MSGPACK, one)
    assert fingerprint("k", PICKLE, one) == fingerprint("k", PICKLE, two)
    assert fingerprint("k" * 400 + "é", MSGPACK, one) != fingerprint("k" * 401, MSGPACK, one)


def test_a_keyring_file_is_private_and_made_once(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    first = Keyring.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Keyring.create(path).signing_key == first.signing_key == Keyring.load(path).signing_key
    assert [entry.name for entry in tmp_path.iterdir()] == ["keyring.json"]
    assert first.signing_key.hex() not in repr(first)


@pytest.mark.parametrize(
    "text", ["", "{}", '{"keys": [{"id": "a"}]}', '{"keys": [{"id": "a", "key": "00"}]}', "[1]"]
)
def test_a_damaged_keyring_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keyring.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError):
        Keyring.load(path)


def test_missing_and_unwritable_keyrings_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"can't be read"):
        Keyring.load(tmp_path / "none.json")
    with pytest.raises(ConfigurationError, match=r"can't be written"):
        Keyring.create(tmp_path / "no folder" / "keyring.json")
