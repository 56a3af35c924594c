"""Websocket frames, cut and made by hand for the one kind that carries our messages: binary and whole.

The library sends every frame through three generators, an event object and two lists, at a fifth of what a
single run costs a broker. Only the common frame is taken from it: whatever else there is (control frames,
fragments, everything that is wrong) is handed to it byte by byte as it came, so its rules stay in force.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

Mask = Callable[[Any, Any], bytes]
"""Masks or unmasks bytes-like data with a key of four bytes."""

_BINARY: Final = 0x82
"""First byte of a whole binary frame."""
_RESERVED: Final = 0x70
_FINAL: Final = 0x80
_CONTROL: Final = 0x08
"""Bits of the first byte: of extensions, of the last fragment, of ping, pong and close."""
_COPIED: Final = 16 * 1024
"""Up to this length a frame is copied behind its header: one buffer costs less than two."""


class Other(bytes):
    """Bytes that are for the library."""


class FrameReader:
    """Cuts what a peer sends into frames.

    Args:
        unmask: Takes the mask from a peer's frames; None for those of a server, which have none.
        limit: Longest frame, bytes; what is longer is left to the library to refuse.
    """

    __slots__ = ("_fragmented", "_held", "_limit", "_masked", "_needed", "_passive", "_unmask")

    def __init__(self, unmask: Mask | None, limit: int) -> None:
        self._unmask = unmask
        self._masked = unmask is not None
        self._limit = limit
        self._held = bytearray()  # a frame that is not complete
        self._needed = 0  # bytes before it is worth another look
        self._fragmented = False  # the library has the beginning of a message
        self._passive = False  # all is for the library from here on

    def pass_on(self) -> None:
        """Leave all that follows to the library; to be called between two frames."""
        self._passive = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The payloads that are complete with ``data``, and ``Other`` bytes, in order."""
        if self._passive:
            yield Other(data)
            return
        if self._held:
            self._held += data
            if len(self._held) < self._needed:
                return
            whole: bytes | bytearray = self._held
            self._held = bytearray()
        else:
            whole = data
        start, end = 0, len(whole)
        while start < end:
            body, stop = self._measure(whole, start, end)
            if self._passive:
                yield Other(whole[start:])
                return
            if stop > end:
                self._held += memoryview(whole)[start:] if start else whole
                self._needed = stop - start
                return
            first = whole[start]
            if first == _BINARY and not self._fragmented:
                if self._unmask is not None:
                    yield self._unmask(memoryview(whole)[body:stop], whole[body - 4 : body])
                else:
                    yield bytes(memoryview(whole)[body:stop])
            else:
                if not first & _CONTROL:
                    self._fragmented = not first & _FINAL
                yield Other(whole[start:stop])
            start = stop

    def _measure(self, data: bytes | bytearray, start: int, end: int) -> tuple[int, int]:
        """Where the payload of a frame begins and ends; an end beyond ``end`` may be an estimate."""
        if end - start < 2:
            return 0, start + 2
        first, second = data[start], data[start + 1]
        length = second & 0x7F
        body = start + 2
        if length >= 126:
            body += 2 if length == 126 else 8
            if body > end:
                return body, body
            length = int.from_bytes(data[start + 2 : body], "big")
        if bool(second & 0x80) is not self._masked or first & _RESERVED or length > self._limit:
            self._passive = True
        if self._masked:
            body += 4
        return body, body + length


_KEYS_DRAWN: Final = 256
_cut_keys = struct.Struct("4s" * _KEYS_DRAWN).unpack
_keys: deque[bytes] = deque()
"""Keys of the next frames, each for one. Drawn many at a time: a system call gives the interpreter away, and
beside tasks that are busy in Python a worker's connection thread waits long until it gets it back."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keys.clear)  # they are the parent's


def _draw_keys() -> bytes:
    """Draw keys and return one of them; for any thread."""
    key, *others = _cut_keys(os.urandom(4 * _KEYS_DRAWN))
    _keys.extend(others)
    return key


def write_frame(transport: Any, payload: bytes, mask: Mask | None) -> None:
    """Give a binary frame to a transport; masked, as a client has to, with ``mask``.

    Raises:
        RuntimeError: uvloop has closed the transport.
    """
    length = len(payload)
    bit = 0 if mask is None else 0x80
    if length < 126:
        header = bytes((_BINARY, bit | length))
    elif length < 1 << 16:
        header = bytes((_BINARY, bit | 126)) + length.to_bytes(2, "big")
    else:
        header = bytes((_BINARY, bit | 127)) + length.to_bytes(8, "big")
    if mask is not None:
        try:
            key = _keys.pop()
        except IndexError:
            key = _draw_keys()
        header += key
        payload = mask(payload, key)
    if length <= _COPIED:
        transport.write(header + payload)
    else:
        # Not writelines: that of asyncio in early 3.12 and 3.13 never tells that its buffer is full, and
        # whoever waits for room would wait for nothing, again and again.
        transport.write(header)
        transport.write(payload)


def between_frames(protocol: Any) -> bool:
    """Whether the library has nothing of a frame that is not complete, and expects more of them.

    False where it can't be told.
    """
    try:
        waiting = protocol.parser
        if waiting.gi_code.co_name != "parse":
            return False  # after a CLOSE or a fault it drops what comes
        if protocol.reader.buffer or protocol.extensions or protocol.current_size is not None:
            return False
        while waiting.gi_yieldfrom is not None:
            waiting = waiting.gi_yieldfrom
        # The last of its generators waits for the first byte of a frame, and not for the rest of one.
        return waiting.gi_code.co_name == "at_eof"
    except AttributeError:
        return False
