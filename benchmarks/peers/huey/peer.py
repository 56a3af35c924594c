"""Huey on Redis lists."""

from harness.declaration import Layout, Peer


def consumer(workers: int, kind: str) -> tuple[tuple[str, ...], ...]:
    options = ("-w", str(workers), "-k", kind, "--no-periodic", "-C", "--quiet")
    patched = ("{python}", "-m", "gevent.monkey") if kind == "greenlet" else ()
    return ((*patched, "{bin}/huey_consumer", "app.huey", *options),)


PEER = Peer(
    name="huey",
    title="Huey",
    requirements=("huey==3.5.4", "redis==8.1.0", "hiredis==3.5.0", "gevent==26.9.0"),
    layouts={
        "noop": Layout(
            8,
            consumer(8, "thread"),
            "Eight worker threads: faster here than one or two threads or processes. No scheduler of "
            "periodic tasks, no health checks, minimal logging.",
        ),
        "sleep100": Layout(100, consumer(100, "thread"), "100 threads, for tasks that wait."),
        "sleep1000": Layout(
            1000,
            consumer(1000, "greenlet"),
            "1,000 greenlets, faster here than as many threads; patched by gevent's starter.",
        ),
    },
    kinds=("sync",),
    modes=("bulk", "loop1", "loop8"),
    skips={"A/async": "Huey runs functions only.", "B/async": "Huey runs functions only."},
    settings="RedisHuey (no priorities), blocking=True (a pop that waits, no polling), notify_result=True "
    "(results are announced, no polling), hiredis, unix socket. Bulk is task.map(), which sends one by one.",
    distributions=("huey", "redis", "hiredis", "gevent"),
    pace=1.5,
)
