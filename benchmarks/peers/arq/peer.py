"""How arq is installed, started and tuned."""

from harness.declaration import Layout, Peer

WORKER = ("{bin}/arq", "app.WorkerSettings", "--custom-log-dict", "app.LOGGING")

PEER = Peer(
    name="arq",
    title="arq",
    requirements=("arq==0.28.0", "redis==5.3.1", "hiredis==3.5.0", "uvloop==0.23.0"),
    layouts={
        "noop": Layout(
            100,
            (WORKER,),
            "One process (two race for the same jobs with WATCH: nearly twice the worker CPU per run), "
            "max_jobs 100 (default 10), poll_delay 1 ms (default 500 ms; idle it costs a seventh of a core), "
            "log_results off, logs at WARNING.",
        ),
        "sleep100": Layout(100, (WORKER,), "max_jobs 100, else as for no-ops."),
        "sleep1000": Layout(1000, (WORKER,), "max_jobs 1000, else as for no-ops."),
    },
    kinds=("async",),
    modes=("loop1", "loop8"),
    skips={},
    settings=(
        "Unix socket, hiredis, pickle (the default), uvloop by its event loop policy, results kept 600 s. "
        "Job.result has only polling: poll_delay 1 ms for one run, 10 ms when many are awaited in order "
        "(default 500 ms). There is no call that enqueues many."
    ),
    distributions=("arq", "redis", "hiredis", "uvloop"),
    pace=1.0,
)
