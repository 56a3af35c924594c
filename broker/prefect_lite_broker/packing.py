"""Commands for Redis as bytes, large bodies not copied.

hiredis makes one piece of a command. For a body of 10 MB that took 10 to 20 ms, in which the broker served
nobody.
"""

from __future__ import annotations

from typing import Any

from .connect import pack_command

APART_BYTES = 64 * 1024
"""A longer body is not copied between the words around it."""


def pack_apart(words: tuple[Any, ...]) -> list[bytes]:
    """What ``pack_command`` gives, cut so that each long ``bytes`` is a piece of its own: the same object.

    Raises:
        TypeError, ValueError, OverflowError: A word can't be sent.
    """
    pieces: list[bytes] = []
    head = b"*%d\r\n" % len(words)
    start = 0
    for i, word in enumerate(words):
        if type(word) is bytes and len(word) > APART_BYTES:
            pieces += (b"%b%b$%d\r\n" % (head, _bare(words[start:i]), len(word)), word)
            head, start = b"\r\n", i + 1
    pieces.append(head + _bare(words[start:]))
    return pieces


def _bare(words: tuple[Any, ...]) -> bytes:
    """Packed words without the line that tells their number."""
    packed = pack_command(words)
    return packed[packed.index(b"\n") + 1 :]
