"""CPU seconds and peak memory of the processes of a session, by role."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

ROLES = ("client", "broker", "worker", "redis")


@dataclass(frozen=True)
class Usage:
    """CPU seconds so far, by role and process; a process that ended is missing."""

    cpu: dict[str, dict[int, float]]

    def since(self, earlier: Usage) -> dict[str, float]:
        """CPU seconds per role between two readings; what started in between counts from its start."""
        return {
            role: sum(seconds - earlier.cpu.get(role, {}).get(pid, 0.0) for pid, seconds in processes.items())
            for role, processes in self.cpu.items()
        }


def read_usage(roles: Mapping[str, Iterable[psutil.Process]]) -> Usage:
    return Usage({role: dict(_cpu_seconds(processes)) for role, processes in roles.items()})


def _cpu_seconds(processes: Iterable[psutil.Process]) -> Iterable[tuple[int, float]]:
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        yield process.pid, times.user + times.system


def peak_memory(processes: Iterable[psutil.Process]) -> float:
    """The sum of the processes' peak resident memory, in MiB; pages they share are counted in each."""
    return sum(_peak_bytes(process) for process in processes) / 2**20


def _peak_bytes(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status")
    try:
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return process.memory_info().rss  # no peak outside Linux
    except (OSError, psutil.Error):
        return 0
