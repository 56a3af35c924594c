"""What the machine is, and what else it did while something was measured."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Conditions:
    """What happened beside a measurement, over its own interval.

    Attributes:
        steal: Percent of all cores' time that the hypervisor gave to others.
        other_cpu: Percent of all cores' time that processes outside the measurement used.
        load: Load average of the last minute.
    """

    steal: float = 0.0
    other_cpu: float = 0.0
    load: float = 0.0


@dataclass(frozen=True)
class Reading:
    """CPU seconds of all cores since the machine started."""

    busy: float
    steal: float
    total: float


def read_machine() -> Reading:
    times: Any = (
        psutil.cpu_times()
    )  # which fields there are depends on the platform; guest time is part of user
    busy = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))
    steal = getattr(times, "steal", 0.0)
    return Reading(busy, steal, busy + steal + times.idle + getattr(times, "iowait", 0.0))


def conditions_between(before: Reading, after: Reading, own_cpu_seconds: float) -> Conditions:
    """The conditions of an interval in which the measured processes used so much CPU themselves."""
    total = max(after.total - before.total, 0.01)
    others = max(after.busy - before.busy - own_cpu_seconds, 0.0)
    return Conditions(
        steal=round(100 * max(after.steal - before.steal, 0.0) / total, 2),
        other_cpu=round(100 * others / total, 2),
        load=round(os.getloadavg()[0], 2),
    )


def describe_machine() -> dict[str, Any]:
    """For the head of the report."""
    return {
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
    }


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
