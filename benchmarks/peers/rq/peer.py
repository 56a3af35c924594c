"""RQ on Redis, with workers that do not fork."""

from harness.declaration import Layout, Peer

FUNCTIONS_ONLY = "RQ makes a new event loop for each coroutine, so functions are measured."


def pool(workers: int) -> tuple[tuple[str, ...], ...]:
    options = ("--worker-class", "rq.worker.SimpleWorker", "--quiet", "--num-workers", str(workers))
    return (("{bin}/rq", "worker-pool", "--config", "app", *options),)


PEER = Peer(
    name="rq",
    title="RQ",
    requirements=("rq==3.0.0", "redis==8.1.0", "hiredis==3.5.0"),
    layouts={
        "noop": Layout(2, pool(2), "`rq worker-pool` with a `SimpleWorker` per core."),
        "sleep100": Layout(100, pool(100), "A worker runs one job at a time: 100 processes."),
    },
    kinds=("sync",),
    modes=("bulk", "loop1", "loop8"),
    skips={
        "A/async": FUNCTIONS_ONLY,
        "B/async": FUNCTIONS_ONLY,
        "C/10000@1000": "A worker runs one job at a time: it would take 1,000 processes.",
    },
    settings="`SimpleWorker`, which RQ's notes on performance name as the fast one for trusted jobs of a "
    "few milliseconds: it does not fork for each job. Pickle, results kept for 500 s (both by "
    "default) and waited for with `latest_result(timeout=...)`, which blocks in XREAD; hiredis, "
    "unix socket. Bulk is `enqueue_many`.",
    distributions=("rq", "redis", "hiredis"),
    pace=0.4,
)
