"""How streaQ is installed, started and tuned."""

from harness.declaration import Layout, Peer

WORKER = ("{bin}/streaq", "run", "app:worker")

PEER = Peer(
    name="streaq",
    title="streaQ",
    requirements=("streaq==7.2.0", "coredis==6.9.0", "uvloop==0.23.0"),
    layouts={
        "noop": Layout(
            100,
            (WORKER,),
            "One process (the client takes more CPU than the worker), concurrency 100 (default "
            "16), prefetch as many again (default), tasks silent.",
        ),
        "sleep100": Layout(100, (WORKER,), "Concurrency 100, for threads of sync tasks too."),
        "sleep1000": Layout(1000, (WORKER,), "Concurrency 1000."),
    },
    kinds=("async", "sync"),
    modes=("bulk", "loop1", "loop8"),
    skips={},
    settings=(
        "coredis over the unix socket, pickle (default), uvloop, results kept 600 s. Bulk is enqueue_many. "
        "Task.result, the only wait, subscribes anew each time, and coredis spends 100 ms on every "
        "unsubscription; 128 results are awaited side by side, over up to 160 connections (default 64)."
    ),
    distributions=("streaq", "coredis", "anyio", "uvloop"),
    pace=0.4,
)
