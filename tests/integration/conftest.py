"""Fixtures of the tests that run real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.harness import PrivateHome


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
