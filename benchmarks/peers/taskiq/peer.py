"""How Taskiq is installed, started and tuned."""

from harness.declaration import Layout, Peer


def layout(concurrency: int, settings: str) -> Layout:
    command = ("{bin}/taskiq", "worker", "app:broker", "--workers", "1", "--no-parse", "--log-level", "ERROR")
    limits = ("--max-async-tasks", str(concurrency), "--max-threadpool-threads", str(min(concurrency, 100)))
    return Layout(concurrency, ((*command, *limits),), settings)


PEER = Peer(
    name="taskiq",
    title="Taskiq",
    requirements=(
        "taskiq==0.13.0",
        "taskiq-redis==1.2.4",
        "redis==8.1.0",
        "hiredis==3.5.0",
        "uvloop==0.23.0",
    ),
    layouts={
        "noop": layout(
            100,
            "One process (client and worker take about the same CPU; a second cost more), max-async-tasks "
            "100 (the default), no-parse (tasks without type hints need no pydantic), log level ERROR.",
        ),
        "sleep100": layout(100, "As for no-ops; 100 threads for sync tasks."),
        "sleep1000": layout(1000, "max-async-tasks 1000."),
    },
    kinds=("async", "sync"),
    modes=("loop1", "loop8"),
    skips={},
    settings=(
        "RedisStreamBroker (the acknowledging broker of its documentation's first example) and "
        "RedisAsyncResultBackend over the unix socket (up to 1001 connections each), hiredis, uvloop, JSON "
        "messages, results kept 600 s. wait_result has only polling: check_interval 1 ms for one run, 10 ms "
        "when many are awaited in order (default 200 ms). There is no call that enqueues many."
    ),
    distributions=("taskiq", "taskiq-redis", "redis", "hiredis", "uvloop"),
    pace=1.0,
)
