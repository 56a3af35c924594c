"""Prefect itself: background tasks by `delay` and `serve`."""

from harness.declaration import Layout, Peer

PEER = Peer(
    name="prefect",
    title="Prefect",
    requirements=("prefect==3.8.8", "fastapi==0.149.0"),
    layouts={
        "noop": Layout(
            10,
            (("{python}", "{dir}/worker.py"),),
            "`serve(...)` in one process, with the default limit.",
        )
    },
    kinds=("async", "sync"),
    modes=("bulk", "loop1", "loop8"),
    skips={
        "C/1000@100": "At a few runs per second 1,000 of them take minutes.",
        "C/10000@1000": "At a few runs per second 10,000 of them take an hour.",
    },
    settings="A server of its own with SQLite, the default for one machine, without the UI and telemetry; "
    "logs at WARNING and not sent to the server; results and arguments in local files, as by "
    "default; Prefect's own waiting for results by events. Bulk is `map(..., deferred=True)`. Too "
    "slow for the usual counts: a measurement is a handful of runs.",
    redis=False,
    distributions=("prefect", "fastapi", "pydantic", "sqlalchemy"),
    environ={
        "PREFECT_HOME": "{scratch}/prefect",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    },
    pace=0.003,
    brokers=(("{python}", "{dir}/server.py"),),
)
