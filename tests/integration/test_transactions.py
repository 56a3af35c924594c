"""Transactions of tasks: called, submitted, and on real workers."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from prefect_lite import flow, task
from prefect_lite.cache_policies import INPUTS
from prefect_lite.results import ResultStore
from prefect_lite.testing import Harness
from prefect_lite.transactions import (
    AsyncTransaction,
    CommitMode,
    IsolationLevel,
    Transaction,
    atransaction,
    get_transaction,
    transaction,
)
from tests.integration.harness import PATIENT_TIMES, PrivateHome, wait_until

TASKS = """
    import os, pathlib, time
    from prefect_lite import task
    from prefect_lite.transactions import get_transaction, transaction

    def note(what):
        with open("notes", "a") as notes:
            notes.write(what + "\\n")

    def committed(txn):
        note(f"commit {txn.get('name')}")

    async def undone(txn):
        note(f"undo {txn.get('name')}")

    @task(on_commit=[committed], on_rollback=[undone])
    def step(name, fails=False):
        get_transaction().set("name", name)
        note(f"do {name}")
        if fails:
            raise ValueError(name)

    @task
    def both(fails):
        with transaction():
            step("one")
            step("two", fails)

    @task
    def slow():
        with transaction(key="marker", isolation_level="SERIALIZABLE") as txn:
            note(f"found {txn.is_committed()}")
            if not txn.is_committed():
                while not pathlib.Path("go").exists():
                    time.sleep(0.01)
                txn.stage("done")

    if __name__ == "__main__":
        from prefect_lite.task_worker import serve
        serve(step, both, slow, limit=2)
"""


@pytest.fixture
def events() -> list[str]:
    return []


@pytest.fixture
def step(events: list[str]) -> Any:
    """A task whose body and hooks are noted."""

    @task(key="transactions.step")
    def step(name: str, fails: bool = False) -> str:
        get_transaction().set("name", name)  # type: ignore[union-attr]
        events.append(f"do {name}")
        if fails:
            raise ValueError(name)
        return name

    step.on_commit(lambda txn: events.append(f"commit {txn.get('name')}"))
    step.on_rollback(lambda txn: events.append(f"undo {txn.get('name')}"))
    return step


# -- called and submitted --------------------------------------------------------------------------


def test_a_task_alone_commits_when_it_ends(harness: Harness, step: Any, events: list[str]) -> None:
    step("a")
    assert events == ["do a", "commit a"]
    step("b", True, return_state=True)
    assert events[2:] == ["do b"]  # what has not ended well has staged nothing


def test_tasks_inside_are_committed_or_undone_together(
    harness: Harness, step: Any, events: list[str]
) -> None:
    with transaction() as txn:
        step("a")
        step("b")
        assert events == ["do a", "do b"]
        assert [child.is_staged() for child in txn.children] == [True, True]
    assert events == ["do a", "do b", "commit a", "commit b"]
    events.clear()
    with suppress(ValueError), transaction():
        step("a")
        step("b", True)
    assert events == ["do a", "do b", "undo a"]


def test_a_task_that_is_tried_again_undoes_nothing_around_it(harness: Harness, events: list[str]) -> None:
    @task(retries=1)
    def tried() -> None:
        events.append("try")
        if len(events) == 1:
            raise ValueError

    tried.on_commit(lambda _: events.append("commit"))
    with transaction() as txn:
        txn.stage(None, [lambda _: events.append("undo all")])
        tried()
    assert events == ["try", "try", "commit"]
    assert txn.is_committed()


def test_submitted_tasks_take_part(harness: Harness, step: Any, events: list[str]) -> None:
    @flow
    def around(fails: bool) -> None:
        with transaction():
            for future in step.map(["a", "b"]):
                future.result()
            if fails:
                raise KeyError

    around(False)
    assert sorted(events) == ["commit a", "commit b", "do a", "do b"]
    events.clear()
    around(True, return_state=True)
    assert sorted(events) == ["do a", "do b", "undo a", "undo b"]


def test_coroutine_tasks_take_part(harness: Harness, events: list[str]) -> None:
    @task
    async def step(name: str) -> None:
        assert isinstance(get_transaction(), AsyncTransaction)
        await asyncio.sleep(0)

    @step.on_commit
    async def committed(txn: Any) -> None:
        await asyncio.sleep(0)
        events.append(type(txn).__name__)

    async def main() -> None:
        async with atransaction() as txn:
            await asyncio.gather(step("a"), step("b"))
            assert len(txn.children) == 2

    asyncio.run(main())
    assert events == ["AsyncTransaction"] * 2


def test_every_task_run_has_a_transaction(harness: Harness, events: list[str]) -> None:
    @task
    def plain() -> tuple[bool, bool]:
        txn = get_transaction()
        assert isinstance(txn, Transaction)
        txn.stage(None, None, [lambda _: events.append("commit")])
        with transaction() as inner:
            return txn is get_transaction(), inner.get_parent() is txn

    assert plain() == (False, True)
    assert events == ["commit"]
    assert get_transaction() is None


def test_a_task_can_be_a_hook(harness: Harness, events: list[str]) -> None:
    @task
    async def told(txn: Any) -> None:
        events.append(txn.get("what"))

    with transaction() as txn:
        txn.set("what", "it")
        txn.stage(None, None, [told])
    assert events == ["it"]


def test_records_wait_for_the_commit(harness: Harness) -> None:
    @task(cache_policy=INPUTS)
    def kept(x: int) -> int:
        return x

    with suppress(KeyError), transaction():
        kept(1)
        raise KeyError
    assert kept(1, return_state=True).name == "Completed"
    assert kept(1, return_state=True).name == "Cached"
    with transaction(commit_mode=CommitMode.EAGER):
        kept(2)
        assert kept(2, return_state=True).name == "Cached"


def test_a_serializable_task_twice_in_a_transaction(harness: Harness) -> None:
    @task(cache_policy=INPUTS.configure(isolation_level=IsolationLevel.SERIALIZABLE))
    def single(x: int) -> int:
        return x

    with transaction():
        assert [single(1), single(1)] == [1, 1]  # neither waits for the other
    assert single(1, return_state=True).name == "Cached"


# -- on workers ------------------------------------------------------------------------------------


def test_hooks_run_on_the_worker(harness: Harness, step: Any, events: list[str]) -> None:
    assert step.delay("a").result(timeout=30) == "a"
    assert events == ["do a", "commit a"]


def test_transactions_inside_a_workers_task(harness: Harness, step: Any, events: list[str]) -> None:
    @task(key="transactions.both")
    def both(fails: bool) -> None:
        with transaction():
            step("one")
            step("two", fails)

    both.delay(False).result(timeout=30)
    assert events == ["do one", "do two", "commit one", "commit two"]
    events.clear()
    failed = both.delay(True)
    failed.wait(timeout=30)
    assert failed.state.is_failed()
    assert events == ["do one", "do two", "undo one"]


def test_the_failure_of_a_commit_hook_does_not_fail_the_run(harness: Harness, events: list[str]) -> None:
    def failing(_: Any) -> None:
        raise ValueError("hook")

    @task(key="transactions.hook", on_commit=[failing], on_rollback=[lambda _: events.append("undo")])
    def step() -> int:
        return 3

    assert step.delay().result(timeout=30) == 3
    assert events == ["undo"]


def test_records_of_workers_are_in_redis(harness: Harness) -> None:
    from prefect_lite.broker_storage import BrokerStorage

    @task(key="transactions.marker")
    def marked() -> bool:
        with transaction(key="marker") as txn:
            found = txn.is_committed()
            txn.stage("done")
            return found

    assert [marked.delay().result(timeout=30) for _ in range(2)] == [False, True]
    assert ResultStore(result_storage=BrokerStorage()).read("marker").result == "done"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[PrivateHome]:
    made = PrivateHome(tmp_path, lock_seconds=1.0, **PATIENT_TIMES)
    made.write("steps.py", TASKS)
    yield made
    print(made.logs())
    made.close()


def notes(home: PrivateHome) -> list[str]:
    file = home.project / "notes"
    return file.read_text().splitlines() if file.exists() else []


def test_in_processes_of_their_own(home: PrivateHome) -> None:
    worker = home.start("worker", "steps.py")
    home.python("from steps import both; both.delay(False).result(timeout=30)")
    home.python("from steps import both; both.delay(True).wait(timeout=30)")
    assert notes(home) == ["do one", "do two", "commit one", "commit two", "do one", "do two", "undo one"]
    worker.signal(signal.SIGTERM)
    worker.wait()


def test_a_worker_that_is_killed_with_the_lock_keeps_nobody_waiting(home: PrivateHome) -> None:
    first = home.start("first", "steps.py")
    home.python("from steps import slow; slow.delay()")
    wait_until(lambda: notes(home) == ["found False"], 30, "the first")
    second = home.start("second", "steps.py")
    second.wait_for("slow")
    first.kill()
    (home.project / "go").write_text("")
    home.python("from steps import slow; slow.delay().result(timeout=60)")
    wait_until(lambda: len(notes(home)) == 3, 30, "both runs")
    assert sorted(notes(home)[1:]) == ["found False", "found True"]
    second.signal(signal.SIGTERM)
    second.wait()
