"""Transactions: several steps that are committed together, or undone together.

::

    with transaction():
        write_file("a")  # a task with an on_rollback hook
        write_file("b")
        raise ValueError  # the files of both are removed

A transaction has a parent, the one that is active where it begins. Everything that waits is a program for
threads and event loops alike (``thread_or_loop``); the classes differ in how they run it.

::

    PENDING ─ enter ─▶ ACTIVE ─ stage ─▶ STAGED ─ commit ─▶ COMMITTED
                 │        └───────────────┴─ error · rollback · commit fails ─▶ ROLLED_BACK
                 └─ there is a record of the key ─▶ COMMITTED
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeAlias

from prefect_lite.context import current_context
from prefect_lite.logging import get_run_logger
from prefect_lite.thread_or_loop import in_thread, on_loop
from prefect_lite.transaction_core import BaseTransaction, active_here
from prefect_lite.transaction_states import CommitMode, IsolationLevel, TransactionState

if TYPE_CHECKING:
    from prefect_lite.result_records import ResultRecord
    from prefect_lite.results import ResultStore

__all__ = [
    "AsyncTransaction",
    "BaseTransaction",
    "CommitMode",
    "IsolationLevel",
    "Transaction",
    "TransactionState",
    "atransaction",
    "get_transaction",
    "transaction",
]

Logger: TypeAlias = "logging.Logger | logging.LoggerAdapter[Any]"


class Transaction(BaseTransaction):
    """A transaction for threads: ``with Transaction() as txn``; usually made by ``transaction()``."""

    def __enter__(self) -> Self:
        in_thread(self.entering())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        in_thread(self.leaving(exc))

    def begin(self) -> None:
        """Take the key's lock if the isolation level asks for it, and look whether there is a record."""
        in_thread(self.beginning())

    def read(self) -> ResultRecord[Any] | None:
        """The record that is kept under the key.

        Returns:
            None when there is none, or the transaction has no key.
        """
        return in_thread(self.reading())

    def reset(self) -> None:
        """Leave the transaction: its parent is active again, and decides about what is staged."""
        in_thread(self.resetting())

    def commit(self) -> bool:
        """Commit what is staged, with the transactions inside, in order: hooks first, then the record.

        Returns:
            False when it has ended already, or could not be committed and was rolled back.
        """
        return in_thread(self.committing())

    def rollback(self) -> bool:
        """Undo: call the rollback hooks, last staged first, then those of the transactions inside.

        Returns:
            False when it has ended already, or a hook failed.
        """
        return in_thread(self.rolling_back())

    def run_hook(self, hook: Callable[..., Any], hook_type: str) -> None:
        """Call a hook with this transaction; what it raises is logged and raised."""
        in_thread(self.running_hook(hook, hook_type))


class AsyncTransaction(BaseTransaction):
    """A transaction for coroutines: ``async with AsyncTransaction() as txn``; see ``Transaction``."""

    async def __aenter__(self) -> Self:
        await on_loop(self.entering())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await on_loop(self.leaving(exc))

    def __enter__(self) -> NoReturn:
        raise NotImplementedError("AsyncTransaction is for coroutines: use `async with` in place of `with`.")

    def __exit__(self, *exc_info: object) -> NoReturn:
        raise NotImplementedError("AsyncTransaction is for coroutines: use `async with` in place of `with`.")

    async def begin(self) -> None:
        """As ``Transaction.begin``."""
        await on_loop(self.beginning())

    async def read(self) -> ResultRecord[Any] | None:
        """As ``Transaction.read``."""
        return await on_loop(self.reading())

    async def reset(self) -> None:
        """As ``Transaction.reset``."""
        await on_loop(self.resetting())

    async def commit(self) -> bool:
        """As ``Transaction.commit``."""
        return await on_loop(self.committing())

    async def rollback(self) -> bool:
        """As ``Transaction.rollback``."""
        return await on_loop(self.rolling_back())

    async def run_hook(self, hook: Callable[..., Any], hook_type: str) -> None:
        """As ``Transaction.run_hook``."""
        await on_loop(self.running_hook(hook, hook_type))


@contextmanager
def transaction(
    key: str | None = None,
    store: ResultStore | None = None,
    commit_mode: CommitMode | None = None,
    isolation_level: IsolationLevel | None = None,
    overwrite: bool = False,
    write_on_commit: bool = True,
    logger: Logger | None = None,
) -> Generator[Transaction]:
    """Run a block as a transaction.

    Args:
        key: Under which its record is kept; a later one with the same key finds itself committed. None: no
            record.
        store: Where the record goes; None: where results of the current run go.
        commit_mode: When to commit; None: that of the transaction around it, else ``LAZY``.
        isolation_level: None: that of the transaction around it, else ``READ_COMMITTED``.
        overwrite: Don't look for a record.
        write_on_commit: Write the record.
        logger: Told of hooks and of what goes wrong; None: the run's logger.

    Raises:
        ConfigurationError: ``SERIALIZABLE`` without a lock manager, or a value that makes no sense.
    """
    with Transaction(
        key=key,
        store=store,
        commit_mode=commit_mode,
        isolation_level=isolation_level,
        overwrite=overwrite,
        write_on_commit=write_on_commit,
        logger=logger if logger is not None else _logger_here(),
    ) as begun:
        yield begun


@asynccontextmanager
async def atransaction(
    key: str | None = None,
    store: ResultStore | None = None,
    commit_mode: CommitMode | None = None,
    isolation_level: IsolationLevel | None = None,
    overwrite: bool = False,
    write_on_commit: bool = True,
    logger: Logger | None = None,
) -> AsyncGenerator[AsyncTransaction]:
    """``transaction`` for coroutines: ``async with atransaction() as txn``."""
    async with AsyncTransaction(
        key=key,
        store=store,
        commit_mode=commit_mode,
        isolation_level=isolation_level,
        overwrite=overwrite,
        write_on_commit=write_on_commit,
        logger=logger if logger is not None else _logger_here(),
    ) as begun:
        yield begun


def get_transaction() -> BaseTransaction | None:
    """The innermost transaction that is active here; inside a task run there is always one."""
    active = active_here()
    if active is not None or current_context() is None:
        return active
    from prefect_lite.keeping import on_demand

    return on_demand()


def _logger_here() -> Logger | None:
    return get_run_logger() if current_context() is not None else None
