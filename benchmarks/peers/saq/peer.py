"""How SAQ is installed, started and tuned."""

from harness.declaration import Layout, Peer

WORKER = ("{python}", "-m", "saq", "app.settings")
FEW_THREADS = "sync tasks share a pool of cores + 4 threads; no option makes it 100"

PEER = Peer(
    name="saq",
    title="SAQ",
    requirements=(
        "saq[redis,hiredis]==0.26.4",
        "redis==7.4.1",
        "hiredis==3.5.0",
        "uvloop==0.23.0",
        "typing_extensions==4.16.0",
    ),
    layouts={
        "noop": Layout(
            50,
            (WORKER,),
            "One process, concurrency 50 (default 10; each place holds one blocking connection).",
        ),
        "sleep100": Layout(100, (WORKER,), "Concurrency 100."),
        "sleep1000": Layout(1000, (WORKER,), "Concurrency 1000."),
    },
    kinds=("async", "sync"),
    modes=("bulk", "loop1", "loop8"),
    skips={"C/1000@100/sync": FEW_THREADS},
    settings=(
        "RedisQueue over the unix socket, hiredis, JSON (the default), uvloop by its loop policy, results "
        "kept 600 s (default). Bulk is what Queue.map does: all enqueue calls at once (20 operations at a "
        "time, the default max_concurrent_ops), results polled with Queue.jobs every 10 ms; one run every 1 "
        "ms."
    ),
    distributions=("saq", "redis", "hiredis", "uvloop"),
    pace=1.5,
)
