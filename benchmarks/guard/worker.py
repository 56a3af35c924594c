"""The worker: from RUN to the acknowledged FINISH, in all its threads, for functions and coroutines."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.guard.deployment import WORKER, Deployment, Performed
from benchmarks.guard.figures import ROUNDS, WARM_UPS, Figures, Samples
from benchmarks.guard.seams import seam

GROUP = "worker"
SIZES = (1, 50)
MESSAGES = "prefect_lite.protocol.messages"


def measure(deployment: Deployment) -> Figures:
    """1 and 50 runs that come at once."""
    samples = Samples(GROUP)
    for _ in range(WARM_UPS + ROUNDS):
        for kind in ("function", "coroutine"):
            task = seam("benchmarks.guard.tasks", kind)
            for count in SIZES:
                performed = _execute(deployment, task.key, count)
                samples.add_counts(f"{kind} x{count}", performed.counts[WORKER])
    return samples.figures()


def _execute(deployment: Deployment, key: str, count: int) -> Performed:
    seal = seam("prefect_lite.envelope", "seal_call")
    keyring = seam("prefect_lite.embedded", "load_or_create_keyring")(deployment.settings)
    messages: list[Any] = []
    for _ in range(count):
        run_id = os.urandom(16).hex()
        body = seal(keyring, deployment.settings.namespace, key, run_id, (1,), {}, {})
        messages.append(seam(MESSAGES, "Submit")(run_id, key, body, b"f" * 16, watch=True))
    client = deployment.client

    def send() -> None:
        for message in messages:
            client.session.submit(message)

    state = seam(MESSAGES, "RunState")
    performed = deployment.perform(lambda: client.do(send), lambda: client.has(state, count))
    ended = client.took(state)
    assert [each.type for each in ended] == ["COMPLETED"] * count, ended
    return performed
