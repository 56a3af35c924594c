"""Which assets a run makes and reads, as its task and what travelled with it say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from prefect_lite.assets.core import Asset, listed

if TYPE_CHECKING:
    from prefect_lite.context import TaskRunContext

ASSETS: Final = "assets"
BY: Final = "materialized_by"
"""Of a task; and names among the options that travel, where ``with_options`` has changed them."""


def made_by(context: TaskRunContext) -> list[Asset]:
    """What a run makes, each key once."""
    travelled = context.options.__dict__.get("_assets")
    return once(
        listed(ASSETS, travelled) if travelled is not None else getattr(context.definition, ASSETS, ())
    )


def tool_of(context: TaskRunContext) -> str | None:
    """The tool that does the work of a run."""
    travelled = context.options.__dict__.get("_materialized_by")
    return travelled if travelled is not None else getattr(context.definition, BY, None)


def read_by(context: TaskRunContext) -> list[Asset]:
    """What its task says that a run reads, each key once."""
    return once(listed("asset_deps", context.options.asset_deps or ()))


def once(assets: Iterable[Asset]) -> list[Asset]:
    """Each key once, with the properties that were given last."""
    found: dict[str, Asset] = {}
    for asset in assets:
        if asset.properties is not None or asset.key not in found:
            found[asset.key] = asset
    return list(found.values())
