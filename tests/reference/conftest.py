"""Executing examples, and a broker and workers for those that need them."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from prefect_lite import Task, clock
from prefect_lite.client.runtime import close_runtime, get_runtime
from prefect_lite.settings import get_settings
from prefect_lite.waiting import close_callbacks
from tests.integration.harness import PATIENT_TIMES, PrivateHome
from tests.reference.sections import IMPORTS, before, code, execute, module_name

CONNECT_SECONDS = 10.0
WORKER = """
    from prefect_lite import serve
    import reference_apply_async as apply_async, reference_delay as delay

    serve(apply_async.my_task, apply_async.task_1, apply_async.task_2, delay.my_task)
"""


class Program:
    """The module that the examples of a section are executed in, one after the other."""

    def __init__(self, number: int) -> None:
        self.module = ModuleType(module_name(number))
        exec(IMPORTS, self.module.__dict__)

    def __getattr__(self, name: str) -> Any:
        return self.module.__dict__[name]

    def replace(self, name: str, value: object) -> None:
        """Give a name of the program another value."""
        self.module.__dict__[name] = value


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Program]:
    """Execute an example, after those that define what it uses; returns the program."""

    def run_example(number: int) -> Program:
        program = Program(number)
        monkeypatch.setitem(sys.modules, module_name(number), program.module)
        for each in [*before(number), number]:
            assert execute(each, program.module) is None
        return program

    return run_example


@pytest.fixture
def sleeps() -> Iterator[list[float]]:
    """Retry delays: written down, not waited for."""
    slept: list[float] = []

    class Sleepless(clock.Clock):
        def sleep(self, seconds: float) -> None:
            slept.append(seconds)

        async def asleep(self, seconds: float) -> None:
            slept.append(seconds)

    usual = clock.replace(Sleepless())
    yield slept
    clock.replace(usual)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What ``randint`` gives from now on, in this order."""
    numbers: list[int] = []
    monkeypatch.setattr(random, "randint", lambda low, high: numbers.pop(0))
    return numbers


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The futures of all runs sent to a worker, also of those that the example forgets."""
    futures: list[Any] = []

    def remembering(send: Callable[..., Any]) -> Callable[..., Any]:
        def send_and_remember(*args: Any, **kwargs: Any) -> Any:
            futures.append(send(*args, **kwargs))
            return futures[-1]

        return send_and_remember

    for name in ("delay", "apply_async"):
        monkeypatch.setattr(Task, name, remembering(getattr(Task, name)))
    return futures


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateHome]:
    """A real broker and two worker processes, and this process's client connected to them.

    One worker serves the tasks of ``apply_async`` and ``delay``; the other is the example of ``serve``.
    """
    home = PrivateHome(tmp_path_factory.mktemp("reference"), **PATIENT_TIMES)
    for last in (11, 13):
        home.write(f"{module_name(last)}.py", IMPORTS + "".join(map(code, [*before(last), last])))
    home.write("worker.py", WORKER)
    home.write(f"{module_name(24)}.py", IMPORTS + code(24))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in home.env.items():
            if name.startswith("PREFECT_LITE_"):
                patch.setenv(name, value)
        get_settings.cache_clear()  # type: ignore[attr-defined]
        try:
            workers = [home.start("worker", "worker.py"), home.start("serve", f"{module_name(24)}.py")]
            for worker in workers:
                worker.wait_for("Connected")
            get_runtime().ask("stats").wait(CONNECT_SECONDS)  # what it opens is not a test's
            yield home
        finally:
            close_runtime()
            close_callbacks()
            home.close()
    get_settings.cache_clear()  # type: ignore[attr-defined]
