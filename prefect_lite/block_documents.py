"""The form in which blocks are saved: JSON, signed with the keyring.

``{"version": 1, "key": key id, "body": text, "mac": hex}``, where the body is the JSON of the fields and the
module of the class. The MAC covers the direction "block", the namespace, slug, name and body; it is verified
before the body is looked at. With a keyring an unsigned document is refused.
"""

from __future__ import annotations

import hmac
import importlib
import json
import logging
import re
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

import pydantic
import pydantic_core

from prefect_lite.envelope import signed_prefix
from prefect_lite.exceptions import ConfigurationError, EnvelopeRejected
from prefect_lite.main_module import import_name_of

if TYPE_CHECKING:
    from prefect_lite.blocks import Block
    from prefect_lite.keyring import Keyring

B = TypeVar("B", bound="Block")

_with_password = re.compile(r"[a-z0-9+.-]+://[^/@:]*:[^/@]+@", re.IGNORECASE).match

logger = logging.getLogger("prefect_lite.blocks")

VERSION: Final = 1
DIRECTION: Final = "block"
SLUG: Final = "block_type_slug"
"""Among the fields of a block: of which class they are."""
INSIDE: Final = "prefect_lite.block_documents"
"""The context in which blocks are written as the fields of a document."""

_SECRETS = (pydantic.SecretStr, pydantic.SecretBytes, cast("type[Any]", pydantic.Secret))
_TELLING = ("secret", "password", "passwd", "token", "credential", "private_key", "account_key", "api_key")
"""Parts of names under which settings of storages hold secrets."""
_REMEDY = (
    "Saved blocks are not encrypted. Take it from the environment instead: in the settings of a storage by "
    "the value '${NAME}', in classes of your own by a field with exclude=True and a default_factory."
)


class Content(NamedTuple):
    """A verified document: the module of the class, and the block's fields."""

    module: str
    fields: dict[str, Any]


def fields_of(block: Block) -> dict[str, Any]:
    """The fields of a block as plain data.

    Raises:
        ConfigurationError: One has no JSON form, or is a secret.
    """
    path = _secret_path(block)
    if path is not None:
        raise ConfigurationError(f"{type(block).__name__}.{path} is secret and can't be saved. {_REMEDY}")
    try:
        fields = block.model_dump(mode="json", context=cast(Any, INSIDE), serialize_as_any=True)
    except pydantic_core.PydanticSerializationError as exc:
        raise ConfigurationError(f"A {type(block).__name__} can't be saved: {exc}.") from exc
    fields.pop(SLUG, None)
    return fields


def rebuilt(kind: type[B], fields: dict[str, Any], name: str) -> B:
    """A block from the fields that were saved.

    Raises:
        ConfigurationError: The class does not take them.
    """
    known = {key: value for key, value in fields.items() if _is_taken(kind, key)}
    if len(known) < len(fields):
        logger.warning(
            "The saved %s has fields that %s no longer has: %s.",
            name, kind.__name__, ", ".join(sorted(set(fields) - set(known))),
        )  # fmt: skip
    try:
        return kind.model_validate(known)
    except pydantic.ValidationError as exc:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in exc.errors())
        raise ConfigurationError(
            f"The saved {name} does not fit the class {kind.__name__} (any more). {problems}. "
            f"Save it again with overwrite=True."
        ) from None


def sealed(block: Block, slug: str, name: str) -> bytes:
    """The signed document of a block. Raises like ``fields_of``."""
    keyring, namespace = _keys()
    body = json.dumps({"module": import_name_of(type(block)), "fields": fields_of(block)})
    mac = _mac(keyring.signing_key, namespace, slug, name, body) if keyring.signs else ""
    return json.dumps({"version": VERSION, "key": keyring.signing_id, "body": body, "mac": mac}).encode()


def opened(document: bytes, slug: str, name: str) -> Content:
    """Verify a document, then decode it.

    Raises:
        EnvelopeRejected: Damaged, unsigned, altered, or saved under another name; nothing was decoded.
    """
    keyring, namespace = _keys()
    where = f"The saved {slug}/{name}"
    try:
        parts = json.loads(document)
        version, key_id, body, mac = (parts[field] for field in ("version", "key", "body", "mac"))
        if not all(isinstance(part, str) for part in (key_id, body, mac)):
            raise TypeError("not text")
    except (ValueError, KeyError, TypeError) as exc:
        raise EnvelopeRejected(f"{where} is damaged. Save it again with overwrite=True.") from exc
    if version != VERSION:
        raise EnvelopeRejected(f"{where} has version {version!r}, not {VERSION}; a newer version made it.")
    if keyring.signs:
        key = keyring.get(key_id)
        if key is None:
            signed = f"signed with the unknown key {key_id!r}" if key_id else "not signed"
            raise EnvelopeRejected(f"{where} is {signed}. Give all processes the same keyring.")
        if not hmac.compare_digest(_mac(key, namespace, slug, name, body), mac):
            raise EnvelopeRejected(
                f"{where} does not match its signature: it was altered, or saved under another name. "
                f"Save it again with overwrite=True."
            )
    content = json.loads(body)
    return Content(content["module"], content["fields"])


def import_home(slug: str, module: str | None) -> None:
    """Import the module that defines a class of blocks, if it can be."""
    if slug in _OURS:
        module = _OURS[slug]
    if module is not None:
        try:
            importlib.import_module(module)
        except ImportError as exc:
            raise ConfigurationError(
                f"The module {module}, which defines the blocks {slug!r}, can't be imported: {exc}."
            ) from exc


_OURS = dict.fromkeys(("local-file-system", "remote-file-system"), "prefect_lite.filesystems")


def _keys() -> tuple[Keyring, str]:
    from prefect_lite.client.runtime import get_runtime

    runtime = get_runtime()
    return runtime.keyring, runtime.namespace


def _mac(key: bytes, namespace: str, slug: str, name: str, body: str) -> str:
    head = signed_prefix(DIRECTION, namespace, f"{slug}/{name}")
    data = body.encode("utf-8", "surrogatepass")
    return hmac.digest(key, head + struct.pack(">Q", len(data)) + data, "sha256").hex()


def _is_taken(kind: type[Block], name: str) -> bool:
    if kind.model_config.get("extra") != "forbid":
        return True
    return any(name in (field, info.alias) for field, info in kind.model_fields.items())


def _secret_path(value: Any) -> str | None:
    """Where there is a secret in a value, None when there is none."""
    if isinstance(value, _SECRETS) or (isinstance(value, str) and _with_password(value)):
        return ""
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, pydantic.BaseModel):
        fields = type(value).model_fields.items()
        parts = [(name, getattr(value, name)) for name, field in fields if not field.exclude]
    elif isinstance(value, dict):
        parts = cast("dict[Any, Any]", value).items()
        for name, item in parts:
            if isinstance(item, str) and item and not item.startswith("${") and _tells_secret(str(name)):
                return str(name)
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts = enumerate(cast("list[Any]", value))
    for name, item in parts:
        if (path := _secret_path(item)) is not None:
            return f"{name}.{path}".rstrip(".")
    return None


def _tells_secret(name: str) -> bool:
    return any(word in name.lower() for word in _TELLING)
