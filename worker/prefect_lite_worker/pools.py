"""What the connection thread asks of whatever executes functions: threads, child processes, an executor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from prefect_lite.protocol.messages import Run
from prefect_lite_worker.desk import Desk
from prefect_lite_worker.leases import ActiveRun
from prefect_lite_worker.registry import AnyTask


class Pool(Protocol):
    """Executes runs and leaves what happens on the desk. The connection thread calls all of it.

    Attributes:
        limit: Runs at a time.
        on_lost: To be called with a run whose executor has ended under it, and a sentence.
        on_useless: To be called with a reason when nothing can be executed any more.
    """

    limit: int
    on_lost: Callable[[Any, str], None]
    on_useless: Callable[[str], None]

    @property
    def run_class(self) -> Callable[[Run, AnyTask, Desk], ActiveRun]:
        """The kind of run it takes."""
        ...

    @property
    def runs_coroutines(self) -> bool:
        """Whether coroutine functions go there too; else the worker's loop has them."""
        ...

    @property
    def patience(self) -> float:
        """What stopped code gets to react, in seconds."""
        ...

    @property
    def strays(self) -> Mapping[int, Any]:
        """What was lost to code that does not let go, by number."""
        ...

    def open(self) -> None:
        """The connection is there to listen."""
        ...

    def submit(self, runs: Iterable[Any]) -> None:
        """Have these runs executed, soon."""
        ...

    def grow(self) -> bool:
        """Called at every tick; returns whether to come again within milliseconds."""
        ...

    def abandon(self, run: ActiveRun) -> str:
        """The run is ended without its code; returns the end of a sentence about what became of that."""
        ...

    def names(self) -> dict[int, str]:
        """The task in each living thread of this process (``threading.get_ident``)."""
        ...

    def stop(self, *, exiting: bool = False) -> None:
        """The worker ends, and with ``exiting`` the process does at once."""
        ...
