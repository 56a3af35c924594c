"""Records of assets: what this process tells the broker of them, and asks.

Each function is a program for ``thread_or_loop``, like those of ``keeping.py``, and raises what they raise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prefect_lite.client.keeping import ask
from prefect_lite.protocol.recorded_assets import MAX_ASSETS, RunOfAssets, SaidOfAsset
from prefect_lite.thread_or_loop import Waits

QUESTION_BYTES: Final = 250_000
"""Of what is said in one question, which has to fit a frame of 512 KiB beside head and sources."""
PAGE: Final = 500
"""Entries asked for at once; an answer has as many as fit."""


def record_assets(said: RunOfAssets) -> Waits[None]:
    """Record what a run has made and read, in as many questions as it takes."""
    first = True
    for made, read in _parts(said.made, said.read):
        tracked = said.tracked if first else []
        first = False
        part = said._replace(
            made=[list(one) for one in made],  # type: ignore[arg-type]
            read=[list(one) for one in read],  # type: ignore[arg-type]
            tracked=tracked,
        )
        yield from ask("asset.record", list(part))


def _parts(
    made: Sequence[SaidOfAsset], read: Sequence[SaidOfAsset]
) -> Iterator[tuple[list[SaidOfAsset], list[SaidOfAsset]]]:
    part = list[SaidOfAsset](), list[SaidOfAsset]()
    size = 0
    for which, one in [*((0, one) for one in made), *((1, one) for one in read)]:
        length = sum(len(word) for word in one) * 4 if not one.key.isascii() else sum(map(len, one))
        if size + length > QUESTION_BYTES or len(part[which]) == MAX_ASSETS:
            yield part
            part, size = (list[SaidOfAsset](), list[SaidOfAsset]()), 0
        part[which].append(one)
        size += length
    yield part


def assets_of_runs(run_ids: Iterable[str]) -> Waits[tuple[dict[str, list[str]], dict[str, bytes]]]:
    """What is known of runs that others take results of.

    Args:
        run_ids: Of the runs.

    Returns:
        By run id the keys of the assets that it has made or read, if it has noted any; and of other runs that
        are known what they belong to, for ``belonging.restore``.
    """
    left = list(dict.fromkeys(run_ids))
    assets: dict[str, list[str]] = {}
    info: dict[str, bytes] = {}
    while left:
        value = (yield from ask("asset.of_runs", left[:MAX_ASSETS])).value
        assets.update(value["assets"])
        info.update(value["info"])
        left = [*value["left"], *left[MAX_ASSETS:]]
    return assets, info


def known_assets(prefix: str, after: str, limit: int | None) -> Waits[tuple[list[list[Any]], bool]]:
    """Assets in the order of their keys.

    Args:
        prefix: What their keys begin with.
        after: The key after which to begin; empty: at the first.
        limit: How many at most. None: all.

    Returns:
        The parts of each, see ``prefect_lite_broker.asset_queries``; and whether there are more.
    """
    found: list[list[Any]] = []
    while True:
        most = PAGE if limit is None else min(PAGE, limit - len(found))
        if most <= 0:
            return found, True
        page: Mapping[str, Any] = (yield from ask("asset.list", [prefix, after, most])).value
        found += page["assets"]
        if page["next"] is None:
            return found, False
        after = page["next"]


def known_runs(
    key: str, limit: int | None, offset: int = 0
) -> Waits[tuple[list[Any], list[list[Any]], bool] | None]:
    """What is known of an asset.

    Args:
        key: Of the asset.
        limit: How many of its runs at most, newest first. None: all that are kept.
        offset: How many of the newest ones to leave out.

    Returns:
        Its parts, those of its runs, and whether there are more; None when nothing is known of it.
    """
    asset: list[Any] | None = None
    runs: list[list[Any]] = []
    while True:
        most = PAGE if limit is None else min(PAGE, limit - len(runs))
        if asset is not None and most <= 0:
            return asset, runs, True
        page: Mapping[str, Any] | None = (
            yield from ask("asset.read", [key, max(1, most), offset + len(runs)])
        ).value
        if page is None:
            return None
        asset = page["asset"]
        runs += page["runs"][: max(0, most)]
        if page["next"] is None or most <= 0:
            return page["asset"], runs, page["next"] is not None
