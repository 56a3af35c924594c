"""A client that does one thing after the other: fault_client.py PATIENCE hold:NAME | big:NAME | gate:FILE ...

Submits the runs in order, at a gate waits for a file first; then waits at most PATIENCE seconds for all ends.
"""

from __future__ import annotations

import hashlib
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import fault_tasks

from prefect_lite.exceptions import BrokerUnreachable, StoreUnavailable
from prefect_lite.futures import PrefectDistributedFuture
from tests.chaos.recording import record

SUBMIT_SECONDS = 30.0


def submit(kind: str, name: str) -> PrefectDistributedFuture[Any]:
    """Until it is accepted, with the same id."""
    run_id = uuid.uuid4().hex
    value = name if kind == "hold" else shown(hashlib.sha256(name.encode()).digest() * 10_000)
    record("expect", run=run_id, type="COMPLETED", value=value)
    print(f"sending {name} {run_id}", flush=True)
    deadline = time.monotonic() + SUBMIT_SECONDS
    while True:
        try:
            future = getattr(fault_tasks, kind).apply_async((name,), run_id=run_id)
        except (BrokerUnreachable, StoreUnavailable):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            print(f"sent {name} {run_id}", flush=True)
            return future


def shown(value: Any) -> Any:
    """A result as it can be written down."""
    return hashlib.sha256(value).hexdigest()[:16] if isinstance(value, bytes) else value


def main(patience: float, words: list[str]) -> None:
    """Do it."""
    futures: list[PrefectDistributedFuture[Any]] = []
    for word in words:
        kind, _, name = word.partition(":")
        if kind == "gate":
            while not Path(name).exists():
                time.sleep(0.01)
        else:
            futures.append(submit(kind, name))
    deadline = time.monotonic() + patience
    for future in futures:
        run_id = future.task_run_id
        record("wait", run=run_id)
        try:
            value = future.result(timeout=max(0.0, deadline - time.monotonic()))
        except Exception as exc:
            record("outcome", run=run_id, error=type(exc).__name__, text=str(exc)[:500])
        else:
            record("outcome", run=run_id, type="COMPLETED", value=shown(value))
    print("over", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
