"""Dramatiq on Redis."""

from harness.declaration import Layout, Peer


def gevent(greenlets: int) -> tuple[tuple[str, ...], ...]:
    return (("{bin}/dramatiq-gevent", "app", "--processes", "1", "--threads", str(greenlets)),)


PEER = Peer(
    name="dramatiq",
    title="Dramatiq",
    requirements=("dramatiq[redis]==2.2.1", "gevent==26.9.0", "redis==8.1.0", "hiredis==3.5.0"),
    layouts={
        "noop": Layout(
            64,
            gevent(64),
            "dramatiq-gevent, one process with 64 greenlets: faster here than 8 greenlets, than two such "
            "processes, and than one or two processes of threads.",
        ),
        "roundtrip": Layout(
            8,
            (("{bin}/dramatiq", "app", "--processes", "1", "--threads", "8"),),
            "One process with 8 threads (default: 8, in a process per core): a single run takes a third less "
            "CPU of the worker than with greenlets.",
        ),
        "sleep100": Layout(100, gevent(100), "dramatiq-gevent, one process with 100 greenlets."),
        "sleep1000": Layout(1000, gevent(1000), "dramatiq-gevent, one process with 1,000 greenlets."),
    },
    kinds=("sync",),
    modes=("bulk", "loop1", "loop8"),
    skips={
        "A/async": "Its coroutines run on a thread's event loop, which gevent (the faster worker) rules out.",
        "B/async": "Its coroutines run on a thread's event loop, which gevent (the faster worker) rules out.",
    },
    settings="RedisBroker and the Redis result backend (recommended: it waits, no polling), hiredis, unix "
    "socket, default middleware and prefetch (twice the workers). Bulk is group(...).run(), which sends one "
    "by one.",
    distributions=("dramatiq", "redis", "hiredis", "gevent"),
    pace=1.5,
)
