"""Commands for Redis in pieces."""

from __future__ import annotations

from typing import Any

import pytest
from prefect_lite_broker.connect import pack_command
from prefect_lite_broker.packing import APART_BYTES, pack_apart

LONG = bytes(range(256)) * (APART_BYTES // 256) + b"\r\n"
OTHER = b"\r\n$3\r\n" * APART_BYTES


@pytest.mark.parametrize(
    "words",
    [
        (b"SET", "key", b"short", 1, 2.5),
        (LONG,),
        (LONG, OTHER),
        ("EVALSHA", "sha", 1, b"prefix", LONG, "ß", b""),
        ("EVALSHA", LONG, 1, OTHER, LONG),
        ("SET", "x" * (2 * APART_BYTES), LONG),
        ("SET", bytes(APART_BYTES), bytes(APART_BYTES + 1)),
    ],
)
def test_the_pieces_are_the_command(words: tuple[Any, ...]) -> None:
    pieces = pack_apart(words)
    assert b"".join(pieces) == pack_command(words)
    apart = [word for word in words if isinstance(word, bytes) and len(word) > APART_BYTES]
    assert [piece for piece in pieces if any(piece is word for word in apart)] == apart, "not copied"
    assert all(len(piece) <= 2 * APART_BYTES + 200 for piece in pieces if piece not in apart)


def test_what_cannot_be_sent_is_refused() -> None:
    with pytest.raises(TypeError):
        pack_apart((LONG, object()))
    with pytest.raises(TypeError):
        pack_apart((None, LONG))
