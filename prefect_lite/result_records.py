"""Records of persisted results: a value, and what says where it is kept."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar, cast

from prefect_lite.exceptions import MissingResult, ResultDamaged, SerializationError
from prefect_lite.result_metadata import ResultRecordMetadata
from prefect_lite.thread_or_loop import Waits, in_thread

if TYPE_CHECKING:
    from prefect_lite.results import ResultStore
    from prefect_lite.serializers import Serializer

__all__ = ["ResultRecord", "ResultRecordMetadata"]

R = TypeVar("R")


class _Away:
    """In place of a value that is not in memory."""

    def __repr__(self) -> str:
        return "<in its storage>"

    def __reduce__(self) -> str:
        return "_AWAY"


_AWAY: Final[Any] = _Away()


class ResultRecord(Generic[R]):
    """A result that is, or is to be, in a storage. As ``state.data`` it stands for its value.

    Attributes:
        metadata: See ``ResultRecordMetadata``.
    """

    stands_for_a_value: ClassVar[bool] = True

    __slots__ = ("_body", "_persisted", "_store", "_value", "metadata")

    def __init__(self, result: R, metadata: ResultRecordMetadata) -> None:
        self.metadata = metadata
        self._value: Any = result
        self._body: bytes | None = None
        self._store: ResultStore | None = None
        self._persisted = False

    @classmethod
    def found(cls, metadata: ResultRecordMetadata, body: bytes, store: ResultStore) -> ResultRecord[Any]:
        """One that was read; its value is decoded when it is asked for.

        Args:
            metadata: From the document.
            body: What the serializer had made, verified.
            store: Where it was found.
        """
        record: ResultRecord[Any] = cls(_AWAY, metadata)
        record._body, record._persisted = body, True
        record._read_again_from(store)
        return record

    def _read_again_from(self, store: ResultStore) -> None:
        # One that keeps its value has no need of the store; and a store keeps such records, which else would
        # keep each other.
        self._store = None if store.cache_result_in_memory else store

    @property
    def result(self) -> R:
        """The value: from memory, else from its storage.

        Raises:
            MissingResult: It is not there any more.
            ResultDamaged: It is, but can't be used.
            StorageError: The storage can't be read.
        """
        return in_thread(self.getting())

    def getting(self) -> Waits[R]:
        """``result`` for both threads and event loops."""
        if self._value is not _AWAY:
            return self._value
        if (body := self._body) is not None:
            value = self._decoded(body)
            self._body = None
            if self._store is None:
                self._value = value
            return value
        if self._store is None:
            raise MissingResult("The value of this record is not in memory, nor in a storage.")
        key = self.metadata.storage_key or ""
        return (yield from self._store.reading_anew(key))

    def _decoded(self, body: bytes) -> Any:
        serializer = self.metadata.serializer
        try:
            return serializer.loads(body)
        except (Exception, SystemExit) as exc:  # the value's own code runs here
            raise ResultDamaged(
                f"The stored result {self.metadata.storage_key!r} can't be decoded by the serializer "
                f"{serializer.type!r}: {type(exc).__name__}: {exc}. Is the code there that its type belongs "
                f"to, in the same version? Else run the task again with refresh_cache=True."
            ) from exc

    @property
    def is_persisted(self) -> bool:
        """Whether it is in its storage."""
        return self._persisted

    def mark_persisted(self) -> None:
        """Note that it is in its storage."""
        self._persisted = True

    def persisted_in(self, store: ResultStore) -> None:
        """It was written; its value leaves the memory if the store does not cache there."""
        self._persisted = True
        self._read_again_from(store)
        if self._store is not None:
            self._value, self._body = _AWAY, None

    @property
    def expiration(self) -> datetime | None:
        """See ``ResultRecordMetadata``."""
        return self.metadata.expiration

    @property
    def expired(self) -> bool:
        """Whether other runs may not take it any more."""
        return self.metadata.expired

    @property
    def serializer(self) -> Serializer[Any]:
        """See ``ResultRecordMetadata``."""
        return self.metadata.serializer

    # -- as bytes -------------------------------------------------------------------------------------

    def serialize_result(self) -> bytes:
        """What the serializer makes of the value.

        Raises:
            SerializationError: It can't.
        """
        if self._value is _AWAY and self._body is not None:
            return self._body
        value, serializer = self.result, self.serializer
        try:
            return serializer.dumps(value)
        except Exception as exc:
            ours = isinstance(exc, SerializationError)
            problem = str(exc) if ours else f"{type(exc).__name__}: {exc}"
            raise SerializationError(
                f"The result, of type {type(value).__name__}, can't be kept with the serializer "
                f"{serializer.type!r}: {problem.removesuffix('.')}. Choose another result_serializer, "
                f"return something else, or set persist_result=False."
            ) from exc

    def serialize_metadata(self) -> bytes:
        """The metadata as JSON; neither they nor the value are signed by this."""
        return self.metadata.dump_bytes()

    def serialize(self) -> bytes:
        """The whole record as it is in a storage, signed.

        Raises:
            SerializationError: The value can't be serialized.
        """
        from prefect_lite.result_documents import packed

        return packed(self.metadata.model_dump(mode="json"), self.serialize_result())

    @classmethod
    def deserialize(cls, data: bytes, backup_serializer: Serializer[Any] | None = None) -> ResultRecord[Any]:
        """What ``serialize`` made.

        Args:
            data: The document.
            backup_serializer: For programs written for Prefect; documents always name their serializer.

        Raises:
            ResultDamaged: It was altered, or is no record of this keyring.
        """
        from prefect_lite.result_documents import key_in, opened

        document = opened(key_in(data), data)
        return cls._unpacked(document.metadata, document.body)

    @classmethod
    def deserialize_from_result_and_metadata(cls, result: bytes, metadata: bytes) -> ResultRecord[Any]:
        """The record of a value that is stored apart from its metadata, which are a signed document.

        Raises:
            ResultDamaged: It was altered, or is no record of this keyring.
        """
        from prefect_lite.result_documents import key_in, opened

        document = opened(key_in(metadata), metadata, result)
        return cls._unpacked(document.metadata, document.body)

    @classmethod
    def _unpacked(cls, plain: dict[str, Any], body: bytes) -> ResultRecord[Any]:
        record: ResultRecord[Any] = cls(cast("Any", None), ResultRecordMetadata.from_plain(plain))
        record._value = record._decoded(body)
        return record

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ResultRecord):
            return NotImplemented
        one = cast("ResultRecord[Any]", other)
        return self.metadata == one.metadata and (
            self._value is _AWAY or one._value is _AWAY or bool(self._value == one._value)
        )

    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self) -> list[Any]:
        return [self.metadata, self._value, self._body, self._store, self._persisted]

    def __setstate__(self, values: list[Any]) -> None:
        self.metadata, self._value, self._body, self._store, self._persisted = values

    def __repr__(self) -> str:
        return f"ResultRecord(metadata={self.metadata!r}, result={self._value!r})"
