"""The harness: its peers' declarations, the driver and its loops, and a small measurement for real."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import harness.run  # noqa: E402
from harness import driving, venvs  # noqa: E402
from harness.cases import costs, payloads  # noqa: E402
from harness.cases.costs import measure_costs  # noqa: E402
from harness.cases.payloads import measure_payloads  # noqa: E402
from harness.cases.roundtrip import measure_round_trips  # noqa: E402
from harness.cases.sleeps import VARIANTS  # noqa: E402
from harness.cases.throughput import measure_throughput  # noqa: E402
from harness.declaration import KINDS, LAYOUTS, MODES, Peer  # noqa: E402
from harness.driving import Driver, PeerFailed  # noqa: E402
from harness.machine import Reading, conditions_between  # noqa: E402
from harness.peer_round import PeerRound, percentile  # noqa: E402
from harness.peers import FOLDER, SHARED, load_peer, peer_names  # noqa: E402
from harness.plan import Plan  # noqa: E402
from harness.samples import UNITS, Journal, Sample, make_skip  # noqa: E402
from harness.scratch import scratch_root  # noqa: E402
from harness.venvs import NotInstalled  # noqa: E402

SAMPLE_FIELDS = {
    "round", "peer", "case", "variant", "metric", "value", "unit", "count",
    "steal", "other_cpu", "load", "note",
}  # fmt: skip
BREAKS = (("{python}", "-c", "raise SystemExit('a planted fault')"),)

SYNC_CLIENT = """
    from client import SyncClient

    class CLIENT(SyncClient):
        def send(self, task, arg):
            return arg

        def send_bulk(self, task, args):
            return list(args)

        def value(self, handle, timeout):
            return WRONG if handle == 13 else handle
"""
LATE = """
import time
from itertools import count

numbers = count()

def late(handle, timeout):
    if handle >= 7:
        time.sleep(timeout)
        raise TimeoutError
    return handle
"""
ASYNC_CLIENT = SYNC_CLIENT.replace("SyncClient", "AsyncClient").replace(" def ", " async def ")


# ---------------------------------------------------------------------------------------------- declarations


@pytest.mark.parametrize("name", peer_names())
def test_a_declaration_is_complete(name: str) -> None:
    peer = load_peer(name)
    assert peer.title
    assert peer.settings
    assert all("==" in requirement for requirement in peer.requirements)
    assert peer.kinds
    assert set(peer.kinds) <= set(KINDS)
    assert peer.modes
    assert set(peer.modes) <= set(MODES)
    assert "noop" in peer.layouts
    assert set(peer.layouts) <= set(LAYOUTS)
    for layout in peer.layouts.values():
        assert layout.concurrency > 0
        assert layout.workers
        assert layout.settings
    assert (FOLDER / name / "app.py").is_file()
    assert (FOLDER / name / "adapter.py").is_file()


@pytest.mark.parametrize("name", peer_names())
def test_a_layout_that_is_left_out_has_a_reason(name: str) -> None:
    peer = load_peer(name)
    missing = [("C", variant) for variant, (layout, _) in VARIANTS.items() if layout not in peer.layouts]
    assert [case for case in missing if not peer.skip_reason(*case)] == []


def test_a_reason_covers_what_is_below_it() -> None:
    peer = dataclasses.replace(load_peer("prefect_lite"), skips={"A/async": "no", "C": "never"})
    assert peer.skip_reason("A", "async/bulk") == "no"
    assert peer.skip_reason("C", "1000@100") == "never"
    assert peer.skip_reason("A", "sync/bulk") is None
    assert peer.skip_reason("A") is None


# ---------------------------------------------------------------------------------------- the driver's loops


def driver_of(folder: Path, source: str, wrong: str = "handle") -> Driver:
    """A driver whose adapter runs nothing; it answers 13 with ``wrong``."""
    (folder / "adapter.py").write_text(textwrap.dedent(source).replace("WRONG", wrong))

    def spawn(name: str, command: list[str], keep: tuple[int, ...]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, env={"PYTHONPATH": str(SHARED)}, pass_fds=keep, stderr=subprocess.DEVNULL
        )

    return Driver("fake", folder, Path(sys.executable), spawn, lambda: None)


REQUESTS: list[dict[str, Any]] = [
    *({"do": "throughput", "task": "noop", "mode": mode, "count": 10} for mode in MODES),
    {"do": "burst", "task": "nap", "arg": 0.1, "count": 10, "mode": "bulk"},
    {"do": "round_trips", "task": "noop", "count": 5},
    {"do": "payload", "task": "echo", "size": 1001, "count": 9, "inflight": 4},
    {"do": "beside", "task": "noop", "payload_task": "echo", "size": 1000, "count": 3},
    {"do": "enqueue", "task": "noop"},
    {"do": "collect"},
]


@pytest.mark.parametrize("source", [SYNC_CLIENT, ASYNC_CLIENT], ids=["sync", "async"])
def test_the_driver_answers_every_request(tmp_path: Path, source: str) -> None:
    driver = driver_of(tmp_path, source)
    try:
        assert driver.ready()["rss"] > 0
        answers = [driver.ask(request, 20.0) for request in REQUESTS]
    finally:
        driver.stop()
    for answer in answers[:4]:
        assert answer["count"] == 10
        assert 0 < answer["enqueue_seconds"] <= answer["total_seconds"]
    assert len(answers[4]["seconds"]) == 5
    assert len(answers[5]["seconds"]) == 9
    assert len(answers[6]["payload_seconds"]) == 3
    assert answers[8]["ended"] > 0


@pytest.mark.parametrize("source", [SYNC_CLIENT, ASYNC_CLIENT], ids=["sync", "async"])
@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_value_fails_the_measurement(tmp_path: Path, source: str, mode: str) -> None:
    driver = driver_of(tmp_path, source, wrong="12")
    try:
        driver.ready()
        with pytest.raises(PeerFailed, match="gave '12' instead of '13'"):
            driver.ask({"do": "throughput", "task": "noop", "mode": mode, "count": 20}, 20.0)
    finally:
        driver.stop()


@pytest.mark.parametrize("source", [SYNC_CLIENT, ASYNC_CLIENT], ids=["sync", "async"])
def test_a_measurement_that_takes_too_long_says_how_far_it_came(tmp_path: Path, source: str) -> None:
    slow = source.replace("WRONG if handle == 13 else handle", "late(handle, timeout)")
    driver = driver_of(tmp_path, LATE + textwrap.dedent(slow).replace("return arg", "return next(numbers)"))
    try:
        driver.ready()
        with pytest.raises(PeerFailed, match="about 7 of 20 results were there after 0 s"):
            driver.ask({"do": "burst", "task": "nap", "arg": 1, "count": 20}, 0.3)
    finally:
        driver.stop()


def test_a_driver_that_can_not_start_says_why(tmp_path: Path) -> None:
    driver = driver_of(tmp_path, "import no_such_library")
    try:
        with pytest.raises(PeerFailed, match="No module named 'no_such_library'"):
            driver.ready()
    finally:
        driver.stop()


# ------------------------------------------------------------------------------------------------- for real


def small_peer(**changes: Any) -> Peer:
    """prefect_lite with one kind and one way of enqueuing."""
    return dataclasses.replace(
        load_peer("prefect_lite"), kinds=("async",), modes=("bulk",), pace=0.2, **changes
    )


def test_prefect_lite_is_measured_for_real(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "IMPORTS", 1)
    monkeypatch.setattr(payloads, "SIZES", {"1kB": (1_000, 8), "10MB": (1_000_000, 1)})
    samples: list[Sample] = []
    turn = PeerRound(small_peer(), 0, Path(sys.executable), 0.02, samples.append, set())
    try:
        throughputs = measure_throughput(turn)
        measure_round_trips(turn)
        measure_costs(turn, throughputs)
        measure_payloads(turn)
    finally:
        turn.close()
    measured = [sample for sample in samples if sample["metric"] != "skipped"]
    assert all(set(sample) == SAMPLE_FIELDS for sample in measured)
    assert all(sample["unit"] == UNITS[sample["metric"]] for sample in measured)
    values = {(sample["case"], sample["variant"], sample["metric"]): sample["value"] for sample in measured}
    assert values["A", "async/bulk", "runs_per_second"] > 0
    assert values["B", "async", "p50_ms"] <= values["B", "async", "p99_ms"]
    assert values["D", "10MB", "round_trips_per_second"] > 0
    assert values["D", "beside 10MB", "max_ms"] > 0
    for role in ("client", "broker", "worker", "redis"):
        assert values["E", "noop", f"rss_{role}"] > 1
    assert values["E", "noop", "first_run_ms"] > 0
    reasons = {(sample["case"], sample["variant"]) for sample in samples if sample["metric"] == "skipped"}
    assert {("A", "sync"), ("A", "async/loop1"), ("B", "sync")} <= reasons


def test_a_peer_that_fails_is_written_down_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts = {
        name: dataclasses.replace(layout, workers=BREAKS)
        for name, layout in load_peer("prefect_lite").layouts.items()
    }
    broken = small_peer(layouts=layouts)
    monkeypatch.setattr(harness.run, "load_peer", lambda name: dataclasses.replace(broken, title=name))

    def python_of(peer: Peer) -> Path:
        if peer.title == "missing":
            raise NotInstalled("no such distribution")
        return Path(sys.executable)

    monkeypatch.setattr(harness.run, "python_of", python_of)
    monkeypatch.setattr(driving, "STOP_SECONDS", 0.1)  # it waits for a run that no worker takes
    plan = Plan(("missing", "broken"), ("A", "B"), 2, 0.02, tmp_path / "samples.jsonl")
    results = harness.run.run(plan, Console(file=io.StringIO()))
    assert list(results["peers"]) == ["missing", "broken"]
    notes = {(sample["case"], sample["variant"]): sample["note"] for sample in results["samples"]}
    assert notes["", ""] == "not installed: no such distribution"
    assert "a planted fault" in notes["A", "async/bulk"]
    assert "did not start" in notes["B", "async"]
    assert all(sample["metric"] == "skipped" for sample in results["samples"])


# -------------------------------------------------------------------------------------- samples and figures


def test_a_resumed_run_keeps_complete_parts_only(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    journal = Journal(path)
    skip = make_skip("huey", "A", "async", "functions only")
    kept = {"round": 0, "peer": "huey", "case": "A", "metric": "runs_per_second", "value": 1.0}
    growth = {"round": 0, "peer": "prefect_lite", "case": "F", "metric": "runs_per_second", "value": 2.0}
    for sample in (skip, kept, growth):
        journal.write(sample)
    journal.finish(0, "huey")
    journal.finish(0, "growth")
    journal.write({**kept, "round": 1})
    resumed = Journal(path)
    resumed.write(skip)
    assert resumed.samples == [skip, kept, growth]
    assert resumed.is_finished(0, "huey")
    assert not resumed.is_finished(1, "huey")


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    journal = Journal(path)
    skip = make_skip("huey", "A", "async", "functions only")
    journal.write(skip)
    with path.open("a") as file:
        file.write('{"round": 0, "pee')
    Journal(path).finish(0, "huey")
    resumed = Journal(path)
    assert resumed.samples == [skip]
    assert resumed.is_finished(0, "huey")


def test_growth_and_limits_are_measured_in_the_first_round_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[tuple[int, str]] = []

    def note(_run: harness.run.Run, number: int, part: str) -> None:
        parts.append((number, part))

    monkeypatch.setattr(harness.run.Run, "_measure_part", note)
    monkeypatch.setattr(harness.run, "python_of", lambda peer: Path(sys.executable))
    monkeypatch.setattr(harness.run, "versions_of", lambda peer, python: {})
    plan = Plan(("prefect_lite", "huey"), ("A", "F", "G"), 2, 0.02, tmp_path / "samples.jsonl")
    harness.run.run(plan, Console(file=io.StringIO()))
    first = ["limits", "prefect_lite", "huey", "growth"]
    assert parts == [*((0, part) for part in first), (1, "huey"), (1, "prefect_lite")]


# ----------------------------------------------------------------------------------- installation and the end


def test_two_runs_make_one_venv_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = load_peer("huey")
    made: list[Path] = []

    def make(_peer: Peer, folder: Path) -> None:
        assert not folder.exists()
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").touch()
        made.append(folder)
        (folder / "installed.txt").write_text(venvs.stamp_of(peer))

    monkeypatch.setattr(venvs, "FOLDER", tmp_path)
    monkeypatch.setattr(venvs, "make", make)
    with ThreadPoolExecutor(4) as pool:
        pythons = list(pool.map(venvs.python_of, [peer] * 4))
    assert set(pythons) == {tmp_path / "huey" / "bin" / "python"}
    assert len(made) == 1


def test_a_venv_that_can_not_be_made_is_removed_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(_peer: Peer, folder: Path) -> None:
        (folder / "bin").mkdir(parents=True)
        venvs.run_step([sys.executable, "-c", "raise SystemExit('no route to the index')"])

    monkeypatch.setattr(venvs, "FOLDER", tmp_path)
    monkeypatch.setattr(venvs, "make", make)
    with pytest.raises(NotInstalled, match="no route to the index"):
        venvs.python_of(load_peer("huey"))
    assert not (tmp_path / "huey").exists()


def test_nothing_below_the_scratch_root_is_left() -> None:
    with scratch_root() as root:
        folder = tempfile.mkdtemp()
        assert Path(folder).parent == root
        process = subprocess.Popen(["sleep", "60"], cwd=folder)
    process.wait(5)
    assert not psutil.pid_exists(process.pid)
    assert not root.exists()


def test_conditions_are_those_of_the_interval() -> None:
    before, after = Reading(busy=10.0, steal=1.0, total=20.0), Reading(busy=13.0, steal=1.5, total=24.0)
    conditions = conditions_between(before, after, own_cpu_seconds=2.0)
    assert (conditions.steal, conditions.other_cpu) == (12.5, 25.0)


def test_percentiles() -> None:
    values = [float(value) for value in range(1, 101)]
    assert percentile(values, 0.5) == 51.0
    assert percentile(values, 0.99) == 100.0
    assert percentile([3.0], 0.5) == 3.0
