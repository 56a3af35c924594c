"""Transactions outside of runs: nesting, commit modes, hooks, values, records and locks."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_lite.exceptions import ConfigurationError, TransactionError
from prefect_lite.filesystems import LocalFileSystem
from prefect_lite.locking.filesystem import FileSystemLockManager
from prefect_lite.locking.memory import MemoryLockManager
from prefect_lite.results import ResultStore
from prefect_lite.thread_or_loop import in_thread
from prefect_lite.transactions import (
    AsyncTransaction,
    BaseTransaction,
    CommitMode,
    IsolationLevel,
    Transaction,
    TransactionState,
    atransaction,
    get_transaction,
    transaction,
)

SERIALIZABLE = IsolationLevel.SERIALIZABLE


@pytest.fixture
def store(client_home: Path) -> ResultStore:
    """A store of its own, with locks of its own."""
    folder = client_home / "results"
    return ResultStore(
        result_storage=LocalFileSystem(basepath=str(folder)),
        lock_manager=FileSystemLockManager(client_home / "locks"),
    )


@pytest.fixture
def events() -> list[Any]:
    return []


def stage(txn: BaseTransaction, name: str, events: list[Any]) -> None:
    txn.stage(name, [lambda _: events.append(f"undo {name}")], [lambda _: events.append(f"commit {name}")])


def failing(_: BaseTransaction) -> None:
    raise ValueError("hook")


# -- one transaction -------------------------------------------------------------------------------


def test_what_a_transaction_begins_with() -> None:
    with transaction() as txn:
        assert (txn.key, txn.store, txn.children, txn.overwrite) == (None, None, [], False)
        assert (txn.commit_mode, txn.isolation_level) == (CommitMode.LAZY, IsolationLevel.READ_COMMITTED)
        assert txn.write_on_commit
        assert txn.is_active()
        assert txn.get_parent() is None
        assert get_transaction() is txn
        assert BaseTransaction.get_active() is txn
    assert get_transaction() is None
    assert txn.is_committed()


def test_enums_are_text() -> None:
    assert [level.value for level in IsolationLevel] == ["READ_COMMITTED", "SERIALIZABLE"]
    assert [mode.value for mode in CommitMode] == ["EAGER", "LAZY", "OFF"]
    assert CommitMode.EAGER == "EAGER"
    assert str(CommitMode.EAGER) == "CommitMode.EAGER"
    assert [state.value for state in TransactionState] == [
        "PENDING",
        "ACTIVE",
        "STAGED",
        "COMMITTED",
        "ROLLED_BACK",
    ]


def test_options_may_be_given_as_text() -> None:
    with transaction(commit_mode="EAGER", isolation_level="SERIALIZABLE") as txn:  # type: ignore[arg-type]
        assert (txn.commit_mode, txn.isolation_level) == (CommitMode.EAGER, SERIALIZABLE)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"commit_mode": "NOW"}, "commit_mode must be one of 'EAGER', 'LAZY', 'OFF', got 'NOW'"),
        ({"isolation_level": 3}, "isolation_level must be one of 'READ_COMMITTED', 'SERIALIZABLE', got 3"),
        ({"key": 5}, "key of a transaction must be a text or None, got 5"),
        ({"store": 5}, "store of a transaction must be a ResultStore, got 5"),
        ({"overwrite": "x"}, "overwrite must be True or False, got 'x'"),
        ({"write_on_commit": 0}, "write_on_commit must be True or False, got 0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text), transaction(**options):
        pass


def test_hooks_are_called_in_order_and_undone_in_reverse(events: list[Any]) -> None:
    with transaction() as txn:
        stage(txn, "a", events)
        assert txn.is_staged()
        stage(txn, "b", events)
        assert txn.staged_value == "b"
    assert events == ["commit a", "commit b"]
    events.clear()
    with suppress(KeyError), transaction() as txn:
        stage(txn, "a", events)
        stage(txn, "b", events)
        raise KeyError
    assert events == ["undo b", "undo a"]
    assert txn.is_rolled_back()


def test_each_end_happens_once(events: list[Any]) -> None:
    with transaction() as txn:
        stage(txn, "a", events)
        assert txn.commit()
        assert not txn.commit()
        assert not txn.rollback()
        txn.stage("late")
        assert txn.is_committed()
    assert events == ["commit a"]
    with transaction() as txn:
        stage(txn, "b", events)
        assert txn.rollback()
        assert not txn.rollback()
        assert not txn.commit()
    assert events == ["commit a", "undo b"]


def test_what_is_staged_after_a_rollback_has_nothing_of_before(events: list[Any]) -> None:
    with transaction() as txn:
        stage(txn, "a", events)
        txn.rollback()
        stage(txn, "b", events)
    assert events == ["undo a", "commit b"]
    assert txn.is_committed()


def test_any_exception_rolls_back_and_goes_on(events: list[Any]) -> None:
    def interrupted() -> None:
        with transaction() as txn:
            stage(txn, "a", events)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert events == ["undo a"]


def test_mode_off_rolls_back_without_a_commit(events: list[Any]) -> None:
    with transaction(commit_mode=CommitMode.OFF) as txn:
        stage(txn, "a", events)
    assert events == ["undo a"]
    with transaction(commit_mode=CommitMode.OFF) as txn:
        stage(txn, "b", events)
        txn.commit()
    assert events == ["undo a", "commit b"]


def test_a_commit_hook_that_raises_rolls_back(events: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("prefect_lite").propagate = True
    with transaction() as txn:
        stage(txn, "a", events)
        txn.stage("b", None, [failing, lambda _: events.append("never")])
    assert events == ["commit a", "undo a"]
    assert txn.is_rolled_back()
    assert "The commit hook 'failing' of a transaction failed." in caplog.text


def test_a_rollback_hook_that_raises_keeps_no_other_from_running(events: list[Any]) -> None:
    with suppress(KeyError), transaction() as txn:
        stage(txn, "a", events)
        txn.stage("b", [failing])
        with transaction() as child:
            stage(child, "child", events)
        raise KeyError
    assert events == ["undo a", "undo child"]
    assert txn.is_rolled_back()
    with transaction() as txn:
        txn.stage("b", [failing])
        assert not txn.rollback()
        assert txn.is_rolled_back()


def test_ctrl_c_in_a_hook_rolls_back_and_goes_on_to_the_caller(events: list[Any]) -> None:
    def interrupted(_: BaseTransaction) -> None:
        raise KeyboardInterrupt

    txn = Transaction()
    with pytest.raises(KeyboardInterrupt), txn:
        txn.stage("b", [lambda _: events.append("undo b")], [interrupted])
    assert events == ["undo b"]
    assert txn.is_rolled_back()
    assert get_transaction() is None


def test_a_hook_that_exits_the_program_is_a_failing_hook(events: list[Any]) -> None:
    def exits(_: BaseTransaction) -> None:
        raise SystemExit(3)

    with transaction() as txn:
        stage(txn, "a", events)
        txn.stage("b", None, [exits])
    assert events == ["commit a", "undo a"]


def test_a_hook_can_not_end_what_is_ending() -> None:
    seen: list[bool] = []
    with transaction() as txn:
        txn.stage(1, None, [lambda ending: seen.append(ending.commit()), lambda t: seen.append(t.rollback())])
    assert seen == [False, False]
    assert txn.is_committed()


def test_coroutine_functions_are_hooks_too(events: list[Any]) -> None:
    async def hook(txn: BaseTransaction) -> None:
        await asyncio.sleep(0)
        events.append(type(txn).__name__)

    with transaction() as txn:
        txn.stage(1, None, [hook])
    assert events == ["Transaction"]

    async def inside() -> None:
        async with atransaction() as txn:
            txn.stage(1, None, [hook])
        with transaction() as other:
            other.stage(1, None, [hook])

    asyncio.run(inside())
    assert events == ["Transaction", "AsyncTransaction", "Transaction"]


def test_hooks_have_to_be_a_list() -> None:
    with transaction() as txn, pytest.raises(TypeError, match=r"list of functions: \[failing\]"):
        txn.stage(1, failing)  # type: ignore[arg-type]


def test_a_transaction_can_not_be_entered_inside_itself() -> None:
    txn = Transaction()
    with txn:
        with pytest.raises(RuntimeError, match="Context already entered"), txn:
            pass
        assert get_transaction() is txn
    with txn:
        assert txn.is_active()


def test_a_logger_of_ones_own_is_told(caplog: pytest.LogCaptureFixture) -> None:
    mine = logging.getLogger("test_transactions.mine")
    with caplog.at_level(logging.INFO, mine.name), transaction(logger=mine) as txn:
        txn.stage(1, None, [failing])
    told = {(record.name, record.levelname) for record in caplog.records}
    assert told == {(mine.name, "INFO"), (mine.name, "ERROR")}


# -- nesting ---------------------------------------------------------------------------------------


MODES = [None, *CommitMode]


@pytest.mark.parametrize("outer", MODES)
@pytest.mark.parametrize("inner", MODES)
@pytest.mark.parametrize("fails", ["inside", "outside", ""])
def test_commit_modes_of_two(
    outer: CommitMode | None, inner: CommitMode | None, fails: str, events: list[Any]
) -> None:
    """As observed in Prefect 3.8.8."""
    try:
        with transaction(commit_mode=outer) as parent:
            stage(parent, "p", events)
            with transaction(commit_mode=inner) as child:
                stage(child, "c", events)
                if fails == "inside":
                    raise KeyError
            if fails == "outside":
                raise KeyError
    except KeyError:
        events.append("raised")
    eager = (inner or outer) is CommitMode.EAGER
    if fails == "inside":
        expected = ["undo c", "undo p", "raised"]
    elif fails == "outside":
        expected = ["commit c", "undo p", "raised"] if eager else ["undo p", "undo c", "raised"]
    elif outer is CommitMode.OFF:
        expected = ["commit c", "undo p"] if eager else ["undo p", "undo c"]
    else:
        expected = ["commit c", "commit p"]
    assert events == expected
    assert child.is_committed() == ("commit c" in events)
    assert parent.is_committed() == ("commit p" in events)


def test_what_is_not_given_is_taken_from_the_one_around(store: ResultStore) -> None:
    with transaction(commit_mode=CommitMode.EAGER, isolation_level=SERIALIZABLE) as outer:
        with transaction() as inner:
            assert inner.get_parent() is outer
            assert (inner.commit_mode, inner.isolation_level) == (CommitMode.EAGER, SERIALIZABLE)
            assert outer.children == []
        assert outer.children == [inner]


def test_a_deep_family_commits_inside_out_and_undoes_outside_in(events: list[Any]) -> None:
    def family() -> None:
        with transaction() as root:
            stage(root, "root", events)
            for name in ("a", "b"):
                with transaction() as child:
                    stage(child, name, events)
                    with transaction() as grandchild:
                        stage(grandchild, f"{name}{name}", events)
            if failing_now:
                raise KeyError

    failing_now = False
    family()
    assert events == ["commit aa", "commit a", "commit bb", "commit b", "commit root"]
    events.clear()
    failing_now = True
    with pytest.raises(KeyError):
        family()
    assert events == ["undo root", "undo b", "undo bb", "undo a", "undo aa"]


def test_a_child_that_fails_rolls_back_the_family_at_once(events: list[Any]) -> None:
    with transaction() as parent:
        stage(parent, "p", events)
        with transaction() as first:
            stage(first, "first", events)
        with suppress(KeyError), transaction() as second:
            stage(second, "second", events)
            raise KeyError
        assert events == ["undo second", "undo p", "undo first"]
    assert parent.is_rolled_back()
    assert events == ["undo second", "undo p", "undo first"]


def test_a_child_that_is_to_be_done_again_leaves_the_family_alone(events: list[Any]) -> None:
    with transaction() as parent:
        stage(parent, "p", events)
        child = Transaction()
        in_thread(child.entering())
        stage(child, "c", events)
        in_thread(child.leaving(KeyError(), contained=True))
        assert events == ["undo c"]
    assert events == ["undo c", "commit p"]


def test_what_is_done_after_the_family_was_rolled_back_is_undone_too(events: list[Any]) -> None:
    with transaction() as parent:
        parent.rollback()
        with transaction() as child:
            stage(child, "late", events)
        assert events == []
    assert events == ["undo late"]


@pytest.mark.parametrize("around", [False, True])
def test_what_a_rollback_hook_does_is_not_undone(events: list[Any], around: bool) -> None:
    def undo(_: BaseTransaction) -> None:
        with transaction() as txn:
            stage(txn, "cleaning", events)

    with suppress(KeyError), transaction() as parent:
        stage(parent, "p", events)
        with transaction() as child:
            child.stage(1, [undo])
            if not around:
                raise KeyError
        raise KeyError
    assert sorted(events) == ["commit cleaning", "undo p"]


def test_what_is_done_after_the_family_was_committed_is_committed_too(events: list[Any]) -> None:
    with transaction() as parent:
        parent.commit()
        with transaction() as child:
            stage(child, "late", events)
    assert events == ["commit late"]
    assert child.is_committed()


def test_a_child_that_outlives_its_parent_ends_like_it(events: list[Any]) -> None:
    """As a submitted run that nobody waits for; its thread has a copy of the context variables."""
    for raises in (False, True):
        child = Transaction()
        with suppress(KeyError), transaction():
            elsewhere = copy_context()
            elsewhere.run(in_thread, child.entering())
            if raises:
                raise KeyError
        stage(child, f"late {raises}", events)
        elsewhere.run(in_thread, child.leaving(None))
    assert events == ["commit late False", "undo late True"]


def test_a_child_whose_commit_fails_keeps_no_other_from_committing(events: list[Any]) -> None:
    with transaction() as parent:
        stage(parent, "p", events)
        with transaction() as child:
            stage(child, "c", events)
            child.stage("c", None, [failing])
        with transaction() as other:
            stage(other, "o", events)
    assert events == ["commit c", "undo c", "commit o", "commit p"]
    assert (parent.state, child.state) == (TransactionState.COMMITTED, TransactionState.ROLLED_BACK)


def test_kinds_can_be_nested_either_way(events: list[Any]) -> None:
    async def main() -> None:
        async with atransaction() as outer:
            stage(outer, "a", events)
            with transaction() as inner:
                assert inner.get_parent() is outer
                stage(inner, "b", events)
        with transaction() as outer:
            stage(outer, "c", events)
            async with atransaction() as inner:
                stage(inner, "d", events)
        with suppress(KeyError):
            async with atransaction() as outer:
                stage(outer, "e", events)
                with transaction() as inner:
                    stage(inner, "f", events)
                raise KeyError

    asyncio.run(main())
    assert events == ["commit b", "commit a", "commit d", "commit c", "undo e", "undo f"]


def test_the_async_kind_is_for_coroutines() -> None:
    with pytest.raises(NotImplementedError, match="async with"), AsyncTransaction():
        pass

    async def main() -> list[Any]:
        async with AsyncTransaction() as txn:
            return [await txn.read(), await txn.commit(), await txn.rollback(), await txn.begin()]

    assert asyncio.run(main()) == [None, True, False, None]


def test_cancellation_rolls_back_and_waits_for_hooks(events: list[Any]) -> None:
    async def undo(_: BaseTransaction) -> None:
        await asyncio.sleep(0)
        events.append("undone")

    async def main() -> None:
        started = asyncio.Event()

        async def work() -> None:
            async with atransaction() as txn:
                txn.stage(1, [undo])
                started.set()
                await asyncio.Event().wait()

        running = asyncio.create_task(work())
        await started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert events == ["undone"]


def test_threads_have_their_own() -> None:
    seen: list[Any] = []
    with transaction():
        thread = threading.Thread(target=lambda: seen.append(get_transaction()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_coroutines_run_at_the_same_time_join_one_parent() -> None:
    async def one(number: int) -> None:
        async with atransaction() as txn:
            await asyncio.sleep(0)
            assert get_transaction() is txn
            txn.stage(number)

    async def main() -> AsyncTransaction:
        async with atransaction() as parent:
            await asyncio.gather(*(one(number) for number in range(20)))
            assert get_transaction() is parent
        return parent

    parent = asyncio.run(main())
    assert sorted(child.staged_value for child in parent.children) == list(range(20))
    assert all(child.is_committed() for child in parent.children)


def test_a_generator_may_be_closed_elsewhere() -> None:
    """What it had begun counts no more here, though the context variable can't be put back from there."""

    def inside() -> Iterator[int]:
        with transaction():
            yield 1

    steps = inside()
    next(steps)
    thread = threading.Thread(target=steps.close)  # type: ignore[attr-defined]
    thread.start()
    thread.join()
    assert get_transaction() is None
    with transaction() as txn:
        assert txn.get_parent() is None


SHAPES = st.recursive(
    st.just([]), lambda inner: st.lists(st.tuples(st.sampled_from(MODES), st.booleans(), inner), max_size=3)
)


@given(SHAPES)
def test_every_staged_step_ends_exactly_once(shape: list[Any]) -> None:
    """Whatever nests and fails: each is committed or undone, and a failure leaves nothing staged."""
    events: list[tuple[str, int]] = []
    all_of_them: list[BaseTransaction] = []

    def run(steps: list[Any]) -> None:
        for mode, fails, inner in steps:
            number = len(all_of_them)
            try:
                with transaction(commit_mode=mode) as txn:
                    all_of_them.append(txn)
                    txn.stage(
                        None,
                        [lambda _, n=number: events.append(("undo", n))],
                        [lambda _, n=number: events.append(("commit", n))],
                    )
                    run(inner)
                    if fails:
                        raise KeyError
            except KeyError:
                pass

    run(shape)
    assert sorted(number for _, number in events) == list(range(len(all_of_them)))
    for kind, number in events:
        assert all_of_them[number].is_committed() == (kind == "commit")
    assert get_transaction() is None


# -- values ----------------------------------------------------------------------------------------


def test_values_are_found_by_those_inside_as_copies() -> None:
    with transaction() as outer:
        outer.set("list", [1])
        outer.get("list").append(2)
        assert outer.get("list") == [1]
        with transaction(), transaction() as inner:
            assert inner.get("list") == [1]
            outer.set("late", 1)
            assert inner.get("late") == 1
            inner.set("list", [7])
            assert (outer.get("list"), inner.get("list")) == ([1], [7])
            assert inner.get("none", None) is None
    assert inner.get("late") == 1


def test_unknown_values() -> None:
    with transaction() as txn:
        with pytest.raises(ValueError, match="Could not retrieve value for unknown key: x"):
            txn.get("x")
        assert txn.get("x", 5) == 5


# -- records ---------------------------------------------------------------------------------------


def test_a_second_transaction_with_the_key_is_committed_already(store: ResultStore) -> None:
    with transaction(key="k", store=store) as first:
        assert not first.is_committed()
        assert first.read() is None
        first.stage({"v": 1})
        assert not store.exists("k")
    with transaction(key="k", store=store) as second:
        assert second.is_committed()
        record = second.read()
        assert record is not None
        assert record.result == {"v": 1}
        second.stage("ignored", None, [failing])
    assert store.read("k").result == {"v": 1}


def test_an_error_in_a_committed_one_undoes_nothing(store: ResultStore, events: list[Any]) -> None:
    with transaction(key="k", store=store):
        pass
    with suppress(KeyError), transaction(key="k", store=store) as txn:
        stage(txn, "a", events)
        raise KeyError
    assert events == []
    assert txn.is_committed()


def test_overwrite_does_not_look(store: ResultStore) -> None:
    for value in (1, 2):
        with transaction(key="k", store=store, overwrite=True) as txn:
            assert txn.is_active()
            txn.stage(value)
    assert store.read("k").result == 2


def test_write_on_commit_off(store: ResultStore, events: list[Any]) -> None:
    with transaction(key="k", store=store, write_on_commit=False) as txn:
        stage(txn, "a", events)
    assert events == ["commit a"]
    assert txn.is_committed()
    assert not store.exists("k")


def test_hooks_come_before_the_record(store: ResultStore) -> None:
    seen: list[bool] = []
    with transaction(key="k", store=store) as txn:
        txn.stage(1, None, [lambda _: seen.append(store.exists("k"))])
    assert seen == [False]
    assert store.exists("k")


def test_a_record_that_can_not_be_written_rolls_back(
    store: ResultStore, events: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("prefect_lite").propagate = True
    with transaction(key="k", store=store) as txn:
        txn.stage(threading.Lock(), [lambda _: events.append("undo")], [lambda _: events.append("commit")])
    assert events == ["commit", "undo"]
    assert txn.is_rolled_back()
    assert not store.exists("k")
    assert "The result of the transaction 'k' can't be kept, so its rollback hooks are called:" in caplog.text


def test_an_empty_key_is_none(store: ResultStore) -> None:
    with transaction(key="", store=store, isolation_level=SERIALIZABLE) as txn:
        txn.stage(1)
    assert txn.is_committed()
    assert txn.read() is None


def test_a_record_may_be_staged(store: ResultStore) -> None:
    record = store.create_result_record(42, "k")
    with transaction(key="k", store=store) as txn:
        txn.stage(record)
    assert store.read("k").result == 42


def test_nothing_of_a_rolled_back_family_is_kept(store: ResultStore) -> None:
    with suppress(KeyError), transaction(key="outer", store=store):
        with transaction(key="inner", store=store) as inner:
            inner.stage(1)
        with transaction(key="eager", store=store, commit_mode=CommitMode.EAGER) as eager:
            eager.stage(2)
        raise KeyError
    assert [store.exists(key) for key in ("outer", "inner", "eager")] == [False, False, True]


def test_a_key_needs_no_store(client_home: Path) -> None:
    with transaction(key="k") as txn:
        txn.stage(1)
    with transaction(key="k") as txn:
        assert txn.is_committed()

    async def main() -> bool:
        async with atransaction(key="k") as txn:
            return txn.is_committed()

    assert asyncio.run(main())


# -- locks -----------------------------------------------------------------------------------------


def test_serializable_needs_a_lock_manager(client_home: Path) -> None:
    plain = ResultStore(result_storage=LocalFileSystem(basepath=str(client_home / "r")))
    with (
        pytest.raises(ConfigurationError, match="SERIALIZABLE is not supported"),
        transaction(key="k", store=plain, isolation_level=SERIALIZABLE),
    ):
        pass
    assert get_transaction() is None
    with transaction(isolation_level=SERIALIZABLE) as txn:  # without a key there is nothing to lock
        assert txn.is_active()


def test_the_key_is_locked_until_the_end(store: ResultStore) -> None:
    with transaction(key="k", store=store, isolation_level=SERIALIZABLE) as txn:
        assert store.is_locked("k")
        txn.stage(1)
    assert not store.is_locked("k")
    with transaction(key="k", store=store, isolation_level=SERIALIZABLE) as txn:
        assert txn.is_committed()
        assert not store.is_locked("k")  # a record that is there needs no lock
    for end in (Transaction.commit, Transaction.rollback):
        with transaction(key="k", store=store, isolation_level=SERIALIZABLE, overwrite=True) as txn:
            assert store.is_locked("k")
            end(txn)
            assert not store.is_locked("k")
    with (
        pytest.raises(KeyError),
        transaction(key="k", store=store, isolation_level=SERIALIZABLE, overwrite=True),
    ):
        raise KeyError
    assert not store.is_locked("k")


def test_a_lazy_family_keeps_its_locks_and_does_not_wait_for_itself(store: ResultStore) -> None:
    with transaction() as root:
        for value in (1, 2):
            with transaction(key="k", store=store, isolation_level=SERIALIZABLE) as txn:
                assert txn.is_active()
                txn.stage(value)
                with transaction(key="k", store=store, isolation_level=SERIALIZABLE) as inner:
                    inner.stage(value)
            assert store.is_locked("k")
    assert root.is_committed()
    assert not store.is_locked("k")
    assert store.read("k").result == 2


def test_members_of_a_family_take_turns(store: ResultStore) -> None:
    inside = 0
    most = 0

    async def one() -> None:
        nonlocal inside, most
        async with atransaction(key="k", store=store, isolation_level=SERIALIZABLE) as txn:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            inside -= 1
            txn.stage(1)

    async def main() -> None:
        async with atransaction():
            await asyncio.gather(one(), one(), one())

    asyncio.run(main())
    assert most == 1
    assert not store.is_locked("k")


@pytest.mark.parametrize("locks", [lambda _: MemoryLockManager(), FileSystemLockManager])
def test_only_one_of_many_threads_does_the_work(client_home: Path, locks: Callable[[Path], Any]) -> None:
    store = ResultStore(
        result_storage=LocalFileSystem(basepath=str(client_home / "r")), lock_manager=locks(client_home / "l")
    )
    worked: list[int] = []

    def work(number: int) -> None:
        with transaction(key="once", store=store, isolation_level=SERIALIZABLE) as txn:
            if not txn.is_committed():
                worked.append(number)
                txn.stage(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(worked) == 1
    assert store.read("once").result == worked[0]


def test_waiting_for_a_lock_can_be_stopped(store: ResultStore) -> None:
    assert store.acquire_lock("k", "somebody")
    txn = Transaction(key="k", store=store, isolation_level=SERIALIZABLE)
    with pytest.raises(TransactionError, match="stopped while it waited for the lock of the key 'k'"):
        in_thread(txn.entering(lambda: True))
    assert get_transaction() is None
    store.release_lock("k", "somebody")
    with txn:
        assert store.is_locked("k")
    assert not store.is_locked("k")


def test_who_has_lost_the_lock_writes_nothing(store: ResultStore, events: list[Any]) -> None:
    manager = FileSystemLockManager(store.lock_manager.lock_files_directory)  # type: ignore[union-attr]
    with transaction(key="k", store=store, isolation_level=SERIALIZABLE) as txn:
        stage(txn, "a", events)
        (held,) = manager.lock_files_directory.glob("*.lock")
        held.unlink()
        assert manager.acquire_lock("k", "somebody else")
    assert events == ["commit a", "undo a"]
    assert not store.exists("k")
    assert manager.is_lock_holder("k", "somebody else")


def test_reopening_takes_the_lock(store: ResultStore) -> None:
    with transaction(key="k", store=store):
        pass
    txn = Transaction(key="k", store=store, isolation_level=SERIALIZABLE)
    with txn:
        assert txn.is_committed()
        in_thread(txn.reopening())
        assert txn.is_active()
        assert store.is_locked("k")
        txn.stage("anew")
    assert ResultStore(result_storage=store.result_storage).read("k").result == "anew"
    assert not store.is_locked("k")
