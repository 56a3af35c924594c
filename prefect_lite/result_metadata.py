"""What belongs to a persisted result beside its value: under which key, how and until when it is kept."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from prefect_lite import clock
from prefect_lite.exceptions import ConfigurationError, ResultDamaged
from prefect_lite.version import __version__

if TYPE_CHECKING:
    from uuid import UUID

    from prefect_lite.serializers import Serializer


class ResultRecordMetadata:
    """See the module's docstring.

    Attributes:
        storage_key: Under which key it is in its storage.
        expiration: Until when it may be taken by other runs (aware, UTC); None: for ever.
        prefect_version: Version of this package that made it.
        storage_block_id: Always None; for programs written for Prefect.
    """

    __slots__ = ("_serializer", "expiration", "prefect_version", "storage_block_id", "storage_key")

    def __init__(
        self,
        storage_key: str | None = None,
        expiration: datetime | None = None,
        serializer: Serializer[Any] | dict[str, Any] | None = None,
        prefect_version: str = __version__,
        storage_block_id: UUID | None = None,
    ) -> None:
        """``serializer`` may be the plain data that describes one; None is ``pickle``."""
        self.storage_key = storage_key
        self.expiration = expiration
        self._serializer: Any = serializer
        self.prefect_version = prefect_version
        self.storage_block_id = storage_block_id

    @property
    def serializer(self) -> Serializer[Any]:
        """What has made bytes of the value.

        Raises:
            ResultDamaged: There is no such serializer in this process.
        """
        known = self._serializer
        if known is None or isinstance(known, dict):
            from prefect_lite.serializers import PickleSerializer, serializer_from_spec

            described = cast("dict[str, Any] | None", known)
            try:
                known = PickleSerializer[Any]() if described is None else serializer_from_spec(described)
            except ConfigurationError as exc:
                kind = described.get("type") if described is not None else None
                raise ResultDamaged(
                    f"The stored result {self.storage_key!r} was written with the serializer {kind!r}, "
                    f"which can't be made here. {exc}"
                ) from exc
            self._serializer = known
        return known

    @property
    def expired(self) -> bool:
        """Whether other runs may not take it any more."""
        return self.expiration is not None and self.expiration <= clock.now()

    def model_dump(self, mode: str = "python") -> dict[str, Any]:
        """As a dict; with ``mode="json"`` of plain data."""
        plain = mode == "json"
        known = self._serializer
        if plain and isinstance(known, dict):
            described = cast("dict[str, Any]", known)
        elif plain:
            from prefect_lite.serializers import serializer_spec

            described = serializer_spec(self.serializer)
        else:
            described = self.serializer.model_dump()
        moment, block = self.expiration, self.storage_block_id
        return {
            "storage_key": self.storage_key,
            "expiration": moment.isoformat() if plain and moment is not None else moment,
            "serializer": described,
            "prefect_version": self.prefect_version,
            "storage_block_id": str(block) if plain and block is not None else block,
        }

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> ResultRecordMetadata:
        """What ``model_dump(mode="json")`` tells; fields that this version does not know are left out.

        Raises:
            ResultDamaged: It is something else.
        """
        try:
            moment = data.get("expiration")
            expiration = datetime.fromisoformat(moment) if moment is not None else None
            if expiration is not None and expiration.tzinfo is None:
                raise ValueError("a moment without a time zone")
            return cls(data["storage_key"], expiration, data["serializer"], data["prefect_version"])
        except (KeyError, TypeError, ValueError) as exc:
            raise ResultDamaged(
                f"The metadata of a stored result make no sense: {exc}. Delete it, or run the task again "
                f"with refresh_cache=True."
            ) from exc

    def dump_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(self.model_dump(mode="json"), separators=(",", ":")).encode()

    @classmethod
    def load_bytes(cls, data: bytes) -> ResultRecordMetadata:
        """What ``dump_bytes`` made.

        Raises:
            ResultDamaged: It is something else.
        """
        try:
            return cls.from_plain(json.loads(data))
        except (ValueError, AttributeError) as exc:
            raise ResultDamaged("The metadata of a stored result are no JSON object.") from exc

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ResultRecordMetadata):
            return NotImplemented
        return self.model_dump(mode="json") == other.model_dump(mode="json")

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.model_dump().items())
        return f"{type(self).__name__}({fields})"
