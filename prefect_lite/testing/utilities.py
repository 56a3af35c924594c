"""``prefect_test_harness`` under the name and path that Prefect has it."""

from __future__ import annotations

from typing import Any

from prefect_lite.testing.harness import Harness, test_harness

__all__ = ["prefect_test_harness"]


def prefect_test_harness(server_startup_timeout: float | None = 30, **settings: Any) -> Harness:
    """``test_harness()`` for every task of this process.

    Args:
        server_startup_timeout: For programs written for Prefect: seconds for the broker to start; it has at
            least 30. None: the default.
        **settings: As for ``test_harness``.
    """
    if server_startup_timeout is not None:
        settings.setdefault("connect_timeout_seconds", max(10.0, float(server_startup_timeout)))
    return test_harness(**settings)
