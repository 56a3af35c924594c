"""``add_asset_metadata``: what a run has to say of an asset that it makes."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import numbers
import threading
from collections.abc import Iterable, Mapping, Set
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID
from weakref import WeakKeyDictionary

from prefect_lite.assets.core import Asset
from prefect_lite.assets.of_run import made_by
from prefect_lite.context import TaskRunContext
from prefect_lite.exceptions import ConfigurationError, MissingContextError, OptionTypeError
from prefect_lite.protocol.recorded_assets import MAX_METADATA_BYTES

if TYPE_CHECKING:
    from prefect_lite.runs import RunRecord

MAX_DEPTH: Final = 32

_lock = threading.Lock()
_noted: WeakKeyDictionary[RunRecord, tuple[int, dict[str, dict[str, Any]]]] = WeakKeyDictionary()
"""By run: the attempt, and what it has said of each asset. A record lives as long as its run, at least."""


def add_asset_metadata(asset: str | Asset, metadata: dict[str, Any]) -> None:
    """Note something about an asset that the current task makes, such as its number of rows.

    It is recorded with the run's end. What is noted by an attempt that fails and is tried again is forgotten.

    Args:
        asset: One of those that the task was given by ``@materialize``, or its key.
        metadata: Plain data by name, 32 KiB of JSON for an asset in all; times, UUIDs, paths, numbers of all
            kinds, sets, dataclasses and models are written as plain data. A name that is there already gets
            the new value.

    Raises:
        MissingContextError: Called outside of tasks.
        ConfigurationError: The current task does not make this asset, or this is too much.
        OptionTypeError: Something in it can't be written as plain data.
    """
    context = TaskRunContext.get()
    if context is None:
        raise MissingContextError(
            "Unable to call `add_asset_metadata` here: it works only inside a task that materializes assets, "
            "while it runs."
        )
    key = asset.key if isinstance(asset, Asset) else asset
    keys = [each.key for each in made_by(context)]
    if key not in keys:
        raise ConfigurationError(
            f"Can only add metadata to assets that are arguments to @materialize. The task "
            f"{context.definition.name!r} has {', '.join(keys) if keys else 'none'}, not {key!r}."
        )
    if not isinstance(cast("Any", metadata), Mapping):
        raise OptionTypeError(
            f"The metadata of an asset must be a dict, got {type(metadata).__name__} instead: {metadata!r}."
        )
    plain = {str(name): _plain(value, str(name)) for name, value in metadata.items()}
    with _lock:
        attempt, noted = _noted.get(context.run, (0, {}))
        if attempt != context.run.run_count:
            noted = {}
        new = {**noted.get(key, {}), **plain}
        size = len(as_json(new))
        if size > MAX_METADATA_BYTES:
            raise ConfigurationError(
                f"The metadata of the asset {key!r} would be {size:,} bytes of JSON; at most "
                f"{MAX_METADATA_BYTES:,} are kept. Put what is large into the asset itself."
            )
        _noted[context.run] = context.run.run_count, {**noted, key: new}


def noted_by(run: RunRecord) -> dict[str, dict[str, Any]]:
    """What the last attempt of a run has said of each asset, by key."""
    attempt, noted = _noted.get(run, (0, {}))
    return noted if attempt == run.run_count else {}


def as_json(value: Any) -> bytes:
    """JSON in UTF-8, without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _plain(value: Any, name: str, depth: int = MAX_DEPTH) -> Any:
    """``value`` as what JSON has.

    Raises:
        OptionTypeError: Nobody knows how.
    """
    if value is None or isinstance(value, (bool, str)):
        return value if type(value) is not str or value.isascii() else value.encode(errors="replace").decode()
    if isinstance(value, Enum):
        return _plain(value.value, name, depth)
    if isinstance(value, (Decimal, UUID, PurePath)):
        return str(value)
    if isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return number if math.isfinite(number) else str(number)
    items = _items(value)
    if items is None or depth == 0:
        why = "is nested too deeply" if items is not None else f"is a {type(value).__name__}: {value!r:.100}"
        raise OptionTypeError(
            f"What is noted of an asset as {name!r} has to be plain data (numbers, texts, times, lists, "
            f"dicts), but it {why}."
        )
    if isinstance(items, Mapping):
        mapping = cast("Mapping[Any, Any]", items)
        return {str(key): _plain(entry, name, depth - 1) for key, entry in mapping.items()}
    return [_plain(entry, name, depth - 1) for entry in items]


def _items(value: Any) -> Mapping[Any, Any] | Iterable[Any] | None:
    if isinstance(value, Mapping):
        return cast("Mapping[Any, Any]", value)
    if isinstance(value, (list, tuple, Set)):
        return cast("Iterable[Any]", value)
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    dump: Any = getattr(value, "model_dump", None)  # a pydantic model
    return cast("Mapping[Any, Any]", dump()) if callable(dump) else None
