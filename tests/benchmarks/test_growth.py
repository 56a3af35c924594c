"""The growth and limits cases, for real, with tiny counts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from harness.cases.growth import AXES, measure_growth, queue_length  # noqa: E402
from harness.cases.growth.process import GrowthError, Started  # noqa: E402
from harness.cases.growth.recorder import Recorder  # noqa: E402
from harness.cases.growth.site import ANSWER_SECONDS, Site  # noqa: E402
from harness.cases.limits import measure_limits  # noqa: E402

Sample = dict[str, Any]
FIELDS = {"round", "peer", "case", "variant", "metric", "value", "unit", "count"} | {
    "steal",
    "other_cpu",
    "load",
    "note",
}
SCALE = 0.01


def metrics_of(samples: list[Sample], variant: str) -> set[str]:
    """What was measured in a variant; every sample of it is whole."""
    found = [sample for sample in samples if sample["variant"] == variant]
    for sample in found:
        assert sample["metric"] != "skipped", sample["note"]
        assert set(sample) == FIELDS
        assert sample["value"] > 0
        assert sample["count"] > 0
        assert "scaled by 0.01" in sample["note"]
    return {sample["metric"] for sample in found}


def test_the_queue_keeps_its_length_while_runs_are_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_length, "SINGLE", ())
    monkeypatch.setattr(queue_length, "PASSES", 2)
    samples: list[Sample] = []
    measure_growth(3, samples.append, SCALE, ["queue"])
    both = {"runs_per_second", "enqueue_per_second", "redis_bytes_per_run"}
    assert metrics_of(samples, "queue 1000") == both
    assert metrics_of(samples, "queue 1000000") == both
    assert {(sample["round"], sample["peer"], sample["case"]) for sample in samples} == {
        (3, "prefect_lite", "F")
    }
    bytes_per_run = [s["value"] for s in samples if s["metric"] == "redis_bytes_per_run"]
    assert all(250 < value < 1500 for value in bytes_per_run)


def test_a_crowd_stays_connected_beside_the_work() -> None:
    with Site() as site:
        site.start_broker()
        site.start_worker()
        client = site.start_client()
        crowd = site.start_crowd(60)
        assert client.call(ANSWER_SECONDS, do="burst", task="sync_noop", count=100)["total_seconds"] > 0
        assert client.call(ANSWER_SECONDS, do="burst_keys", keys=1, count=100)["total_seconds"] > 0
        assert client.call(ANSWER_SECONDS, do="fan_in", count=50)["total_seconds"] > 0
        assert len(client.call(ANSWER_SECONDS, do="round_trips", count=5)["seconds"]) == 5
        assert crowd.process.stdin is not None
        crowd.process.stdin.close()
        assert crowd.read_line(ANSWER_SECONDS) == "lost 0"
        folder = site.folder
    assert not folder.exists()


def test_an_axis_that_fails_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_worker(_site: Site, **_: Any) -> Started:
        raise GrowthError("the worker ended with 1")

    monkeypatch.setattr(Site, "start_worker", no_worker)
    samples: list[Sample] = []
    measure_growth(0, samples.append, SCALE, ["fan-in", "workers"])
    assert {(s["round"], s["metric"], s["variant"]) for s in samples} == {
        (-1, "skipped", variant) for variant in ("fan-in 10000", "workers 1", "workers 2", "workers 4")
    }
    assert all(sample["note"] == "GrowthError: the worker ended with 1" for sample in samples)


def test_a_wrong_answer_of_a_client_says_what_happened() -> None:
    with Site() as site:
        site.start_broker()
        client = site.start_client()
        with pytest.raises(GrowthError, match="client: AttributeError"):
            client.call(ANSWER_SECONDS, do="nonsense")
        client.process.kill()
        with pytest.raises(GrowthError, match="client ended with -9"):
            client.call(ANSWER_SECONDS, do="connect")


def test_every_axis_has_a_name_of_its_own() -> None:
    assert list(AXES) == ["queue", "connections", "keys", "brokers", "workers", "fan-in", "fsync"]


def test_figures_belong_to_the_time_they_were_measured_in() -> None:
    samples: list[Sample] = []
    recorder = Recorder(1, samples.append, peer="prefect_lite", case="F", scale=1.0)
    with recorder.attempt("a"), recorder.measuring() as take:
        take("a", "seconds", 2.0, "s", 10, "a note")
        assert not samples
    assert set(samples[0]) == FIELDS
    assert samples[0]["note"] == "a note"


def test_the_limits_are_measured() -> None:
    samples: list[Sample] = []
    measure_limits(0, samples.append, SCALE)
    assert metrics_of(samples, "") == {
        "echo_p50_ms",
        "batched_frames_per_second",
        "redis_pipelined_per_second",
        "redis_round_trip_p50_ms",
        "bare_runs_per_second",
        "bare_round_trip_p50_ms",
    }
    assert {(sample["peer"], sample["case"]) for sample in samples} == {("limits", "G")}
