"""Waiting inside a run: a thread that waits can be stopped."""

from __future__ import annotations

import time

import pytest

from prefect_lite import task
from prefect_lite.client.latch import Latch
from prefect_lite.exceptions import TaskRunTimeoutError


def test_a_run_that_waits_can_be_stopped() -> None:
    @task(timeout_seconds=0.1)
    def waits() -> None:
        Latch().wait(5)

    began = time.monotonic()
    with pytest.raises(TaskRunTimeoutError):
        waits()
    assert time.monotonic() - began < 2


def test_waiting_inside_a_run_ends_as_outside() -> None:
    ready, never = Latch(), Latch()
    ready.set()

    @task
    def waits() -> list[bool]:
        return [ready.wait(), ready.wait(0), never.wait(0.01), never.wait(0)]

    assert waits() == waits.fn() == [True, True, False, False]
