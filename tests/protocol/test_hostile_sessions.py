"""Sessions fed with bent frames: only fatal protocol errors come out, and answers stay within bounds."""

from __future__ import annotations

import random

import pytest

from prefect_lite.protocol import messages as m
from prefect_lite.protocol.codec import ProtocolError, encode_frame
from prefect_lite.protocol.session import MAX_ERRORS, Session
from tests.protocol.pairs import connected
from tests.protocol.samples import SAMPLES

GOOD = [encode_frame([sample]) for sample in SAMPLES] + [encode_frame(SAMPLES)]


def bent(source: random.Random) -> bytes:
    """Noise, or a good frame with some bytes changed, perhaps cut."""
    if source.random() < 0.3:
        return source.randbytes(source.randint(0, 100))
    data = bytearray(source.choice(GOOD))
    for _ in range(source.randint(0, 4)):
        data[source.randrange(len(data))] = source.randrange(256)
    return bytes(data[: source.randrange(len(data) + 1)] if source.random() < 0.2 else data)


@pytest.mark.parametrize("seed", range(4))
def test_any_frame_is_answered_or_fatal(seed: int) -> None:
    source = random.Random(seed)
    sessions: list[Session] = []
    for _ in range(3_000):
        if not sessions:
            sessions.extend(connected(source.choice(["client", "worker", "admin"]), free=10))
        session = source.choice(sessions)
        try:
            session.receive(bent(source))
        except ProtocolError as problem:
            assert problem.fatal  # noqa: PT017
        frames = sum(1 for _ in session.data_to_send())
        assert frames <= 2
        if session.closed:
            sessions.clear()


def test_a_frame_full_of_errors_makes_few_answers() -> None:
    _, other = connected("client")
    with pytest.raises(ProtocolError, match="too_many_errors"):
        other.receive(encode_frame([m.Ready(1)] * 1_000))
    assert other.backlog <= MAX_ERRORS + 1
