"""Frames cut by hand, beside the library's own parser."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import (
    Frame,
    Opcode,
    apply_mask,  # pyright: ignore[reportPrivateImportUsage]
)
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from prefect_lite.protocol.frames import FrameReader, Other, between_frames, write_frame

LIMIT = 70_000
SIZES = [0, 1, 125, 126, 127, 65_535, 65_536]


class Transport:
    """Keeps what is written. It has no ``writelines``: that of some asyncio never tells that it is full."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def open_protocol(masked: bool) -> Any:
    """The library's side that reads frames of this kind, after the handshake."""
    if masked:
        return ServerProtocol(state=State.OPEN)
    return ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(at)]


FRAMES = st.one_of(
    st.tuples(st.just(Opcode.BINARY), st.sampled_from(SIZES), st.just(True)),
    st.tuples(st.sampled_from([Opcode.PING, Opcode.PONG]), st.sampled_from([0, 125]), st.just(True)),
)


@settings(max_examples=150, deadline=None)
@given(st.booleans(), st.lists(FRAMES, max_size=6), st.lists(st.integers(0, 1 << 20), max_size=8))
def test_however_the_bytes_are_split(masked: bool, kinds: list[Any], cuts: list[int]) -> None:
    frames = [Frame(opcode, random.randbytes(size), fin) for opcode, size, fin in kinds]
    data = b"".join(frame.serialize(mask=masked) for frame in frames)
    reader = FrameReader(apply_mask if masked else None, LIMIT)
    library = open_protocol(masked)
    bodies: list[bytes] = []
    for piece in pieces(data, cuts):
        for part in reader.feed(piece):
            if type(part) is Other:
                library.receive_data(part)
                assert between_frames(library), "only whole frames are handed over"
            else:
                assert type(part) is bytes
                bodies.append(part)
    assert bodies == [frame.data for frame in frames if frame.opcode is Opcode.BINARY]
    others = [(event.opcode, event.data) for event in library.events_received()]
    assert others == [(frame.opcode, frame.data) for frame in frames if frame.opcode is not Opcode.BINARY]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [*SIZES, 300_000])
def test_what_is_written_is_what_the_library_reads(masked: bool, size: int) -> None:
    library = open_protocol(masked)
    transport = Transport()
    body = random.randbytes(size)
    write_frame(transport, body, apply_mask if masked else None)
    library.receive_data(transport.data)
    assert library.events_received() == [Frame(Opcode.BINARY, body)]
    header = len(transport.data) - size
    assert header == len(Frame(Opcode.BINARY, body).serialize(mask=masked)) - size


def test_masks_differ() -> None:
    written = []
    for _ in range(20):
        transport = Transport()
        write_frame(transport, b"x" * 8, apply_mask)
        written.append(transport.data[2:6])
    assert len(set(written)) > 1


def test_the_system_is_asked_for_keys_a_few_times_per_thousand_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each time it gives the interpreter away."""
    asked = []

    def urandom(size: int) -> bytes:
        asked.append(size)
        return random.randbytes(size)

    monkeypatch.setattr(os, "urandom", urandom)
    written = set()
    for _ in range(1000):
        transport = Transport()
        write_frame(transport, b"x" * 8, apply_mask)
        written.add(transport.data[2:6])
    assert 3 <= len(asked) <= 4
    assert len(written) > 990, "each key is used once"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_has_keys_of_its_own() -> None:
    code = """if True:
        import os
        from prefect_lite.protocol.frames import write_frame
        class Transport:
            def write(self, data): os.write(1, data[2:6].hex().encode())
        write = lambda: write_frame(Transport(), b"", lambda data, key: b"")
        write()
        if os.fork() == 0:
            write()
            os._exit(0)
        os.wait()
        write()
    """
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=20).stdout
    assert len({out[i : i + 8] for i in range(0, 24, 8)}) == 3


def test_fragments_are_the_library_s_to_the_last() -> None:
    parts = [
        Frame(Opcode.BINARY, b"a", fin=False),
        Frame(Opcode.PING, b"p"),
        Frame(Opcode.CONT, b"b", fin=False),
        Frame(Opcode.CONT, b"c"),
        Frame(Opcode.BINARY, b"d"),
    ]
    sent = [part.serialize(mask=True) for part in parts]
    got = list(FrameReader(apply_mask, LIMIT).feed(b"".join(sent)))
    assert got == [*sent[:4], b"d"]
    assert [type(part) for part in got] == [Other] * 4 + [bytes]


@pytest.mark.parametrize(
    "wrong",
    [
        Frame(Opcode.BINARY, b"unmasked").serialize(mask=False),
        b"\xc2" + Frame(Opcode.BINARY, b"compressed").serialize(mask=True)[1:],
        b"\x82\xff" + (LIMIT + 1).to_bytes(8, "big"),
    ],
    ids=["unmasked", "reserved bit", "too long"],
)
def test_from_a_frame_that_is_wrong_on_all_is_the_library_s(wrong: bytes) -> None:
    good = Frame(Opcode.BINARY, b"good").serialize(mask=True)
    reader = FrameReader(apply_mask, LIMIT)
    assert list(reader.feed(good + wrong + good)) == [b"good", wrong + good]
    assert list(reader.feed(good)) == [Other(good)]


def test_a_beginning_of_a_frame_is_noticed_in_the_library() -> None:
    data = Frame(Opcode.BINARY, b"abc").serialize(mask=True)
    for length in range(1, len(data)):
        library = open_protocol(True)
        assert between_frames(library)
        library.receive_data(data[:length])
        assert not between_frames(library), length
        library.receive_data(data[length:])
        assert between_frames(library)


def test_a_library_that_is_closing_keeps_its_frames() -> None:
    for end in (Frame(Opcode.CLOSE, b"").serialize(mask=True), b"\x83\x80abcd"):
        library = open_protocol(True)
        library.receive_data(end)
        assert not between_frames(library)


def test_a_library_with_another_inside_keeps_its_frames() -> None:
    assert not between_frames(object())
