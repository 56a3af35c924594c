"""How transactions nest, commit and roll back; ``transactions.py`` has the classes that people use."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, cast

from prefect_lite.context import active_transaction, current_context
from prefect_lite.exceptions import (
    BrokerError,
    ConfigurationError,
    LockLost,
    MissingResult,
    ResultDamaged,
    SerializationError,
    StorageError,
)
from prefect_lite.locking.families import Family
from prefect_lite.thread_or_loop import Waits, is_cancelled_here
from prefect_lite.transaction_staging import Hook, Staging
from prefect_lite.transaction_states import CommitMode, IsolationLevel, TransactionState

if TYPE_CHECKING:
    from prefect_lite.result_records import ResultRecord
    from prefect_lite.results import ResultStore

_UNSET: Any = object()
_FINAL = (TransactionState.COMMITTED, TransactionState.ROLLED_BACK)
_EXPLAINED = (SerializationError, StorageError, BrokerError, LockLost)


class BaseTransaction(Staging):
    """What both kinds of transactions have in common.

    The methods in -ing are programs for ``thread_or_loop``; the engine uses them for both kinds. See
    ``Staging`` for the attributes.
    """

    @property
    def is_stray(self) -> bool:
        """Whether it was left where its context variable could not be put back."""
        return self._stray

    @property
    def is_undoing(self) -> bool:
        """Whether it rolls back this moment."""
        return self._undoes

    def get_parent(self) -> BaseTransaction | None:
        """The transaction around it, None for an outermost one."""
        return self._parent

    def add_child(self, transaction: BaseTransaction) -> None:
        """Have another transaction end with this one."""
        self.children.append(transaction)

    @classmethod
    def get_active(cls) -> BaseTransaction | None:
        """The innermost transaction that is active here."""
        return active_here()

    def prepare_transaction(self) -> None:
        """Take over from the transaction around it what was not given, and be active."""
        parent = self._parent
        if self.commit_mode is None:
            self.commit_mode = (parent.commit_mode if parent else None) or CommitMode.LAZY
        if self.isolation_level is None:
            inherited = parent.isolation_level if parent else None
            self.isolation_level = inherited or IsolationLevel.READ_COMMITTED
        self._family = parent._family if parent else None
        self.state = TransactionState.ACTIVE

    # -- entering and leaving ---------------------------------------------------------------------

    def entering(self, stopped: Callable[[], bool] | None = None) -> Waits[None]:
        """Begin, and be the active transaction.

        Args:
            stopped: Whether to give up waiting for the lock.

        Raises:
            RuntimeError: It is active already.
            ConfigurationError: It is to be serializable, and there is nothing to lock with.
            TransactionError: ``stopped``.
        """
        if self._token is not None:
            raise RuntimeError(
                "Context already entered: a transaction can't be entered again inside itself; make a new one."
            )
        self._parent = active_here()
        self._left = self._settled = False
        self._alone = _is_undone(self._parent)
        self.prepare_transaction()
        yield from self.beginning(stopped)
        if active_transaction.get(_UNSET) is _UNSET:
            active_transaction.set(None)  # as in ``context.enter_run``
        self._token = active_transaction.set(self)

    def beginning(self, stopped: Callable[[], bool] | None = None) -> Waits[None]:
        """Look for a record; if there is none, take the lock where the isolation level asks for it."""
        if not self.key:
            return
        if self.store is None:
            self.store = yield from _store_here()
        if self.is_serializable and not self.store.supports_isolation_level(IsolationLevel.SERIALIZABLE):
            raise ConfigurationError(
                "Isolation level SERIALIZABLE is not supported: the store has no lock manager. Give it one, "
                "such as ResultStore(lock_manager=FileSystemLockManager(directory))."
            )
        if (yield from self._known()) or not self.is_serializable:
            return
        yield from self._locking(stopped)
        try:
            known = yield from self._known()  # by whoever has had the lock before
        except BaseException:
            yield from self._unlocking()
            raise
        if known:
            yield from self._unlocking()

    def reopening(self, stopped: Callable[[], bool] | None = None) -> Waits[None]:
        """The record that there is can't be used: begin as if there were none."""
        self.state = TransactionState.ACTIVE
        if self.is_serializable and self._manager is None:
            yield from self._locking(stopped)

    def leaving(self, error: BaseException | None = None, contained: bool = False) -> Waits[None]:
        """The block is over: end as the commit mode says, or leave that to the transaction around it.

        Args:
            error: What the block raised; it rolls back.
            contained: The transaction around it does not roll back with this one, as what was done in it is
                about to be done once more.
        """
        try:
            if error is not None:
                yield from self.rolling_back()
            elif self.commit_mode is CommitMode.EAGER:
                yield from self.committing()
            elif self._parent is None or self._alone:
                off = self.commit_mode is CommitMode.OFF
                yield from (self.rolling_back() if off else self.committing())
        finally:
            yield from self.resetting(contained)

    def resetting(self, contained: bool = False) -> Waits[None]:
        """Be active no more, and join the transaction around it."""
        token, self._token = self._token, None
        if token is not None:
            try:
                active_transaction.reset(token)
            except ValueError:  # a generator that is closed from outside: its own context is gone
                self._stray = True
        self._left = True
        if self._manager is not None and self.key:
            self._holders().ended(self._manager, self.key, id(self))
        yield from self._settling()
        parent = self._parent
        if parent is None or self._alone:
            return
        if self.state is TransactionState.ROLLED_BACK:
            parent.add_child(self)
            if not contained:
                yield from parent.rolling_back()
        elif not parent._takes(self):
            yield from (self.committing() if parent.is_committed() else self.rolling_back())

    def _takes(self, child: BaseTransaction) -> bool:
        with self._guard:
            if not self._settled:
                self.children.append(child)
            return not self._settled

    def _settling(self) -> Waits[None]:
        """Once it is over: what has joined it since it ended, ends like it; nothing can join any more."""
        while self._left and self.state in _FINAL:
            with self._guard:
                open_ones = [child for child in self.children if child.state not in _FINAL]
                if not open_ones:
                    self._settled = True
                    return
            committed = self.is_committed()
            for child in open_ones if committed else reversed(open_ones):
                yield from (child.committing() if committed else child.rolling_back())

    # -- the two ends -----------------------------------------------------------------------------

    def committing(self) -> Waits[bool]:
        """Commit; see ``Transaction.commit``."""
        if self.state in _FINAL or self._ending:
            return False
        self._ending = True
        try:
            for child in self.children:
                yield from child.committing()
            for hook in self.on_commit_hooks:
                yield from self.running_hook(hook, "commit")
            yield from self._writing()
            self.state = TransactionState.COMMITTED
        except GeneratorExit:
            raise
        except BaseException as exc:
            self._log_failure(exc)
            yield from self._undoing()
            if not _is_failure(exc):
                raise
        else:
            yield from self._unlocking()
        finally:
            self._ending = False
        yield from self._settling()
        return self.is_committed()

    def rolling_back(self) -> Waits[bool]:
        """Roll back; see ``Transaction.rollback``."""
        if self.state in _FINAL or self._ending:
            return False
        self._ending = True
        try:
            clean = yield from self._undoing()
        finally:
            self._ending = False
        yield from self._settling()
        return clean

    def _undoing(self) -> Waits[bool]:
        """Every hook is called, whatever the others do: what is not undone here never will be."""
        interruption: BaseException | None = None
        clean = True
        self._undoes = True
        for hook in reversed(self.on_rollback_hooks):
            try:
                yield from self.running_hook(hook, "rollback")
            except GeneratorExit:
                raise
            except BaseException as exc:
                clean = False
                interruption = interruption if _is_failure(exc) else exc
        for child in reversed(self.children):
            yield from child.rolling_back()
        self._undoes = False
        self.state = TransactionState.ROLLED_BACK
        yield from self._unlocking()
        if interruption is not None:
            raise interruption
        return clean

    def running_hook(self, hook: Hook, hook_type: str) -> Waits[None]:
        """Call a hook, and wait for it if it is a coroutine; see ``Transaction.run_hook``."""
        name = getattr(hook, "__name__", None) or getattr(hook, "name", None) or repr(hook)
        self.logger.info("Running %s hook %r", hook_type, name)
        try:
            answer = hook(self)
            if inspect.isawaitable(answer):
                yield answer
        except GeneratorExit:
            raise
        except BaseException:
            # Not with logging's own idea of what went wrong: a commit hook's error is told by the rollback.
            self.logger.exception("The %s hook %r of a transaction failed.", hook_type, name)
            raise
        self.logger.debug("The %s hook %r has run", hook_type, name)

    def _log_failure(self, error: BaseException) -> None:
        if isinstance(error, _EXPLAINED):
            self.logger.warning(
                "The result of the transaction %s can't be kept, so its rollback hooks are called: %s "
                "A task run has completed all the same.",
                self._name(),
                error,
            )
        else:
            self.logger.error(
                "The transaction %s could not be committed, so it is rolled back: %r", self._name(), error
            )

    def _name(self) -> str:
        return repr(self.key) if self.key else "without a key"

    # -- the record and its lock ------------------------------------------------------------------

    def reading(self) -> Waits[ResultRecord[Any] | None]:
        """The record under the key; see ``Transaction.read``.

        Raises:
            ResultDamaged: There is one that can't be used.
        """
        if not self.key or self.store is None:
            return None
        try:
            return (yield from self.store.reading(self.key, self._holders().holder))
        except ResultDamaged:
            raise
        except MissingResult:
            return None

    def _known(self) -> Waits[bool]:
        assert self.store is not None
        assert self.key is not None
        if self.overwrite or not (yield from self.store.existing(self.key)):
            return False
        self.state = TransactionState.COMMITTED
        return True

    def _writing(self) -> Waits[None]:
        if not self.key or self.store is None or not self.write_on_commit:
            return
        if self.is_of_run and not self.is_staged():
            return  # its code has committed it by hand: other runs are not to take None for the result
        from prefect_lite.result_records import ResultRecord

        value: Any = self.staged_value
        staged = isinstance(value, ResultRecord)
        record = cast(
            "ResultRecord[Any]", value if staged else self.store.create_result_record(value, self.key)
        )
        holder = self._holders().holder
        yield from self.store.persisting(record, holder, holder if self._fences() else None)

    def _fences(self) -> bool:
        """Whether the write is to be refused should the lock be lost: where that can be known."""
        assert self.store is not None
        if self._manager is None:
            return False
        return not self.store.is_brokers or getattr(self._manager, "fences", False)

    def _holders(self) -> Family:
        if self._family is None:
            self._family = self._parent._holders() if self._parent is not None else Family()
        return self._family

    def _locking(self, stopped: Callable[[], bool] | None) -> Waits[None]:
        assert self.store is not None
        assert self.key is not None
        manager = self.store.lock_manager
        assert manager is not None
        around: set[int] = set()
        ancestor = self._parent
        while ancestor is not None:
            around.add(id(ancestor))
            ancestor = ancestor._parent
        yield from self._holders().taking(manager, self.key, id(self), around, stopped)
        self._manager = manager

    def _unlocking(self) -> Waits[None]:
        manager, self._manager = self._manager, None
        if manager is None or not self.key:
            return
        try:
            yield from self._holders().letting_go(manager, self.key, id(self))
        except Exception as exc:  # the work is done; the lock runs out, or is seen to be nobody's
            self.logger.warning("The lock of the key %r could not be released: %s", self.key, exc)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(key={self.key!r}, state={self.state.value})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self


def active_here() -> BaseTransaction | None:
    """The innermost transaction that is active here; not one that was left elsewhere."""
    active = active_transaction.get()
    while active is not None and active.is_stray:
        active = active.get_parent()
    return active


def _is_undone(transaction: BaseTransaction | None) -> bool:
    """Whether it, or one around it, rolls back this moment: what its hooks do is not undone with it."""
    while transaction is not None:
        if transaction.is_undoing:
            return True
        transaction = transaction.get_parent()
    return False


def _store_here() -> Waits[ResultStore]:
    """Where the results of the current run go."""
    from prefect_lite import results

    context = current_context()
    return results.get_result_store() if context is None else (yield from results.store_for(context))


def _is_failure(error: BaseException) -> bool:
    """Whether an error is a hook's own, not something that ends the code around it as well."""
    if isinstance(error, asyncio.CancelledError):
        return not is_cancelled_here()
    return isinstance(error, (Exception, SystemExit))
