"""Batching, urgency, CHUNK streams and their fairness."""

from __future__ import annotations

import logging
from typing import Any

import msgpack
import pytest

from prefect_lite.protocol import messages as m
from prefect_lite.protocol import outbox as outbox_module
from prefect_lite.protocol.checks import MAX_PARENTS
from prefect_lite.protocol.codec import (
    CHUNK_BYTES,
    MAX_ARRAY,
    MAX_FRAME,
    MAX_MAP,
    ProtocolError,
    decode_frame,
)
from prefect_lite.protocol.inbox import MAX_STREAMS, Inbox
from prefect_lite.protocol.outbox import BATCH_BYTES, BATCH_MESSAGES, INLINE_BYTES, LIST_PART, Outbox
from tests.protocol.pairs import run_id
from tests.protocol.samples import RUN

MIB = 1 << 20


def outbox(*messages: m.Message, max_payload_bytes: int = 32 * MIB) -> Outbox:
    box = Outbox(max_payload_bytes)
    for message in messages:
        box.send(message)
    return box


def verbs(frame: bytes) -> list[str]:
    return [row[0] for row in msgpack.unpackb(frame, max_bin_len=MIB)]


def finish(number: int, size: int) -> m.Finish:
    return m.Finish(run_id(number), "t", "COMPLETED", "Completed", "", 1, 0.1, bytes([number % 256]) * size)


def receive_all(box: Outbox, max_payload_bytes: int = 32 * MIB) -> list[m.Message]:
    inbox = Inbox(max_payload_bytes)
    got: list[m.Message] = []
    for frame in box.frames():
        assert len(frame) <= MAX_FRAME
        for message in decode_frame(frame):
            if isinstance(message, m.Chunk):
                inbox.add(message)
            elif (isinstance(message, m.Finish) and isinstance(message.result, int)) or (
                isinstance(message, m.Submit) and isinstance(message.body, int)
            ):
                got.append(inbox.resolve(message))
            else:
                got.append(message)
    return got


def test_all_small_messages_leave_in_one_frame_in_order() -> None:
    messages = [m.Started(run_id(n), "t", 1) for n in range(1_000)]
    box = outbox(*messages)
    assert box.has_data
    assert box.backlog == 1_000
    [frame] = box.frames()
    assert decode_frame(frame) == messages
    assert not box.has_data
    assert box.next_frame() is None


def test_urgent_verbs_leave_first_in_their_order() -> None:
    box = outbox(
        m.Started(RUN, "t", 1),
        m.Serve(["k"]),
        m.Ready(1),
        m.Done([]),
        m.Renew(0, []),
        m.Revoke([]),
        m.Cancel(0, RUN, "t"),
        m.Cancel(1, RUN),
    )
    [frame] = box.frames()
    assert verbs(frame) == ["SERVE", "READY", "RENEW", "REVOKE", "CANCEL", "STARTED", "DONE", "CANCEL"]


def test_a_client_s_cancel_stays_behind_its_submit() -> None:
    [frame] = outbox(m.Submit(RUN, "k", b""), m.Cancel(1, RUN)).frames()
    assert verbs(frame) == ["SUBMIT", "CANCEL"]


def test_batches_are_cut_by_count_and_by_size() -> None:
    many = [m.Started(run_id(n), "t", 1) for n in range(BATCH_MESSAGES + 1)]
    assert [len(verbs(frame)) for frame in outbox(*many).frames()] == [BATCH_MESSAGES, 1]
    heavy = [finish(n, INLINE_BYTES) for n in range(20)]
    frames = [*outbox(*heavy).frames()]
    assert all(len(frame) < BATCH_BYTES + INLINE_BYTES + 1_000 for frame in frames)
    assert sum(len(verbs(frame)) for frame in frames) == 20


def test_a_batch_that_packs_too_long_is_split_in_order() -> None:
    messages = [m.Refused(run_id(n), "invalid", "x" * 50_000) for n in range(100)]
    assert receive_all(outbox(*messages)) == messages


@pytest.mark.parametrize(
    "size", [0, 1, INLINE_BYTES, INLINE_BYTES + 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * MIB]
)
def test_blobs_of_any_size_arrive_whole(size: int) -> None:
    message = finish(7, size)
    assert receive_all(outbox(message)) == [message]


def test_frames_are_cut_short_from_the_next_one_on() -> None:
    messages = [finish(1, MIB), *(finish(number, 5_000) for number in range(2, 60))]
    box = outbox(*messages)
    box.next_frame()
    box.piece_bytes = 32 * 1024
    frames = list(box.frames())
    assert max(map(len, frames)) < 32 * 1024 + 6_000, "a batch ends behind the message that fills it"
    box = outbox(*messages)
    first = box.next_frame()
    assert first is not None
    box.piece_bytes = 32 * 1024
    inbox, got = Inbox(32 * MIB), list[m.Message]()
    for frame in (first, *box.frames()):
        for message in decode_frame(frame):
            if isinstance(message, m.Chunk):
                inbox.add(message)
            elif isinstance(message, m.Finish):
                got.append(inbox.resolve(message) if isinstance(message.result, int) else message)
    assert sorted(got) == sorted(messages)


def test_submits_with_a_long_info_are_not_packed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[int] = []
    pack = outbox_module.encode_rows

    def noted(rows: list[tuple[Any, ...]]) -> bytes:
        frame = pack(rows)
        packed.append(len(frame))
        return frame

    monkeypatch.setattr(outbox_module, "encode_rows", noted)
    submits = [m.Submit(run_id(n), "k", b"x", info=b"i" * 32_000) for n in range(200)]
    box = outbox(*submits)
    assert receive_all(box) == submits
    assert max(packed) < MAX_FRAME


@pytest.mark.parametrize("size", [1_000, 200_000, 700_000])
def test_submits_with_very_many_parents_arrive_whole(size: int) -> None:
    parents = [run_id(number) for number in range(MAX_PARENTS)]
    submits = [m.Submit(run_id(n), "k", b"x" * size, parents=parents) for n in range(3)]
    got = [one for one in receive_all(outbox(*submits)) if isinstance(one, m.Submit)]
    assert sorted(got) == submits


def test_small_messages_wait_for_one_piece_at_most() -> None:
    box = outbox(finish(1, 10 * MIB))
    box.next_frame()
    for number in range(20):
        box.send(m.Started(run_id(number), "t", 1))
        assert "STARTED" in verbs(box.next_frame() or b"") + verbs(box.next_frame() or b"")
        box.send(m.Renew(0, []))
        assert verbs(box.next_frame() or b"")[0] == "RENEW"


def test_an_endless_flow_of_small_messages_does_not_stop_a_stream() -> None:
    box = outbox(finish(1, MIB))
    pieces = 0
    for number in range(12):
        box.send(m.Started(run_id(number), "t", 1))
        pieces += verbs(box.next_frame() or b"").count("CHUNK")
    assert pieces == 4


def test_streams_take_turns_so_a_short_one_overtakes() -> None:
    long, short = finish(1, 10 * MIB), finish(2, INLINE_BYTES + 1)
    assert receive_all(outbox(long, short)) == [short, long]


def test_open_streams_stay_within_the_receiver_s_bounds() -> None:
    messages = [finish(n, MIB) for n in range(10)]
    assert sorted(receive_all(outbox(*messages))) == messages
    tight = outbox(*messages, max_payload_bytes=2 * MIB)
    assert sorted(receive_all(tight, 2 * MIB)) == messages


def test_long_lists_are_sent_in_parts() -> None:
    ids = [run_id(n) for n in range(2 * LIST_PART + 1)]
    got = receive_all(outbox(m.Accepted(ids, [[ids[0], ids[1]]], [["k", "nobody"]])))
    assert [len(message[0]) for message in got] == [LIST_PART, LIST_PART, 1]
    assert [i for message in got for i in message[0]] == ids
    assert [message[1:] for message in got] == [([[ids[0], ids[1]]], [["k", "nobody"]]), ([], []), ([], [])]


def test_what_cannot_be_sent_is_dropped_alone(caplog: pytest.LogCaptureFixture) -> None:
    bad: Any = object()
    box = outbox(
        m.Ready(1),
        m.Started(RUN, "t", 1),
        m.Log(RUN, [[20, 1, "x", "y" * MAX_FRAME]]),
        m.Log(RUN, [[20, 1, "x", bad]]),
        m.Answer(5, True, "z" * MAX_FRAME),
        m.Answer(6, True, bad),
        m.Release(RUN, "t"),
    )
    with caplog.at_level(logging.ERROR):
        got = receive_all(box)
    assert got[:2] + got[-1:] == [m.Ready(1), m.Started(RUN, "t", 1), m.Release(RUN, "t")]
    answers = [message for message in got if isinstance(message, m.Answer)]
    assert [(answer.request, answer.ok) for answer in answers] == [(5, False), (6, False)]
    assert len(caplog.records) == 2


def test_stopping_early_loses_nothing() -> None:
    messages = [finish(1, MIB), *(m.Started(run_id(n), "t", 1) for n in range(5_000))]
    box = outbox(*messages)
    for frame in box.frames():
        first = decode_frame(frame)
        break
    assert len(first) + len(receive_all(box)) == len(messages)


class TestInbox:
    def add(self, inbox: Inbox, stream: int, seq: int, size: int = 10) -> None:
        inbox.add(m.Chunk(stream, seq, b"x" * size))

    @pytest.mark.parametrize("seq", [0, 2, 3])
    def test_pieces_out_of_order_are_fatal(self, seq: int) -> None:
        inbox = Inbox(1_000)
        self.add(inbox, 1, 0)
        with pytest.raises(ProtocolError, match="chunk_order") as caught:
            self.add(inbox, 1, seq)
        assert caught.value.fatal

    def test_a_stream_that_begins_in_the_middle_is_fatal(self) -> None:
        with pytest.raises(ProtocolError, match="chunk_order"):
            self.add(Inbox(1_000), 1, 1)

    def test_too_many_streams_are_fatal(self) -> None:
        inbox = Inbox(1 << 20)
        for stream in range(1, MAX_STREAMS + 1):
            self.add(inbox, stream, 0)
        with pytest.raises(ProtocolError, match="too_many_streams"):
            self.add(inbox, MAX_STREAMS + 1, 0)

    def test_a_body_over_the_limit_is_dropped_and_its_message_refused(self) -> None:
        inbox = Inbox(10_000)
        for seq in range(100):
            self.add(inbox, 1, seq, 1_000)
        message: Any = m.Submit(RUN, "k", b"")._replace(body=1)  # pyright: ignore[reportArgumentType]
        with pytest.raises(ProtocolError, match="payload_too_large") as caught:
            inbox.resolve(message)
        assert not caught.value.fatal
        assert caught.value.fields[0] == RUN
        self.add(inbox, 2, 0)  # the budget is free again

    def test_one_byte_over_the_limit_is_refused(self) -> None:
        inbox = Inbox(5_000)
        self.add(inbox, 1, 0, 5_001)
        message: Any = m.Submit(RUN, "k", b"")._replace(body=1)  # pyright: ignore[reportArgumentType]
        with pytest.raises(ProtocolError, match="payload_too_large"):
            inbox.resolve(message)

    def test_a_stream_that_never_came_is_fatal(self) -> None:
        message: Any = m.Submit(RUN, "k", b"")._replace(body=9)  # pyright: ignore[reportArgumentType]
        with pytest.raises(ProtocolError, match="unknown_stream") as caught:
            Inbox(10).resolve(message)
        assert caught.value.fatal

    def test_tiny_pieces_cost_more_than_they_hold(self) -> None:
        inbox = Inbox(1 << 20)
        for seq in range(3_000):
            self.add(inbox, 1, seq, 1)
        assert not inbox._streams


def test_aliases_and_notices_are_sent_in_parts_too() -> None:
    ids = [run_id(n) for n in range(3 * LIST_PART)]
    aliases = [[ids[0], each] for each in ids]
    notices = [["\U0001f600" * 512, "\U0001f600" * 2_000] for _ in range(100)]
    got = receive_all(outbox(m.Accepted(ids[:1], aliases, notices)))
    assert all(isinstance(message, m.Accepted) for message in got)
    assert [each for message in got for each in message[0]] == ids[:1]
    assert [each for message in got for each in message[1]] == aliases
    assert [each for message in got for each in message[2]] == notices


@pytest.mark.parametrize(
    "value",
    [
        {str(number): 1 for number in range(MAX_MAP + 1)},
        {"a": [[0] * (MAX_ARRAY + 1)]},
        [[[[[[[[[1]]]]]]]]],
        b"x" * (CHUNK_BYTES + 1),
    ],
    ids=["map", "array", "depth", "bytes"],
)
def test_an_answer_that_the_other_side_would_refuse_is_not_sent(value: Any) -> None:
    [answer] = receive_all(outbox(m.Answer(5, True, value)))
    assert isinstance(answer, m.Answer)
    assert (answer.request, answer.ok, answer.value[0]) == (5, False, "too_large")


def test_what_waits_is_weighed() -> None:
    box = outbox(m.Done([[RUN, "t", "ok"]] * 2_000), m.Answer(1, True, "x" * 100_000))
    assert 200_000 < box.weight < 400_000
    assert outbox().weight == 0


def test_of_several_renewals_that_wait_the_last_one_goes() -> None:
    box = outbox(m.Renew(1, []), m.Renew(2, [[RUN, "t"]]), m.Ready(5), m.Renew(3, []))
    (frame,) = box.frames()
    assert [row[:2] for row in msgpack.unpackb(frame)] == [["RENEW", 2], ["READY", 5], ["RENEW", 3]]
