"""Which runs are remembered as submitted here, and which are forgotten."""

from __future__ import annotations

import os

from prefect_lite_broker.expected import Expected


def ids(count: int) -> list[str]:
    return [os.urandom(16).hex() for _ in range(count)]


def test_the_latest_are_remembered_and_most_of_the_older() -> None:
    expected, runs = Expected(exact=10, slots=1 << 12), ids(1_000)
    for run_id in runs:
        expected.add(run_id)
    assert all(run_id in expected for run_id in runs[-10:])
    known = sum(run_id in expected for run_id in runs)
    assert known > 800, "1 in 8 has lost its place to another"
    assert not any(run_id in expected for run_id in ids(1_000))


def test_what_was_discarded_is_forgotten_and_nothing_else() -> None:
    expected, runs = Expected(exact=10, slots=1 << 12), ids(1_000)
    for run_id in runs:
        expected.add(run_id)
    known = {run_id for run_id in runs if run_id in expected}
    for run_id in runs[::2]:
        expected.discard(run_id)
        expected.discard(run_id)
    assert {run_id for run_id in runs if run_id in expected} == known - set(runs[::2])
    for run_id in ids(1_000):
        expected.discard(run_id)
    assert {run_id for run_id in runs if run_id in expected} == known - set(runs[::2])
    expected.clear()
    assert not any(run_id in expected for run_id in runs)


def test_a_run_that_is_added_again_stays() -> None:
    expected, runs = Expected(exact=2, slots=1 << 12), ids(4)
    for run_id in runs:
        expected.add(run_id)
    expected.add(runs[0])
    assert runs[0] in expected
    expected.discard(runs[0])
    assert runs[0] not in expected, "nor is it in the table"
