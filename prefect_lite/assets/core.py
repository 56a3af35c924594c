"""What an asset is: a key that looks like a URI, and what people want to know of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, cast

from prefect_lite.exceptions import ConfigurationError, OptionTypeError

MAX_KEY: Final = 512
"""Characters of an asset's key."""
MAX_DESCRIPTION: Final = 2_500

_scheme = re.compile(r"[a-z0-9]+://").match
_REFUSED: Final = frozenset(" \"#%&'<>?[\\]^`{|}")


@dataclass(frozen=True, kw_only=True)
class AssetProperties:
    """What people want to know of an asset.

    Attributes:
        name: What they call it.
        url: Where they can look at it.
        description: At most 2,500 characters.
        owners: Who is to be asked about it.
    """

    name: str | None = None
    url: str | None = None
    description: str | None = None
    owners: list[str] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        for name in ("name", "url", "description"):
            _check_text(f"the {name} of an asset", getattr(self, name), optional=True)
        if self.description is not None and len(self.description) > MAX_DESCRIPTION:
            raise ConfigurationError(
                f"The description of an asset has {len(self.description):,} characters; at most "
                f"{MAX_DESCRIPTION:,} are possible. Put the rest behind its url."
            )
        owners: Any = self.owners
        if owners is not None:
            if isinstance(owners, (str, bytes, Mapping)) or not isinstance(owners, Iterable):
                raise OptionTypeError(f"The owners of an asset must be a list of strings, got {owners!r}.")
            listed = list(cast("Iterable[Any]", owners))
            for owner in listed:
                _check_text("each of the owners of an asset", owner)
            object.__setattr__(self, "owners", listed)

    def as_plain(self) -> dict[str, Any]:
        """Those that are given, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Asset:
    """Something outside of this program that a task makes or reads.

    Two of them are equal if key and properties are; either may be in a set or be a key of a dict.

    Attributes:
        key: Names it: a scheme of lower-case letters and digits, ``://``, and a path without spaces and
            without any of ``"#%&'<>?[\\]^`{|}``; at most 512 characters.
        properties: Given, they replace those that are known of the asset when it is next made or read.

    Raises:
        ConfigurationError: The key can't be one.
        OptionTypeError: A value of a wrong type.
    """

    key: str
    properties: AssetProperties | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        check_key(self.key)
        properties: Any = self.properties
        if isinstance(properties, Mapping):
            known = AssetProperties.__dataclass_fields__
            given = cast("Mapping[str, Any]", properties)
            object.__setattr__(
                self, "properties", AssetProperties(**{name: given[name] for name in given if name in known})
            )
        elif properties is not None and not isinstance(properties, AssetProperties):
            raise OptionTypeError(
                f"The properties of an asset must be AssetProperties, got {type(properties).__name__} "
                f"instead: {properties!r}."
            )

    def __str__(self) -> str:
        return self.key

    def add_metadata(self, metadata: dict[str, Any]) -> None:
        """``add_asset_metadata(self, metadata)``."""
        from prefect_lite.assets.metadata import add_asset_metadata

        add_asset_metadata(self, metadata)


def check_key(key: Any) -> None:
    """Refuse what can't be the key of an asset.

    Raises:
        OptionTypeError: It is no string.
        ConfigurationError: It has the wrong form.
    """
    _check_text("the key of an asset", key)
    bad = next((char for char in key if char in _REFUSED or not char.isprintable()), None)
    if bad is not None:
        raise ConfigurationError(f"The asset key {_short(key)} cannot contain the character {bad!r}.")
    if _scheme(key) is None:
        raise ConfigurationError(
            f"The asset key {_short(key)} is not a valid URI: it has to begin with a scheme of lower-case "
            f"letters and digits and '://', as in storage://bucket/folder/asset.csv."
        )
    if len(key) > MAX_KEY:
        raise ConfigurationError(
            f"The asset key {_short(key)} has {len(key):,} characters; it cannot exceed {MAX_KEY}."
        )


def asset_of(value: Any) -> Asset:
    """An asset, or the one that a key (or its plain form, see ``as_plain``) stands for.

    Raises:
        ConfigurationError: There is none.
    """
    if isinstance(value, Asset):
        return value
    if isinstance(value, Mapping):
        given = cast("Mapping[str, Any]", value)
        return Asset(key=cast("str", given.get("key")), properties=given.get("properties"))
    if not isinstance(value, str):
        raise OptionTypeError(
            f"Give an Asset(key=...) or the key of one, got {type(value).__name__} instead: {value!r}."
        )
    return Asset(key=value)


def listed(name: str, value: Any) -> list[Asset]:
    """The assets of a list, for the option ``name``.

    Args:
        name: For sentences.
        value: Assets and keys of assets.

    Raises:
        OptionTypeError: It is no list, or has something else in it.
        ConfigurationError: A key in it can't be one.
    """
    if isinstance(value, (str, bytes, Asset, Mapping)) or not isinstance(value, Iterable):
        got = f"{type(cast('object', value)).__name__} instead: {value!r}"
        raise OptionTypeError(f"`{name}` must be a list of assets or their keys, got {got}.")
    return [asset_of(one) for one in cast("Iterable[Any]", value)]


def as_plain(assets: Iterable[Asset]) -> list[Any]:
    """The assets as plain data that ``listed`` takes: keys, and maps of those with properties."""
    return [
        asset.key
        if asset.properties is None
        else {"key": asset.key, "properties": asset.properties.as_plain()}
        for asset in assets
    ]


def _check_text(what: str, value: Any, *, optional: bool = False) -> None:
    if not isinstance(value, str) and not (optional and value is None):
        sentence = f"{what} must be a string, got {type(value).__name__} instead: {value!r}."
        raise OptionTypeError(sentence[0].upper() + sentence[1:])


def _short(key: str) -> str:
    return repr(key if len(key) <= 100 else f"{key[:100]}...")
