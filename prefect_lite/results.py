"""``ResultStore``: persisted results under their keys, in a storage, and the locks of those keys.

Everything that waits is written once, as a program for ``thread_or_loop``: ``reading``, ``existing`` and
``persisting`` are what the engine and transactions use, and the public methods drive them.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, cast
from uuid import UUID, uuid4

from prefect_lite.broker_storage import BrokerStorage, content_of, put
from prefect_lite.either_way import as_called
from prefect_lite.exceptions import ConfigurationError, MissingResult, OptionTypeError, ResultDamaged
from prefect_lite.option_checks import check_object
from prefect_lite.result_locks import ResultLocks
from prefect_lite.result_records import ResultRecord, ResultRecordMetadata
from prefect_lite.result_stores import (
    aget_default_result_storage,
    aresolve_result_storage,
    changed,
    get_default_persist_setting,
    get_default_persist_setting_for_tasks,
    get_default_result_serializer,
    get_default_result_storage,
    get_result_store,
    is_in_background,
    resolve_result_storage,
    resolved_storage,
    should_persist_result,
    store_for,
)
from prefect_lite.settings import get_settings
from prefect_lite.thread_or_loop import Waits, in_thread, on_loop

if TYPE_CHECKING:
    from prefect_lite.flows import Flow
    from prefect_lite.locking.protocol import LockManager
    from prefect_lite.serializers import Serializer
    from prefect_lite.tasks import Task

__all__ = [
    "ResultRecord",
    "ResultRecordMetadata",
    "ResultStore",
    "aget_default_result_storage",
    "aresolve_result_storage",
    "get_default_persist_setting",
    "get_default_persist_setting_for_tasks",
    "get_default_result_serializer",
    "get_default_result_storage",
    "get_result_store",
    "is_in_background",
    "resolve_result_storage",
    "resolve_serializer",
    "should_persist_result",
    "store_for",
]

MAX_REMEMBERED = 1000
"""Records that a store keeps in memory, the latest."""

logger = logging.getLogger("prefect_lite.results")


def resolve_serializer(serializer: str | Serializer[Any] | None) -> Serializer[Any]:
    """The serializer that a value of the option ``result_serializer`` means.

    Raises:
        ConfigurationError: There is no such one; the message names those that there are.
    """
    from prefect_lite.serializers import resolve_serializer as resolve  # it loads pydantic

    return resolve(serializer)


def storage_key() -> str:
    """A key that nothing else has."""
    return uuid4().hex


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise OptionTypeError(f"A storage key must be text, got {key!r}.")
    try:
        key.encode()
    except UnicodeEncodeError as exc:
        raise ConfigurationError(f"{key!r} can't be a storage key: {exc.reason}.") from exc


class ResultStore(ResultLocks):
    """See the module's docstring.

    Attributes:
        result_storage: Where results are: a storage, or what the option ``result_storage`` takes. None: the
            setting's, else files under ``storage_path``.
        metadata_storage: Where their metadata are, if apart from them.
        cache_result_in_memory: Keep records that were read or written here, and the values of records.
        storage_key_fn: Makes the keys of records that are given none.
        cache: The records in memory, by key.
    """

    def __init__(
        self,
        result_storage: Any = None,
        metadata_storage: Any = None,
        lock_manager: LockManager | None = None,
        cache_result_in_memory: bool = True,
        serializer: str | Serializer[Any] | None = None,
        storage_key_fn: Callable[[], str] = storage_key,
        *,
        default_locks: Callable[[], LockManager] | None = None,
    ) -> None:
        """``default_locks`` makes the lock manager when one is asked for that was not given.

        Raises:
            OptionTypeError: ``result_storage`` or ``metadata_storage`` is nothing that can mean a storage.
        """
        for name, storage in (("result_storage", result_storage), ("metadata_storage", metadata_storage)):
            if storage is not None and not isinstance(storage, UUID):
                check_object(name, storage, or_text=True)
        self.result_storage = result_storage
        self.metadata_storage = metadata_storage
        self.cache_result_in_memory = cache_result_in_memory
        self.storage_key_fn = storage_key_fn
        self._serializer = serializer
        self._locks = lock_manager
        self._default_locks = default_locks
        self._forget()

    def _forget(self) -> None:
        self.cache: OrderedDict[str, ResultRecord[Any]] = OrderedDict()
        self._guard = threading.Lock()
        self._looked_at: tuple[str, ResultRecord[Any]] | None = None

    @property
    def serializer(self) -> Serializer[Any]:
        """What makes bytes of values.

        Raises:
            ConfigurationError: It was given by a name that there is not.
        """
        known = self._serializer
        if known is None or isinstance(known, str):
            known = self._serializer = resolve_serializer(known)
        return known

    @serializer.setter
    def serializer(self, serializer: str | Serializer[Any]) -> None:
        self._serializer = serializer

    @property
    def is_brokers(self) -> bool:
        """Whether results go to the broker's Redis."""
        return isinstance(self.result_storage, BrokerStorage)

    @property
    def result_storage_block_id(self) -> None:
        """Always None; for programs written for Prefect."""
        return None

    def model_copy(self, *, update: dict[str, Any] | None = None) -> Self:
        """Another store that is set up the same, but for the attributes in ``update``."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy._forget()
        for name, value in (update or {}).items():
            setattr(copy, name, value)
        return copy

    def update_for_task(self, task: Task[..., Any]) -> Self:
        """A copy with the options of a task; what they don't say stays. In coroutines to be awaited."""
        return as_called(changed(self, task.options, of_task=True))

    async def aupdate_for_task(self, task: Task[..., Any]) -> Self:
        """``update_for_task`` for coroutines."""
        return cast("Self", await on_loop(changed(self, task.options, of_task=True)))

    def update_for_flow(self, flow: Flow[..., Any]) -> Self:
        """A copy with the options of a flow; what they don't say stays. In coroutines to be awaited."""
        return as_called(changed(self, flow.options, of_task=False))

    async def aupdate_for_flow(self, flow: Flow[..., Any]) -> Self:
        """``update_for_flow`` for coroutines."""
        return cast("Self", await on_loop(changed(self, flow.options, of_task=False)))

    # -- reading ----------------------------------------------------------------------------------

    def exists(self, key: str) -> bool:
        """Whether there is a result that has not expired; a damaged one is not there, and is warned of."""
        return in_thread(self._existing(key))

    async def aexists(self, key: str) -> bool:
        """``exists`` for coroutines."""
        return await on_loop(self._existing(key))

    def read(self, key: str, holder: str | None = None) -> ResultRecord[Any]:
        """The record under a key, also one that has expired. Waits while another holder has its lock.

        Args:
            key: The storage key.
            holder: Who reads; None: this thread or asyncio task.

        Raises:
            MissingResult: There is none.
            ResultDamaged: It was altered, or is signed by an unknown key, or not at all.
            StorageError: The storage can't be read.
        """
        return in_thread(self.reading(key, holder))

    async def aread(self, key: str, holder: str | None = None) -> ResultRecord[Any]:
        """``read`` for coroutines."""
        return await on_loop(self.reading(key, holder))

    def reading(self, key: str, holder: str | None = None) -> Waits[ResultRecord[Any]]:
        """``read`` for both threads and event loops."""
        looked_at, self._looked_at = self._looked_at, None
        if looked_at is not None and looked_at[0] == key:
            return looked_at[1]
        if (known := self._remembered(key)) is not None:
            return known
        yield from self._waited_for_lock(key, holder)
        record = yield from self._fetched(key)
        self._remember(key, record)
        return record

    def reading_anew(self, key: str) -> Waits[Any]:
        """The value under a key, from the storage; see ``read``."""
        return (yield from (yield from self._fetched(key)).getting())

    def existing(self, key: str) -> Waits[bool]:
        """``exists`` for both threads and event loops. A ``reading`` that follows takes what it saw."""
        self._looked_at = None
        found = yield from self._looked_up(key)
        if found is not None:
            self._looked_at = key, found
        return found is not None

    def _overtaken(self, key: str) -> None:
        """What ``existing`` saw is not what is there now."""
        if self._looked_at is not None and self._looked_at[0] == key:
            self._looked_at = None

    def _existing(self, key: str) -> Waits[bool]:
        return (yield from self._looked_up(key)) is not None

    def _looked_up(self, key: str) -> Waits[ResultRecord[Any] | None]:
        record = self._remembered(key)
        if record is None:
            try:
                record = yield from self._fetched(key)
            except ResultDamaged as exc:
                logger.warning("%s", exc, extra={"storage_key": key})
                return None
            except MissingResult:
                return None
        return None if record.expired else record

    def _remembered(self, key: str) -> ResultRecord[Any] | None:
        with self._guard:
            record = self.cache.get(key)
            if record is not None:
                self.cache.move_to_end(key)
            return record

    def _remember(self, key: str, record: ResultRecord[Any]) -> None:
        if not self.cache_result_in_memory:
            return
        with self._guard:
            self.cache[key] = record
            self.cache.move_to_end(key)
            while len(self.cache) > MAX_REMEMBERED:
                self.cache.popitem(last=False)

    def _fetched(self, key: str) -> Waits[ResultRecord[Any]]:
        from prefect_lite.result_documents import opened

        _check_key(key)
        storage = yield from self._storage()
        if self.metadata_storage is None:
            document = opened(key, (yield from content_of(storage, key)))
        else:
            described = yield from content_of((yield from self._metadata_storage()), key)
            document = opened(key, described, (yield from content_of(storage, key)))
        return ResultRecord.found(ResultRecordMetadata.from_plain(document.metadata), document.body, self)

    def _storage(self) -> Waits[Any]:
        given = self.result_storage
        if given is None:
            return (yield from resolved_storage(get_settings().result_storage or None))
        self.result_storage = yield from resolved_storage(given)
        return self.result_storage

    def _metadata_storage(self) -> Waits[Any]:
        self.metadata_storage = yield from resolved_storage(self.metadata_storage)
        return self.metadata_storage

    # -- writing ----------------------------------------------------------------------------------

    def create_result_record(
        self, obj: Any, key: str | None = None, expiration: datetime | None = None
    ) -> ResultRecord[Any]:
        """A record of a value; ``persist_result_record`` writes it.

        Args:
            obj: The value.
            key: Its storage key; None: a new one.
            expiration: Until when other runs may take it (aware); None: for ever.
        """
        if expiration is not None and expiration.tzinfo is None:
            raise ConfigurationError(f"expiration must have a time zone, got {expiration!r}.")
        key = key if key is not None else self.storage_key_fn()
        return ResultRecord(obj, ResultRecordMetadata(key, expiration, self.serializer))

    def write(
        self, obj: Any, key: str | None = None, expiration: datetime | None = None, holder: str | None = None
    ) -> None:
        """Write a value; see ``create_result_record`` and ``persist_result_record``."""
        self.persist_result_record(self.create_result_record(obj, key, expiration), holder)

    async def awrite(
        self, obj: Any, key: str | None = None, expiration: datetime | None = None, holder: str | None = None
    ) -> None:
        """``write`` for coroutines."""
        await self.apersist_result_record(self.create_result_record(obj, key, expiration), holder)

    def persist_result_record(self, result_record: ResultRecord[Any], holder: str | None = None) -> None:
        """Write a record, over what is there.

        Args:
            result_record: The record.
            holder: Who writes; None: this thread or asyncio task.

        Raises:
            SerializationError: Its value can't be serialized.
            StorageError: The storage can't be written.
            RuntimeError: Its key is locked by another holder.
        """
        in_thread(self.persisting(result_record, holder))

    async def apersist_result_record(
        self, result_record: ResultRecord[Any], holder: str | None = None
    ) -> None:
        """``persist_result_record`` for coroutines."""
        await on_loop(self.persisting(result_record, holder))

    def persisting(
        self, record: ResultRecord[Any], holder: str | None = None, fence: str | None = None
    ) -> Waits[None]:
        """``persist_result_record`` for both threads and event loops.

        Args:
            record: The record.
            holder: Who writes.
            fence: Who must still hold the lock of the key when it is written.

        Raises:
            LockLost: ``fence`` does not; nothing was written.
        """
        key = record.metadata.storage_key
        if not key:
            raise ConfigurationError("A record without a storage key can't be written: give it one.")
        _check_key(key)
        yield from self._refused_if_locked(key, holder)
        self._overtaken(key)
        yield from self._written(record, key, fence)
        self._overtaken(key)
        record.persisted_in(self)
        self._remember(key, record)

    def _written(self, record: ResultRecord[Any], key: str, fence: str | None) -> Waits[None]:
        from prefect_lite.result_documents import packed, packed_metadata

        storage = yield from self._storage()
        plain, body = record.metadata.model_dump(mode="json"), record.serialize_result()
        if fence is not None and not isinstance(storage, BrokerStorage):
            yield from self._still_held(key, fence)
        if self.metadata_storage is None:
            yield from put(storage, key, packed(plain, body), record.expiration, fence)
            return
        described = packed_metadata(plain, body)  # first, as it may refuse
        yield from put(storage, key, body, record.expiration, fence)
        yield from put((yield from self._metadata_storage()), key, described, record.expiration, None)

    def __getstate__(self) -> dict[str, Any]:
        # Another process has locks of its own, and reads what it needs.
        left = ("cache", "_guard", "_looked_at", "_locks", "_default_locks")
        return {name: value for name, value in self.__dict__.items() if name not in left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _locks=None, _default_locks=None)
        self._forget()

    def __repr__(self) -> str:
        where = self.result_storage if self.result_storage is not None else "the default storage"
        return f"<ResultStore in {where!r}>"
