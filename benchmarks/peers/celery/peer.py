"""Celery on Redis, as broker and as result backend."""

from harness.declaration import Layout, Peer

PYTHON_ONLY = "Celery runs functions only."


def worker(pool: str, concurrency: int) -> tuple[tuple[str, ...], ...]:
    size = ("--pool", pool, "--concurrency", str(concurrency))
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")
    return (("{bin}/celery", "--app", "app", "worker", *size, *quiet),)


PEER = Peer(
    name="celery",
    title="Celery",
    requirements=("celery[redis]==5.7.0", "redis==8.1.0", "hiredis==3.5.0", "gevent==26.9.0"),
    layouts={
        "noop": Layout(2, worker("prefork", 2), "The prefork pool with a process per core."),
        "sleep100": Layout(100, worker("gevent", 100), "The gevent pool, meant for tasks that wait."),
        "sleep1000": Layout(1000, worker("gevent", 1000), "The same with 1,000 greenlets."),
    },
    kinds=("sync",),
    modes=("bulk", "loop1", "loop8"),
    skips={"A/async": PYTHON_ONLY, "B/async": PYTHON_ONLY},
    settings="A prefetch multiplier of 64, as the optimizing guide advises for many short tasks; early "
    "acknowledgement, no task events, gossip, mingle or heartbeats; results kept for 10 minutes "
    "and waited for by publish and subscribe; one result backend for all threads "
    "(`result_backend_thread_safe`); hiredis, unix socket. Bulk is a `group`, which publishes its "
    "tasks one by one.",
    distributions=("celery", "kombu", "redis", "hiredis", "gevent"),
    pace=0.5,
)
