"""Bodies of QUERY and ANSWER: in pieces when they are long, within limits, and asked again after a fault."""

from __future__ import annotations

import os
from typing import Any, cast

import msgpack
import pytest

from prefect_lite.protocol import messages as m
from prefect_lite.protocol.codec import CHUNK_BYTES, MAX_FRAME, ProtocolError, decode_frame, encode_frame
from prefect_lite.protocol.outbox import INLINE_BYTES, Outbox
from tests.protocol.pairs import MIB, broker, connected, greet, move, peer
from tests.protocol.samples import RUN

SIZES = (0, 1, INLINE_BYTES, INLINE_BYTES + 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, MIB)


def pack(value: Any) -> bytes:
    return cast("bytes", msgpack.packb(value))


@pytest.mark.parametrize("role", ["client", "worker", "admin"])
@pytest.mark.parametrize("size", SIZES)
def test_a_body_arrives_whole_in_both_directions(role: str, size: int) -> None:
    one, other = connected(role)
    body = os.urandom(size)
    question = m.Query(1, "keep.put", ["key", None, None], body)
    one.ask(question)
    assert move(one, other) == [question]
    answer = m.Answer(1, True, True, body)
    other.send(answer)
    assert move(other, one) == [answer]


def test_no_frame_is_too_long_and_bodies_take_turns() -> None:
    one, other = connected("client", max_payload_bytes=8 * MIB)
    questions = [m.Query(i, "keep.put", ["x" * 1_000, 1.5, "holder"], os.urandom(MIB)) for i in range(8)]
    for question in questions:
        one.ask(question)
    frames = [*one.data_to_send()]
    assert max(map(len, frames)) <= MAX_FRAME
    streams = [row[1] for frame in frames for row in msgpack.unpackb(frame) if row[0] == "CHUNK"]
    assert streams[:4] == [1, 2, 3, 4]
    arrived = [message for frame in frames for message in other.receive(frame)]
    assert sorted(arrived) == sorted(questions)


def test_a_body_holds_up_neither_leases_nor_other_answers() -> None:
    one, other = connected("worker", max_payload_bytes=8 * MIB)
    other.send(m.Answer(1, True, True, os.urandom(4 * MIB)))
    first = other.next_frame()
    assert first is not None
    other.send(m.Answer(2, True, "small"))
    other.send(m.Revoke([[RUN, "t"]]))
    one.receive(first)
    following = [other.next_frame() for _ in range(2)]
    rows = [row[0] for frame in following if frame for row in msgpack.unpackb(frame)]
    assert rows[:2] == ["REVOKE", "ANSWER"], "nothing waits for more than the piece that was cut"
    # The other way round: a worker's heartbeat passes the body of its question
    one.ask(m.Query(7, "keep.put", ["key"], os.urandom(4 * MIB)))
    assert one.next_frame() is not None
    one.send(m.Renew(0, []))
    frame = one.next_frame()
    assert frame is not None
    assert msgpack.unpackb(frame)[0][0] == "RENEW"


def test_a_question_whose_body_is_too_long_is_not_sent() -> None:
    one, _ = connected("client", max_payload_bytes=1_000)
    with pytest.raises(ProtocolError, match=r"1001 bytes is over the limit of 1000") as caught:
        one.ask(m.Query(1, "keep.put", ["key"], b"x" * 1_001))
    assert caught.value.code == "payload_too_large"
    assert not one.has_data
    one.connect()
    assert greet(one, broker(max_payload_bytes=1_000)) == [], "nor is it remembered"


def test_a_question_with_a_body_is_asked_again_until_its_answer() -> None:
    one, _ = connected("client")
    question = m.Query(1, "keep.put", ["key"], os.urandom(3 * CHUNK_BYTES))
    one.ask(question)
    assert one.next_frame() is not None  # the connection is lost in the middle of it
    one.disconnected()
    one.connect()
    other = broker()
    assert greet(one, other) == [question]
    other.send(m.Answer(1, True, True))
    move(other, one)
    one.connect()
    assert greet(one, broker()) == []


def test_a_question_that_the_next_broker_does_not_take_is_answered_here() -> None:
    one = peer("client", max_payload_bytes=MIB)
    one.connect()
    one.ask(m.Query(1, "keep.put", ["key"], b"x" * 100_000))
    one.ask(m.Query(2, "keep.get", ["key"]))
    other = broker(max_payload_bytes=1_000)
    [hello] = move(one, other)
    assert isinstance(hello, m.Hello)
    other.welcome("s1", b"secret", 1)
    answers = [message for message in move(other, one) if isinstance(message, m.Answer)]
    assert [(answer.request, answer.ok, answer.value[0]) for answer in answers] == [
        (1, False, "payload_too_large")
    ]
    assert move(one, other) == [m.Query(2, "keep.get", ["key"])]


def test_a_broker_refuses_a_body_that_is_too_long_by_an_answer() -> None:
    one, other = connected("client", max_payload_bytes=2 * CHUNK_BYTES)
    for seq in range(4):
        other.receive(encode_frame([m.Chunk(1, seq, b"x" * CHUNK_BYTES)]))
    other.receive(pack([["QUERY", 5, "keep.put", ["key"], 1], ["QUERY", 6, "stats"]]))
    [answer] = move(other, one)
    assert isinstance(answer, m.Answer)
    assert (answer.request, answer.ok, answer.value[0]) == (5, False, "payload_too_large")


def test_who_asked_hears_that_the_answer_was_too_long() -> None:
    one, other = connected("client", max_payload_bytes=1_000)
    one.ask(m.Query(5, "keep.get", ["key"]))
    move(one, other)
    other.send(m.Answer(5, True, True, b"x" * 100_000))
    seen = move(other, one)
    assert [
        (answer.request, answer.ok, answer.value[0]) for answer in seen if isinstance(answer, m.Answer)
    ] == [(5, False, "payload_too_large")]
    one.connect()
    assert greet(one, broker()) == [], "it is not asked again"


def test_peers_without_bodies() -> None:
    """Older ones leave the field out; what they are sent has nothing they would miss."""
    assert decode_frame(pack([["QUERY", 1, "stats"], ["ANSWER", 1, True, 5]])) == [
        m.Query(1, "stats", None, None),
        m.Answer(1, True, 5, None),
    ]


@pytest.mark.parametrize("body", ["text", 1.5, True, [b"x"], {"a": 1}])
def test_what_is_no_body_is_refused(body: Any) -> None:
    one, other = connected("client")
    assert other.receive(pack([["QUERY", 5, "keep.put", ["key"], body]])) == []
    [answer] = move(other, one)
    assert isinstance(answer, m.Answer)
    assert (answer.request, answer.ok, answer.value[0]) == (5, False, "invalid")


def test_a_stream_that_never_came() -> None:
    _, other = connected("client")
    with pytest.raises(ProtocolError, match="never came"):
        other.receive(pack([["QUERY", 5, "keep.put", ["key"], 77]]))


def test_bodies_that_wait_inside_their_messages_are_weighed() -> None:
    box = Outbox(MIB)
    for number in range(10):
        box.send(m.Answer(number, True, True, b"x" * 50_000))
    assert 500_000 < box.weight < 510_000
    frames = [*box.frames()]
    assert len(frames) > 1, "they do not go into one frame only to be cut again"
    assert max(map(len, frames)) <= MAX_FRAME
