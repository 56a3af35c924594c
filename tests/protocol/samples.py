"""One valid message of every verb, with short and long forms where a verb has several shapes."""

from __future__ import annotations

from prefect_lite.protocol import messages as m

RUN = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32

SAMPLES: list[m.Message] = [
    m.Hello(0, "worker", "default", "s1", b"secret", 3, "0.1", {"pid": 1, "host": "h"}),
    m.Welcome(0, "s1", b"secret", 4, True, [[RUN, "t1"]], 15.0, 5.0, 1 << 25, "b1", "0.1"),
    m.Submit(RUN, "mod.task", b"body", b"fp", "name", 1.5, 60.0, 9, "key", 600.0, 3, [OTHER], ["a", "b"]),
    m.Submit(RUN, "mod.task", b"", info=b"\x81\xa1f\xa0"),
    m.Submit(RUN, "mod.task", b""),
    m.Accepted([RUN], [[RUN, OTHER]], [["mod.task", "nobody serves it"]]),
    m.Refused(RUN, "queue_full", "The queue is full.", 1.0),
    m.Watch([RUN, OTHER]),
    m.Unwatch([RUN]),
    m.RunState(RUN),
    m.RunState(RUN, "COMPLETED", "Completed", "", "mod.task", 1, 0, 1, 2, 3, 0, b"result"),
    m.Cancel(7, RUN),
    m.Cancel(0, RUN, "t1"),
    m.Serve(["mod.task", "mod.other"], {"gpu": "yes"}),
    m.Ready(10),
    m.Run(1, RUN, "t1", "mod.task", 1, 0, b"body"),
    m.Started(RUN, "t1", 1),
    m.Finish(RUN, "t1", "COMPLETED", "Completed", "", 1, 0.25, b"result"),
    m.Finish(RUN, "t1", "CANCELLED", "Cancelled", "stopped", 1, 0),
    m.Finish(RUN, "t1", "COMPLETED", "Completed", "", 1, 0.25, None, "named-1"),
    m.Retry(RUN, "t1", 0.5, 2, "boom"),
    m.Release(RUN, "t1"),
    m.Done([[RUN, "t1", "ok"], [OTHER, "t2", "stale"]]),
    m.Renew(3, [[RUN, "t1"]]),
    m.Revoke([]),
    m.Chunk(1, 0, b"piece"),
    m.Log(RUN, [[20, 1_700_000_000_000, "prefect_lite", "hello"]]),
    m.Progress(RUN, "t1", 0.5, "half"),
    m.Query(1, "stats"),
    m.Query(2, "dead.list", {"limit": 10}),
    m.Query(3, "keep.put", ["key", None, None], b"body"),
    m.Answer(1, True, {"queues": [["mod.task", 3]]}),
    m.Answer(2, True, True, b"body"),
    m.Goodbye("restart"),
    m.Error("invalid", "No.", True),
]
