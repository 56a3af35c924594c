"""The options of ``prefect-lite worker``."""

from __future__ import annotations

import argparse

import pytest
from prefect_lite_worker.__main__ import main, memory_size


@pytest.mark.parametrize(
    ("text", "size"), [("12", 12), ("500MB", 500_000_000), ("1GiB", 1 << 30), ("1.5kib", 1536), ("7b", 7)]
)
def test_sizes(text: str, size: int) -> None:
    assert memory_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "1TB", "MB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write 500MB or 1GiB"):
        memory_size(text)


@pytest.mark.parametrize("option", ["--max-tasks-per-child=2", "--max-memory-per-child=1GiB"])
def test_threads_are_not_replaced(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["tests.unit.worker.process_tasks", option])
    assert "are for --task-runner processes" in capsys.readouterr().err


def test_impossible_numbers_are_one_sentence() -> None:
    with pytest.raises(SystemExit, match="max_tasks_per_child must be at least 1"):
        main(["tests.unit.worker.process_tasks:pid", "--task-runner=processes", "--max-tasks-per-child=-1"])
