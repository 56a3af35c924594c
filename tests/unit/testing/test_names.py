"""What ``prefect_lite.testing`` exports, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import prefect_lite.testing
from prefect_lite.testing import utilities


@pytest.mark.parametrize("name", prefect_lite.testing.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(prefect_lite.testing, name).__name__ == name


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="nothing_like_it"):
        prefect_lite.testing.nothing_like_it  # noqa: B018


def test_pytest_does_not_take_the_harness_for_a_test() -> None:
    assert prefect_lite.testing.test_harness.__test__ is False  # type: ignore[attr-defined]
    assert utilities.__all__ == ["prefect_test_harness"]


def test_importing_the_package_loads_nothing() -> None:
    code = (
        "import sys, prefect_lite.testing, prefect_lite.testing.pytest_plugin\n"
        "print(*{'pydantic', 'websockets', 'asyncio', 'prefect_lite.tasks'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() in ("", "asyncio"), "pytest itself may load asyncio"
