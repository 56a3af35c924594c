"""Frames: packing messages as a session sends them, and unpacking and checking what comes."""

from __future__ import annotations

from typing import Any

from benchmarks.guard.counting import Counter
from benchmarks.guard.figures import ROUNDS, WARM_UPS, Figures, Samples
from benchmarks.guard.seams import seam

GROUP = "protocol"
SIZES = (1, 50)
BODY = bytes(range(200))


def _messages(count: int) -> dict[str, list[Any]]:
    m = "prefect_lite.protocol.messages"
    submit, run, finish, state = (seam(m, name) for name in ("Submit", "Run", "Finish", "RunState"))
    ids = [f"{number:032x}" for number in range(count)]
    key, done = "tasks.add", ("COMPLETED", "Completed", "")
    return {
        "SUBMIT": [submit(run_id, key, BODY, b"f" * 16) for run_id in ids],
        "RUN": [run(number, run_id, "t" * 16, key, 1, 0, BODY) for number, run_id in enumerate(ids, 1)],
        "FINISH": [finish(run_id, "t" * 16, *done, 1, 0.25, BODY) for run_id in ids],
        "STATE": [
            state(run_id, *done, key, 1, 0, 1_700_000_000_000, 1_700_000_000_001, 1_700_000_000_002, 0, BODY)
            for run_id in ids
        ],
    }


def measure(counter: Counter) -> Figures:
    """Encode and decode frames of 1 and 50 messages."""
    samples = Samples(GROUP)
    decode = seam("prefect_lite.protocol.codec", "decode_frame")
    session = seam("prefect_lite.protocol.session", "Session")(max_payload_bytes=1 << 20)
    seam("prefect_lite.protocol.session", "Session.data_to_send")
    for _ in range(WARM_UPS + ROUNDS):
        for count in SIZES:
            for verb, messages in _messages(count).items():
                frames: list[bytes] = []

                def encode(messages: list[Any] = messages, frames: list[bytes] = frames) -> None:
                    for message in messages:
                        session.send(message)
                    frames.extend(session.data_to_send())

                samples.add_counts(f"encode {verb} x{count}", counter.of(encode))
                samples.add(f"encode {verb} x{count}", "bytes", sum(map(len, frames)))

                decoded: list[Any] = []

                def unpack(frames: list[bytes] = frames, decoded: list[Any] = decoded) -> None:
                    for frame in frames:
                        decoded.extend(decode(frame))

                samples.add_counts(f"decode {verb} x{count}", counter.of(unpack))
                assert len(decoded) == count
    return samples.figures()
