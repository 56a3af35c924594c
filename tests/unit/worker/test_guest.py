"""A worker inside somebody else's process: ``aserve``, and ``serve`` off the main thread."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from prefect_lite_worker.app import WorkerApp
from scripted_broker import wait_until

from prefect_lite import task
from prefect_lite.exceptions import WorkerStuck

release = threading.Event()


@pytest.fixture(autouse=True)
def _let_go() -> Any:
    release.clear()
    yield
    release.set()


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Exit codes of what would have ended this process."""
    found: list[int] = []
    monkeypatch.setattr("os._exit", found.append)
    return found


@task(key="g.blocked", timeout_seconds=0.1)
def blocked() -> None:
    release.wait(20)


@task(key="g.hangs")
async def hangs() -> None:
    await asyncio.Event().wait()


@task(key="g.shrugs")
async def shrugs() -> str:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return "shrugged"
    return "never"


@task(key="g.cancels_itself")
async def cancels_itself() -> None:
    current = asyncio.current_task()
    assert current is not None
    current.cancel()
    await asyncio.sleep(0)


def test_a_stuck_worker_raises_from_aserve(broker: Any, settings: Any, exits: list[int]) -> None:
    async def main() -> None:
        app = WorkerApp([blocked], settings=settings, max_stray_threads=1)
        broker.push("g.blocked")
        with pytest.raises(WorkerStuck, match="1 threads are stuck in code that does not let go"):
            await app.aserve()
        assert app.exit_code == 75

    asyncio.run(main())
    assert exits == []


def test_a_stuck_worker_raises_from_serve_off_the_main_thread(
    broker: Any, serve: Any, exits: list[int]
) -> None:
    served = serve(blocked, max_stray_threads=1)
    run_id = broker.push("g.blocked")
    assert broker.end(run_id).name == "TimedOut"
    served.wait()
    assert isinstance(served.error, WorkerStuck)
    assert exits == []


def test_the_end_of_the_program_hands_its_coroutines_back(broker: Any, settings: Any) -> None:
    runs: list[str] = []

    async def main() -> None:
        serving = asyncio.create_task(WorkerApp([hangs, shrugs], settings=settings).aserve())
        runs.extend(broker.push(key) for key in ("g.hangs", "g.shrugs"))
        await asyncio.to_thread(wait_until, lambda: all(broker.is_running(run_id) for run_id in runs))
        assert not serving.done()

    asyncio.run(main())
    wait_until(lambda: runs[0] in broker.released)
    assert runs[0] not in broker.finished, "it did nothing wrong"
    assert broker.outcome(runs[1]) == "shrugged"


def test_a_coroutine_that_cancels_itself_has_crashed(broker: Any, serve: Any) -> None:
    serve(cancels_itself)
    finish = broker.end(broker.push("g.cancels_itself"))
    assert (finish.type, finish.message) == ("CRASHED", "cancels_itself raised CancelledError.")
