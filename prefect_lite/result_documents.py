"""Persisted results as they are in a storage: one JSON document with what it is, the value, and a signature.

::

    {"metadata": {"storage_key": ..., "expiration": ..., "serializer": {"type": "json"}, ...},
     "result": "<what the serializer made>", "encoding": "base64",
     "signature": {"key": "<key id>", "mac": "<hex>"}}

Where metadata have a storage of their own, ``result`` is not in it but is a file of its own. The signature is
HMAC-SHA256 over the namespace, the storage key, the metadata and the value; it is verified before anything is
decoded. Whoever can write to a storage but has no key of the keyring can't make a worker load what it wrote.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
from typing import Any, NamedTuple, cast

from prefect_lite.envelope import signed_prefix
from prefect_lite.exceptions import ResultDamaged, SerializationError
from prefect_lite.keyring import Keyring
from prefect_lite.settings import Settings, get_settings

CACHE = "cache"
"""The direction that is signed, see ``envelope.py``: nothing else's signature fits."""

_lengths = struct.Struct(">QQ")
_last: tuple[Settings, Keyring] | None = None


class Document(NamedTuple):
    """A document whose signature is right.

    Attributes:
        metadata: Plain data.
        body: What the serializer has made of the value; nothing of it was decoded.
    """

    metadata: dict[str, Any]
    body: bytes


def keyring() -> Keyring:
    """The keyring of this account, made by whoever comes first."""
    global _last
    settings = get_settings()
    last = _last
    if last is None or last[0] is not settings:
        from prefect_lite.embedded import load_or_create_keyring

        last = _last = settings, load_or_create_keyring(settings)
    return last[1]


def packed(metadata: dict[str, Any], body: bytes) -> bytes:
    """A signed document with metadata and value.

    Raises:
        SerializationError: There is no keyring to sign it with.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        signed = _signed({"metadata": metadata, "encoding": "base64"}, metadata, body)
        # Put in by hand, as `json` would make four more copies of what may be long.
        return b"".join((signed[:-1], b',"result":"', base64.b64encode(body), b'"}'))
    return _signed({"metadata": metadata, "result": text}, metadata, body)


def packed_metadata(metadata: dict[str, Any], body: bytes) -> bytes:
    """A signed document without the value, which is stored elsewhere."""
    return _signed({"metadata": metadata}, metadata, body)


def opened(key: str, data: bytes, body: bytes | None = None) -> Document:
    """Verify a document.

    Args:
        key: The storage key that it was found under.
        data: The document.
        body: The value, where it is stored elsewhere.

    Raises:
        ResultDamaged: It is no such document, or was altered, or signed by an unknown key or for another one.
    """
    try:
        document: Any = json.loads(data)
        metadata = cast("dict[str, Any]", document["metadata"])
        if body is None:
            text: str = document["result"]
            encoded = document.get("encoding") == "base64"
            body = base64.b64decode(text, validate=True) if encoded else text.encode()
        if not isinstance(metadata, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError("not an object")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise _damaged(key, "it is no document that this package has written") from exc
    _verify(key, document.get("signature"), metadata, body)
    return Document(metadata, body)


def key_in(data: bytes) -> str:
    """The storage key that a document is said to be of; not verified.

    Raises:
        ResultDamaged: It is no document.
    """
    try:
        return str(json.loads(data)["metadata"]["storage_key"])
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise ResultDamaged("This is no record of a result.") from exc


def _signed(document: dict[str, Any], metadata: dict[str, Any], body: bytes) -> bytes:
    ring = keyring()
    if not ring.signs:
        raise SerializationError(
            "Results can't be persisted without a keyring, as nobody could tell who has written them: put a "
            "key into the file that PREFECT_LITE_KEYRING names, or leave that unset to have one made."
        )
    mac = _mac(ring.signing_key, str(metadata["storage_key"]), metadata, body)
    document["signature"] = {"key": ring.signing_id, "mac": mac.hex()}
    return json.dumps(document, separators=(",", ":")).encode()


def _verify(key: str, signature: Any, metadata: dict[str, Any], body: bytes) -> None:
    signed: dict[str, Any] = cast("dict[str, Any]", signature) if isinstance(signature, dict) else {}
    signing_key = keyring().get(str(signed.get("key", "")))
    if signing_key is None:
        how = f"signed with the unknown key {signed.get('key')!r}" if signed else "not signed"
        raise _damaged(key, f"it is {how}; give all clients and workers the same keyring")
    try:
        matches = hmac.compare_digest(_mac(signing_key, key, metadata, body), bytes.fromhex(signed["mac"]))
    except (KeyError, TypeError, ValueError, RecursionError):
        matches = False
    if not matches:
        raise _damaged(
            key, "it does not match its signature: it was altered, or written for another key or namespace"
        )


def _mac(signing_key: bytes, key: str, metadata: dict[str, Any], body: bytes) -> bytes:
    described = json.dumps(metadata, sort_keys=True, separators=(",", ":")).encode()
    made = hmac.new(signing_key, signed_prefix(CACHE, get_settings().namespace, key), hashlib.sha256)
    made.update(_lengths.pack(len(described), len(body)) + described)
    made.update(body)
    return made.digest()


def _damaged(key: str, why: str) -> ResultDamaged:
    return ResultDamaged(
        f"The stored result {key!r} can't be used: {why}. Delete it, or run the task again with "
        f"refresh_cache=True."
    )
