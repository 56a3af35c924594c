"""Fixtures of the tests that run real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_lite.testing import Harness
from tests.integration.harness import PrivateHome
from tests.tools.shared_harness import emptied, shared_harness


@pytest.fixture
def home(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[PrivateHome]:
    """A private home with short protocol times; its processes are ended with the test.

    Settings can be given with ``@pytest.mark.parametrize("home", [{"idle_seconds": 1}], indirect=True)``.
    """
    private = PrivateHome(tmp_path, **getattr(request, "param", {}))
    yield private
    try:
        private.close()
    finally:
        print(private.logs())  # shown by pytest when the test fails


@pytest.fixture(scope="module")
def module_harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """One for the module, whose ``HARNESS_SETTINGS`` it has."""
    with shared_harness(**getattr(request.module, "HARNESS_SETTINGS", {})) as harness:
        yield harness


@pytest.fixture
def harness(module_harness: Harness) -> Harness:
    """A broker, and a worker in this process; nothing that other tests have kept is in it."""
    return emptied(module_harness)
