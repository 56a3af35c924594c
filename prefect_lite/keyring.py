"""The keys that clients and workers sign payloads with. The broker never has them.

The file is JSON: ``{"keys": [{"id": "k1", "key": "<hex>"}, ...]}``. The first key signs, all of them verify:
to change keys, put a new one first, and drop the old one when no run signed with it is left.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prefect_lite.exceptions import ConfigurationError

KEY_BYTES = 32
MIN_KEY_BYTES = 16


class Keyring:
    """Signing keys in order; empty means payloads are neither signed nor pickled.

    Attributes:
        signing_id: Id of the key that signs, "" without keys.
        signing_key: That key, b"" without keys.
        signs: Whether there is one; as ``bool()`` tells, without a call.
    """

    __slots__ = ("_keys", "signing_id", "signing_key", "signs")

    def __init__(self, keys: Iterable[tuple[str, bytes]] = ()) -> None:
        self._keys: dict[str, bytes] = {}
        for key_id, key in keys:
            if not key_id or len(key) < MIN_KEY_BYTES:
                raise ConfigurationError(
                    f"A key needs an id and at least {MIN_KEY_BYTES} bytes; {key_id!r} has {len(key)}."
                )
            self._keys.setdefault(key_id, key)
        self.signing_id, self.signing_key = next(iter(self._keys.items()), ("", b""))
        self.signs = bool(self._keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"Keyring({list(self._keys)})"  # never the keys

    def get(self, key_id: str) -> bytes | None:
        """The key to verify with, None when this ring lacks it."""
        return self._keys.get(key_id)

    @classmethod
    def generate(cls) -> Keyring:
        """A ring with one new random key."""
        return cls([(secrets.token_hex(4), secrets.token_bytes(KEY_BYTES))])

    @classmethod
    def load(cls, path: Path | str) -> Keyring:
        """Read a keyring file.

        Raises:
            ConfigurationError: It can't be read or is no keyring.
        """
        try:
            content: Any = json.loads(Path(path).read_text("utf-8"))
            return cls((str(entry["id"]), bytes.fromhex(entry["key"])) for entry in content["keys"])
        except OSError as exc:
            raise ConfigurationError(f"The keyring {path} can't be read: {exc.strerror}.") from exc
        except (ValueError, KeyError, TypeError) as exc:
            if isinstance(exc, ConfigurationError):
                raise
            raise ConfigurationError(f"{path} is not a keyring file.") from exc

    @classmethod
    def create(cls, path: Path | str) -> Keyring:
        """Make a keyring file with a new key, readable by its owner only; if there is one already, load that.

        Safe when several processes do it at once: the file appears complete or not at all.

        Raises:
            ConfigurationError: The folder can't be written.
        """
        path = Path(path)
        ring = cls.generate()
        keys = [{"id": key_id, "key": key.hex()} for key_id, key in ring._keys.items()]
        draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    json.dump({"keys": keys}, file, indent=1)
                os.link(draft, path)  # fails if another process was first
            finally:
                os.unlink(draft)
        except FileExistsError:
            return cls.load(path)
        except OSError as exc:
            raise ConfigurationError(f"The keyring {path} can't be written: {exc.strerror}.") from exc
        return ring
