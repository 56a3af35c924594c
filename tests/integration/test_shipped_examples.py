"""The examples that end by themselves do what their docstrings say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prefect_lite.testing import Harness

EXAMPLES = Path(__file__).parents[2] / "examples"

Execute = Callable[[str], list[str]]


@pytest.fixture
def execute(harness: Harness, tmp_path: Path) -> Execute:
    """Runs an example in an empty directory, with an empty broker of its own; gives what it prints."""

    def run(name: str) -> list[str]:
        command = [sys.executable, str(EXAMPLES / name)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_caching(execute: Execute) -> None:
    first = execute("caching.py")
    assert first == ["computing 3", "computing 4", "9 16", "9", "Cached"]
    assert execute("caching.py") == ["9 16", "9", "Cached"]


def test_transactions(execute: Execute, tmp_path: Path) -> None:
    assert execute("transactions.py") == ["report.txt is removed", "Failed", "False"]
    assert list(tmp_path.iterdir()) == []


def test_assets(execute: Execute) -> None:
    assert execute("assets.py") == [
        "['file:///tables/clean.csv', 'file:///tables/raw.csv']",
        "python ['file:///tables/raw.csv'] {'rows': 3}",
    ]


def test_drawing(execute: Execute) -> None:
    lines = execute("drawing.py")
    assert lines[0] == "digraph {"
    assert '\t"find_files-0" -> "load-1"' in lines
    assert '\t"load-1" -> "total-0"' in lines
