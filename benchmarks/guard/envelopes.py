"""Arguments and results: binding, serializing, signing, verifying."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.guard.counting import Counter
from benchmarks.guard.figures import ROUNDS, WARM_UPS, Figures, Samples
from benchmarks.guard.seams import seam

GROUP = "envelope"
PLACE = ("default", "tasks.add", "0" * 32)
"""Namespace, task key and run id: what is signed besides the content."""
ARGS: tuple[Any, ...] = (1, "two", [3.0, None, {"four": 4}])
NAMED: dict[str, Any] = {"option": "x", "number": 5}


def _operations() -> dict[str, Callable[[], object]]:
    module = "prefect_lite.envelope"
    seal_call, open_call = seam(module, "seal_call"), seam(module, "open_call")
    seal_value, open_outcome = seam(module, "seal_value"), seam(module, "open_outcome")
    ring = seam("prefect_lite.keyring", "Keyring")([("k1", b"k" * 32)])
    check = seam("benchmarks.guard.tasks", "held.binder.check")
    call, value = seal_call(ring, *PLACE, ARGS, NAMED, {}), seal_value(ring, *PLACE, list(ARGS))
    return {
        "bind by position": lambda: check((1,), {}),
        "bind by name": lambda: check((), {"x": 1}),
        "seal a call": lambda: seal_call(ring, *PLACE, ARGS, NAMED, {}),
        "open a call": lambda: open_call(ring, *PLACE, call),
        "seal a value": lambda: seal_value(ring, *PLACE, list(ARGS)),
        "open a value": lambda: open_outcome(ring, *PLACE, value),
    }


def measure(counter: Counter) -> Figures:
    """Each operation once."""
    samples = Samples(GROUP)
    operations = _operations()
    for _ in range(WARM_UPS + ROUNDS):
        for name, operation in operations.items():
            samples.add_counts(name, counter.of(operation))
    return samples.figures()
