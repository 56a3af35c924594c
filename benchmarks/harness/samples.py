"""The one format of everything measured: flat samples, written as they come."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.machine import Conditions

Sample = dict[str, Any]
Emit = Callable[[Sample], None]

UNITS = {
    "runs_per_second": "1/s",
    "enqueue_per_second": "1/s",
    "round_trips_per_second": "1/s",
    "seconds": "s",
    "p50_ms": "ms",
    "p95_ms": "ms",
    "p99_ms": "ms",
    "max_ms": "ms",
    "cpu_client": "s/1000 runs",
    "cpu_broker": "s/1000 runs",
    "cpu_worker": "s/1000 runs",
    "cpu_redis": "s/1000 runs",
    "cpu_total": "s/1000 runs",
    "rss_client": "MiB",
    "rss_broker": "MiB",
    "rss_worker": "MiB",
    "rss_redis": "MiB",
    "import_ms": "ms",
    "first_run_ms": "ms",
}


def make_sample(
    round_number: int,
    peer: str,
    case: str,
    variant: str,
    metric: str,
    value: float,
    *,
    count: int,
    conditions: Conditions,
    note: str = "",
) -> Sample:
    """One value of one metric, in its unit."""
    return {
        "round": round_number,
        "peer": peer,
        "case": case,
        "variant": variant,
        "metric": metric,
        "value": round(value, 6),
        "unit": UNITS[metric],
        "count": count,
        "steal": conditions.steal,
        "other_cpu": conditions.other_cpu,
        "load": conditions.load,
        "note": note,
    }


def make_skip(peer: str, case: str, variant: str, reason: str) -> Sample:
    """What was not measured, and why."""
    return {"round": -1, "peer": peer, "case": case, "variant": variant, "metric": "skipped", "note": reason}


class Journal:
    """Samples in a file of JSON lines, one line each, so that an interrupted run loses nothing.

    Args:
        path: Appended to; what it holds already is taken over.

    Attributes:
        samples: All of them, in order.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        text = path.read_text() if path.is_file() else ""
        if text and not text.endswith("\n"):  # an interrupted write, which the next one would continue
            path.write_text(text := text[: text.rfind("\n") + 1])
        lines = text.splitlines()
        entries: list[Sample] = [json.loads(line) for line in lines]
        self.samples = [entry for entry in entries if entry["metric"] != "finished"]
        self._finished = {
            (entry["round"], entry["peer"]) for entry in entries if entry["metric"] == "finished"
        }
        self._forget_unfinished()

    def write(self, sample: Sample) -> None:
        if sample["round"] < 0 and sample in self.samples:
            return  # the same skip of an earlier round or of the run that is resumed
        self.samples.append(sample)
        self._append(sample)

    def finish(self, round_number: int, peer: str) -> None:
        """Say that this peer's part of this round is complete; a resumed run leaves it out."""
        self._finished.add((round_number, peer))
        self._append({"metric": "finished", "round": round_number, "peer": peer})

    def is_finished(self, round_number: int, peer: str) -> bool:
        return (round_number, peer) in self._finished

    def _append(self, entry: Sample) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def _forget_unfinished(self) -> None:
        """A part that was interrupted is measured anew as a whole, so its first half must not count twice."""
        self.samples = [
            sample
            for sample in self.samples
            if sample["round"] < 0 or (sample["round"], self._owner(sample)) in self._finished
        ]

    @staticmethod
    def _owner(sample: Sample) -> str:
        owners: dict[str, str] = {"F": "growth", "G": "limits"}
        return owners.get(str(sample["case"]), str(sample["peer"]))
