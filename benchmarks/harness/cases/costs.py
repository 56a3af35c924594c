"""E: what a run costs in CPU time by role, what the processes hold, and how long a start takes."""

from __future__ import annotations

import statistics
import subprocess

from harness.cases.throughput import Throughput
from harness.driving import PeerFailed
from harness.machine import Conditions, conditions_between, read_machine
from harness.peer_round import PeerRound
from harness.usage import ROLES

VARIANT = "noop"
IMPORTS = 5
IMPORT_CODE = (
    "import time; started = time.perf_counter(); import adapter; print(time.perf_counter() - started)"
)


def measure_costs(turn: PeerRound, throughputs: list[Throughput]) -> None:
    """Costs of the fastest of these, and of this round's first start."""
    turn.attempt("E", VARIANT, _measure, throughputs)


def _measure(turn: PeerRound, variant: str, throughputs: list[Throughput]) -> None:
    if not throughputs:
        raise PeerFailed("no throughput was measured")
    best = max(throughputs, key=lambda throughput: throughput.runs_per_second)
    cpu = {f"cpu_{role}": best.measured.cpu.get(role, 0.0) / best.count * 1000 for role in ROLES}
    cpu["cpu_total"] = sum(cpu.values())
    note = f"of {best.variant}"
    turn.record("E", variant, cpu, best.count, best.measured.conditions, note)
    session = turn.session("noop")
    memory = {f"rss_{role}": value for role, value in session.peak_memory().items()}
    turn.record("E", variant, memory, 1, best.measured.conditions)
    if session.first_run_seconds is not None:
        turn.record(
            "E", variant, {"first_run_ms": session.first_run_seconds * 1e3}, 1, session.start_conditions
        )
    seconds, conditions = _import_seconds(turn)
    turn.record("E", variant, {"import_ms": seconds * 1e3}, IMPORTS, conditions)


def _import_seconds(turn: PeerRound) -> tuple[float, Conditions]:
    """The median of fresh processes that do what every client does: import the library and the tasks."""
    session = turn.session("noop")
    before = read_machine()
    times: list[float] = []
    for _ in range(IMPORTS):
        done = subprocess.run(
            [str(turn.python), "-c", IMPORT_CODE],
            env=session.environ,
            cwd=session.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode:
            raise PeerFailed(f"import failed: {done.stderr[-300:]}")
        times.append(float(done.stdout.split()[-1]))
    return statistics.median(times), conditions_between(before, read_machine(), sum(times))
