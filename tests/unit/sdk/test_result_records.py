"""Records of results, and the signed documents they are in a storage."""

from __future__ import annotations

import base64
import importlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_lite import result_documents, serializer_base
from prefect_lite.exceptions import MissingResult, ResultDamaged, SerializationError
from prefect_lite.keyring import Keyring
from prefect_lite.result_records import ResultRecord, ResultRecordMetadata
from prefect_lite.results import ResultStore
from prefect_lite.serializers import (
    CompressedSerializer,
    JSONSerializer,
    PickleSerializer,
    Serializer,
)
from prefect_lite.settings import get_settings
from prefect_lite.testing import frozen_clock
from prefect_lite.version import __version__

pytestmark = pytest.mark.usefixtures("client_home")

SOON = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@dataclass
class Point:
    x: int
    y: int


class Loaded(Exception):
    """Raised by what must not be loaded."""


class Trap:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return spring, ()


def spring() -> None:
    raise Loaded


class RawSerializer(Serializer[Any]):
    type: str = "raw-for-records"

    def dumps(self, obj: Any) -> bytes:
        return bytes(obj)

    def loads(self, blob: bytes) -> Any:
        return blob


def record(value: Any, serializer: Serializer[Any] | None = None, **metadata: Any) -> ResultRecord[Any]:
    return ResultRecord(value, ResultRecordMetadata("k", serializer=serializer, **metadata))


# -- round trips --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "serializer",
    [None, PickleSerializer(), JSONSerializer(), CompressedSerializer(serializer=JSONSerializer())],
    ids=["default", "pickle", "json", "compressed"],
)
@pytest.mark.parametrize("value", [None, 0, "é☃", {"a": [1, None, 2.5]}, Point(1, 2)], ids=repr)
def test_what_is_serialized_comes_back(value: Any, serializer: Serializer[Any] | None) -> None:
    made = record(value, serializer, expiration=SOON)
    back = ResultRecord.deserialize(made.serialize())
    assert back.result == value
    assert back == made
    assert back.expiration == SOON
    assert back.serializer == made.serializer


def test_the_document_is_json_with_metadata_and_the_text_of_the_serializer() -> None:
    document = json.loads(record([1, 2], JSONSerializer()).serialize())
    assert json.loads(document["result"]) == [1, 2]
    assert document["metadata"]["storage_key"] == "k"
    assert document["metadata"]["serializer"]["type"] == "json"
    assert document["metadata"]["prefect_version"] == __version__
    assert document["metadata"]["expiration"] is None
    assert document["metadata"]["storage_block_id"] is None
    assert document["signature"].keys() == {"key", "mac"}


@pytest.mark.parametrize("body", [b"", b"text", bytes(range(256)), b"\xff\xfe"], ids=repr)
def test_bytes_that_are_no_text_are_kept_too(body: bytes) -> None:
    data = record(body, RawSerializer()).serialize()
    assert ("encoding" in json.loads(data)) == (b"\xff" in body)
    assert ResultRecord.deserialize(data).result == body


def test_metadata_are_bytes_and_back() -> None:
    metadata = ResultRecordMetadata("k", SOON, JSONSerializer())
    assert ResultRecordMetadata.load_bytes(metadata.dump_bytes()) == metadata
    assert metadata.model_dump()["expiration"] is SOON
    assert metadata.model_dump(mode="json")["expiration"] == SOON.isoformat()
    assert json.loads(record(1).serialize_metadata())["storage_key"] == "k"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"storage_key": "k"}',
        b'{"storage_key": "k", "expiration": "2030-01-01T00:00:00", "serializer": {}, "prefect_version": ""}',
        b'{"storage_key": "k", "expiration": "soon", "serializer": {}, "prefect_version": ""}',
    ],
)
def test_metadata_that_make_no_sense_are_damaged(data: bytes) -> None:
    with pytest.raises(ResultDamaged):
        ResultRecordMetadata.load_bytes(data)


def test_records_are_equal_if_value_and_metadata_are() -> None:
    assert record(1) == record(1)
    assert record(1) != record(2)
    assert record(1) != record(1, JSONSerializer())
    assert record(1) != 1


def test_a_record_says_what_it_is() -> None:
    assert "storage_key='k'" in repr(record([1]))
    assert "result=[1]" in repr(record([1]))
    assert record(1).is_persisted is False


def test_expired_is_what_the_clock_says() -> None:
    with frozen_clock() as clock:
        now = clock.now()
        made = record(1, expiration=now + timedelta(seconds=10))
        assert not made.expired
        clock.advance(9.9)
        assert not made.expired
        clock.advance(0.1)
        assert made.expired
    assert not record(1).expired


def test_a_record_can_be_pickled() -> None:
    copy = pickle.loads(pickle.dumps(record({"a": 1})))
    assert copy == record({"a": 1})
    assert copy.result == {"a": 1}


def test_a_value_that_is_nowhere_is_missing() -> None:
    away = ResultRecord.found(ResultRecordMetadata("k"), b"", ResultStore())
    away._body = None
    with pytest.raises(MissingResult, match="not in memory"):
        _ = away.result


# -- values that don't fit ----------------------------------------------------------------------------


def test_a_value_that_the_serializer_does_not_take_says_which_and_what_to_do() -> None:
    with pytest.raises(SerializationError, match=r"object, can't be kept with .*'json'.*result_serializer"):
        record(object(), JSONSerializer()).serialize()


def test_a_body_that_can_not_be_decoded_is_damaged_with_the_remedy() -> None:
    data = signed({"result": "no json", "metadata": plain({"type": "json"})}, b"no json")
    with pytest.raises(ResultDamaged, match=r"can't be decoded by the serializer 'json'.*refresh_cache"):
        ResultRecord.deserialize(data)


def test_a_serializer_that_is_not_there_is_named() -> None:
    data = signed({"result": "x", "metadata": plain({"type": "of-somebody-else"})}, b"x")
    with pytest.raises(ResultDamaged, match=r"'of-somebody-else', which can't be made here"):
        ResultRecord.deserialize(data)


def test_the_module_of_a_serializer_is_imported_by_whoever_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "serializer_for_records"
    (tmp_path / f"{name}.py").write_text(
        "from prefect_lite.serializers import Serializer\n"
        "class Upper(Serializer):\n"
        "    type: str = 'upper-for-records'\n"
        "    def dumps(self, obj): return obj.upper().encode()\n"
        "    def loads(self, blob): return blob.decode()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    written = record("text", importlib.import_module(name).Upper()).serialize()
    monkeypatch.delitem(sys.modules, name)
    serializer_base._registry.pop("upper-for-records")
    assert ResultRecord.deserialize(written).result == "TEXT"
    serializer_base._registry.pop("upper-for-records")
    monkeypatch.delitem(sys.modules, name)
    (tmp_path / f"{name}.py").unlink()
    importlib.invalidate_caches()
    with pytest.raises(ResultDamaged, match=f"The module {name} of the serializer"):
        ResultRecord.deserialize(written)


# -- trust --------------------------------------------------------------------------------------------


def plain(serializer: dict[str, Any]) -> dict[str, Any]:
    return {
        "storage_key": "k",
        "expiration": None,
        "serializer": serializer,
        "prefect_version": __version__,
        "storage_block_id": None,
    }


def signed(document: dict[str, Any], body: bytes) -> bytes:
    return result_documents._signed(document, document["metadata"], body)  # pyright: ignore[reportPrivateUsage]


def altered(change: Callable[[dict[str, Any]], Any]) -> bytes:
    document = json.loads(record(Trap()).serialize())
    change(document)
    return json.dumps(document).encode()


def forged_body(document: dict[str, Any]) -> None:
    document["result"] = base64.b64encode(pickle.dumps(Trap())).decode() + "\n"


def encoded_differently(document: dict[str, Any]) -> None:
    document["result"] = base64.b64encode(b"other").decode()
    document["encoding"] = "base64"


ALTERATIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no signature": lambda document: document.pop("signature"),
    "signature of another shape": lambda document: document.update(signature=["k", "m"]),
    "empty mac": lambda document: document["signature"].update(mac=""),
    "mac that is no hex": lambda document: document["signature"].update(mac="zz"),
    "mac that is no text": lambda document: document["signature"].update(mac=5),
    "unknown key": lambda document: document["signature"].update(key="other"),
    "another body": forged_body,
    "another encoding": encoded_differently,
    "expiration": lambda document: document["metadata"].update(expiration=SOON.isoformat()),
    "serializer": lambda document: document["metadata"].update(
        serializer={"type": "pickle", "picklelib": "x"}
    ),
    "version": lambda document: document["metadata"].update(prefect_version="0"),
    "key": lambda document: document["metadata"].update(storage_key="l"),
    "one more field": lambda document: document["metadata"].update(more=1),
}


@pytest.mark.parametrize("change", ALTERATIONS.values(), ids=ALTERATIONS)
def test_an_altered_document_is_refused_before_anything_is_loaded(
    change: Callable[[dict[str, Any]], Any],
) -> None:
    with pytest.raises(ResultDamaged, match="can't be used") as caught:
        ResultRecord.deserialize(altered(change))
    assert "refresh_cache" in str(caught.value)


def test_the_trap_would_have_sprung() -> None:
    with pytest.raises(ResultDamaged, match="Loaded"):
        ResultRecord.deserialize(altered(lambda _: None))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b'{"metadata": 1, "result": ""}',
        b"[" * 100_000,
        b'{"metadata": {}}',
    ],
)
def test_what_is_no_document_is_damaged(data: bytes) -> None:
    with pytest.raises(ResultDamaged):
        ResultRecord.deserialize(data)
    with pytest.raises(ResultDamaged, match="no document that this package has written"):
        result_documents.opened("k", data)


def test_a_document_is_good_for_its_key_only() -> None:
    data = record(1).serialize()
    assert result_documents.opened("k", data).metadata["storage_key"] == "k"
    with pytest.raises(ResultDamaged, match="another key or namespace"):
        result_documents.opened("l", data)


def test_a_document_is_good_for_its_namespace_only(monkeypatch: pytest.MonkeyPatch) -> None:
    data = record(1).serialize()
    monkeypatch.setenv("PREFECT_LITE_NAMESPACE", "other")
    get_settings.cache_clear()  # type: ignore[attr-defined]
    with pytest.raises(ResultDamaged, match="another key or namespace"):
        ResultRecord.deserialize(data)


def with_keys(monkeypatch: pytest.MonkeyPatch, folder: Path, keys: dict[str, bytes]) -> None:
    path = folder / "other-keys.json"
    entries = [{"id": name, "key": key.hex()} for name, key in keys.items()]
    path.write_text(json.dumps({"keys": entries}))
    monkeypatch.setenv("PREFECT_LITE_KEYRING", str(path))
    get_settings.cache_clear()  # type: ignore[attr-defined]


def test_a_new_key_signs_and_the_old_one_still_verifies(
    monkeypatch: pytest.MonkeyPatch, client_home: Path
) -> None:
    with_keys(monkeypatch, client_home, {"old": b"o" * 32})
    old = record(1).serialize()
    with_keys(monkeypatch, client_home, {"new": b"n" * 32, "old": b"o" * 32})
    new = record(2).serialize()
    assert json.loads(new)["signature"]["key"] == "new"
    assert ResultRecord.deserialize(old).result == 1
    assert ResultRecord.deserialize(new).result == 2
    with_keys(monkeypatch, client_home, {"new": b"n" * 32})
    with pytest.raises(ResultDamaged, match="unknown key 'old'"):
        ResultRecord.deserialize(old)


def test_a_signature_of_an_envelope_is_none_of_a_document() -> None:
    from prefect_lite.envelope import seal

    ring = result_documents.keyring()
    sealed = seal(ring, "result", get_settings().namespace, "k", "", 0, b"", b"[1]")
    with pytest.raises(ResultDamaged):
        result_documents.opened("k", sealed)


def test_without_keys_nothing_is_written_or_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = record(1, JSONSerializer()).serialize()
    monkeypatch.setattr(result_documents, "keyring", Keyring)
    with pytest.raises(SerializationError, match="PREFECT_LITE_KEYRING"):
        record(1, JSONSerializer()).serialize()
    with pytest.raises(ResultDamaged, match="unknown key"):
        ResultRecord.deserialize(data)


def test_a_value_apart_from_its_metadata_is_signed_with_them() -> None:
    metadata = plain({"type": "json"})
    described = result_documents.packed_metadata(metadata, b"[1]")
    assert b"[1]" not in described
    assert ResultRecord.deserialize_from_result_and_metadata(b"[1]", described).result == [1]
    with pytest.raises(ResultDamaged):
        ResultRecord.deserialize_from_result_and_metadata(b"[2]", described)
    with pytest.raises(ResultDamaged):
        ResultRecord.deserialize_from_result_and_metadata(b"[1]", b"{}")


# -- cost ---------------------------------------------------------------------------------------------


def test_the_modules_load_no_pydantic() -> None:
    code = (
        "import sys, prefect_lite.result_records, prefect_lite.result_metadata, prefect_lite.broker_storage;"
        "assert 'pydantic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
