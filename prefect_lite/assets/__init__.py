"""Assets: what tasks make and read outside of this program, such as tables, files and models.

``@materialize("s3://bucket/table")`` makes a function a task that makes this asset. Which run made it, with
what tool, from which others and with what metadata is recorded by the broker; ``list_assets`` and
``read_asset`` tell. Names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_lite.assets.core import Asset, AssetProperties
    from prefect_lite.assets.listing import alist_assets, aread_asset, list_assets, read_asset
    from prefect_lite.assets.metadata import add_asset_metadata
    from prefect_lite.assets.records import AssetRecord, Materialization
    from prefect_lite.assets.tracking import recording
    from prefect_lite.materializing import materialize

__all__ = [
    "Asset",
    "AssetProperties",
    "AssetRecord",
    "Materialization",
    "add_asset_metadata",
    "alist_assets",
    "aread_asset",
    "list_assets",
    "materialize",
    "read_asset",
    "recording",
]

_HOMES = {
    "prefect_lite.assets.core": ("Asset", "AssetProperties"),
    "prefect_lite.assets.listing": ("alist_assets", "aread_asset", "list_assets", "read_asset"),
    "prefect_lite.assets.metadata": ("add_asset_metadata",),
    "prefect_lite.assets.records": ("AssetRecord", "Materialization"),
    "prefect_lite.assets.tracking": ("recording",),
    "prefect_lite.materializing": ("materialize",),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
