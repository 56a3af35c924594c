"""Frames: round trips, type and value checks, limits, hostile input."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_lite.protocol import messages as m
from prefect_lite.protocol.checks import CHECKS, MAX_INFO, MAX_PARENTS, MAX_TEXT
from prefect_lite.protocol.codec import MAX_ARRAY, MAX_FRAME, ProtocolError, decode_frame, encode_frame
from tests.protocol.samples import OTHER, RUN, SAMPLES


def frame(*rows: Any) -> bytes:
    return msgpack.packb(list(rows))


def refusals(*rows: Any) -> list[ProtocolError]:
    refused: list[ProtocolError] = []
    assert decode_frame(frame(*rows), refused) == []
    return refused


def survives(data: bytes) -> None:
    """Decoding ends, with messages or with a fatal error."""
    fatal = True
    try:
        decode_frame(data, [])
    except ProtocolError as problem:
        fatal = problem.fatal
    assert fatal


def test_every_verb_has_a_sample_and_a_check() -> None:
    assert {type(sample) for sample in SAMPLES} == set(m.VERBS.values()) == set(CHECKS)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_round_trip(sample: m.Message) -> None:
    [back] = decode_frame(encode_frame([sample]))
    assert back == sample
    assert type(back) is type(sample)


def test_a_frame_keeps_order() -> None:
    assert decode_frame(encode_frame(SAMPLES)) == SAMPLES
    assert decode_frame(encode_frame([])) == []


def test_the_wire_form_is_the_verb_and_the_fields() -> None:
    assert encode_frame([m.Ready(5)]) == b"\x91\x92\xa5READY\x05"


def test_an_older_peer_leaves_fields_out_and_a_newer_one_adds_some() -> None:
    assert decode_frame(frame(["SUBMIT", RUN, "k", b""])) == [m.Submit(RUN, "k", b"")]
    assert decode_frame(frame(["READY", 5, "what is this"])) == [m.Ready(5)]


def test_too_few_fields_are_refused() -> None:
    [problem] = refusals(["SUBMIT", RUN, "k"])
    assert (problem.code, problem.verb, problem.fatal) == ("invalid", "SUBMIT", False)


def test_an_unknown_verb_is_recoverable_and_spares_its_neighbours() -> None:
    refused: list[ProtocolError] = []
    got = decode_frame(frame(["READY", 1], ["TELEPORT", 1], ["READY", 2]), refused)
    assert got == [m.Ready(1), m.Ready(2)]
    assert [(problem.code, problem.fatal) for problem in refused] == [("unknown_verb", False)]


@pytest.mark.parametrize(
    "row",
    [
        ["READY", True],
        ["READY", 1.0],
        ["READY", "1"],
        ["READY", -1],
        ["READY", 1 << 60],
        ["RELEASE", RUN.upper(), "t"],
        ["RELEASE", RUN[:-1], "t"],
        ["RELEASE", RUN[:-1] + "g", "t"],
        ["RELEASE", RUN[:-1] + "é", "t"],
        ["RELEASE", RUN.encode(), "t"],
        ["RELEASE", RUN, ""],
        ["RELEASE", RUN, "t" * 65],
        ["SUBMIT", RUN, "", b""],
        ["SUBMIT", RUN, "a\nb", b""],
        ["SUBMIT", RUN, "k" * 513, b""],
        ["SUBMIT", RUN, "k", "text"],
        ["SUBMIT", RUN, "k", b"", b"", "", math.nan],
        ["SUBMIT", RUN, "k", b"", b"", "", math.inf],
        ["SUBMIT", RUN, "k", b"", b"", "", -1.0],
        ["SUBMIT", RUN, "k", b"", b"", "", 0, 0, 10],
        ["SUBMIT", RUN, "k", b"", b"", "", 0, 0, 0, "", 0, -1, ["nope"]],
        ["SUBMIT", RUN, "k", b"", b"", "", 0, 0, 0, "", 0, -1, [1]],
        ["SUBMIT", RUN, "k", b"", b"", "", 0, 0, 0, "", 0, -1, [], ["t" * 257]],
        ["SUBMIT", RUN, "k", b"", b"", "", 0, 0, 0, "", 0, -1, [], [None]],
        ["WATCH", [RUN, RUN[:-1]]],
        ["WATCH", [RUN + RUN, ""]],
        ["WATCH", [[RUN]]],
        ["FINISH", RUN, "t", "RUNNING", "", "", 1, 0.0],
        ["FINISH", RUN, "t", "COMPLETED", "", "", 1, math.nan],
        ["FINISH", RUN, "t", "COMPLETED", "", "x" * (MAX_TEXT + 1), 1, 0.0],
        ["RETRY", RUN, "t", math.nan, 1],
        ["RENEW", 1, [[RUN]]],
        ["RENEW", 1, ["ab"]],
        ["RENEW", 1, [{"a": 1, "b": 2}]],
        ["RENEW", 1, [[RUN, b"t"]]],
        ["DONE", [[RUN, "t", "maybe"]]],
        ["HELLO", 0, "root", "default"],
        ["HELLO", 0, "client", "a}b"],
        ["CHUNK", 1, 0, b""],
        ["CHUNK", 0, 0, b"x"],
        ["LOG", RUN, [[1, 2, 3, 4]]],
        ["PROGRESS", RUN, "t", math.nan],
        ["QUERY", 1, "x", [[[[[[[[[[]]]]]]]]]]],
        ["SERVE", ["k"], {"a": 1}],
        ["WELCOME", 0, "s", b"", 1, False, [], 0, 5, 1, "b", ""],
    ],
    ids=lambda row: str(row)[:60],
)
def test_impossible_values_are_refused(row: list[Any]) -> None:
    [problem] = refusals(row)
    assert (problem.code, problem.fatal, problem.verb) == ("invalid", False, row[0])
    with pytest.raises(ProtocolError):
        decode_frame(frame(row))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x01",
        b"\x80",
        b"\x90\x90",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 2_000,
        b"\xdc\x20\x00" * 1_000,
        frame([]),
        frame("READY"),
        frame(1),
        frame([1]),
        frame([["READY"], 1]),
        frame({"READY": 1}),
        frame(["READY", msgpack.ExtType(5, b"x")]),
        frame(["QUERY", 1, "x", msgpack.ExtType(5, b"")]),
        frame(["QUERY", 1, "x", msgpack.Timestamp(1)]),
        frame(["QUERY", 1, "x", {1: 2}]),
        frame(["READY", list(range(MAX_ARRAY + 1))]),
        b"\x91\x92\xa5READY\xa1\xff",
        b"\x90" + b"\0" * MAX_FRAME,
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_array_of_messages_is_fatal(data: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_frame(data, [])
    assert caught.value.fatal


@given(st.binary(max_size=300))
def test_noise_never_crashes(data: bytes) -> None:
    survives(data)


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_wrong_fields_never_crash_nor_pass_with_another_type(data: st.DataObject) -> None:
    """Take good messages and replace some fields by anything."""
    sample = data.draw(st.sampled_from(SAMPLES))
    fields = list(sample)
    for index in data.draw(st.sets(st.integers(0, len(fields) - 1), min_size=1, max_size=2)):
        fields[index] = data.draw(_values)
    refused: list[ProtocolError] = []
    got = decode_frame(frame([m.VERB_OF[type(sample)], *fields]), refused)
    assert len(got) + len(refused) == 1
    assert all(not problem.fatal for problem in refused)


@given(st.data())
def test_a_cut_or_bent_frame_never_crashes(data: st.DataObject) -> None:
    good = bytearray(encode_frame(data.draw(st.lists(st.sampled_from(SAMPLES), min_size=1, max_size=3))))
    for _ in range(data.draw(st.integers(0, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(good[: data.draw(st.integers(0, len(good)))]))


def test_hostile_headers_reserve_little_and_keep_nothing() -> None:
    bomb = b"\xdc\x27\x10" * 1_020  # each announces 10,000 items
    tracemalloc.start()
    try:
        for _ in range(5):
            with pytest.raises(ProtocolError):
                decode_frame(bomb)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1 << 20
    assert peak < 80 << 20


def test_a_frame_over_the_limit_is_not_made() -> None:
    with pytest.raises(ProtocolError, match="frame_too_long"):
        encode_frame([m.Submit(RUN, "k", b"x" * MAX_FRAME)])


def test_what_cannot_be_encoded_is_told_and_the_packer_lives_on() -> None:
    for value in (object(), 1 << 70):
        with pytest.raises(ProtocolError, match="not_encodable"):
            encode_frame([m.Answer(1, True, value)])
    assert decode_frame(encode_frame([m.Ready(1)])) == [m.Ready(1)]


def test_lone_surrogates_become_question_marks() -> None:
    [back] = decode_frame(encode_frame([m.Retry(RUN, "t", 0.0, 2, "file \udcff")]))
    assert back == m.Retry(RUN, "t", 0.0, 2, "file ?")


def test_shapes_alternate_without_confusion() -> None:
    rows = [
        m.Finish(OTHER, "t", "FAILED", "Failed", "", 1, 1.5, None),
        m.Finish(OTHER, "t", "COMPLETED", "Completed", "", 1, 1, b"x"),
    ] * 3
    assert decode_frame(encode_frame(rows)) == rows


def test_a_run_waits_for_so_many_others_at_most() -> None:
    half = [f"{number:032x}" for number in range(MAX_PARENTS // 2)]
    most = m.Submit(RUN, "k", b"x", parents=half, tolerated=half)
    assert decode_frame(encode_frame([most])) == [most]
    with pytest.raises(ProtocolError, match="may wait for 10,000 others at most"):
        decode_frame(encode_frame([most._replace(tolerated=[*half, RUN])]))


def test_what_a_submit_says_of_its_run_is_bounded_and_fits_beside_the_most_parents() -> None:
    ids = [f"{number:032x}" for number in range(MAX_PARENTS)]
    tags = ["\U0001f600" * 256] * 64
    most = m.Submit(RUN, "k" * 512, b"", parents=ids, tags=tags, info=b"x" * MAX_INFO)
    frame = encode_frame([most])
    assert len(frame) <= MAX_FRAME
    assert decode_frame(frame) == [most]
    with pytest.raises(ProtocolError, match="info must be at most"):
        decode_frame(encode_frame([most._replace(info=b"x" * (MAX_INFO + 1))]))


def test_the_name_of_a_run_is_bounded() -> None:
    most = m.Finish(OTHER, "t", "COMPLETED", "", "", 1, 1.5, None, "n" * 512)
    assert decode_frame(encode_frame([most])) == [most]
    with pytest.raises(ProtocolError, match="too long"):
        decode_frame(encode_frame([most._replace(run_name="n" * 513)]))
