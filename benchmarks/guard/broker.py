"""The broker and the store: SUBMIT, the claim and RUN, FINISH; of 1 and of 50 in a frame."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.guard.deployment import BROKER, Deployment, Performed
from benchmarks.guard.figures import ROUNDS, WARM_UPS, Figures, Samples
from benchmarks.guard.seams import seam

GROUP = "broker"
SIZES = (1, 50)
STORED = 200
"""Runs over which the memory is measured."""
MESSAGES = "prefect_lite.protocol.messages"
KEY = "guard.peer"


def measure(deployment: Deployment) -> Figures:
    """Python of the broker, and commands and bytes of Redis, per frame; memory per run."""
    samples = Samples(GROUP)
    for _ in range(WARM_UPS + ROUNDS):
        for count in SIZES:
            _add(samples, f"submit x{count}", _submit(deployment, count))
            performed, runs = _claim(deployment, count)
            _add(samples, f"claim x{count}", performed)
            _add(samples, f"finish x{count}", _finish(deployment, runs))
    _measure_memory(deployment, samples)
    return samples.figures()


def _add(samples: Samples, operation: str, performed: Performed) -> None:
    samples.add_counts(operation, performed.counts[BROKER])
    samples.add(operation, "Redis commands", performed.redis.commands)
    samples.add(operation, "bytes to Redis", performed.redis.bytes_in)
    samples.add(operation, "bytes from Redis", performed.redis.bytes_out)


def _submit(deployment: Deployment, count: int) -> Performed:
    submit = seam(MESSAGES, "Submit")
    messages = [
        submit(os.urandom(16).hex(), KEY, os.urandom(200), os.urandom(16), watch=True) for _ in range(count)
    ]
    session = deployment.client.session

    def send() -> None:
        for message in messages:
            session.submit(message)

    performed = deployment.perform(lambda: deployment.client.do(send))
    accepted = deployment.client.took(seam(MESSAGES, "Accepted"))
    assert sum(len(each.run_ids) for each in accepted) == count, accepted
    return performed


def _claim(deployment: Deployment, count: int) -> tuple[Performed, list[Any]]:
    worker = deployment.worker
    performed = deployment.perform(lambda: worker.do(lambda: worker.session.set_free(count)))
    runs = worker.took(seam(MESSAGES, "Run"))
    assert len(runs) == count, runs
    return performed, runs


def _finish(deployment: Deployment, runs: list[Any]) -> Performed:
    finish = seam(MESSAGES, "Finish")
    worker = deployment.worker
    result = os.urandom(100)

    def send() -> None:
        for run in runs:
            worker.session.finish(
                finish(run.run_id, run.token, "COMPLETED", "Completed", "", 1, 0.001, result)
            )

    performed = deployment.perform(lambda: worker.do(send))
    done = worker.took(seam(MESSAGES, "Done"))
    assert sum(len(each.answers) for each in done) == len(runs), done
    ended = deployment.client.took(seam(MESSAGES, "RunState"))
    assert len(ended) == len(runs), ended
    return performed


def _measure_memory(deployment: Deployment, samples: Samples) -> None:
    before = deployment.redis.key_bytes()
    _submit(deployment, STORED)
    samples.add("a pending run", "bytes in Redis", (deployment.redis.key_bytes() - before) / STORED)
    _, runs = _claim(deployment, STORED)
    _finish(deployment, runs)
    samples.add("an ended run", "bytes in Redis", (deployment.redis.key_bytes() - before) / STORED)
