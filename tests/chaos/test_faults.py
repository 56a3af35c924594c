"""The checker must fail when a promise is taken out: six scenes, each played with and without its fault."""

from __future__ import annotations

from pathlib import Path

from tests.chaos import scenes
from tests.chaos.scenes import DEADLINE_SECONDS, scene

IMPATIENT = 3.0
"""Seconds a client waits for an end that does not come."""

NO_REFRESH = 600.0
"""Clients read what they watch again every few seconds; here the broker has to do it alone."""


def test_late_outcomes_are_refused(tmp_path: Path) -> None:
    with scene(tmp_path) as healthy:
        report = scenes.a_frozen_worker_comes_back(healthy)
    assert not report.runs, report
    assert report.repeated == 1


def test_checker_fails_without_the_token_check(tmp_path: Path) -> None:
    with scene(tmp_path, "no_token_check") as faulty:
        report = scenes.a_frozen_worker_comes_back(faulty)
    assert report.double_commits == 1, report


def test_runs_of_a_killed_worker_run_elsewhere(tmp_path: Path) -> None:
    with scene(tmp_path) as healthy:
        report = scenes.a_worker_is_killed(healthy)
    assert not report.runs, report
    assert report.reaped == report.repeated == 1


def test_checker_fails_without_the_reaper(tmp_path: Path) -> None:
    with scene(tmp_path, "no_reaper", patience=IMPATIENT) as faulty:
        report = scenes.a_worker_is_killed(faulty)
    assert report.lost == report.unresolved == 1, report


def test_accepted_runs_survive_the_broker(tmp_path: Path) -> None:
    with scene(tmp_path) as healthy:
        report = scenes.redis_is_away_when_a_run_is_submitted(healthy)
    assert not report.runs, report
    assert report.ok == 2


def test_checker_fails_without_the_write_before_the_answer(tmp_path: Path) -> None:
    with scene(tmp_path, "acknowledged_before_written", patience=3 * IMPATIENT) as faulty:
        report = scenes.redis_is_away_when_a_run_is_submitted(faulty)
    assert report.lost == 1, report


def test_a_commit_is_whole_whenever_its_broker_is_killed(tmp_path: Path) -> None:
    with scene(tmp_path) as healthy:
        report = scenes.a_broker_is_killed_amid_a_commit(healthy)
    assert not report.runs, report


def test_checker_fails_without_the_single_script_commit(tmp_path: Path) -> None:
    with scene(tmp_path, "commit_in_two_parts") as faulty:
        report = scenes.a_broker_is_killed_amid_a_commit(faulty)
    assert report.unexpected == 1, report


def test_ends_are_read_after_hints_were_lost(tmp_path: Path) -> None:
    with scene(tmp_path, brokers=2, watch_refresh_seconds=NO_REFRESH) as healthy:
        report = scenes.hints_are_lost_while_a_run_ends(healthy)
    assert not report.runs, report


def test_checker_fails_without_the_reread(tmp_path: Path) -> None:
    settings = {"watch_refresh_seconds": NO_REFRESH}
    with scene(tmp_path, "no_reread", brokers=2, patience=IMPATIENT, **settings) as faulty:
        report = scenes.hints_are_lost_while_a_run_ends(faulty)
    assert report.unresolved == 1, report


def test_a_peer_that_does_not_read_is_cut(tmp_path: Path) -> None:
    with scene(tmp_path, write_deadline_seconds=DEADLINE_SECONDS) as healthy:
        report = scenes.a_peer_stops_reading(healthy)
        assert "did not take a frame within 1 s" in healthy.fleet.logs()
    assert not report.runs, report


def test_checker_fails_without_the_write_deadline(tmp_path: Path) -> None:
    with scene(tmp_path, "no_write_deadline", write_deadline_seconds=DEADLINE_SECONDS) as faulty:
        report = scenes.a_peer_stops_reading(faulty)
    assert report.held_peers == 1, report
