"""Case F: how the rate and the memory of prefect_lite change as its load grows, one module per axis.

``queue_length`` ``connections`` ``task_keys`` ``brokers`` ``workers`` ``fan_in`` ``durability`` each measure
one axis on deployments of their own (``site``), by asking client processes (``process``,
``../programs/load_client.py``), and hand their figures to a ``recorder``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from harness.samples import Emit

from . import brokers, connections, durability, fan_in, queue_length, task_keys, workers
from .recorder import Recorder

__all__ = ["AXES", "measure_growth"]

AXES: Mapping[str, Callable[[Recorder, float], None]] = MappingProxyType(
    {
        "queue": queue_length.measure,
        "connections": connections.measure,
        "keys": task_keys.measure,
        "brokers": brokers.measure,
        "workers": workers.measure,
        "fan-in": fan_in.measure,
        "fsync": durability.measure,
    }
)
"""By the first word of their variants."""


def measure_growth(
    round: int,
    emit: Emit,
    scale: float = 1.0,
    axes: Sequence[str] = tuple(AXES),
) -> None:
    """Measure the axes one after the other, about six minutes at scale 1.

    Args:
        round: Number of the round, for the samples.
        emit: Takes each sample as soon as it is known; a variant that fails gives a "skipped" one.
        scale: Of the counts; 0.01 ends within seconds.
        axes: Which of ``AXES``, in this order.
    """
    recorder = Recorder(round, emit, peer="prefect_lite", case="F", scale=scale)
    for axis in axes:
        AXES[axis](recorder, scale)
