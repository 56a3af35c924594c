"""Where functions run: ``serve(task_runner=...)``."""

from __future__ import annotations

from prefect_lite.exceptions import ConfigurationError


class TaskRunner:
    """Base of the task runners."""


class ThreadPoolTaskRunner(TaskRunner):
    """Functions run in threads of the worker's process, coroutines on its event loop.

    Args:
        max_workers: Runs at a time; None leaves it to the worker's ``limit``.

    Raises:
        ConfigurationError: ``max_workers`` is below 1.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        if max_workers is not None and max_workers < 1:
            raise ConfigurationError(f"max_workers must be at least 1, got {max_workers}.")
        self.max_workers = max_workers

    def duplicate(self) -> ThreadPoolTaskRunner:
        """Another one with the same settings."""
        return type(self)(self.max_workers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ThreadPoolTaskRunner) and other.max_workers == self.max_workers

    def __hash__(self) -> int:
        return hash((ThreadPoolTaskRunner, self.max_workers))

    def __repr__(self) -> str:
        return f"ThreadPoolTaskRunner(max_workers={self.max_workers})"


ConcurrentTaskRunner = ThreadPoolTaskRunner
"""Its name in older programs."""
