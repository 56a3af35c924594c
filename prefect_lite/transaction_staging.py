"""What a transaction holds: its options, what is staged, hooks, and values for those inside."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable
from contextvars import Token
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from prefect_lite.exceptions import ConfigurationError
from prefect_lite.locking.families import Family
from prefect_lite.transaction_states import CommitMode, IsolationLevel, TransactionState

if TYPE_CHECKING:
    from prefect_lite.locking.protocol import LockManager
    from prefect_lite.results import ResultStore
    from prefect_lite.transaction_core import BaseTransaction

Hook: TypeAlias = Callable[..., Any]
E = TypeVar("E", bound=Enum)

_NOT_GIVEN: Any = object()
_logger = logging.getLogger("prefect_lite.transactions")


class Staging:
    """The part of ``BaseTransaction`` that waits for nothing.

    Attributes:
        store: Where the record goes; None: nowhere, unless there is a key.
        key: Of the record; None or "": there is none.
        children: Those that were inside it, in the order in which they were left.
        commit_mode: When it commits; None until it begins.
        isolation_level: What it sees of others with its key; None until it begins.
        state: How far it is.
        on_commit_hooks: Called with it when it commits, first staged first.
        on_rollback_hooks: Called with it when it rolls back, last staged first.
        overwrite: An earlier record does not count.
        logger: Told of hooks and of what goes wrong.
        write_on_commit: The record is written.
        is_of_run: It is a task run's, which stages its result at its end; before that there is no record.
        staged_value: What the record will hold.
    """

    def __init__(
        self,
        store: ResultStore | None = None,
        key: str | None = None,
        children: list[BaseTransaction] | None = None,
        commit_mode: CommitMode | None = None,
        isolation_level: IsolationLevel | None = None,
        state: TransactionState = TransactionState.PENDING,
        on_commit_hooks: list[Hook] | None = None,
        on_rollback_hooks: list[Hook] | None = None,
        overwrite: bool = False,
        logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
        write_on_commit: bool = True,
    ) -> None:
        _check(key, store, overwrite, write_on_commit)
        self.store: ResultStore | None = store
        self.key = key
        self.children: list[BaseTransaction] = children if children is not None else []
        self.commit_mode: CommitMode | None = _choice(CommitMode, "commit_mode", commit_mode)
        self.isolation_level: IsolationLevel | None = _choice(
            IsolationLevel, "isolation_level", isolation_level
        )
        self.state = TransactionState(state)
        self.on_commit_hooks: list[Hook] = on_commit_hooks if on_commit_hooks is not None else []
        self.on_rollback_hooks: list[Hook] = on_rollback_hooks if on_rollback_hooks is not None else []
        self.overwrite = overwrite
        self.logger = logger if logger is not None else _logger
        self.write_on_commit = write_on_commit
        self.is_of_run = False
        self.staged_value: Any = None
        self._values: dict[str, Any] = {}
        self._parent: BaseTransaction | None = None
        self._family: Family | None = None
        self._token: Token[BaseTransaction | None] | None = None
        self._guard = threading.Lock()  # children join from threads of their own
        self._ending = False
        self._left = False
        self._settled = False
        self._stray = False
        self._undoes = False
        self._alone = False
        self._manager: LockManager | None = None

    # -- what people ask and tell -----------------------------------------------------------------

    def set(self, name: str, value: Any) -> None:
        """Note a value for hooks and for the transactions inside."""
        self._values[name] = value

    def get(self, name: str, default: Any = _NOT_GIVEN) -> Any:
        """A copy of a value that was set here, or in a transaction around it.

        Raises:
            ValueError: There is none, and no default was given.
        """
        asked: Staging | None = self
        while asked is not None:
            if name in asked._values:
                return copy.deepcopy(asked._values[name])
            asked = asked._parent
        if default is _NOT_GIVEN:
            raise ValueError(f"Could not retrieve value for unknown key: {name}")
        return default

    def stage(
        self,
        value: Any,
        on_rollback_hooks: list[Hook] | None = None,
        on_commit_hooks: list[Hook] | None = None,
    ) -> None:
        """Note what is to be committed; without effect when that has happened already.

        Args:
            value: For the record; the last one staged counts.
            on_rollback_hooks: More hooks, called with this transaction when it rolls back.
            on_commit_hooks: More hooks, called with it when it commits.
        """
        undoing, doing = _hooks(on_rollback_hooks), _hooks(on_commit_hooks)
        if self.state is TransactionState.COMMITTED:
            return
        if self.state is TransactionState.ROLLED_BACK:
            # It goes on: what was staged before is undone, and has nothing to do with what is staged now.
            self.on_commit_hooks.clear()
            self.on_rollback_hooks.clear()
        self.on_rollback_hooks.extend(undoing)
        self.on_commit_hooks.extend(doing)
        self.staged_value = value
        self.state = TransactionState.STAGED

    def is_pending(self) -> bool:
        """Whether it has not begun."""
        return self.state is TransactionState.PENDING

    def is_active(self) -> bool:
        """Whether it has begun, and nothing is staged."""
        return self.state is TransactionState.ACTIVE

    def is_staged(self) -> bool:
        """Whether something is staged."""
        return self.state is TransactionState.STAGED

    def is_committed(self) -> bool:
        """Whether it is committed, by itself or by an earlier one with its key."""
        return self.state is TransactionState.COMMITTED

    def is_rolled_back(self) -> bool:
        """Whether it was rolled back."""
        return self.state is TransactionState.ROLLED_BACK

    @property
    def is_serializable(self) -> bool:
        """Whether it is to have its key for itself."""
        return bool(self.key) and self.isolation_level is IsolationLevel.SERIALIZABLE


def _check(key: Any, store: Any, overwrite: Any, write_on_commit: Any) -> None:
    if key is not None and not isinstance(key, str):
        raise ConfigurationError(f"The key of a transaction must be a text or None, got {key!r}.")
    if store is not None:
        from prefect_lite.results import ResultStore

        if not isinstance(store, ResultStore):
            raise ConfigurationError(f"The store of a transaction must be a ResultStore, got {store!r}.")
    for name, value in (("overwrite", overwrite), ("write_on_commit", write_on_commit)):
        if not isinstance(value, bool):
            raise ConfigurationError(f"{name} must be True or False, got {value!r}.")


def _choice(kind: type[E], name: str, value: Any) -> E | None:
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(repr(member.value) for member in kind)
        raise ConfigurationError(f"{name} must be one of {known}, got {value!r}.") from None


def _hooks(given: Any) -> list[Hook]:
    if given is None:
        return []
    if callable(given):
        raise TypeError(f"Hooks are given as a list of functions: [{getattr(given, '__name__', given)}].")
    return list(given)
