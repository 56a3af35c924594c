"""What has been recorded: ``list_assets`` and ``read_asset``."""

from __future__ import annotations

from prefect_lite.assets.core import Asset, asset_of
from prefect_lite.assets.records import AssetRecord, asset_from
from prefect_lite.client.asset_records import known_assets, known_runs
from prefect_lite.exceptions import ConfigurationError, ObjectNotFound
from prefect_lite.thread_or_loop import Waits, in_thread, on_loop


def list_assets(*, prefix: str = "", after: str = "", limit: int | None = 200) -> list[AssetRecord]:
    """The assets that are known, in the order of their keys.

    Args:
        prefix: Only those whose keys begin with this, such as ``s3://bucket/``.
        after: Begin after this key, for the next page.
        limit: How many at most. None: all.

    Raises:
        BrokerError: No broker answers, or its store does not.
    """
    return in_thread(_listed(prefix, after, limit))


async def alist_assets(*, prefix: str = "", after: str = "", limit: int | None = 200) -> list[AssetRecord]:
    """``list_assets`` for coroutines."""
    return await on_loop(_listed(prefix, after, limit))


def read_asset(asset: str | Asset, *, limit: int | None = 20, offset: int = 0) -> AssetRecord:
    """What is known of an asset, and of the runs that have made it.

    Args:
        asset: The asset or its key.
        limit: How many of its runs at most, newest first. None: all that are kept.
        offset: How many of the newest ones to leave out.

    Raises:
        ObjectNotFound: No run has named it.
        BrokerError: No broker answers, or its store does not.
    """
    return in_thread(_read(asset, limit, offset))


async def aread_asset(asset: str | Asset, *, limit: int | None = 20, offset: int = 0) -> AssetRecord:
    """``read_asset`` for coroutines."""
    return await on_loop(_read(asset, limit, offset))


def _listed(prefix: str, after: str, limit: int | None) -> Waits[list[AssetRecord]]:
    _check_count("limit", limit)
    found, _ = yield from known_assets(prefix, after, limit)
    return [asset_from(parts) for parts in found]


def _read(asset: str | Asset, limit: int | None, offset: int) -> Waits[AssetRecord]:
    _check_count("limit", limit)
    _check_count("offset", offset)
    key = asset_of(asset).key
    found = yield from known_runs(key, limit, offset)
    if found is None:
        raise ObjectNotFound(f"Nothing is known of the asset {key!r}: no run that is recorded has named it.")
    parts, runs, _ = found
    return asset_from(parts, runs)


def _check_count(name: str, value: int | None) -> None:
    if value is not None and value < 0:
        raise ConfigurationError(f"`{name}` must be >= 0, got {value!r}.")
