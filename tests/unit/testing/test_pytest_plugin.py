"""The fixtures, in a suite of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from prefect_lite import task
from prefect_lite.testing import Harness

PLUGIN = "prefect_lite.testing.pytest_plugin"
INSTALLED = any(point.value == PLUGIN for point in entry_points(group="pytest11"))

pytest_plugins = ["pytester"] if INSTALLED else ["pytester", PLUGIN]

SUITE = """
import os, sys
from datetime import timedelta
import pytest
from prefect_lite import clock, task

@task
def add(a, b):
    return a + b

@task(retries=1, retry_delay_seconds=3600)
def flaky(seen=[]):
    seen.append(1)
    if len(seen) == 1:
        raise ValueError
    return len(seen)

@pytest.mark.parametrize("n", [1, 2])
def test_session_harness(prefect_lite_session_harness, n):
    assert add.delay(1, 2).result(timeout=20) == 3
    future = add.apply_async((3, 4), countdown=3600)
    prefect_lite_session_harness.advance(3601)
    assert future.result(timeout=20) == 7

def test_eager(prefect_lite_eager):
    future = add.delay(1, 2)
    future.wait(timeout=0)
    assert future.done

def test_clock(prefect_lite_clock):
    before = clock.now()
    assert flaky() == 2
    assert prefect_lite_clock.slept == [3600]
    prefect_lite_clock.advance(1)
    assert clock.now() - before == timedelta(seconds=3601)
"""

UNUSED = """
import sys

def test_nothing_is_loaded():
    assert not [name for name in sys.modules if name in ("pydantic", "websockets", "redis", "uvloop")]
    assert "prefect_lite.tasks" not in sys.modules
"""


def run(pytester: pytest.Pytester, *args: str) -> subprocess.CompletedProcess[str]:
    # Other plugins take longer to load than the suite to run.
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-p", PLUGIN, *args],
        cwd=pytester.path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_suite=SUITE)
    result = run(pytester)
    assert "4 passed" in result.stdout, result.stdout + result.stderr


def test_the_harness_of_a_single_test(prefect_lite_harness: Harness) -> None:
    @task
    def add(a: int, b: int) -> int:
        return a + b

    assert add.delay(1, 2).result(timeout=20) == 3
    assert prefect_lite_harness.finished_task_runs == 1


def test_a_suite_that_does_not_use_them_pays_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_suite=UNUSED)
    result = run(pytester)
    assert "1 passed" in result.stdout, result.stdout + result.stderr
    assert "warning" not in result.stdout
