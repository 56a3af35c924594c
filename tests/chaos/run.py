"""``python -m tests.chaos.run broker|worker|client ...``: a real process that also writes its history.

What it runs is the real entry point; the recording is wrapped around methods of the product before that
(``hooks.py``), and with ``PREFECT_LITE_TEST_FAULT`` so is a planted fault (``faults.py``).
"""

from __future__ import annotations

import os
import runpy
import sys

from tests.chaos import hooks, recording

FAULT_VARIABLE = "PREFECT_LITE_TEST_FAULT"


def prepare(role: str) -> None:
    """Plant the fault that the environment asks for, and record from here on."""
    fault = os.environ.get(FAULT_VARIABLE, "")
    out = recording.start(role)
    out.write("process", role=role, fault=fault, command=sys.argv[1:])
    if fault:
        from tests.chaos.faults import plant

        plant(fault, role)
    if role == "broker":
        hooks.install_broker(out)
        return
    # A worker's task may submit runs, and a client's script may serve.
    hooks.install_client(out)
    hooks.install_worker(out)


def main(role: str, args: list[str]) -> int:
    """Run the entry point of a role with its usual arguments; returns the exit code."""
    prepare(role)
    if role == "broker":
        from prefect_lite_broker.__main__ import main as broker

        return broker(args)
    if role == "worker":
        from prefect_lite_worker.__main__ import main as worker

        worker(args)
        return 0
    sys.argv = args
    runpy.run_path(args[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
