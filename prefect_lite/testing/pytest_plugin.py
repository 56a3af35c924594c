"""Fixtures for pytest, found by its entry point: suites of programs that use tasks need no set-up.

Imports nothing of the package before a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from prefect_lite.testing import FakeClock, Harness


@pytest.fixture
def prefect_lite_harness() -> Generator[Harness]:
    """A private broker and worker for this test; serves every task. See ``prefect_lite.testing``."""
    from prefect_lite.testing import test_harness

    with test_harness() as harness:
        yield harness


@pytest.fixture(scope="session")
def prefect_lite_session_harness() -> Generator[Harness]:
    """One broker and worker for all tests of this process (under pytest-xdist: of each worker)."""
    from prefect_lite.testing import test_harness

    with test_harness() as harness:
        yield harness


@pytest.fixture
def prefect_lite_eager() -> Generator[None]:
    """Background runs of this test execute at once, in the caller, without a broker."""
    from prefect_lite.testing import eager

    with eager():
        yield


@pytest.fixture
def prefect_lite_clock() -> Generator[FakeClock]:
    """A clock that stands still: retry delays of direct runs take no time. ``advance(seconds)`` moves it."""
    from prefect_lite.testing import frozen_clock

    with frozen_clock() as clock:
        yield clock
