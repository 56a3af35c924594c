"""Puts the blobs that came as CHUNK streams back into their messages, within bounds."""

from __future__ import annotations

from typing import Any, Final, cast

from prefect_lite.protocol.codec import BLOB_FIELD, ProtocolError
from prefect_lite.protocol.messages import VERB_OF, Chunk, Message

MAX_STREAMS: Final = 4
"""CHUNK streams open at once in one direction of a connection."""
LEAST_COST: Final = 1_024
"""A shorter piece counts as this many bytes, so that a million tiny ones fit no budget."""


def _cost(piece: bytes) -> int:
    return max(len(piece), LEAST_COST)


class Inbox:
    """The open CHUNK streams of one connection.

    Together they hold at most ``max_payload_bytes``. A stream that would go over it is dropped, and the
    message that refers to it is refused; the connection stays.

    Attributes:
        max_payload_bytes: The bound, bytes.
    """

    __slots__ = ("_dropped", "_held", "_streams", "max_payload_bytes")

    def __init__(self, max_payload_bytes: int) -> None:
        self.max_payload_bytes = max_payload_bytes
        self._streams: dict[int, list[bytes]] = {}
        self._dropped: set[int] = set()
        self._held = 0

    @property
    def receiving(self) -> bool:
        """Whether a blob is on its way."""
        return bool(self._streams)

    def add(self, chunk: Chunk) -> None:
        """Take the next piece of a stream.

        Raises:
            ProtocolError: A piece out of order, or too many streams (both fatal).
        """
        parts = self._streams.get(chunk.stream)
        if parts is None:
            if chunk.stream in self._dropped:
                return
            if chunk.seq != 0:
                raise ProtocolError("chunk_order", f"Stream {chunk.stream} begins in the middle.", True)
            if len(self._streams) + len(self._dropped) >= MAX_STREAMS:
                raise ProtocolError("too_many_streams", f"More than {MAX_STREAMS} open CHUNK streams.", True)
            parts = self._streams[chunk.stream] = []
        elif chunk.seq != len(parts):
            raise ProtocolError("chunk_order", f"Stream {chunk.stream} has a piece out of order.", True)
        if self._held + _cost(chunk.data) > self.max_payload_bytes + MAX_STREAMS * LEAST_COST:
            self._take(chunk.stream)
            self._dropped.add(chunk.stream)
            return
        parts.append(chunk.data)
        self._held += _cost(chunk.data)

    def _take(self, stream: int) -> list[bytes] | None:
        parts = self._streams.pop(stream, None)
        if parts is not None:
            self._held -= sum(map(_cost, parts))
        return parts

    def resolve(self, message: Message) -> Message:
        """Replace a stream number in the message's blob field by the bytes of that stream.

        Raises:
            ProtocolError: The stream was over the limit (recoverable) or never existed (fatal).
        """
        index = BLOB_FIELD[type(message)]
        stream = cast("tuple[Any, ...]", message)[index]
        parts = self._take(stream)
        verb = VERB_OF[type(message)]
        if parts is None and stream not in self._dropped:
            text = f"{verb} refers to CHUNK stream {stream}, which never came."
            raise ProtocolError("unknown_stream", text, True)
        self._dropped.discard(stream)
        blob = b"".join(parts or ())
        if parts is None or len(blob) > self.max_payload_bytes:
            text = f"The body of {verb} is over the limit of {self.max_payload_bytes} bytes."
            raise ProtocolError("payload_too_large", text, verb=verb, fields=message)
        return message._replace(**{message._fields[index]: blob})
