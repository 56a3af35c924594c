"""The socket between a worker and its children."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from prefect_lite_worker.pipe import Channel, pack, read_message, write_message


@pytest.fixture
def theirs_and_ours() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield theirs, ours


class Heard:
    """What a channel has told."""

    def __init__(self, sock: socket.socket) -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.closed = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.channel = Channel(sock, loop, self.messages.put_nowait, self.closed.set)


@pytest.mark.anyio
async def test_large_messages_in_both_directions(
    theirs_and_ours: tuple[socket.socket, socket.socket],
) -> None:
    theirs, ours = theirs_and_ours
    heard = Heard(ours)
    large = [["first", b"x" * 3_000_000], ["second", None, 1.5, "é"]]

    def echo() -> None:
        for _ in large:
            message = read_message(theirs)
            assert message is not None
            write_message(theirs, message)

    thread = threading.Thread(target=echo)
    thread.start()
    for message in large:
        heard.channel.send(message)
    assert [await asyncio.wait_for(heard.messages.get(), 10) for _ in large] == large
    thread.join()
    heard.channel.close()
    assert not heard.closed.is_set()  # we did it
    assert read_message(theirs) is None
    heard.channel.send(["into the void"])


@pytest.mark.anyio
@pytest.mark.parametrize(
    "nonsense",
    [
        b"\xff" * 100,
        (1).to_bytes(8, "big") + b"\xc1",
        (1).to_bytes(8, "big") + b"\x01",
        b"\xff" * 8 + b"\x90",
        b"",
    ],
    ids=["length", "content", "number", "long", "end"],
)
async def test_nonsense_closes_the_channel(
    theirs_and_ours: tuple[socket.socket, socket.socket], nonsense: bytes
) -> None:
    theirs, ours = theirs_and_ours
    heard = Heard(ours)
    theirs.sendall(nonsense)
    if not nonsense:
        theirs.close()
    await asyncio.wait_for(heard.closed.wait(), 5)
    assert heard.messages.empty()


def test_half_a_message_is_none(theirs_and_ours: tuple[socket.socket, socket.socket]) -> None:
    theirs, ours = theirs_and_ours
    ours.sendall(pack(["half"])[:-1])
    ours.close()
    assert read_message(theirs) is None
