"""How Docket is installed, started and tuned."""

from harness.declaration import Layout, Peer

WORKER = ("{python}", "{dir}/worker.py")

PEER = Peer(
    name="docket",
    title="Docket",
    requirements=("pydocket==0.27.0", "redis==8.1.0", "hiredis==3.5.0", "uvloop==0.23.0"),
    layouts={
        "noop": Layout(
            100,
            (WORKER,),
            "One process (client and Valkey fill the other core), concurrency 100 (default 10), "
            "minimum_check_interval 10 ms (default 100 ms: the worker sleeps so long whenever all its places "
            "are taken), up to 1000 messages per read (default).",
        ),
        "sleep100": Layout(100, (WORKER,), "Concurrency 100, minimum_check_interval 10 ms."),
        "sleep1000": Layout(1000, (WORKER,), "Concurrency 1000, minimum_check_interval 10 ms."),
    },
    kinds=("async",),
    modes=("bulk", "loop1", "loop8"),
    skips={},
    settings=(
        "Unix socket, up to 3000 connections (redis-py's limit of 100 is too few), hiredis, uvloop (by a "
        "starter of a few lines; its command has no option), executions kept 15 min (default). Bulk is "
        "add_many in chunks of 1000 (default); results by get_result, which subscribes to the run."
    ),
    distributions=("pydocket", "redis", "hiredis", "uvloop"),
    pace=0.9,
)
