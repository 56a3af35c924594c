"""What runs have made of assets: recorded, and read a page at a time.

An asset is in the shard that its key chooses, what a run has made is noted in the run's own.

=====================  ======  =======================================================================
key                    type    content
=====================  ======  =======================================================================
``assets``             ZSET    the keys of assets, all with score 0: in their order
``assets_at``          ZSET    the same by when they were heard of last; over ``ASSETS_KEPT`` the oldest go
``asset:<key>``        HASH    ``p`` properties (JSON), ``n`` how many runs were recorded, ``m``, ``f`` and
                               ``r`` when it was made, failed to be made, and read last; of the newest run
                               ``l`` its id, ``o`` its outcome and ``h`` what is said of it (JSON)
``asset_runs:<key>``   HASH    run id -> its record: outcome, head, sources, metadata (msgpack); the
                               newest ``RUNS_KEPT``
``asset_at:<key>``     ZSET    the same runs by when they were recorded
``made:<run>``         STRING  for a week: keys of the assets that it has made, or has read (msgpack)
=====================  ======  =======================================================================
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgpack

from prefect_lite.protocol.recorded_assets import AssetsWanted, RunOfAssets, RunsWanted, SaidOfAsset

from . import keys
from .lanes import pack
from .shard_calls import ShardCalls

RUNS_KEPT: Final = 1_000
"""Of each asset."""
ASSETS_KEPT: Final = 100_000
"""Of a namespace; the bound is kept in each shard, for its part."""
MADE_MS: Final = 7 * 86_400_000
"""So long it is known what a run has made, for runs that take its result."""
PART_BYTES: Final = 1 << 20
"""Of what one question has recorded at a time: with each asset goes all that is said of the run."""
PAGE_BYTES: Final = 200_000
"""Of a page; a single entry has less than 120,000, and an ANSWER has to fit a frame of 512 KiB."""


class KnownAsset(NamedTuple):
    """What is known of an asset; times are Redis TIME in ms, 0 for never.

    Attributes:
        key: Of the asset.
        properties: JSON, or empty.
        total: Runs recorded so far.
        made_ms: When it was made last.
        failed_ms: When a run has failed to make it last.
        read_ms: When it was named last by a run that reads it.
        run_id: Of the newest run, or empty.
        outcome: Of that run.
        head: JSON, what is said of that run.
    """

    key: str
    properties: bytes
    total: int
    made_ms: int
    failed_ms: int
    read_ms: int
    run_id: str
    outcome: str
    head: bytes


class RecordedRun(NamedTuple):
    """A run of an asset; see ``protocol.recorded_assets``."""

    run_id: str
    when_ms: int
    outcome: str
    head: bytes
    sources: bytes
    metadata: bytes


class AssetPage(NamedTuple):
    """Some assets in the order of their keys, and the last key if there are more."""

    assets: list[KnownAsset]
    following: str | None


class RunPage(NamedTuple):
    """Some runs of an asset, newest first, and the offset of the next one if there are more."""

    asset: KnownAsset
    runs: list[RecordedRun]
    following: int | None


class AssetCalls:
    """What is asked of a store about assets; rare beside the life of runs.

    Args:
        store: Has the shards.
    """

    def __init__(self, store: ShardCalls) -> None:
        self._store = store

    async def record(self, said: RunOfAssets) -> None:
        """Record what a run has made or read; may be repeated, also when only a part was done."""
        part: list[Coroutine[Any, Any, Any]] = []
        if said.tracked:
            words = (said.run_id, pack(said.tracked), MADE_MS)
            part.append(self._store.script("asset_note", self._store.shard_of(said.run_id), *words))
        room = PART_BYTES
        for said_of, one in self._said(said):
            record = pack([said_of.outcome, said_of.head, said_of.sources, one.metadata])
            weight = len(record) + len(said_of.head) + len(one.properties)
            room -= weight
            part.append(self._say(said_of, one, record, weight))
            if room < 0:
                await asyncio.gather(*part)
                part, room = [], PART_BYTES
        await asyncio.gather(*part)

    def _said(self, said: RunOfAssets) -> Iterator[tuple[RunOfAssets, SaidOfAsset]]:
        """Of what it has made the run is recorded, of what it has read only that."""
        if said.outcome:
            yield from ((said, one) for one in said.made)
        nothing = said._replace(run_id="", outcome="", head=b"", sources=b"")
        yield from ((nothing, one) for one in said.read)

    async def _say(self, said: RunOfAssets, one: SaidOfAsset, record: bytes, weight: int) -> None:
        shard = keys.shard_of_key(one.key, self._store.shards)
        kept = max(1, ASSETS_KEPT // self._store.shards)
        words = (one.key, one.properties, said.run_id, said.outcome, said.head, RUNS_KEPT, kept, record)
        await self._store.weighed("asset_record", shard, *words, weight=weight)

    async def of_runs(self, run_ids: Sequence[str]) -> dict[str, list[str]]:
        """The keys of what each run has made or read, of those that have noted any."""
        found = await asyncio.gather(*(self._noted(run_id) for run_id in run_ids))
        return {run_id: noted for run_id, noted in zip(run_ids, found, strict=True) if noted is not None}

    async def _noted(self, run_id: str) -> list[str] | None:
        shard = self._store.shard_of(run_id)
        packed = await self._store.command(
            "GET", self._store.prefixes[shard] + f"made:{run_id}".encode(), shard=shard
        )
        return None if packed is None else msgpack.unpackb(packed)

    async def page(self, wanted: AssetsWanted) -> AssetPage:
        """A page of all assets, in the order of their keys."""
        prefix, after = wanted.prefix.encode(), wanted.after.encode()
        first = b"(" + after if after and after >= prefix else b"[" + prefix if prefix else b"-"
        last = b"(" + prefix + b"\xff" if prefix else b"+"
        replies = await self._store.each("asset_list", first, last, wanted.limit, PAGE_BYTES)
        parts = [[_known(reply[i], reply[i + 1]) for i in range(1, len(reply), 2)] for reply in replies]
        # A shard that has more says nothing of what comes after its last one.
        ends = [part[-1].key for part, reply in zip(parts, replies, strict=True) if reply[0]]
        end = min(ends, default=None)
        page: list[KnownAsset] = []
        room = PAGE_BYTES
        for asset in heapq.merge(*parts):
            room -= len(asset.key) + len(asset.properties) + len(asset.head)
            full = len(page) == wanted.limit or (page and room < 0)
            if full or (end is not None and asset.key > end):
                return AssetPage(page, page[-1].key)
            page.append(asset)
        return AssetPage(page, end)

    async def runs_of(self, wanted: RunsWanted) -> RunPage | None:
        """What is known of an asset and a page of its runs; None when it is unknown."""
        shard = keys.shard_of_key(wanted.key, self._store.shards)
        words = (wanted.key, wanted.offset, wanted.limit, PAGE_BYTES)
        reply = await self._store.script("asset_read", shard, *words)
        if not reply:
            return None
        fields, count, *entries = reply
        runs = [
            RecordedRun(entries[i].decode(), int(float(entries[i + 1])), *msgpack.unpackb(entries[i + 2]))
            for i in range(0, len(entries), 3)
        ]
        following = wanted.offset + len(runs)
        return RunPage(_known(wanted.key.encode(), fields), runs, following if following < count else None)


def _known(key: bytes, fields: list[Any]) -> KnownAsset:
    properties, total, made, failed, read, run, outcome, head = fields
    return KnownAsset(
        key.decode(),
        properties or b"",
        int(total or 0),
        int(made or 0),
        int(failed or 0),
        int(read or 0),
        (run or b"").decode(),
        (outcome or b"").decode(),
        head or b"",
    )
